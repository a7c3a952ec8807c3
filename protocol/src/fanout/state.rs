//! The states of a fan-out and the only ways between them.
//!
//! ```text
//!              stop                  all accounted for
//!   Running ─────────▶ Stopping ───────────────────────▶ Stopped
//!    ▲ │ │  cancel         │ cancel                         │
//!    │ │ └─────────────▶ Cancelling ────────────────────▶ Cancelled
//!    │ │      all accounted for                             │
//!    │ └──────────────────────────────▶ Succeeded, Incomplete
//!    └────────────────────────────────────────────┴── resume, retry (not after a cancel)
//! ```
//!
//! **Only a running one starts anything.** Whatever stops it is decided before anything else is started, in one
//! transaction with that, so none starts after a stop, however many dispatchers there are. It goes on only when
//! nothing of it is running any more, and only by a person's word.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known of a fan-out now. Each variant holds exactly what is known then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FanOutState {
    /// Clusters are started, as many as are allowed.
    Running,
    /// None is started any more; those that are running come to their end.
    Stopping {
        /// Why.
        reason: StopReason,
        /// Since when.
        since: Timestamp,
    },
    /// All are being cancelled.
    Cancelling {
        /// Who asked.
        by: String,
        /// From SIGTERM to SIGKILL, in seconds; the clusters' own if silent.
        grace_seconds: Option<u64>,
        /// When they asked.
        since: Timestamp,
    },
    /// It stopped before its end. It can go on.
    Stopped {
        /// Why.
        reason: StopReason,
        /// When nothing was running any more.
        at: Timestamp,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: String,
        /// When nothing was running any more.
        at: Timestamp,
    },
    /// Every cluster's command succeeded.
    Succeeded {
        /// When.
        at: Timestamp,
    },
    /// It went to its end, and not every cluster's command succeeded.
    Incomplete {
        /// When.
        at: Timestamp,
    },
}

/// What can happen to a fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FanOutEvent {
    /// The brakes: nothing is to be started any more.
    Stop {
        /// Why.
        reason: StopReason,
    },
    /// A person wants all of it stopped.
    Cancel {
        /// Who.
        by: String,
        /// From SIGTERM to SIGKILL, in seconds; the clusters' own if silent.
        grace_seconds: Option<u64>,
    },
    /// No cluster waits or runs any more.
    Settle {
        /// Whether every one succeeded.
        all_succeeded: bool,
    },
    /// A person wants it to go on after a stop.
    Resume,
    /// A person wants it to go on, with another attempt for what has failed.
    Retry,
}

/// Why an event does not apply. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FanOutRefusal {
    /// Nothing is left to stop.
    #[error("it is over")]
    Over,
    /// It is under way, and needs no word to go on.
    #[error("it is running")]
    Running,
    /// What was running when it stopped, or was cancelled, still is.
    #[error(
        "some of its clusters are still running: it can go on when they have come to their end"
    )]
    StillRunning,
    /// A cancel is for ever.
    #[error("it was cancelled, which is for ever: submit it again")]
    Cancelled,
    /// It went to its end.
    #[error(
        "it went to its end, and nothing of it is left to start: retry-failed tries again what failed"
    )]
    NothingLeft,
    /// There is no more to wish for.
    #[error("every cluster has succeeded")]
    AllSucceeded,
}

/// Why a fan-out stopped: which brake, with a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopReason {
    /// Which.
    pub code: StopCode,
    /// In words: which cluster, how many, what now.
    pub message: String,
}

/// What stops a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StopCode {
    /// A canary did not succeed.
    CanaryFailed,
    /// More clusters failed than may.
    TooManyFailures,
    /// Who submitted it may not do so any more.
    NotAllowed,
    /// One that was made after this program; the message says it.
    #[serde(other)]
    Unknown,
}

/// A state without what is known in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "each is documented at the variant of FanOutState that bears its name"
)]
pub enum FanOutStateName {
    Running,
    Stopping,
    Cancelling,
    Stopped,
    Cancelled,
    Succeeded,
    Incomplete,
    /// One that was made after this program.
    #[serde(other)]
    Unknown,
}

impl FanOutStateName {
    /// The name as it is written everywhere, such as `incomplete`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Cancelling => "cancelling",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::Succeeded => "succeeded",
            Self::Incomplete => "incomplete",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing happens to it any more by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Cancelled | Self::Succeeded | Self::Incomplete
        )
    }
}

impl std::fmt::Display for FanOutStateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl FanOutState {
    /// Applies what happened at `now`.
    ///
    /// # Guarantees
    /// Nothing but a person's word makes one run that does not. An event that says what is known already returns
    /// the same state.
    ///
    /// # Errors
    /// [`FanOutRefusal`] says why the event does not apply.
    pub fn on(self, event: FanOutEvent, now: Timestamp) -> Result<Self, FanOutRefusal> {
        match event {
            FanOutEvent::Stop { reason } => self.stop(reason, now),
            FanOutEvent::Cancel { by, grace_seconds } => self.cancel(by, grace_seconds, now),
            FanOutEvent::Settle { all_succeeded } => Ok(self.settle(all_succeeded, now)),
            FanOutEvent::Resume => self.resume(),
            FanOutEvent::Retry => self.retry(),
        }
    }

    fn stop(self, reason: StopReason, now: Timestamp) -> Result<Self, FanOutRefusal> {
        match self {
            Self::Running => Ok(Self::Stopping { reason, since: now }),
            // What stopped it first is why it stopped.
            Self::Stopping { .. } | Self::Cancelling { .. } => Ok(self),
            _ => Err(FanOutRefusal::Over),
        }
    }

    fn cancel(
        self,
        by: String,
        grace_seconds: Option<u64>,
        now: Timestamp,
    ) -> Result<Self, FanOutRefusal> {
        match self {
            Self::Running | Self::Stopping { .. } => Ok(Self::Cancelling {
                by,
                grace_seconds,
                since: now,
            }),
            // As of a job: a second request with less shortens the first.
            Self::Cancelling {
                by,
                grace_seconds: before,
                since,
            } => Ok(Self::Cancelling {
                by,
                grace_seconds: shorter(before, grace_seconds),
                since,
            }),
            _ => Err(FanOutRefusal::Over),
        }
    }

    fn settle(self, all_succeeded: bool, now: Timestamp) -> Self {
        match self {
            Self::Running if all_succeeded => Self::Succeeded { at: now },
            Self::Running => Self::Incomplete { at: now },
            Self::Stopping { reason, .. } => Self::Stopped { reason, at: now },
            Self::Cancelling { by, .. } => Self::Cancelled { by, at: now },
            over => over,
        }
    }

    fn resume(self) -> Result<Self, FanOutRefusal> {
        match self {
            Self::Stopped { .. } => Ok(Self::Running),
            Self::Incomplete { .. } => Err(FanOutRefusal::NothingLeft),
            other => Err(other.cannot_go_on()),
        }
    }

    fn retry(self) -> Result<Self, FanOutRefusal> {
        match self {
            Self::Stopped { .. } | Self::Incomplete { .. } => Ok(Self::Running),
            other => Err(other.cannot_go_on()),
        }
    }

    const fn cannot_go_on(&self) -> FanOutRefusal {
        match self {
            Self::Running => FanOutRefusal::Running,
            Self::Stopping { .. } => FanOutRefusal::StillRunning,
            Self::Cancelling { .. } | Self::Cancelled { .. } => FanOutRefusal::Cancelled,
            Self::Succeeded { .. } => FanOutRefusal::AllSucceeded,
            Self::Stopped { .. } | Self::Incomplete { .. } => FanOutRefusal::NothingLeft,
        }
    }

    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> FanOutStateName {
        match self {
            Self::Running => FanOutStateName::Running,
            Self::Stopping { .. } => FanOutStateName::Stopping,
            Self::Cancelling { .. } => FanOutStateName::Cancelling,
            Self::Stopped { .. } => FanOutStateName::Stopped,
            Self::Cancelled { .. } => FanOutStateName::Cancelled,
            Self::Succeeded { .. } => FanOutStateName::Succeeded,
            Self::Incomplete { .. } => FanOutStateName::Incomplete,
        }
    }

    /// Whether nothing happens to it any more by itself.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.name().is_over()
    }

    /// Why it stops or has stopped.
    #[must_use]
    pub const fn reason(&self) -> Option<&StopReason> {
        match self {
            Self::Stopping { reason, .. } | Self::Stopped { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Who cancelled it.
    #[must_use]
    pub fn cancelled_by(&self) -> Option<&str> {
        match self {
            Self::Cancelling { by, .. } | Self::Cancelled { by, .. } => Some(by),
            _ => None,
        }
    }

    /// When it was over; `None` until it is.
    #[must_use]
    pub const fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Stopped { at, .. }
            | Self::Cancelled { at, .. }
            | Self::Succeeded { at }
            | Self::Incomplete { at } => Some(*at),
            Self::Running | Self::Stopping { .. } | Self::Cancelling { .. } => None,
        }
    }
}

/// The clusters' own grace, which is what silence means, is not known here, so any number takes its place.
fn shorter(before: Option<u64>, grace: Option<u64>) -> Option<u64> {
    match (before, grace) {
        (Some(before), Some(grace)) => Some(before.min(grace)),
        (before, grace) => before.or(grace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn reason(code: StopCode) -> StopReason {
        StopReason {
            code,
            message: "words".to_owned(),
        }
    }

    fn all() -> [FanOutState; 7] {
        let (at, since, by) = (now(), now(), "ada".to_owned());
        let reason = reason(StopCode::CanaryFailed);
        [
            FanOutState::Running,
            FanOutState::Stopping {
                reason: reason.clone(),
                since,
            },
            FanOutState::Cancelling {
                by: by.clone(),
                grace_seconds: None,
                since,
            },
            FanOutState::Stopped { reason, at },
            FanOutState::Cancelled { by, at },
            FanOutState::Succeeded { at },
            FanOutState::Incomplete { at },
        ]
    }

    #[test]
    fn every_event_in_every_state() {
        let events = [
            FanOutEvent::Stop {
                reason: reason(StopCode::TooManyFailures),
            },
            FanOutEvent::Cancel {
                by: "bob".to_owned(),
                grace_seconds: Some(5),
            },
            FanOutEvent::Settle {
                all_succeeded: true,
            },
            FanOutEvent::Settle {
                all_succeeded: false,
            },
            FanOutEvent::Resume,
            FanOutEvent::Retry,
        ];
        let names = [
            "stop",
            "cancel",
            "settle",
            "settle, failures",
            "resume",
            "retry",
        ];
        let mut table = String::new();
        for state in all() {
            for (name, event) in names.iter().zip(&events) {
                let next = match state.clone().on(event.clone(), now()) {
                    Ok(next) if next == state => "the same".to_owned(),
                    Ok(next) => next.name().to_string(),
                    Err(refusal) => format!("refused: {refusal:?}"),
                };
                table += &format!("{:<11}{name:<17}{next}\n", state.name());
            }
        }
        insta::assert_snapshot!(table, @r"
        running    stop             stopping
        running    cancel           cancelling
        running    settle           succeeded
        running    settle, failures incomplete
        running    resume           refused: Running
        running    retry            refused: Running
        stopping   stop             the same
        stopping   cancel           cancelling
        stopping   settle           stopped
        stopping   settle, failures stopped
        stopping   resume           refused: StillRunning
        stopping   retry            refused: StillRunning
        cancelling stop             the same
        cancelling cancel           cancelling
        cancelling settle           cancelled
        cancelling settle, failures cancelled
        cancelling resume           refused: Cancelled
        cancelling retry            refused: Cancelled
        stopped    stop             refused: Over
        stopped    cancel           refused: Over
        stopped    settle           the same
        stopped    settle, failures the same
        stopped    resume           running
        stopped    retry            running
        cancelled  stop             refused: Over
        cancelled  cancel           refused: Over
        cancelled  settle           the same
        cancelled  settle, failures the same
        cancelled  resume           refused: Cancelled
        cancelled  retry            refused: Cancelled
        succeeded  stop             refused: Over
        succeeded  cancel           refused: Over
        succeeded  settle           the same
        succeeded  settle, failures the same
        succeeded  resume           refused: AllSucceeded
        succeeded  retry            refused: AllSucceeded
        incomplete stop             refused: Over
        incomplete cancel           refused: Over
        incomplete settle           the same
        incomplete settle, failures the same
        incomplete resume           refused: NothingLeft
        incomplete retry            running
        ");
    }

    #[test]
    fn a_second_cancel_can_only_shorten_the_grace() {
        let cancel = |grace_seconds| FanOutEvent::Cancel {
            by: "ada".to_owned(),
            grace_seconds,
        };
        for (first, second, left) in [
            (None, None, None),
            (None, Some(5), Some(5)),
            (Some(5), None, Some(5)),
            (Some(5), Some(3), Some(3)),
            (Some(5), Some(9), Some(5)),
        ] {
            let once = FanOutState::Running.on(cancel(first), now()).unwrap();
            let FanOutState::Cancelling { grace_seconds, .. } =
                once.on(cancel(second), now()).unwrap()
            else {
                panic!("not cancelling");
            };
            assert_eq!(grace_seconds, left, "{first:?} then {second:?}");
        }
    }

    /// A state is stored as JSON, and read by the next version.
    #[test]
    fn a_stored_state_reads_back() {
        for state in all() {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<FanOutState>(&text).unwrap(), state);
        }
    }
}
