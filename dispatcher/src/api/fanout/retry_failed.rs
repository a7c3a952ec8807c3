//! `POST /v1/fanouts/{id}/retry-failed`: one that is over goes on, with another attempt for what has failed.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::api::FANOUT_RETRY_FAILED;
use invoke_protocol::fanout::{FanOut, RetryFailedRequest};
use invoke_protocol::problem::Problem;

use super::view::whole;
use crate::access::Person;
use crate::api::path::{FanOutPath, json};
use crate::clock;
use crate::fanout::command::{Command, obey};
use crate::problem::Refusal;

/// Makes a fan-out go on, with another attempt, and another job, for each cluster that has failed.
///
/// Those that had not started have their turn too. A cluster of which nobody knows how its command ended
/// (`lost`) is only tried again if the body says so: the command may have done its work, or still run.
#[utoipa::path(
    post, path = FANOUT_RETRY_FAILED, tag = "fanouts", security(("api_token" = [])),
    params(("id" = String, Path, description = "The fan-out")),
    request_body = Option<RetryFailedRequest>,
    responses(
        (status = 202, description = "It goes on", body = FanOut),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn retry_failed(
    person: Person,
    FanOutPath(id): FanOutPath,
    body: Bytes,
) -> Result<(StatusCode, Json<FanOut>), Refusal> {
    let RetryFailedRequest { lost } = if body.is_empty() {
        RetryFailedRequest::default()
    } else {
        json::<Option<_>>(&body)?.unwrap_or_default()
    };
    let (store, by) = (&person.app.store, &person.principal.name);
    let command = Command::RetryFailed { lost };
    obey(store, id, command, by, clock::now()).await?;
    let mut session = store.read().await?;
    Ok((StatusCode::ACCEPTED, Json(whole(&mut session, id).await?)))
}
