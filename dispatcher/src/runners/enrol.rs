//! `POST /v1/runner/enrol`: a cluster's key comes in, once, by a join token.

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{ENROL, EnrolRequest, Enrolment};

use crate::access::Newcomer;
use crate::api::path::json;
use crate::clock;
use crate::problem::Refusal;
use crate::signing::sha256;
use crate::store::{audit, clusters, join_tokens};

/// The length of an Ed25519 public key.
const KEY_BYTES: usize = 32;

/// Enrols a cluster's key.
///
/// The same token with the same key may come again. Another key needs another token, and replaces the
/// one before: that is how a cluster whose key is lost is enrolled anew.
#[utoipa::path(
    post, path = ENROL, tag = "runner", request_body = EnrolRequest,
    responses(
        (status = 200, description = "Enrolled", body = Enrolment),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn enrol(newcomer: Newcomer, body: Bytes) -> Result<Json<Enrolment>, Refusal> {
    let EnrolRequest {
        join_token,
        public_key,
    } = json(&body)?;
    let app = newcomer.app;
    if public_key.len() != KEY_BYTES {
        return Err(Refusal::invalid(format!(
            "an Ed25519 public key has {KEY_BYTES} bytes, not {}",
            public_key.len()
        )));
    }
    let now = clock::now();
    let mut session = app.store.write().await?;
    let token = sha256(join_token.as_bytes());
    let Some(id) = join_tokens::redeem(&mut session, &token, &public_key, now).await? else {
        let detail = "the join token is unknown, was used for another key, or is older than 15 minutes: make a new one";
        return Err(Refusal::new(ProblemCode::JoinTokenInvalid, detail));
    };
    let cluster = clusters::by_id(&mut session, id).await?;
    let cluster = cluster.ok_or_else(|| {
        Refusal::new(
            ProblemCode::UnknownCluster,
            format!("there is no cluster {id}"),
        )
    })?;
    let fingerprint: String = sha256(&public_key)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (object, outcome) = (
        format!("cluster {}", cluster.name),
        format!("key {fingerprint}"),
    );
    let who = format!("runner {}", cluster.name);
    let entry = audit::Entry {
        who: &who,
        action: "cluster.enrol",
        object: &object,
        outcome: &outcome,
    };
    audit::add(&mut session, entry, now).await?;
    session.commit().await?;
    tracing::info!(cluster.id = %id, "cluster {} enrolled key {fingerprint}", cluster.name);
    Ok(Json(Enrolment {
        cluster: id,
        name: cluster.name,
        signing_keys: vec![app.signer.public()],
    }))
}
