//! `POST /v1/runner/jobs/{id}/claim`: may I make its pod?

use axum::Json;
use invoke_protocol::problem::Problem;
use invoke_protocol::runner::{CLAIM, Claim};
use invoke_protocol::state::{Event, Refusal as StateRefusal};

use crate::access::runner::Runner;
use crate::api::path::JobPath;
use crate::clock;
use crate::problem::Refusal;

/// Claims a job for its cluster.
///
/// Any replica may claim what another has claimed: that one may be gone, and a pod alone starts nothing.
#[utoipa::path(
    post, path = CLAIM, tag = "runner", security(("runner_token" = [])),
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "What the runner may do", body = Claim),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn claim(runner: Runner, JobPath(id): JobPath) -> Result<Json<Claim>, Refusal> {
    let by = runner.name();
    let change = runner.change(id, &by, clock::now());
    let outcome = runner
        .app
        .store
        .change(change, |_| Event::Claim {
            runner: runner.id.clone(),
        })
        .await?;
    Ok(Json(match outcome.map(|outcome| outcome.verdict) {
        Some(Ok(_)) => Claim::Yours,
        Some(Err(StateRefusal::AlreadyStarted)) => Claim::Started,
        // To a runner, another cluster's job is none; and what is none needs no message and no pod.
        Some(Err(_)) | None => Claim::Over,
    }))
}
