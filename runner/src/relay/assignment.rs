//! `POST /v1/shim/assignment`: the permit, and with it the command. Here a command starts, or never.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use invoke_protocol::envelope::Envelope;
use invoke_protocol::runner::{Permit, PermitRefusal, PermitRequest};
use invoke_protocol::shim::Assignment;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};
use crate::job_pod::JobPod;
use crate::pod::{GRACE_SECONDS, run_seconds};
use crate::report::chain;

pub(super) async fn post(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
) -> Result<Json<Assignment>, Refusal> {
    let job = pod.job;
    let permit = relay
        .upstream
        .permit(job, &PermitRequest { pod: pod.uid })
        .await;
    match permit.map_err(|error| refusal(job, "the start", &error))? {
        Permit::Granted {
            envelope,
            start_within_seconds,
            log_bytes: 0,
        } => {
            let assignment = assignment(&relay, &pod, &envelope, start_within_seconds)?;
            tracing::info!(job.id = %job, pod.uid = %pod.uid, "job {job} may start");
            // Nobody may be holding the message, or another replica is: it asks the dispatcher.
            let _ = relay.granted.send(job);
            Ok(Json(assignment))
        }
        // This pod's command has printed something: whoever asks is not a shim that has yet to start.
        Permit::Granted { .. } => Err(Refusal::Gone),
        Permit::Refused { why } => Err(refused(&relay, &pod, why).await),
    }
}

/// The order is verified again: the permit came from the dispatcher's store, not from the queue, and
/// this replica may never have seen the message.
fn assignment(
    relay: &Relay,
    pod: &JobPod,
    envelope: &Envelope,
    start_within_seconds: u64,
) -> Result<Assignment, Refusal> {
    let verified = relay.trust.verify(envelope).ok().filter(|accepted| {
        accepted.order.job == pod.job && accepted.digest.to_string() == pod.order
    });
    let Some(accepted) = verified else {
        tracing::error!(alarm = true, job.id = %pod.job, "the permit of job {} came with another order than its pod was made for", pod.job);
        return Err(Refusal::Gone);
    };
    let order = accepted.order;
    let Some(profile) = relay.config.profiles.get(&order.profile) else {
        tracing::warn!(job.id = %pod.job, "profile {} is gone since the pod of job {} was made", order.profile, pod.job);
        return Err(Refusal::Gone);
    };
    let variable = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
    Ok(Assignment {
        job: order.job,
        environment: vec![
            variable("INVOKE_JOB_ID", &order.job),
            variable("INVOKE_CLUSTER", &relay.cluster),
            variable("INVOKE_PROFILE", &order.profile),
        ],
        run_timeout_seconds: run_seconds(&order, profile),
        command: order.command,
        start_within_seconds,
        grace_seconds: GRACE_SECONDS,
        drain_seconds: 0,
    })
}

async fn refused(relay: &Relay, pod: &JobPod, why: PermitRefusal) -> Refusal {
    tracing::info!(job.id = %pod.job, pod.uid = %pod.uid, "job {} may not start in this pod: {why:?}", pod.job);
    let useless = match why {
        PermitRefusal::Over | PermitRefusal::OtherPod => true,
        // The dispatcher is about to expire the job; a pod that vanished before would be taken for the cause.
        PermitRefusal::TooLate => false,
    };
    if useless && let Err(error) = relay.pool.remove(pod.job, pod.uid).await {
        tracing::warn!(job.id = %pod.job, "a useless pod of job {} was not deleted yet: {}", pod.job, chain(&error));
    }
    Refusal::Gone
}
