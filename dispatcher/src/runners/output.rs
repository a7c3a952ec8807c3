//! `PUT /v1/runner/jobs/{id}/output`: a piece of the output log. Acknowledged when it is durable.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use invoke_protocol::problem::Problem;
use invoke_protocol::runner::{OUTPUT, OutputAck, OutputQuery};

use crate::access::runner::Runner;
use crate::api::path::JobPath;
use crate::clock;
use crate::output::{self, Upload, append};
use crate::problem::Refusal;
use crate::store::jobs::StoredJob;

/// Appends to a job's output log.
///
/// What is stored already is skipped, so an upload may be repeated; what would leave a gap is refused.
#[utoipa::path(
    put, path = OUTPUT, tag = "runner", security(("runner_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        ("pod" = String, Query, description = "The pod that the output is of"),
        ("from" = u64, Query, description = "The position in the output log of the body's first byte"),
    ),
    request_body(content = [u8], description = "Whole frames", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "How far the log is stored", body = OutputAck),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not stored, and may be sent again: no room (507), or not now (503)", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn output(
    runner: Runner,
    JobPath(id): JobPath,
    Query(OutputQuery { pod, from }): Query<OutputQuery>,
    log: Bytes,
) -> Result<Json<OutputAck>, Refusal> {
    let upload = Upload {
        job: id,
        cluster: runner.cluster.id,
        pod,
        from,
        log,
    };
    let stored = append(&runner.app.store, &runner.app.blobs, &upload).await;
    if let Err(output::Error::Over(job)) = &stored {
        alarm_if_more(&runner, job, &upload).await?;
    }
    let log_bytes = stored.map_err(|error| Refusal::of_output(id, error))?;
    Ok(Json(OutputAck { log_bytes }))
}

/// What is stored already may come again, after the end too. More than that contradicts it.
async fn alarm_if_more(runner: &Runner, job: &StoredJob, upload: &Upload) -> Result<(), Refusal> {
    if upload.from.saturating_add(upload.log.len() as u64) <= job.log_bytes {
        return Ok(());
    }
    let by = runner.name();
    let change = runner.change(upload.job, &by, clock::now());
    Ok(runner.app.store.refuse_output(job, change).await?)
}
