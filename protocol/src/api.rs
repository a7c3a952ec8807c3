//! What people's doors speak, besides [`crate::job`]: bodies, queries, headers and events.
//!
//! Calls bear `Authorization: Bearer <API token>`. Errors are [`crate::problem::Problem`]s.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifacts::{ArtifactsSummary, Manifest};
use crate::base64_bytes;
use crate::digest::Sha256;
use crate::id::{ClusterId, ClusterName, ProfileName};
use crate::job::Job;
use crate::labels::Labels;
use crate::output::Stream;
use crate::runner::ProfileSummary;

/// `POST` [`crate::job::JobSpec`] with [`IDEMPOTENCY_KEY`] → 202 [`Job`] with `Location`; 200 if this key made it before.
/// `GET`, query [`JobsQuery`] → [`JobList`].
pub const JOBS: &str = "/v1/jobs";
/// `GET`, query [`JobQuery`] → [`Job`].
pub const JOB: &str = "/v1/jobs/{id}";
/// `GET`, query [`EventsQuery`] or header `Last-Event-ID` → `text/event-stream` of [`JobEvent`]s.
pub const JOB_EVENTS: &str = "/v1/jobs/{id}/events";
/// `GET`, query [`OutputQuery`] → frames of the output log ([`crate::output`]), `application/octet-stream`.
pub const JOB_OUTPUT: &str = "/v1/jobs/{id}/output";
/// `GET`, header `Range` (RFC 9110, one range) → the bytes of stdout alone, `application/octet-stream`: what
/// is stored of it so far.
pub const JOB_STDOUT: &str = "/v1/jobs/{id}/stdout";
/// As [`JOB_STDOUT`], of stderr.
pub const JOB_STDERR: &str = "/v1/jobs/{id}/stderr";
/// `PUT`, query [`StdinQuery`], body: the next bytes that the command is to read → [`StdinAck`].
/// At most [`MAX_STDIN_CHUNK_BYTES`] at once; 503 with `Retry-After` while the command has much left to read.
pub const JOB_STDIN: &str = "/v1/jobs/{id}/stdin";
/// `GET` → [`ArtifactList`].
pub const JOB_ARTIFACTS: &str = "/v1/jobs/{id}/artifacts";
/// `GET`, header `Range` (RFC 9110, one range) → bytes of the stream of artifacts
/// ([`crate::artifacts`]), `application/octet-stream`: a file is the range that the manifest says.
pub const JOB_ARTIFACTS_CONTENT: &str = "/v1/jobs/{id}/artifacts/content";
/// `GET` → [`UploadedFiles`]: how much of an archive the caller has uploaded.
/// `PUT`, query [`FilesUploadQuery`], body: a piece of it → [`UploadedFiles`]. At most
/// [`crate::files::MAX_FILES_CHUNK_BYTES`] at once. The last piece is answered when the digest of the whole
/// was compared. Archives belong to whoever uploaded them: nobody learns what others have.
pub const FILES: &str = "/v1/files/{sha256}";
/// `GET` → [`Limits`].
pub const LIMITS: &str = "/v1/limits";
/// `POST` [`crate::job::CancelRequest`] (or empty) → 202 [`Job`].
pub const JOB_CANCEL: &str = "/v1/jobs/{id}/cancel";
/// `POST` [`crate::fanout::FanOutSpec`] with [`IDEMPOTENCY_KEY`] → 202 [`crate::fanout::FanOut`] with `Location`;
/// 200 if this key made it before. `GET`, query [`crate::fanout::FanOutsQuery`] → [`crate::fanout::FanOutList`].
pub const FANOUTS: &str = "/v1/fanouts";
/// `POST` [`crate::fanout::FanOutSpec`] → [`crate::fanout::FanOutPlan`]. Nothing is stored, and no files need be there.
pub const FANOUT_PLAN: &str = "/v1/fanouts/plan";
/// `GET`, query [`crate::fanout::FanOutQuery`] → [`crate::fanout::FanOut`].
pub const FANOUT: &str = "/v1/fanouts/{id}";
/// `POST` [`crate::job::CancelRequest`] (or empty) → 202 [`crate::fanout::FanOut`].
pub const FANOUT_CANCEL: &str = "/v1/fanouts/{id}/cancel";
/// `POST` (empty) → 202 [`crate::fanout::FanOut`]: a stopped one goes on.
pub const FANOUT_RESUME: &str = "/v1/fanouts/{id}/resume";
/// `POST` [`crate::fanout::RetryFailedRequest`] (or empty) → 202 [`crate::fanout::FanOut`]: it goes on, with another
/// attempt for what has failed.
pub const FANOUT_RETRY_FAILED: &str = "/v1/fanouts/{id}/retry-failed";
/// `GET` → [`ClusterList`]. `POST` [`AddClusterRequest`] → 201 [`JoinInvitation`].
pub const CLUSTERS: &str = "/v1/clusters";
/// `POST` (empty) → 201 [`JoinInvitation`]: another token for a cluster that exists; the earlier ones are void.
pub const CLUSTER_JOIN_TOKENS: &str = "/v1/clusters/{name}/join-tokens";
/// `GET` → [`crate::schedule::ScheduleList`].
pub const SCHEDULES: &str = "/v1/schedules";
/// `PUT` [`crate::schedule::ScheduleSpec`], query [`crate::schedule::PutQuery`] → 201 or 200
/// [`crate::schedule::Schedule`]; the same again changes nothing. `GET` → [`crate::schedule::Schedule`].
/// `DELETE` → 204; its ledger stays.
pub const SCHEDULE: &str = "/v1/schedules/{name}";
/// `GET`, query [`crate::schedule::NextQuery`] → [`crate::schedule::ComingTicks`].
pub const SCHEDULE_NEXT: &str = "/v1/schedules/{name}/next";
/// `GET`, query [`crate::schedule::TicksQuery`] → [`crate::schedule::TickList`], also of a schedule that was
/// deleted, if no other has its name.
pub const SCHEDULE_TICKS: &str = "/v1/schedules/{name}/ticks";
/// `POST` [`crate::schedule::PauseRequest`] (or empty) → [`crate::schedule::Schedule`].
pub const SCHEDULE_PAUSE: &str = "/v1/schedules/{name}/pause";
/// `POST` (empty) → [`crate::schedule::Schedule`].
pub const SCHEDULE_RESUME: &str = "/v1/schedules/{name}/resume";
/// `POST` (empty), with [`IDEMPOTENCY_KEY`] → [`crate::schedule::Tick`], which is run at once.
pub const SCHEDULE_RUN: &str = "/v1/schedules/{name}/run";
/// `POST` (empty) → [`crate::schedule::Schedule`]: its next tick will be skipped.
pub const SCHEDULE_SKIP: &str = "/v1/schedules/{name}/skip";
/// `POST` (empty) → [`crate::schedule::Schedule`], which is the caller's from now on.
pub const SCHEDULE_TAKE_OVER: &str = "/v1/schedules/{name}/take-over";
/// `GET` → [`crate::schedule::WebhookKey`], for the owner alone.
pub const SCHEDULE_WEBHOOK_KEY: &str = "/v1/schedules/{name}/webhook-key";
/// `GET` → [`crate::schedule::CalendarList`].
pub const CALENDARS: &str = "/v1/calendars";
/// `PUT` [`crate::schedule::CalendarSpec`] → [`crate::schedule::Calendar`]. `GET` → the same. `DELETE` → 204.
pub const CALENDAR: &str = "/v1/calendars/{name}";
/// `PATCH` [`crate::labels::LabelsPatch`] → [`Labels`]: as they are then.
pub const CLUSTER_LABELS: &str = "/v1/clusters/{name}/labels";
/// `GET` → the OpenAPI document. Needs no token.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET` → 200 while the process runs. Needs no token.
pub const HEALTHZ: &str = "/healthz";
/// `GET` → 200 while it can take jobs, 503 [`Readiness`] otherwise. Needs no token.
pub const READYZ: &str = "/readyz";

/// Request header: the submitter's own key for a job, a UUID. The same key with the same body is the
/// same job; with another body it is refused
/// (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Header of every response: the dispatcher's version. What lacks it is no dispatcher.
pub const SERVER_VERSION: &str = "invoke-version";

/// Response header of [`JOB_OUTPUT`]: the position of the body's first byte.
pub const OUTPUT_START: &str = "invoke-output-start";

/// Response header of [`JOB_OUTPUT`]: the position after the body's last byte.
pub const OUTPUT_END: &str = "invoke-output-end";

/// Which jobs to list: the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct JobsQuery {
    /// Only jobs of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// How many, 1 to 500; 50 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only jobs before this one: the last id of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<crate::id::JobId>,
}

/// A page of jobs, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// What to pass as `before` for the next page; `None` on the last.
    pub next: Option<crate::id::JobId>,
}

/// How long to wait for news of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct JobQuery {
    /// Answer when the job's `version` or `log_bytes` has passed what `version` and `log_bytes` say
    /// here, or the job is over, or these seconds are; at most 60, 0 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
    /// The version that the caller has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// How much of the output log the caller has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
}

/// Where in the output log to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct EventsQuery {
    /// A position between two frames, as an earlier event gave it; 0 if silent. The header
    /// `Last-Event-ID` comes before it.
    #[serde(default)]
    pub from: u64,
    /// Whether output of which there is much at once is to be announced ([`JobEvent::Stored`]) instead of sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announce: bool,
}

/// Which part of the output log. At most 8 MiB are answered at once: ask on from [`OUTPUT_END`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct OutputQuery {
    /// A position between two frames; 0 if silent.
    #[serde(default)]
    pub from: u64,
    /// Instead: begin so that the answer, and what can be asked for from its end on, is at least the last
    /// so many bytes of the log; and no more than a piece before them. [`OUTPUT_START`] says where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_bytes: Option<u64>,
}

/// The most bytes of stdin in one upload.
pub const MAX_STDIN_CHUNK_BYTES: usize = 1024 * 1024;

/// Where a piece of stdin begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct StdinQuery {
    /// How many bytes of stdin were sent before the body's first.
    #[serde(default)]
    pub from: u64,
    /// Whether nothing follows the body.
    #[serde(default)]
    pub end: bool,
}

/// How much of stdin is stored, durably: what comes next begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StdinAck {
    /// The position after the last stored byte.
    pub bytes: u64,
    /// Whether it was closed there.
    pub ended: bool,
}

/// Where a piece of an archive begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct FilesUploadQuery {
    /// The position in the archive of the body's first byte.
    pub from: u64,
    /// How long the whole archive is.
    pub bytes: u64,
}

/// How much of an archive is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadedFiles {
    /// Its digest.
    pub sha256: Sha256,
    /// How long it is.
    pub bytes: u64,
    /// How much of it is stored, durably: what comes next begins there.
    pub stored_bytes: u64,
    /// Whether all of it is there and has the digest.
    pub complete: bool,
}

/// What a command left to be sent back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactList {
    /// What it came to, by the shim's word.
    pub summary: ArtifactsSummary,
    /// The files.
    pub manifest: Manifest,
}

/// What this dispatcher takes and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// What the files of one job may come to unpacked, in bytes.
    pub files_bytes: u64,
    /// How many entries they may have: files, folders, symbolic links.
    pub files_entries: u64,
    /// For how long output, files and artifacts are kept after the end of their job, in seconds.
    pub retention_seconds: u64,
}

/// One server-sent event. The event's `id` is the position in the output log up to which everything
/// was sent; its `event` is the variant's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobEvent {
    /// The job has changed; the first event of every stream.
    Job {
        /// As it is now.
        job: Box<Job>,
    },
    /// The command printed something.
    Output {
        /// Where.
        stream: Stream,
        /// When, by the node's clock. Pieces that follow each other closely are one event, with the time
        /// of the first.
        at: Timestamp,
        /// What.
        #[serde(with = "base64_bytes")]
        #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
        data: Vec<u8>,
    },
    /// There is much output: it is not sent, but stored up to a position, and to be read from [`JOB_OUTPUT`], where
    /// it costs neither base64 nor JSON. Later events are about what comes after it. The event's `id` is where it
    /// begins. Only for who has asked for it: [`EventsQuery::announce`].
    Stored {
        /// Where in the output log it ends.
        log_bytes: u64,
    },
    /// The job is over and all of its stored output was sent or announced; nothing follows.
    End {
        /// As it is for ever.
        job: Box<Job>,
    },
}

/// A cluster to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddClusterRequest {
    /// What to call it.
    pub name: ClusterName,
    /// What to choose it by, besides its name.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// What the cluster's owner needs to install a runner.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinInvitation {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// What it is called.
    pub name: ClusterName,
    /// Good once, for one key, until `expires_at`. Shown here and never again.
    pub join_token: String,
    /// When it ends: 15 minutes after it was made.
    pub expires_at: Timestamp,
    /// Where the runner finds the dispatcher.
    pub dispatcher_url: String,
    /// The certificate authority of that address, PEM; `None` if it is one that every system knows.
    pub dispatcher_ca_pem: Option<String>,
}

/// The clusters that the caller may see, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterList {
    /// The clusters.
    pub clusters: Vec<Cluster>,
}

/// A cluster as it is seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
    /// What it can be chosen by, besides its name.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Whether its runner speaks.
    pub state: ClusterState,
    /// The version of the runner that spoke last.
    pub runner_version: Option<String>,
    /// When a runner spoke last.
    pub last_contact: Option<Timestamp>,
    /// How long ago that is, in seconds, by the dispatcher's clock.
    pub last_contact_seconds: Option<u64>,
    /// By how many seconds its runner's clock is ahead of the dispatcher's, if they differ by more than
    /// [`CLOCK_SKEW_SECONDS`].
    pub clock_skew_seconds: Option<i64>,
    /// The profiles that it offers, by name.
    pub profiles: Vec<ProfileSummary>,
    /// Jobs that are not over.
    pub open_jobs: u64,
}

impl Cluster {
    /// Whether it offers a profile; `None` while nobody knows.
    #[must_use]
    pub fn offers(&self, profile: &ProfileName) -> Option<bool> {
        self.last_contact?;
        Some(self.profiles.iter().any(|offered| offered.name == *profile))
    }
}

/// Whether a cluster's runner speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// A runner spoke within [`OFFLINE_AFTER_SECONDS`].
    Connected,
    /// A runner spoke once, but not lately.
    Offline,
    /// No runner has spoken yet.
    NeverConnected,
}

/// A cluster whose runner has not spoken for this long is offline. Runners speak every 10 seconds.
pub const OFFLINE_AFTER_SECONDS: u64 = 30;

/// Clocks that differ by no more than this, in seconds, are taken for right.
pub const CLOCK_SKEW_SECONDS: i64 = 30;

/// What the dispatcher can do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Whether it answers from its store.
    pub store: bool,
    /// Whether it is connected to its broker. Jobs are accepted without: they wait in the store.
    pub broker: bool,
    /// Whether it takes output: not after its disk has failed, until it is restarted.
    pub blobs: bool,
}
