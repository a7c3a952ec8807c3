//! How a cluster's key gets in, and who stays out.

use invoke_protocol::api::JoinInvitation;
use invoke_protocol::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::bed::{Dispatcher, expect, problem};
use crate::runner::{Runner, enrol, new_key};

#[tokio::test]
async fn a_join_token_lets_one_key_in() {
    let dispatcher = Dispatcher::start().await;
    let invitation = dispatcher.invite("edge-7").await;
    assert!(invitation.join_token.starts_with("invoke-join_"));
    assert_eq!(
        invitation.dispatcher_ca_pem.as_deref(),
        Some(dispatcher.ca_pem.as_str())
    );
    let ((mine, _), (other, _)) = (new_key(), new_key());
    problem(
        enrol(&dispatcher, "invoke-join_guess", &mine).await,
        ProblemCode::JoinTokenInvalid,
    )
    .await;
    problem(
        enrol(&dispatcher, &invitation.join_token, b"short").await,
        ProblemCode::InvalidRequest,
    )
    .await;
    assert_eq!(
        enrol(&dispatcher, &invitation.join_token, &mine)
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(
        enrol(&dispatcher, &invitation.join_token, &mine)
            .await
            .status(),
        StatusCode::OK,
        "its answer was lost"
    );
    problem(
        enrol(&dispatcher, &invitation.join_token, &other).await,
        ProblemCode::JoinTokenInvalid,
    )
    .await;
}

/// A cluster that lost its key joins anew; the key before, wherever it is, opens nothing any more.
#[tokio::test]
async fn another_invitation_replaces_the_key() {
    let dispatcher = Dispatcher::start().await;
    let invitation = dispatcher.invite("edge-7").await;
    let before = Runner::enrol(&dispatcher, &invitation).await;
    let again = dispatcher
        .post("/v1/clusters/edge-7/join-tokens", &json!({}))
        .await;
    let again: JoinInvitation = expect(again, StatusCode::CREATED).await;
    problem(
        enrol(&dispatcher, &invitation.join_token, &new_key().0).await,
        ProblemCode::JoinTokenInvalid,
    )
    .await;
    before.contact().await;
    let after = Runner::enrol(&dispatcher, &again).await;
    assert_eq!(after.cluster, before.cluster);
    after.contact().await;
    let refused = before
        .request(Method::POST, "/v1/runner/amqp-credential")
        .send()
        .await
        .unwrap();
    problem(refused, ProblemCode::Unauthenticated).await;
}

#[tokio::test]
async fn without_the_brokers_management_there_is_no_credential_but_a_reason() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let response = runner
        .request(Method::POST, "/v1/runner/amqp-credential")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["retry-after"], "2");
    let refused = problem(response, ProblemCode::Unavailable).await;
    assert!(refused.detail.contains("RabbitMQ"), "{}", refused.detail);
}
