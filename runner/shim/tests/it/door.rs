//! A runner's door, scripted.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::stream::{self, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use invoke_protocol::output::{ExitRecord, FRAME_HEADER_BYTES, Stream, frames};
use invoke_protocol::runner::{ArtifactsAck, OutputAck};
use invoke_protocol::shim::{
    ARTIFACTS, ASSIGNMENT, Assignment, CANCELLING, EXIT, FILES, ORDERS, OUTPUT, Orders,
    OrdersQuery, START_REFUSAL, STDIN, STDIN_END, StartRefusal,
};
use invoke_protocol::topology::SHIM_DOOR_NAME;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// The token that the stub takes for a pod's.
pub(crate) const TOKEN: &str = "the-pods-token";

/// What the door does and has seen. Fields may be set at any time.
#[derive(Default)]
pub(crate) struct Script {
    /// What to answer to the shim's first question; 410 if none.
    pub(crate) assignment: Option<Assignment>,
    /// For how long to hold that answer back.
    pub(crate) assignment_delay: Duration,
    pub(crate) cancel: bool,
    /// The grace of that cancellation.
    pub(crate) grace_seconds: Option<u64>,
    /// Answer 503 to this many words that the command was told to stop.
    pub(crate) failing_cancellings: u32,
    /// How often that word came.
    pub(crate) cancellings: u32,
    /// Answer 503 to this many uploads, each after its bytes have arrived.
    pub(crate) failing_uploads: u32,
    /// Store only about this many bytes of an upload, then answer 503; one upload each, the last first.
    pub(crate) cuts: Vec<usize>,
    /// Answer uploads with 507.
    pub(crate) storage_full: bool,
    /// Answer uploads with nothing at all.
    pub(crate) uploads_hang: bool,
    /// Nobody wants output any more.
    pub(crate) gone: bool,
    /// Forget the answer to this many exit records and refusals to start after storing them.
    pub(crate) lost_exit_answers: u32,
    /// The archive of attached files; 410 if none.
    pub(crate) files: Option<Vec<u8>>,
    /// Answer 503 to this many questions for files.
    pub(crate) failing_files: u32,
    /// Send only this many bytes of an answer with files, then break the line; the last first.
    pub(crate) file_cuts: Vec<usize>,
    /// Send only this many bytes of files, then nothing more for ever.
    pub(crate) files_hang_at: Option<usize>,
    /// From where on the files were asked for.
    pub(crate) files_asked: Vec<usize>,
    /// What the command is to read, as far as it was sent.
    pub(crate) stdin: Vec<u8>,
    /// Whether that is all of it.
    pub(crate) stdin_ended: bool,
    /// Answer 410 to questions for it.
    pub(crate) stdin_gone: bool,
    /// As [`Script::file_cuts`].
    pub(crate) stdin_cuts: Vec<usize>,
    /// From where on it was asked for.
    pub(crate) stdin_asked: Vec<usize>,
    pub(crate) refusals: Vec<StartRefusal>,
    /// The stream of artifacts, as far as it is stored.
    pub(crate) artifacts: Vec<u8>,
    pub(crate) artifact_uploads: usize,
    /// Store only this many bytes of an upload of artifacts, then answer 503; one upload each, the last first.
    pub(crate) artifact_cuts: Vec<usize>,
    /// As [`Script::storage_full`], [`Script::uploads_hang`] and [`Script::gone`], for artifacts.
    pub(crate) artifacts_full: bool,
    pub(crate) artifacts_hang: bool,
    pub(crate) artifacts_gone: bool,
    pub(crate) log: Vec<u8>,
    /// Count what is uploaded, output and artifacts, instead of keeping it.
    pub(crate) forgets: bool,
    /// What was counted of the output log, and of artifacts.
    pub(crate) forgotten: usize,
    pub(crate) artifacts_forgotten: usize,
    pub(crate) uploads: usize,
    pub(crate) exits: Vec<ExitRecord>,
}

/// A door that listens.
pub(crate) struct Door {
    script: Arc<Mutex<Script>>,
    changed: Arc<Notify>,
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Mutex<Script>>,
    changed: Arc<Notify>,
}

impl Door {
    pub(crate) async fn open(script: Script) -> Self {
        let certified =
            rcgen::generate_simple_self_signed(vec![SHIM_DOOR_NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            script: Arc::new(Mutex::new(script)),
            changed: Arc::new(Notify::new()),
        };
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            routes(shared.clone()),
        ));
        Self {
            script: shared.script,
            changed: shared.changed,
            address,
            ca_pem: certified.cert.pem(),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Waits until the door has seen what is asked for.
    pub(crate) async fn until(&self, what: &str, seen: impl Fn(&Script) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if seen(&self.script()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "the door has not seen {what}");
    }

    /// What was stored of one stream.
    pub(crate) fn stream(&self, stream: Stream) -> Vec<u8> {
        let script = self.script();
        frames(&script.log)
            .map(Result::unwrap)
            .filter(|frame| frame.stream == stream)
            .flat_map(|frame| frame.payload.to_vec())
            .collect()
    }

    /// The one exit record that was reported, however often.
    pub(crate) fn exit(&self) -> ExitRecord {
        let script = self.script();
        assert!(
            script.exits.windows(2).all(|pair| pair[0] == pair[1]),
            "{:?}",
            script.exits
        );
        script.exits.first().expect("no exit record").clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, routes: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), TowerToHyperService::new(routes.clone()));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route(ASSIGNMENT, post(assignment))
        .route(OUTPUT, put(output))
        .route(FILES, get(files))
        .route(STDIN, get(stdin))
        .route(START_REFUSAL, post(start_refusal))
        .route(ARTIFACTS, put(artifacts))
        .route(ORDERS, get(orders))
        .route(CANCELLING, post(cancelling))
        .route(EXIT, post(exit))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(shared)
}

impl Shared {
    fn orders(&self) -> Orders {
        let script = self.script.lock().unwrap();
        Orders {
            cancel: script.cancel,
            grace_seconds: script.grace_seconds,
        }
    }

    /// Without waking those who wait for a change.
    fn change_quietly<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let changed = self.change_quietly(change);
        self.changed.notify_waiters();
        changed
    }
}

fn authentic(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value == &format!("Bearer {TOKEN}"))
}

async fn assignment(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    assert!(authentic(&headers));
    let (assignment, delay) =
        shared.change(|script| (script.assignment.clone(), script.assignment_delay));
    tokio::time::sleep(delay).await;
    assignment.map_or(StatusCode::GONE.into_response(), |assignment| {
        Json(assignment).into_response()
    })
}

#[derive(serde::Deserialize)]
struct From {
    from: usize,
}

async fn output(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<From>,
    body: Bytes,
) -> Response {
    assert!(authentic(&headers));
    let hang = shared.change(|script| {
        script.uploads += 1;
        script.uploads_hang
    });
    if hang {
        std::future::pending::<()>().await;
    }
    shared.change(|script| {
        if script.gone {
            return StatusCode::GONE.into_response();
        }
        if script.storage_full {
            return StatusCode::INSUFFICIENT_STORAGE.into_response();
        }
        if script.failing_uploads > 0 {
            script.failing_uploads -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let stored = script.forgotten + script.log.len();
        if query.from <= stored {
            let new = body.get(stored - query.from..).unwrap_or_default();
            let cut = script
                .cuts
                .pop()
                .map_or(new.len(), |limit| whole_frames(new, limit));
            match script.forgets {
                true => script.forgotten += cut,
                false => script.log.extend_from_slice(&new[..cut]),
            }
            if cut < new.len() {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        }
        let ack = OutputAck {
            log_bytes: (script.forgotten + script.log.len()) as u64,
        };
        Json(ack).into_response()
    })
}

/// At least `limit` bytes, cut between two frames.
fn whole_frames(log: &[u8], limit: usize) -> usize {
    let mut end = 0;
    for frame in frames(log) {
        end += FRAME_HEADER_BYTES + frame.unwrap().payload.len();
        if end >= limit {
            break;
        }
    }
    end
}

async fn files(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<From>,
) -> Response {
    assert!(authentic(&headers));
    shared.change(|script| {
        script.files_asked.push(query.from);
        let Some(files) = &script.files else {
            return StatusCode::GONE.into_response();
        };
        if script.failing_files > 0 {
            script.failing_files -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let rest = files.get(query.from..).unwrap_or_default();
        match script.files_hang_at {
            Some(position) => {
                let before = rest[..position.saturating_sub(query.from)].to_vec();
                let before = stream::iter([Ok(before.into())]);
                promised(rest.len(), before.chain(stream::pending()))
            }
            None => piece(rest, script.file_cuts.pop()),
        }
    })
}

/// All of the bytes, or the first few and then a line that breaks.
fn piece(bytes: &[u8], cut: Option<usize>) -> Response {
    match cut.filter(|cut| *cut < bytes.len()) {
        Some(cut) => {
            let before = Bytes::copy_from_slice(&bytes[..cut]);
            let broken = async {
                // Else what comes before is dropped with the line.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::ErrorKind::ConnectionReset.into())
            };
            let sent = stream::iter([Ok(before)]).chain(stream::once(broken));
            promised(bytes.len(), sent)
        }
        None => Bytes::copy_from_slice(bytes).into_response(),
    }
}

/// An answer of so many bytes, whatever becomes of it.
fn promised(
    length: usize,
    body: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    let length = [(header::CONTENT_LENGTH, length.to_string())];
    (length, Body::from_stream(body)).into_response()
}

/// More than the shim takes at once.
const STDIN_PIECE_BYTES: usize = 4 << 20;

async fn stdin(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<From>,
) -> Response {
    assert!(authentic(&headers));
    shared.change(|script| script.stdin_asked.push(query.from));
    loop {
        let changed = shared.changed.notified();
        if let Some(answer) = shared.change_quietly(|script| stdin_answer(script, query.from)) {
            return answer;
        }
        changed.await;
    }
}

fn stdin_answer(script: &mut Script, from: usize) -> Option<Response> {
    if script.stdin_gone {
        return Some(StatusCode::GONE.into_response());
    }
    let rest = script.stdin.get(from..).unwrap_or_default();
    let sent = &rest[..rest.len().min(STDIN_PIECE_BYTES)];
    let is_end = script.stdin_ended && sent.len() == rest.len();
    (is_end || !sent.is_empty()).then(|| {
        let mut answer = piece(sent, script.stdin_cuts.pop());
        let is_end = if is_end { "true" } else { "false" };
        answer
            .headers_mut()
            .insert(STDIN_END, is_end.parse().unwrap());
        answer
    })
}

async fn artifacts(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<From>,
    body: Bytes,
) -> Response {
    assert!(authentic(&headers));
    assert!((1..=1 << 20).contains(&body.len()));
    let hang = shared.change(|script| {
        script.artifact_uploads += 1;
        script.artifacts_hang
    });
    if hang {
        std::future::pending::<()>().await;
    }
    shared.change(|script| {
        if script.artifacts_gone {
            return StatusCode::GONE.into_response();
        }
        if script.artifacts_full {
            return StatusCode::INSUFFICIENT_STORAGE.into_response();
        }
        let stored = script.artifacts_forgotten + script.artifacts.len();
        let new = stored
            .checked_sub(query.from)
            .and_then(|known| body.get(known..));
        let new = new.unwrap_or_default();
        let taken = script
            .artifact_cuts
            .pop()
            .unwrap_or(new.len())
            .min(new.len());
        match script.forgets {
            true => script.artifacts_forgotten += taken,
            false => script.artifacts.extend_from_slice(&new[..taken]),
        }
        if taken < new.len() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let bytes = (script.artifacts_forgotten + script.artifacts.len()) as u64;
        Json(ArtifactsAck { bytes }).into_response()
    })
}

async fn start_refusal(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(refusal): Json<StartRefusal>,
) -> StatusCode {
    assert!(authentic(&headers));
    shared.change(|script| {
        script.refusals.push(refusal);
        script.answer_to_last_word()
    })
}

async fn orders(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(followed): Query<OrdersQuery>,
) -> Json<Orders> {
    assert!(authentic(&headers));
    loop {
        let changed = shared.changed.notified();
        let orders = shared.orders();
        if (orders.cancel, orders.grace_seconds) != (followed.cancel, followed.grace_seconds) {
            return Json(orders);
        }
        changed.await;
    }
}

async fn cancelling(State(shared): State<Shared>, headers: HeaderMap) -> StatusCode {
    assert!(authentic(&headers));
    shared.change(|script| {
        if script.failing_cancellings > 0 {
            script.failing_cancellings -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        script.cancellings += 1;
        StatusCode::NO_CONTENT
    })
}

async fn exit(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(record): Json<ExitRecord>,
) -> StatusCode {
    assert!(authentic(&headers));
    shared.change(|script| {
        script.exits.push(record);
        script.answer_to_last_word()
    })
}

impl Script {
    fn answer_to_last_word(&mut self) -> StatusCode {
        if self.lost_exit_answers > 0 {
            self.lost_exit_answers -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        StatusCode::NO_CONTENT
    }
}

impl Door {
    /// Changes the script and wakes whoever waits for a change.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script());
        self.changed.notify_waiters();
    }
}
