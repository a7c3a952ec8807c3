//! The signed order: how a job travels from the dispatcher to its cluster.
//!
//! The signature is over the payload's **exact bytes**, behind a prefix of our own so that a
//! signature made for anything else proves nothing here; so there is no canonical form to get wrong.
//! Whoever receives an [`Envelope`] verifies first ([`Envelope::signed_bytes`], Ed25519, RFC 8032),
//! parses after ([`Order::from_payload`]), and uses nothing that is outside the payload.
//!
//! An order carries no URL, no credential and no file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base64_bytes;
use crate::command::Command;
use crate::digest::Sha256;
use crate::environment::Environment;
use crate::files::Files;
use crate::id::{ClusterId, JobId, ProfileName};

/// What every signature of an order begins with.
const CONTEXT: &[u8] = b"invoke.dev/order\0";

/// An order with its signature: the body of an AMQP message, and part of a permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// Which of the dispatcher's keys signed: see [`crate::runner::SigningKey`].
    pub key_id: String,
    /// The JSON text of an [`Order`], as it was signed.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub payload: Vec<u8>,
    /// The Ed25519 signature, 64 bytes.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub signature: Vec<u8>,
}

impl Envelope {
    /// The exact bytes that the signature is over.
    #[must_use]
    pub fn signed_bytes(payload: &[u8]) -> Vec<u8> {
        [CONTEXT, payload].concat()
    }
}

/// What a cluster is told to do. Every version that was ever sent stays here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub enum Order {
    /// The first.
    #[serde(rename = "1")]
    V1(OrderV1),
}

/// Run one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderV1 {
    /// The job.
    pub job: JobId,
    /// The only cluster that may run it.
    pub cluster: ClusterId,
    /// After this moment the order is void. A coarse second check by the cluster's own clock: the
    /// dispatcher's clock decides, when it grants the permit.
    pub expires_at: Timestamp,
    /// Who submitted it.
    pub submitted_by: String,
    /// How to run it.
    pub profile: ProfileName,
    /// What to run.
    pub command: Command,
    /// For how long it may run, in seconds; the profile's maximum if silent, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout_seconds: Option<u64>,
    /// The files that the command finds in its work folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Environment of the command besides the pod's own.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// SHA-256 of the [`crate::environment::SaltedSecrets`] that come with the permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_sha256: Option<Sha256>,
    /// Whether the command is given something to read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
}

/// A payload that is no order that we know. Its signature may be good all the same.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOrder {
    /// A version that was made after this program.
    #[error("the order has version {0:?}, which this runner does not know: upgrade the runner")]
    UnsupportedVersion(String),
    /// Not an order at all.
    #[error("the order cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl Order {
    /// The payload to sign.
    ///
    /// # Errors
    /// Never, for an order: every part of it has a JSON form.
    pub fn to_payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// [`InvalidOrder`], which tells a version from the future from nonsense.
    pub fn from_payload(payload: &[u8]) -> Result<Self, InvalidOrder> {
        #[derive(Deserialize)]
        struct Versioned {
            version: String,
        }
        let versioned: Versioned =
            serde_json::from_slice(payload).map_err(InvalidOrder::Malformed)?;
        if versioned.version != "1" {
            return Err(InvalidOrder::UnsupportedVersion(versioned.version));
        }
        serde_json::from_slice(payload).map_err(InvalidOrder::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order::V1(OrderV1 {
            job: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
            cluster: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
            expires_at: "2026-11-22T10:00:00Z".parse().unwrap(),
            submitted_by: "local".to_owned(),
            profile: ProfileName::default_profile(),
            command: Command::shell("kubectl get pods").unwrap(),
            run_timeout_seconds: None,
            files: None,
            environment: Environment::default(),
            secrets_sha256: None,
            stdin: false,
        })
    }

    /// Orders that were sent yesterday are read tomorrow: this text may grow, never change.
    #[test]
    fn version_1_is_written_like_this_for_ever() {
        let payload = String::from_utf8(order().to_payload().unwrap()).unwrap();
        insta::assert_snapshot!(payload, @r#"{"version":"1","job":"0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10","cluster":"0197c1f0-0000-7000-8000-000000000001","expires_at":"2026-11-22T10:00:00Z","submitted_by":"local","profile":"default","command":{"shell":"kubectl get pods"}}"#);
        assert_eq!(Order::from_payload(payload.as_bytes()).unwrap(), order());
    }

    #[test]
    fn a_version_from_the_future_is_named_not_guessed() {
        let payload = br#"{"version":"2","job":"?"}"#;
        assert!(
            matches!(Order::from_payload(payload), Err(InvalidOrder::UnsupportedVersion(v)) if v == "2")
        );
        assert!(matches!(
            Order::from_payload(b"{}"),
            Err(InvalidOrder::Malformed(_))
        ));
    }

    #[test]
    fn a_field_from_the_future_is_ignored() {
        let payload = String::from_utf8(order().to_payload().unwrap()).unwrap();
        let payload = payload.replace(r#""job""#, r#""colour":"blue","job""#);
        assert_eq!(Order::from_payload(payload.as_bytes()).unwrap(), order());
    }
}
