//! `GET /v1/runner/jobs/{id}/stdin`: what the command is to read, for the pod that runs it.
//!
//! What the shim asks for says what it has handed on: that is needed no more, and removed.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::id::JobId;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{STDIN, StdinQuery};
use invoke_protocol::shim::STDIN_END;
use tokio::time::Instant;

use super::holder;
use crate::access::runner::Runner;
use crate::api::path::JobPath;
use crate::problem::Refusal;
use crate::store::uploads::{self, Key, StoredUpload};
use crate::upload::{self, Misfit};

/// The longest that an answer is held back.
const MAX_WAIT_SECONDS: u64 = 30;

/// Answers what there is to read, as soon as there is some.
#[utoipa::path(
    get, path = STDIN, tag = "runner", security(("runner_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("pod" = String, Query, description = "The pod that reads"),
        ("from" = u64, Query, description = "Where to go on: everything before is removed"),
        ("wait_seconds" = Option<u64>, Query, description = "For how long the answer may be held back, in seconds; at most 30"),
    ),
    responses(
        (status = 200, description = "The next bytes; none if the wait is over, or there will never be any", content_type = "application/octet-stream", body = [u8],
            headers(("invoke-stdin-end" = bool, description = "Whether nothing follows, ever"))),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stdin(
    runner: Runner,
    JobPath(id): JobPath,
    Query(query): Query<StdinQuery>,
) -> Result<Response, Refusal> {
    let app = &runner.app;
    let until = Instant::now() + Duration::from_secs(query.wait_seconds.min(MAX_WAIT_SECONDS));
    // Subscribe before read: see `crate::events`.
    let mut subscription = app.store.events().of_job(id);
    loop {
        // Each time: who is not to read any more is told while they wait.
        let job = holder::job_in(&runner, id, query.pod).await?;
        if !job.stdin {
            return Err(Refusal::no_stdin(id));
        }
        let upload = find(&runner, id).await?;
        let (bytes, end) = next(&runner, id, upload, query.from).await?;
        if !bytes.is_empty() || end || Instant::now() >= until || app.stopping.is_cancelled() {
            let headers = [
                (CONTENT_TYPE.as_str(), "application/octet-stream"),
                (STDIN_END, if end { "true" } else { "false" }),
            ];
            return Ok((headers, bytes).into_response());
        }
        tokio::select! {
            () = subscription.news_or_poll() => {}
            () = tokio::time::sleep_until(until) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

async fn find(runner: &Runner, id: JobId) -> Result<Option<StoredUpload>, Refusal> {
    let mut session = runner.app.store.read().await?;
    Ok(uploads::find(&mut session, &Key::Stdin(id)).await?)
}

/// What follows `from`, as far as one part goes, and whether nothing follows that.
async fn next(
    runner: &Runner,
    id: JobId,
    upload: Option<StoredUpload>,
    from: u64,
) -> Result<(Bytes, bool), Refusal> {
    let app = &runner.app;
    let refused = |error| Refusal::of_upload("what the command reads", error);
    let stored = upload.map_or(0, |upload| upload.stored);
    if from > stored {
        return Err(refused(Misfit::Gap { stored, from }.into()));
    }
    let Some(upload) = upload else {
        return Ok((Bytes::new(), false));
    };
    if from < upload.taken {
        let detail = format!(
            "the command of job {id} has read up to {}, and what was read is not kept",
            upload.taken
        );
        return Err(Refusal::new(ProblemCode::RangeNotSatisfiable, detail));
    }
    if from > upload.taken {
        let taken = upload::take(&app.store, &app.blobs, &upload, from).await;
        taken.map_err(refused)?;
        // Whoever sends may send more.
        app.store.events().job_changed(id);
    }
    let bytes = match from < upload.stored {
        true => upload::read(&app.store, &app.blobs, upload.id, from).await,
        false => Ok(Bytes::new()),
    };
    let bytes = bytes.map_err(refused)?;
    let end = upload.complete && from + bytes.len() as u64 == upload.stored;
    Ok((bytes, end))
}
