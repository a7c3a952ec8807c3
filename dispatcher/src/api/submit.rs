//! `POST /v1/jobs`: a job is accepted, or refused with a sentence. After 202 it is durable.

use axum::Json;
use axum::body::Bytes;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::api::{IDEMPOTENCY_KEY, JOB, JOBS};
use invoke_protocol::command::{Command, Unchecked};
use invoke_protocol::id::JobId;
use invoke_protocol::job::{IfOffline, Job, JobSpec};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::path;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use super::path::json;
use super::view::view;
use super::{cluster_choice, limits};
use crate::access::Person;
use crate::app::App;
use crate::broker::Health;
use crate::problem::Refusal;
use crate::signing::sha256;
use crate::store::clusters::StoredCluster;
use crate::store::jobs::{self, NewJob, StoredJob};
use crate::store::{Session, backlog};
use crate::{clock, waiting};

/// For how long the oldest job of a cluster may wait in the outbox before no more are taken.
const MAX_UNSENT_AGE: SignedDuration = SignedDuration::from_mins(10);

/// When it is worth trying again then, in seconds: RabbitMQ has been away for longer than a restart takes.
const UNSENT_RETRY_SECONDS: u64 = 30;

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
        (status = "5XX", description = "Not now: the same request with the same key may be sent again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn submit(
    person: Person,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let spec = read(&body)?;
    let _turn = person.app.turns.take().await?;
    let request_sha256 = sha256(&serde_json::to_vec(&spec).map_err(crate::store::Error::Encode)?);
    let now = clock::now();
    let mut session = person.app.store.read().await?;
    // Before anything of the cluster is looked at: a repeated submission is answered as the first was.
    if let Some(job) = made_before(&mut session, &person, key, &request_sha256).await? {
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    let (job, cluster) = plan(&mut session, &person, spec, key, request_sha256, now).await?;
    // Others can read while this waits to write.
    drop(session);
    if !person.app.store.accept(&job, now).await? {
        // The same submission, at the same moment, was faster.
        let mut session = person.app.store.read().await?;
        let job = made_before(&mut session, &person, key, &job.request_sha256)
            .await?
            .ok_or_else(|| Refusal::no_job(job.id))?;
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    // Stored, then told: a relay that is woken before the commit finds nothing and sleeps again.
    person.app.broker.wake();
    let id = job.id;
    tracing::info!(job.id = %id, "job {id} was submitted by {}", person.name);
    // Not read again, and without its place in the queue, which whoever looks at the job is told: the
    // longer a queue, the longer it takes to count.
    let shown = view(&person.app, &StoredJob::accepted(job, cluster, now), now);
    let location = [(LOCATION, path(JOB, id))];
    Ok((StatusCode::ACCEPTED, location, Json(shown)).into_response())
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
    session: &mut Session,
    person: &Person,
    key: Uuid,
    request_sha256: &[u8],
) -> Result<Option<StoredJob>, Refusal> {
    match jobs::by_idempotency_key(session, &person.name, key).await? {
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
    session: &mut Session,
    person: &Person,
    spec: JobSpec,
    idempotency_key: Uuid,
    request_sha256: Vec<u8>,
    now: Timestamp,
) -> Result<(NewJob, StoredCluster), Refusal> {
    let cluster = cluster_choice::choose(session, spec.cluster.as_ref()).await?;
    let start_deadline = limits::check(&spec, &cluster, now)?;
    check_contact(&spec, &cluster, now)?;
    check_outbox(&person.app, session, &cluster, now).await?;
    let job = NewJob {
        id: new_id(now),
        cluster: cluster.id,
        start_deadline,
        profile: spec.profile,
        command: spec.command,
        submitted_by: person.name.clone(),
        run_timeout_seconds: spec.run_timeout_seconds,
        idempotency_key,
        request_sha256,
    };
    Ok((job, cluster))
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

/// A job that shall not wait for a cluster that is away is refused before there is one.
fn check_contact(spec: &JobSpec, cluster: &StoredCluster, now: Timestamp) -> Result<(), Refusal> {
    if spec.if_offline == IfOffline::Wait || invoke_hooks::sabotaged("no-if-offline") {
        return Ok(());
    }
    match waiting::absence(&cluster.name, cluster.last_contact, now) {
        None => Ok(()),
        Some(absence) => Err(Refusal::new(
            ProblemCode::ClusterOffline,
            format!(
                "{}, and the job was not to wait for it: see to its runner, or submit the job with if_offline \"wait\"",
                absence.message
            ),
        )),
    }
}

/// Jobs wait in the store while RabbitMQ is away or full, but not without end: what is not sent for so
/// long, nobody sees to, and whoever submits more should know.
async fn check_outbox(
    app: &App,
    session: &mut Session,
    cluster: &StoredCluster,
    now: Timestamp,
) -> Result<(), Refusal> {
    let problem = match app.broker.health() {
        Health::Connected => return Ok(()),
        Health::Blocked { why } => format!("RabbitMQ takes no messages ({why})"),
        Health::Disconnected { why } => {
            format!("the dispatcher has no connection to RabbitMQ ({why})")
        }
    };
    let limit = now.saturating_sub(MAX_UNSENT_AGE).unwrap_or(Timestamp::MIN);
    if !backlog::unsent_since(session, cluster.id, limit).await? {
        return Ok(());
    }
    let detail = format!(
        "{problem}, and jobs for cluster {} have waited to be sent for more than {} minutes: these stay, and no more \
         are taken until RabbitMQ is back",
        cluster.name,
        MAX_UNSENT_AGE.as_mins()
    );
    Err(Refusal::new(ProblemCode::Unavailable, detail).retry_after(UNSENT_RETRY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
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
