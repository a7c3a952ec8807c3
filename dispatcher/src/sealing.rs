//! Secret variables, which nobody but the permitted pod may see.
//!
//! They are sealed (AES-256-GCM) before they are stored, opened for the answer to a permit, and erased when
//! their job ends. What an order says of them is the digest of a salted text
//! ([`SaltedSecrets`]), which a shim compares, and from which nobody can guess a short one. For the same
//! reason the digest of a whole submission is keyed.
//!
//! The key is in the store, made at the first start: sealing keeps secrets out of dumps of a table, logs and
//! whatever shows a job; it cannot keep them from who has the whole database.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use invoke_protocol::digest::Sha256;
use invoke_protocol::environment::{SaltedSecrets, SecretEnvironment};
use invoke_protocol::id::{FanOutId, JobId, ScheduleId};
use uuid::Uuid;

use crate::signing::{random_bytes, sha256};
use crate::store::{self, Store, secrets};

/// Seals and opens secret variables.
pub struct Sealer {
    key: RandomizedNonceKey,
    submissions: hmac::Key,
}

/// Whose secret variables they are: what is sealed for one is opened for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    kind: &'static str,
    id: Uuid,
}

impl Owner {
    /// A job.
    #[must_use]
    pub const fn job(id: JobId) -> Self {
        Self {
            kind: "job",
            id: *id.as_uuid(),
        }
    }

    /// A schedule.
    #[must_use]
    pub const fn schedule(id: ScheduleId) -> Self {
        Self {
            kind: "schedule",
            id: *id.as_uuid(),
        }
    }

    /// A fan-out.
    #[must_use]
    pub const fn fanout(id: FanOutId) -> Self {
        Self {
            kind: "fan-out",
            id: *id.as_uuid(),
        }
    }

    /// What the seal is bound to.
    fn aad(self) -> Aad<Vec<u8>> {
        Aad::from(self.to_string().into_bytes())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Secret variables, as they are stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecrets {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// SHA-256 of the JSON text of [`SaltedSecrets`].
    pub sha256: Sha256,
    /// That text, sealed for its owner: nonce, ciphertext, tag.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for SealedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.names).finish()
    }
}

/// Why there is no sealer, or nothing was sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not give the keys.
    #[error("cannot read or write the secrets")]
    Store(#[from] store::Error),
    /// There is no randomness.
    #[error("cannot make a key or a salt")]
    Random(#[from] crate::signing::Error),
    /// The stored key is none.
    #[error("the stored sealing key is no AES-256 key")]
    StoredKey,
    /// The library did not do it.
    #[error("cannot seal the secret variables of {0}")]
    Seal(Owner),
    /// They were not sealed for this owner with this key.
    #[error(
        "cannot open the secret variables of {0}: they were not sealed for it with this store's key"
    )]
    Open(Owner),
}

impl Sealer {
    /// Loads the keys, or makes them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn load_or_make(store: &Store) -> Result<Self, Error> {
        let mut session = store.write().await?;
        let key = secrets::get_or_set(&mut session, "job_sealing_key", &random_bytes()?).await?;
        let submissions =
            secrets::get_or_set(&mut session, "submission_digest_key", &random_bytes()?).await?;
        session.commit().await?;
        Self::new(&key, &submissions)
    }

    fn new(key: &[u8], submissions: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| Error::StoredKey)?,
            submissions: hmac::Key::new(hmac::HMAC_SHA256, submissions),
        })
    }

    /// Salts and seals secret variables; `None` if there are none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn seal(
        &self,
        owner: Owner,
        variables: SecretEnvironment,
    ) -> Result<Option<SealedSecrets>, Error> {
        if variables.is_empty() {
            return Ok(None);
        }
        let names = variables.names();
        let salted = SaltedSecrets {
            salt: random_bytes()?.to_vec(),
            variables,
        };
        let mut text = serde_json::to_vec(&salted).map_err(store::Error::Encode)?;
        // SHA-256 has 32 bytes.
        let digest = sha256(&text).try_into().map_err(|_| Error::Seal(owner))?;
        let nonce = self
            .key
            .seal_in_place_append_tag(owner.aad(), &mut text)
            .map_err(|_| Error::Seal(owner))?;
        Ok(Some(SealedSecrets {
            names,
            sha256: Sha256::from_bytes(digest),
            sealed: [nonce.as_ref().as_slice(), &text].concat(),
        }))
    }

    /// The JSON text of [`SaltedSecrets`] that was sealed for an owner.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(&self, owner: Owner, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (nonce, text) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(Error::Open(owner))?;
        let (nonce, mut text) = (Nonce::from(nonce), text.to_vec());
        let opened = self.key.open_in_place(nonce, owner.aad(), &mut text);
        let length = opened.map_err(|_| Error::Open(owner))?.len();
        text.truncate(length);
        Ok(text)
    }

    /// The variables that were sealed for an owner, to be sealed again for one that is made of it.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open_variables(&self, owner: Owner, sealed: &[u8]) -> Result<SecretEnvironment, Error> {
        let salted: SaltedSecrets =
            serde_json::from_slice(&self.open(owner, sealed)?).map_err(|_| Error::Open(owner))?;
        Ok(salted.variables)
    }

    /// What tells whether a submission that comes again is the same: a digest from which nothing of it can be
    /// guessed without the key.
    #[must_use]
    pub fn submission_digest(&self, submission: &[u8]) -> Vec<u8> {
        hmac::sign(&self.submissions, submission).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&[key; 32], b"submissions").unwrap()
    }

    fn job(number: u128) -> Owner {
        Owner::job(JobId::from_uuid(Uuid::from_u128(number)))
    }

    fn secret() -> SecretEnvironment {
        let variables = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
        SecretEnvironment::new(variables.try_into().unwrap())
    }

    #[test]
    fn what_is_opened_is_what_was_sealed_and_has_the_digest() {
        let sealed = sealer(1).seal(job(1), secret()).unwrap().unwrap();
        let text = sealer(1).open(job(1), &sealed.sealed).unwrap();
        assert_eq!(sha256(&text), sealed.sha256.as_bytes());
        let salted: SaltedSecrets = serde_json::from_slice(&text).unwrap();
        assert_eq!((salted.variables, salted.salt.len()), (secret(), 32));
        assert_eq!(sealed.names, ["TOKEN"]);
        let variables = sealer(1).open_variables(job(1), &sealed.sealed).unwrap();
        assert_eq!(variables, secret());
        let none = sealer(1).seal(job(1), SecretEnvironment::default());
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn nothing_of_a_secret_is_in_what_is_stored() {
        let [one, other] = [(); 2].map(|()| sealer(1).seal(job(1), secret()).unwrap().unwrap());
        assert!(!one.sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(format!("{one:?}"), r#"{"TOKEN"}"#);
        assert_ne!(one.sha256, other.sha256, "the same secret, another salt");
        assert_ne!(one.sealed[..NONCE_LEN], other.sealed[..NONCE_LEN]);
    }

    /// Who can write to the table cannot give one job's secrets to another.
    #[test]
    fn secrets_are_opened_for_their_own_job_with_their_own_key() {
        let sealed = sealer(1).seal(job(1), secret()).unwrap().unwrap().sealed;
        assert!(sealer(1).open(job(2), &sealed).is_err());
        let other = Owner::schedule(ScheduleId::from_uuid(Uuid::from_u128(1)));
        assert!(sealer(1).open(other, &sealed).is_err());
        assert!(sealer(2).open(job(1), &sealed).is_err());
        let mut changed = sealed.clone();
        changed[NONCE_LEN + 3] ^= 1;
        for broken in [changed.as_slice(), &sealed[1..], &sealed[..20], b""] {
            assert!(sealer(1).open(job(1), broken).is_err());
        }
        assert!(Sealer::new(b"short", b"submissions").is_err());
    }

    #[test]
    fn a_submission_is_recognised_with_the_key_only() {
        let digest = sealer(1).submission_digest(b"submission");
        assert_eq!(digest, sealer(2).submission_digest(b"submission"));
        assert_ne!(digest, sealer(1).submission_digest(b"another"));
        assert_ne!(digest, sha256(b"submission"));
        let other = Sealer::new(&[1; 32], b"another key").unwrap();
        assert_ne!(digest, other.submission_digest(b"submission"));
    }
}
