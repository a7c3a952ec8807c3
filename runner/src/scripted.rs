//! A dispatcher and an API server that do what a test says, and remember what they were asked.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::id::{JobId, PodUid, RunnerId};
use invoke_protocol::output::ExitRecord;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{
    ARTIFACTS, ArtifactsAck, CLAIM, COMPLETE, CONTACT, Claim, CompleteRequest, ContactResponse,
    ENROL, EnrolRequest, Enrolment, FILES, FilesQuery, OUTPUT, OutputAck, OutputQuery, PERMIT,
    Permit, REPORT, Report, STDIN, StdinQuery,
};
use invoke_protocol::shim::STDIN_END;
use invoke_protocol::topology::{pod_name, start_record_name};
use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use kube::client::Body as KubeBody;
use kube::{Api, Client};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::config::tests::config;
use crate::identity::tests::identity;
use crate::order::tests::{accepted, order};
use crate::pool::{DoorName, Pool};
use crate::recovery::Recovery;
use crate::relay;
use crate::start_record::StartRecords;
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
    /// How much a command may leave.
    pub(crate) artifacts_limits: ArtifactsLimits,
    /// The dispatcher answers nothing.
    pub(crate) no_answer: bool,
    /// The dispatcher's store was restored: it knows of no start until it is reminded.
    pub(crate) forgotten: bool,
    /// There is no room for output.
    pub(crate) full: bool,
    /// Which reports the dispatcher refuses, and with what.
    pub(crate) refuse_reports: Option<fn(&Report) -> Option<ProblemCode>>,
    /// How far the dispatcher's clock is ahead of ours, in seconds.
    pub(crate) clock_ahead: i64,
    /// How much output is stored.
    pub(crate) stored: u64,
    /// How much of the artifacts is stored.
    pub(crate) artifacts: u64,
    /// The attached files.
    pub(crate) files: Bytes,
    /// Break the line after as much of the files, once.
    pub(crate) cut_files_after: Option<usize>,
    /// How much of the files has left the dispatcher.
    pub(crate) files_sent: Arc<AtomicUsize>,
    /// What the command is to read; nothing is answered while there is nothing.
    pub(crate) stdin: watch::Sender<Option<&'static str>>,
    /// The pod that may be given something, if not every.
    pub(crate) holder: Option<String>,
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
    pub(crate) config_maps: HashMap<String, ConfigMap>,
    /// Kubernetes' answer to a new ConfigMap: a status and its words.
    pub(crate) refuse_config_map: Option<(u16, &'static str)>,
    /// Whether the namespace of the pods is being deleted.
    pub(crate) namespace_leaves: bool,
    /// How often anything was asked of the API server but to read.
    pub(crate) writes: usize,
    /// The identity's Secret.
    pub(crate) secret: Value,
}

impl Script {
    /// A cluster that has the `n`th pod, made for [`order`].
    pub(crate) fn with_pod(n: usize) -> Self {
        let pod = serde_json::from_value(json!({"metadata": {
            "name": pod_name(job()), "uid": uid(n),
            "labels": {"invoke.dev/job": job().to_string(), "app.kubernetes.io/managed-by": "invoke-runner"},
            "annotations": {"invoke.dev/order-sha256": accepted().digest.to_string()},
            "finalizers": ["invoke.dev/result"],
        }}))
        .unwrap();
        Self {
            pods: [(pod_name(job()), pod)].into(),
            ..Self::default()
        }
    }

    /// What the dispatcher says to a pod that is not the job's.
    fn refuse_pod_of(&self, pod: PodUid) -> Option<Response> {
        if self.forgotten {
            return Some(problem(ProblemCode::NotStarted));
        }
        let holder = self.holder.as_ref()?;
        (*holder != pod.to_string()).then(|| problem(ProblemCode::OtherPod))
    }

    /// The cluster remembers that the `n`th pod was permitted to start.
    pub(crate) fn with_record(mut self, n: usize) -> Self {
        let record = serde_json::from_value(json!({
            "metadata": {
                "name": start_record_name(job()), "uid": uid(99),
                "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": {"invoke.dev/start-record": job().to_string()},
                "annotations": {"invoke.dev/keep-until": "2026-11-22T11:15:00Z"},
            },
            "data": {"pod": uid(n)},
        }))
        .unwrap();
        self.config_maps.insert(start_record_name(job()), record);
        self
    }
}

type Shared = Arc<Mutex<Script>>;

/// Both, and clients of them.
pub(crate) struct World {
    script: Shared,
    pub(crate) wire: Wire,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) client: Client,
    pub(crate) pool: Pool,
    /// How much a command may leave, as the pool knows it.
    pub(crate) artifacts_limits: watch::Sender<ArtifactsLimits>,
    pub(crate) records: StartRecords,
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
        let (artifacts_limits, artifacts) = watch::channel(ArtifactsLimits::default());
        let pool = Pool::new(client.clone(), Arc::new(config()), door, artifacts);
        let records = StartRecords::new(Api::namespaced(client.clone(), "invoke-jobs"));
        Self {
            script,
            wire,
            upstream: Arc::new(upstream),
            client,
            pool,
            artifacts_limits,
            records,
        }
    }

    pub(crate) fn recovery(&self) -> Recovery {
        Recovery {
            upstream: Arc::clone(&self.upstream),
            records: self.records.clone(),
            pool: self.pool.clone(),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

async fn dispatcher(script: Shared) -> Wire {
    let routes = Router::new()
        .route(ENROL, post(enrol))
        .route(CONTACT, post(contact))
        .route(CLAIM, post(claim))
        .route(PERMIT, post(permit))
        .route(REPORT, post(report))
        .route(FILES, get(files))
        .route(STDIN, get(stdin))
        .route(OUTPUT, put(output))
        .route(ARTIFACTS, put(artifacts))
        .route(COMPLETE, post(complete))
        .layer(from_fn_with_state(Arc::clone(&script), as_scripted))
        .with_state(script);
    let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    serve(parameters, routes).await
}

/// A way to a dispatcher that shows a certificate such as this.
pub(crate) async fn wire_with(parameters: CertificateParams) -> Wire {
    serve(parameters, Router::new()).await
}

async fn serve(parameters: CertificateParams, routes: Router) -> Wire {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = relay::tls(&certificate.pem(), &key.serialize_pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(answer(listener, ServerConfig::clone(&tls), routes));
    Wire::new(url.parse().unwrap(), Some(file.path())).unwrap()
}

/// HTTP/1.1 and HTTP/2, as the dispatcher does.
async fn answer(listener: TcpListener, mut tls: ServerConfig, routes: Router) {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        tokio::spawn(async move {
            // Some clients are there to find out that the certificate is wrong.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let routes = TowerToHyperService::new(routes);
            let _cut = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), routes)
                .await;
        });
    }
}

/// Away, or with a clock of its own.
async fn as_scripted(State(script): State<Shared>, request: Request<Body>, next: Next) -> Response {
    let (no_answer, ahead) = {
        let script = script.lock().unwrap();
        (script.no_answer, script.clock_ahead)
    };
    let mut response = if no_answer {
        problem(ProblemCode::Unavailable)
    } else {
        next.run(request).await
    };
    let now = crate::clock::now() + SignedDuration::from_secs(ahead);
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    let date = HeaderValue::try_from(date.unwrap()).unwrap();
    response.headers_mut().insert(DATE, date);
    response
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

async fn contact(State(script): State<Shared>) -> Response {
    let response = ContactResponse {
        cancelling: Vec::new(),
        artifacts: script.lock().unwrap().artifacts_limits,
    };
    Json(response).into_response()
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

async fn report(State(script): State<Shared>, Json(report): Json<Report>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(code) = script.refuse_reports.and_then(|refuse| refuse(&report)) {
        return problem(code);
    }
    if let Report::Recovered { .. } = report {
        script.forgotten = false;
    }
    script.reports.push(report);
    StatusCode::NO_CONTENT.into_response()
}

async fn output(
    State(script): State<Shared>,
    Query(query): Query<OutputQuery>,
    log: Bytes,
) -> Response {
    let mut script = script.lock().unwrap();
    if script.forgotten {
        return problem(ProblemCode::NotStarted);
    }
    if script.full {
        return problem(ProblemCode::StorageFull);
    }
    if query.from > script.stored {
        return problem(ProblemCode::OutputGap);
    }
    script.stored = script.stored.max(query.from + log.len() as u64);
    Json(OutputAck {
        log_bytes: script.stored,
    })
    .into_response()
}

/// Where the stream of artifacts does not go on from what is stored, that is another gap than of output.
async fn artifacts(
    State(script): State<Shared>,
    Query(query): Query<OutputQuery>,
    piece: Bytes,
) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(refused) = script.refuse_pod_of(query.pod) {
        return refused;
    }
    if query.from > script.artifacts {
        return problem(ProblemCode::UploadGap);
    }
    script.artifacts = script.artifacts.max(query.from + piece.len() as u64);
    let bytes = script.artifacts;
    Json(ArtifactsAck { bytes }).into_response()
}

/// As fast as it is read, in pieces such as a disk gives.
async fn files(State(script): State<Shared>, Query(query): Query<FilesQuery>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(refused) = script.refuse_pod_of(query.pod) {
        return refused;
    }
    if script.files.is_empty() {
        return problem(ProblemCode::FilesNotFound);
    }
    let mut rest = script.files.slice(usize::try_from(query.from).unwrap()..);
    let (length, sent) = (rest.len(), Arc::clone(&script.files_sent));
    let mut cut_after = script.cut_files_after.take();
    let pieces = std::iter::from_fn(move || {
        if cut_after == Some(0) {
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        let piece = rest.split_to(
            rest.len()
                .min(64 * 1024)
                .min(cut_after.unwrap_or(usize::MAX)),
        );
        cut_after = cut_after.map(|left| left - piece.len());
        sent.fetch_add(piece.len(), Ordering::Relaxed);
        (!piece.is_empty()).then_some(Ok(piece))
    });
    let headers = [
        (CONTENT_TYPE, "application/gzip".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    let body = Body::from_stream(futures::stream::iter(pieces));
    (headers, body).into_response()
}

async fn stdin(State(script): State<Shared>, Query(query): Query<StdinQuery>) -> Response {
    let mut something = {
        let script = script.lock().unwrap();
        if let Some(refused) = script.refuse_pod_of(query.pod) {
            return refused;
        }
        script.stdin.subscribe()
    };
    assert_eq!(query.wait_seconds, 20);
    let is_there = something.wait_for(Option::is_some).await;
    let text = is_there.unwrap().unwrap_or_default();
    let rest = &text[usize::try_from(query.from).unwrap()..];
    ([(STDIN_END, "true")], rest).into_response()
}

async fn complete(State(script): State<Shared>, Json(request): Json<CompleteRequest>) -> Response {
    let mut script = script.lock().unwrap();
    if script.forgotten {
        return problem(ProblemCode::NotStarted);
    }
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
        .route("/api/v1/namespaces/invoke-jobs", get(get_namespace))
        .route(
            "/api/v1/namespaces/invoke-jobs/pods",
            post(create_pod).get(list_pods),
        )
        .route(
            "/api/v1/namespaces/invoke-jobs/pods/{name}",
            get(get_pod).delete(delete_pod).patch(patch_pod),
        )
        .route(
            "/api/v1/namespaces/invoke-jobs/configmaps",
            post(create_config_map).get(list_config_maps),
        )
        .route(
            "/api/v1/namespaces/invoke-jobs/configmaps/{name}",
            get(get_config_map).delete(delete_config_map),
        )
        .route(
            "/api/v1/namespaces/invoke-system/secrets/invoke-runner-identity",
            get(get_secret).put(put_secret),
        )
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .layer(from_fn_with_state(Arc::clone(&script), counted))
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

async fn counted(State(script): State<Shared>, request: Request<Body>, next: Next) -> Response {
    if request.method() != Method::GET {
        script.lock().unwrap().writes += 1;
    }
    next.run(request).await
}

async fn get_namespace(State(script): State<Shared>) -> Json<Value> {
    let leaves = script.lock().unwrap().namespace_leaves;
    let deleted = leaves.then_some("2026-11-22T10:00:00Z");
    Json(json!({"metadata": {"name": "invoke-jobs", "deletionTimestamp": deleted}}))
}

async fn list_pods(State(script): State<Shared>) -> Json<Value> {
    let pods: Vec<_> = script.lock().unwrap().pods.values().cloned().collect();
    Json(json!({"metadata": {}, "items": pods}))
}

/// With a finalizer it stays until that is taken.
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
    let pod = script.pods.get_mut(&name).unwrap();
    if pod.finalizers().is_empty() {
        return Json(script.pods.remove(&name)).into_response();
    }
    pod.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-11-22T10:00:00Z")).unwrap();
    Json(pod.clone()).into_response()
}

/// Understands one patch: the one that takes a finalizer.
async fn patch_pod(
    State(script): State<Shared>,
    Path(name): Path<String>,
    Json(patch): Json<Value>,
) -> Response {
    let mut script = script.lock().unwrap();
    let Some(pod) = script.pods.get_mut(&name) else {
        return status(404, "not found");
    };
    let patch = &patch["metadata"];
    if patch["uid"].as_str() != pod.uid().as_deref() {
        return status(422, "metadata.uid: Invalid value: field is immutable");
    }
    let taken = patch["$deleteFromPrimitiveList/finalizers"].as_array();
    let is_taken =
        |finalizer: &String| taken.is_some_and(|taken| taken.contains(&json!(finalizer)));
    pod.finalizers_mut()
        .retain(|finalizer| !is_taken(finalizer));
    let pod = pod.clone();
    if pod.finalizers().is_empty() && pod.metadata.deletion_timestamp.is_some() {
        script.pods.remove(&name);
    }
    Json(pod).into_response()
}

async fn create_config_map(
    State(script): State<Shared>,
    Json(mut made): Json<ConfigMap>,
) -> Response {
    let mut script = script.lock().unwrap();
    if let Some((code, words)) = script.refuse_config_map {
        return status(code, words);
    }
    if script.config_maps.contains_key(&made.name_any()) {
        return status(409, "configmaps already exists");
    }
    made.metadata.uid = Some(uid(99));
    made.metadata.creation_timestamp =
        serde_json::from_value(json!("2026-11-22T10:00:00Z")).unwrap();
    script.config_maps.insert(made.name_any(), made.clone());
    Json(made).into_response()
}

async fn list_config_maps(State(script): State<Shared>) -> Json<Value> {
    let found: Vec<_> = script
        .lock()
        .unwrap()
        .config_maps
        .values()
        .cloned()
        .collect();
    Json(json!({"metadata": {}, "items": found}))
}

async fn get_config_map(State(script): State<Shared>, Path(name): Path<String>) -> Response {
    let found = script.lock().unwrap().config_maps.get(&name).cloned();
    found.map_or_else(
        || status(404, "not found"),
        |found| Json(found).into_response(),
    )
}

async fn delete_config_map(State(script): State<Shared>, Path(name): Path<String>) -> Response {
    let found = script.lock().unwrap().config_maps.remove(&name);
    found.map_or_else(
        || status(404, "not found"),
        |found| Json(found).into_response(),
    )
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
