//! `PUT /v1/jobs/{id}/stdin`: the next bytes that a command is to read. Acknowledged when they are durable.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use invoke_protocol::api::{JOB_STDIN, StdinAck, StdinQuery};
use invoke_protocol::problem::{Problem, ProblemCode};

use super::path::JobPath;
use crate::access::Person;
use crate::app::App;
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};
use crate::store::uploads::{self, Key};
use crate::upload::{self, Chunk};

/// How much is stored at most that the command has not been given yet: a pipe that is filled faster than it is
/// emptied makes its writer wait.
const MAX_UNREAD_BYTES: u64 = 64 * 1024 * 1024;

/// When it is worth trying again then, in seconds.
const UNREAD_RETRY_SECONDS: u64 = 1;

/// Sends a command what it is to read.
///
/// What is stored already is skipped, so a piece may be sent again; what would leave a gap is refused. Only
/// who submitted the job may: what a command reads may be what it does.
#[utoipa::path(
    put, path = JOB_STDIN, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job"), StdinQuery),
    request_body(content = [u8], description = "A piece, at most 1 MiB", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "How much is stored, durably", body = StdinAck),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not stored, and may be sent again: the command has much left to read, or not now (503), or no room (507)", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stdin(
    person: Person,
    JobPath(id): JobPath,
    Query(query): Query<StdinQuery>,
    bytes: Bytes,
) -> Result<Json<StdinAck>, Refusal> {
    let app = &person.app;
    let mut session = app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    drop(session);
    check(&person, &job)?;
    let end = query.from.saturating_add(bytes.len() as u64);
    check_unread(app, &job, end).await?;
    let chunk = Chunk {
        from: query.from,
        bytes,
        total: query.end.then_some(end),
    };
    let key = Key::Stdin(id);
    let upload = upload::append(&app.store, &app.blobs, &key, &chunk, clock::now()).await;
    let upload = upload.map_err(|error| Refusal::of_upload("what the command reads", error))?;
    app.store.events().job_changed(id);
    Ok(Json(StdinAck {
        bytes: upload.stored,
        ended: upload.complete,
    }))
}

fn check(person: &Person, job: &StoredJob) -> Result<(), Refusal> {
    if job.submitted_by != person.principal.name {
        let detail = format!(
            "job {} was submitted by {}, and only they may send it what it reads",
            job.id, job.submitted_by
        );
        Err(Refusal::new(ProblemCode::Forbidden, detail))
    } else if !job.stdin {
        Err(Refusal::no_stdin(job.id))
    } else if job.state.is_terminal() {
        Err(Refusal::job_over(job))
    } else {
        Ok(())
    }
}

/// Puts off who sends more. Who only says again what is stored is answered, and so is who has no more.
async fn check_unread(app: &App, job: &StoredJob, end: u64) -> Result<(), Refusal> {
    let mut session = app.store.read().await?;
    let upload = uploads::find(&mut session, &Key::Stdin(job.id)).await?;
    let unread = upload.map_or(0, |upload| upload.stored.saturating_sub(upload.taken));
    let is_more = upload.is_some_and(|upload| end > upload.stored);
    if unread < MAX_UNREAD_BYTES || !is_more {
        return Ok(());
    }
    let detail = format!(
        "the command of job {} has {unread} bytes left to read: send the same again in a moment",
        job.id
    );
    Err(Refusal::new(ProblemCode::Unavailable, detail).retry_after(UNREAD_RETRY_SECONDS))
}
