//! `DELETE /v1/schedules/{name}`.

use axum::http::StatusCode;
use invoke_protocol::api::SCHEDULE;
use invoke_protocol::problem::Problem;

use super::{changed, hold};
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;

/// Deletes a schedule. Its ledger stays, and what runs goes on.
#[utoipa::path(
    delete, path = SCHEDULE, tag = "schedules", security(("api_token" = [])), operation_id = "delete_schedule",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 204, description = "Deleted"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn delete(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<StatusCode, Refusal> {
    let now = clock::now();
    let mut look = hold(&person, &name, now).await?;
    let schedule = look.schedule_mut();
    schedule.deleted_at = Some(now);
    schedule.due_at = None;
    // Nothing of it is run again: its files and secrets need not be kept.
    schedule.files_upload = None;
    schedule.sealed_secrets = None;
    look.record(&person.principal.name, "schedule.delete")
        .await?;
    look.finish().await?.map_err(|_lost| changed(&name))?;
    tracing::info!("schedule {name} was deleted by {}", person.principal.name);
    Ok(StatusCode::NO_CONTENT)
}
