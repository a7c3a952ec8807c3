//! `PUT /v1/shim/output`: passed on to the dispatcher, and acknowledged when it is stored there.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{OutputAck, OutputQuery};
use serde::Deserialize;

use super::speaker::Speaker;
use super::{Refusal, Relay, refusal};

#[derive(Debug, Deserialize)]
pub(super) struct Position {
    from: u64,
}

pub(super) async fn put(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    position: Result<Query<Position>, QueryRejection>,
    log: Bytes,
) -> Result<Json<OutputAck>, Refusal> {
    let Query(Position { from }) = position.map_err(|_| Refusal::Invalid)?;
    let stored = match relay
        .upstream
        .output(pod.job, OutputQuery { pod: pod.uid, from }, log)
        .await
    {
        // The shim is ahead of what is stored. Nothing at all, offered at the beginning, is answered with
        // where the log ends.
        Err(error) if error.code() == Some(ProblemCode::OutputGap) => {
            relay
                .upstream
                .output(
                    pod.job,
                    OutputQuery {
                        pod: pod.uid,
                        from: 0,
                    },
                    Bytes::new(),
                )
                .await
        }
        answer => answer,
    };
    stored
        .map(Json)
        .map_err(|error| refusal(pod.job, "output", &error))
}
