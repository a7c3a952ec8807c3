//! A runner's credential: a short-lived token that it signs itself with its cluster's key.
//!
//! The token's `sub` says which cluster's key to verify with, and is believed only after that key has
//! verified it. The algorithm is not the token's choice: EdDSA, or nothing.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use invoke_protocol::id::{ClusterName, RunnerId};
use invoke_protocol::runner::{MAX_TOKEN_LIFETIME_SECONDS, TOKEN_AUDIENCE, TokenClaims};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous};

use super::{Locked, bearer};
use crate::app::App;
use crate::clock;
use crate::problem::Refusal;
use crate::store::clusters::{self, StoredCluster};
use crate::store::transition::Change;

/// By how much a runner's clock may differ from ours, in seconds, either way.
const MAX_SKEW_SECONDS: i64 = 60;

/// The longest name of a replica: it is a pod's name, a DNS subdomain (RFC 1123).
const MAX_RUNNER_ID_BYTES: usize = 253;

/// A replica of a cluster's runner, which proved that it holds the cluster's key.
pub struct Runner {
    /// Its cluster: whatever it asks for, only this cluster's jobs exist.
    pub cluster: StoredCluster,
    /// The replica, by its own word.
    pub id: RunnerId,
    /// The application.
    pub app: Arc<App>,
}

impl Runner {
    /// What the audit log calls it.
    #[must_use]
    pub fn name(&self) -> String {
        audit_name(&self.cluster.name, &self.id)
    }

    /// A change to one of its own cluster's jobs.
    #[must_use]
    pub const fn change<'a>(
        &self,
        job: invoke_protocol::id::JobId,
        by: &'a str,
        now: Timestamp,
    ) -> Change<'a> {
        Change {
            job,
            scope: Some(self.cluster.id),
            by,
            now,
        }
    }
}

fn audit_name(cluster: &ClusterName, id: &RunnerId) -> String {
    format!("runner {cluster}/{id}")
}

impl FromRequestParts<Locked> for Runner {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, Locked(app): &Locked) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers)?;
        // Not believed yet: it only says whose key to try.
        let claimed: TokenClaims = dangerous::insecure_decode_claims(token).map_err(invalid)?;
        let mut session = app.store.read().await?;
        let cluster = clusters::by_id(&mut session, claimed.sub).await?;
        drop(session);
        let unknown =
            || Refusal::unauthenticated("no key is enrolled for the token's cluster: enrol again");
        let cluster = cluster.ok_or_else(unknown)?;
        let key = cluster.public_key.as_deref().ok_or_else(unknown)?;
        let claims = verify(token, key).map_err(invalid)?;
        check_times(&claims, clock::now()).map_err(Refusal::unauthenticated)?;
        check_id(&claims.runner).map_err(Refusal::unauthenticated)?;
        Ok(Self {
            cluster,
            id: claims.runner,
            app: Arc::clone(app),
        })
    }
}

fn invalid(error: jsonwebtoken::errors::Error) -> Refusal {
    Refusal::unauthenticated(
        "the runner's token is not signed by its cluster's key, or not for this dispatcher",
    )
    .because(error)
}

fn verify(token: &str, public_key: &[u8]) -> Result<TokenClaims, jsonwebtoken::errors::Error> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[TOKEN_AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    // Times are checked by `check_times`, against the one clock of this program.
    validation.validate_exp = false;
    let key = DecodingKey::from_ed_der(public_key);
    jsonwebtoken::decode::<TokenClaims>(token, &key, &validation).map(|token| token.claims)
}

/// A token lives for five minutes at most, whatever it says: what was stolen is soon worth nothing.
fn check_times(claims: &TokenClaims, now: Timestamp) -> Result<(), &'static str> {
    let now = now.as_second();
    let lifetime = claims.exp.saturating_sub(claims.iat);
    if !(1..=MAX_TOKEN_LIFETIME_SECONDS).contains(&lifetime) {
        Err("the runner's token lives longer than 300 seconds")
    } else if claims.iat.saturating_sub(MAX_SKEW_SECONDS) > now {
        Err("the runner's token is from the future: set the clock of the cluster's node")
    } else if claims.exp.saturating_add(MAX_SKEW_SECONDS) < now {
        Err("the runner's token has expired: if it is new, set the clock of the cluster's node")
    } else {
        Ok(())
    }
}

fn check_id(runner: &RunnerId) -> Result<(), &'static str> {
    let text = &runner.0;
    let is_sane = (1..=MAX_RUNNER_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sane {
        Ok(())
    } else {
        Err("the runner's token names no replica")
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use jsonwebtoken::{EncodingKey, Header, encode};

    use super::*;

    fn claims() -> TokenClaims {
        TokenClaims {
            sub: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
            aud: TOKEN_AUDIENCE.to_owned(),
            iat: 1000,
            exp: 1300,
            runner: RunnerId("invoke-runner-0".to_owned()),
        }
    }

    fn key() -> (Ed25519KeyPair, EncodingKey) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        (pair, key)
    }

    #[test]
    fn only_the_clusters_own_key_verifies() {
        let ((pair, key), (other, _)) = (key(), key());
        let token = encode(&Header::new(Algorithm::EdDSA), &claims(), &key).unwrap();
        assert!(verify(&token, pair.public_key().as_ref()).is_ok());
        assert!(verify(&token, other.public_key().as_ref()).is_err());
    }

    /// The classic: a public key is no secret, and HMAC with it is no signature.
    #[test]
    fn the_token_does_not_choose_its_algorithm() {
        let (pair, _) = key();
        let public = pair.public_key().as_ref();
        let token = encode(
            &Header::new(Algorithm::HS256),
            &claims(),
            &EncodingKey::from_secret(public),
        )
        .unwrap();
        assert!(verify(&token, public).is_err());
    }

    #[test]
    fn a_token_for_somebody_else_is_refused() {
        let (pair, key) = key();
        let elsewhere = TokenClaims {
            aud: "another".to_owned(),
            ..claims()
        };
        let token = encode(&Header::new(Algorithm::EdDSA), &elsewhere, &key).unwrap();
        assert!(verify(&token, pair.public_key().as_ref()).is_err());
    }

    #[test]
    fn a_token_is_good_for_five_minutes_and_a_minute_of_skew() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let cases = [
            (1000, true),
            (940, true),
            (939, false),
            (1300, true),
            (1360, true),
            (1361, false),
        ];
        for (now, good) in cases {
            assert_eq!(check_times(&claims(), at(now)).is_ok(), good, "{now}");
        }
        assert!(
            check_times(
                &TokenClaims {
                    exp: 1301,
                    ..claims()
                },
                at(1000)
            )
            .is_err()
        );
        assert!(
            check_times(
                &TokenClaims {
                    exp: 1000,
                    ..claims()
                },
                at(1000)
            )
            .is_err()
        );
        assert!(
            check_times(
                &TokenClaims {
                    iat: i64::MIN,
                    exp: i64::MAX,
                    ..claims()
                },
                at(1000)
            )
            .is_err()
        );
    }

    #[test]
    fn a_replica_has_a_name_that_can_be_logged() {
        for (name, good) in [
            ("invoke-runner-5f7", true),
            ("", false),
            ("a b", false),
            ("a\nb", false),
            ("ä", false),
        ] {
            assert_eq!(
                check_id(&RunnerId(name.to_owned())).is_ok(),
                good,
                "{name:?}"
            );
        }
        assert!(check_id(&RunnerId("x".repeat(254))).is_err());
    }
}
