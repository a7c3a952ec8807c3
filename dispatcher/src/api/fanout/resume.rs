//! `POST /v1/fanouts/{id}/resume`: one that stopped goes on with the clusters that had not started.

use axum::Json;
use axum::http::StatusCode;
use invoke_protocol::api::FANOUT_RESUME;
use invoke_protocol::fanout::FanOut;
use invoke_protocol::problem::Problem;

use super::view::whole;
use crate::access::Person;
use crate::api::path::FanOutPath;
use crate::clock;
use crate::fanout::command::{Command, obey};
use crate::problem::Refusal;

/// Makes a fan-out go on that has stopped.
///
/// Its failures until now are forgiven: failures, and the ramp, are counted from here. No other cluster starts
/// before every canary has succeeded, now as before.
#[utoipa::path(
    post, path = FANOUT_RESUME, tag = "fanouts", security(("api_token" = [])),
    params(("id" = String, Path, description = "The fan-out")),
    responses(
        (status = 202, description = "It goes on", body = FanOut),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resume(
    person: Person,
    FanOutPath(id): FanOutPath,
) -> Result<(StatusCode, Json<FanOut>), Refusal> {
    let (store, by) = (&person.app.store, &person.principal.name);
    obey(store, id, Command::Resume, by, clock::now()).await?;
    let mut session = store.read().await?;
    Ok((StatusCode::ACCEPTED, Json(whole(&mut session, id).await?)))
}
