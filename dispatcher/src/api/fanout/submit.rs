//! `POST /v1/fanouts`: a fan-out is accepted, or refused with a sentence. After 202 it is durable, and goes on by
//! itself.

use axum::Json;
use axum::body::Bytes;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use invoke_protocol::api::{FANOUT, FANOUTS};
use invoke_protocol::fanout::{FanOut, FanOutSpec};
use invoke_protocol::id::FanOutId;
use invoke_protocol::problem::{Problem, ProblemCode};
use uuid::Uuid;

use super::body::read;
use super::view::whole;
use crate::access::Person;
use crate::api::submit::{idempotency_key, not_accepted};
use crate::clock;
use crate::fanout::submission::prepare;
use crate::problem::Refusal;
use crate::store::{self, Session, fanouts};

/// Submits a command for many clusters.
///
/// The clusters are those that the selector matches at this moment. The same key with the same body is the same
/// fan-out, however often it is sent.
#[utoipa::path(
    post, path = FANOUTS, tag = "fanouts", security(("api_token" = [])),
    params(("idempotency-key" = Uuid, Header, description = "The submitter's own key for this fan-out")),
    request_body = FanOutSpec,
    responses(
        (status = 202, description = "Accepted, durably", body = FanOut, headers(("location" = String, description = "The fan-out"))),
        (status = 200, description = "This key made this fan-out before", body = FanOut),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now: the same request with the same key may be sent again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn submit(
    person: Person,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let spec = read(&body)?;
    let (app, name) = (&person.app, &person.principal.name);
    let _turn = app.turns.take().await?;
    let text = serde_json::to_vec(&spec).map_err(store::Error::Encode)?;
    let digest = app.sealer.submission_digest(&text);
    let now = clock::now();
    let mut session = app.store.read().await?;
    // Before anything of the clusters is looked at: a repeated submission is answered as the first was.
    if let Some(id) = made_before(&mut session, name, key, &digest).await? {
        return Ok(Json(whole(&mut session, id).await?).into_response());
    }
    let made = (key, digest.clone());
    let fanout = prepare(app, &mut session, &person.principal, spec, made, now).await?;
    // Others can read while this waits to write.
    drop(session);
    let mut session = app.store.write().await?;
    let added = fanouts::add(&mut session, &fanout, now).await;
    if !added.map_err(not_accepted)? {
        drop(session);
        // The same submission, at the same moment, was faster.
        let mut session = app.store.read().await?;
        let id = made_before(&mut session, name, key, &digest).await?;
        let id = id.ok_or_else(|| Refusal::no_fanout(fanout.id))?;
        return Ok(Json(whole(&mut session, id).await?).into_response());
    }
    session.commit().await?;
    // Stored, then told: who is woken before the commit finds nothing and sleeps again.
    app.store.events().fanout_changed(fanout.id);
    let (id, clusters) = (fanout.id, fanout.clusters.len());
    tracing::info!(fanout.id = %id, "fan-out {id} for {clusters} clusters was submitted by {name}");
    let mut session = app.store.read().await?;
    let shown = whole(&mut session, id).await?;
    let location = [(LOCATION, FANOUT.replace("{id}", &id.to_string()))];
    Ok((StatusCode::ACCEPTED, location, Json(shown)).into_response())
}

async fn made_before(
    session: &mut Session,
    name: &str,
    key: Uuid,
    digest: &[u8],
) -> Result<Option<FanOutId>, Refusal> {
    match fanouts::by_idempotency_key(session, name, key).await? {
        Some(fanout) if fanout.request_digest != digest => Err(Refusal::new(
            ProblemCode::IdempotencyKeyReused,
            format!(
                "the key {key} made fan-out {}, which asks for something else: use a new key for a new fan-out",
                fanout.id
            ),
        )),
        made => Ok(made.map(|fanout| fanout.id)),
    }
}
