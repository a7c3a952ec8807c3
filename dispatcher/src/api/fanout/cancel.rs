//! `POST /v1/fanouts/{id}/cancel`: nothing of it starts any more, and what runs is told to stop.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::api::FANOUT_CANCEL;
use invoke_protocol::fanout::FanOut;
use invoke_protocol::job::CancelRequest;
use invoke_protocol::problem::Problem;

use super::view::whole;
use crate::access::Person;
use crate::api::cancel::grace;
use crate::api::path::FanOutPath;
use crate::clock;
use crate::fanout::command::{Command, obey};
use crate::problem::Refusal;

/// Cancels a fan-out: all of its clusters, in one step.
///
/// Commands that run get SIGTERM, and SIGKILL when their grace is over. Asked again with a shorter grace, the
/// shorter one counts.
#[utoipa::path(
    post, path = FANOUT_CANCEL, tag = "fanouts", security(("api_token" = [])),
    params(("id" = String, Path, description = "The fan-out")),
    request_body = Option<CancelRequest>,
    responses(
        (status = 202, description = "Cancelled, or to be stopped", body = FanOut),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    person: Person,
    FanOutPath(id): FanOutPath,
    body: Bytes,
) -> Result<(StatusCode, Json<FanOut>), Refusal> {
    let grace_seconds = grace(&body)?;
    let (store, by) = (&person.app.store, &person.principal.name);
    let command = Command::Cancel { grace_seconds };
    obey(store, id, command, by, clock::now()).await?;
    let mut session = store.read().await?;
    Ok((StatusCode::ACCEPTED, Json(whole(&mut session, id).await?)))
}
