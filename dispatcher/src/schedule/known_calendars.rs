//! The calendars as they were understood last: reading a file anew for every look would cost more than the look.

use std::sync::{Arc, Mutex, PoisonError};

use invoke_protocol::id::CalendarName;
use invoke_protocol::schedule::{CalendarKind, ScheduleSpec};

use crate::store::calendars::{self, StoredCalendar};
use crate::store::{self, Session};
use crate::timing::Calendars;
use crate::timing::calendar::Calendar;

/// The calendars of a store, understood.
#[derive(Debug, Default)]
pub struct KnownCalendars {
    last: Mutex<Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    /// What the store says of its calendars' age: while that is the same, these are all there are.
    stamp: (i64, i64),
    calendars: Arc<Vec<Understood>>,
}

#[derive(Debug)]
struct Understood {
    name: CalendarName,
    kind: CalendarKind,
    calendar: Arc<Calendar>,
}

impl KnownCalendars {
    /// The calendars that hold for a schedule.
    ///
    /// # Errors
    /// [`store::Error`], also if a file that was understood when it was imported is not any more: a schedule that
    /// nobody can tell to be allowed does not run.
    pub async fn of(
        &self,
        session: &mut Session,
        spec: &ScheduleSpec,
    ) -> Result<Calendars, store::Error> {
        let known = self.all(session).await?;
        let with = |wanted: &dyn Fn(&Understood) -> bool| {
            let wanted = known.iter().filter(|known| wanted(known));
            wanted
                .map(|known| Arc::clone(&known.calendar))
                .collect::<Vec<_>>()
        };
        Ok(Calendars {
            closed: with(&|known| {
                known.kind == CalendarKind::Closed && !spec.ignored_calendars.contains(&known.name)
            }),
            open: with(&|known| {
                known.kind == CalendarKind::Open && spec.open_calendars.contains(&known.name)
            }),
        })
    }

    async fn all(&self, session: &mut Session) -> Result<Arc<Vec<Understood>>, store::Error> {
        let stamp = calendars::stamp(session).await?;
        if let Some(calendars) = self.known(stamp) {
            return Ok(calendars);
        }
        let stored = calendars::all(session).await?;
        let calendars = stored.iter().map(understand);
        let calendars = Arc::new(calendars.collect::<Result<Vec<_>, _>>()?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known {
            stamp,
            calendars: Arc::clone(&calendars),
        });
        Ok(calendars)
    }

    fn known(&self, stamp: (i64, i64)) -> Option<Arc<Vec<Understood>>> {
        let known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.stamp == stamp)?;
        Some(Arc::clone(&known.calendars))
    }
}

fn understand(stored: &StoredCalendar) -> Result<Understood, store::Error> {
    let calendar = Calendar::parse(stored.name.as_str(), &stored.ics, stored.time_zone.as_ref());
    let calendar = calendar.map_err(|error| store::Error::Contradiction {
        table: "calendars",
        column: "ics",
        row: stored.name.to_string(),
        source: Box::new(error),
    })?;
    Ok(Understood {
        name: stored.name.clone(),
        kind: stored.kind,
        calendar: Arc::new(calendar),
    })
}
