//! A dispatcher of one test's own, and a person who talks to it.

use std::time::Duration;

use clap::Parser as _;
use invoke_dispatcher::app::{self, Running};
use invoke_dispatcher::clock;
use invoke_dispatcher::options::{Cli, Command, Options};
use invoke_dispatcher::signing::sha256;
use invoke_dispatcher::store::api_tokens;
use invoke_protocol::api::JoinInvitation;
use invoke_protocol::job::Job;
use invoke_protocol::problem::{Problem, ProblemCode};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::runner::Runner;

/// The environment variable, or the one line that says where it comes from.
pub(crate) fn required(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `make test`, which starts what it names")
    })
}

/// A broker that is away: nothing listens on port 1.
pub(crate) const AWAY: [&str; 4] = [
    "--amqp-url",
    "amqp://127.0.0.1:1/%2f",
    "--amqp-management-url",
    "http://127.0.0.1:1",
];

/// A dispatcher that listens on a port of its own.
pub(crate) struct Dispatcher {
    pub(crate) running: Running,
    pub(crate) url: String,
    pub(crate) ca_pem: String,
    client: Client,
    token: String,
    folder: TempDir,
}

impl Dispatcher {
    /// One whose broker is away.
    pub(crate) async fn start() -> Self {
        Self::start_with(&AWAY).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments).await
    }

    async fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let running = app::start(options(&folder, arguments)).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let ca_pem = read("ca.pem");
        Self {
            url: format!("https://localhost:{}", running.address.port()),
            client: client(&ca_pem),
            ca_pem,
            token: read("local-token").trim().to_owned(),
            running,
            folder,
        }
    }

    /// Stops it and starts it again on what it left behind.
    pub(crate) async fn restart(mut self, arguments: &[&str]) -> Self {
        self.running.stop().await.unwrap();
        Self::start_in(self.folder, arguments).await
    }

    /// The token in its folder.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A token of another person.
    pub(crate) async fn token_of(&self, name: &str) -> String {
        let token = format!("invoke_{}", Uuid::new_v4());
        let mut session = self.running.app().store.write().await.unwrap();
        let (id, hash) = (Uuid::new_v4(), sha256(token.as_bytes()));
        api_tokens::replace(&mut session, id, name, &hash, clock::now())
            .await
            .unwrap();
        session.commit().await.unwrap();
        token
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        expect(
            self.request(Method::GET, path).send().await.unwrap(),
            StatusCode::OK,
        )
        .await
    }

    pub(crate) async fn job(&self, job: &Job) -> Job {
        self.get(&format!("/v1/jobs/{}", job.id)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn submit_as(&self, key: Uuid, body: &Value) -> Response {
        let request = self
            .request(Method::POST, "/v1/jobs")
            .header("idempotency-key", key.to_string());
        request.json(body).send().await.unwrap()
    }

    pub(crate) async fn submit(&self, command: &str) -> Job {
        let body = json!({ "command": { "shell": command } });
        expect(
            self.submit_as(Uuid::now_v7(), &body).await,
            StatusCode::ACCEPTED,
        )
        .await
    }

    pub(crate) async fn invite(&self, name: &str) -> JoinInvitation {
        expect(
            self.post("/v1/clusters", &json!({ "name": name })).await,
            StatusCode::CREATED,
        )
        .await
    }

    /// A cluster that has joined and has spoken.
    pub(crate) async fn cluster(&self, name: &str) -> Runner {
        let runner = Runner::enrol(self, &self.invite(name).await).await;
        runner.contact().await;
        runner
    }
}

fn options(folder: &TempDir, arguments: &[&str]) -> Options {
    let folder = folder.path().to_str().unwrap();
    let fixed = [
        "invoke-dispatcher",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        folder,
    ];
    match Cli::try_parse_from(fixed.iter().chain(arguments))
        .unwrap()
        .command
    {
        Command::Serve(options) => *options,
        Command::Openapi => unreachable!("the command line says serve"),
    }
}

pub(crate) fn client(ca_pem: &str) -> Client {
    let ca = Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .build()
        .unwrap()
}

/// The body of an answer with this status.
pub(crate) async fn expect<T: DeserializeOwned>(response: Response, status: StatusCode) -> T {
    let (found, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The problem that an answer is: its status, media type and document agree.
pub(crate) async fn problem(response: Response, code: ProblemCode) -> Problem {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{}",
        response.url()
    );
    assert_eq!(
        response.headers()["invoke-version"],
        env!("CARGO_PKG_VERSION")
    );
    let status = response.status();
    let problem: Problem = expect(response, status).await;
    assert_eq!(problem.code, code, "{}", problem.detail);
    assert_eq!(
        (problem.status, status.as_u16()),
        (code.status(), code.status())
    );
    assert!(!problem.request_id.is_empty());
    problem
}

/// Asks until it is so, for twenty seconds at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}
