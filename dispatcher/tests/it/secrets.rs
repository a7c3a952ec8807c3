//! Secret variables: what nobody sees but the permitted pod.

use aws_lc_rs::digest::{SHA256, digest};
use invoke_dispatcher::store::jobs;
use invoke_protocol::envelope::Order;
use invoke_protocol::environment::SaltedSecrets;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::Permit;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{AWAY, Dispatcher, expect, problem};
use crate::runner::{exit, pod};

const CANARY: &str = "canary-0d6c1f4e";

fn body(secret: &str) -> Value {
    json!({
        "command": { "shell": "env" },
        "environment": { "PLACE": "here" },
        "secrets": { "TOKEN": secret, "OTHER": "x" },
    })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// From its submission to its end, a secret is where it is needed and nowhere else. In a process of its own,
/// because there is one log to a process.
#[tokio::test]
async fn a_secret_is_in_no_table_no_log_and_no_answer() {
    let inner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["secrets::with_everything_logged", "--exact", "--ignored"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    let log = String::from_utf8_lossy(&inner.stderr);
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{said}{log}"
    );
    assert!(
        log.contains("was submitted by local"),
        "it is logged: {log}"
    );
    assert!(!log.contains(CANARY), "{log}");
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn with_everything_logged() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .init();
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let key = Uuid::now_v7();
    let submitted = dispatcher.submit_as(key, &body(CANARY)).await;
    assert_eq!(submitted.status(), StatusCode::ACCEPTED);
    let mut answers = submitted.text().await.unwrap();
    let job: Job = serde_json::from_str(&answers).unwrap();
    assert_eq!(job.secrets, ["OTHER", "TOKEN"], "their names are told");
    assert_eq!(job.environment.variables()["PLACE"], "here");

    let holder = pod();
    let Permit::Granted {
        envelope,
        secrets: Some(secrets),
        ..
    } = runner.permit(&job, holder).await
    else {
        panic!("the pod is not given its secrets");
    };
    let salted: SaltedSecrets = serde_json::from_slice(&secrets).unwrap();
    assert_eq!(salted.variables.expose()["TOKEN"], CANARY);
    let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
    assert_eq!(
        order.secrets_sha256.unwrap().as_bytes(),
        digest(&SHA256, &secrets).as_ref()
    );
    assert_eq!(order.environment.variables()["PLACE"], "here");
    assert!(!contains(&envelope.payload, CANARY));
    // Asked again, as after an answer that was lost.
    let Permit::Granted { secrets: again, .. } = runner.permit(&job, holder).await else {
        panic!("the pod is not permitted again");
    };
    assert_eq!(again.as_ref(), Some(&secrets));
    let refused = runner.permit(&job, pod()).await;
    assert!(matches!(refused, Permit::Refused { .. }));

    for path in ["/v1/jobs", &format!("/v1/jobs/{}", job.id)] {
        answers += &dispatcher.get::<Value>(path).await.to_string();
    }
    let wrong = json!({ "command": { "shell": "env" }, "secrets": { "TOKEN": [CANARY] } });
    for body in [wrong, json!({ "secrets": CANARY })] {
        let refused = dispatcher.submit_as(Uuid::now_v7(), &body).await;
        answers += &problem(refused, ProblemCode::InvalidRequest).await.detail;
    }
    assert!(!answers.contains(CANARY), "{answers}");

    let app = dispatcher.running.app();
    let sealed = async || {
        let mut session = app.store.read().await.unwrap();
        jobs::sealed_secrets(&mut session, job.id).await.unwrap()
    };
    assert!(sealed().await.is_some());
    let ended = runner.complete(&job, holder, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert_eq!(sealed().await, None, "erased with the end");

    let mut looked_at = 0;
    for file in ["invoke.db", "invoke.db-wal"] {
        let bytes = std::fs::read(dispatcher.file(file)).unwrap();
        assert!(!contains(&bytes, CANARY), "{file}");
        looked_at += usize::from(contains(&bytes, "PLACE"));
    }
    assert!(looked_at > 0, "what is no secret is found there");
}

/// The key that opens it is in the same file: what is erased must be gone from there, also where it filled pages
/// of its own.
#[tokio::test]
async fn nothing_of_a_sealed_secret_stays_in_the_file() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let secret = CANARY.repeat(4000);
    let submitted = dispatcher.submit_as(Uuid::now_v7(), &body(&secret)).await;
    let job: Job = expect(submitted, StatusCode::ACCEPTED).await;
    let app = dispatcher.running.app();
    let mut session = app.store.read().await.unwrap();
    let sealed = jobs::sealed_secrets(&mut session, job.id).await.unwrap();
    drop(session);
    let sealed = sealed.expect("it is sealed");
    // Restarted, it has written everything from its log into the file.
    let mut dispatcher = dispatcher.restart(&AWAY).await;
    let file = dispatcher.file("invoke.db");
    let parts_there = || {
        let bytes = std::fs::read(&file).unwrap();
        let parts = sealed.chunks_exact(64).step_by(16);
        let is_there = |part: &&[u8]| bytes.windows(64).any(|window| window == *part);
        parts.filter(is_there).count()
    };
    assert!(parts_there() > 40, "as long as it is needed, it is there");
    let (runner, holder) = (runner.at(&dispatcher), pod());
    runner.permit(&job, holder).await;
    let ended = runner.complete(&job, holder, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    dispatcher.running.stop().await.unwrap();
    assert_eq!(parts_there(), 0, "of {} bytes", sealed.len());
}

/// The same secret again is the same submission; another one is another, and the words do not say which.
#[tokio::test]
async fn a_submission_with_another_secret_is_another() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let key = Uuid::now_v7();
    let job: Job = expect(
        dispatcher.submit_as(key, &body("one")).await,
        StatusCode::ACCEPTED,
    )
    .await;
    let again: Job = expect(
        dispatcher.submit_as(key, &body("one")).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(again.id, job.id);
    let other = dispatcher.submit_as(key, &body("two")).await;
    problem(other, ProblemCode::IdempotencyKeyReused).await;
}

/// What all variables may come to, they may.
#[tokio::test]
async fn the_longest_environment_is_taken_and_no_longer_one() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    // Each of these takes six bytes in JSON.
    let body = |length: usize| {
        json!({
            "command": { "shell": "\u{1}".repeat(131_071) },
            "environment": { "A": "\u{1}".repeat(length) },
            "secrets": { "B": "x".repeat(1000) },
        })
    };
    let fits = 128 * 1024 - 1000 - 6;
    let taken = dispatcher.submit_as(Uuid::now_v7(), &body(fits)).await;
    expect::<Job>(taken, StatusCode::ACCEPTED).await;
    let refused = dispatcher.submit_as(Uuid::now_v7(), &body(fits + 1)).await;
    let refused = problem(refused, ProblemCode::InvalidRequest).await;
    assert!(refused.detail.contains("131073"), "{}", refused.detail);
}
