//! `POST /v1/schedules/{name}/take-over`: the one way in which a schedule gets another owner. Nobody can hand a
//! command of theirs to somebody with more rights: whoever is to answer for it takes it.

use axum::Json;
use invoke_protocol::api::SCHEDULE_TAKE_OVER;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::{Schedule, ScheduleState};

use super::{finish, hold};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;

/// Makes the caller the owner of a schedule, which runs with their rights from now on.
#[utoipa::path(
    post, path = SCHEDULE_TAKE_OVER, tag = "schedules", security(("api_token" = [])),
    operation_id = "take_over_schedule",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "It is the caller's", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn take_over(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<Json<Schedule>, Refusal> {
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    look.check_for(&person.principal)?;
    let schedule = look.schedule_mut();
    schedule.owner.clone_from(&person.principal.name);
    if matches!(schedule.state, ScheduleState::Suspended { .. }) {
        schedule.state = ScheduleState::Active;
    }
    Ok(Json(
        finish(look, &person, "schedule.take_over", now).await?,
    ))
}
