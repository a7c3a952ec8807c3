//! The ticks that are to come, and what touches each of them.

use invoke_protocol::schedule::{ComingNote, ComingNoteKind, ComingTick, Overlap, ScheduleState};
use invoke_protocol::timing::{Pass, Shift};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::{blackout_words, fire_at, start_deadline};
use crate::access::Principal;
use crate::app::App;
use crate::problem::Refusal;
use crate::store::schedules::StoredSchedule;
use crate::store::{Session, ticks};
use crate::timing::{Plan, Tick};

/// Of how many of the last runs it is told how long the next will take.
const LAST_RUNS: u32 = 5;

/// The coming ticks of a schedule, at most `limit`.
///
/// # Errors
/// [`Refusal`] if the store has no answer, or the schedule's timing makes no sense any more.
pub async fn coming(
    app: &App,
    session: &mut Session,
    schedule: &StoredSchedule,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<ComingTick>, Refusal> {
    let calendars = app.calendars.of(session, &schedule.spec).await?;
    let plan = Plan::new(&schedule.spec.timing, calendars)
        .map_err(|error| Refusal::invalid(error.to_string()))?;
    let owner = Principal::absent(session, &schedule.owner).await?;
    let facts = Facts {
        schedule,
        owner_is_good: owner.is_some(),
        usual: usual(&ticks::durations(session, schedule.id, LAST_RUNS).await?),
    };
    let from = schedule.decided_until.max(now);
    let mut coming = plan.ticks_after(from).peekable();
    let mut told = Vec::new();
    while told.len() < limit as usize
        && let Some(tick) = coming.next()
    {
        let after = coming.peek().map(|next| next.instant);
        let skipped = told.is_empty() && schedule.skip_next;
        told.push(facts.tell(&plan, &tick, after, skipped));
    }
    Ok(told)
}

/// What is known of a schedule besides its times.
struct Facts<'a> {
    schedule: &'a StoredSchedule,
    owner_is_good: bool,
    /// How long a run takes, if there were any.
    usual: Option<SignedDuration>,
}

impl Facts<'_> {
    fn tell(
        &self,
        plan: &Plan,
        tick: &Tick,
        after: Option<Timestamp>,
        skipped: bool,
    ) -> ComingTick {
        let (id, spec) = (self.schedule.id, &self.schedule.spec);
        let mut notes = Vec::new();
        let mut note = |kind, message: String| notes.push(ComingNote { kind, message });
        match &self.schedule.state {
            ScheduleState::Active => {}
            ScheduleState::Paused { .. } => {
                note(
                    ComingNoteKind::Skipped,
                    "will be skipped: the schedule is paused".to_owned(),
                );
            }
            ScheduleState::Suspended { reason, .. } => {
                let message = format!("will be skipped: the schedule is suspended, {reason}");
                note(ComingNoteKind::Skipped, message);
            }
        }
        if skipped {
            note(
                ComingNoteKind::Skipped,
                "will be skipped: somebody said so".to_owned(),
            );
        }
        if let Some(blackout) = &tick.blackout {
            let message = format!("will be skipped: {}", blackout_words(blackout));
            note(ComingNoteKind::Blackout, message);
        }
        if let Some(shift) = &tick.shift {
            note(ComingNoteKind::DaylightSaving, words(shift));
        }
        if let Some(message) = self.overlap(tick.instant, after) {
            note(ComingNoteKind::Overlap, message);
        }
        if !self.owner_is_good {
            let owner = &self.schedule.owner;
            let message =
                format!("will be refused: the owner {owner} has no valid credential any more");
            note(ComingNoteKind::Rights, message);
        }
        let jitter = fire_at(id, spec, tick.instant).duration_since(tick.instant);
        ComingTick {
            instant: tick.instant,
            local: tick.instant.to_zoned(plan.zone().clone()).to_string(),
            jitter_seconds: u64::try_from(jitter.as_secs()).unwrap_or_default(),
            start_deadline: start_deadline(id, spec, tick.instant),
            notes,
        }
    }

    /// Whether a run that starts then would probably go on at the tick after.
    fn overlap(&self, instant: Timestamp, after: Option<Timestamp>) -> Option<String> {
        let (usual, gap) = (self.usual?, after?.duration_since(instant));
        (usual > gap && self.schedule.spec.overlap != Overlap::Allow).then(|| {
            format!(
                "will probably go on at the next one: the last runs took {usual:#}, and the next is due after {gap:#}"
            )
        })
    }
}

/// The middle one.
fn usual(durations: &[SignedDuration]) -> Option<SignedDuration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len() / 2)?;
    Some(SignedDuration::from_secs(middle.as_secs()))
}

fn words(shift: &Shift) -> String {
    let distance = |seconds: i32| {
        Offset::from_seconds(seconds)
            .map_or_else(|_| format!("{seconds} s"), |offset| offset.to_string())
    };
    match shift {
        Shift::Gap { wanted } => format!(
            "{} does not exist on that day, as clocks are set forward: it runs right after",
            wanted.strftime("%H:%M")
        ),
        Shift::Fold { pass: Pass::First } => {
            "clocks are set back: this time comes twice, and it runs the first time".to_owned()
        }
        Shift::Fold { pass: Pass::Second } => {
            "clocks are set back: this is the second time that it is so late".to_owned()
        }
        Shift::UtcOffset {
            before_seconds,
            after_seconds,
        } => format!(
            "clocks have changed since the one before: the zone is UTC{} now, and was UTC{}",
            distance(*after_seconds),
            distance(*before_seconds)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_is_what_lies_in_the_middle() {
        let seconds = |all: &[i64]| {
            let all: Vec<_> = all.iter().copied().map(SignedDuration::from_secs).collect();
            usual(&all).map(|usual| usual.as_secs())
        };
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[7]), Some(7));
        assert_eq!(seconds(&[1, 100, 2]), Some(2));
    }
}
