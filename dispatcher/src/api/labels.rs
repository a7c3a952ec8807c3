//! `PATCH /v1/clusters/{name}/labels`: what a cluster can be chosen by, besides its name.

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::api::CLUSTER_LABELS;
use invoke_protocol::id::ClusterName;
use invoke_protocol::labels::{Labels, LabelsPatch};
use invoke_protocol::problem::{Problem, ProblemCode};

use super::cluster_choice;
use super::path::{ClusterPath, json};
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::{audit, clusters};

/// Sets and removes labels of a cluster.
///
/// A label with a value is set, one with `null` is removed, and others stay (RFC 7396). Fan-outs that were
/// submitted before keep the clusters that they chose then.
#[utoipa::path(
    patch, path = CLUSTER_LABELS, tag = "clusters", security(("api_token" = [])),
    params(("name" = String, Path, description = "The cluster")),
    request_body = LabelsPatch,
    responses(
        (status = 200, description = "As they are now", body = Labels),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn patch(
    person: Person,
    ClusterPath(name): ClusterPath,
    body: Bytes,
) -> Result<Json<Labels>, Refusal> {
    let patch: LabelsPatch = json(&body)?;
    let now = clock::now();
    let mut session = person.app.store.write().await?;
    let cluster = cluster_choice::choose(&mut session, Some(&name)).await?;
    let patched = cluster.labels.patched(&patch);
    let labels = patched.map_err(|invalid| Refusal::invalid(invalid.to_string()))?;
    if labels == cluster.labels {
        return Ok(Json(labels));
    }
    if !clusters::relabel(&mut session, &cluster, &labels).await? {
        return Err(changed_meanwhile(&name));
    }
    let object = format!("cluster {name}");
    let entry = audit::Entry {
        who: &person.principal.name,
        action: "cluster.label",
        object: &object,
        outcome: &labels.to_string(),
    };
    audit::add(&mut session, entry, now).await?;
    session.commit().await?;
    tracing::info!(cluster.id = %cluster.id, "cluster {name} was labelled by {}", person.principal.name);
    Ok(Json(labels))
}

fn changed_meanwhile(name: &ClusterName) -> Refusal {
    let detail = format!(
        "the labels of cluster {name} were changed by somebody else at this moment, and not by this request: send it again"
    );
    Refusal::new(ProblemCode::Unavailable, detail)
}
