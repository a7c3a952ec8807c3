//! `GET /v1/shim/files`: the attached files, as they come from the dispatcher. Nothing is kept: a shim that
//! is slow slows its own download, and one that is cut off asks for the rest, of any replica.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use invoke_protocol::runner::FilesQuery;
use serde::Deserialize;

use super::speaker::Speaker;
use super::{Refusal, Relay, pass_on, refusal};

#[derive(Debug, Deserialize)]
pub(super) struct Position {
    from: u64,
}

pub(super) async fn get(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    position: Result<Query<Position>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Position { from }) = position.map_err(|_| Refusal::Invalid)?;
    let query = FilesQuery { pod: pod.uid, from };
    let files = relay
        .recovery
        .reminding(&pod, || relay.upstream.files(pod.job, query))
        .await
        .map_err(|error| refusal(pod.job, "the start with its files", &error))?;
    // With its length whoever is cut off knows it.
    Ok(pass_on(
        pod.job,
        "the files",
        files,
        [CONTENT_TYPE, CONTENT_LENGTH],
    ))
}
