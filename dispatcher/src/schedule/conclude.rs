//! Runs that are over: how they ended, whether they are tried again, and who is told.

use invoke_protocol::fanout::FanOutStateName;
use invoke_protocol::schedule::{NotifyOn, Retry, RetryOn, ScheduleState, TickOutcome, TickResult};
use invoke_protocol::state::{JobState, Started, StateName};
use invoke_protocol::timing::AtWindowEnd;
use jiff::{SignedDuration, Timestamp};

use super::look::Look;
use super::{later, launch, window_deadline};
use crate::store;
use crate::store::fanouts::{self, StoredFanOut};
use crate::store::jobs::{self, StoredJob};
use crate::store::ticks::{self, StoredTick};

/// How the run of a tick stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunState {
    /// It goes on, and has been doing so since it started, if it has.
    Goes { since: Option<Timestamp> },
    /// It is over.
    Over(End),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    result: TickResult,
    /// After which failure it may be tried again, if it may.
    failure: Option<RetryOn>,
    words: String,
}

impl Look<'_> {
    /// Concludes the runs that are over, and sees to those that go on.
    pub(super) async fn conclude(&mut self) -> Result<(), store::Error> {
        let due = ticks::to_look_at(&mut self.session, self.schedule.id, self.now).await?;
        for index in 0..self.open.len() {
            let Some(mut tick) = self.open.get(index).cloned() else {
                break;
            };
            if !tick.outcome.is_run() || !due.contains(&(tick.instant, tick.revision)) {
                continue;
            }
            match self.state_of_run(&tick).await? {
                RunState::Over(end) => self.conclude_one(&mut tick, end).await?,
                RunState::Goes { since } => self.see_to(&mut tick, since).await?,
            }
            if self.open.get(index) != Some(&tick) {
                ticks::write(&mut self.session, &tick).await?;
            }
            if let Some(slot) = self.open.get_mut(index) {
                *slot = tick;
            }
        }
        self.open.retain(|tick| tick.open);
        Ok(())
    }

    async fn state_of_run(&mut self, tick: &StoredTick) -> Result<RunState, store::Error> {
        if let Some(id) = tick.job
            && let Some(job) = jobs::find(&mut self.session, id).await?
        {
            return Ok(state_of_job(&job));
        }
        if let Some(id) = tick.fanout
            && let Some(fanout) = fanouts::find(&mut self.session, id).await?
        {
            return Ok(state_of_fanout(&fanout));
        }
        // Nothing removes jobs or fan-outs.
        Ok(RunState::Over(End {
            result: TickResult::Failed,
            failure: None,
            words: "its run is not on record".to_owned(),
        }))
    }

    async fn conclude_one(&mut self, tick: &mut StoredTick, end: End) -> Result<(), store::Error> {
        let retry = self.schedule.spec.retry.clone();
        if retry.is_some_and(|retry| is_retried(&retry, &end, tick.attempts))
            && self.may_start_again(tick)
        {
            let before = tick.attempts;
            launch::launch(self, tick).await?;
            if tick.attempts > before {
                tick.message = format!(
                    "attempt {}, as attempt {before} {}",
                    tick.attempts, end.words
                );
                return Ok(());
            }
            // The run that was made stays what it was made of: that it could not be repeated is no new entry.
            tick.outcome = match tick.caught_up {
                true => TickOutcome::CaughtUp,
                false => TickOutcome::Fired,
            };
            tick.cause = None;
        }
        (tick.open, tick.result, tick.message) = (false, Some(end.result), end.words);
        let failed_before = self.schedule.failures > 0;
        self.count(end.result);
        match end.result {
            TickResult::Failed => self.notify(NotifyOn::Failed, tick).await,
            TickResult::Succeeded if failed_before => self.notify(NotifyOn::Recovered, tick).await,
            TickResult::Succeeded | TickResult::Cancelled => Ok(()),
        }
    }

    /// Whether another attempt may start as a tick's first may: within the window, in a schedule that is at work,
    /// and not against a calendar.
    fn may_start_again(&self, tick: &StoredTick) -> bool {
        let window = window_deadline(&self.schedule.spec, tick.instant);
        self.schedule.deleted_at.is_none()
            && self.schedule.state == ScheduleState::Active
            && self.closed.is_none()
            && window.is_none_or(|deadline| self.now <= deadline)
    }

    /// Looks after a run that goes on: after the end of its window, and when it takes long.
    async fn see_to(
        &mut self,
        tick: &mut StoredTick,
        since: Option<Timestamp>,
    ) -> Result<(), store::Error> {
        let window_end = self.window_end(tick);
        let long_at = self.schedule.spec.long_running_seconds.zip(since);
        let long_at = long_at
            .filter(|_| !tick.told_long)
            .map(|(seconds, since)| later(since, seconds));
        if window_end.is_some_and(|end| end <= self.now) {
            self.to_cancel.extend(tick.job);
            self.fanouts_to_cancel.extend(tick.fanout);
        }
        if long_at.is_some_and(|at| at <= self.now) {
            tick.told_long = true;
            self.notify(NotifyOn::LongRunning, tick).await?;
        }
        tick.look_at = self.next_look(tick, since);
        Ok(())
    }

    /// When a run is to be looked at that does not end by itself before.
    pub(super) fn next_look(&self, tick: &StoredTick, since: Option<Timestamp>) -> Timestamp {
        let long = self
            .schedule
            .spec
            .long_running_seconds
            .filter(|_| !tick.told_long);
        // One that has not started is long in coming, not long in running: it is looked at again.
        let long = long.map(|seconds| later(since.unwrap_or(self.now), seconds));
        let long = long.filter(|at| *at > self.now);
        // What was to be cancelled and goes on is looked at again, in case nobody heard.
        let window = self.window_end(tick).map(|end| end.max(self.now + AGAIN));
        [long, window]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Timestamp::MAX)
    }

    /// When the run of a tick is cancelled because its window is over, if it is to be.
    fn window_end(&self, tick: &StoredTick) -> Option<Timestamp> {
        let timing = &self.schedule.spec.timing;
        let window = timing.window_seconds?;
        (timing.at_window_end == AtWindowEnd::Cancel).then(|| later(tick.instant, window))
    }
}

/// How long after a cancel that nobody heeded the next comes.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

fn is_retried(retry: &Retry, end: &End, attempts: u32) -> bool {
    end.failure
        .is_some_and(|failure| retry.on.contains(&failure))
        && attempts <= retry.times.get()
}

fn state_of_job(job: &StoredJob) -> RunState {
    let state = &job.state;
    if !state.is_terminal() {
        return RunState::Goes {
            since: job.permitted_at,
        };
    }
    let code = state.exit_record().map(|exit| exit.status.code());
    let result = match state.name() {
        StateName::Succeeded => TickResult::Succeeded,
        StateName::Cancelled => TickResult::Cancelled,
        _ => TickResult::Failed,
    };
    let failure = match (state, code) {
        (JobState::Failed { .. }, Some(code)) => Some(RetryOn::Exit(code)),
        _ if result == TickResult::Failed && state.started() == Started::No => {
            Some(RetryOn::NeverStarted)
        }
        _ => None,
    };
    let words = match (result, code, state.reason()) {
        (TickResult::Succeeded, _, _) => String::new(),
        (_, Some(code), _) if state.name() == StateName::Failed => {
            format!("ended with exit code {code}")
        }
        (_, _, Some(reason)) => format!("is {}: {}", state.name(), reason.message),
        _ => format!("is {}", state.name()),
    };
    RunState::Over(End {
        result,
        failure,
        words,
    })
}

/// Each of its clusters has a story of its own: as one run it is never repeated, but its failed ones can be, by
/// hand.
fn state_of_fanout(fanout: &StoredFanOut) -> RunState {
    let name = fanout.state.name();
    if !name.is_over() {
        return RunState::Goes {
            since: Some(fanout.submitted_at),
        };
    }
    let (result, words) = match (name, fanout.reason()) {
        (FanOutStateName::Succeeded, _) => (TickResult::Succeeded, String::new()),
        (FanOutStateName::Cancelled, _) => (TickResult::Cancelled, "is cancelled".to_owned()),
        (name, Some(reason)) => (TickResult::Failed, format!("is {name}: {}", reason.message)),
        (name, None) => (TickResult::Failed, format!("is {name}")),
    };
    RunState::Over(End {
        result,
        failure: None,
        words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(failure: Option<RetryOn>) -> End {
        End {
            result: TickResult::Failed,
            failure,
            words: String::new(),
        }
    }

    /// What may have done its work is not repeated because somebody wanted other failures repeated.
    #[test]
    fn only_the_failures_that_were_named_are_tried_again() {
        let retry = Retry {
            times: 2.try_into().unwrap(),
            on: vec![RetryOn::NeverStarted, RetryOn::Exit(75)],
        };
        let again = |failure, attempts| is_retried(&retry, &end(failure), attempts);
        assert!(again(Some(RetryOn::NeverStarted), 1));
        assert!(again(Some(RetryOn::Exit(75)), 2));
        assert!(!again(Some(RetryOn::Exit(75)), 3));
        assert!(!again(Some(RetryOn::Exit(1)), 1));
        assert!(!again(None, 1));
    }
}
