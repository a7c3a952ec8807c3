//! What is accepted, and what is refused with which words.

use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{ReasonCode, StateName};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Dispatcher, expect, problem};

#[tokio::test]
async fn a_retry_with_the_same_key_is_the_same_job() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let (key, body) = (Uuid::now_v7(), json!({ "command": { "shell": "date" } }));
    let response = dispatcher.submit_as(key, &body).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let first: Job = expect(response, StatusCode::ACCEPTED).await;
    assert_eq!(location, format!("/v1/jobs/{}", first.id));
    let second: Job = expect(dispatcher.submit_as(key, &body).await, StatusCode::OK).await;
    assert_eq!(second.id, first.id);
    let other = json!({ "command": { "shell": "date -u" } });
    let refused = problem(
        dispatcher.submit_as(key, &other).await,
        ProblemCode::IdempotencyKeyReused,
    )
    .await;
    assert!(
        refused.detail.contains(&first.id.to_string()),
        "{}",
        refused.detail
    );
}

#[tokio::test]
async fn a_submission_without_a_key_is_refused() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let body = json!({ "command": { "shell": "date" } });
    let refused = problem(
        dispatcher.post("/v1/jobs", &body).await,
        ProblemCode::InvalidRequest,
    )
    .await;
    assert!(
        refused.detail.contains("idempotency-key"),
        "{}",
        refused.detail
    );
}

/// Which cluster: none yet, the only one, one of several, a slip of the finger.
#[tokio::test]
async fn a_cluster_is_chosen_or_asked_for() {
    let dispatcher = Dispatcher::start().await;
    let ask = async |body: Value| dispatcher.submit_as(Uuid::now_v7(), &body).await;
    let silent = json!({ "command": { "shell": "date" } });
    problem(ask(silent.clone()).await, ProblemCode::NoClusters).await;
    dispatcher.cluster("edge-7").await;
    let job: Job = expect(ask(silent.clone()).await, StatusCode::ACCEPTED).await;
    assert_eq!(job.cluster.as_str(), "edge-7");
    dispatcher.cluster("prod-eu").await;
    let asked = problem(ask(silent).await, ProblemCode::ClusterRequired).await;
    assert!(asked.detail.contains("edge-7, prod-eu"), "{}", asked.detail);
    let named = |name| json!({ "command": { "shell": "date" }, "cluster": name });
    let near = problem(ask(named("egde-7")).await, ProblemCode::UnknownCluster).await;
    assert!(
        near.detail.contains("did you mean edge-7?"),
        "{}",
        near.detail
    );
    let far = problem(ask(named("staging")).await, ProblemCode::UnknownCluster).await;
    assert!(
        far.detail.contains("there are: edge-7, prod-eu"),
        "{}",
        far.detail
    );
    problem(ask(named("Edge_7")).await, ProblemCode::InvalidRequest).await;
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_the_reason() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let cases = [
        (
            json!({ "command": { "shell": " " } }),
            ProblemCode::InvalidCommand,
            "empty",
        ),
        (
            json!({ "command": { "argv": ["a\u{0}"] } }),
            ProblemCode::InvalidCommand,
            "NUL",
        ),
        (
            json!({ "command": { "shell": "x".repeat(131_072) } }),
            ProblemCode::InvalidCommand,
            "131072 bytes",
        ),
        (
            json!({ "command": "date" }),
            ProblemCode::InvalidRequest,
            "line 1",
        ),
        (json!({}), ProblemCode::InvalidRequest, "command"),
        (
            json!({ "command": { "shell": "date" }, "profile": "root" }),
            ProblemCode::UnknownProfile,
            "it offers: default",
        ),
        (
            json!({ "command": { "shell": "date" }, "start_within_seconds": 0 }),
            ProblemCode::InvalidDeadline,
            "7 days",
        ),
        (
            json!({ "command": { "shell": "date" }, "run_timeout_seconds": 0 }),
            ProblemCode::InvalidDeadline,
            "1 second",
        ),
        (
            json!({ "command": { "shell": "date" }, "run_timeout_seconds": 3601 }),
            ProblemCode::InvalidDeadline,
            "3600",
        ),
    ];
    for (body, code, word) in cases {
        let refused = problem(dispatcher.submit_as(Uuid::now_v7(), &body).await, code).await;
        assert!(refused.detail.contains(word), "{}", refused.detail);
    }
    let jobs: Value = dispatcher.get("/v1/jobs").await;
    assert_eq!(
        jobs,
        json!({ "jobs": [], "next": null }),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn the_longest_command_is_taken() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    // Each of these takes six bytes in JSON: the limit of the body must not be nearer than the command's.
    let job = dispatcher.submit(&"\u{1}".repeat(131_071)).await;
    assert_eq!(job.state, StateName::Queued);
}

#[tokio::test]
async fn a_job_that_waits_says_for_what() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.invite("edge-7").await;
    let job = dispatcher.submit("date").await;
    let waiting = job.waiting.unwrap();
    assert_eq!(
        waiting.code,
        ReasonCode::ClusterNeverConnected,
        "{}",
        waiting.message
    );
    dispatcher.cluster("other").await;
    let body = json!({ "command": { "shell": "date" }, "cluster": "other" });
    let job: Job = expect(
        dispatcher.submit_as(Uuid::now_v7(), &body).await,
        StatusCode::ACCEPTED,
    )
    .await;
    let waiting = job.waiting.unwrap();
    assert_eq!(waiting.code, ReasonCode::BrokerUnavailable);
    assert!(
        waiting.message.contains("no connection to RabbitMQ"),
        "{}",
        waiting.message
    );
}

#[tokio::test]
async fn pages_join_without_gap_or_overlap() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.insert(0, dispatcher.submit("date").await.id);
    }
    submitted.sort_unstable_by(|one, other| other.cmp(one));
    let (mut listed, mut before) = (Vec::new(), String::new());
    loop {
        let page: invoke_protocol::api::JobList =
            dispatcher.get(&format!("/v1/jobs?limit=2{before}")).await;
        listed.extend(page.jobs.iter().map(|job| job.id));
        let Some(next) = page.next else { break };
        before = format!("&before={next}");
    }
    assert_eq!(listed, submitted);
    let none = dispatcher
        .request(Method::GET, "/v1/jobs?cluster=edge-8")
        .send()
        .await
        .unwrap();
    problem(none, ProblemCode::UnknownCluster).await;
}
