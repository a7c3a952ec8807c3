//! Looks at the schedules that are due, and does what is due: every tick gets its entry in the ledger, and its
//! run if it is to have one.
//!
//! ```text
//!   due ──▶ a look: one transaction that holds the schedule's row
//!             1  runs that are over are concluded: result, another attempt, notices     (conclude)
//!             2  ticks that wait are decided again                                      (decision)
//!             3  ticks that are due now are decided, for the first and only time        (decision)
//!             4  what is to run is made: a job with its outbox entry, or a fan-out      (launch)
//!           commit ──▶ what is to be cancelled is cancelled
//! ```
//!
//! **Any number of dispatchers may look; one of them decides.** A look holds the schedule's row, and writes it by
//! compare-and-set. A tick is named by the schedule, its revision and the moment in UTC: the ledger takes it
//! once, and its job's idempotency key is made of that name, so even a look that is repeated by mistake makes no
//! second job.
//!
//! **When a tick is due is computed anew at every look**, from what was asked, after the last tick that was
//! decided. What the store says of the next time only says when to look. So a clock that steps back runs nothing
//! twice, and rules of a time zone that have changed hold from the next start on.

pub mod decision;
pub mod known_calendars;
pub mod coming;
mod look;
mod conclude;
mod launch;
mod notices;
pub mod webhooks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use invoke_protocol::id::ScheduleId;
use invoke_protocol::job::DEFAULT_START_WITHIN_SECONDS;
use invoke_protocol::schedule::ScheduleSpec;
use invoke_protocol::timing::Blackout;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::problem::chain;
use crate::store::{self, schedules};
use crate::{clock, timing};

pub use look::{Look, Lost};

/// How long to wait at most between two rounds: how late another dispatcher's word may be heard.
const ROUND: Duration = Duration::from_secs(1);

/// How many schedules are looked at in one go.
const AT_ONCE: u32 = 500;

/// How many of these at the same time.
const BESIDE: usize = 8;

/// The scheduler of one dispatcher.
pub struct Scheduler {
    app: Arc<App>,
}

impl Scheduler {
    /// A scheduler.
    #[must_use]
    pub const fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Goes round until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut looked_at_all = false;
        loop {
            let round = async {
                if !looked_at_all {
                    self.look_at_all().await?;
                    looked_at_all = true;
                }
                self.round(clock::now()).await
            };
            let pause = match round.await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!("a round of the scheduler failed: {}", chain(&error));
                    ROUND
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look_at_all(&self) -> Result<(), store::Error> {
        let mut session = self.app.store.write().await?;
        schedules::look_at_all(&mut session).await?;
        session.commit().await
    }

    /// One round. Answers when the next is due.
    ///
    /// # Errors
    /// [`store::Error`]; what was not done is due in the next round.
    pub async fn round(&self, now: Timestamp) -> Result<Duration, store::Error> {
        let begun = Instant::now();
        let mut session = self.app.store.read().await?;
        let due = schedules::due(&mut session, now, AT_ONCE).await?;
        drop(session);
        let is_all = due.len() < AT_ONCE as usize;
        // The last of many is looked at later than the first, and as late as it is.
        let looks = stream::iter(due).map(|id| self.look(id, since(now, begun)));
        let mut looks = looks.buffer_unordered(BESIDE);
        let mut failure = Ok(());
        while let Some(looked) = looks.next().await {
            // One schedule that cannot be looked at holds no other back.
            failure = failure.and(looked);
        }
        failure?;
        match is_all {
            true => self.pause(since(now, begun)).await,
            false => Ok(Duration::ZERO),
        }
    }

    async fn look(&self, id: ScheduleId, now: Timestamp) -> Result<(), store::Error> {
        let looked = Look::at(&self.app, id, now).await;
        looked.inspect_err(|error| {
            tracing::warn!(schedule.id = %id, "schedule {id} cannot be looked at: {}", chain(error));
        })
    }

    /// Until the next tick, to the millisecond.
    async fn pause(&self, now: Timestamp) -> Result<Duration, store::Error> {
        let mut session = self.app.store.read().await?;
        let next = schedules::next_due(&mut session).await?;
        let until = next.map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
        Ok(until.map_or(ROUND, |until| until.clamp(Duration::from_millis(1), ROUND)))
    }
}

/// What time it is, if it was `then` at a moment of monotonic time.
fn since(then: Timestamp, moment: Instant) -> Timestamp {
    let later = then.saturating_add(moment.elapsed()).unwrap_or(then);
    // As the store keeps it.
    Timestamp::from_microsecond(later.as_microsecond()).unwrap_or(later)
}

/// When a tick is fired: its moment, and its jitter.
#[must_use]
pub fn fire_at(schedule: ScheduleId, spec: &ScheduleSpec, instant: Timestamp) -> Timestamp {
    let seconds = spec.timing.jitter_seconds.unwrap_or(0);
    let jitter = timing::jitter(*schedule.as_uuid(), instant, seconds);
    instant.saturating_add(jitter).unwrap_or(Timestamp::MAX)
}

/// The last moment at which a tick's run may start because of its window; `None` without one.
#[must_use]
pub fn window_deadline(spec: &ScheduleSpec, instant: Timestamp) -> Option<Timestamp> {
    let cutoff = spec.timing.cutoff_seconds.unwrap_or(0);
    let window = spec.timing.window_seconds?.saturating_sub(cutoff);
    Some(later(instant, window))
}

/// The last moment at which a tick's run may start in time: within its window or, without one, as soon as any
/// job has to.
#[must_use]
pub fn start_deadline(id: ScheduleId, spec: &ScheduleSpec, instant: Timestamp) -> Timestamp {
    let asked = spec.run.job().start_within_seconds;
    let window = window_deadline(spec, instant);
    let patience = match (asked, window) {
        (Some(seconds), _) => Some(seconds),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_START_WITHIN_SECONDS),
    };
    let patience = patience.map(|seconds| later(fire_at(id, spec, instant), seconds));
    [patience, window]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(Timestamp::MAX)
}

/// Why calendars do not allow a tick, in words.
fn blackout_words(blackout: &Blackout) -> String {
    match blackout {
        Blackout::Closed { calendar, event } if event.is_empty() => {
            format!("calendar {calendar} is closed then")
        }
        Blackout::Closed { calendar, event } => {
            format!("calendar {calendar} is closed then ({event})")
        }
        Blackout::NotOpen { calendars } => {
            format!("no event of {} is then", calendars.join(", "))
        }
    }
}

fn later(from: Timestamp, seconds: u64) -> Timestamp {
    let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    from.saturating_add(seconds).unwrap_or(Timestamp::MAX)
}
