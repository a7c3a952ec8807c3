//! `POST /v1/jobs`: a job is accepted, or refused with a sentence. After 202 it is durable.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::api::{IDEMPOTENCY_KEY, JOB, JOBS};
use invoke_protocol::command::{Command, Unchecked};
use invoke_protocol::id::JobId;
use invoke_protocol::job::{DEFAULT_START_WITHIN_SECONDS, Job, JobSpec, MAX_START_WITHIN_SECONDS};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::path;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::cluster_choice;
use super::path::json;
use super::view::view;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::signing::sha256;
use crate::store::clusters::StoredCluster;
use crate::store::jobs::{self, NewJob, StoredJob};

/// Submits a job.
///
/// The same key with the same body is the same job, however often it is sent.
#[utoipa::path(
    post, path = JOBS, tag = "jobs", security(("api_token" = [])),
    params(("idempotency-key" = Uuid, Header, description = "The submitter's own key for this job")),
    request_body = JobSpec,
    responses(
        (status = 202, description = "Accepted, durably", body = Job, headers(("location" = String, description = "The job"))),
        (status = 200, description = "This key made this job before", body = Job),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn submit(
    person: Person,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let spec = read(&body)?;
    let request_sha256 = sha256(&serde_json::to_vec(&spec).map_err(crate::store::Error::Encode)?);
    let now = clock::now();
    // Before anything of the cluster is looked at: a repeated submission is answered as the first was.
    if let Some(job) = made_before(&person, key, &request_sha256).await? {
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    let job = plan(&person, spec, key, request_sha256, now).await?;
    if !person.app.store.accept(&job, now).await? {
        // The same submission, at the same moment, was faster.
        let job = made_before(&person, key, &job.request_sha256)
            .await?
            .ok_or_else(|| Refusal::no_job(job.id))?;
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    // Stored, then told: a relay that is woken before the commit finds nothing and sleeps again.
    person.app.broker.wake();
    let id = job.id;
    tracing::info!(job.id = %id, "job {id} was submitted by {}", person.name);
    let mut session = person.app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    Ok((
        StatusCode::ACCEPTED,
        [(LOCATION, path(JOB, id))],
        Json(view(&person.app, &job, now)),
    )
        .into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Uuid, Refusal> {
    let wanted = || {
        Refusal::invalid(format!(
            "the header {IDEMPOTENCY_KEY} is missing or no UUID: make one for each job and send it again with each retry"
        ))
    };
    let text = headers
        .get(IDEMPOTENCY_KEY)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(wanted)?;
    text.trim().trim_matches('"').parse().map_err(|_| wanted())
}

/// The body. A command that cannot be run is told from a body that cannot be read, in the words of
/// the protocol's own check.
fn read(body: &[u8]) -> Result<JobSpec, Refusal> {
    #[derive(Deserialize)]
    struct Only {
        command: Unchecked,
    }
    json::<JobSpec>(body).map_err(|unreadable| match serde_json::from_slice::<Only>(body) {
        Ok(Only { command }) => match Command::try_from(command) {
            Ok(_) => unreadable,
            Err(invalid) => Refusal::new(ProblemCode::InvalidCommand, invalid.to_string()),
        },
        Err(_) => unreadable,
    })
}

async fn made_before(
    person: &Person,
    key: Uuid,
    request_sha256: &[u8],
) -> Result<Option<StoredJob>, Refusal> {
    let mut session = person.app.store.read().await?;
    match jobs::by_idempotency_key(&mut session, &person.name, key).await? {
        Some(job) if job.request_sha256 != request_sha256 => Err(Refusal::new(
            ProblemCode::IdempotencyKeyReused,
            format!(
                "the key {key} made job {}, which asks for something else: use a new key for a new job",
                job.id
            ),
        )),
        made => Ok(made),
    }
}

async fn plan(
    person: &Person,
    spec: JobSpec,
    idempotency_key: Uuid,
    request_sha256: Vec<u8>,
    now: Timestamp,
) -> Result<NewJob, Refusal> {
    let mut session = person.app.store.read().await?;
    let cluster = cluster_choice::choose(&mut session, spec.cluster.as_ref()).await?;
    check_profile(&spec, &cluster)?;
    Ok(NewJob {
        id: new_id(now),
        cluster: cluster.id,
        start_deadline: start_deadline(&spec, now)?,
        profile: spec.profile,
        command: spec.command,
        submitted_by: person.name.clone(),
        run_timeout_seconds: spec.run_timeout_seconds,
        idempotency_key,
        request_sha256,
    })
}

/// UUIDv7 of the program's own clock, so that ids sort as jobs were submitted.
fn new_id(now: Timestamp) -> JobId {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    JobId::from_uuid(Uuid::new_v7(uuid::Timestamp::from_unix(
        uuid::NoContext,
        seconds,
        nanoseconds,
    )))
}

fn start_deadline(spec: &JobSpec, now: Timestamp) -> Result<Timestamp, Refusal> {
    let seconds = spec
        .start_within_seconds
        .unwrap_or(DEFAULT_START_WITHIN_SECONDS);
    let out_of_range = || {
        let detail = format!(
            "a job may wait for its start for 1 to {MAX_START_WITHIN_SECONDS} seconds (7 days), not {seconds}"
        );
        Refusal::new(ProblemCode::InvalidDeadline, detail)
    };
    if !(1..=MAX_START_WITHIN_SECONDS).contains(&seconds) {
        return Err(out_of_range());
    }
    now.checked_add(Duration::from_secs(seconds))
        .map_err(|_| out_of_range())
}

/// Against what the cluster's runner said that it offers; nothing is refused that is not known.
fn check_profile(spec: &JobSpec, cluster: &StoredCluster) -> Result<(), Refusal> {
    let deadline = |detail| Err(Refusal::new(ProblemCode::InvalidDeadline, detail));
    if spec.run_timeout_seconds == Some(0) {
        return deadline("a command must be allowed to run for at least 1 second".to_owned());
    }
    if cluster.last_contact.is_none() {
        return Ok(());
    }
    let name = &spec.profile;
    let Some(profile) = cluster
        .profiles
        .iter()
        .find(|offered| offered.name == *name)
    else {
        let offered: Vec<_> = cluster
            .profiles
            .iter()
            .map(|offered| offered.name.as_str())
            .collect();
        let detail = format!(
            "cluster {} has no profile {name}; it offers: {}",
            cluster.name,
            offered.join(", ")
        );
        return Err(Refusal::new(ProblemCode::UnknownProfile, detail));
    };
    let (maximum, cluster) = (profile.max_run_seconds, &cluster.name);
    match spec.run_timeout_seconds {
        Some(asked) if asked > maximum => deadline(format!(
            "profile {name} of cluster {cluster} lets a command run for at most {maximum} seconds, not {asked}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn spec(json: &str) -> JobSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_job_waits_a_second_to_a_week() {
        let after = |seconds: u64| {
            let spec = spec(&format!(
                r#"{{"command":{{"shell":"date"}},"start_within_seconds":{seconds}}}"#
            ));
            start_deadline(&spec, now())
                .ok()
                .map(|deadline| deadline.duration_since(now()).as_secs())
        };
        assert_eq!(after(0), None);
        assert_eq!(after(1), Some(1));
        assert_eq!(after(604_800), Some(604_800));
        assert_eq!(after(604_801), None);
        assert_eq!(after(u64::MAX), None);
        let silent = spec(r#"{"command":{"shell":"date"}}"#);
        assert_eq!(
            start_deadline(&silent, now())
                .unwrap()
                .duration_since(now())
                .as_mins(),
            15
        );
    }

    #[test]
    fn ids_sort_by_time() {
        let (earlier, later) = (
            new_id(now()),
            new_id(now() + jiff::SignedDuration::from_millis(1)),
        );
        assert!(earlier < later);
    }
}
