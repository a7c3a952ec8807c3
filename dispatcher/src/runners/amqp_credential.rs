//! `POST /v1/runner/amqp-credential`: how a runner reaches its own queue, and nothing else.

use axum::Json;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{AMQP_CREDENTIAL, AmqpCredential};
use invoke_protocol::topology::{command_queue, runner_user};

use crate::access::runner::Runner;
use crate::problem::Refusal;

/// Makes, or makes again, the cluster's user at the broker.
#[utoipa::path(
    post, path = AMQP_CREDENTIAL, tag = "runner", security(("runner_token" = [])),
    responses(
        (status = 200, description = "The credential", body = AmqpCredential),
        (status = 503, description = "The broker's management API does not answer", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn amqp_credential(runner: Runner) -> Result<Json<AmqpCredential>, Refusal> {
    let (app, cluster) = (&runner.app, &runner.cluster);
    let key = cluster.public_key.as_deref().unwrap_or_default();
    let password = app.signer.amqp_password(cluster.id, key);
    // Each time, not once: whoever asks may ask because the broker has lost its users.
    app.admin.grant(&cluster.name, &password).await.map_err(|error| {
        let detail = "RabbitMQ's management API does not do what the dispatcher asks; the dispatcher's log says why. Ask again";
        Refusal::new(ProblemCode::Unavailable, detail).because(error)
    })?;
    Ok(Json(AmqpCredential {
        url: app.addresses.amqp_url.clone(),
        username: runner_user(&cluster.name),
        password,
        ca_pem: app.addresses.amqp_ca_pem.clone(),
        queue: command_queue(&cluster.name),
    }))
}
