//! `POST /v1/shim/cancelling`: the shim has the order to stop, and has sent SIGTERM.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use invoke_protocol::runner::Report;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};
use crate::recovery;

pub(super) async fn post(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
) -> Result<StatusCode, Refusal> {
    let report = Report::CancelDelivered { pod: pod.uid };
    match relay.upstream.report(pod.job, &report).await {
        Ok(()) => {
            tracing::info!(job.id = %pod.job, pod.uid = %pod.uid, "job {} is being stopped", pod.job);
        }
        // Whether anybody wants to know changes nothing for the shim: it stops the command all the same.
        Err(error) if error.is_final() => {}
        Err(error) => {
            let error = recovery::Error::from(error);
            return Err(refusal(pod.job, "the stop", &error));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
