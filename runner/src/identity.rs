//! The cluster's key, which was made here and never leaves, and what came of enrolling it.
//!
//! It is kept in one Secret that all replicas share. The chart makes that Secret, empty, so the runner
//! needs no right to make Secrets; it may read and update this one by name, and no other. Replicas
//! that start together race for the first update; Kubernetes' resource version lets one of them win,
//! and the others take what it wrote.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use invoke_protocol::runner::Enrolment;
use invoke_protocol::topology::SHIM_DOOR_NAME;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use rcgen::{CertificateParams, DnType, KeyPair};

/// Keys of the Secret.
const CLUSTER_KEY: &str = "cluster-key.pkcs8";
const DOOR_CERTIFICATE: &str = "door.crt";
const DOOR_KEY: &str = "door.key";
const ENROLMENT: &str = "enrolment.json";
const JOIN_TOKEN_DIGEST: &str = "join-token.sha256";

/// Who the runner is.
pub(crate) struct Identity {
    /// The cluster's Ed25519 key, PKCS#8.
    pub(crate) cluster_key: Vec<u8>,
    /// Its public half, 32 bytes.
    pub(crate) public_key: Vec<u8>,
    /// The certificate of the door for shims, PEM: also the authority that shims are given.
    pub(crate) door_certificate: String,
    /// Its key, PEM.
    pub(crate) door_key: String,
    /// What the dispatcher answered, if it was asked already.
    pub(crate) enrolled: Option<Enrolled>,
}

/// A finished enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enrolled {
    /// Who the cluster is, and whose orders it follows.
    pub(crate) enrolment: Enrolment,
    /// SHA-256 of the join token that was used, hexadecimal. Another token means: enrol again.
    pub(crate) token_digest: String,
}

/// Why the identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the Secret {0} cannot be read or written")]
    Secret(String, #[source] kube::Error),
    #[error("a key cannot be made")]
    MakeKey,
    #[error("a certificate cannot be made")]
    MakeCertificate(#[source] rcgen::Error),
    #[error("the Secret {secret} is damaged: {key} {problem}; empty it to enrol this cluster anew")]
    Damaged {
        secret: String,
        key: &'static str,
        problem: &'static str,
    },
    #[error("the enrolment cannot be written down")]
    Encode(#[source] serde_json::Error),
}

/// The Secret.
pub(crate) struct Keeper {
    api: Api<Secret>,
    name: String,
}

impl Keeper {
    pub(crate) fn new(api: Api<Secret>, name: String) -> Self {
        Self { api, name }
    }

    /// Reads the identity, and makes it first where there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] needs a person; the others may pass.
    pub(crate) async fn load_or_make(&self, now: Timestamp) -> Result<Identity, Error> {
        loop {
            let mut secret = self.get().await?;
            let contents = secret.data.get_or_insert_default();
            if contents.contains_key(CLUSTER_KEY) {
                return read(contents).map_err(|(key, problem)| self.damaged(key, problem));
            }
            *contents = make(now)?;
            // Either it is written, or another replica was first: both are read back.
            self.replace_unless_changed(&secret).await?;
        }
    }

    /// Writes an enrolment down.
    pub(crate) async fn remember(&self, enrolled: &Enrolled) -> Result<(), Error> {
        let enrolment = serde_json::to_vec(&enrolled.enrolment).map_err(Error::Encode)?;
        loop {
            let mut secret = self.get().await?;
            let contents = secret.data.get_or_insert_default();
            contents.insert(ENROLMENT.to_owned(), ByteString(enrolment.clone()));
            contents.insert(
                JOIN_TOKEN_DIGEST.to_owned(),
                ByteString(enrolled.token_digest.clone().into_bytes()),
            );
            if self.replace_unless_changed(&secret).await? {
                return Ok(());
            }
        }
    }

    async fn get(&self) -> Result<Secret, Error> {
        self.api
            .get(&self.name)
            .await
            .map_err(|error| Error::Secret(self.name.clone(), error))
    }

    /// Whether this was the first update since the Secret was read.
    async fn replace_unless_changed(&self, secret: &Secret) -> Result<bool, Error> {
        match self
            .api
            .replace(&self.name, &PostParams::default(), secret)
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Error::Secret(self.name.clone(), error)),
        }
    }

    fn damaged(&self, key: &'static str, problem: &'static str) -> Error {
        Error::Damaged {
            secret: self.name.clone(),
            key,
            problem,
        }
    }
}

/// What a join token is remembered by.
pub(crate) fn token_digest(token: &str) -> String {
    hexadecimal(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(now: Timestamp) -> Result<BTreeMap<String, ByteString>, Error> {
    let key = Ed25519KeyPair::generate().map_err(|_| Error::MakeKey)?;
    let key = key.to_pkcs8v1().map_err(|_| Error::MakeKey)?;
    let (certificate, door_key) = make_certificate(now).map_err(Error::MakeCertificate)?;
    Ok(BTreeMap::from([
        (CLUSTER_KEY.to_owned(), ByteString(key.as_ref().to_vec())),
        (
            DOOR_CERTIFICATE.to_owned(),
            ByteString(certificate.into_bytes()),
        ),
        (DOOR_KEY.to_owned(), ByteString(door_key.into_bytes())),
    ]))
}

/// The certificate is its own authority: shims trust exactly this one and nothing else. It lasts ten
/// years, which is how long one Secret may be kept; a new installation makes a new one.
fn make_certificate(now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let mut parameters = CertificateParams::new(vec![SHIM_DOOR_NAME.to_owned()])?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "invoke runner");
    let today = now.to_zoned(TimeZone::UTC).date();
    let midnight = |date: jiff::civil::Date| {
        let number = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    // From yesterday, because the clocks of nodes differ.
    parameters.not_before = midnight(today.saturating_sub(Span::new().days(1)));
    parameters.not_after = midnight(today.saturating_add(Span::new().years(10)));
    let key = KeyPair::generate()?;
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

type Damage = (&'static str, &'static str);

fn read(contents: &BTreeMap<String, ByteString>) -> Result<Identity, Damage> {
    let bytes = |key: &'static str| contents.get(key).map(|value| value.0.clone());
    let text = |key: &'static str| {
        let bytes = bytes(key).ok_or((key, "is missing"))?;
        String::from_utf8(bytes).map_err(|_| (key, "is no text"))
    };
    let cluster_key = bytes(CLUSTER_KEY).ok_or((CLUSTER_KEY, "is missing"))?;
    let pair =
        Ed25519KeyPair::from_pkcs8(&cluster_key).map_err(|_| (CLUSTER_KEY, "is no Ed25519 key"))?;
    let enrolled = match bytes(ENROLMENT) {
        None => None,
        Some(json) => Some(Enrolled {
            enrolment: serde_json::from_slice(&json).map_err(|_| (ENROLMENT, "is no enrolment"))?,
            token_digest: text(JOIN_TOKEN_DIGEST)?,
        }),
    };
    Ok(Identity {
        public_key: pair.public_key().as_ref().to_vec(),
        cluster_key,
        door_certificate: text(DOOR_CERTIFICATE)?,
        door_key: text(DOOR_KEY)?,
        enrolled,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::scripted::{Script, World};

    pub(crate) fn identity() -> Identity {
        read(&make("2026-11-22T10:00:00Z".parse().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn what_was_made_reads_back() {
        let contents = make("2026-11-22T10:00:00Z".parse().unwrap()).unwrap();
        let identity = read(&contents).unwrap();
        assert_eq!(identity.public_key.len(), 32);
        assert!(identity.enrolled.is_none());
        assert_eq!(read(&contents).unwrap().public_key, identity.public_key);
    }

    #[test]
    fn a_damaged_secret_is_named_not_replaced() {
        for key in [CLUSTER_KEY, DOOR_CERTIFICATE, DOOR_KEY] {
            let mut contents = make("2026-11-22T10:00:00Z".parse().unwrap()).unwrap();
            contents.insert(key.to_owned(), ByteString(vec![0xff, 0xfe]));
            assert_eq!(read(&contents).err().map(|(damaged, _)| damaged), Some(key));
        }
    }

    /// Two keys would mean two clusters, of which one could not prove itself.
    #[tokio::test]
    async fn replicas_that_start_together_agree_on_one_key() {
        let world = World::new(Script::default()).await;
        let keeper = || {
            let secrets = Api::namespaced(world.client.clone(), "invoke-system");
            Keeper::new(secrets, "invoke-runner-identity".to_owned())
        };
        let (one, other) = (keeper(), keeper());
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let (one, other) = tokio::join!(one.load_or_make(now), other.load_or_make(now));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.public_key, other.public_key);
        assert_eq!(one.door_certificate, other.door_certificate);
    }
}
