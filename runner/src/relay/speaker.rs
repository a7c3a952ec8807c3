//! Who speaks: which pod, by the API server's word, and which job that pod was made for.
//!
//! A shim shows the token that the kubelet projected into its pod for us. TokenReview says whether it
//! is good for our audience, and which pod it was made for. Nothing that a shim says of itself counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use invoke_protocol::id::PodUid;
use invoke_protocol::topology::SHIM_TOKEN_AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Api;
use kube::api::PostParams;

use super::{Refusal, Relay};
use crate::job_pod::JobPod;
use crate::pool::Pool;
use crate::report::chain;

/// For how long a token is believed without asking again. A pod that was deleted is believed for as
/// long; all that it could still do is upload, and the dispatcher decides on that.
const BELIEVED: Duration = Duration::from_secs(60);

/// How many tokens are remembered: far more than one cluster has job pods.
const MOST_REMEMBERED: usize = 4096;

/// Where TokenReview puts the pod (KEP-1205).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A job pod that proved itself.
#[derive(Debug, Clone)]
pub(crate) struct Speaker(pub(crate) JobPod);

/// Finds out who speaks.
pub(crate) struct Porter {
    reviews: Api<TokenReview>,
    pool: Pool,
    /// Beginning of the names of the jobs namespace's ServiceAccounts.
    account_prefix: String,
    known: Mutex<HashMap<TokenDigest, (Speaker, Instant)>>,
}

/// Tokens are not kept, only recognised.
type TokenDigest = [u8; 32];

impl Porter {
    pub(crate) fn new(reviews: Api<TokenReview>, pool: Pool, jobs_namespace: &str) -> Self {
        let account_prefix = format!("system:serviceaccount:{jobs_namespace}:");
        Self {
            reviews,
            pool,
            account_prefix,
            known: Mutex::default(),
        }
    }

    async fn identify(&self, token: &str) -> Result<Speaker, Refusal> {
        let digest = token_digest(token)?;
        let now = Instant::now();
        if let Some(speaker) = self.remembered(&digest, now) {
            return Ok(speaker);
        }
        let speaker = self.ask(token).await?;
        self.remember(digest, &speaker, now);
        Ok(speaker)
    }

    async fn ask(&self, token: &str) -> Result<Speaker, Refusal> {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![SHIM_TOKEN_AUDIENCE.to_owned()]),
        };
        let review = TokenReview {
            spec,
            ..TokenReview::default()
        };
        let review = self
            .reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| later(&error))?;
        let (name, uid) =
            reviewed_pod(&review, &self.account_prefix).ok_or(Refusal::Unauthenticated)?;
        let pod = self.pool.find(&name).await.map_err(|error| later(&error))?;
        let marks = pod
            .as_ref()
            .and_then(JobPod::read)
            .ok_or(Refusal::Unauthenticated)?;
        if marks.uid == uid {
            Ok(Speaker(marks))
        } else {
            Err(Refusal::Unauthenticated)
        }
    }

    fn remembered(&self, digest: &TokenDigest, now: Instant) -> Option<Speaker> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (speaker, since) = known.get(digest)?;
        (now.duration_since(*since) < BELIEVED).then(|| speaker.clone())
    }

    fn remember(&self, digest: TokenDigest, speaker: &Speaker, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, since)| now.duration_since(*since) < BELIEVED);
        if known.len() < MOST_REMEMBERED {
            known.insert(digest, (speaker.clone(), now));
        }
    }
}

fn token_digest(token: &str) -> Result<TokenDigest, Refusal> {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest
        .as_ref()
        .try_into()
        .map_err(|_| Refusal::Unauthenticated)
}

/// The pod that a review vouches for.
fn reviewed_pod(review: &TokenReview, account_prefix: &str) -> Option<(String, PodUid)> {
    let status = review.status.as_ref()?;
    let audiences = status.audiences.as_deref().unwrap_or_default();
    // An API server that does not know audiences leaves them out: then the token may be for anybody.
    let for_us = audiences
        .iter()
        .any(|audience| audience == SHIM_TOKEN_AUDIENCE);
    if status.authenticated != Some(true) || !for_us {
        return None;
    }
    let user = status.user.as_ref()?;
    user.username.as_deref()?.strip_prefix(account_prefix)?;
    Some((
        extra(user, POD_NAME)?.to_owned(),
        extra(user, POD_UID)?.parse().ok()?,
    ))
}

/// The value of an attribute that has exactly one.
fn extra<'a>(user: &'a UserInfo, name: &str) -> Option<&'a str> {
    match user.extra.as_ref()?.get(name)?.as_slice() {
        [value] => Some(value),
        _ => None,
    }
}

fn later(error: &kube::Error) -> Refusal {
    tracing::warn!(
        "the API server cannot be asked who a shim is: {}",
        chain(error)
    );
    Refusal::Later
}

impl FromRequestParts<Arc<Relay>> for Speaker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, relay: &Arc<Relay>) -> Result<Self, Refusal> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or(Refusal::Unauthenticated)?;
        relay.porter.identify(token).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "0197c1f0-1111-4c22-9d1b-3f2a9c8e4b10";

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["invoke-runner"],
            "user": {
                "username": "system:serviceaccount:invoke-jobs:invoke-profile-default",
                "extra": {POD_NAME: ["invoke-x"], POD_UID: [UID]},
            },
        })
    }

    fn pod_of(status: &Value) -> Option<(String, PodUid)> {
        let review = serde_json::from_value(json!({"spec": {}, "status": status})).unwrap();
        reviewed_pod(&review, "system:serviceaccount:invoke-jobs:")
    }

    #[test]
    fn the_api_servers_word_names_the_pod() {
        assert_eq!(
            pod_of(&good()),
            Some(("invoke-x".to_owned(), UID.parse().unwrap()))
        );
    }

    #[test]
    fn anything_less_than_the_whole_proof_is_none() {
        let user = "/user/extra/authentication.kubernetes.io~1";
        let wrong = [
            ("/authenticated".to_owned(), json!(false)),
            (
                "/audiences".to_owned(),
                json!(["https://kubernetes.default.svc"]),
            ),
            ("/audiences".to_owned(), json!(null)),
            (
                "/user/username".to_owned(),
                json!("system:serviceaccount:default:invoke-profile-default"),
            ),
            (
                "/user/username".to_owned(),
                json!("system:serviceaccount:invoke-jobs-2:default"),
            ),
            (format!("{user}pod-uid"), json!(["not a uid"])),
            (format!("{user}pod-uid"), json!([])),
            (format!("{user}pod-name"), json!(["one", "two"])),
        ];
        for (pointer, value) in wrong {
            let mut status = good();
            *status.pointer_mut(&pointer).unwrap() = value.clone();
            assert_eq!(pod_of(&status), None, "{pointer} = {value}");
        }
    }
}
