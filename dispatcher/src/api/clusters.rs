//! `GET` and `POST /v1/clusters`: where commands can run.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::api::{AddClusterRequest, CLUSTERS, Cluster, ClusterList, JoinInvitation};
use invoke_protocol::id::ClusterId;
use invoke_protocol::problem::{Problem, ProblemCode};
use jiff::Timestamp;
use uuid::Uuid;

use super::invitation::invite;
use super::path::json;
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::audit;
use crate::store::clusters::{self, StoredCluster};
use crate::waiting::{cluster_state, seconds_between};

/// Lists the clusters, by name.
#[utoipa::path(
    get, path = CLUSTERS, tag = "clusters", security(("api_token" = [])),
    responses(
        (status = 200, description = "All clusters", body = ClusterList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(person: Person) -> Result<Json<ClusterList>, Refusal> {
    let mut session = person.app.store.read().await?;
    let now = clock::now();
    let stored = clusters::all(&mut session).await?;
    let open_jobs = clusters::open_jobs(&mut session).await?;
    Ok(Json(ClusterList {
        clusters: stored
            .into_iter()
            .map(|cluster| {
                let open_jobs = open_jobs.get(&cluster.id).copied().unwrap_or_default();
                shown(cluster, open_jobs, now)
            })
            .collect(),
    }))
}

/// Adds a cluster and invites its runner.
#[utoipa::path(
    post, path = CLUSTERS, tag = "clusters", security(("api_token" = [])), request_body = AddClusterRequest,
    responses(
        (status = 201, description = "Added", body = JoinInvitation),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn add(
    person: Person,
    body: Bytes,
) -> Result<(StatusCode, Json<JoinInvitation>), Refusal> {
    let AddClusterRequest { name, labels } = json(&body)?;
    let (id, now) = (ClusterId::from_uuid(Uuid::new_v4()), clock::now());
    let mut session = person.app.store.write().await?;
    if !clusters::add(&mut session, id, &name, &labels, now).await? {
        let detail = format!(
            "there is a cluster {name} already; `invoke clusters add` is for new ones, and its runner joins anew with a new join token"
        );
        return Err(Refusal::new(ProblemCode::ClusterExists, detail));
    }
    let object = format!("cluster {name}");
    let entry = audit::Entry {
        who: &person.principal.name,
        action: "cluster.add",
        object: &object,
        outcome: "added",
    };
    audit::add(&mut session, entry, now).await?;
    let invitation = invite(&person, &mut session, id, name, now).await?;
    session.commit().await?;
    person.app.broker.clusters_changed();
    tracing::info!(cluster.id = %id, "cluster {} was added by {}", invitation.name, person.principal.name);
    Ok((StatusCode::CREATED, Json(invitation)))
}

fn shown(cluster: StoredCluster, open_jobs: u64, now: Timestamp) -> Cluster {
    Cluster {
        state: cluster_state(cluster.last_contact, now),
        last_contact_seconds: cluster.last_contact.map(|last| seconds_between(last, now)),
        id: cluster.id,
        name: cluster.name,
        labels: cluster.labels,
        runner_version: cluster.runner_version,
        last_contact: cluster.last_contact,
        clock_skew_seconds: cluster.clock_skew_seconds,
        profiles: cluster.profiles,
        open_jobs,
    }
}
