//! `POST /v1/schedules/{name}/run`.

use axum::Json;
use axum::http::HeaderMap;
use invoke_protocol::api::SCHEDULE_RUN;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::schedule::Tick;

use super::{changed, hold};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::api::submit::idempotency_key;
use crate::clock;
use crate::problem::Refusal;

/// Runs a schedule at once, besides its ticks, with its owner's rights. The caller must be allowed it too.
///
/// A paused schedule is run; a suspended one is not, nor one that a calendar closes out.
#[utoipa::path(
    post, path = SCHEDULE_RUN, tag = "schedules", security(("api_token" = [])), operation_id = "run_schedule",
    params(
        ("name" = String, Path, description = "The schedule"),
        ("idempotency-key" = uuid::Uuid, Header, description = "The caller's own key: the same again is the same tick"),
    ),
    responses(
        (status = 200, description = "Its tick", body = Tick),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn run(
    person: Person,
    SchedulePath(name): SchedulePath,
    headers: HeaderMap,
) -> Result<Json<Tick>, Refusal> {
    let key = idempotency_key(&headers)?;
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    look.check_for(&person.principal)?;
    let tick = look.run_by_hand(key).await?.map_err(|entry| {
        let detail = format!("schedule {name} does not run now: {}", entry.message);
        Refusal::new(ProblemCode::NotRun, detail)
    })?;
    look.record(&person.principal.name, "schedule.run").await?;
    look.finish().await?.map_err(|_lost| changed(&name))?;
    Ok(Json(tick))
}
