//! A job as it is asked for ([`JobSpec`]) and as it is shown ([`Job`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifacts::ArtifactsSummary;
use crate::command::Command;
use crate::environment::{Environment, SecretEnvironment};
use crate::files::Files;
use crate::id::{ClusterName, FanOutId, JobId, PodUid, ProfileName, RunnerId};
use crate::output::{
    Discarded, EndCause, IncompleteReason, OutputComplete, ResourceUsage, StreamSummary,
};
use crate::schedule::TickReference;
use crate::state::{JobState, Reason, Started, StateName};

/// How long a job waits for its start if its submitter does not say, in seconds.
pub const DEFAULT_START_WITHIN_SECONDS: u64 = 15 * 60;

/// The longest that a job may wait for its start, in seconds: a week.
pub const MAX_START_WITHIN_SECONDS: u64 = 7 * 24 * 60 * 60;

/// What a person asks for: the body of `POST /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSpec {
    /// What to run.
    pub command: Command,
    /// Where; may be left out where there is only one cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// How, by the name that the cluster's owner gave it; `default` if silent.
    #[serde(default = "ProfileName::default_profile")]
    pub profile: ProfileName,
    /// For how long the job may wait for its start, in seconds, by the dispatcher's clock;
    /// [`DEFAULT_START_WITHIN_SECONDS`] if silent, at most [`MAX_START_WITHIN_SECONDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_within_seconds: Option<u64>,
    /// For how long the command may run, in seconds; the profile's maximum if silent, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout_seconds: Option<u64>,
    /// What to do if the cluster's runner does not speak.
    #[serde(default, skip_serializing_if = "IfOffline::is_wait")]
    pub if_offline: IfOffline,
    /// The files that the command finds in its work folder, which is its current folder. They are
    /// uploaded before ([`crate::api::FILES`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Environment of the command. Everybody who may read the job may read it.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Environment of the command that nobody may read, and that is masked in its output.
    #[serde(default, skip_serializing_if = "SecretEnvironment::is_empty")]
    pub secrets: SecretEnvironment,
    /// Whether the command reads what is sent to [`crate::api::JOB_STDIN`]. If not, it reads nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
}

/// What becomes of a job for a cluster whose runner does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IfOffline {
    /// It waits until its start deadline.
    #[default]
    Wait,
    /// It is refused.
    Fail,
}

impl IfOffline {
    /// The default.
    #[must_use]
    pub const fn is_wait(&self) -> bool {
        matches!(self, Self::Wait)
    }
}

/// What a person asks for with a cancellation: the body of `POST /v1/jobs/{id}/cancel`, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelRequest {
    /// From SIGTERM to SIGKILL, in seconds, 0 to [`MAX_GRACE_SECONDS`]; the cluster's own if silent. A
    /// second request with less shortens the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// The longest time from SIGTERM to SIGKILL, in seconds.
pub const MAX_GRACE_SECONDS: u64 = 3600;

/// One step in the story of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// When, by the dispatcher's clock.
    pub at: Timestamp,
    /// Who: a person's name, `runner <cluster>/<replica>`, or `dispatcher`.
    pub by: String,
    /// What happened.
    pub step: StepName,
    /// The particulars, for people; may be empty.
    pub message: String,
}

/// What can happen to a job, as its story tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// It was accepted.
    Submitted,
    /// RabbitMQ confirmed its message.
    Published,
    /// A runner took the order.
    Claimed,
    /// Its pod was made, or adopted.
    PodCreated,
    /// It is not getting on.
    Waiting,
    /// Its pod was lost before the start, and it is queued again.
    Retried,
    /// The runner let go of the order, and it is queued again.
    Postponed,
    /// A pod was permitted to start the command.
    Permitted,
    /// The cluster reminded a restored store of the start.
    Recovered,
    /// Nobody hears of the running command.
    ContactLost,
    /// Somebody does again.
    ContactBack,
    /// Somebody wants it stopped.
    CancelRequested,
    /// The pod's shim has the order to stop.
    CancelDelivered,
    /// A report came that was too late or contradicts the record, and was refused.
    ReportRefused,
    /// It is over.
    Ended,
    /// One that was made after this program; the message says it.
    #[serde(other)]
    Unknown,
}

impl StepName {
    /// The name as it is written everywhere, such as `pod_created`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Published => "published",
            Self::Claimed => "claimed",
            Self::PodCreated => "pod_created",
            Self::Waiting => "waiting",
            Self::Retried => "retried",
            Self::Postponed => "postponed",
            Self::Permitted => "permitted",
            Self::Recovered => "recovered",
            Self::ContactLost => "contact_lost",
            Self::ContactBack => "contact_back",
            Self::CancelRequested => "cancel_requested",
            Self::CancelDelivered => "cancel_delivered",
            Self::ReportRefused => "report_refused",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }
}

/// A job, as everybody who may read it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Where it runs.
    pub cluster: ClusterName,
    /// How it runs.
    pub profile: ProfileName,
    /// What it runs.
    pub command: Command,
    /// The files that its command finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Environment that its submitter gave to the command.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// The names of secret variables that its submitter gave to the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether its command reads what is sent to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// The command on many clusters that it is a part of, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fanout: Option<FanOutId>,
    /// Who submitted it.
    pub submitted_by: String,
    /// The schedule that made it, and at which of its ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<TickReference>,
    /// Where it stands.
    pub state: StateName,
    /// The code of a command that ended: its own, or 128 and the number of the signal that killed it.
    pub exit_code: Option<u8>,
    /// Who ended the command, once it ended.
    pub cause: Option<EndCause>,
    /// Whether the command started, as far as anyone can know.
    pub started: Started,
    /// `yes` or `no` once the job is over.
    pub output_complete: Option<Completeness>,
    /// Why output is missing, if it is.
    pub output_incomplete_reason: Option<IncompleteReason>,
    /// Why the job ended as it did, once it is over.
    pub reason: Option<Reason>,
    /// What a job that is not over waits for: its start, or, if contact with it was lost, a word.
    pub waiting: Option<Reason>,
    /// For how long its command may run, in seconds, as far as the dispatcher knows: as was asked for, and
    /// never more than the profile's maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout_seconds: Option<u64>,
    /// How often it was queued again because its pod was lost before the start.
    pub retries: u32,
    /// Who cancelled it, if somebody did.
    pub cancelled_by: Option<String>,
    /// When what happened.
    pub times: Times,
    /// How much of the output log is stored, in bytes with frame headers.
    pub log_bytes: u64,
    /// The whole of stdout, by the shim's word, once the command ended.
    pub stdout: Option<StreamSummary>,
    /// The whole of stderr, by the shim's word, once the command ended.
    pub stderr: Option<StreamSummary>,
    /// What the command printed beyond the cap, which is not kept.
    #[serde(default, skip_serializing_if = "Discarded::is_nothing")]
    pub discarded: Discarded,
    /// What the command left to be sent back, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactsSummary>,
    /// When output, files and artifacts were removed because they had been kept long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expired: Option<Timestamp>,
    /// What the command cost, once it ended.
    pub usage: Option<ResourceUsage>,
    /// The replica of the runner that took it.
    pub runner: Option<RunnerId>,
    /// The pod that holds the permit to run it.
    pub pod: Option<PodUid>,
    /// Grows with every change: what a long-poll waits to see pass.
    pub version: i64,
    /// What happened to it, oldest first; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub story: Vec<Step>,
}

/// When what happened to a job. Times of the dispatcher's clock, but for the two of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Times {
    /// When it was accepted.
    pub submitted: Timestamp,
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// When it was permitted to start.
    pub permitted: Option<Timestamp>,
    /// When it was asked that it be stopped; `None` again once it is over.
    pub cancel_requested: Option<Timestamp>,
    /// When its pod had the order to stop; `None` again once it is over.
    pub cancel_delivered: Option<Timestamp>,
    /// When the command was executed, by its node's clock.
    pub started: Option<Timestamp>,
    /// When the command was gone, by its node's clock.
    pub finished: Option<Timestamp>,
    /// When the job was over.
    pub ended: Option<Timestamp>,
}

/// Yes or no, as it is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say all there is")]
pub enum Completeness {
    Yes,
    No,
}

/// What the dispatcher keeps of a job besides its state, to show it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Its id.
    pub id: JobId,
    /// Where it runs.
    pub cluster: ClusterName,
    /// How it runs.
    pub profile: ProfileName,
    /// What it runs.
    pub command: Command,
    /// The files that its command finds.
    pub files: Option<Files>,
    /// Environment that its submitter gave to the command.
    pub environment: Environment,
    /// The names of secret variables that its submitter gave to the command.
    pub secrets: Vec<String>,
    /// Whether its command reads what is sent to it.
    pub stdin: bool,
    /// The command on many clusters that it is a part of, if it is.
    pub fanout: Option<FanOutId>,
    /// Who submitted it.
    pub submitted_by: String,
    /// The schedule that made it, and at which of its ticks.
    pub tick: Option<TickReference>,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// When it was permitted to start, kept when the state no longer says it.
    pub permitted: Option<Timestamp>,
    /// The replica that took it, kept when the state no longer says it.
    pub runner: Option<RunnerId>,
    /// The pod that holds the permit, kept when the state no longer says it.
    pub pod: Option<PodUid>,
    /// How often it was queued again.
    pub retries: u32,
    /// How much of the output log is stored.
    pub log_bytes: u64,
    /// When what is kept of it was removed.
    pub output_expired: Option<Timestamp>,
    /// Grows with every change.
    pub version: i64,
}

impl Job {
    /// The view of a job in a state. `waiting` is what a job that has not started waits for.
    #[must_use]
    pub fn new(facts: JobFacts, state: &JobState, waiting: Option<Reason>) -> Self {
        let exit = state.exit_record();
        // What a command said that was stopped half-way is no result.
        let result = exit.filter(|_| state.name() != StateName::Lost);
        let (cancel_requested, cancel_delivered) = match state {
            JobState::Cancelling {
                since, delivered, ..
            } => (Some(*since), *delivered),
            _ => (None, None),
        };
        let (reason, waiting) = if state.is_terminal() {
            (state.reason(), None)
        } else {
            (None, state.reason().or(waiting))
        };
        let (output_complete, output_incomplete_reason) = match state.output_complete() {
            None => (None, None),
            Some(OutputComplete::Yes) => (Some(Completeness::Yes), None),
            Some(OutputComplete::No(reason)) => (Some(Completeness::No), Some(reason)),
        };
        let cancelled_by = match state {
            JobState::Cancelling { by, .. } | JobState::Cancelled { by, .. } => Some(by.clone()),
            _ => None,
        };
        Self {
            id: facts.id,
            cluster: facts.cluster,
            profile: facts.profile,
            command: facts.command,
            files: facts.files,
            environment: facts.environment,
            secrets: facts.secrets,
            stdin: facts.stdin,
            fanout: facts.fanout,
            submitted_by: facts.submitted_by,
            tick: facts.tick,
            state: state.name(),
            exit_code: result.map(|exit| exit.status.code()),
            cause: exit.map(|exit| exit.cause),
            started: state.started(),
            output_complete,
            output_incomplete_reason,
            reason,
            waiting,
            run_timeout_seconds: None,
            retries: facts.retries,
            cancelled_by,
            times: Times {
                submitted: facts.submitted,
                start_deadline: facts.start_deadline,
                permitted: facts.permitted,
                cancel_requested,
                cancel_delivered,
                started: exit.map(|exit| exit.started_at),
                finished: exit.map(|exit| exit.finished_at),
                ended: state.ended_at(),
            },
            log_bytes: facts.log_bytes,
            stdout: exit.map(|exit| exit.stdout.clone()),
            stderr: exit.map(|exit| exit.stderr.clone()),
            discarded: exit.map(|exit| exit.discarded).unwrap_or_default(),
            artifacts: exit.and_then(|exit| exit.artifacts.clone()),
            output_expired: facts.output_expired,
            usage: exit.map(|exit| exit.usage),
            runner: facts.runner,
            pod: facts.pod,
            version: facts.version,
            story: Vec::new(),
        }
    }
}
