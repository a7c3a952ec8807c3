//! Judging what came out of the queue, or along with a permit: is it an order, from a dispatcher that
//! this cluster trusts, for this cluster?
//!
//! The broker is a wake-up hint with a signature: whoever owns it can at most repeat or lose orders.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use invoke_protocol::envelope::{Envelope, InvalidOrder, Order, OrderV1};
use invoke_protocol::id::{ClusterId, JobId, ProfileName};
use invoke_protocol::runner::{Enrolment, SigningKey};
use invoke_protocol::state::{Reason, ReasonCode};
use jiff::Timestamp;
use serde::Deserialize;

use crate::identity::hexadecimal;

/// Whose orders this cluster follows. Fixed at enrolment.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    cluster: ClusterId,
    keys: Vec<SigningKey>,
}

/// An order that may be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) order: OrderV1,
    pub(crate) digest: OrderDigest,
}

/// SHA-256 of an order's payload, hexadecimal: which order a pod was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderDigest(String);

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Follow it.
    Accepted(Box<Accepted>),
    /// It is void: acknowledge it. The dispatcher's clock has expired the job, or will.
    Expired(JobId),
    /// It is the dispatcher's word, but not one that this cluster can follow: tell it so.
    Refused(JobId, Reason),
    /// It is nobody's word. Nothing in it is believed, not even whom to tell.
    Forged(Forgery),
}

/// Why a message is nobody's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// It is no envelope.
    NoEnvelope,
    /// Its key is not one that was pinned at enrolment.
    UnknownKey,
    /// The signature is not that key's.
    Signature,
    /// The signature is good, but what was signed names no job.
    NoOrder,
}

impl fmt::Display for Forgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEnvelope => "it is no envelope",
            Self::UnknownKey => "it is signed by a key that was not pinned at enrolment",
            Self::Signature => "its signature is wrong",
            Self::NoOrder => "what was signed is no order",
        })
    }
}

impl fmt::Display for OrderDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Trust {
    pub(crate) fn new(enrolment: &Enrolment) -> Self {
        Self {
            cluster: enrolment.cluster,
            keys: enrolment.signing_keys.clone(),
        }
    }

    /// Judges a message. In this order: signature, version, cluster, time, profile; what is not signed
    /// is not even parsed.
    pub(crate) fn judge(
        &self,
        message: &[u8],
        offers: impl Fn(&ProfileName) -> bool,
        now: Timestamp,
    ) -> Verdict {
        let Ok(envelope) = serde_json::from_slice::<Envelope>(message) else {
            return Verdict::Forged(Forgery::NoEnvelope);
        };
        let accepted = match self.verify(&envelope) {
            Ok(accepted) => accepted,
            Err(verdict) => return verdict,
        };
        let order = &accepted.order;
        if now > order.expires_at {
            return Verdict::Expired(order.job);
        }
        if !offers(&order.profile) {
            let words = format!(
                "the runner of this cluster has no profile named {}",
                order.profile
            );
            return Verdict::Refused(order.job, Reason::new(ReasonCode::UnknownProfile, words));
        }
        Verdict::Accepted(Box::new(accepted))
    }

    /// Verifies that an envelope is an order for this cluster by a dispatcher that it trusts.
    ///
    /// # Errors
    /// The verdict on it, if it is not.
    pub(crate) fn verify(&self, envelope: &Envelope) -> Result<Accepted, Verdict> {
        let key = self.keys.iter().find(|key| key.key_id == envelope.key_id);
        let key = key.ok_or(Verdict::Forged(Forgery::UnknownKey))?;
        // One algorithm, compiled in: nothing in the message can choose another.
        let signed = UnparsedPublicKey::new(&ED25519, &key.public_key).verify(
            &Envelope::signed_bytes(&envelope.payload),
            &envelope.signature,
        );
        if signed.is_err() && !invoke_hooks::sabotaged("no-envelope-check") {
            return Err(Verdict::Forged(Forgery::Signature));
        }
        let Order::V1(order) =
            Order::from_payload(&envelope.payload).map_err(|error| unreadable(envelope, &error))?;
        if order.cluster != self.cluster {
            let words = format!(
                "the order is for cluster {}, this is {}",
                order.cluster, self.cluster
            );
            return Err(Verdict::Refused(
                order.job,
                Reason::new(ReasonCode::WrongCluster, words),
            ));
        }
        Ok(Accepted {
            digest: OrderDigest::of(&envelope.payload),
            order,
        })
    }
}

impl OrderDigest {
    fn of(payload: &[u8]) -> Self {
        Self(hexadecimal(
            digest::digest(&digest::SHA256, payload).as_ref(),
        ))
    }
}

/// The signature was good: so the dispatcher can be told, if it can be found out about which job.
fn unreadable(envelope: &Envelope, error: &InvalidOrder) -> Verdict {
    #[derive(Deserialize)]
    struct Named {
        job: JobId,
    }
    match (error, serde_json::from_slice::<Named>(&envelope.payload)) {
        (InvalidOrder::UnsupportedVersion(_), Ok(named)) => Verdict::Refused(
            named.job,
            Reason::new(ReasonCode::UnsupportedVersion, error.to_string()),
        ),
        _ => Verdict::Forged(Forgery::NoOrder),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use invoke_protocol::command::Command;
    use invoke_protocol::environment::Environment;

    use super::*;

    pub(crate) const NOW: &str = "2026-11-22T10:00:00Z";

    pub(crate) fn order() -> OrderV1 {
        OrderV1 {
            job: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
            cluster: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
            expires_at: "2026-11-22T10:15:00Z".parse().unwrap(),
            submitted_by: "local".to_owned(),
            profile: ProfileName::default_profile(),
            command: Command::shell("kubectl get pods").unwrap(),
            run_timeout_seconds: None,
            files: None,
            environment: Environment::default(),
            secrets_sha256: None,
            stdin: false,
        }
    }

    pub(crate) fn accepted() -> Accepted {
        let digest = OrderDigest::of(&Order::V1(order()).to_payload().unwrap());
        Accepted {
            order: order(),
            digest,
        }
    }

    /// Whoever signs orders.
    pub(crate) struct Dispatcher(Ed25519KeyPair);

    impl Dispatcher {
        pub(crate) fn new() -> Self {
            Self(Ed25519KeyPair::generate().unwrap())
        }

        pub(crate) fn trust(&self) -> Trust {
            let key = SigningKey {
                key_id: "key-1".to_owned(),
                public_key: self.0.public_key().as_ref().to_vec(),
            };
            Trust {
                cluster: order().cluster,
                keys: vec![key],
            }
        }

        pub(crate) fn envelope(&self, payload: &[u8]) -> Envelope {
            let signature = self
                .0
                .sign(&Envelope::signed_bytes(payload))
                .as_ref()
                .to_vec();
            Envelope {
                key_id: "key-1".to_owned(),
                payload: payload.to_vec(),
                signature,
            }
        }

        pub(crate) fn message(&self, order: OrderV1) -> Vec<u8> {
            serde_json::to_vec(&self.envelope(&Order::V1(order).to_payload().unwrap())).unwrap()
        }
    }

    fn judge(trust: &Trust, message: &[u8]) -> Verdict {
        trust.judge(
            message,
            |profile| profile.as_str() == "default",
            NOW.parse().unwrap(),
        )
    }

    fn reason(verdict: Verdict) -> ReasonCode {
        match verdict {
            Verdict::Refused(job, reason) => {
                assert_eq!(job, order().job);
                reason.code
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_order_is_followed() {
        let dispatcher = Dispatcher::new();
        let Verdict::Accepted(accepted) = judge(&dispatcher.trust(), &dispatcher.message(order()))
        else {
            panic!("refused");
        };
        assert_eq!(accepted.order, order());
        assert_eq!(accepted.digest.to_string().len(), 64);
    }

    /// Flip every bit of the payload and the signature: none of it starts anything.
    #[test]
    fn whatever_was_changed_after_signing_is_forged() {
        let dispatcher = Dispatcher::new();
        let trust = dispatcher.trust();
        let good = dispatcher.envelope(&Order::V1(order()).to_payload().unwrap());
        let bits =
            |length: usize| (0..length).flat_map(|byte| (0..8).map(move |bit| (byte, 1_u8 << bit)));
        for (byte, bit) in bits(good.payload.len()) {
            let mut bad = good.clone();
            bad.payload[byte] ^= bit;
            assert_eq!(
                trust.verify(&bad),
                Err(Verdict::Forged(Forgery::Signature)),
                "payload {byte}"
            );
        }
        for (byte, bit) in bits(good.signature.len()) {
            let mut bad = good.clone();
            bad.signature[byte] ^= bit;
            assert_eq!(
                trust.verify(&bad),
                Err(Verdict::Forged(Forgery::Signature)),
                "signature {byte}"
            );
        }
    }

    #[test]
    fn another_dispatchers_orders_are_forged() {
        let (ours, theirs) = (Dispatcher::new(), Dispatcher::new());
        let message = theirs.message(order());
        assert_eq!(
            judge(&ours.trust(), &message),
            Verdict::Forged(Forgery::Signature)
        );
        let mut envelope = ours.envelope(b"{}");
        envelope.key_id = "key-2".to_owned();
        assert_eq!(
            ours.trust().verify(&envelope),
            Err(Verdict::Forged(Forgery::UnknownKey))
        );
    }

    /// A signature over the bare payload, made for some other purpose, is none over an order.
    #[test]
    fn a_signature_without_its_context_is_forged() {
        let dispatcher = Dispatcher::new();
        let payload = Order::V1(order()).to_payload().unwrap();
        let signature = dispatcher.0.sign(&payload).as_ref().to_vec();
        let envelope = Envelope {
            key_id: "key-1".to_owned(),
            payload,
            signature,
        };
        assert_eq!(
            dispatcher.trust().verify(&envelope),
            Err(Verdict::Forged(Forgery::Signature))
        );
    }

    #[test]
    fn what_is_no_message_of_ours_is_forged() {
        let dispatcher = Dispatcher::new();
        for message in [
            &b""[..],
            b"{}",
            b"null",
            b"\xff\xfe",
            br#"{"key_id":"key-1","payload":"!","signature":""}"#,
        ] {
            assert_eq!(
                judge(&dispatcher.trust(), message),
                Verdict::Forged(Forgery::NoEnvelope)
            );
        }
        let signed = dispatcher.envelope(b"not an order");
        assert_eq!(
            dispatcher.trust().verify(&signed),
            Err(Verdict::Forged(Forgery::NoOrder))
        );
    }

    #[test]
    fn an_order_for_another_cluster_is_refused() {
        let dispatcher = Dispatcher::new();
        let cluster = "0197c1f0-0000-7000-8000-000000000002".parse().unwrap();
        let message = dispatcher.message(OrderV1 { cluster, ..order() });
        assert_eq!(
            reason(judge(&dispatcher.trust(), &message)),
            ReasonCode::WrongCluster
        );
    }

    #[test]
    fn a_version_from_the_future_is_refused_by_name() {
        let dispatcher = Dispatcher::new();
        let payload = format!(r#"{{"version":"2","job":"{}"}}"#, order().job);
        let verdict = dispatcher
            .trust()
            .verify(&dispatcher.envelope(payload.as_bytes()))
            .unwrap_err();
        assert_eq!(reason(verdict), ReasonCode::UnsupportedVersion);
    }

    #[test]
    fn a_profile_that_is_not_offered_is_refused() {
        let dispatcher = Dispatcher::new();
        let message = dispatcher.message(OrderV1 {
            profile: "root".parse().unwrap(),
            ..order()
        });
        assert_eq!(
            reason(judge(&dispatcher.trust(), &message)),
            ReasonCode::UnknownProfile
        );
    }

    #[test]
    fn an_old_order_is_void() {
        let dispatcher = Dispatcher::new();
        let expires_at = "2026-11-22T09:59:59Z".parse().unwrap();
        let message = dispatcher.message(OrderV1 {
            expires_at,
            ..order()
        });
        assert_eq!(
            judge(&dispatcher.trust(), &message),
            Verdict::Expired(order().job)
        );
        let expires_at = NOW.parse().unwrap();
        let message = dispatcher.message(OrderV1 {
            expires_at,
            ..order()
        });
        assert!(matches!(
            judge(&dispatcher.trust(), &message),
            Verdict::Accepted(_)
        ));
    }
}
