//! `POST /v1/clusters/{name}/join-tokens`: another invitation for a cluster that exists, and how
//! invitations are made.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use invoke_protocol::api::{CLUSTER_JOIN_TOKENS, JoinInvitation};
use invoke_protocol::id::{ClusterId, ClusterName};
use invoke_protocol::problem::Problem;
use jiff::Timestamp;

use super::cluster_choice;
use super::path::ClusterPath;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::signing::{random_token, sha256};
use crate::store::{Session, audit, join_tokens};

/// For how long a join token is good.
const GOOD_FOR: Duration = Duration::from_secs(15 * 60);

/// Makes another join token for a cluster. The earlier ones are void.
#[utoipa::path(
    post, path = CLUSTER_JOIN_TOKENS, tag = "clusters", security(("api_token" = [])),
    params(("name" = String, Path, description = "The cluster")),
    responses(
        (status = 201, description = "Made", body = JoinInvitation),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn another(
    person: Person,
    ClusterPath(name): ClusterPath,
) -> Result<(StatusCode, Json<JoinInvitation>), Refusal> {
    let now = clock::now();
    let mut session = person.app.store.write().await?;
    let cluster = cluster_choice::choose(&mut session, Some(&name)).await?;
    let invitation = invite(&person, &mut session, cluster.id, cluster.name, now).await?;
    session.commit().await?;
    Ok((StatusCode::CREATED, Json(invitation)))
}

/// Makes a join token for a cluster, and voids the earlier ones.
pub(super) async fn invite(
    person: &Person,
    session: &mut Session,
    cluster: ClusterId,
    name: ClusterName,
    now: Timestamp,
) -> Result<JoinInvitation, Refusal> {
    let join_token = random_token("invoke-join_")?;
    let expires_at = now.saturating_add(GOOD_FOR).unwrap_or(Timestamp::MAX);
    join_tokens::replace(session, cluster, &sha256(join_token.as_bytes()), expires_at).await?;
    let object = format!("cluster {name}");
    let entry = audit::Entry {
        who: &person.principal.name,
        action: "cluster.invite",
        object: &object,
        outcome: "invited",
    };
    audit::add(session, entry, now).await?;
    let addresses = &person.app.addresses;
    Ok(JoinInvitation {
        cluster,
        name,
        join_token,
        expires_at,
        dispatcher_url: addresses.dispatcher_url.clone(),
        dispatcher_ca_pem: addresses.dispatcher_ca_pem.clone(),
    })
}
