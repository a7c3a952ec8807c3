//! `PUT /v1/runner/jobs/{id}/artifacts`: a piece of what the command left to be sent back. Acknowledged when it
//! is durable.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{ARTIFACTS, ArtifactsAck, OutputQuery};

use super::holder;
use crate::access::runner::Runner;
use crate::api::artifacts::MAX_MANIFEST_BYTES;
use crate::api::path::JobPath;
use crate::clock;
use crate::problem::Refusal;
use crate::store::uploads::Key;
use crate::upload::{self, Chunk};

/// Appends to a job's stream of artifacts.
///
/// What is stored already is skipped, so a piece may be sent again; what would leave a gap is refused.
#[utoipa::path(
    put, path = ARTIFACTS, tag = "runner", security(("runner_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("pod" = String, Query, description = "The pod that they are of"),
        ("from" = u64, Query, description = "The position in the stream of the body's first byte"),
    ),
    request_body(content = [u8], description = "A piece, at most 8 MiB", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "How far the stream is stored", body = ArtifactsAck),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not stored, and may be sent again: no room (507), or not now (503)", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn artifacts(
    runner: Runner,
    JobPath(id): JobPath,
    Query(OutputQuery { pod, from }): Query<OutputQuery>,
    bytes: Bytes,
) -> Result<Json<ArtifactsAck>, Refusal> {
    let (app, job) = (&runner.app, holder::job_in(&runner, id, pod).await?);
    let limit = app.limits.files_bytes.saturating_add(MAX_MANIFEST_BYTES);
    if from.saturating_add(bytes.len() as u64) > limit {
        let detail = format!(
            "the artifacts of a job may come to {} bytes, and their list to {MAX_MANIFEST_BYTES}",
            app.limits.files_bytes
        );
        return Err(Refusal::new(ProblemCode::TooLarge, detail));
    }
    let chunk = Chunk {
        from,
        bytes,
        total: None,
    };
    let key = Key::Artifacts(job.id);
    let upload = upload::append(&app.store, &app.blobs, &key, &chunk, clock::now()).await;
    let upload = upload.map_err(|error| Refusal::of_upload("the artifacts", error))?;
    Ok(Json(ArtifactsAck {
        bytes: upload.stored,
    }))
}
