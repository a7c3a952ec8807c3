//! What becomes of ticks: decided here, by functions of what is known, and done elsewhere.

use invoke_protocol::job::IfOffline;
use invoke_protocol::schedule::{CatchUp, Overlap, ScheduleState, TickCause, TickOutcome};
use jiff::Timestamp;

/// A tick that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// The last moment at which it may start even if it is caught up: the end of its window.
    pub window_deadline: Option<Timestamp>,
}

/// Which of several due ticks is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// In time.
    InTime,
    /// Late, because that is wanted.
    CatchUp,
    /// Not at all.
    Missed(TickCause),
}

/// Chooses among the ticks that are due at one moment, in their order. Normally that is one. After a time in
/// which nobody looked it is many, and their policy says which are run.
#[must_use]
pub fn choose(due: &[Due], policy: CatchUp, now: Timestamp) -> Vec<Choice> {
    let wanted = match policy {
        CatchUp::None | CatchUp::Last => 1,
        CatchUp::All(most) => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let missed = due.len().saturating_sub(wanted);
    let choice = |(index, tick): (usize, &Due)| {
        let is_alive = now <= tick.start_deadline;
        let is_open = tick.window_deadline.is_none_or(|deadline| now <= deadline);
        match (index < missed, is_alive) {
            (true, true) => Choice::Missed(TickCause::Superseded),
            (true, false) => Choice::Missed(TickCause::NobodyThere),
            (false, true) => Choice::InTime,
            (false, false) if policy == CatchUp::None => Choice::Missed(TickCause::NobodyThere),
            (false, false) if is_open => Choice::CatchUp,
            (false, false) => Choice::Missed(TickCause::TooLate),
        }
    };
    due.iter().enumerate().map(choice).collect()
}

/// All that decides about one tick.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// Whether the schedule is at work.
    pub state: &'a ScheduleState,
    /// Why the calendars do not allow it, if so.
    pub blackout: Option<String>,
    /// Whether somebody said that the next is to be skipped.
    pub skip_next: bool,
    /// Which of those that are due this is.
    pub choice: Choice,
    /// Whether somebody asked for it.
    pub by_hand: bool,
    /// Whether it waits already.
    pub waits: bool,
    /// What to do while another run goes on.
    pub overlap: Overlap,
    /// Whether one does.
    pub run_goes_on: bool,
    /// Whether another tick, an earlier one, waits for that.
    pub another_waits: bool,
    /// Why its cluster cannot be reached, if so.
    pub absence: Option<String>,
    /// What to do then.
    pub if_offline: IfOffline,
}

/// What to do with a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Run it.
    Run,
    /// Let it wait.
    Wait(Entry),
    /// Cancel what runs, and let it wait for the end of that.
    CancelAndWait(Entry),
    /// Do not run it, ever.
    Never(Entry),
}

/// What the ledger says of a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What became of it.
    pub outcome: TickOutcome,
    /// Why.
    pub cause: TickCause,
    /// The particulars.
    pub message: String,
}

impl Entry {
    /// An entry.
    #[must_use]
    pub fn new(outcome: TickOutcome, cause: TickCause, message: impl Into<String>) -> Self {
        Self {
            outcome,
            cause,
            message: message.into(),
        }
    }
}

/// Decides. What a person said comes before what a calendar says, that before what was missed, and that before
/// what is in the way at this moment.
#[must_use]
pub fn decide(situation: &Situation<'_>) -> Decision {
    let skipped =
        |cause, message: String| Decision::Never(Entry::new(TickOutcome::Skipped, cause, message));
    match situation.state {
        ScheduleState::Paused { by, reason, .. } if !situation.by_hand => {
            return skipped(TickCause::Paused, paused(by, reason));
        }
        ScheduleState::Suspended { reason, .. } => {
            return skipped(TickCause::Suspended, reason.clone());
        }
        ScheduleState::Paused { .. } | ScheduleState::Active => {}
    }
    if let Some(words) = &situation.blackout {
        return skipped(TickCause::Blackout, words.clone());
    }
    if situation.skip_next && !situation.waits && !situation.by_hand {
        return skipped(TickCause::ByHand, "somebody said so".to_owned());
    }
    if let Choice::Missed(cause) = situation.choice {
        let message = match cause {
            TickCause::Superseded => "a later tick was due as well",
            TickCause::TooLate => "its window was over before a dispatcher looked",
            _ => "no dispatcher looked in time",
        };
        return Decision::Never(Entry::new(TickOutcome::Missed, cause, message));
    }
    overlapping(situation)
        .or_else(|| offline(situation))
        .unwrap_or(Decision::Run)
}

fn paused(by: &str, reason: &str) -> String {
    match reason {
        "" => format!("paused by {by}"),
        reason => format!("paused by {by}: {reason}"),
    }
}

/// What another run that goes on makes of it.
fn overlapping(situation: &Situation<'_>) -> Option<Decision> {
    if situation.overlap == Overlap::Allow || !(situation.run_goes_on || situation.another_waits) {
        return None;
    }
    let queued = || {
        Entry::new(
            TickOutcome::Queued,
            TickCause::Overlap,
            "another run goes on",
        )
    };
    // What is caught up is run one after the other.
    if situation.waits || situation.choice == Choice::CatchUp {
        return Some(Decision::Wait(queued()));
    }
    let skipped = |message: &str| {
        Decision::Never(Entry::new(
            TickOutcome::Skipped,
            TickCause::Overlap,
            message,
        ))
    };
    Some(match situation.overlap {
        Overlap::Skip | Overlap::Allow => skipped("the run before it went on"),
        Overlap::QueueOne | Overlap::CancelRunning if situation.another_waits => {
            skipped("the run before it went on, and another tick waited for its end already")
        }
        Overlap::QueueOne => Decision::Wait(queued()),
        Overlap::CancelRunning => Decision::CancelAndWait(queued()),
    })
}

/// What an unreachable cluster makes of it.
fn offline(situation: &Situation<'_>) -> Option<Decision> {
    let absence = situation.absence.clone()?;
    let entry = |outcome| Entry::new(outcome, TickCause::ClusterOffline, absence);
    Some(match situation.if_offline {
        IfOffline::Wait => Decision::Wait(entry(TickOutcome::Deferred)),
        IfOffline::Fail => Decision::Never(entry(TickOutcome::Missed)),
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    /// One a minute, each with a quarter of an hour to start.
    fn due(minutes: std::ops::Range<i64>) -> Vec<Due> {
        minutes
            .map(|minute| Due {
                start_deadline: at(minute + 15),
                window_deadline: None,
            })
            .collect()
    }

    fn all(most: u32) -> CatchUp {
        CatchUp::All(most)
    }

    const NOBODY: Choice = Choice::Missed(TickCause::NobodyThere);
    const SUPERSEDED: Choice = Choice::Missed(TickCause::Superseded);

    #[test]
    fn a_tick_that_is_due_alone_is_run() {
        for policy in [CatchUp::None, CatchUp::Last, all(3)] {
            assert_eq!(choose(&due(0..1), policy, at(0)), [Choice::InTime]);
        }
    }

    #[test]
    fn after_a_long_silence_the_policy_says_what_is_run() {
        let due = due(0..4);
        let now = at(100);
        assert_eq!(choose(&due, CatchUp::None, now), [NOBODY; 4]);
        assert_eq!(
            choose(&due, CatchUp::Last, now),
            [NOBODY, NOBODY, NOBODY, Choice::CatchUp]
        );
        assert_eq!(
            choose(&due, all(3), now),
            [NOBODY, Choice::CatchUp, Choice::CatchUp, Choice::CatchUp]
        );
        assert_eq!(choose(&due, all(9), now), [Choice::CatchUp; 4]);
    }

    #[test]
    fn after_a_short_silence_the_last_is_in_time() {
        let due = due(0..3);
        let last_alone = [SUPERSEDED, SUPERSEDED, Choice::InTime];
        assert_eq!(choose(&due, CatchUp::None, at(5)), last_alone);
        assert_eq!(choose(&due, CatchUp::Last, at(5)), last_alone);
        assert_eq!(
            choose(&due, all(9), at(16)),
            [Choice::CatchUp, Choice::InTime, Choice::InTime]
        );
    }

    #[test]
    fn nothing_is_caught_up_after_the_end_of_its_window() {
        let closed = Due {
            start_deadline: at(15),
            window_deadline: Some(at(30)),
        };
        let late = [Choice::Missed(TickCause::TooLate)];
        assert_eq!(choose(&[closed], CatchUp::Last, at(30)), [Choice::CatchUp]);
        assert_eq!(choose(&[closed], CatchUp::Last, at(31)), late);
    }

    fn situation(state: &ScheduleState) -> Situation<'_> {
        Situation {
            state,
            blackout: None,
            skip_next: false,
            choice: Choice::InTime,
            by_hand: false,
            waits: false,
            overlap: Overlap::Skip,
            run_goes_on: false,
            another_waits: false,
            absence: None,
            if_offline: IfOffline::Wait,
        }
    }

    fn brief(decision: &Decision) -> String {
        let entry = |entry: &Entry| format!("{}({})", entry.outcome.as_str(), entry.cause.as_str());
        match decision {
            Decision::Run => "run".to_owned(),
            Decision::Wait(what) => format!("wait: {}", entry(what)),
            Decision::CancelAndWait(what) => format!("cancel, wait: {}", entry(what)),
            Decision::Never(what) => format!("never: {}", entry(what)),
        }
    }

    #[test]
    fn each_policy_has_its_way_with_a_run_that_goes_on() {
        let active = ScheduleState::Active;
        let table = [
            (
                Overlap::Skip,
                "never: skipped(overlap)",
                "never: skipped(overlap)",
            ),
            (
                Overlap::QueueOne,
                "wait: queued(overlap)",
                "never: skipped(overlap)",
            ),
            (
                Overlap::CancelRunning,
                "cancel, wait: queued(overlap)",
                "never: skipped(overlap)",
            ),
            (Overlap::Allow, "run", "run"),
        ];
        for (overlap, alone, with_another) in table {
            let situation = Situation {
                overlap,
                run_goes_on: true,
                ..situation(&active)
            };
            assert_eq!(brief(&decide(&situation)), alone, "{overlap:?}");
            let crowded = Situation {
                another_waits: true,
                ..situation.clone()
            };
            assert_eq!(brief(&decide(&crowded)), with_another, "{overlap:?}");
            let waits = Situation {
                waits: true,
                ..situation
            };
            let expected = match overlap {
                Overlap::Allow => "run",
                _ => "wait: queued(overlap)",
            };
            assert_eq!(brief(&decide(&waits)), expected, "{overlap:?}");
        }
    }

    #[test]
    fn the_stronger_reason_is_told() {
        let active = ScheduleState::Active;
        let paused = ScheduleState::Paused {
            by: "ann".to_owned(),
            since: at(0),
            reason: "upgrade".to_owned(),
        };
        let everything = Situation {
            blackout: Some("closed by freeze".to_owned()),
            skip_next: true,
            choice: NOBODY,
            run_goes_on: true,
            absence: Some("offline".to_owned()),
            ..situation(&paused)
        };
        let mut told = vec![brief(&decide(&everything))];
        let mut rest = Situation {
            state: &active,
            ..everything
        };
        told.push(brief(&decide(&rest)));
        rest.blackout = None;
        told.push(brief(&decide(&rest)));
        rest.skip_next = false;
        told.push(brief(&decide(&rest)));
        rest.choice = Choice::InTime;
        told.push(brief(&decide(&rest)));
        rest.run_goes_on = false;
        told.push(brief(&decide(&rest)));
        rest.if_offline = IfOffline::Fail;
        told.push(brief(&decide(&rest)));
        rest.absence = None;
        told.push(brief(&decide(&rest)));
        insta::assert_snapshot!(told.join("\n"), @r"
        never: skipped(paused)
        never: skipped(blackout)
        never: skipped(by_hand)
        never: missed(nobody_there)
        never: skipped(overlap)
        wait: deferred(cluster_offline)
        never: missed(cluster_offline)
        run
        ");
    }

    /// Whoever asks for a run knows that the schedule is paused; what a calendar forbids, it forbids them too.
    #[test]
    fn a_person_runs_what_is_paused_but_not_against_a_calendar() {
        let paused = ScheduleState::Paused {
            by: "ann".to_owned(),
            since: at(0),
            reason: String::new(),
        };
        let asked = Situation {
            by_hand: true,
            ..situation(&paused)
        };
        assert_eq!(decide(&asked), Decision::Run);
        let closed = Situation {
            blackout: Some("closed by freeze".to_owned()),
            ..asked
        };
        assert_eq!(brief(&decide(&closed)), "never: skipped(blackout)");
    }
}
