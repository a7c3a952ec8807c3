//! "I am here": the word that a cluster is connected, and the way by which cancellations and limits come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::id::JobId;
use invoke_protocol::runner::{ContactRequest, ProfileSummary};
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::report::chain;
use crate::upstream::Upstream;

/// For how long the dispatcher may hold its answer back: it takes a cluster that has not spoken for
/// thirty seconds for offline.
const WAIT_SECONDS: u64 = 10;

/// How soon to speak again after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// The jobs that are to be cancelled, each with its grace: from SIGTERM to SIGKILL, in seconds, the
/// runner's own if silent.
pub(crate) type Cancellations = BTreeMap<JobId, Option<u64>>;

/// Speaks for ever, and passes on which jobs are to be cancelled, how much the commands of new pods may
/// leave, and when the dispatcher is there again.
pub(crate) async fn keep(
    upstream: Arc<Upstream>,
    profiles: Vec<ProfileSummary>,
    cancelling: watch::Sender<Cancellations>,
    artifacts: watch::Sender<ArtifactsLimits>,
    reconnected: Arc<Notify>,
) {
    let mut request = ContactRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profiles,
        clock: clock::now(),
        cancelling: Vec::new(),
        // The first answer at once: nothing is known yet.
        wait_seconds: 0,
    };
    let mut connected = false;
    loop {
        request.clock = clock::now();
        match upstream.contact(&request).await {
            Ok(answer) => {
                if !std::mem::replace(&mut connected, true) {
                    tracing::info!("connected to the dispatcher");
                    reconnected.notify_one();
                }
                let orders = answer.cancelling.iter();
                cancelling.send_replace(orders.map(|it| (it.job, it.grace_seconds)).collect());
                artifacts.send_replace(answer.artifacts);
                request.cancelling = answer.cancelling;
                request.wait_seconds = WAIT_SECONDS;
            }
            Err(error) => {
                if std::mem::replace(&mut connected, false) || request.wait_seconds == 0 {
                    tracing::warn!("no contact with the dispatcher: {}", chain(&error));
                }
                // What was known may be old; the commands that run need no contact.
                request.wait_seconds = WAIT_SECONDS;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::shim::{ENV_ARTIFACTS_BYTES, ENV_ARTIFACTS_ENTRIES};
    use invoke_protocol::topology::pod_name;
    use serde_json::{Value, json};

    use super::*;
    use crate::order::tests::accepted;
    use crate::scripted::{Script, World, job};

    /// The operator of the dispatcher says how much a command may leave; the pod's shim hears it.
    #[tokio::test]
    async fn what_may_be_left_comes_to_the_next_pod() {
        let artifacts_limits = ArtifactsLimits {
            content_bytes: 7 << 30,
            entries: 70,
        };
        let world = World::new(Script {
            artifacts_limits,
            ..Script::default()
        })
        .await;
        let (cancelling, _) = watch::channel(Cancellations::new());
        let mut told = world.artifacts_limits.subscribe();
        let speaking = keep(
            Arc::clone(&world.upstream),
            Vec::new(),
            cancelling,
            world.artifacts_limits.clone(),
            Arc::default(),
        );
        tokio::select! {
            told = told.changed() => told.unwrap(),
            () = speaking => unreachable!("it speaks for ever"),
        }
        world.pool.provide(&accepted()).await.unwrap();
        let pod = serde_json::to_value(&world.script().pods[&pod_name(job())]).unwrap();
        let has = |name: &str, value: &str| {
            let wanted = json!({"name": name, "value": value});
            let variables = pod["spec"]["containers"][0]["env"].as_array();
            variables
                .into_iter()
                .flatten()
                .any(|it: &Value| *it == wanted)
        };
        assert!(has(ENV_ARTIFACTS_BYTES, "7516192768"), "{pod}");
        assert!(has(ENV_ARTIFACTS_ENTRIES, "70"), "{pod}");
    }
}
