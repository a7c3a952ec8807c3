//! Calls to the runner's door ([`invoke_protocol::shim`]).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use invoke_protocol::api::MAX_STDIN_CHUNK_BYTES;
use invoke_protocol::output::ExitRecord;
use invoke_protocol::runner::{ArtifactsAck, OutputAck};
use invoke_protocol::shim::{
    ARTIFACTS, ASSIGNMENT, Assignment, CANCELLING, EXIT, FILES, ORDERS, OUTPUT, Orders,
    OrdersQuery, START_REFUSAL, STDIN, STDIN_END, StartRefusal,
};
use invoke_protocol::topology::SHIM_DOOR_NAME;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::config::Config;

/// A runner that does not answer is given up soon: another replica may.
const CONNECT: Duration = Duration::from_secs(5);
/// A short question and its answer, with the runner's own call to the dispatcher in between.
const CALL: Duration = Duration::from_secs(40);
/// How long an answer that may take its time may pause.
const SILENCE: Duration = Duration::from_secs(60);
/// A chunk of 1 MiB over a line of 64 kbit/s takes over two minutes.
const UPLOAD: Duration = Duration::from_secs(300);

/// A call that brought no answer. All of them may be repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to read the pod's token in {path}")]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the runner cannot be reached")]
    Call(#[source] reqwest::Error),
    #[error("the runner has said nothing for {} seconds", SILENCE.as_secs())]
    Silent,
    #[error("the runner answered {0}")]
    Refused(StatusCode),
}

impl Error {
    /// Whether the dispatcher has no room.
    pub(crate) fn is_storage_full(&self) -> bool {
        matches!(self, Self::Refused(StatusCode::INSUFFICIENT_STORAGE))
    }

    /// Whether the same call would be refused again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_client_error())
    }
}

impl<T> Answer<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Is(answer) => Answer::Is(map(answer)),
            Self::Gone => Answer::Gone,
        }
    }
}

/// What is sent piece by piece until all of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// The output log.
    Output,
    /// The stream of artifacts.
    Artifacts,
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "output",
            Self::Artifacts => "artifacts",
        })
    }
}

/// A part of what the command is to read.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// Whether nothing follows it, ever.
    pub(crate) is_last: bool,
}

/// An answer's body, as it comes: as much as it likes, for as long as it goes on.
#[derive(Debug)]
pub(crate) struct Body(Response);

impl Body {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = timeout(SILENCE, self.0.chunk()).await;
        next.map_or(Err(Error::Silent), |next| next.map_err(Error::Call))
    }
}

/// The certificate authority in the pod's environment is none.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up TLS with the runner's certificate authority")]
pub(crate) struct InvalidAuthority(#[source] reqwest::Error);

/// What the runner says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    Is(T),
    /// 410: nobody wants anything from this pod any more.
    Gone,
}

/// The runner's door, behind whichever replica answers.
#[derive(Debug)]
pub(crate) struct Door {
    client: Client,
    base: String,
    token_file: PathBuf,
}

impl Door {
    pub(crate) fn new(config: &Config) -> Result<Self, InvalidAuthority> {
        let authority =
            Certificate::from_pem(config.runner_ca.as_bytes()).map_err(InvalidAuthority)?;
        let client = Client::builder()
            // This authority and no other: what else the image trusts does not matter here.
            .tls_certs_only([authority])
            // The name is what the certificate is checked for; no resolver is asked for it.
            .resolve(SHIM_DOOR_NAME, config.runner_address)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            // A node that vanished sends no reset: without these a call would hang for its whole time.
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_user_timeout(Duration::from_secs(30))
            .build()
            .map_err(InvalidAuthority)?;
        Ok(Self {
            client,
            base: format!("https://{SHIM_DOOR_NAME}:{}", config.runner_address.port()),
            token_file: config.token_file.clone(),
        })
    }

    pub(crate) async fn assignment(&self) -> Result<Answer<Assignment>, Error> {
        self.call(self.client.post(self.url(ASSIGNMENT)).timeout(CALL))
            .await
    }

    /// How far it is stored, after `chunk` was offered at `from`.
    pub(crate) async fn upload(
        &self,
        what: Upload,
        from: u64,
        chunk: Bytes,
    ) -> Result<Answer<u64>, Error> {
        let request = |path| {
            let request = self.client.put(self.url(path)).query(&[("from", from)]);
            request.body(chunk).timeout(UPLOAD)
        };
        match what {
            Upload::Output => {
                let ack: Answer<OutputAck> = self.call(request(OUTPUT)).await?;
                Ok(ack.map(|ack| ack.log_bytes))
            }
            Upload::Artifacts => {
                let ack: Answer<ArtifactsAck> = self.call(request(ARTIFACTS)).await?;
                Ok(ack.map(|ack| ack.bytes))
            }
        }
    }

    /// The archive of attached files from a position on.
    pub(crate) async fn files(&self, from: u64) -> Result<Answer<Body>, Error> {
        let request = self.client.get(self.url(FILES)).query(&[("from", from)]);
        self.body(request).await
    }

    /// What the command is to read from a position on: one piece of it, or what of it came through.
    pub(crate) async fn stdin(&self, from: u64) -> Result<Answer<Piece>, Error> {
        let request = self.client.get(self.url(STDIN)).query(&[("from", from)]);
        let Answer::Is(mut body) = self.body(request).await? else {
            return Ok(Answer::Gone);
        };
        let is_end = body.0.headers().get(STDIN_END);
        let is_end = is_end.is_some_and(|value| value.as_bytes() == b"true");
        let mut piece = Piece::default();
        while piece.bytes.len() <= MAX_STDIN_CHUNK_BYTES {
            match body.next().await {
                Ok(Some(more)) => piece.bytes.extend_from_slice(&more),
                Ok(None) => {
                    piece.is_last = is_end;
                    break;
                }
                Err(error) if piece.bytes.is_empty() => return Err(error),
                // What came before the line broke is as good as the rest.
                Err(_) => break,
            }
        }
        Ok(Answer::Is(piece))
    }

    /// What is new, compared with the orders that are followed already.
    pub(crate) async fn orders(&self, followed: OrdersQuery) -> Result<Answer<Orders>, Error> {
        let request = self.client.get(self.url(ORDERS)).query(&followed);
        self.call(request.timeout(CALL)).await
    }

    pub(crate) async fn cancelling(&self) -> Result<(), Error> {
        let request = self.client.post(self.url(CANCELLING)).timeout(CALL);
        self.send(request).await.map(drop)
    }

    pub(crate) async fn exit(&self, record: &ExitRecord) -> Result<Answer<()>, Error> {
        self.tell(self.client.post(self.url(EXIT)).json(record))
            .await
    }

    pub(crate) async fn start_refusal(&self, refusal: &StartRefusal) -> Result<Answer<()>, Error> {
        self.tell(self.client.post(self.url(START_REFUSAL)).json(refusal))
            .await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>, Error> {
        match self.send(request).await? {
            Answer::Is(response) => response.json().await.map(Answer::Is).map_err(Error::Call),
            Answer::Gone => Ok(Answer::Gone),
        }
    }

    async fn tell(&self, request: RequestBuilder) -> Result<Answer<()>, Error> {
        let answer = self.send(request.timeout(CALL)).await?;
        Ok(answer.map(drop))
    }

    async fn body(&self, request: RequestBuilder) -> Result<Answer<Body>, Error> {
        let sent = timeout(SILENCE, self.send(request)).await;
        Ok(sent.unwrap_or(Err(Error::Silent))?.map(Body))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer<Response>, Error> {
        let token = std::fs::read_to_string(&self.token_file).map_err(|source| Error::Token {
            path: self.token_file.clone(),
            source,
        })?;
        let response = request
            .bearer_auth(token.trim())
            .send()
            .await
            .map_err(Error::Call)?;
        match response.status() {
            status if status.is_success() => Ok(Answer::Is(response)),
            StatusCode::GONE => Ok(Answer::Gone),
            status => Err(Error::Refused(status)),
        }
    }
}
