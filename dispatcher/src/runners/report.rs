//! `POST /v1/runner/jobs/{id}/report`: what a runner saw of a job, besides its output and its end.

use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{REPORT, Report};
use invoke_protocol::state::{
    Event, JobState, MAX_RETRIES, Reason, ReasonCode, Refusal as StateRefusal, Retries,
};

use crate::access::runner::Runner;
use crate::api::path::{JobPath, json};
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};
use crate::store::transition::{Outcome, Verdict};

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
            let event = |_: &StoredJob| Event::PodCreated {
                runner: runner.id.clone(),
            };
            accepted_or_started(change(&runner, id, event).await?)?;
        }
        Report::Rejected { reason } => {
            let reason = shortened(&reason);
            let event = |_: &StoredJob| Event::Reject {
                reason: reason.clone(),
            };
            accepted(change(&runner, id, event).await?)?;
        }
        Report::PodFailed { pod, reason } => {
            let reason = shortened(&reason);
            let event = |job: &StoredJob| Event::PodFailed {
                pod,
                reason: reason.clone(),
                retries: retries(job),
            };
            accepted(change(&runner, id, event).await?)?;
        }
        Report::Postponed => {
            accepted_or_started(change(&runner, id, |_| Event::Postpone).await?)?;
        }
        Report::ContactLost { pod, reason } => {
            check_pod(&runner, id, pod).await?;
            let reason = shortened(&reason);
            let event = |_: &StoredJob| Event::Silence {
                reason: reason.clone(),
            };
            accepted(change(&runner, id, event).await?)?;
        }
        Report::ContactBack { pod } => {
            check_pod(&runner, id, pod).await?;
            let ends = ReasonCode::NodeLost;
            accepted(change(&runner, id, |_| Event::Contact { ends }).await?)?;
        }
        Report::CancelDelivered { pod } => {
            accepted(change(&runner, id, |_| Event::CancelDelivered { pod }).await?)?;
        }
        Report::StartRefused { pod, reason } => {
            let reason = shortened(&reason);
            let event = |_: &StoredJob| Event::StartRefused {
                pod,
                reason: reason.clone(),
            };
            accepted(change(&runner, id, event).await?)?;
        }
        Report::Recovered { pod, started } => {
            accepted(change(&runner, id, |_| Event::Recover { pod, started }).await?)?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn change(
    runner: &Runner,
    id: JobId,
    event: impl Fn(&StoredJob) -> Event + Send,
) -> Result<Outcome, Refusal> {
    let by = runner.name();
    let outcome = runner
        .app
        .store
        .change(runner.change(id, &by, clock::now()), event)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    if outcome.verdict == Ok(Verdict::Changed) && outcome.job.state == JobState::Queued {
        // It is in the outbox again. Stored, then told.
        runner.app.broker.wake();
    }
    Ok(outcome)
}

/// As [`accepted`]; but of course there is a pod, and nothing is held any more, once the command was
/// started: such a report comes late, or again.
fn accepted_or_started(outcome: Outcome) -> Result<(), Refusal> {
    if outcome.verdict == Err(StateRefusal::AlreadyStarted) {
        return Ok(());
    }
    accepted(outcome)
}

/// The words come from outside: cut to what is kept of them.
fn shortened(reason: &Reason) -> Reason {
    Reason::new(reason.code, &reason.message)
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

/// Silence is of the pod that runs the command: another one may be unheard of as long as it likes.
async fn check_pod(runner: &Runner, id: JobId, pod: PodUid) -> Result<(), Refusal> {
    match find(runner, id).await?.pod {
        Some(permitted) if permitted != pod => Err(Refusal::other_pod(id)),
        _ => Ok(()),
    }
}

async fn record_waiting(runner: &Runner, id: JobId, reason: &Reason) -> Result<(), Refusal> {
    let job = find(runner, id).await?;
    if job.state.is_terminal() {
        return Err(Refusal::job_over(&job));
    }
    // Runners repeat themselves; a job has not changed because of that.
    if job.reported_waiting.as_ref() != Some(reason) {
        let by = runner.name();
        runner
            .app
            .store
            .record_waiting(id, &by, reason, clock::now())
            .await?;
    }
    Ok(())
}

async fn find(runner: &Runner, id: JobId) -> Result<StoredJob, Refusal> {
    let mut session = runner.app.store.read().await?;
    jobs::find(&mut session, id)
        .await?
        .filter(|job| job.cluster == runner.cluster.id)
        .ok_or_else(|| Refusal::no_job(id))
}

/// What was tried before: all that may be, where a test has turned the trying off.
fn retries(job: &StoredJob) -> Retries {
    let mut retries = job.retries;
    if invoke_hooks::sabotaged("no-retry") {
        retries.count = MAX_RETRIES;
    }
    retries
}
