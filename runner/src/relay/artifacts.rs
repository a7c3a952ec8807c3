//! `PUT /v1/shim/artifacts`: passed on to the dispatcher, and acknowledged when it is stored there.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{ArtifactsAck, OutputQuery};

use super::piece::Piece;
use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};
use crate::job_pod::JobPod;
use crate::upstream;

pub(super) async fn put(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    piece: Piece,
) -> Result<Json<ArtifactsAck>, Refusal> {
    let stored = relay
        .recovery
        .reminding(&pod, || store(&relay, &pod, &piece))
        .await
        .map_err(|error| refusal(pod.job, "artifacts", &error))?;
    Ok(Json(stored))
}

async fn store(
    relay: &Relay,
    pod: &JobPod,
    piece: &Piece,
) -> Result<ArtifactsAck, upstream::Error> {
    let put = |from, bytes| {
        let query = OutputQuery { pod: pod.uid, from };
        relay.upstream.artifacts(pod.job, query, bytes)
    };
    match put(piece.from, piece.bytes.clone()).await {
        // As with output: nothing at all, offered at the beginning, is answered with what is stored.
        Err(error) if error.code() == Some(ProblemCode::UploadGap) => put(0, Bytes::new()).await,
        answer => answer,
    }
}
