//! `GET /v1/jobs/{id}/artifacts` and `…/content`: what a command left to be sent back, its list and its bytes.
//!
//! The list comes at the end of the stream, from the pod in which the command ran. Nothing in it is believed
//! but what the stream bears out.

use axum::Json;
use axum::body::Body;
use axum::response::Response;
use invoke_protocol::api::{ArtifactList, JOB_ARTIFACTS, JOB_ARTIFACTS_CONTENT};
use invoke_protocol::artifacts::{ArtifactsSummary, Manifest};
use invoke_protocol::id::JobId;
use invoke_protocol::problem::{Problem, ProblemCode};
use uuid::Uuid;

use super::path::JobPath;
use super::range::Asked;
use crate::access::Person;
use crate::app::App;
use crate::problem::Refusal;
use crate::signing::sha256;
use crate::store::jobs::{self, StoredJob};
use crate::store::uploads::{self, Key};
use crate::upload;

/// The longest list of artifacts: one of a hundred thousand files with long names.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// Lists what a command left to be sent back.
#[utoipa::path(
    get, path = JOB_ARTIFACTS, tag = "jobs", security(("api_token" = [])),
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The files", body = ArtifactList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    person: Person,
    JobPath(id): JobPath,
) -> Result<Json<ArtifactList>, Refusal> {
    let Artifacts { summary, stored } = find(&person.app, id).await?;
    let manifest = match stored {
        Some((upload, bytes)) if bytes >= summary.stream_bytes() => {
            manifest(&person.app, id, &summary, upload).await?
        }
        _ => {
            return Err(not_whole(
                id,
                &summary,
                stored.map_or(0, |(_, bytes)| bytes),
            ));
        }
    };
    Ok(Json(ArtifactList { summary, manifest }))
}

/// Reads the stream of artifacts.
///
/// A file is the range that the list says. Of a stream that was not uploaded whole there is what is stored.
#[utoipa::path(
    get, path = JOB_ARTIFACTS_CONTENT, tag = "jobs", security(("api_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("range" = Option<String>, Header, description = "One range of bytes (RFC 9110)"),
    ),
    responses(
        (status = 200, description = "All of it", content_type = "application/octet-stream", body = [u8]),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = [u8],
            headers(("content-range" = String, description = "Which bytes these are, of how many"))),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn content(
    person: Person,
    JobPath(id): JobPath,
    asked: Asked,
) -> Result<Response, Refusal> {
    let Artifacts { summary, stored } = find(&person.app, id).await?;
    let length = stored.map_or(0, |(_, bytes)| bytes.min(summary.stream_bytes()));
    let selected = asked.of(length)?;
    let (store, blobs) = (person.app.store.clone(), person.app.blobs.clone());
    let body = match stored {
        Some((upload, _)) => {
            Body::from_stream(upload::stream(store, blobs, upload, selected.range.clone()))
        }
        None => Body::empty(),
    };
    Ok(selected.answer(body))
}

/// What the record of a job's end says of its artifacts, and what there is of them.
struct Artifacts {
    summary: ArtifactsSummary,
    /// The upload, and how long it is.
    stored: Option<(Uuid, u64)>,
}

async fn find(app: &App, id: JobId) -> Result<Artifacts, Refusal> {
    let mut session = app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .ok_or_else(|| Refusal::no_job(id))?;
    if let Some(at) = job.output_expired_at {
        return Err(Refusal::output_expired(id, at));
    }
    let exit = job.state.exit_record();
    let summary = exit
        .and_then(|exit| exit.artifacts.clone())
        .ok_or_else(|| none(&job))?;
    let upload = uploads::find(&mut session, &Key::Artifacts(id)).await?;
    Ok(Artifacts {
        summary,
        stored: upload.map(|upload| (upload.id, upload.stored)),
    })
}

/// The list at the end of the stream, if it is the one that the record tells of, and every file lies within the
/// stream.
async fn manifest(
    app: &App,
    id: JobId,
    summary: &ArtifactsSummary,
    upload: Uuid,
) -> Result<Manifest, Refusal> {
    let wrong = |why: &str| {
        let detail = format!("the list of the artifacts of job {id} cannot be used: {why}");
        Refusal::new(ProblemCode::ArtifactsNotFound, detail)
    };
    if summary.manifest_bytes > MAX_MANIFEST_BYTES {
        return Err(wrong("it is longer than any list may be"));
    }
    let mut text = Vec::new();
    let (mut position, end) = (summary.content_bytes, summary.stream_bytes());
    while position < end {
        let bytes = upload::read(&app.store, &app.blobs, upload, position).await;
        let bytes = bytes.map_err(|error| Refusal::of_upload("the artifacts", error))?;
        let length = (bytes.len() as u64).min(end - position);
        // It is within the part, so the number fits.
        text.extend_from_slice(&bytes[..usize::try_from(length).unwrap_or(bytes.len())]);
        position += length;
    }
    if sha256(&text) != summary.manifest_sha256.as_bytes() {
        return Err(wrong(
            "its bytes do not have the digest that the record of the job's end has",
        ));
    }
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| wrong("it is not written as one"))?;
    match manifest.files.iter().find(|file| {
        let end = file.offset.checked_add(file.bytes);
        end.is_none_or(|end| end > summary.content_bytes)
    }) {
        None => Ok(manifest),
        Some(_) => Err(wrong("it names bytes that are not in the stream")),
    }
}

fn none(job: &StoredJob) -> Refusal {
    let id = job.id;
    let detail = match job.state.is_terminal() {
        true => format!("the command of job {id} left no artifacts"),
        false => format!("job {id} is not over: what its command leaves comes at its end"),
    };
    Refusal::new(ProblemCode::ArtifactsNotFound, detail)
}

fn not_whole(id: JobId, summary: &ArtifactsSummary, stored: u64) -> Refusal {
    let detail = format!(
        "the artifacts of job {id} were not uploaded whole: {stored} of {} bytes are stored, and their list, which \
         comes last, is not among them; what is stored can be read all the same",
        summary.stream_bytes()
    );
    Refusal::new(ProblemCode::ArtifactsNotFound, detail)
}
