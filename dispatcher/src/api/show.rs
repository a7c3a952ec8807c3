//! `GET /v1/jobs/{id}`: a job as it is, or as soon as there is news of it.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use invoke_protocol::api::{JOB, JobQuery};
use invoke_protocol::job::{Job, Step, StepName};
use invoke_protocol::problem::Problem;
use tokio::time::Instant;

use super::path::JobPath;
use super::view::view_with_place;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};
use crate::store::{Session, story};

/// The longest wait for news, in seconds.
pub(super) const MAX_WAIT_SECONDS: u64 = 60;

/// Shows a job.
///
/// With `wait_seconds`, answers when there is news, or when these are over.
#[utoipa::path(
    get, path = JOB, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job"), JobQuery),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    person: Person,
    JobPath(id): JobPath,
    Query(query): Query<JobQuery>,
) -> Result<Json<Job>, Refusal> {
    let app = &person.app;
    let until =
        Instant::now() + Duration::from_secs(query.wait_seconds.unwrap_or(0).min(MAX_WAIT_SECONDS));
    // Subscribe before read: see `crate::events`.
    let mut subscription = app.store.events().of_job(id);
    loop {
        let mut session = app.store.read().await?;
        let job = jobs::find(&mut session, id)
            .await?
            .ok_or_else(|| Refusal::no_job(id))?;
        if is_news(&job, &query) || Instant::now() >= until || app.stopping.is_cancelled() {
            let story = story_of(&mut session, &job).await?;
            let shown = view_with_place(app, &mut session, &job, clock::now()).await?;
            return Ok(Json(Job { story, ..shown }));
        }
        drop(session);
        tokio::select! {
            () = subscription.news_or_poll() => {}
            () = tokio::time::sleep_until(until) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

/// What happened to it, from its submission on.
async fn story_of(session: &mut Session, job: &StoredJob) -> Result<Vec<Step>, Refusal> {
    let submitted = Step {
        at: job.submitted_at,
        by: job.submitted_by.clone(),
        step: StepName::Submitted,
        message: String::new(),
    };
    let mut steps = vec![submitted];
    steps.extend(story::of_job(session, job.id).await?);
    Ok(steps)
}

fn is_news(job: &StoredJob, query: &JobQuery) -> bool {
    job.state.is_terminal()
        || query.version.is_some_and(|seen| job.version > seen)
        || query.log_bytes.is_some_and(|seen| job.log_bytes > seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jobs::tests::queued_job;

    #[test]
    fn news_is_what_the_caller_has_not_seen() {
        let job = StoredJob {
            version: 3,
            log_bytes: 10,
            ..queued_job()
        };
        let query = |version, log_bytes| JobQuery {
            wait_seconds: Some(60),
            version,
            log_bytes,
        };
        assert!(is_news(&job, &query(Some(2), None)));
        assert!(is_news(&job, &query(Some(3), Some(9))));
        assert!(!is_news(&job, &query(Some(3), Some(10))));
        assert!(
            !is_news(&job, &query(None, None)),
            "with nothing to compare, only the end is news"
        );
    }
}
