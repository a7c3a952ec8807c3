//! `GET /v1/fanouts/{id}`: a fan-out as it is, or as soon as there is news of it.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use invoke_protocol::api::FANOUT;
use invoke_protocol::fanout::{FanOut, FanOutQuery};
use invoke_protocol::problem::Problem;
use tokio::time::Instant;

use super::view::whole;
use crate::access::Person;
use crate::api::path::FanOutPath;
use crate::api::show::MAX_WAIT_SECONDS;
use crate::problem::Refusal;
use crate::store::fanouts;

/// Shows a fan-out, with its clusters and its story.
///
/// With `wait_seconds`, answers when there is news, or when these are over.
#[utoipa::path(
    get, path = FANOUT, tag = "fanouts", security(("api_token" = [])),
    params(("id" = String, Path, description = "The fan-out"), FanOutQuery),
    responses(
        (status = 200, description = "The fan-out", body = FanOut),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    person: Person,
    FanOutPath(id): FanOutPath,
    Query(query): Query<FanOutQuery>,
) -> Result<Json<FanOut>, Refusal> {
    let app = &person.app;
    let until =
        Instant::now() + Duration::from_secs(query.wait_seconds.unwrap_or(0).min(MAX_WAIT_SECONDS));
    // Subscribe before read: see `crate::events`.
    let mut subscription = app.store.events().of_fanout(id);
    loop {
        let mut session = app.store.read().await?;
        let fanout = fanouts::find(&mut session, id)
            .await?
            .ok_or_else(|| Refusal::no_fanout(id))?;
        let is_news =
            fanout.state.is_over() || query.version.is_some_and(|seen| fanout.version > seen);
        if is_news || Instant::now() >= until || app.stopping.is_cancelled() {
            return Ok(Json(whole(&mut session, id).await?));
        }
        drop(session);
        tokio::select! {
            () = subscription.news_or_poll() => {}
            () = tokio::time::sleep_until(until) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}
