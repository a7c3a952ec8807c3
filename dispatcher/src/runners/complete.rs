//! `POST /v1/runner/jobs/{id}/complete`: how the command ended, by its shim's word. On record once.

use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::artifacts::ArtifactsIncomplete;
use invoke_protocol::id::JobId;
use invoke_protocol::output::{ExitRecord, StreamSummary};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{COMPLETE, CompleteRequest};
use invoke_protocol::state::{Event, Refusal as StateRefusal};

use crate::access::runner::Runner;
use crate::api::path::{JobPath, json};
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::StoredJob;
use crate::store::uploads::{self, Key};

/// Takes the end of a command. The same record again is fine; another one is refused, and an alarm.
#[utoipa::path(
    post, path = COMPLETE, tag = "runner", security(("runner_token" = [])), request_body = CompleteRequest,
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 204, description = "On record"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn complete(
    runner: Runner,
    JobPath(id): JobPath,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let CompleteRequest { pod, exit } = json(&body)?;
    check(&exit)?;
    let (by, now) = (runner.name(), clock::now());
    let artifacts = stored_artifacts(&runner, id).await?;
    let event = |job: &StoredJob| Event::Exit {
        pod,
        exit: as_stored(&exit, artifacts, job.state.exit_record()),
        stored: job.log_bytes,
    };
    let outcome = runner
        .app
        .store
        .change(runner.change(id, &by, now), event)
        .await?;
    let outcome = outcome.ok_or_else(|| Refusal::no_job(id))?;
    invoke_hooks::point("dispatcher.complete.after-commit");
    match outcome.verdict {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(StateRefusal::Contradiction) => Err(contradiction(&outcome.job)),
        Err(StateRefusal::OtherPod) => Err(Refusal::other_pod(id)),
        Err(StateRefusal::NotStarted) => Err(Refusal::not_started(id)),
        Err(_over) => Err(Refusal::job_over(&outcome.job)),
    }
}

/// How much of a job's artifacts is stored. Once it runs that only grows, so a moment later it is no less.
async fn stored_artifacts(runner: &Runner, id: JobId) -> Result<u64, Refusal> {
    let mut session = runner.app.store.read().await?;
    let upload = uploads::find(&mut session, &Key::Artifacts(id)).await?;
    Ok(upload.map_or(0, |upload| upload.stored))
}

/// The record as it is kept: it promises no artifacts that are not stored. What was taken down so once is so
/// whenever the same record comes again.
fn as_stored(exit: &ExitRecord, stored: u64, on_record: Option<&ExitRecord>) -> ExitRecord {
    let mut kept = exit.clone();
    if let Some(artifacts) = &mut kept.artifacts {
        let missing = Some(ArtifactsIncomplete::NotUploaded);
        let were_missing = on_record
            .and_then(|record| record.artifacts.as_ref())
            .is_some_and(|before| before.incomplete == missing);
        if artifacts.stream_bytes() > stored || were_missing {
            artifacts.incomplete = missing;
        }
    }
    kept
}

fn check(exit: &ExitRecord) -> Result<(), Refusal> {
    let is_digest = |stream: &StreamSummary| {
        stream.sha256.len() == 64
            && stream
                .sha256
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    if is_digest(&exit.stdout) && is_digest(&exit.stderr) {
        Ok(())
    } else {
        Err(Refusal::invalid(
            "a SHA-256 is written as 64 lower-case hexadecimal digits",
        ))
    }
}

/// Somebody reports what is not true: two shims, or one that lies. The first word stands, and the store
/// has raised the alarm.
fn contradiction(job: &StoredJob) -> Refusal {
    let detail = format!(
        "another end of job {} is on record: it is {}",
        job.id,
        job.state.name()
    );
    Refusal::new(ProblemCode::Contradiction, detail)
}
