//! No door opens without its key, and every refusal is a problem document.

use invoke_protocol::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::bed::{Dispatcher, problem};

/// The routes that need no credential in a header. A route that is not here must refuse.
const PUBLIC: [(&str, &str); 1] = [("post", "/v1/runner/enrol")];

/// Every path and method of the document, with something for its parameters.
fn all_routes() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&invoke_dispatcher::openapi().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if matches!(method.as_str(), "get" | "put" | "post" | "delete" | "patch") {
                routes.push((method.clone(), path.clone()));
            }
        }
    }
    routes
}

fn filled(path: &str) -> String {
    path.replace("{id}", "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10")
        .replace("{name}", "edge-7")
        .replace("{sha256}", &"0".repeat(64))
}

#[tokio::test]
async fn every_route_refuses_without_a_credential() {
    let dispatcher = Dispatcher::start().await;
    let routes = all_routes();
    assert!(routes.len() >= 25, "the document lacks routes: {routes:?}");
    for (method, path) in routes
        .iter()
        .filter(|(method, path)| !PUBLIC.contains(&(method, path)))
    {
        let ask = || dispatcher.anonymous(method.to_uppercase().parse().unwrap(), &filled(path));
        for request in [
            ask(),
            ask().bearer_auth("invoke_guess"),
            ask().basic_auth("local", Some("x")),
        ] {
            let refused =
                problem(request.send().await.unwrap(), ProblemCode::Unauthenticated).await;
            assert!(!refused.detail.is_empty(), "{method} {path}");
        }
    }
}

/// A person's token is no runner's, nor the other way round.
#[tokio::test]
async fn one_kind_of_credential_does_not_open_the_other_doors() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    for (method, path) in all_routes()
        .iter()
        .filter(|(method, path)| !PUBLIC.contains(&(method, path)))
    {
        let (method, filled): (Method, _) = (method.to_uppercase().parse().unwrap(), filled(path));
        let request = if path.starts_with("/v1/runner/") {
            dispatcher.request(method, &filled)
        } else {
            runner.request(method, &filled)
        };
        problem(request.send().await.unwrap(), ProblemCode::Unauthenticated).await;
    }
}

#[tokio::test]
async fn what_is_not_ours_becomes_a_problem_too() {
    let dispatcher = Dispatcher::start().await;
    let ask = async |method, path: &str, code| {
        problem(dispatcher.request(method, path).send().await.unwrap(), code).await
    };
    ask(Method::GET, "/v1/nothing", ProblemCode::NoSuchRoute).await;
    ask(Method::GET, "/", ProblemCode::NoSuchRoute).await;
    ask(Method::DELETE, "/v1/jobs", ProblemCode::MethodNotAllowed).await;
    ask(
        Method::GET,
        "/v1/jobs?limit=many",
        ProblemCode::InvalidRequest,
    )
    .await;
    ask(
        Method::GET,
        "/v1/jobs?limit=501",
        ProblemCode::InvalidRequest,
    )
    .await;
    ask(Method::GET, "/v1/jobs/42", ProblemCode::InvalidId).await;
    ask(Method::GET, "/v1/jobs/%ff", ProblemCode::InvalidRequest).await;
    ask(
        Method::GET,
        "/v1/jobs/0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10",
        ProblemCode::JobNotFound,
    )
    .await;
    ask(
        Method::POST,
        "/v1/jobs/0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10/cancel",
        ProblemCode::JobNotFound,
    )
    .await;
    ask(
        Method::POST,
        "/v1/clusters/edge-7/join-tokens",
        ProblemCode::UnknownCluster,
    )
    .await;
    let large = dispatcher
        .request(Method::POST, "/v1/jobs")
        .body(vec![b' '; 3 * 1024 * 1024]);
    problem(large.send().await.unwrap(), ProblemCode::TooLarge).await;
}

#[tokio::test]
async fn health_needs_no_credential_and_says_nothing_of_jobs() {
    let dispatcher = Dispatcher::start().await;
    let ask = async |path: &str| {
        dispatcher
            .anonymous(Method::GET, path)
            .send()
            .await
            .unwrap()
    };
    assert_eq!(ask("/healthz").await.text().await.unwrap(), "ok\n");
    let ready = ask("/readyz").await;
    assert_eq!(
        ready.status(),
        StatusCode::OK,
        "jobs are taken without a broker"
    );
    assert_eq!(
        ready.text().await.unwrap(),
        r#"{"store":true,"broker":false,"blobs":true}"#
    );
    let document: Value = ask("/v1/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}

/// Nobody is served in clear text.
#[tokio::test]
async fn plain_http_is_no_door() {
    let dispatcher = Dispatcher::start().await;
    let plain = dispatcher.url.replace("https://", "http://");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(client.get(plain + "/healthz").send().await.is_err());
}

#[tokio::test]
async fn a_restart_keeps_the_authority_the_token_and_the_jobs() {
    let away = [
        "--amqp-url",
        "amqp://127.0.0.1:1/%2f",
        "--amqp-management-url",
        "http://127.0.0.1:1",
    ];
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let (ca_pem, key) = (
        dispatcher.ca_pem.clone(),
        runner.enrolment.signing_keys.clone(),
    );
    let dispatcher = dispatcher.restart(&away).await;
    assert_eq!(dispatcher.ca_pem, ca_pem);
    assert_eq!(dispatcher.running.app().signer.public(), key[0]);
    assert_eq!(dispatcher.job(&job).await.id, job.id);
}

/// Dispatchers that share a database have a folder each, and a token in each; who rotates one's does not
/// lock out who uses the other's.
#[tokio::test]
async fn each_folder_has_a_local_token_of_its_own() {
    let shared = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/invoke.db", shared.path().display());
    let arguments = [
        "--amqp-url",
        "amqp://127.0.0.1:1/%2f",
        "--amqp-management-url",
        "http://127.0.0.1:1",
        "--database-url",
        &database,
    ];
    let one = Dispatcher::start_with(&arguments).await;
    let other = Dispatcher::start_with(&arguments).await;
    let status = async |at: &Dispatcher, token: &str| {
        let request = at.anonymous(Method::GET, "/v1/jobs").bearer_auth(token);
        request.send().await.unwrap().status()
    };
    let (ones, others) = (one.token().to_owned(), other.token().to_owned());
    assert_ne!(ones, others);
    for dispatcher in [&one, &other] {
        assert_eq!(status(dispatcher, &ones).await, StatusCode::OK);
        assert_eq!(status(dispatcher, &others).await, StatusCode::OK);
    }
    // This is how one is rotated.
    std::fs::remove_file(one.file("local-token")).unwrap();
    let one = one.restart(&arguments).await;
    assert_eq!(status(&other, one.token()).await, StatusCode::OK);
    assert_eq!(status(&other, &others).await, StatusCode::OK);
    assert_eq!(status(&other, &ones).await, StatusCode::UNAUTHORIZED);
}
