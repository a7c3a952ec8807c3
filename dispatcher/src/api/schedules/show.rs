//! `GET /v1/schedules/{name}`.

use axum::Json;
use invoke_protocol::api::SCHEDULE;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::Schedule;

use super::{find, shown};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;

/// Shows a schedule.
#[utoipa::path(
    get, path = SCHEDULE, tag = "schedules", security(("api_token" = [])), operation_id = "show_schedule",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "The schedule", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn show(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<Json<Schedule>, Refusal> {
    let mut session = person.app.store.read().await?;
    let schedule = find(&mut session, &name).await?;
    Ok(Json(
        shown(&person.app, &mut session, schedule, clock::now()).await?,
    ))
}
