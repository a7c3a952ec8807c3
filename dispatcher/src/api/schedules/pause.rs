//! `POST /v1/schedules/{name}/pause`.

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::api::SCHEDULE_PAUSE;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::{PauseRequest, Schedule, ScheduleState};

use super::{finish, hold};
use crate::access::Person;
use crate::api::path::{SchedulePath, json};
use crate::clock;
use crate::problem::Refusal;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1000;

/// Pauses a schedule: its ticks are skipped until it is resumed. What runs goes on.
#[utoipa::path(
    post, path = SCHEDULE_PAUSE, tag = "schedules", security(("api_token" = [])), operation_id = "pause_schedule",
    params(("name" = String, Path, description = "The schedule")),
    request_body = Option<PauseRequest>,
    responses(
        (status = 200, description = "Paused", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn pause(
    person: Person,
    SchedulePath(name): SchedulePath,
    body: Bytes,
) -> Result<Json<Schedule>, Refusal> {
    let PauseRequest { reason } = match body.is_empty() {
        true => PauseRequest::default(),
        false => json(&body)?,
    };
    if reason.len() > MAX_REASON_BYTES {
        let detail = format!(
            "a reason has at most {MAX_REASON_BYTES} bytes, and this one {}",
            reason.len()
        );
        return Err(Refusal::invalid(detail));
    }
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    look.schedule_mut().state = ScheduleState::Paused {
        by: person.principal.name.clone(),
        since: now,
        reason,
    };
    Ok(Json(finish(look, &person, "schedule.pause", now).await?))
}
