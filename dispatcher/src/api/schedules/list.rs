//! `GET /v1/schedules`.

use axum::Json;
use invoke_protocol::api::SCHEDULES;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::ScheduleList;

use super::shown;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::schedules;

/// Lists the schedules, by name.
#[utoipa::path(
    get, path = SCHEDULES, tag = "schedules", security(("api_token" = [])), operation_id = "list_schedules",
    responses(
        (status = 200, description = "All schedules", body = ScheduleList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn list(person: Person) -> Result<Json<ScheduleList>, Refusal> {
    let (mut session, now) = (person.app.store.read().await?, clock::now());
    let mut all = Vec::new();
    for schedule in schedules::all(&mut session).await? {
        all.push(shown(&person.app, &mut session, schedule, now).await?);
    }
    Ok(Json(ScheduleList { schedules: all }))
}
