//! `POST /v1/schedules/{name}/resume`.

use axum::Json;
use invoke_protocol::api::SCHEDULE_RESUME;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::schedule::{Schedule, ScheduleState};

use super::{finish, hold};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;

/// Lets a schedule go on that is paused or suspended, from its next tick on.
#[utoipa::path(
    post, path = SCHEDULE_RESUME, tag = "schedules", security(("api_token" = [])), operation_id = "resume_schedule",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "At work", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn resume(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<Json<Schedule>, Refusal> {
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    if let Some(reason) = look.owner_may_not().await? {
        let detail = format!(
            "schedule {name} would be suspended again, because {reason}: take it over with `invoke schedule take-over {name}`"
        );
        return Err(Refusal::new(ProblemCode::NotRun, detail));
    }
    let schedule = look.schedule_mut();
    schedule.state = ScheduleState::Active;
    schedule.failures = 0;
    Ok(Json(finish(look, &person, "schedule.resume", now).await?))
}
