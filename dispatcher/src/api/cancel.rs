//! `POST /v1/jobs/{id}/cancel`: a job that has not started is over at once; a command that runs is told
//! to stop, and the job is over when its end is reported.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::api::JOB_CANCEL;
use invoke_protocol::job::{CancelRequest, Job, MAX_GRACE_SECONDS};
use invoke_protocol::problem::Problem;
use invoke_protocol::state::Event;

use super::path::{JobPath, json};
use super::view::view;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::transition::Change;

/// Cancels a job.
///
/// A command that runs gets SIGTERM, and SIGKILL when its grace is over. Asked again with a shorter
/// grace, the shorter one counts.
#[utoipa::path(
    post, path = JOB_CANCEL, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job")),
    request_body = Option<CancelRequest>,
    responses(
        (status = 202, description = "Cancelled, or to be stopped", body = Job),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    person: Person,
    JobPath(id): JobPath,
    body: Bytes,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let grace_seconds = grace(&body)?;
    let now = clock::now();
    let change = Change {
        job: id,
        scope: None,
        by: &person.principal.name,
        now,
    };
    let outcome = person
        .app
        .store
        .change(change, |_| Event::Cancel {
            by: person.principal.name.clone(),
            grace_seconds,
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

/// What the body says of the grace. No body asks for the cluster's own.
pub(super) fn grace(body: &[u8]) -> Result<Option<u64>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let CancelRequest { grace_seconds } = json::<Option<_>>(body)?.unwrap_or_default();
    match grace_seconds {
        Some(seconds) if seconds > MAX_GRACE_SECONDS => Err(Refusal::invalid(format!(
            "a command gets at most {MAX_GRACE_SECONDS} seconds from SIGTERM to SIGKILL, not {seconds}"
        ))),
        grace => Ok(grace),
    }
}

#[cfg(test)]
mod tests {
    use super::grace;

    #[test]
    fn a_grace_is_the_clusters_own_or_at_most_an_hour() {
        for (body, read) in [
            ("", Some(None)),
            ("{}", Some(None)),
            ("null", Some(None)),
            (r#"{"grace_seconds":0}"#, Some(Some(0))),
            (r#"{"grace_seconds":3600}"#, Some(Some(3600))),
            (r#"{"grace_seconds":3601}"#, None),
            (r#"{"grace_seconds":-1}"#, None),
            ("now", None),
        ] {
            assert_eq!(grace(body.as_bytes()).ok(), read, "{body}");
        }
    }
}
