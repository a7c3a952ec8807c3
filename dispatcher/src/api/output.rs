//! `GET /v1/jobs/{id}/output`: a piece of the output log, as it was uploaded.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::api::{JOB_OUTPUT, OUTPUT_END, OUTPUT_START, OutputQuery};
use invoke_protocol::problem::Problem;

use super::path::JobPath;
use crate::access::Person;
use crate::app::App;
use crate::output;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};
use crate::store::{self, Session, job_output};

/// How much is answered at once: what a reader that is cut off has to ask for again.
const MAX_ANSWER_BYTES: u64 = 8 * 1024 * 1024;

/// How many parts are looked at for one answer: small uploads make many.
const MAX_PARTS: u32 = 1024;

/// Reads frames of the output log.
///
/// Ask on from the header `invoke-output-end` until it does not move.
#[utoipa::path(
    get, path = JOB_OUTPUT, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job"), OutputQuery),
    responses(
        (status = 200, description = "Whole frames", content_type = "application/octet-stream", body = [u8],
            headers(
                ("invoke-output-start" = u64, description = "The position of the first byte"),
                ("invoke-output-end" = u64, description = "The position after the last byte"),
            )),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn output(
    person: Person,
    JobPath(id): JobPath,
    Query(query): Query<OutputQuery>,
) -> Result<Response, Refusal> {
    let app = person.app;
    let mut session = app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    let from = beginning(&mut session, &job, query).await?;
    let mut parts = job_output::parts(&mut session, id, from, MAX_PARTS).await?;
    drop(session);
    // What was appended since the job was read is not handed out: the answer would claim a length, and end before it.
    parts.retain(|part| part.to <= job.log_bytes);
    let end = parts
        .iter()
        .map(|part| part.to)
        .take_while(|to| to - from <= MAX_ANSWER_BYTES)
        .last();
    // One part is always answered, however long.
    let end = end
        .or_else(|| parts.first().map(|part| part.to))
        .unwrap_or(from);
    // The first piece before the answer begins: it tells whether `from` is a position.
    let first = output::read(&app.store, &app.blobs, &job, from).await;
    let first = first
        .map_err(|error| Refusal::of_output(id, error))?
        .unwrap_or_default();
    let headers = [
        (CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        // With a length, a reader can tell an answer that was cut off.
        (CONTENT_LENGTH.as_str(), (end - from).to_string()),
        (OUTPUT_START, from.to_string()),
        (OUTPUT_END, end.to_string()),
    ];
    Ok((
        headers,
        Body::from_stream(pieces(app, job, first, from, end)),
    )
        .into_response())
}

/// Where to begin: where the caller says, or with the part that has the first of the last bytes.
async fn beginning(
    session: &mut Session,
    job: &StoredJob,
    query: OutputQuery,
) -> Result<u64, store::Error> {
    let Some(last_bytes) = query.last_bytes else {
        return Ok(query.from);
    };
    let position = job.log_bytes.saturating_sub(last_bytes);
    let parts = job_output::parts(session, job.id, position, 1).await?;
    Ok(parts.first().map_or(job.log_bytes, |part| part.from))
}

/// The pieces from `from` to `end`, one in memory at a time.
fn pieces(
    app: Arc<App>,
    job: StoredJob,
    first: Bytes,
    from: u64,
    end: u64,
) -> impl futures::Stream<Item = Result<Bytes, output::Error>> {
    futures::stream::try_unfold((from, Some(first)), move |(position, first)| {
        let (app, job) = (Arc::clone(&app), job.clone());
        async move {
            if position >= end {
                return Ok(None);
            }
            let piece = match first {
                Some(first) => Some(first),
                None => output::read(&app.store, &app.blobs, &job, position).await?,
            };
            Ok(piece.map(|piece| {
                let next = position + piece.len() as u64;
                (piece, (next, None))
            }))
        }
    })
}
