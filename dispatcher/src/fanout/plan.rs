//! What a fan-out does next: a pure function of what is stored of it, of its clusters and of their jobs.
//!
//! The brakes are decided before anything is started, on the same knowledge, and in this order:
//!
//! 1. what has ended is taken down; what is offline for too long has failed,
//! 2. a canary that did not succeed, or more failures than may be, stop everything,
//! 3. only then clusters are started, in their order, as many as are allowed.

use std::time::Duration;

use invoke_protocol::api::OFFLINE_AFTER_SECONDS;
use invoke_protocol::fanout::{
    ChildEvent, ChildState, ChildStateName, FanOutEvent, FanOutState, FanOutStateName, JobEnd,
    OfflineClusters, OnStop, StopCode, StopReason,
};
use invoke_protocol::id::JobId;
use invoke_protocol::state::{Event, JobState, Started};
use jiff::Timestamp;

use crate::store::fanout_clusters::{StoredChild, Tally};
use crate::store::fanouts::StoredFanOut;
use crate::waiting;

/// How many clusters one plan starts at most: so many that it is worth a transaction, and so few that others
/// who write need not wait for long.
const MAX_STARTS: usize = 32;

/// How many names a sentence lists at most.
const MAX_LISTED: usize = 10;

/// What is to be done, in the order in which it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something happens to the cluster at this place.
    Child(u32, ChildEvent),
    /// The cluster at this place starts, unless its job is refused.
    Start(u32),
    /// The job of a cluster is cancelled.
    Cancel {
        /// The job.
        job: JobId,
        /// From SIGTERM to SIGKILL, in seconds; the cluster's own if silent.
        grace_seconds: Option<u64>,
    },
    /// Something happens to the fan-out.
    FanOut(FanOutEvent),
}

/// When something is decided, and since when whoever decides could have heard a runner speak: one that was not heard
/// before is not known to be away until it has had the time to speak.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// Since when this dispatcher has been listening.
    pub listening_since: Timestamp,
}

/// What is to be done now; nothing, if there is nothing to do before something happens or time passes.
#[must_use]
pub fn plan(fanout: &StoredFanOut, children: &[StoredChild], moment: Moment) -> Vec<Step> {
    let mut plan = Plan {
        fanout,
        children: children
            .iter()
            .map(|child| Foreseen::new(child, moment))
            .collect(),
        state: fanout.state.clone(),
        now: moment.now,
        steps: Vec::new(),
    };
    plan.end();
    if plan.state == FanOutState::Running {
        plan.give_up();
        plan.brake();
    }
    if plan.state == FanOutState::Running {
        plan.start();
    } else {
        plan.leave();
        plan.cancel();
    }
    plan.settle();
    plan.steps
}

/// How many clusters may run at once, as they stand.
#[must_use]
pub fn allowed(fanout: &StoredFanOut, clusters: &[Tally]) -> u32 {
    let count = |is_meant: &dyn Fn(&Tally) -> bool| -> u32 {
        let meant = clusters.iter().filter(|tally| is_meant(tally));
        meant.map(|tally| tally.count).sum()
    };
    let limits = &fanout.limits;
    let canaries = count(&|tally| tally.canary && tally.state == ChildStateName::Succeeded);
    if canaries < limits.canaries {
        return limits.concurrency.min(limits.canaries);
    }
    if !fanout.spec.ramp {
        return limits.concurrency;
    }
    let succeeded = count(&|tally| {
        !tally.canary && tally.state == ChildStateName::Succeeded && tally.round == fanout.round
    });
    limits.concurrency.min(succeeded.saturating_add(1))
}

/// A plan in the making: what is decided is taken for done by what is decided after it.
struct Plan<'a> {
    fanout: &'a StoredFanOut,
    children: Vec<Foreseen<'a>>,
    state: FanOutState,
    now: Timestamp,
    steps: Vec<Step>,
}

/// A cluster as it will be when the plan is carried out so far.
struct Foreseen<'a> {
    stored: &'a StoredChild,
    tally: Tally,
    voice: Voice,
}

/// Whether a cluster's runner speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Voice {
    Speaks,
    /// It does not, in words.
    Silent(String),
    /// It has not spoken lately, and nobody has listened.
    Unknown,
}

impl Voice {
    fn of(child: &StoredChild, moment: Moment) -> Self {
        let Moment {
            now,
            listening_since,
        } = moment;
        let heard = child.cluster_last_contact;
        let Some(absence) = waiting::absence(&child.cluster_name, heard, now) else {
            return Self::Speaks;
        };
        let has_listened = waiting::seconds_between(listening_since, now) > OFFLINE_AFTER_SECONDS;
        match heard {
            Some(last) if last < listening_since && !has_listened => Self::Unknown,
            _ => Self::Silent(absence.message),
        }
    }
}

impl<'a> Foreseen<'a> {
    fn new(stored: &'a StoredChild, moment: Moment) -> Self {
        Self {
            stored,
            tally: stored.tally(),
            voice: Voice::of(stored, moment),
        }
    }

    fn is(&self, state: ChildStateName) -> bool {
        self.tally.state == state
    }
}

impl Plan<'_> {
    /// Takes down what has ended.
    fn end(&mut self) {
        let name = self.state.name();
        let ended = self.find(|child| match &child.stored.job {
            Some(job) if child.is(ChildStateName::Running) => {
                let end = end_of(job, name, self.fanout.spec.on_stop);
                let at = job.ended_at()?;
                Some(ChildEvent::End { end, at })
            }
            _ => None,
        });
        self.apply(ended);
    }

    /// Gives up clusters that are away: at once where that is to be a failure, and others when they have kept
    /// everybody waiting for long enough. A canary is never left out: without it nothing else starts.
    fn give_up(&mut self) {
        let if_offline = self.fanout.spec.if_offline;
        let patience = self.fanout.patience();
        let given_up = self.find(|child| {
            let (Voice::Silent(absence), ChildState::Pending { turn }) =
                (&child.voice, &child.stored.state)
            else {
                return None;
            };
            let message = match if_offline {
                OfflineClusters::Fail => absence.clone(),
                OfflineClusters::Skip if child.stored.canary => {
                    format!("{absence}, and a canary is not skipped")
                }
                OfflineClusters::Skip => return None,
                OfflineClusters::Wait if is_over(*turn, patience, self.now) => {
                    let seconds = patience.as_secs();
                    format!("{absence}, and was waited for for {seconds} s")
                }
                OfflineClusters::Wait => return None,
            };
            Some(ChildEvent::GiveUp { message })
        });
        self.apply(given_up);
    }

    /// Stops everything if it must be stopped.
    fn brake(&mut self) {
        if let Some(reason) = self.bad_canary().or_else(|| self.too_many_failures()) {
            self.on(FanOutEvent::Stop { reason });
        }
    }

    fn bad_canary(&self) -> Option<StopReason> {
        let bad = self.children.iter().find(|child| {
            child.stored.canary
                && !child.is(ChildStateName::Pending)
                && !child.is(ChildStateName::Running)
                && !child.is(ChildStateName::Succeeded)
        })?;
        let message = format!(
            "canary {} did not succeed ({}), so no other cluster is started",
            bad.stored.cluster_name, bad.tally.state
        );
        Some(StopReason {
            code: StopCode::CanaryFailed,
            message,
        })
    }

    fn too_many_failures(&self) -> Option<StopReason> {
        let most = self.fanout.limits.max_failures?;
        let failed: Vec<_> = self
            .children
            .iter()
            .filter(|child| {
                child.tally.state.is_failure() && child.tally.round == self.fanout.round
            })
            .map(|child| child.stored.cluster_name.as_str())
            .collect();
        let is_within = u32::try_from(failed.len()).is_ok_and(|failed| failed <= most);
        if is_within {
            return None;
        }
        let message = format!(
            "{} of {} clusters failed ({}), and at most {most} may",
            failed.len(),
            self.children.len(),
            listed(&failed)
        );
        Some(StopReason {
            code: StopCode::TooManyFailures,
            message,
        })
    }

    /// Starts clusters in their order, as many as are allowed. One that is away keeps no place: others overtake
    /// it, and it starts when it speaks.
    fn start(&mut self) {
        let tallies = self.tallies();
        let only_canaries = self
            .children
            .iter()
            .any(|child| child.stored.canary && !child.is(ChildStateName::Succeeded));
        let running = self
            .children
            .iter()
            .filter(|child| child.is(ChildStateName::Running));
        let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
        let mut free = allowed(self.fanout, &tallies).saturating_sub(running) as usize;
        let mut starts = 0;
        for index in 0..self.children.len() {
            if free == 0 || starts == MAX_STARTS {
                return;
            }
            let child = &self.children[index];
            if !child.is(ChildStateName::Pending) || only_canaries && !child.stored.canary {
                continue;
            }
            let position = child.stored.position;
            match (&child.voice, self.fanout.spec.if_offline) {
                (Voice::Speaks, _) => {
                    (free, starts) = (free - 1, starts + 1);
                    self.children[index].tally.state = ChildStateName::Running;
                    self.steps.push(Step::Start(position));
                }
                (Voice::Silent(absence), OfflineClusters::Skip) => {
                    let message = absence.clone();
                    self.apply(vec![(index, ChildEvent::Skip { message })]);
                }
                // Of one that waits already this changes nothing, and is no step.
                (Voice::Silent(_), _) => self.apply(vec![(index, ChildEvent::Wait)]),
                (Voice::Unknown, _) => {}
            }
        }
    }

    /// Nothing is started any more.
    fn leave(&mut self) {
        let event = match self.state.name() {
            FanOutStateName::Cancelling => ChildEvent::Cancel,
            _ => ChildEvent::Leave,
        };
        let left = self.find(|child| child.is(ChildStateName::Pending).then(|| event.clone()));
        self.apply(left);
    }

    /// Cancels jobs: those whose command has not started in any case, so that none starts after the stop, and
    /// the others if that is what was asked for.
    fn cancel(&mut self) {
        let (everything, grace_seconds) = match &self.state {
            FanOutState::Cancelling { grace_seconds, .. } => (true, *grace_seconds),
            _ => (self.fanout.spec.on_stop == OnStop::Cancel, None),
        };
        for child in &self.children {
            let (ChildState::Running { job, .. }, Some(state)) =
                (&child.stored.state, &child.stored.job)
            else {
                continue;
            };
            let is_meant = everything || state.started() == Started::No;
            if is_meant && would_change(state, grace_seconds, self.now) {
                self.steps.push(Step::Cancel {
                    job: *job,
                    grace_seconds,
                });
            }
        }
    }

    /// When every cluster is accounted for, it is over.
    fn settle(&mut self) {
        let is_under_way = |child: &Foreseen<'_>| {
            child.is(ChildStateName::Pending) || child.is(ChildStateName::Running)
        };
        if self.state.is_over() || self.children.iter().any(is_under_way) {
            return;
        }
        let mut children = self.children.iter();
        let all_succeeded = children.all(|child| child.is(ChildStateName::Succeeded));
        self.on(FanOutEvent::Settle { all_succeeded });
    }

    fn find(
        &self,
        event: impl Fn(&Foreseen<'_>) -> Option<ChildEvent>,
    ) -> Vec<(usize, ChildEvent)> {
        let children = self.children.iter().enumerate();
        children
            .filter_map(|(index, child)| Some((index, event(child)?)))
            .collect()
    }

    fn apply(&mut self, events: Vec<(usize, ChildEvent)>) {
        for (index, event) in events {
            let child = &mut self.children[index];
            // What the state would refuse, or knows already, is not planned.
            let next = child.stored.state.clone().on(event.clone(), self.now);
            if let Some(next) = next.ok().filter(|next| *next != child.stored.state) {
                child.tally.state = next.name();
                child.tally.round = self.fanout.round;
                self.steps.push(Step::Child(child.stored.position, event));
            }
        }
    }

    fn on(&mut self, event: FanOutEvent) {
        if let Ok(next) = self.state.clone().on(event.clone(), self.now) {
            self.state = next;
            self.steps.push(Step::FanOut(event));
        }
    }

    fn tallies(&self) -> Vec<Tally> {
        self.children.iter().map(|child| child.tally).collect()
    }
}

/// How a job that is over ended for its fan-out: one that was cancelled while that stops was cancelled by it.
fn end_of(job: &JobState, fanout: FanOutStateName, on_stop: OnStop) -> JobEnd {
    match (job, fanout) {
        (JobState::Succeeded { .. }, _) => JobEnd::Succeeded,
        (JobState::Cancelled { .. }, FanOutStateName::Cancelling) => JobEnd::Cancelled,
        (JobState::Cancelled { exit: None, .. }, FanOutStateName::Stopping) => JobEnd::NotStarted,
        (JobState::Cancelled { .. }, FanOutStateName::Stopping) if on_stop == OnStop::Cancel => {
            JobEnd::Cancelled
        }
        _ => JobEnd::Failed,
    }
}

/// Whether a cancel says anything that the job does not know.
fn would_change(job: &JobState, grace_seconds: Option<u64>, now: Timestamp) -> bool {
    let cancel = Event::Cancel {
        by: String::new(),
        grace_seconds,
    };
    job.clone().on(cancel, now).is_ok_and(|next| next != *job)
}

fn is_over(turn: Option<Timestamp>, patience: Duration, now: Timestamp) -> bool {
    turn.is_some_and(|turn| turn.saturating_add(patience).is_ok_and(|until| now > until))
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MAX_LISTED);
    let names = &names[..names.len() - more];
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
