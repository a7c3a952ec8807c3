//! `GET /v1/jobs/{id}/stdout` and `…/stderr`: one stream alone, as the command wrote it.

use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use invoke_protocol::api::{JOB_STDERR, JOB_STDOUT};
use invoke_protocol::id::JobId;
use invoke_protocol::output::Stream;
use invoke_protocol::problem::Problem;

use super::path::JobPath;
use super::range::Asked;
use crate::access::Person;
use crate::app::App;
use crate::output;
use crate::problem::Refusal;
use crate::store::{job_output, jobs};

/// Reads stdout, or a range of it: what is stored of it so far.
#[utoipa::path(
    get, path = JOB_STDOUT, tag = "jobs", security(("api_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("range" = Option<String>, Header, description = "One range of bytes (RFC 9110)"),
    ),
    responses(
        (status = 200, description = "All that is stored", content_type = "application/octet-stream", body = [u8]),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = [u8]),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stdout(
    person: Person,
    JobPath(id): JobPath,
    asked: Asked,
) -> Result<Response, Refusal> {
    answer(person.app, id, Stream::Stdout, asked).await
}

/// Reads stderr, or a range of it: what is stored of it so far.
#[utoipa::path(
    get, path = JOB_STDERR, tag = "jobs", security(("api_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("range" = Option<String>, Header, description = "One range of bytes (RFC 9110)"),
    ),
    responses(
        (status = 200, description = "All that is stored", content_type = "application/octet-stream", body = [u8]),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = [u8]),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stderr(
    person: Person,
    JobPath(id): JobPath,
    asked: Asked,
) -> Result<Response, Refusal> {
    answer(person.app, id, Stream::Stderr, asked).await
}

async fn answer(
    app: Arc<App>,
    id: JobId,
    stream: Stream,
    asked: Asked,
) -> Result<Response, Refusal> {
    let mut session = app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    if let Some(at) = job.output_expired_at {
        return Err(Refusal::output_expired(id, at));
    }
    let stored = job_output::stream_bytes(&mut session, id).await?;
    drop(session);
    let length = match stream {
        Stream::Stdout => stored.stdout,
        Stream::Stderr => stored.stderr,
    };
    let selected = asked.of(length)?;
    let Range { start, end } = selected.range;
    let body = Body::from_stream(pieces(app, id, stream, start, end));
    Ok(selected.answer(body))
}

/// The bytes of a stream from `from` to `to`, one part in memory at a time.
fn pieces(
    app: Arc<App>,
    id: JobId,
    stream: Stream,
    from: u64,
    to: u64,
) -> impl futures::Stream<Item = Result<Bytes, output::Error>> {
    futures::stream::try_unfold((from, 0), move |(position, after)| {
        let app = Arc::clone(&app);
        async move {
            let left = to - position;
            if left == 0 {
                return Ok(None);
            }
            let piece = output::read_stream(&app.store, &app.blobs, id, stream, position, after);
            Ok(piece.await?.map(|mut piece| {
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                piece.bytes.truncate(left);
                let next = position + piece.bytes.len() as u64;
                (piece.bytes, (next, piece.log_end))
            }))
        }
    })
}
