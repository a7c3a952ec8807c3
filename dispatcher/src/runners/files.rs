//! `GET /v1/runner/jobs/{id}/files`: the archive of attached files, for the pod that is to unpack it.

use axum::body::Body;
use axum::extract::Query;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{FILES, FilesQuery};

use super::holder;
use crate::access::runner::Runner;
use crate::api::path::JobPath;
use crate::problem::Refusal;
use crate::upload;

/// Answers the archive from a position on.
#[utoipa::path(
    get, path = FILES, tag = "runner", security(("runner_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("pod" = String, Query, description = "The pod that needs it"),
        ("from" = Option<u64>, Query, description = "Where in the archive to begin"),
    ),
    responses(
        (status = 200, description = "The rest of the archive", content_type = "application/gzip", body = [u8]),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn files(
    runner: Runner,
    JobPath(id): JobPath,
    Query(FilesQuery { pod, from }): Query<FilesQuery>,
) -> Result<Response, Refusal> {
    let job = holder::job_in(&runner, id, pod).await?;
    let (Some(files), Some(upload)) = (job.files, job.files_upload) else {
        let detail = format!("job {id} has no files");
        return Err(Refusal::new(ProblemCode::FilesNotFound, detail));
    };
    if from > files.bytes {
        return Err(Refusal::range_not_satisfiable(files.bytes));
    }
    let headers = [
        (CONTENT_TYPE, "application/gzip".to_owned()),
        (CONTENT_LENGTH, (files.bytes - from).to_string()),
    ];
    let (store, blobs) = (runner.app.store.clone(), runner.app.blobs.clone());
    let archive = upload::stream(store, blobs, upload, from..files.bytes);
    Ok((headers, Body::from_stream(archive)).into_response())
}
