//! Becoming a cluster of a dispatcher: once, with a join token and the key that was made here.

use std::path::Path;
use std::time::Duration;

use backon::BackoffBuilder as _;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{EnrolRequest, Enrolment};
use url::Url;

use crate::identity::{Enrolled, Identity, Keeper, token_digest};
use crate::report::chain;
use crate::upstream::{self, Wire};

/// A reason to wait. What is wrong is put right by people, so waiting goes on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "this cluster is not enrolled and there is no join token: run `invoke clusters add NAME` (or `invoke clusters token NAME`) and upgrade the release with what it prints"
    )]
    NoToken,
    #[error(
        "the join token was used before, replaced or has expired: run `invoke clusters token NAME` and upgrade the release with what it prints"
    )]
    TokenInvalid,
    #[error("cannot enrol with the dispatcher at {0}")]
    Upstream(Url, #[source] upstream::Error),
    #[error("cannot keep the enrolment")]
    Keep(#[source] crate::identity::Error),
}

/// Answers who the cluster is, and enrols it first if it is not, or if there is a token that it has
/// not used: then its dispatcher has forgotten it, or is another one. Returns only with an enrolment.
pub(crate) async fn enrol(wire: &Wire, keeper: &Keeper, identity: &Identity, token_file: Option<&Path>) -> Enrolment {
    let mut waits = waits();
    loop {
        // Read again each time: a Secret that is mounted changes while we wait.
        let token = token_file.and_then(read_token);
        match attempt(wire, keeper, identity, token).await {
            Ok(enrolment) => return enrolment,
            Err(error) => tracing::error!("{}", chain(&error)),
        }
        tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(15);

fn waits() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

fn read_token(path: &Path) -> Option<String> {
    let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

async fn attempt(
    wire: &Wire,
    keeper: &Keeper,
    identity: &Identity,
    token: Option<String>,
) -> Result<Enrolment, Error> {
    let known = identity.enrolled.as_ref();
    let Some(token) = token.filter(|token| known.is_none_or(|known| known.token_digest != token_digest(token))) else {
        return known.map(|known| known.enrolment.clone()).ok_or(Error::NoToken);
    };
    match (ask(wire, identity, &token).await, known) {
        (Ok(enrolment), _) => {
            let enrolled = Enrolled { enrolment, token_digest: token_digest(&token) };
            keeper.remember(&enrolled).await.map_err(Error::Keep)?;
            tracing::info!(cluster.id = %enrolled.enrolment.cluster, "enrolled as cluster {}", enrolled.enrolment.name);
            Ok(enrolled.enrolment)
        }
        // A stale token beside a good enrolment is what every later upgrade of the release has.
        (Err(Error::TokenInvalid), Some(known)) => {
            tracing::warn!("the join token is not valid; the cluster stays enrolled as {}", known.enrolment.name);
            Ok(known.enrolment.clone())
        }
        (Err(error), _) => Err(error),
    }
}

async fn ask(wire: &Wire, identity: &Identity, token: &str) -> Result<Enrolment, Error> {
    let request = EnrolRequest { join_token: token.to_owned(), public_key: identity.public_key.clone() };
    wire.enrol(&request).await.map_err(|error| match error.code() {
        Some(ProblemCode::JoinTokenInvalid) => Error::TokenInvalid,
        _ => Error::Upstream(wire.base().clone(), error),
    })
}
