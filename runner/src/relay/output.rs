//! `PUT /v1/shim/output`: passed on to the dispatcher, and acknowledged when it is stored there.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{OutputAck, OutputQuery};

use super::piece::Piece;
use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};
use crate::job_pod::JobPod;
use crate::upstream;

pub(super) async fn put(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    piece: Piece,
) -> Result<Json<OutputAck>, Refusal> {
    let stored = relay
        .recovery
        .reminding(&pod, || store(&relay, &pod, &piece))
        .await
        .map_err(|error| refusal(pod.job, "output", &error))?;
    invoke_hooks::point("runner.mid-output");
    Ok(Json(stored))
}

async fn store(relay: &Relay, pod: &JobPod, piece: &Piece) -> Result<OutputAck, upstream::Error> {
    let put = |from, log| {
        let query = OutputQuery { pod: pod.uid, from };
        relay.upstream.output(pod.job, query, log)
    };
    match put(piece.from, piece.bytes.clone()).await {
        // The shim is ahead of what is stored. Nothing at all, offered at the beginning, is answered with
        // where the log ends.
        Err(error) if error.code() == Some(ProblemCode::OutputGap) => put(0, Bytes::new()).await,
        answer => answer,
    }
}
