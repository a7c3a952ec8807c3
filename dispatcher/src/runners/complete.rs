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

/// The record as it is kept: it promises no artifacts that are not stored. When the same record comes again,
/// what counts is what was found the first time: since then they may have expired, or come in late.
fn as_stored(exit: &ExitRecord, stored: u64, on_record: Option<&ExitRecord>) -> ExitRecord {
    let mut kept = exit.clone();
    if let Some(artifacts) = &mut kept.artifacts {
        let missing = Some(ArtifactsIncomplete::NotUploaded);
        let is_missing = match on_record {
            None => artifacts.stream_bytes() > stored,
            Some(record) => {
                let before = record.artifacts.as_ref();
                before.is_some_and(|artifacts| artifacts.incomplete == missing)
            }
        };
        if is_missing {
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

#[cfg(test)]
mod tests {
    use invoke_protocol::artifacts::ArtifactsSummary;
    use invoke_protocol::digest::Sha256;
    use invoke_protocol::output::{Discarded, EndCause, ExitStatus, ResourceUsage};
    use jiff::Timestamp;

    use super::*;

    /// The record of a command that left a stream of 10 bytes.
    fn exit(incomplete: Option<ArtifactsIncomplete>) -> ExitRecord {
        let nothing = StreamSummary {
            bytes: 0,
            sha256: "0".repeat(64),
        };
        ExitRecord {
            status: ExitStatus::Exited(0),
            cause: EndCause::Itself,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            log_bytes: 0,
            stdout: nothing.clone(),
            stderr: nothing,
            usage: ResourceUsage::default(),
            out_of_memory: false,
            incomplete: None,
            discarded: Discarded::default(),
            artifacts: Some(ArtifactsSummary {
                files: 1,
                content_bytes: 4,
                manifest_bytes: 6,
                manifest_sha256: Sha256::from_bytes([0; 32]),
                skipped: 0,
                incomplete,
            }),
        }
    }

    #[test]
    fn what_is_not_stored_is_not_promised() {
        let (missing, large) = (
            Some(ArtifactsIncomplete::NotUploaded),
            Some(ArtifactsIncomplete::TooLarge),
        );
        for (said, stored, kept) in [
            (None, 10, None),
            (None, 9, missing),
            (large, 10, large),
            (large, 0, missing),
        ] {
            assert_eq!(as_stored(&exit(said), stored, None), exit(kept), "{stored}");
        }
    }

    /// The same record is the same, whatever has become of the artifacts; and another one is another.
    #[test]
    fn a_record_that_comes_again_is_what_it_was() {
        let missing = Some(ArtifactsIncomplete::NotUploaded);
        for (said, stored, on_record) in
            [(None, 10, missing), (None, 0, None), (missing, 0, missing)]
        {
            let on_record = exit(on_record);
            assert_eq!(as_stored(&exit(said), stored, Some(&on_record)), on_record);
        }
        let large = exit(Some(ArtifactsIncomplete::TooLarge));
        assert_ne!(as_stored(&large, 10, Some(&exit(None))), exit(None));
    }
}
