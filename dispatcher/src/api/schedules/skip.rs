//! `POST /v1/schedules/{name}/skip`.

use axum::Json;
use invoke_protocol::api::SCHEDULE_SKIP;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::Schedule;

use super::{finish, hold};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;

/// Has the next tick of a schedule skipped that would be run.
#[utoipa::path(
    post, path = SCHEDULE_SKIP, tag = "schedules", security(("api_token" = [])), operation_id = "skip_next_tick",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "The next tick will be skipped", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn skip(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<Json<Schedule>, Refusal> {
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    look.schedule_mut().skip_next = true;
    Ok(Json(
        finish(look, &person, "schedule.skip_next", now).await?,
    ))
}
