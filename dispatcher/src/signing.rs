//! The key that signs orders, and the secret that AMQP passwords are derived from. Both are made at the
//! first start and live in the store, so that every replica signs with one key.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use invoke_protocol::envelope::{Envelope, Order, OrderV1};
use invoke_protocol::id::ClusterId;
use invoke_protocol::runner::SigningKey;
use jiff::Timestamp;

use crate::store::jobs::StoredJob;
use crate::store::{self, Store, secrets};

/// For how long an order outlives its start deadline. The deadline itself is decided here, by the
/// permit; the cluster's own check is coarse, and must not be the stricter one when clocks differ.
const EXPIRY_MARGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Signs orders and derives passwords.
pub struct Signer {
    key: Ed25519KeyPair,
    key_id: String,
    amqp_secret: hmac::Key,
}

/// Why there is no signer, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not give the secrets.
    #[error("cannot read or write the secrets")]
    Store(#[from] store::Error),
    /// The operating system gives no randomness, or the library no key.
    #[error("cannot make a key")]
    Make,
    /// The stored key is none.
    #[error("the stored signing key is no Ed25519 key in PKCS #8 form")]
    StoredKey,
    /// The order has no JSON form, which cannot be.
    #[error("cannot write the order as JSON")]
    Encode(#[from] serde_json::Error),
}

impl Signer {
    /// Loads the secrets, or makes them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn load_or_make(store: &Store) -> Result<Self, Error> {
        let fresh = Ed25519KeyPair::generate().map_err(|_| Error::Make)?;
        let fresh = fresh.to_pkcs8().map_err(|_| Error::Make)?;
        let mut session = store.write().await?;
        let key = secrets::get_or_set(&mut session, "order_signing_key", fresh.as_ref()).await?;
        let amqp =
            secrets::get_or_set(&mut session, "amqp_password_secret", &random_bytes()?).await?;
        session.commit().await?;
        Self::new(&key, &amqp)
    }

    fn new(pkcs8: &[u8], amqp_secret: &[u8]) -> Result<Self, Error> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| Error::StoredKey)?;
        let key_id = key_id(key.public_key().as_ref());
        Ok(Self {
            key,
            key_id,
            amqp_secret: hmac::Key::new(hmac::HMAC_SHA256, amqp_secret),
        })
    }

    /// What runners verify with.
    #[must_use]
    pub fn public(&self) -> SigningKey {
        SigningKey {
            key_id: self.key_id.clone(),
            public_key: self.key.public_key().as_ref().to_vec(),
        }
    }

    /// The signed order of a job.
    ///
    /// # Guarantees
    /// The payload's bytes are the same each time: a pod that was made for an order is recognised by
    /// their digest, whichever copy of the order its runner was given.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn sign(&self, job: &StoredJob) -> Result<Envelope, Error> {
        let payload = order(job).to_payload()?;
        let signature = self
            .key
            .sign(&Envelope::signed_bytes(&payload))
            .as_ref()
            .to_vec();
        Ok(Envelope {
            key_id: self.key_id.clone(),
            payload,
            signature,
        })
    }

    /// The order in an envelope that this key has signed; `None` if it has not, or it is no order that we
    /// know.
    #[must_use]
    pub fn verified(&self, envelope: &Envelope) -> Option<OrderV1> {
        let key = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        key.verify(
            &Envelope::signed_bytes(&envelope.payload),
            &envelope.signature,
        )
        .ok()?;
        match Order::from_payload(&envelope.payload).ok()? {
            Order::V1(order) => Some(order),
        }
    }

    /// The AMQP password of a cluster's runner: derived, so that none is stored, and bound to the
    /// cluster's key, so that a cluster that is enrolled anew has a new one.
    #[must_use]
    pub fn amqp_password(&self, cluster: ClusterId, public_key: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.amqp_secret);
        context.update(format!("amqp:{cluster}").as_bytes());
        context.update(public_key);
        URL_SAFE_NO_PAD.encode(context.sign().as_ref())
    }
}

fn order(job: &StoredJob) -> Order {
    Order::V1(OrderV1 {
        job: job.id,
        cluster: job.cluster,
        expires_at: job
            .start_deadline
            .saturating_add(EXPIRY_MARGIN)
            .unwrap_or(Timestamp::MAX),
        submitted_by: job.submitted_by.clone(),
        profile: job.profile.clone(),
        command: job.command.clone(),
        run_timeout_seconds: job.run_timeout_seconds,
        files: job.files,
        environment: job.environment.clone(),
        secrets_sha256: job.secrets_sha256,
        stdin: job.stdin,
    })
}

/// The first 16 hexadecimal digits of the public key's SHA-256.
fn key_id(public_key: &[u8]) -> String {
    sha256(public_key)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

/// A new secret of 256 bits, as text behind a prefix by which people and scanners recognise it.
///
/// # Errors
/// [`Error::Make`] if the operating system gives no randomness.
pub fn random_token(prefix: &str) -> Result<String, Error> {
    Ok(format!(
        "{prefix}{}",
        URL_SAFE_NO_PAD.encode(random_bytes()?)
    ))
}

/// 256 random bits.
///
/// # Errors
/// [`Error::Make`] if the operating system gives no randomness.
pub(crate) fn random_bytes() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Make)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jobs::tests::queued_job as job;

    fn signer() -> Signer {
        let key = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
        Signer::new(key.as_ref(), b"secret").unwrap()
    }

    /// What a runner does: verify with the enrolled key, then parse.
    #[test]
    fn an_order_verifies_and_says_what_was_asked() {
        let signer = signer();
        let envelope = signer.sign(&job()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, signer.public().public_key);
        key.verify(
            &Envelope::signed_bytes(&envelope.payload),
            &envelope.signature,
        )
        .unwrap();
        let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
        assert_eq!(order.cluster, job().cluster);
        assert_eq!(order.expires_at, "2026-11-22T10:01:00Z".parse().unwrap());
        assert_eq!(envelope.key_id, signer.public().key_id);
        assert_eq!(
            envelope.payload,
            signer.sign(&job()).unwrap().payload,
            "signed again, it is the same order"
        );
    }

    /// What comes back from the broker is ours, or it is nobody's.
    #[test]
    fn only_our_own_orders_are_recognised() {
        let (signer, other) = (signer(), signer());
        let envelope = signer.sign(&job()).unwrap();
        assert_eq!(signer.verified(&envelope).unwrap().job, job().id);
        assert!(other.verified(&envelope).is_none());
        let mut forged = envelope;
        forged.payload.push(b' ');
        assert!(signer.verified(&forged).is_none());
    }

    #[test]
    fn a_password_is_for_one_cluster_and_one_key() {
        let signer = signer();
        let (one, other) = (
            job().cluster,
            "0197c1f0-0000-7000-8000-000000000002".parse().unwrap(),
        );
        let password = signer.amqp_password(one, b"key");
        assert_eq!(password, signer.amqp_password(one, b"key"));
        assert_ne!(password, signer.amqp_password(other, b"key"));
        assert_ne!(password, signer.amqp_password(one, b"another key"));
    }
}
