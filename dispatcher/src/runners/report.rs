//! `POST /v1/runner/jobs/{id}/report`: what a runner saw of a job, besides its output and its end.

use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::id::JobId;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{REPORT, Report};
use invoke_protocol::state::{Event, Reason, ReasonCode, Refusal as StateRefusal, Retries};

use crate::access::runner::Runner;
use crate::api::path::{JobPath, json};
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};
use crate::store::transition::Outcome;

/// Takes a report. It may be repeated.
#[utoipa::path(
    post, path = REPORT, tag = "runner", security(("runner_token" = [])), request_body = Report,
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 204, description = "Taken down, or known already"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn report(
    runner: Runner,
    JobPath(id): JobPath,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    match json(&body)? {
        Report::Waiting { reason } => record_waiting(&runner, id, &shortened(&reason)).await?,
        Report::PodCreated => {
            let outcome = change(
                &runner,
                id,
                Event::PodCreated {
                    runner: runner.id.clone(),
                },
            )
            .await?;
            // Of course there is a pod: this comes late, or again.
            if outcome.verdict != Err(StateRefusal::AlreadyStarted) {
                accepted(outcome)?;
            }
        }
        Report::Rejected { reason } => {
            accepted(
                change(
                    &runner,
                    id,
                    Event::Reject {
                        reason: shortened(&reason),
                    },
                )
                .await?,
            )?;
        }
        Report::PodFailed { pod, reason } => {
            accepted(
                change(
                    &runner,
                    id,
                    Event::PodFailed {
                        pod,
                        reason: shortened(&reason),
                        retries: Retries::default(),
                    },
                )
                .await?,
            )?;
        }
        Report::Postponed => {
            let outcome = change(&runner, id, Event::Postpone).await?;
            if outcome.verdict != Err(StateRefusal::AlreadyStarted) {
                accepted(outcome)?;
            }
        }
        Report::ContactLost { pod: _, reason } => {
            let reason = shortened(&reason);
            accepted(change(&runner, id, Event::Silence { reason }).await?)?;
        }
        Report::ContactBack { pod: _ } => {
            let ends = ReasonCode::NodeLost;
            accepted(change(&runner, id, Event::Contact { ends }).await?)?;
        }
        Report::CancelDelivered { pod } => {
            accepted(change(&runner, id, Event::CancelDelivered { pod }).await?)?;
        }
        Report::Recovered { pod, started } => {
            accepted(change(&runner, id, Event::Recover { pod, started }).await?)?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The words come from outside: cut to what is kept of them.
fn shortened(reason: &Reason) -> Reason {
    Reason::new(reason.code, &reason.message)
}

async fn change(runner: &Runner, job: JobId, event: Event) -> Result<Outcome, Refusal> {
    let by = runner.name();
    let outcome = runner
        .app
        .store
        .change(runner.change(job, &by, clock::now()), |_| event.clone())
        .await?;
    outcome.ok_or_else(|| Refusal::no_job(job))
}

fn accepted(Outcome { job, verdict }: Outcome) -> Result<(), Refusal> {
    match verdict {
        Ok(_) => Ok(()),
        Err(StateRefusal::NotStarted) => Err(Refusal::not_started(job.id)),
        Err(StateRefusal::OtherPod) => Err(Refusal::other_pod(job.id)),
        Err(StateRefusal::AlreadyStarted | StateRefusal::TooLate) => {
            let detail = format!(
                "the command of job {} was started already, so it cannot be refused now",
                job.id
            );
            Err(Refusal::new(ProblemCode::OtherPod, detail))
        }
        Err(StateRefusal::Over | StateRefusal::Contradiction) => Err(Refusal::job_over(&job)),
    }
}

async fn record_waiting(runner: &Runner, id: JobId, reason: &Reason) -> Result<(), Refusal> {
    let mut session = runner.app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .filter(|job| job.cluster == runner.cluster.id);
    drop(session);
    let job: StoredJob = job.ok_or_else(|| Refusal::no_job(id))?;
    if job.state.is_terminal() {
        return Err(Refusal::job_over(&job));
    }
    // Runners repeat themselves; a job has not changed because of that.
    if job.reported_waiting.as_ref() != Some(reason) {
        runner
            .app
            .store
            .record_waiting(id, reason, clock::now())
            .await?;
    }
    Ok(())
}
