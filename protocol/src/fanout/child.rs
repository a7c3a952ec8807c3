//! The states of one cluster of a fan-out and the only ways between them.
//!
//! ```text
//!                    start              its job is over
//!   Pending ───────────────▶ Running ──────────────────▶ Succeeded, Failed, Cancelled, NotStarted
//!    ▲  │ refused, given up, skipped, the fan-out stops or is cancelled
//!    │  └──────────────────────────────────────────────▶ Refused, Offline, Skipped, NotStarted, Cancelled
//!    │      another attempt                                             │
//!    └──────────────────────────────────────────────────────────────────┘
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ChildStateName;
use crate::id::JobId;
use crate::problem::ProblemCode;

/// What is known of one cluster of a fan-out now. Each variant holds exactly what is known then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChildState {
    /// It waits for its turn, or for its runner.
    Pending {
        /// When its turn came, if it came while its runner did not speak.
        turn: Option<Timestamp>,
    },
    /// It has a job that was not over when it was last looked at.
    Running {
        /// The job.
        job: JobId,
        /// When that was made.
        since: Timestamp,
    },
    /// Its command succeeded.
    Succeeded {
        /// The job.
        job: JobId,
        /// When that was made.
        since: Timestamp,
        /// When it was over.
        at: Timestamp,
    },
    /// Its job ended in any other way.
    Failed {
        /// The job.
        job: JobId,
        /// When that was made.
        since: Timestamp,
        /// When it was over.
        at: Timestamp,
    },
    /// No job was made, because a single one would have been refused.
    Refused {
        /// As which problem.
        code: ProblemCode,
        /// In which words.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// No job was made, because its runner did not speak.
    Offline {
        /// Since when it does not, in words.
        message: String,
        /// When that was given up.
        at: Timestamp,
    },
    /// No job was made, because its runner did not speak, and that was to be no failure.
    Skipped {
        /// Since when it does not, in words.
        message: String,
        /// When its turn was.
        at: Timestamp,
    },
    /// The fan-out stopped before its command was started.
    NotStarted {
        /// The job, if there was one already.
        job: Option<JobId>,
        /// When.
        at: Timestamp,
    },
    /// It was cancelled with the fan-out, or because that stopped.
    Cancelled {
        /// The job, if there was one.
        job: Option<JobId>,
        /// When it was over.
        at: Timestamp,
    },
}

/// What can happen to one cluster of a fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    /// Its turn has come, and its runner does not speak.
    Wait,
    /// Its job is made.
    Start {
        /// The job.
        job: JobId,
    },
    /// Its job is over.
    End {
        /// How.
        end: JobEnd,
        /// When it was.
        at: Timestamp,
    },
    /// Its job was refused.
    Refuse {
        /// As which problem.
        code: ProblemCode,
        /// In which words.
        message: String,
    },
    /// Its runner did not speak for too long.
    GiveUp {
        /// Since when it does not, in words.
        message: String,
    },
    /// Its runner does not speak, and it is left out.
    Skip {
        /// Since when it does not, in words.
        message: String,
    },
    /// The fan-out stops before its turn.
    Leave,
    /// The fan-out is cancelled before its turn.
    Cancel,
    /// It is to be tried, again or at last.
    Retry,
}

/// How a job of a fan-out ended, as far as that matters to the fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// Its command succeeded.
    Succeeded,
    /// It ended in any other way.
    Failed,
    /// The fan-out cancelled it before its command started, because it stopped.
    NotStarted,
    /// The fan-out cancelled it.
    Cancelled,
}

/// An event that does not apply. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that cannot happen to a cluster that is {0}")]
pub struct ChildRefusesEvent(pub ChildStateName);

impl ChildState {
    /// As every cluster begins.
    #[must_use]
    pub const fn new() -> Self {
        Self::Pending { turn: None }
    }

    /// Applies what happened at `now`.
    ///
    /// # Guarantees
    /// One that is over changes only by [`ChildEvent::Retry`], and one that succeeded or was skipped never.
    ///
    /// # Errors
    /// [`ChildRefusesEvent`] if the event does not apply.
    pub fn on(self, event: ChildEvent, now: Timestamp) -> Result<Self, ChildRefusesEvent> {
        match (self, event) {
            (Self::Pending { turn }, event) => Self::Pending { turn }.leave_pending(event, now),
            (Self::Running { job, since }, ChildEvent::End { end, at }) => Ok(match end {
                JobEnd::Succeeded => Self::Succeeded { job, since, at },
                JobEnd::Failed => Self::Failed { job, since, at },
                JobEnd::NotStarted => Self::NotStarted { job: Some(job), at },
                JobEnd::Cancelled => Self::Cancelled { job: Some(job), at },
            }),
            (
                Self::Failed { .. }
                | Self::Refused { .. }
                | Self::Offline { .. }
                | Self::NotStarted { .. }
                | Self::Cancelled { .. },
                ChildEvent::Retry,
            ) => Ok(Self::new()),
            (other, _) => Err(ChildRefusesEvent(other.name())),
        }
    }

    fn leave_pending(self, event: ChildEvent, now: Timestamp) -> Result<Self, ChildRefusesEvent> {
        match event {
            ChildEvent::Wait => match self {
                Self::Pending { turn: None } => Ok(Self::Pending { turn: Some(now) }),
                // Its turn came when it came first.
                waiting => Ok(waiting),
            },
            ChildEvent::Start { job } => Ok(Self::Running { job, since: now }),
            ChildEvent::Refuse { code, message } => Ok(Self::Refused {
                code,
                message,
                at: now,
            }),
            ChildEvent::GiveUp { message } => Ok(Self::Offline { message, at: now }),
            ChildEvent::Skip { message } => Ok(Self::Skipped { message, at: now }),
            ChildEvent::Leave => Ok(Self::NotStarted { job: None, at: now }),
            ChildEvent::Cancel => Ok(Self::Cancelled { job: None, at: now }),
            ChildEvent::End { .. } | ChildEvent::Retry => Err(ChildRefusesEvent(self.name())),
        }
    }

    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> ChildStateName {
        match self {
            Self::Pending { .. } => ChildStateName::Pending,
            Self::Running { .. } => ChildStateName::Running,
            Self::Succeeded { .. } => ChildStateName::Succeeded,
            Self::Failed { .. } => ChildStateName::Failed,
            Self::Refused { .. } => ChildStateName::Refused,
            Self::Offline { .. } => ChildStateName::Offline,
            Self::Skipped { .. } => ChildStateName::Skipped,
            Self::NotStarted { .. } => ChildStateName::NotStarted,
            Self::Cancelled { .. } => ChildStateName::Cancelled,
        }
    }

    /// Its job, if there is or was one.
    #[must_use]
    pub const fn job(&self) -> Option<JobId> {
        match self {
            Self::Running { job, .. } | Self::Succeeded { job, .. } | Self::Failed { job, .. } => {
                Some(*job)
            }
            Self::NotStarted { job, .. } | Self::Cancelled { job, .. } => *job,
            Self::Pending { .. }
            | Self::Refused { .. }
            | Self::Offline { .. }
            | Self::Skipped { .. } => None,
        }
    }

    /// When its job was made.
    #[must_use]
    pub const fn started_at(&self) -> Option<Timestamp> {
        match self {
            Self::Running { since, .. }
            | Self::Succeeded { since, .. }
            | Self::Failed { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// When it was over; `None` until it is.
    #[must_use]
    pub const fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Pending { .. } | Self::Running { .. } => None,
            Self::Succeeded { at, .. }
            | Self::Failed { at, .. }
            | Self::Refused { at, .. }
            | Self::Offline { at, .. }
            | Self::Skipped { at, .. }
            | Self::NotStarted { at, .. }
            | Self::Cancelled { at, .. } => Some(*at),
        }
    }
}

impl Default for ChildState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn all() -> [ChildState; 10] {
        let job: JobId = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap();
        let (since, at, message) = (now(), now(), "words".to_owned());
        [
            ChildState::new(),
            ChildState::Pending { turn: Some(at) },
            ChildState::Running { job, since },
            ChildState::Succeeded { job, since, at },
            ChildState::Failed { job, since, at },
            ChildState::Refused {
                code: ProblemCode::UnknownProfile,
                message: message.clone(),
                at,
            },
            ChildState::Offline {
                message: message.clone(),
                at,
            },
            ChildState::Skipped { message, at },
            ChildState::NotStarted { job: None, at },
            ChildState::Cancelled { job: Some(job), at },
        ]
    }

    #[test]
    fn every_event_in_every_state() {
        let job: JobId = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap();
        let (at, message) = (now(), String::new());
        let end = |end| ChildEvent::End { end, at };
        let events = [
            ("wait", ChildEvent::Wait),
            ("start", ChildEvent::Start { job }),
            ("end: succeeded", end(JobEnd::Succeeded)),
            ("end: failed", end(JobEnd::Failed)),
            ("end: not started", end(JobEnd::NotStarted)),
            ("end: cancelled", end(JobEnd::Cancelled)),
            (
                "refuse",
                ChildEvent::Refuse {
                    code: ProblemCode::UnknownProfile,
                    message: message.clone(),
                },
            ),
            (
                "give up",
                ChildEvent::GiveUp {
                    message: message.clone(),
                },
            ),
            ("skip", ChildEvent::Skip { message }),
            ("leave", ChildEvent::Leave),
            ("cancel", ChildEvent::Cancel),
            ("retry", ChildEvent::Retry),
        ];
        let mut table = String::new();
        for state in all() {
            let mut row = format!("{}:", state.name());
            for (name, event) in &events {
                if let Ok(next) = state.clone().on(event.clone(), now()) {
                    row += &format!(" {name} → {};", next.name());
                }
            }
            table += &format!("{row}\n");
        }
        insta::assert_snapshot!(table, @r"
        pending: wait → pending; start → running; refuse → refused; give up → offline; skip → skipped; leave → not_started; cancel → cancelled;
        pending: wait → pending; start → running; refuse → refused; give up → offline; skip → skipped; leave → not_started; cancel → cancelled;
        running: end: succeeded → succeeded; end: failed → failed; end: not started → not_started; end: cancelled → cancelled;
        succeeded:
        failed: retry → pending;
        refused: retry → pending;
        offline: retry → pending;
        skipped:
        not_started: retry → pending;
        cancelled: retry → pending;
        ");
    }

    /// A state is stored as JSON, and read by the next version.
    #[test]
    fn a_stored_state_reads_back() {
        for state in all() {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<ChildState>(&text).unwrap(), state);
        }
    }
}
