//! `POST /v1/runner/jobs/{id}/complete`: how the command ended, by its shim's word. On record once.

use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::output::{ExitRecord, StreamSummary};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{COMPLETE, CompleteRequest};
use invoke_protocol::state::{Event, Refusal as StateRefusal};

use crate::access::runner::Runner;
use crate::api::path::{JobPath, json};
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::StoredJob;

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
    let event = |job: &StoredJob| Event::Exit {
        pod,
        exit: exit.clone(),
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
