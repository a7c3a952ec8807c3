//! `GET /v1/fanouts`: a page of fan-outs, the newest first.

use axum::Json;
use axum::extract::Query;
use invoke_protocol::api::FANOUTS;
use invoke_protocol::fanout::{FanOut, FanOutList, FanOutsQuery};
use invoke_protocol::problem::Problem;

use super::view::summary;
use crate::access::Person;
use crate::api::list::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::problem::Refusal;
use crate::store::{fanout_clusters, fanouts};

/// Lists fan-outs, the newest first, without their clusters and stories.
#[utoipa::path(
    get, path = FANOUTS, tag = "fanouts", security(("api_token" = [])), params(FanOutsQuery),
    responses(
        (status = 200, description = "A page", body = FanOutList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    person: Person,
    Query(query): Query<FanOutsQuery>,
) -> Result<Json<FanOutList>, Refusal> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Refusal::invalid(format!(
            "limit must be 1 to {MAX_LIMIT}, not {limit}"
        )));
    }
    let mut session = person.app.store.read().await?;
    // One more than asked for tells whether there is another page.
    let mut stored = fanouts::list(&mut session, query.before, limit + 1).await?;
    let is_last = stored.len() <= limit as usize;
    stored.truncate(limit as usize);
    let (Some(newest), Some(oldest)) = (stored.first(), stored.last()) else {
        return Ok(Json(FanOutList {
            fanouts: Vec::new(),
            next: None,
        }));
    };
    let tallies = fanout_clusters::tallies(&mut session, oldest.id, newest.id).await?;
    let fanouts: Vec<FanOut> = stored
        .iter()
        .map(|fanout| summary(fanout, tallies.get(&fanout.id).map_or(&[], Vec::as_slice)))
        .collect();
    let next = Some(oldest.id).filter(|_| !is_last);
    Ok(Json(FanOutList { fanouts, next }))
}
