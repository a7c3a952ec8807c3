//! `POST /v1/shim/exit`: how the command ended. Acknowledged when it is on record.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use invoke_protocol::output::ExitRecord;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::CompleteRequest;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};

pub(super) async fn post(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    record: Result<Json<ExitRecord>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(exit) = record.map_err(|_| Refusal::Invalid)?;
    let request = CompleteRequest { pod: pod.uid, exit };
    match relay.recovery.complete(&pod, &request).await {
        Ok(()) => {
            invoke_hooks::point("runner.after-complete");
            tracing::info!(job.id = %pod.job, pod.uid = %pod.uid, "the end of job {} is on record", pod.job);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            if error.code() == Some(ProblemCode::Contradiction) {
                tracing::error!(alarm = true, job.id = %pod.job, "the pod of job {} reports another end than the one on record", pod.job);
            }
            Err(refusal(pod.job, "the end", &error))
        }
    }
}
