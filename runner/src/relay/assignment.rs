//! `POST /v1/shim/assignment`: the permit, and with it the command. Here a command starts, or never.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::Json;
use axum::extract::State;
use invoke_protocol::digest::Sha256;
use invoke_protocol::envelope::{Envelope, OrderV1};
use invoke_protocol::environment::{SaltedSecrets, SecretEnvironment};
use invoke_protocol::runner::{Permit, PermitRefusal, PermitRequest, Report};
use invoke_protocol::shim::Assignment;
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::start_record_name;
use jiff::Timestamp;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};
use crate::job_pod::JobPod;
use crate::order::Accepted;
use crate::pod::{GRACE_SECONDS, run_seconds};
use crate::recovery;
use crate::report::chain;
use crate::start_record::Fence;
use crate::starter::Decision;

pub(super) async fn post(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
) -> Result<Json<Assignment>, Refusal> {
    let job = pod.job;
    let permit = relay
        .upstream
        .permit(job, &PermitRequest { pod: pod.uid })
        .await;
    match permit.map_err(|error| refusal(job, "the start", &error.into()))? {
        Permit::Granted {
            envelope,
            start_within_seconds,
            log_bytes: 0,
            secrets,
        } => {
            invoke_hooks::point("runner.after-permit");
            let order = verified(&relay, &pod, &envelope)?;
            let secrets = revealed(&order, secrets.as_deref())?;
            let expires_at = order.expires_at;
            let assignment = assignment(&relay, order, secrets, start_within_seconds)?;
            put_on_record(&relay, &pod, expires_at).await?;
            invoke_hooks::point("runner.after-start-record");
            tracing::info!(job.id = %job, pod.uid = %pod.uid, "job {job} may start");
            // Nobody may be holding the message, or another replica is: it asks the dispatcher.
            let _ = relay.decided.send(Decision::Granted(job));
            Ok(Json(assignment))
        }
        // This pod's command has printed something: whoever asks is not a shim that has yet to start.
        Permit::Granted { .. } => Err(Refusal::Gone),
        Permit::Refused { why } => Err(refused(&relay, &pod, why).await),
    }
}

/// The order is verified again: the permit came from the dispatcher's store, not from the queue, and
/// this replica may never have seen the message.
fn verified(relay: &Relay, pod: &JobPod, envelope: &Envelope) -> Result<OrderV1, Refusal> {
    let is_this_pods = |accepted: &Accepted| {
        invoke_hooks::sabotaged("no-envelope-check")
            || (accepted.order.job == pod.job && accepted.digest.to_string() == pod.order)
    };
    let accepted = relay.trust.verify(envelope).ok().filter(is_this_pods);
    accepted.map(|accepted| accepted.order).ok_or_else(|| {
        tracing::error!(alarm = true, job.id = %pod.job, "the permit of job {} came with another order than its pod was made for", pod.job);
        Refusal::Gone
    })
}

/// The secrets that came along, if they are the ones of the order: its signature is over their digest.
fn revealed(order: &OrderV1, secrets: Option<&[u8]>) -> Result<SecretEnvironment, Refusal> {
    let of_order = match (order.secrets_sha256, secrets) {
        (None, None) => return Ok(SecretEnvironment::default()),
        (Some(signed), Some(text)) if sha256(text) == Some(signed) => {
            serde_json::from_slice::<SaltedSecrets>(text).ok()
        }
        _ => None,
    };
    of_order.map(|salted| salted.variables).ok_or_else(|| {
        tracing::error!(alarm = true, job.id = %order.job, "the permit of job {} came with other secrets than its order has", order.job);
        Refusal::Gone
    })
}

fn sha256(text: &[u8]) -> Option<Sha256> {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().try_into().ok().map(Sha256::from_bytes)
}

/// The second fence, which a store that was restored from a backup has not forgotten.
async fn put_on_record(relay: &Relay, pod: &JobPod, expires_at: Timestamp) -> Result<(), Refusal> {
    if invoke_hooks::sabotaged("no-start-record") {
        return Ok(());
    }
    let job = pod.job;
    let put = relay.recovery.records.put(job, pod.uid, expires_at).await;
    let fence = put.map_err(|error| refusal(job, "the start", &recovery::Error::Record(error)))?;
    let ended = match fence {
        Fence::Open => return Ok(()),
        Fence::StartedBefore(record) => {
            tracing::error!(alarm = true, job.id = %job, "job {job} was permitted to start a second time; its command was handed to pod {} at {}", record.pod, record.started);
            relay.recovery.end_started_before(pod, &record).await
        }
        Fence::Foreign => {
            tracing::error!(alarm = true, job.id = %job, "a ConfigMap has the name of job {job}'s record and is none: job {job} is not started");
            relay.upstream.report(job, &name_taken(pod)).await
        }
    };
    match ended {
        Err(error) if !error.is_final() => return Err(refusal(job, "the end", &error.into())),
        _ => {}
    }
    remove(relay, pod).await;
    Err(Refusal::Gone)
}

fn name_taken(pod: &JobPod) -> Report {
    let words = format!(
        "a ConfigMap named {} exists that is no record of a start: the command was not started; delete it",
        start_record_name(pod.job)
    );
    Report::PodFailed {
        pod: Some(pod.uid),
        reason: Reason::new(ReasonCode::NameConflict, words),
    }
}

fn assignment(
    relay: &Relay,
    order: OrderV1,
    secrets: SecretEnvironment,
    start_within_seconds: u64,
) -> Result<Assignment, Refusal> {
    let Some(profile) = relay.config.profiles.get(&order.profile) else {
        tracing::warn!(job.id = %order.job, "profile {} is gone since the pod of job {} was made", order.profile, order.job);
        return Err(Refusal::Gone);
    };
    let run_timeout_seconds = run_seconds(&order, profile);
    let own = [
        ("INVOKE_JOB_ID", order.job.to_string()),
        ("INVOKE_CLUSTER", relay.cluster.to_string()),
        ("INVOKE_PROFILE", order.profile.to_string()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let given: BTreeMap<_, _> = order.environment.into();
    Ok(Assignment {
        job: order.job,
        environment: own.into_iter().chain(given).collect(),
        run_timeout_seconds,
        command: order.command,
        start_within_seconds,
        grace_seconds: GRACE_SECONDS,
        drain_seconds: profile.drain_seconds,
        files: order.files,
        secrets,
        stdin: order.stdin,
        output_cap_bytes: profile.output_cap_bytes,
    })
}

async fn refused(relay: &Relay, pod: &JobPod, why: PermitRefusal) -> Refusal {
    tracing::info!(job.id = %pod.job, pod.uid = %pod.uid, "job {} may not start in this pod: {why:?}", pod.job);
    let useless = match why {
        PermitRefusal::Over | PermitRefusal::OtherPod => true,
        // The dispatcher is about to expire the job; a pod that vanished before would be taken for the cause.
        PermitRefusal::TooLate => false,
    };
    if useless {
        remove(relay, pod).await;
    }
    Refusal::Gone
}

/// What fails here, the janitor finds.
async fn remove(relay: &Relay, pod: &JobPod) {
    if let Err(error) = relay.pool.remove(pod.job, pod.uid).await {
        tracing::warn!(job.id = %pod.job, "a useless pod of job {} was not deleted yet: {}", pod.job, chain(&error));
    }
}
