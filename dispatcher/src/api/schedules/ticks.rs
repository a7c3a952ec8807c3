//! `GET /v1/schedules/{name}/ticks`: the ledger.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use invoke_protocol::api::SCHEDULE_TICKS;
use invoke_protocol::problem::Problem;
use invoke_protocol::schedule::{TickList, TicksQuery};

use super::unknown;
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::problem::Refusal;
use crate::store::{schedules, ticks as ledger};

/// How many ticks a page has if nobody says.
const USUAL: u32 = 50;
/// The longest page.
const MOST: u32 = 500;

/// Lists what became of each tick of a schedule, the newest first.
#[utoipa::path(
    get, path = SCHEDULE_TICKS, tag = "schedules", security(("api_token" = [])),
    params(("name" = String, Path, description = "The schedule"), TicksQuery),
    responses(
        (status = 200, description = "A page of its ledger", body = TickList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn ticks(
    person: Person,
    SchedulePath(name): SchedulePath,
    query: Result<Query<TicksQuery>, QueryRejection>,
) -> Result<Json<TickList>, Refusal> {
    let Query(TicksQuery { limit, before }) =
        query.map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let detail = format!("a page has 1 to {MOST} ticks, not {limit}");
        return Err(Refusal::invalid(detail));
    }
    let mut session = person.app.store.read().await?;
    let Some(schedule) = schedules::last_of_name(&mut session, &name).await? else {
        return Err(unknown(&mut session, &name).await?);
    };
    let page = ledger::page(&mut session, schedule.id, before, limit).await?;
    let is_full = page.len() == limit as usize;
    Ok(Json(TickList {
        next: page.last().filter(|_| is_full).map(|tick| tick.instant),
        ticks: page.iter().map(|tick| tick.view(&name)).collect(),
    }))
}
