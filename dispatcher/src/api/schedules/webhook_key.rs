//! `GET /v1/schedules/{name}/webhook-key`.

use axum::Json;
use invoke_protocol::api::SCHEDULE_WEBHOOK_KEY;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::schedule::WebhookKey;

use super::find;
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::problem::Refusal;

/// Tells the owner of a schedule the key that its webhooks are signed with.
#[utoipa::path(
    get, path = SCHEDULE_WEBHOOK_KEY, tag = "schedules", security(("api_token" = [])),
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "The key", body = WebhookKey),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn webhook_key(
    person: Person,
    SchedulePath(name): SchedulePath,
) -> Result<Json<WebhookKey>, Refusal> {
    let mut session = person.app.store.read().await?;
    let schedule = find(&mut session, &name).await?;
    if schedule.owner != person.principal.name {
        let detail = format!(
            "schedule {name} is {}'s, and only they are told its key",
            schedule.owner
        );
        return Err(Refusal::new(ProblemCode::Forbidden, detail));
    }
    Ok(Json(WebhookKey {
        key: person.app.webhook_keys.text(schedule.id),
    }))
}
