//! `…/v1/schedules`: what is run at times of its own.

pub(super) mod list;
pub(super) mod show;
pub(super) mod put;
pub(super) mod delete;
pub(super) mod next;
pub(super) mod ticks;
pub(super) mod pause;
pub(super) mod resume;
pub(super) mod skip;
pub(super) mod run;
pub(super) mod take_over;
pub(super) mod webhook_key;

use invoke_protocol::id::ScheduleName;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{ComingTick, Schedule};
use jiff::Timestamp;

use crate::access::Person;
use crate::app::App;
use crate::problem::Refusal;
use crate::schedule::{Look, coming, fire_at};
use crate::store::schedules::{self, StoredSchedule};
use crate::store::{Session, ticks as ledger};

/// The schedule of this name, or a refusal that helps to find the right one.
async fn find(session: &mut Session, name: &ScheduleName) -> Result<StoredSchedule, Refusal> {
    match schedules::by_name(session, name).await? {
        Some(schedule) => Ok(schedule),
        None => Err(unknown(session, name).await?),
    }
}

async fn unknown(session: &mut Session, name: &ScheduleName) -> Result<Refusal, Refusal> {
    let all = schedules::all(session).await?;
    let names = all.iter().map(|schedule| schedule.name.as_str());
    let hint = match super::cluster_choice::near(name.as_str(), names) {
        Some(near) => format!("did you mean {near}?"),
        None => "`invoke schedule list` shows those that there are".to_owned(),
    };
    Ok(Refusal::new(
        ProblemCode::ScheduleNotFound,
        format!("there is no schedule {name}; {hint}"),
    ))
}

/// Holds a schedule for a change: nobody else changes or looks at it until that is over.
async fn hold<'a>(
    person: &'a Person,
    name: &ScheduleName,
    now: Timestamp,
) -> Result<Look<'a>, Refusal> {
    let mut session = person.app.store.write().await?;
    match schedules::by_name_held(&mut session, name).await? {
        Some(schedule) => Ok(Look::of(&person.app, session, schedule, now).await?),
        None => Err(unknown(&mut session, name).await?),
    }
}

/// Writes a change, and shows the schedule as it is then.
async fn finish(
    mut look: Look<'_>,
    person: &Person,
    action: &str,
    now: Timestamp,
) -> Result<Schedule, Refusal> {
    look.record(&person.principal.name, action).await?;
    let name = look.schedule().name.clone();
    let finished = look.finish().await?;
    finished.map_err(|_lost| changed(&name))?;
    tracing::info!("schedule {name}: {action} by {}", person.principal.name);
    let mut session = person.app.store.read().await?;
    let schedule = find(&mut session, &name).await?;
    shown(&person.app, &mut session, schedule, now).await
}

fn changed(name: &ScheduleName) -> Refusal {
    Refusal::new(
        ProblemCode::ScheduleChanged,
        format!(
            "schedule {name} was changed by somebody else at this moment: look at it, and try again"
        ),
    )
}

/// A schedule as people see it.
async fn shown(
    app: &App,
    session: &mut Session,
    schedule: StoredSchedule,
    now: Timestamp,
) -> Result<Schedule, Refusal> {
    let last = ledger::page(session, schedule.id, None, 1).await?;
    let next = next_of(app, session, &schedule, now).await?;
    Ok(Schedule {
        last: last.first().map(|tick| tick.view(&schedule.name)),
        id: schedule.id,
        name: schedule.name,
        revision: schedule.revision,
        owner: schedule.owner,
        spec: schedule.spec,
        secrets: schedule.secret_names,
        state: schedule.state,
        next,
        skip_next: schedule.skip_next,
        failures: schedule.failures,
        created: schedule.created_at,
        changed: schedule.changed_at,
    })
}

/// When it is due next: computed where nobody has looked at it since it was changed.
async fn next_of(
    app: &App,
    session: &mut Session,
    schedule: &StoredSchedule,
    now: Timestamp,
) -> Result<Option<Timestamp>, Refusal> {
    match schedule.due_at {
        Some(due) if due <= now => {
            let coming = coming::coming(app, session, schedule, 1, now).await?;
            let fired = |tick: &ComingTick| fire_at(schedule.id, &schedule.spec, tick.instant);
            Ok(coming.first().map(fired))
        }
        next => Ok(next),
    }
}
