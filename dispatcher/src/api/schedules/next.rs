//! `GET /v1/schedules/{name}/next`.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use invoke_protocol::api::SCHEDULE_NEXT;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::{ComingTicks, NextQuery};

use super::find;
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::clock;
use crate::problem::Refusal;
use crate::schedule::coming;

/// How many ticks are told if nobody says.
const USUAL: u32 = 10;
/// The most.
const MOST: u32 = 100;

/// Tells the coming ticks of a schedule, each with what touches it.
#[utoipa::path(
    get, path = SCHEDULE_NEXT, tag = "schedules", security(("api_token" = [])),
    params(("name" = String, Path, description = "The schedule"), NextQuery),
    responses(
        (status = 200, description = "Its coming ticks", body = ComingTicks),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn next(
    person: Person,
    SchedulePath(name): SchedulePath,
    query: Result<Query<NextQuery>, QueryRejection>,
) -> Result<Json<ComingTicks>, Refusal> {
    let Query(NextQuery { limit }) =
        query.map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let detail = format!("1 to {MOST} coming ticks can be told at once, not {limit}");
        return Err(Refusal::invalid(detail));
    }
    let mut session = person.app.store.read().await?;
    let schedule = find(&mut session, &name).await?;
    let ticks = coming::coming(&person.app, &mut session, &schedule, limit, clock::now()).await?;
    Ok(Json(ComingTicks {
        time_zone: schedule.spec.timing.time_zone.to_string(),
        ticks,
    }))
}
