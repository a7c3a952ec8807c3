//! A dispatcher that says what a test tells it to, over real TLS with real certificates.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use invoke_protocol::api::{JobEvent, OUTPUT_END, OUTPUT_START, SERVER_VERSION};
use invoke_protocol::output::Frame;
use invoke_protocol::problem::{Problem, ProblemCode};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::intake::Intake;
use crate::program::Certificates;

/// A scripted dispatcher; it ends with the test.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    log: Vec<u8>,
    intake: Intake,
    seen: Vec<Seen>,
    open: Arc<Open>,
}

/// How many answers are being sent bit by bit.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
    /// How many bytes of them the connections have taken so far.
    bytes: AtomicUsize,
}

/// One of them.
struct Opened(Arc<Open>);

impl Opened {
    fn new(open: &Arc<Open>) -> Self {
        let now = open.now.fetch_add(1, Ordering::SeqCst) + 1;
        open.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) route: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// What the query says.
    pub(crate) fn asked(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// A number that the query says.
    pub(crate) fn number(&self, name: &str) -> usize {
        self.asked(name).unwrap().parse().unwrap()
    }
}

/// What a route answers; its last answer is repeated for ever.
#[derive(Clone)]
pub(crate) struct Answer {
    status: StatusCode,
    ours: bool,
    media_type: &'static str,
    content: Content,
    retry_after: Option<u64>,
}

#[derive(Clone)]
enum Content {
    Whole(Bytes),
    Pieces(Vec<Piece>),
    /// The output log, from where the query says.
    Log,
    /// The same, after so long.
    SlowLog(Duration),
    /// The bytes that `Range` asks for; so many at most, and then the connection breaks.
    Range(Bytes, usize),
    /// What is there of what was sent, with this.
    Intake,
    /// The same, but nobody hears of it.
    LostIntake,
}

/// A piece of an answer that comes bit by bit.
#[derive(Clone)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// An event that ends at a position; left out for a reader who has been there.
    Output(u64, Vec<u8>),
    /// Time for what was sent to arrive on its own.
    Pause(Duration),
    /// The connection breaks.
    Cut,
    /// Nothing comes any more.
    Silence,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap();
        Self::new(status, "application/json", Content::Whole(body.into()))
    }

    pub(crate) fn problem(code: ProblemCode, detail: &str) -> Self {
        let problem = Problem::new(code, detail, "request-1");
        let body = serde_json::to_vec(&problem).unwrap();
        Self::new(
            code.status(),
            "application/problem+json",
            Content::Whole(body.into()),
        )
    }

    /// The same, asking to be asked again after so many seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    pub(crate) fn events(pieces: Vec<Piece>) -> Self {
        Self::new(200, "text/event-stream", Content::Pieces(pieces))
    }

    /// Events that come all at once.
    pub(crate) fn whole_events(bytes: Vec<u8>) -> Self {
        Self::new(200, "text/event-stream", Content::Whole(bytes.into()))
    }

    pub(crate) fn log() -> Self {
        Self::new(200, "application/octet-stream", Content::Log)
    }

    /// The same, after so long.
    pub(crate) fn slow_log(pause: Duration) -> Self {
        Self::new(200, "application/octet-stream", Content::SlowLog(pause))
    }

    /// The range of these bytes that is asked for; if it is longer than `most`, it is cut off there.
    pub(crate) fn range(bytes: &[u8], most: usize) -> Self {
        let content = Content::Range(Bytes::copy_from_slice(bytes), most);
        Self::new(206, "application/octet-stream", content)
    }

    /// What was sent is taken up.
    pub(crate) fn intake() -> Self {
        Self::new(200, "application/json", Content::Intake)
    }

    /// What was sent is taken up, and then the connection breaks.
    pub(crate) fn lost_intake() -> Self {
        Self::new(200, "application/json", Content::LostIntake)
    }

    /// The connection breaks instead of an answer, after the request has arrived.
    pub(crate) fn cut() -> Self {
        Self::pieces(200, vec![Piece::Cut])
    }

    /// An answer that comes bit by bit.
    pub(crate) fn pieces(status: u16, pieces: Vec<Piece>) -> Self {
        Self::new(status, "application/json", Content::Pieces(pieces))
    }

    /// What another kind of server says.
    pub(crate) fn foreign(status: u16, body: &'static str) -> Self {
        let content = Content::Whole(Bytes::from_static(body.as_bytes()));
        Self {
            ours: false,
            ..Self::new(status, "text/html", content)
        }
    }

    fn new(status: u16, media_type: &'static str, content: Content) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self {
            status,
            ours: true,
            media_type,
            content,
            retry_after: None,
        }
    }

    fn respond(self, seen: &Seen, log: &[u8], open: &Arc<Open>) -> Response {
        let stream = |pieces| stream(pieces, Opened::new(open));
        let mut response = Response::builder()
            .status(self.status)
            .header("content-type", self.media_type);
        if self.ours {
            response = response.header(SERVER_VERSION, "0.1.0");
        }
        if let Some(seconds) = self.retry_after {
            response = response.header("retry-after", seconds);
        }
        let body = match self.content {
            Content::Whole(bytes) => Body::from(bytes),
            Content::Pieces(mut pieces) => {
                let had: u64 = seen.header("last-event-id").parse().unwrap_or(0);
                pieces.retain(|piece| !matches!(piece, Piece::Output(end, _) if *end <= had));
                Body::from_stream(stream(pieces))
            }
            Content::Log => {
                let from = match seen.asked("last_bytes") {
                    Some(last) => last_frames(log, last.parse().unwrap()),
                    None => seen.asked("from").map_or(0, |from| from.parse().unwrap()),
                };
                let piece = first_frames(&log[from..]);
                response = response
                    .header(OUTPUT_START, from)
                    .header(OUTPUT_END, from + piece.len());
                Body::from(piece.to_vec())
            }
            Content::SlowLog(pause) => {
                response = response
                    .header(OUTPUT_START, 0)
                    .header(OUTPUT_END, log.len());
                Body::from_stream(stream(vec![
                    Piece::Pause(pause),
                    Piece::Bytes(log.to_vec()),
                ]))
            }
            Content::Range(bytes, most) => {
                let range = seen.header("range").strip_prefix("bytes=").unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let asked: Bytes =
                    bytes.slice(first.parse::<usize>().unwrap()..=last.parse::<usize>().unwrap());
                let mut pieces = vec![Piece::Bytes(asked[..asked.len().min(most)].to_vec())];
                if asked.len() > most {
                    pieces.push(Piece::Pause(Duration::from_millis(100)));
                    pieces.push(Piece::Cut);
                }
                Body::from_stream(stream(pieces))
            }
            Content::LostIntake => Body::from_stream(stream(vec![Piece::Cut])),
            Content::Intake => unreachable!("replaced by what the intake answers"),
        };
        response.body(body).unwrap()
    }
}

/// A few frames, so that a log of any length is asked for in several pieces.
fn first_frames(log: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Ok(Some((_, taken))) = Frame::decode(&log[end..])
        && end < 1500
    {
        end += taken;
    }
    &log[..end]
}

/// Where the frames begin that have the last bytes.
fn last_frames(log: &[u8], last: usize) -> usize {
    let mut begin = 0;
    while let Ok(Some((_, taken))) = Frame::decode(&log[begin..])
        && log.len() - begin - taken >= last
    {
        begin += taken;
    }
    begin
}

fn stream(
    pieces: Vec<Piece>,
    open: Opened,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    let pieces = (VecDeque::from(pieces), open);
    futures::stream::unfold(pieces, |mut pieces| async move {
        loop {
            return match pieces.0.pop_front()? {
                Piece::Bytes(bytes) | Piece::Output(_, bytes) => {
                    pieces.1.0.bytes.fetch_add(bytes.len(), Ordering::SeqCst);
                    Some((Ok(bytes.into()), pieces))
                }
                Piece::Cut => Some((Err(std::io::Error::other("cut")), pieces)),
                Piece::Silence => std::future::pending().await,
                Piece::Pause(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
            };
        }
    })
}

/// An event as it is sent.
pub(crate) fn event(position: u64, event: &JobEvent) -> Piece {
    let bytes = |kind| {
        let text = serde_json::to_string(event).unwrap();
        format!("id: {position}\nevent: {kind}\ndata: {text}\n\n").into_bytes()
    };
    match event {
        JobEvent::Job { .. } => Piece::Bytes(bytes("job")),
        JobEvent::Output { .. } => Piece::Output(position, bytes("output")),
        JobEvent::Stored { .. } => Piece::Bytes(bytes("stored")),
        JobEvent::End { .. } => Piece::Bytes(bytes("end")),
    }
}

impl Stub {
    /// Listens with these certificates.
    pub(crate) fn start(certificates: &Certificates) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let tls = TlsListener {
            listener,
            acceptor: acceptor(certificates),
        };
        runtime.spawn(async move { axum::serve(tls, router).await });
        Self {
            address,
            script,
            _runtime: runtime,
        }
    }

    /// What a route answers, one after the other: `POST /v1/jobs`.
    pub(crate) fn on(&self, route: &str, answers: Vec<Answer>) -> &Self {
        self.script
            .lock()
            .unwrap()
            .answers
            .insert(route.to_owned(), answers.into());
        self
    }

    /// The output log that [`Answer::log`] hands out.
    pub(crate) fn with_log(&self, log: Vec<u8>) -> &Self {
        self.script.lock().unwrap().log = log;
        self
    }

    /// The requests to a route so far.
    pub(crate) fn seen(&self, route: &str) -> Vec<Seen> {
        let script = self.script.lock().unwrap();
        script
            .seen
            .iter()
            .filter(|seen| match route.strip_suffix('*') {
                Some(beginning) => seen.route.starts_with(beginning),
                None => seen.route == route,
            })
            .cloned()
            .collect()
    }

    /// How many answers were sent bit by bit at the same time, at most.
    pub(crate) fn most_open(&self) -> usize {
        self.script.lock().unwrap().open.most.load(Ordering::SeqCst)
    }

    /// How many bytes of such answers the connections have taken.
    pub(crate) fn bytes_taken(&self) -> usize {
        self.script
            .lock()
            .unwrap()
            .open
            .bytes
            .load(Ordering::SeqCst)
    }

    /// Looks at what was taken up so far.
    pub(crate) fn intake<T>(&self, look: impl FnOnce(&Intake) -> T) -> T {
        look(&self.script.lock().unwrap().intake)
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let seen = Seen {
        route: format!("{} {}", parts.method, parts.uri.path()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let mut script = script.lock().unwrap();
    script.seen.push(seen.clone());
    let key = match seen.route.split_once("/v1/files/") {
        // Whoever scripts the answers does not know the digest yet.
        Some((method, _)) => format!("{method}/v1/files/*"),
        None => seen.route.clone(),
    };
    let answer = match script.answers.get_mut(&key) {
        Some(answers) if answers.len() > 1 => answers.pop_front(),
        Some(answers) => answers.front().cloned(),
        None => None,
    };
    let detail = || format!("no answer for {}", seen.route);
    let missing = || Answer::problem(ProblemCode::NoSuchRoute, &detail());
    let answer = answer.unwrap_or_else(missing);
    let answer = match answer.content {
        Content::Intake => script.intake.answer(&seen),
        Content::LostIntake => {
            script.intake.answer(&seen);
            answer
        }
        _ => answer,
    };
    answer.respond(&seen, &script.log, &script.open)
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            // A client that does not like our certificate leaves: that is what some tests are about.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn acceptor(certificates: &Certificates) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.chain(), certificates.key())
        .unwrap();
    config.alpn_protocols = certificates
        .protocols
        .iter()
        .map(|name| name.to_vec())
        .collect();
    TlsAcceptor::from(Arc::new(config))
}
