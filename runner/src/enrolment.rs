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
pub(crate) async fn enrol(
    wire: &Wire,
    keeper: &Keeper,
    identity: &Identity,
    token_file: Option<&Path>,
) -> Enrolment {
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
    let Some(token) =
        token.filter(|token| known.is_none_or(|known| known.token_digest != token_digest(token)))
    else {
        return known
            .map(|known| known.enrolment.clone())
            .ok_or(Error::NoToken);
    };
    match (ask(wire, identity, &token).await, known) {
        (Ok(enrolment), _) => {
            let enrolled = Enrolled {
                enrolment,
                token_digest: token_digest(&token),
            };
            keeper.remember(&enrolled).await.map_err(Error::Keep)?;
            tracing::info!(cluster.id = %enrolled.enrolment.cluster, "enrolled as cluster {}", enrolled.enrolment.name);
            Ok(enrolled.enrolment)
        }
        // A stale token beside a good enrolment is what every later upgrade of the release has.
        (Err(Error::TokenInvalid), Some(known)) => {
            tracing::warn!(
                "the join token is not valid; the cluster stays enrolled as {}",
                known.enrolment.name
            );
            Ok(known.enrolment.clone())
        }
        (Err(error), _) => Err(error),
    }
}

async fn ask(wire: &Wire, identity: &Identity, token: &str) -> Result<Enrolment, Error> {
    let request = EnrolRequest {
        join_token: token.to_owned(),
        public_key: identity.public_key.clone(),
    };
    wire.enrol(&request)
        .await
        .map_err(|error| match error.code() {
            Some(ProblemCode::JoinTokenInvalid) => Error::TokenInvalid,
            _ => Error::Upstream(wire.base().clone(), error),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;
    use crate::scripted::{Script, World};

    fn enrolment(name: &str) -> Enrolment {
        let cluster = "0197c1f0-0000-7000-8000-000000000001".parse().unwrap();
        Enrolment {
            cluster,
            name: name.parse().unwrap(),
            signing_keys: vec![],
        }
    }

    fn enrolled_with(token: &str) -> Identity {
        let enrolled = Enrolled {
            enrolment: enrolment("old"),
            token_digest: token_digest(token),
        };
        Identity {
            enrolled: Some(enrolled),
            ..identity()
        }
    }

    async fn attempted(
        answer: Option<Enrolment>,
        identity: &Identity,
        token: Option<&str>,
    ) -> (World, Result<Enrolment, Error>) {
        let world = World::new(Script {
            enrolment: answer,
            ..Script::default()
        })
        .await;
        let secrets = kube::Api::namespaced(world.client.clone(), "invoke-system");
        let keeper = Keeper::new(secrets, "invoke-runner-identity".to_owned());
        let result = attempt(&world.wire, &keeper, identity, token.map(ToOwned::to_owned)).await;
        (world, result)
    }

    #[tokio::test]
    async fn the_key_that_was_made_here_is_what_enrols() {
        let identity = identity();
        let (world, result) = attempted(Some(enrolment("new")), &identity, Some("token")).await;
        assert_eq!(result.unwrap(), enrolment("new"));
        let script = world.script();
        assert_eq!(script.enrols[0].public_key, identity.public_key);
        assert_eq!(
            script.secret["data"].as_object().unwrap().len(),
            2,
            "what was answered is kept"
        );
    }

    /// The token is good once; every later start has it still in its Secret.
    #[tokio::test]
    async fn a_token_that_was_used_is_not_used_again() {
        for token in [Some("used"), None] {
            let (world, result) = attempted(None, &enrolled_with("used"), token).await;
            assert_eq!(result.unwrap(), enrolment("old"));
            assert!(world.script().enrols.is_empty());
        }
    }

    /// A dispatcher that was set up anew does not know the cluster: another token is the way back.
    #[tokio::test]
    async fn another_token_enrols_again() {
        let (_world, result) = attempted(
            Some(enrolment("new")),
            &enrolled_with("used"),
            Some("another"),
        )
        .await;
        assert_eq!(result.unwrap(), enrolment("new"));
    }

    #[tokio::test]
    async fn a_stale_token_does_not_end_an_enrolment() {
        let (_world, result) = attempted(None, &enrolled_with("used"), Some("stale")).await;
        assert_eq!(result.unwrap(), enrolment("old"));
    }

    #[tokio::test]
    async fn what_is_missing_is_said_with_the_command_that_helps() {
        for token in [None, Some("stale")] {
            let (_world, result) = attempted(None, &identity(), token).await;
            let words = result.unwrap_err().to_string();
            assert!(words.contains("invoke clusters token NAME"), "{words}");
        }
    }
}
