//! `POST /v1/jobs`: a job is accepted, or refused with a sentence. After 202 it is durable.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::api::{IDEMPOTENCY_KEY, JOB, JOBS};
use invoke_protocol::command::{Command, Unchecked};
use invoke_protocol::environment::Environment;
use invoke_protocol::job::{Job, JobSpec};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::path;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::view::view;
use super::{cluster_choice, limits, secret_body};
use crate::access::{Person, Principal};
use crate::app::App;
use crate::problem::Refusal;
use crate::sealing::Owner;
use crate::store::clusters::StoredCluster;
use crate::store::jobs::{self, NewFiles, NewJob, StoredJob};
use crate::store::uploads::{self, Key};
use crate::store::{self, Session};
use crate::{acceptance, clock};

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
    let text = serde_json::to_vec(&spec).map_err(store::Error::Encode)?;
    let request_digest = person.app.sealer.submission_digest(&text);
    let now = clock::now();
    let mut session = person.app.store.read().await?;
    // Before anything of the cluster is looked at: a repeated submission is answered as the first was.
    if let Some(job) = made_before(&mut session, &person, key, &request_digest).await? {
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    let (job, cluster) = plan(&mut session, &person, spec, key, request_digest, now).await?;
    // Others can read while this waits to write.
    drop(session);
    let accepted = person.app.store.accept(&job, now).await;
    if !accepted.map_err(not_accepted)? {
        // The same submission, at the same moment, was faster.
        let mut session = person.app.store.read().await?;
        let job = made_before(&mut session, &person, key, &job.request_digest)
            .await?
            .ok_or_else(|| Refusal::no_job(job.id))?;
        return Ok(Json(view(&person.app, &job, now)).into_response());
    }
    // Stored, then told: a relay that is woken before the commit finds nothing and sleeps again.
    person.app.broker.wake();
    let id = job.id;
    tracing::info!(job.id = %id, "job {id} was submitted by {}", person.principal.name);
    // Not read again, and without its place in the queue, which whoever looks at the job is told: the
    // longer a queue, the longer it takes to count.
    let shown = view(&person.app, &StoredJob::accepted(job, cluster, now), now);
    let location = [(LOCATION, path(JOB, id))];
    Ok((StatusCode::ACCEPTED, location, Json(shown)).into_response())
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Uuid, Refusal> {
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
pub(super) fn read(body: &[u8]) -> Result<JobSpec, Refusal> {
    #[derive(Deserialize)]
    struct Only {
        command: Unchecked,
    }
    let spec =
        serde_json::from_slice::<JobSpec>(body).map_err(|_| {
            match serde_json::from_slice::<Only>(body) {
                Ok(Only { command }) => match Command::try_from(command) {
                    Ok(_) => secret_body::unreadable::<JobSpec>(body, &[""]),
                    Err(invalid) => Refusal::new(ProblemCode::InvalidCommand, invalid.to_string()),
                },
                Err(_) => secret_body::unreadable::<JobSpec>(body, &[""]),
            }
        })?;
    check_environment(&spec)?;
    Ok(spec)
}

/// What each of the two kinds of variables may be, they may be together.
pub(super) fn check_environment(spec: &JobSpec) -> Result<(), Refusal> {
    let (open, secret) = (spec.environment.variables(), spec.secrets.expose());
    if let Some(name) = open.keys().find(|name| secret.contains_key(*name)) {
        return Err(Refusal::invalid(format!(
            "variable {name} is in environment and in secrets: say which it is to be"
        )));
    }
    let all = open.iter().chain(secret);
    let all = all.map(|(name, value)| (name.clone(), value.clone()));
    let together = Environment::try_from(all.collect::<BTreeMap<_, _>>());
    together.map_or_else(|error| Err(Refusal::invalid(error.to_string())), |_| Ok(()))
}

pub(super) fn not_accepted(error: store::Error) -> Refusal {
    match error {
        store::Error::FilesGone(sha256) => files_missing(&format!(
            "the archive {sha256} had been kept long enough and was removed at this moment"
        )),
        other => other.into(),
    }
}

async fn made_before(
    session: &mut Session,
    person: &Person,
    key: Uuid,
    request_digest: &[u8],
) -> Result<Option<StoredJob>, Refusal> {
    match jobs::by_idempotency_key(session, &person.principal.name, key).await? {
        Some(job) if job.request_digest != request_digest => Err(Refusal::new(
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
    request_digest: Vec<u8>,
    now: Timestamp,
) -> Result<(NewJob, StoredCluster), Refusal> {
    let cluster = cluster_choice::choose(session, spec.cluster.as_ref()).await?;
    let start_deadline = acceptance::check(
        &person.app,
        session,
        &person.principal,
        &spec,
        &cluster,
        now,
    )
    .await?;
    let files = files(&person.app, session, &person.principal, &spec).await?;
    let id = acceptance::new_job_id(now);
    let job = NewJob {
        id,
        cluster: cluster.id,
        start_deadline,
        profile: spec.profile,
        command: spec.command,
        submitted_by: person.principal.name.clone(),
        run_timeout_seconds: spec.run_timeout_seconds,
        idempotency_key,
        request_digest,
        files,
        environment: spec.environment,
        secrets: person.app.sealer.seal(Owner::job(id), spec.secrets)?,
        stdin: spec.stdin,
        tick: None,
        fanout: None,
    };
    Ok((job, cluster))
}

/// The upload that a job's files are: the submitter's own, whole, and as long as is said.
pub(crate) async fn files(
    app: &App,
    session: &mut Session,
    principal: &Principal,
    spec: &JobSpec,
) -> Result<Option<NewFiles>, Refusal> {
    let Some(files) = spec.files else {
        return Ok(None);
    };
    limits::check_files(&files, &app.limits)?;
    let key = Key::Files {
        owner: principal.name.clone(),
        sha256: files.sha256,
    };
    match uploads::find(session, &key).await? {
        Some(upload) if !upload.complete => Err(files_missing(&format!(
            "of the archive {} you have uploaded {} of {} bytes",
            files.sha256,
            upload.stored,
            upload.total.unwrap_or(files.bytes)
        ))),
        Some(upload) if upload.stored != files.bytes => {
            let detail = format!(
                "the archive {} has {} bytes, and the job says {}",
                files.sha256, upload.stored, files.bytes
            );
            Err(Refusal::invalid(detail))
        }
        Some(upload) => Ok(Some(NewFiles {
            files,
            upload: upload.id,
        })),
        None => Err(files_missing(&format!(
            "you have uploaded nothing of the archive {}",
            files.sha256
        ))),
    }
}

fn files_missing(what: &str) -> Refusal {
    let detail = format!("{what}: upload it whole, then submit the job again");
    Refusal::new(ProblemCode::FilesMissing, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Words go to logs and into bug reports. None of a secret may be among them, whatever is wrong and where.
    #[test]
    fn what_is_wrong_is_said_without_the_secrets() {
        let body = |secrets: Value| json!({ "command": { "shell": "date" }, "secrets": secrets });
        let cases = [
            body(json!("hunter2")),
            body(json!(["hunter2"])),
            body(json!({ "TOKEN": ["hunter2"] })),
            body(json!({ "A B": "hunter2" })),
            body(json!({ "INVOKE_X": "hunter2" })),
            body(json!({ "TOKEN": "hunter2\0" })),
            body(json!({ "TOKEN": "hunter2", "LONG": "x".repeat(200_000) })),
            json!({ "command": { "shell": "date" }, "stdin": "yes", "secrets": { "TOKEN": "hunter2" } }),
            json!({ "command": { "shell": "" }, "secrets": { "TOKEN": "hunter2" } }),
            json!({ "secrets": { "TOKEN": "hunter2" } }),
            json!({ "command": { "shell": "date" }, "environment": { "TOKEN": "x" }, "secrets": { "TOKEN": "hunter2" } }),
            json!({ "command": { "shell": "date" }, "environment": { "A": "x".repeat(100_000) },
                "secrets": { "TOKEN": "hunter2", "B": "x".repeat(100_000) } }),
            json!("hunter2"),
        ];
        let mut texts: Vec<String> = cases.iter().map(Value::to_string).collect();
        texts.push(r#"{"secrets":"hunter2","command":{"shell":"date"},"secrets":{}}"#.to_owned());
        texts.push(r#"{"secrets":{"TOKEN":"hunter2"}"#.to_owned());
        texts.push(r#"{"secrets":{"TOKEN":hunter2}}"#.to_owned());
        let words: Vec<String> = texts
            .iter()
            .map(|text| read(text.as_bytes()).unwrap_err().detail().to_owned())
            .collect();
        let words = words.join("\n");
        assert!(!words.contains("hunter2"), "{words}");
        insta::assert_snapshot!(words, @r#"
        secrets: expected an object whose values are strings
        secrets: expected an object whose values are strings
        secrets: expected an object whose values are strings
        secrets: "A B" is no name of a variable: use letters, digits and _, and do not begin with a digit
        secrets: variable INVOKE_X cannot be set: names that begin with INVOKE_ are invoke's own
        secrets: the value of variable TOKEN contains a NUL byte, which no program can be given
        secrets: the variables come to 200020 bytes; at most 131072 (128 KiB) fit: put what is large into a file
        the body is not what is expected here: invalid type: string "yes", expected a boolean
        the command is empty: say what to run, for example "kubectl get pods"
        the body is not what is expected here: missing field `command`
        variable TOKEN is in environment and in secrets: say which it is to be
        the variables come to 200020 bytes; at most 131072 (128 KiB) fit: put what is large into a file
        the body is not what is expected here: no JSON object
        secrets: the field is there more than once
        the body is not what is expected here: EOF while parsing an object at line 1 column 30
        the body is not what is expected here: expected value at line 1 column 21
        "#);
    }
}
