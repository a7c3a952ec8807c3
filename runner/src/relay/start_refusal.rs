//! `POST /v1/shim/start-refusal`: the permit was granted, and the shim has not started the command and never
//! will. Acknowledged when it is on record; the pod ends by itself then, as after an exit.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::shim::StartRefusal;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};

pub(super) async fn post(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    why: Result<Json<StartRefusal>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(StartRefusal { reason }) = why.map_err(|_| Refusal::Invalid)?;
    match relay.recovery.refuse_start(&pod, reason.clone()).await {
        Ok(()) => {
            tracing::info!(job.id = %pod.job, pod.uid = %pod.uid, "the command of job {} was not started: {:?}", pod.job, reason.code);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            if error.code() == Some(ProblemCode::Contradiction) {
                tracing::error!(alarm = true, job.id = %pod.job, "the pod of job {} says that it never started the command whose end is on record", pod.job);
            }
            Err(refusal(pod.job, "the start", &error))
        }
    }
}
