//! One command on many clusters: a fan-out as it is asked for ([`FanOutSpec`]), planned ([`FanOutPlan`]) and shown
//! ([`FanOut`]).
//!
//! A fan-out makes one job for each cluster that its selector chose when it was submitted. First the canaries,
//! alone; when all of them have succeeded the others, no more at once than is allowed; and none any more when too
//! many have failed. The doors are in [`crate::api`].

mod child;
mod share;
mod state;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, FanOutId, JobId};
use crate::job::{IfOffline, JobSpec};
use crate::problem::ProblemCode;
use crate::selector::Selector;
use crate::state::StateName;

pub use child::{ChildEvent, ChildRefusesEvent, ChildState, JobEnd};
pub use share::{FailureBudget, InvalidShare, RoundsToNone, Share};
pub use state::{FanOutEvent, FanOutRefusal, FanOutState, FanOutStateName, StopCode, StopReason};

/// What a person asks for: the body of `POST /v1/fanouts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOutSpec {
    /// What to run on each cluster: as a single job, but `cluster`, `if_offline` and `stdin` stay out.
    /// `start_within_seconds` is how long a cluster's job may wait for its start, counted from that cluster's turn.
    pub job: JobSpec,
    /// Which clusters, by their labels. They are looked up once, when the fan-out is submitted.
    pub selector: Selector,
    /// Clusters that come first, in this order: no other starts before all of these have succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<ClusterName>,
    /// How many clusters may run at once; all if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Share>,
    /// Whether to begin with one and to allow one more with each success: 1, 2, 4, … up to `concurrency`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ramp: bool,
    /// How many clusters may fail: with one more it stops. If silent, only a canary that fails stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<FailureBudget>,
    /// What becomes of the clusters that are running when it stops.
    #[serde(default, skip_serializing_if = "OnStop::is_finish")]
    pub on_stop: OnStop,
    /// What becomes of clusters whose runner does not speak.
    #[serde(default, skip_serializing_if = "OfflineClusters::is_wait")]
    pub if_offline: OfflineClusters,
    /// The clusters that the submitter was shown: if the selector chooses others now, the fan-out is refused, and
    /// the refusal says which. The order does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Vec<ClusterName>>,
}

/// What becomes of the clusters that are running when a fan-out stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// Their commands end by themselves.
    #[default]
    Finish,
    /// They are cancelled.
    Cancel,
}

impl OnStop {
    /// The default.
    #[must_use]
    pub const fn is_finish(&self) -> bool {
        matches!(self, Self::Finish)
    }
}

/// What becomes of the clusters of a fan-out whose runner does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OfflineClusters {
    /// When its turn comes, such a cluster waits, as long as a job may wait for its start, while others overtake
    /// it. If it does not speak until then, it has failed.
    #[default]
    Wait,
    /// A cluster that does not speak when its turn comes is left out, which is no failure. A canary is never left
    /// out: it fails.
    Skip,
    /// It has failed as soon as it is seen not to speak.
    Fail,
}

impl OfflineClusters {
    /// The default.
    #[must_use]
    pub const fn is_wait(&self) -> bool {
        matches!(self, Self::Wait)
    }
}

/// Why a fan-out cannot be, whatever clusters there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFanOut {
    /// A cluster beside the selector.
    #[error(
        "the job names cluster {0}, and a fan-out chooses its clusters by its selector: leave cluster out of the job, \
         or submit it as a single job"
    )]
    Cluster(ClusterName),
    /// The question of a single job.
    #[error("say what becomes of offline clusters with if_offline of the fan-out, not of its job")]
    IfOffline,
    /// One stdin for many commands.
    #[error(
        "a fan-out has no stdin: it can be read once, and the commands of many clusters start at different times; \
         attach what they are to read as a file"
    )]
    Stdin,
    /// A canary twice.
    #[error("cluster {0} is named twice as a canary: once is enough")]
    CanaryTwice(ClusterName),
}

impl FanOutSpec {
    /// Checks what can be checked without knowing the clusters.
    ///
    /// # Errors
    /// [`InvalidFanOut`] says what to ask for instead.
    pub fn check(&self) -> Result<(), InvalidFanOut> {
        if let Some(cluster) = &self.job.cluster {
            return Err(InvalidFanOut::Cluster(cluster.clone()));
        }
        if self.job.if_offline != IfOffline::Wait {
            return Err(InvalidFanOut::IfOffline);
        }
        if self.job.stdin {
            return Err(InvalidFanOut::Stdin);
        }
        let mut seen = BTreeSet::new();
        match self.canary.iter().find(|name| !seen.insert(*name)) {
            Some(name) => Err(InvalidFanOut::CanaryTwice(name.clone())),
            None => Ok(()),
        }
    }
}

/// How many clusters may do what, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOutLimits {
    /// How many clusters there are.
    pub clusters: u32,
    /// How many of them come first, alone.
    pub canaries: u32,
    /// How many may run at once.
    pub concurrency: u32,
    /// How many may fail: with one more it stops. `None`: any number.
    pub max_failures: Option<u32>,
}

/// What would become of a fan-out if it were submitted now. Nothing is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOutPlan {
    /// The limits, in numbers.
    pub limits: FanOutLimits,
    /// The clusters, in the order in which they would start.
    pub clusters: Vec<PlannedChild>,
}

/// A cluster in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedChild {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether it comes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// What is said of it if its runner does not speak: since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<String>,
    /// Why it would be refused, if it would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<ChildRefusal>,
}

/// Why a cluster's job is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChildRefusal {
    /// Which problem a single job would be refused with.
    pub code: ProblemCode,
    /// In words, for people.
    pub message: String,
}

/// A fan-out, as everybody who may read it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOut {
    /// Its id.
    pub id: FanOutId,
    /// What was asked for, without secrets and without `expected`.
    pub spec: FanOutSpec,
    /// The names of secret variables that its submitter gave to the commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Who submitted it, and whose rights are asked for at each start.
    pub submitted_by: String,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// Where it stands.
    pub state: FanOutStateName,
    /// Why it stops or has stopped, if it does or has.
    pub reason: Option<StopReason>,
    /// Who cancelled it, if somebody did.
    pub cancelled_by: Option<String>,
    /// When it was over; `None` until then, and again once it goes on.
    pub ended: Option<Timestamp>,
    /// The limits, in numbers.
    pub limits: FanOutLimits,
    /// How many may run at once at this moment; grows with a ramp.
    pub allowed: u32,
    /// How many clusters are in which state.
    pub counts: ChildCounts,
    /// How often somebody made it go on after a stop or an end. Failures, and the ramp, are counted from there.
    pub round: u32,
    /// Grows with every step of its story: what a long-poll waits to see pass.
    pub version: i64,
    /// Its clusters, in the order in which they start; only where one fan-out is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Child>,
    /// What happened to it, oldest first; only where one fan-out is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub story: Vec<FanOutStep>,
}

/// One cluster of a fan-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Child {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether it comes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// Where it stands.
    pub state: ChildStateName,
    /// Which attempt this is, from 1; each is a job of its own.
    pub attempt: u32,
    /// The job of this attempt, once there is one.
    pub job: Option<JobId>,
    /// That job's own state.
    pub job_state: Option<StateName>,
    /// Its command's own exit code, if that ended.
    pub exit_code: Option<u8>,
    /// What it waits for, or why it was not started or did not succeed, in words.
    pub reason: Option<String>,
    /// Why there is no job, if it was refused.
    pub refusal: Option<ProblemCode>,
    /// When its job was made.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
}

/// Where a cluster of a fan-out stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChildStateName {
    /// It waits for its turn, or for a runner that does not speak: the reason says which.
    Pending,
    /// It has a job that is not over.
    Running,
    /// Its command succeeded.
    Succeeded,
    /// Its job ended in any other way: `job_state` says in which.
    Failed,
    /// No job was made, because a single one would have been refused. A failure.
    Refused,
    /// No job was made, because its runner did not speak. A failure.
    Offline,
    /// No job was made, because its runner did not speak, and that was to be no failure.
    Skipped,
    /// Its command was not started, because the fan-out stopped before: no job was made, or it was cancelled in time.
    NotStarted,
    /// It was cancelled with the fan-out, or when that stopped.
    Cancelled,
    /// One that was made after this program.
    #[serde(other)]
    Unknown,
}

impl ChildStateName {
    /// The name as it is written everywhere, such as `not_started`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Offline => "offline",
            Self::Skipped => "skipped",
            Self::NotStarted => "not_started",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it counts as a failure.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Refused | Self::Offline)
    }
}

impl std::fmt::Display for ChildStateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many clusters are in which state; together they are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(
    missing_docs,
    reason = "each is documented at the state that bears its name"
)]
pub struct ChildCounts {
    pub pending: u32,
    pub running: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub refused: u32,
    pub offline: u32,
    pub skipped: u32,
    pub not_started: u32,
    pub cancelled: u32,
}

impl ChildCounts {
    /// Counts so many more.
    pub const fn add(&mut self, state: ChildStateName, more: u32) {
        match state {
            ChildStateName::Pending => self.pending += more,
            ChildStateName::Running => self.running += more,
            ChildStateName::Succeeded => self.succeeded += more,
            ChildStateName::Failed => self.failed += more,
            ChildStateName::Refused => self.refused += more,
            ChildStateName::Offline => self.offline += more,
            ChildStateName::Skipped => self.skipped += more,
            ChildStateName::NotStarted => self.not_started += more,
            ChildStateName::Cancelled => self.cancelled += more,
            // Nobody here makes one.
            ChildStateName::Unknown => {}
        }
    }

    /// How many clusters that is in all.
    #[must_use]
    pub const fn all(&self) -> u32 {
        self.pending
            + self.running
            + self.succeeded
            + self.failures()
            + self.skipped
            + self.not_started
            + self.cancelled
    }

    /// How many have failed, in any way.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failed + self.refused + self.offline
    }
}

/// One step in the story of a fan-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOutStep {
    /// When, by the dispatcher's clock.
    pub at: Timestamp,
    /// Who: a person's name, or `dispatcher`.
    pub by: String,
    /// What happened.
    pub step: FanOutStepName,
    /// To which of its clusters, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The particulars, for people; may be empty.
    pub message: String,
}

/// What can happen to a fan-out, as its story tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FanOutStepName {
    /// It was accepted.
    Submitted,
    /// A cluster's turn came, and its runner does not speak.
    ClusterWaiting,
    /// A cluster's job was made.
    ClusterStarted,
    /// A cluster is over, with or without a job.
    ClusterEnded,
    /// Nothing is started any more.
    Stopping,
    /// It has stopped: nothing is running any more.
    Stopped,
    /// Somebody made it go on.
    Resumed,
    /// Somebody made it go on, with another attempt for what had failed.
    Retried,
    /// Somebody wants all of it stopped.
    CancelRequested,
    /// It is over.
    Ended,
    /// One that was made after this program; the message says it.
    #[serde(other)]
    Unknown,
}

impl FanOutStepName {
    /// The name as it is written everywhere, such as `cluster_started`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::ClusterWaiting => "cluster_waiting",
            Self::ClusterStarted => "cluster_started",
            Self::ClusterEnded => "cluster_ended",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Resumed => "resumed",
            Self::Retried => "retried",
            Self::CancelRequested => "cancel_requested",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }
}

/// Which fan-outs to list: the newest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct FanOutsQuery {
    /// How many, 1 to 500; 50 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only fan-outs before this one: the last id of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FanOutId>,
}

/// A page of fan-outs, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FanOutList {
    /// The fan-outs, without their clusters and stories.
    pub fanouts: Vec<FanOut>,
    /// What to pass as `before` for the next page; `None` on the last.
    pub next: Option<FanOutId>,
}

/// How long to wait for news of a fan-out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct FanOutQuery {
    /// Answer when the fan-out's `version` has passed what `version` says here, or it is over, or these seconds
    /// are; at most 60, 0 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
    /// The version that the caller has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
}

/// What is tried again: the body of `POST /v1/fanouts/{id}/retry-failed`, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryFailedRequest {
    /// Whether also those of which nobody knows how they ended (`lost`): their command may have done its work, or
    /// may still be running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}
