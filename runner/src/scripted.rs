//! A dispatcher and an API server that do what a test says, and remember what they were asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use invoke_protocol::id::{JobId, RunnerId};
use invoke_protocol::output::ExitRecord;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{
    CLAIM, COMPLETE, Claim, CompleteRequest, ENROL, EnrolRequest, Enrolment, OUTPUT, OutputAck,
    OutputQuery, PERMIT, Permit, REPORT, Report,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::client::Body as KubeBody;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::config::tests::config;
use crate::identity::tests::identity;
use crate::order::tests::order;
use crate::pool::{DoorName, Pool};
use crate::relay;
use crate::upstream::{Upstream, Wire};

/// The uid of the `n`th pod that the scripted cluster makes.
pub(crate) fn uid(n: usize) -> String {
    format!("0197c1f0-1111-4c22-9d1b-{n:012}")
}

/// What is answered, and what was asked.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) claim: Option<Claim>,
    pub(crate) permit: Option<Permit>,
    pub(crate) enrolment: Option<Enrolment>,
    /// How much output is stored.
    pub(crate) stored: u64,
    /// Kubernetes' answer to a new pod: a status and its words.
    pub(crate) refuse_pod: Option<(u16, &'static str)>,
    /// Make the pod, but answer once that it failed.
    pub(crate) lose_answer: bool,
    /// The pod that the next token review vouches for.
    pub(crate) vouch: Option<(String, String)>,
    pub(crate) claims: usize,
    pub(crate) reports: Vec<Report>,
    pub(crate) enrols: Vec<EnrolRequest>,
    pub(crate) exits: Vec<ExitRecord>,
    pub(crate) pods: HashMap<String, Pod>,
    pub(crate) made: usize,
    /// The identity's Secret.
    pub(crate) secret: Value,
}

type Shared = Arc<Mutex<Script>>;

/// Both, and clients of them.
pub(crate) struct World {
    script: Shared,
    pub(crate) wire: Wire,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) client: Client,
    pub(crate) pool: Pool,
}

impl World {
    pub(crate) async fn new(script: Script) -> Self {
        let script = Arc::new(Mutex::new(script));
        let wire = dispatcher(Arc::clone(&script)).await;
        let client = cluster(Arc::clone(&script));
        let key = identity().cluster_key;
        let upstream = Upstream::new(
            wire.clone(),
            order().cluster,
            RunnerId("runner-0".to_owned()),
            &key,
        );
        let door = DoorName {
            service: "127.0.0.1:8443".to_owned(),
            ca: "PEM".to_owned(),
        };
        let pods = Api::namespaced(client.clone(), "invoke-jobs");
        let pool = Pool::new(pods, Arc::new(config()), door);
        Self {
            script,
            wire,
            upstream: Arc::new(upstream),
            client,
            pool,
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

async fn dispatcher(script: Shared) -> Wire {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certified.cert.pem()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = relay::tls(
        &certified.cert.pem(),
        &certified.signing_key.serialize_pem(),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let routes = Router::new()
        .route(ENROL, post(enrol))
        .route(CLAIM, post(claim))
        .route(PERMIT, post(permit))
        .route(REPORT, post(report))
        .route(OUTPUT, put(output))
        .route(COMPLETE, post(complete))
        .with_state(script);
    tokio::spawn(relay::serve(
        listener,
        tls,
        routes,
        CancellationToken::new(),
    ));
    Wire::new(url.parse().unwrap(), Some(file.path())).unwrap()
}

fn problem(code: ProblemCode) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap();
    (status, Json(Problem::new(code, "as scripted", ""))).into_response()
}

async fn enrol(State(script): State<Shared>, Json(request): Json<EnrolRequest>) -> Response {
    let mut script = script.lock().unwrap();
    script.enrols.push(request);
    script.enrolment.clone().map_or_else(
        || problem(ProblemCode::JoinTokenInvalid),
        |enrolment| Json(enrolment).into_response(),
    )
}

async fn claim(State(script): State<Shared>) -> Response {
    let mut script = script.lock().unwrap();
    script.claims += 1;
    script.claim.map_or_else(
        || problem(ProblemCode::JobNotFound),
        |claim| Json(claim).into_response(),
    )
}

async fn permit(State(script): State<Shared>) -> Response {
    let permit = script.lock().unwrap().permit.clone();
    permit.map_or_else(
        || problem(ProblemCode::Unavailable),
        |permit| Json(permit).into_response(),
    )
}

async fn report(State(script): State<Shared>, Json(report): Json<Report>) -> StatusCode {
    script.lock().unwrap().reports.push(report);
    StatusCode::NO_CONTENT
}

async fn output(
    State(script): State<Shared>,
    Query(query): Query<OutputQuery>,
    log: Bytes,
) -> Response {
    let mut script = script.lock().unwrap();
    if query.from > script.stored {
        return problem(ProblemCode::OutputGap);
    }
    script.stored = script.stored.max(query.from + log.len() as u64);
    Json(OutputAck {
        log_bytes: script.stored,
    })
    .into_response()
}

async fn complete(State(script): State<Shared>, Json(request): Json<CompleteRequest>) -> Response {
    let mut script = script.lock().unwrap();
    match script.exits.first() {
        Some(first) if *first != request.exit => problem(ProblemCode::Contradiction),
        _ => {
            script.exits.push(request.exit);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn cluster(script: Shared) -> Client {
    let routes = Router::new()
        .route("/api/v1/namespaces/invoke-jobs/pods", post(create_pod))
        .route(
            "/api/v1/namespaces/invoke-jobs/pods/{name}",
            get(get_pod).delete(delete_pod),
        )
        .route(
            "/api/v1/namespaces/invoke-system/secrets/invoke-runner-identity",
            get(get_secret).put(put_secret),
        )
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .with_state(script);
    Client::new(
        routes.map_request(|request: Request<KubeBody>| request.map(Body::new)),
        "default",
    )
}

fn status(code: u16, words: &str) -> Response {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "",
    };
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": words});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

async fn create_pod(State(script): State<Shared>, Json(mut pod): Json<Pod>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some((code, words)) = script.refuse_pod {
        return status(code, words);
    }
    if script.pods.contains_key(&pod.name_any()) {
        return status(409, "pods already exists");
    }
    script.made += 1;
    pod.metadata.uid = Some(uid(script.made));
    script.pods.insert(pod.name_any(), pod.clone());
    if std::mem::take(&mut script.lose_answer) {
        return status(504, "the answer took too long");
    }
    Json(pod).into_response()
}

async fn get_pod(State(script): State<Shared>, Path(name): Path<String>) -> Response {
    let pod = script.lock().unwrap().pods.get(&name).cloned();
    pod.map_or_else(|| status(404, "not found"), |pod| Json(pod).into_response())
}

async fn delete_pod(
    State(script): State<Shared>,
    Path(name): Path<String>,
    Json(options): Json<Value>,
) -> Response {
    let mut script = script.lock().unwrap();
    let uid = script.pods.get(&name).and_then(kube::ResourceExt::uid);
    // Without its uid nothing may be deleted: the name may be another pod's by then.
    if uid.is_none() || options["preconditions"]["uid"].as_str() != uid.as_deref() {
        return status(409, "the uid in the precondition is another");
    }
    Json(script.pods.remove(&name)).into_response()
}

async fn get_secret(State(script): State<Shared>) -> Json<Value> {
    let secret = script.lock().unwrap().secret.clone();
    // As the chart makes it: empty.
    let empty = || json!({"metadata": {"name": "invoke-runner-identity", "resourceVersion": "1"}});
    Json(if secret.is_null() { empty() } else { secret })
}

async fn put_secret(State(script): State<Shared>, Json(mut secret): Json<Value>) -> Response {
    let known = get_secret(State(Arc::clone(&script))).await.0;
    let version = |secret: &Value| {
        secret["metadata"]["resourceVersion"]
            .as_str()
            .map(ToOwned::to_owned)
    };
    // Without the version that was read, replicas would overwrite each other's keys.
    if version(&secret) != version(&known) {
        return status(409, "the object has been modified");
    }
    let next = version(&known)
        .and_then(|known| known.parse().ok())
        .unwrap_or(0)
        + 1;
    secret["metadata"]["resourceVersion"] = json!(next.to_string());
    script.lock().unwrap().secret = secret.clone();
    Json(secret).into_response()
}

async fn review(State(script): State<Shared>) -> Json<Value> {
    let status = script.lock().unwrap().vouch.clone().map_or(
        json!({"authenticated": false}),
        |(name, uid)| {
            json!({
                "authenticated": true,
                "audiences": ["invoke-runner"],
                "user": {
                    "username": "system:serviceaccount:invoke-jobs:invoke-profile-default",
                    "extra": {
                        "authentication.kubernetes.io/pod-name": [name],
                        "authentication.kubernetes.io/pod-uid": [uid],
                    },
                },
            })
        },
    );
    Json(
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {}, "status": status}),
    )
}

/// A job's id as it is in [`order`].
pub(crate) fn job() -> JobId {
    order().job
}
