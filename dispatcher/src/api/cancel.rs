//! `POST /v1/jobs/{id}/cancel`: a job that has not started is over at once; a command that runs is told
//! to stop, and the job is over when its end is reported.

use axum::Json;
use axum::http::StatusCode;
use invoke_protocol::api::JOB_CANCEL;
use invoke_protocol::job::Job;
use invoke_protocol::problem::Problem;
use invoke_protocol::state::Event;

use super::path::JobPath;
use super::view::view;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::transition::Change;

/// Cancels a job.
#[utoipa::path(
    post, path = JOB_CANCEL, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 202, description = "Cancelled, or to be stopped", body = Job),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    person: Person,
    JobPath(id): JobPath,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let now = clock::now();
    let change = Change {
        job: id,
        scope: None,
        by: &person.name,
        now,
    };
    let outcome = person
        .app
        .store
        .change(change, |_| Event::Cancel {
            by: person.name.clone(),
            grace_seconds: None,
        })
        .await?;
    let outcome = outcome.ok_or_else(|| Refusal::no_job(id))?;
    match outcome.verdict {
        Ok(_) => Ok((
            StatusCode::ACCEPTED,
            Json(view(&person.app, &outcome.job, now)),
        )),
        // The one refusal that a cancel meets.
        Err(_over) => Err(Refusal::job_over(&outcome.job)),
    }
}
