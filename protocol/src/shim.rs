//! What a shim and its runner say to each other: HTTP/1.1 over TLS, inside the cluster.
//!
//! Every call bears `Authorization: Bearer <token>`: the pod's projected ServiceAccount token with the
//! audience [`crate::topology::SHIM_TOKEN_AUDIENCE`], read from [`TOKEN_FILE`] each time, because the
//! kubelet renews it. TokenReview tells the runner which pod speaks; nothing that a shim says of
//! itself is believed. A shim may ask any replica at any time; no replica remembers it.

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::environment::SecretEnvironment;
use crate::files::Files;
use crate::id::JobId;
use crate::state::Reason;

/// `POST` (empty) → [`Assignment`], once the permit is granted; 410 if the shim must end without
/// running anything; 503 with `Retry-After` to ask again.
pub const ASSIGNMENT: &str = "/v1/shim/assignment";
/// `PUT ?from=N`, body: whole frames of the output log → [`crate::runner::OutputAck`]; 410 if nobody wants it any more.
pub const OUTPUT: &str = "/v1/shim/output";
/// `GET ?from=N` → the archive of attached files from there on; 410 if it will never be there.
pub const FILES: &str = "/v1/shim/files";
/// `GET ?from=N` → what the command is to read from there on, with the header [`STDIN_END`]. Held back
/// until there is something or about 20 seconds are over; then it may be empty.
pub const STDIN: &str = "/v1/shim/stdin";
/// `PUT ?from=N`, body: a piece of the stream of artifacts ([`crate::artifacts`]) →
/// [`crate::runner::ArtifactsAck`]; 410 if nobody wants it any more.
pub const ARTIFACTS: &str = "/v1/shim/artifacts";
/// `POST` [`StartRefusal`] → 204: the command was not started, and never will be.
pub const START_REFUSAL: &str = "/v1/shim/start-refusal";
/// `GET`, query [`OrdersQuery`] → [`Orders`], held back until there is something new to do or about 20
/// seconds are over.
pub const ORDERS: &str = "/v1/shim/orders";
/// `POST` (empty) → 204: the shim has the order to stop, and has sent SIGTERM.
pub const CANCELLING: &str = "/v1/shim/cancelling";
/// `POST` [`crate::output::ExitRecord`] → 204 when the end is on record; 410 if nobody wants it any more.
pub const EXIT: &str = "/v1/shim/exit";

/// Response header of [`STDIN`]: `true` if nothing follows the body, ever.
pub const STDIN_END: &str = "invoke-stdin-end";

/// Environment of the shim: where its runner listens, `IP:port`.
pub const ENV_RUNNER_ADDRESS: &str = "INVOKE_RUNNER_ADDRESS";
/// Environment of the shim: the certificate authority of its runner's door, PEM.
pub const ENV_RUNNER_CA: &str = "INVOKE_RUNNER_CA";

/// Environment of the shim: the names, separated by commas, of variables of the pod whose values are
/// masked in the output.
pub const ENV_SECRET_VARIABLES: &str = "INVOKE_RUNNER_SECRET_VARIABLES";
/// Environment of the shim: the folders, separated by colons, with files whose contents are masked in
/// the output.
pub const ENV_SECRET_FOLDERS: &str = "INVOKE_RUNNER_SECRET_FOLDERS";

/// Environment of the shim: what all files that the command leaves may come to, in bytes, as its pod has room
/// for; [`crate::artifacts::ArtifactsLimits`]' own if it is not set.
pub const ENV_ARTIFACTS_BYTES: &str = "INVOKE_RUNNER_ARTIFACTS_BYTES";
/// Environment of the shim: how many entries the folder of what the command leaves may have.
pub const ENV_ARTIFACTS_ENTRIES: &str = "INVOKE_RUNNER_ARTIFACTS_ENTRIES";

/// Where the pod's token for its runner is mounted.
pub const TOKEN_FILE: &str = "/var/run/secrets/invoke.dev/runner/token";
/// Where the shim keeps its marker and its spool: an `emptyDir` of the pod.
pub const STATE_DIR: &str = "/run/invoke";
/// The command's current folder when it starts: an `emptyDir` of the pod.
pub const WORK_DIR: &str = "/work";
/// Where the command leaves what is to come back, as `$INVOKE_ARTIFACTS` says: an `emptyDir` of the pod.
pub const ARTIFACTS_DIR: &str = "/artifacts";
/// The command's home: an `emptyDir` of the pod.
pub const HOME_DIR: &str = "/home/invoke";

/// The shim's own exit code when it refuses a second start, or is told not to start at all.
pub const EXIT_REFUSED: u8 = 125;

/// The one thing that a shim runs in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// What to run.
    pub command: Command,
    /// Environment of the command besides the pod's own.
    pub environment: Vec<(String, String)>,
    /// For how long, in seconds from the moment at which the shim asked, it may still start.
    pub start_within_seconds: u64,
    /// For how long the command may run, in seconds; then SIGTERM, the grace, SIGKILL.
    pub run_timeout_seconds: u64,
    /// From SIGTERM to SIGKILL, in seconds.
    pub grace_seconds: u64,
    /// For how long, in seconds, the command may go on by itself after Kubernetes told the pod to stop;
    /// then SIGTERM, the grace, SIGKILL.
    pub drain_seconds: u64,
    /// The files that the command finds in its work folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Environment whose values are masked in the output.
    #[serde(default, skip_serializing_if = "SecretEnvironment::is_empty")]
    pub secrets: SecretEnvironment,
    /// Whether the command is given something to read: [`STDIN`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// How much output is kept, in bytes of log; the rest is read, counted and thrown away.
    pub output_cap_bytes: u64,
}

/// Why a shim that may start a command does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRefusal {
    /// Why.
    pub reason: Reason,
}

/// What the shim knows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrdersQuery {
    /// The orders that it follows: the answer is held back while they are these.
    #[serde(default)]
    pub cancel: bool,
    /// See [`Orders::grace_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// What the shim must know now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Stop the command: SIGTERM, the grace, SIGKILL, to its whole process group.
    pub cancel: bool,
    /// From SIGTERM to SIGKILL, in seconds, instead of the assignment's. A later, shorter one shortens
    /// what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}
