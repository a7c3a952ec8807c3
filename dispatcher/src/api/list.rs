//! `GET /v1/jobs`: a page of jobs, the newest first.

use axum::Json;
use axum::extract::Query;
use invoke_protocol::api::{JOBS, JobList, JobsQuery};
use invoke_protocol::problem::Problem;

use super::cluster_choice;
use super::view::view;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::jobs;

/// How many jobs a page has if the caller does not say.
pub(super) const DEFAULT_LIMIT: u32 = 50;
/// How many it has at most.
pub(super) const MAX_LIMIT: u32 = 500;

/// Lists jobs, the newest first.
#[utoipa::path(
    get, path = JOBS, tag = "jobs", security(("api_token" = [])), params(JobsQuery),
    responses(
        (status = 200, description = "A page", body = JobList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    person: Person,
    Query(query): Query<JobsQuery>,
) -> Result<Json<JobList>, Refusal> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Refusal::invalid(format!(
            "limit must be 1 to {MAX_LIMIT}, not {limit}"
        )));
    }
    let mut session = person.app.store.read().await?;
    let cluster = match &query.cluster {
        Some(name) => Some(cluster_choice::choose(&mut session, Some(name)).await?.id),
        None => None,
    };
    // One more than asked for tells whether there is another page.
    let mut stored = jobs::list(&mut session, cluster, query.before, limit + 1).await?;
    let is_last = stored.len() <= limit as usize;
    stored.truncate(limit as usize);
    let now = clock::now();
    let jobs: Vec<_> = stored
        .iter()
        .map(|job| view(&person.app, job, now))
        .collect();
    let next = jobs.last().filter(|_| !is_last).map(|job| job.id);
    Ok(Json(JobList { jobs, next }))
}
