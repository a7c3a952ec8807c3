//! The states of a job and the only ways between them.
//!
//! ```text
//!                    claim          pod made          permit
//!          Queued ─────────▶ Claimed ─────▶ Starting ─────────▶ Running ◀──▶ ContactLost
//!            │◀─ pod lost, ─────┤◀─────────────┤                  │  │cancel       │
//!            │   or put off     │              │                  │  │             │
//!            ├──────────────────┴──────────────┤                  │  ▼             │
//!            │ never started:                  │                  │ Cancelling ◀───┘
//!            ▼                                 ▼                  ▼  ▼
//!   Expired  Cancelled  Rejected  InfraFailed        Succeeded  Failed  TimedOut  Cancelled  Lost
//! ```
//!
//! **The permit is the start.** It is granted once, for one pod, before the start deadline; every
//! path that ends a job without one may say "never started" with certainty, and every path after one
//! may not, but for one: the shim that holds the permit says that it could not prepare for the command.
//! A cancel is applied to the same state by the same compare-and-set, so exactly one wins.
//!
//! Reports are repeated whenever an answer was lost. An event that changes nothing returns the same
//! state; one that contradicts what is known is refused, never merged.

mod name;
mod reason;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{PodUid, RunnerId};
use crate::output::{EndCause, ExitRecord, ExitStatus, IncompleteReason, OutputComplete};

pub use name::StateName;
pub use reason::{Reason, ReasonCode};

/// What is known of a job now. Each variant holds exactly what is known then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Stored. It waits for a runner of its cluster.
    Queued,
    /// A runner has verified the order and will make a pod.
    Claimed {
        /// The replica that did.
        runner: RunnerId,
        /// When.
        since: Timestamp,
    },
    /// The pod exists; its shim has no permit yet.
    Starting {
        /// The replica that made it.
        runner: RunnerId,
        /// When.
        since: Timestamp,
    },
    /// The command was permitted to start in this pod, and in no other for ever.
    Running {
        /// The pod.
        pod: PodUid,
        /// When the permit was granted.
        since: Timestamp,
    },
    /// As running, but nobody in the cluster has spoken for it lately.
    ContactLost {
        /// The pod.
        pod: PodUid,
        /// When the permit was granted.
        started: Timestamp,
        /// Since when there has been silence.
        since: Timestamp,
        /// Who is silent: the cluster, or the pod's node.
        reason: Reason,
    },
    /// A running command is to be stopped.
    Cancelling {
        /// The pod.
        pod: PodUid,
        /// When the permit was granted.
        started: Timestamp,
        /// Who asked.
        by: String,
        /// When they asked.
        since: Timestamp,
        /// From SIGTERM to SIGKILL, in seconds; the runner's own if silent.
        grace_seconds: Option<u64>,
        /// When the pod's shim had the order.
        delivered: Option<Timestamp>,
    },
    /// The command exited with 0, by itself.
    Succeeded {
        /// The shim's word.
        exit: ExitRecord,
        /// Whether the output is all there.
        output: OutputComplete,
        /// When the dispatcher learned of it.
        at: Timestamp,
    },
    /// The command exited with another code or was killed, not by us.
    Failed {
        /// The shim's word.
        exit: ExitRecord,
        /// Whether the output is all there.
        output: OutputComplete,
        /// When the dispatcher learned of it.
        at: Timestamp,
    },
    /// The command ran longer than it was allowed and was stopped.
    TimedOut {
        /// The shim's word.
        exit: ExitRecord,
        /// Whether the output is all there.
        output: OutputComplete,
        /// When the dispatcher learned of it.
        at: Timestamp,
    },
    /// Somebody stopped it.
    Cancelled {
        /// Who.
        by: String,
        /// How the command ended; `None` if it never started.
        exit: Option<ExitRecord>,
        /// Whether the output is all there.
        output: OutputComplete,
        /// When it was over.
        at: Timestamp,
    },
    /// It was not started before its start deadline, and never will be.
    Expired {
        /// What it was waiting for at that moment.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// The cluster refused it. It never started.
    Rejected {
        /// Why.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// The machinery failed before the command could start. It never started.
    InfraFailed {
        /// Why.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// It was permitted to start, and nobody can say how it ended, or whether it did its work.
    Lost {
        /// Why.
        reason: Reason,
        /// The shim's word, if Kubernetes made it stop the command half-way.
        exit: Option<ExitRecord>,
        /// Whether the output is all there.
        output: OutputComplete,
        /// When the dispatcher gave up.
        at: Timestamp,
    },
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A runner of the job's cluster took the order.
    Claim {
        /// The replica.
        runner: RunnerId,
    },
    /// A runner made, or adopted, the job's pod.
    PodCreated {
        /// The replica.
        runner: RunnerId,
    },
    /// A shim that proved which pod it is asks to start the command.
    Permit {
        /// The pod.
        pod: PodUid,
        /// The last moment at which the job may start.
        start_deadline: Timestamp,
    },
    /// The cluster's own record says that the command was permitted to start, and the store does not
    /// know it: it was restored from a backup.
    Recover {
        /// The pod that the record names.
        pod: PodUid,
        /// When the permit was recorded.
        started: Timestamp,
    },
    /// A person wants it stopped.
    Cancel {
        /// Who.
        by: String,
        /// From SIGTERM to SIGKILL, in seconds; the runner's own if silent.
        grace_seconds: Option<u64>,
    },
    /// The pod's shim has the order to stop.
    CancelDelivered {
        /// The pod.
        pod: PodUid,
    },
    /// The shim reports the end.
    Exit {
        /// The pod that reports.
        pod: PodUid,
        /// Its word.
        exit: ExitRecord,
        /// How much of the output log is stored.
        stored: u64,
    },
    /// The shim of the permitted pod could not prepare for the command: it has not executed it, and never
    /// will.
    StartRefused {
        /// The pod.
        pod: PodUid,
        /// Why.
        reason: Reason,
    },
    /// The runner refuses the order.
    Reject {
        /// Why.
        reason: Reason,
    },
    /// The runner gives up on the pod: it cannot start, or it is gone without an exit record.
    PodFailed {
        /// The pod, where there was one.
        pod: Option<PodUid>,
        /// Why.
        reason: Reason,
        /// What was tried before.
        retries: Retries,
    },
    /// The runner lets go of an order that it cannot start yet.
    Postpone,
    /// The start deadline is over.
    StartDeadline {
        /// What it was waiting for.
        reason: Reason,
    },
    /// Nobody has spoken for a running job for a while.
    Silence {
        /// Who is silent.
        reason: Reason,
    },
    /// Somebody has again.
    Contact {
        /// Whose silence is over; another one's goes on.
        ends: ReasonCode,
    },
    /// The dispatcher gives a started job up: it has been silent beyond every deadline.
    GiveUp {
        /// Why.
        reason: Reason,
    },
}

/// How often a job was put back into the queue because its pod was lost before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retries {
    /// How often.
    pub count: u32,
    /// The pod that was lost last: to be told of it again is no new loss.
    pub last: Option<PodUid>,
}

/// How often a lost pod is replaced by itself. What kills six pods in a row is no accident.
pub const MAX_RETRIES: u32 = 5;

/// Why an event does not apply. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The job is in a terminal state.
    #[error("the job is over")]
    Over,
    /// The command was permitted to start already.
    #[error("the command has been started already")]
    AlreadyStarted,
    /// The command was permitted to start in another pod.
    #[error("the command was started in another pod")]
    OtherPod,
    /// It can no longer start.
    #[error("the start deadline is over")]
    TooLate,
    /// No command was permitted to start, so none can have ended.
    #[error("the command was never started")]
    NotStarted,
    /// Another end was recorded before. Somebody reports what is not true: raise an alarm.
    #[error("another end of this job is on record")]
    Contradiction,
}

/// What is certain about whether the command started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// A shim says it did.
    Yes,
    /// It was never permitted to.
    No,
    /// It was permitted to, and nobody has said that it did.
    Unknown,
}

impl JobState {
    /// Applies what happened at `now`.
    ///
    /// # Guarantees
    /// A terminal state never changes. An event that says what is known already returns the same
    /// state, so repeated reports are harmless.
    ///
    /// # Errors
    /// [`Refusal`] says why the event does not apply.
    pub fn on(self, event: Event, now: Timestamp) -> Result<Self, Refusal> {
        match event {
            Event::Claim { runner } => self.claim(runner, now),
            Event::PodCreated { runner } => self.pod_created(runner, now),
            Event::Permit {
                pod,
                start_deadline,
            } => self.permit(pod, start_deadline, now),
            Event::Recover { pod, started } => self.recover(pod, started),
            Event::Cancel { by, grace_seconds } => self.cancel(by, grace_seconds, now),
            Event::CancelDelivered { pod } => self.cancel_delivered(pod, now),
            Event::Exit { pod, exit, stored } => self.exit(pod, exit, stored, now),
            Event::StartRefused { pod, reason } => self.start_refused(pod, reason, now),
            Event::Reject { reason } => self.end_unstarted(Self::Rejected { reason, at: now }),
            Event::PodFailed {
                pod,
                reason,
                retries,
            } => self.pod_failed(pod, reason, retries, now),
            Event::Postpone => self.postpone(),
            Event::StartDeadline { reason } => {
                self.end_unstarted(Self::Expired { reason, at: now })
            }
            Event::Silence { reason } => self.silence(reason, now),
            Event::Contact { ends } => self.contact(ends),
            Event::GiveUp { reason } => self.give_up(reason, now),
        }
    }

    fn claim(self, runner: RunnerId, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Claimed {
                runner: ref holder, ..
            } if *holder == runner => Ok(self),
            // Any replica of the cluster may take over from one that was killed after its claim.
            Self::Queued | Self::Claimed { .. } => Ok(Self::Claimed { runner, since: now }),
            Self::Starting { since, .. } => Ok(Self::Starting { runner, since }),
            other => Err(other.refuse_before_start()),
        }
    }

    fn pod_created(self, runner: RunnerId, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } => Ok(Self::Starting { runner, since: now }),
            Self::Starting { .. } => Ok(self),
            other => Err(other.refuse_before_start()),
        }
    }

    fn permit(
        self,
        pod: PodUid,
        start_deadline: Timestamp,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } if now > start_deadline => {
                Err(Refusal::TooLate)
            }
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => {
                Ok(Self::Running { pod, since: now })
            }
            // The answer to the first permit was lost: the same pod may hear it again.
            other => other.if_held_by(pod),
        }
    }

    /// A started job as it is, for the pod that holds its permit.
    fn if_held_by(self, pod: PodUid) -> Result<Self, Refusal> {
        match self {
            Self::Running { pod: holder, .. }
            | Self::ContactLost { pod: holder, .. }
            | Self::Cancelling { pod: holder, .. } => {
                if holder == pod {
                    Ok(self)
                } else {
                    Err(Refusal::OtherPod)
                }
            }
            _ => Err(Refusal::Over),
        }
    }

    /// The cluster's record was made under a permit, so no deadline is asked for again.
    fn recover(self, pod: PodUid, started: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Ok(Self::Running {
                pod,
                since: started,
            }),
            other => other.if_held_by(pod),
        }
    }

    fn cancel(
        self,
        by: String,
        grace_seconds: Option<u64>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Ok(Self::Cancelled {
                by,
                exit: None,
                output: OutputComplete::Yes,
                at: now,
            }),
            Self::Running {
                pod,
                since: started,
            }
            | Self::ContactLost { pod, started, .. } => Ok(Self::Cancelling {
                pod,
                started,
                by,
                since: now,
                grace_seconds,
                delivered: None,
            }),
            Self::Cancelling {
                pod,
                started,
                by,
                since,
                grace_seconds: before,
                ..
            } if is_shorter(grace_seconds, before) => Ok(Self::Cancelling {
                pod,
                started,
                by,
                since,
                grace_seconds,
                delivered: None,
            }),
            Self::Cancelling { .. } | Self::Cancelled { .. } => Ok(self),
            _ => Err(Refusal::Over),
        }
    }

    fn cancel_delivered(self, pod: PodUid, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Cancelling { pod: holder, .. } if holder != pod => Err(Refusal::OtherPod),
            Self::Cancelling {
                pod,
                started,
                by,
                since,
                grace_seconds,
                delivered: None,
            } => Ok(Self::Cancelling {
                pod,
                started,
                by,
                since,
                grace_seconds,
                delivered: Some(now),
            }),
            Self::Cancelling { .. } => Ok(self),
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Err(Refusal::NotStarted),
            Self::Running { .. } | Self::ContactLost { .. } => Err(Refusal::AlreadyStarted),
            _ => Err(Refusal::Over),
        }
    }

    fn exit(
        self,
        pod: PodUid,
        exit: ExitRecord,
        stored: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let by = match &self {
            Self::Running { pod: holder, .. } | Self::ContactLost { pod: holder, .. }
                if *holder == pod =>
            {
                String::new()
            }
            Self::Cancelling {
                pod: holder, by, ..
            } if *holder == pod => by.clone(),
            Self::Running { .. } | Self::ContactLost { .. } | Self::Cancelling { .. } => {
                return Err(Refusal::OtherPod);
            }
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => {
                return Err(Refusal::NotStarted);
            }
            // The same record again is how a shim behaves whose acknowledgement was lost.
            over if over.exit_record() == Some(&exit) => return Ok(self),
            // Given up before: the record comes too late to change a terminal state, and is no lie.
            Self::Lost { .. } => return Err(Refusal::Over),
            _ => return Err(Refusal::Contradiction),
        };
        let output = if stored != exit.log_bytes {
            OutputComplete::No(exit.incomplete.unwrap_or(IncompleteReason::NotUploaded))
        } else if exit.discarded.is_nothing() {
            OutputComplete::Yes
        } else {
            OutputComplete::No(IncompleteReason::Cap)
        };
        Ok(match (exit.cause, exit.status) {
            (EndCause::Itself, ExitStatus::Exited(0)) => Self::Succeeded {
                exit,
                output,
                at: now,
            },
            (EndCause::Itself, _) => Self::Failed {
                exit,
                output,
                at: now,
            },
            (EndCause::RunTimeout, _) => Self::TimedOut {
                exit,
                output,
                at: now,
            },
            (EndCause::Cancelled, _) => Self::Cancelled {
                by,
                exit: Some(exit),
                output,
                at: now,
            },
            // A command that was told to stop and then exits with 0 has not done its work.
            (EndCause::PodTerminated, status) => {
                let message = format!(
                    "Kubernetes told the pod to stop, and the command did not end by itself within the \
                     pod's grace: it was stopped half-way, with code {}",
                    status.code()
                );
                Self::Lost {
                    reason: Reason::new(ReasonCode::PodTerminated, message),
                    exit: Some(exit),
                    output,
                    at: now,
                }
            }
        })
    }

    /// The one way from a permit back to "never started": the word of the shim that holds it, and whose
    /// marker keeps the pod from ever starting anything.
    fn start_refused(self, pod: PodUid, reason: Reason, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Err(Refusal::NotStarted),
            Self::InfraFailed { .. } | Self::Cancelled { exit: None, .. } => Ok(self),
            Self::Lost { exit: None, .. } => Err(Refusal::Over),
            over if over.is_terminal() => Err(Refusal::Contradiction),
            running => Ok(match running.if_held_by(pod)? {
                Self::Cancelling { by, .. } => Self::Cancelled {
                    by,
                    exit: None,
                    output: OutputComplete::Yes,
                    at: now,
                },
                _ => Self::InfraFailed { reason, at: now },
            }),
        }
    }

    fn pod_failed(
        self,
        pod: Option<PodUid>,
        reason: Reason,
        retries: Retries,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        match self {
            Self::Running { pod: holder, .. }
            | Self::ContactLost { pod: holder, .. }
            | Self::Cancelling { pod: holder, .. } => {
                if pod == Some(holder) {
                    Ok(Self::lost(reason, now))
                } else {
                    Err(Refusal::OtherPod)
                }
            }
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. }
                if pod.is_some() && pod == retries.last =>
            {
                Ok(self)
            }
            // It provably never started, and the next pod may have more luck.
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. }
                if reason.code.is_of_the_pod_alone() && retries.count < MAX_RETRIES =>
            {
                Ok(Self::Queued)
            }
            other => other.end_unstarted(Self::InfraFailed { reason, at: now }),
        }
    }

    fn postpone(self) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Ok(Self::Queued),
            other => Err(other.refuse_before_start()),
        }
    }

    const fn lost(reason: Reason, at: Timestamp) -> Self {
        Self::Lost {
            reason,
            exit: None,
            output: OutputComplete::No(IncompleteReason::PodGone),
            at,
        }
    }

    /// Ends a job that provably never started; the same end again changes nothing.
    fn end_unstarted(self, end: Self) -> Result<Self, Refusal> {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Ok(end),
            Self::Running { .. } | Self::ContactLost { .. } | Self::Cancelling { .. } => {
                Err(Refusal::AlreadyStarted)
            }
            over if over.name() == end.name() => Ok(over),
            _ => Err(Refusal::Over),
        }
    }

    fn silence(self, reason: Reason, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Running {
                pod,
                since: started,
            } => Ok(Self::ContactLost {
                pod,
                started,
                since: now,
                reason,
            }),
            Self::ContactLost { .. } | Self::Cancelling { .. } => Ok(self),
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Err(Refusal::NotStarted),
            _ => Err(Refusal::Over),
        }
    }

    fn contact(self, ends: ReasonCode) -> Result<Self, Refusal> {
        match self {
            Self::ContactLost {
                pod,
                started,
                reason,
                ..
            } if reason.code == ends => Ok(Self::Running {
                pod,
                since: started,
            }),
            Self::ContactLost { .. } | Self::Running { .. } | Self::Cancelling { .. } => Ok(self),
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Err(Refusal::NotStarted),
            _ => Err(Refusal::Over),
        }
    }

    fn give_up(self, reason: Reason, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Running { .. } | Self::ContactLost { .. } | Self::Cancelling { .. } => {
                Ok(Self::lost(reason, now))
            }
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Err(Refusal::NotStarted),
            Self::Lost { .. } => Ok(self),
            _ => Err(Refusal::Over),
        }
    }

    fn refuse_before_start(&self) -> Refusal {
        if self.is_terminal() {
            Refusal::Over
        } else {
            Refusal::AlreadyStarted
        }
    }

    /// The state's name: what the API, the tables and the metrics call it.
    #[must_use]
    pub const fn name(&self) -> StateName {
        match self {
            Self::Queued => StateName::Queued,
            Self::Claimed { .. } => StateName::Claimed,
            Self::Starting { .. } => StateName::Starting,
            Self::Running { .. } => StateName::Running,
            Self::ContactLost { .. } => StateName::ContactLost,
            Self::Cancelling { .. } => StateName::Cancelling,
            Self::Succeeded { .. } => StateName::Succeeded,
            Self::Failed { .. } => StateName::Failed,
            Self::TimedOut { .. } => StateName::TimedOut,
            Self::Cancelled { .. } => StateName::Cancelled,
            Self::Expired { .. } => StateName::Expired,
            Self::Rejected { .. } => StateName::Rejected,
            Self::InfraFailed { .. } => StateName::InfraFailed,
            Self::Lost { .. } => StateName::Lost,
        }
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.name().is_terminal()
    }

    /// Whether the command started, as far as anyone can know.
    #[must_use]
    pub const fn started(&self) -> Started {
        match self {
            Self::Queued | Self::Claimed { .. } | Self::Starting { .. } => Started::No,
            Self::Expired { .. } | Self::Rejected { .. } | Self::InfraFailed { .. } => Started::No,
            Self::Cancelled { exit: None, .. } => Started::No,
            Self::Running { .. }
            | Self::ContactLost { .. }
            | Self::Cancelling { .. }
            | Self::Lost { exit: None, .. } => Started::Unknown,
            Self::Succeeded { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Lost { .. }
            | Self::Cancelled { .. } => Started::Yes,
        }
    }

    /// Whether the output is all there; `None` until the job is over.
    #[must_use]
    pub const fn output_complete(&self) -> Option<OutputComplete> {
        match self {
            Self::Succeeded { output, .. } | Self::Failed { output, .. } => Some(*output),
            Self::TimedOut { output, .. } | Self::Cancelled { output, .. } => Some(*output),
            Self::Expired { .. } | Self::Rejected { .. } | Self::InfraFailed { .. } => {
                Some(OutputComplete::Yes)
            }
            Self::Lost { output, .. } => Some(*output),
            _ => None,
        }
    }

    /// The shim's word about the end, where there is one.
    #[must_use]
    pub const fn exit_record(&self) -> Option<&ExitRecord> {
        match self {
            Self::Succeeded { exit, .. }
            | Self::Failed { exit, .. }
            | Self::TimedOut { exit, .. } => Some(exit),
            Self::Cancelled { exit, .. } | Self::Lost { exit, .. } => exit.as_ref(),
            _ => None,
        }
    }

    /// Why it ended; of a job that nobody hears of, why not. `None` for every other state.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Expired { reason, .. }
            | Self::Rejected { reason, .. }
            | Self::InfraFailed { reason, .. }
            | Self::Lost { reason, .. }
            | Self::ContactLost { reason, .. } => Some(reason.clone()),
            Self::Succeeded { exit, .. } | Self::Failed { exit, .. } => Some(Reason::of_exit(exit)),
            Self::TimedOut { exit, .. } => {
                let message = format!(
                    "the command ran longer than it was allowed and was stopped; it left with code {}",
                    exit.status.code()
                );
                Some(Reason::new(ReasonCode::RunTimeout, message))
            }
            Self::Cancelled { by, exit, .. } => {
                let message = match exit {
                    None => format!("it was cancelled by {by} before its command started"),
                    Some(exit) => format!(
                        "it was cancelled by {by}; the command left with code {}",
                        exit.status.code()
                    ),
                };
                Some(Reason::new(ReasonCode::Cancelled, message))
            }
            _ => None,
        }
    }

    /// When it was over; `None` until it is.
    #[must_use]
    pub const fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Succeeded { at, .. } | Self::Failed { at, .. } | Self::TimedOut { at, .. } => {
                Some(*at)
            }
            Self::Cancelled { at, .. } | Self::Expired { at, .. } | Self::Rejected { at, .. } => {
                Some(*at)
            }
            Self::InfraFailed { at, .. } | Self::Lost { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// Whether a second request asks for less. The runner's own grace, which is what silence means, is not
/// known here, so any number takes its place; the shim shortens what is left, and never lengthens it.
const fn is_shorter(grace: Option<u64>, before: Option<u64>) -> bool {
    match (grace, before) {
        (Some(grace), Some(before)) => grace < before,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
