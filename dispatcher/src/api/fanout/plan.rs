//! `POST /v1/fanouts/plan`: what would become of a fan-out. Nothing is stored, and no files need be there.

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::api::FANOUT_PLAN;
use invoke_protocol::fanout::{FanOutPlan, FanOutSpec};
use invoke_protocol::problem::Problem;

use super::body::read;
use crate::access::Person;
use crate::clock;
use crate::fanout::resolution::resolve;
use crate::problem::Refusal;

/// Plans a command for many clusters: which, in which order, how many at once, and which of them would refuse it
/// or are away.
#[utoipa::path(
    post, path = FANOUT_PLAN, tag = "fanouts", security(("api_token" = [])), request_body = FanOutSpec,
    responses(
        (status = 200, description = "The plan", body = FanOutPlan),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn plan(person: Person, body: Bytes) -> Result<Json<FanOutPlan>, Refusal> {
    let spec = read(&body)?;
    let mut session = person.app.store.read().await?;
    let now = clock::now();
    let resolution = resolve(&person.app, &mut session, &person.principal, &spec, now).await?;
    Ok(Json(resolution.into_plan()))
}
