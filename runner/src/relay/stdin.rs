//! `GET /v1/shim/stdin`: what the command is to read, held back until there is something.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderName;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::runner::StdinQuery;
use invoke_protocol::shim::STDIN_END;
use serde::Deserialize;

use super::speaker::Speaker;
use super::{HOLD, Refusal, Relay, pass_on, refusal};

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
    let query = StdinQuery {
        pod: pod.uid,
        from,
        wait_seconds: HOLD.as_secs(),
    };
    let read = async || relay.upstream.stdin(pod.job, query).await;
    let stdin = tokio::select! {
        stdin = relay.recovery.reminding(&pod, read) => stdin,
        // Nothing yet, and not the end: another replica is asked next.
        () = relay.stop.cancelled() => return Ok(().into_response()),
    };
    let stdin = stdin.map_err(|error| refusal(pod.job, "what is to read", &error))?;
    let end = HeaderName::from_static(STDIN_END);
    Ok(pass_on(
        pod.job,
        "what is to read",
        stdin,
        [CONTENT_TYPE, CONTENT_LENGTH, end],
    ))
}
