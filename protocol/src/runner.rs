//! What a runner and the dispatcher say to each other, under [`PREFIX`].
//!
//! Every call but [`ENROL`] bears `Authorization: Bearer <JWT>`: a token that the runner signs itself
//! with its cluster's key (RFC 7519, RFC 8037 EdDSA), with the claims [`TokenClaims`].

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifacts::ArtifactsLimits;
use crate::base64_bytes;
use crate::envelope::Envelope;
use crate::id::{ClusterId, ClusterName, JobId, PodUid, ProfileName, RunnerId};
use crate::output::ExitRecord;
use crate::state::Reason;

/// Where the runners' doors begin.
pub const PREFIX: &str = "/v1/runner";
/// `POST` [`EnrolRequest`] → [`Enrolment`]. The one call without a token: the join token is in it.
pub const ENROL: &str = "/v1/runner/enrol";
/// `POST` (empty) → [`AmqpCredential`].
pub const AMQP_CREDENTIAL: &str = "/v1/runner/amqp-credential";
/// `POST` [`ContactRequest`] → [`ContactResponse`], held back until there is news or the wait is over.
pub const CONTACT: &str = "/v1/runner/contact";
/// `POST` (empty) → [`Claim`].
pub const CLAIM: &str = "/v1/runner/jobs/{id}/claim";
/// `POST` [`PermitRequest`] → [`Permit`].
pub const PERMIT: &str = "/v1/runner/jobs/{id}/permit";
/// `POST` [`Report`] → 204.
pub const REPORT: &str = "/v1/runner/jobs/{id}/report";
/// `PUT`, query [`OutputQuery`], body: whole frames of the output log → [`OutputAck`].
pub const OUTPUT: &str = "/v1/runner/jobs/{id}/output";
/// `GET`, query [`FilesQuery`] → the archive of attached files from there on, `application/gzip`.
pub const FILES: &str = "/v1/runner/jobs/{id}/files";
/// `GET`, query [`StdinQuery`] → what the command is to read, `application/octet-stream`, with
/// [`crate::shim::STDIN_END`]. Held back until there is something, or the wait is over; then it may be empty.
pub const STDIN: &str = "/v1/runner/jobs/{id}/stdin";
/// `PUT`, query [`OutputQuery`], body: a piece of the stream of artifacts → [`ArtifactsAck`].
pub const ARTIFACTS: &str = "/v1/runner/jobs/{id}/artifacts";
/// `POST` [`CompleteRequest`] → 204 when the end is on record; 409 `contradiction` or `over` are final too.
pub const COMPLETE: &str = "/v1/runner/jobs/{id}/complete";

/// `aud` of a runner's token.
pub const TOKEN_AUDIENCE: &str = "invoke-dispatcher";

/// The longest life of a runner's token, in seconds: `exp` minus `iat`.
pub const MAX_TOKEN_LIFETIME_SECONDS: i64 = 300;

/// Claims of the token that a runner signs for itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenClaims {
    /// The cluster whose key signs.
    pub sub: ClusterId,
    /// [`TOKEN_AUDIENCE`].
    pub aud: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// When it ends, at most [`MAX_TOKEN_LIFETIME_SECONDS`] later.
    pub exp: i64,
    /// The replica that speaks.
    pub runner: RunnerId,
}

/// A runner's first words.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequest {
    /// The one-time token that `invoke clusters add` printed.
    pub join_token: String,
    /// The cluster's Ed25519 public key, 32 bytes. The private one was made in the cluster and stays.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub public_key: Vec<u8>,
}

/// Who the cluster is from now on, and whose orders it follows. The same token with the same key may
/// be presented again and gets the same answer; with another key it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolment {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// What people call it.
    pub name: ClusterName,
    /// The keys that sign orders. The runner pins them: it learns no others later.
    pub signing_keys: Vec<SigningKey>,
}

/// A key that signs orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SigningKey {
    /// The first 16 hexadecimal digits of the SHA-256 of the public key.
    pub key_id: String,
    /// Ed25519, 32 bytes.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub public_key: Vec<u8>,
}

/// How to reach the cluster's own queue.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AmqpCredential {
    /// `amqps://host:port/vhost`, without a user.
    pub url: String,
    /// The user, which can read the cluster's queue and nothing else.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The certificate authority of the broker, PEM; `None` if it is one that every system knows.
    pub ca_pem: Option<String>,
    /// The queue to consume.
    pub queue: String,
}

/// "I am here", every few seconds from every replica. Held back by the dispatcher for up to
/// [`ContactRequest::wait_seconds`] while the cancellations are the ones that the runner knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContactRequest {
    /// The runner's version.
    pub version: String,
    /// The profiles that it offers.
    pub profiles: Vec<ProfileSummary>,
    /// The runner's own clock, to tell people when it is wrong.
    pub clock: Timestamp,
    /// The cancellations that it knows, sorted.
    pub cancelling: Vec<Cancellation>,
    /// For how long the answer may be held back, in seconds; at most 30.
    pub wait_seconds: u64,
}

/// What a submitter needs to know of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProfileSummary {
    /// Its name.
    pub name: ProfileName,
    /// For how long its commands may run, in seconds.
    pub max_run_seconds: u64,
    /// For how long its jobs may wait for their start, in seconds; the dispatcher's own maximum if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_start_within_seconds: Option<u64>,
    /// How much output of a job is kept at most, in bytes of log;
    /// [`crate::output::DEFAULT_OUTPUT_CAP_BYTES`] if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cap_bytes: Option<u64>,
}

/// What the runner must know now: the whole list, not what changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContactResponse {
    /// All running jobs of the cluster that are to be cancelled, sorted.
    pub cancelling: Vec<Cancellation>,
    /// How much a command may leave whose pod is made from now on.
    #[serde(default)]
    pub artifacts: ArtifactsLimits,
}

/// A running job that is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cancellation {
    /// The job.
    pub job: JobId,
    /// From SIGTERM to SIGKILL, in seconds; the runner's own if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// What a runner may do with an order that it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Make its pod, or adopt the one that exists.
    Yours,
    /// The command was permitted to start: acknowledge the message, leave the pod alone.
    Started,
    /// The job is over, or there is none: acknowledge the message, delete the pod if there is one.
    Over,
}

/// A shim that proved which pod it is wants to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermitRequest {
    /// The pod, by the API server's word (TokenReview).
    pub pod: PodUid,
}

/// The answer to it. Refusals are answers, not errors: the pod is to be deleted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "permit", rename_all = "snake_case")]
pub enum Permit {
    /// Start. The order comes along, for a replica that was not delivered the message; it is
    /// verified again.
    Granted {
        /// The signed order.
        envelope: Envelope,
        /// For how long, in seconds from now, the permit is good: a shim that gets it later must not start.
        start_within_seconds: u64,
        /// How much of the output log is stored already: 0, unless this pod was granted it before.
        log_bytes: u64,
        /// The JSON text of [`crate::environment::SaltedSecrets`], whose digest the order has.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "base64_bytes::optional"
        )]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, content_encoding = "base64"))]
        secrets: Option<Vec<u8>>,
    },
    /// Do not start.
    Refused {
        /// Why.
        why: PermitRefusal,
    },
}

/// Without the secrets: what is printed by accident may be kept for ever.
impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted {
                envelope,
                start_within_seconds,
                log_bytes,
                secrets,
            } => f
                .debug_struct("Granted")
                .field("envelope", envelope)
                .field("start_within_seconds", start_within_seconds)
                .field("log_bytes", log_bytes)
                .field("has_secrets", &secrets.is_some())
                .finish(),
            Self::Refused { why } => f.debug_struct("Refused").field("why", why).finish(),
        }
    }
}

/// Why a command may not start in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PermitRefusal {
    /// The job is over.
    Over,
    /// It was permitted to start in another pod.
    OtherPod,
    /// Its start deadline is over.
    TooLate,
}

/// What a runner saw of a job, besides its output and its end. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Report {
    /// The pod exists.
    PodCreated,
    /// The job is not getting on, and this is why; it may yet.
    Waiting {
        /// Why.
        reason: Reason,
    },
    /// The runner refuses the order.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// The pod cannot start, or is gone without an exit record.
    PodFailed {
        /// The pod, where there was one.
        pod: Option<PodUid>,
        /// Why.
        reason: Reason,
    },
    /// The runner has let go of the order, which could not be started yet: send it again.
    Postponed,
    /// Nobody in the cluster hears of the pod any more; the command may go on all the same.
    ContactLost {
        /// The pod.
        pod: PodUid,
        /// Why, with code [`crate::state::ReasonCode::NodeLost`].
        reason: Reason,
    },
    /// The pod is heard of again.
    ContactBack {
        /// The pod.
        pod: PodUid,
    },
    /// The shim has the order to stop.
    CancelDelivered {
        /// The pod.
        pod: PodUid,
    },
    /// The pod's shim was permitted to start the command, has not, and never will: it could not prepare
    /// for it.
    StartRefused {
        /// The pod.
        pod: PodUid,
        /// Why.
        reason: Reason,
    },
    /// The cluster has a record of a start that the dispatcher does not know of: its store was restored
    /// from a backup.
    Recovered {
        /// The pod that the record names.
        pod: PodUid,
        /// When the start was recorded, by the API server's clock.
        started: Timestamp,
    },
}

/// Where an upload begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputQuery {
    /// The pod that the output is of.
    pub pod: PodUid,
    /// The position in the output log of the body's first byte.
    pub from: u64,
}

/// How far the output log is stored, durably: what comes next begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputAck {
    /// The position after the last stored byte.
    pub log_bytes: u64,
}

/// Which part of the archive to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesQuery {
    /// The pod that needs it.
    pub pod: PodUid,
    /// Where in the archive to begin.
    #[serde(default)]
    pub from: u64,
}

/// What the command has read, and how long to wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdinQuery {
    /// The pod that reads.
    pub pod: PodUid,
    /// Where to go on: everything before was given to the command, and is needed no more.
    pub from: u64,
    /// For how long the answer may be held back, in seconds; at most 30.
    #[serde(default)]
    pub wait_seconds: u64,
}

/// How much of the stream of artifacts is stored, durably: what comes next begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactsAck {
    /// The position after the last stored byte.
    pub bytes: u64,
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteRequest {
    /// The pod that it ran in.
    pub pod: PodUid,
    /// The shim's word.
    pub exit: ExitRecord,
}

/// How a runner's contact with a dispatcher looks from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastContact {
    /// When, by the dispatcher's clock.
    pub at: Timestamp,
    /// The runner's version.
    pub version: String,
}

/// Fills an id into one of the paths above.
#[must_use]
pub fn path(template: &str, job: JobId) -> String {
    template.replace("{id}", &job.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dispatcher that was made before there was more to say.
    #[test]
    fn a_short_answer_to_a_contact_leaves_the_usual_limits() {
        let answer: ContactResponse = serde_json::from_str(r#"{"cancelling":[]}"#).unwrap();
        assert_eq!(answer.artifacts, ArtifactsLimits::default());
    }

    #[test]
    fn a_permit_does_not_show_its_secrets_by_accident() {
        let permit = Permit::Granted {
            envelope: Envelope {
                key_id: String::new(),
                payload: Vec::new(),
                signature: Vec::new(),
            },
            start_within_seconds: 60,
            log_bytes: 0,
            secrets: Some(vec![7, 77]),
        };
        let shown = format!("{permit:?}");
        assert!(
            shown.contains("has_secrets: true") && !shown.contains("77"),
            "{shown}"
        );
    }
}
