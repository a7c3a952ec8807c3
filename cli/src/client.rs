//! Typed calls to the dispatcher. One call is one attempt: who may repeat it knows why it may.

use std::time::Duration;

use invoke_protocol::api::{
    self, AddClusterRequest, ArtifactList, ClusterList, EventsQuery, JobList, JobQuery, JobsQuery,
    JoinInvitation, OutputQuery,
};
use invoke_protocol::id::{ClusterName, JobId};
use invoke_protocol::job::{CancelRequest, Job, JobSpec};
use invoke_protocol::labels::{Labels, LabelsPatch};
use invoke_protocol::problem::{self, Problem};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::{Host, Url};
use uuid::Uuid;

use crate::settings::Settings;

mod error;
mod event_stream;
mod fanouts;
mod names;
mod schedules;
mod uploads;
mod unreachable;

pub use error::Error;
pub use event_stream::{EventStream, StreamError};
pub use unreachable::Cause;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent: three keep-alives of an event stream.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where files are uploaded: the last piece is answered when all of them were read again and
/// compared with their digest. That the other side is still there, HTTP/2 asks meanwhile.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long the dispatcher is asked to hold a long-poll; well below `READ_TIMEOUT`.
pub const LONG_POLL_SECONDS: u64 = 20;
/// The longest answer that is read into memory. A page of 500 jobs with the longest commands fits.
const MAX_ANSWER_BYTES: usize = 512 * 1024 * 1024;
/// The longest piece of output that is read: twice what a dispatcher answers at once.
const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;
/// The longest list of artifacts that is read: 100,000 of them with long paths.
const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;
/// The longest refusal that is read.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// A connection to one dispatcher with one token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    url_origin: String,
    token_origin: String,
}

impl Client {
    /// Prepares calls; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] for a certificate file without certificates, or a system without any.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Self::with_timeout(settings, READ_TIMEOUT)
    }

    /// The same, for uploads of files.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn for_uploads(settings: &Settings) -> Result<Self, Error> {
        Self::with_timeout(settings, UPLOAD_TIMEOUT)
    }

    fn with_timeout(settings: &Settings, read_timeout: Duration) -> Result<Self, Error> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", settings.token.expose()))
            .unwrap_or(HeaderValue::from_static("Bearer"));
        bearer.set_sensitive(true);
        let mut http = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(
                reqwest::header::AUTHORIZATION,
                bearer,
            )]))
            .user_agent(concat!("invoke/", env!("CARGO_PKG_VERSION")))
            // A dispatcher never sends us elsewhere, and nobody else gets the token.
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(read_timeout)
            // Without, a connection that died silently is found dead only by the read time-out.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .dns_resolver(names::SystemNames);
        if is_this_machine(&settings.url.value) {
            // A proxy would look for it on its own machine.
            http = http.no_proxy();
        }
        if let Some(ca) = &settings.ca {
            let trusted = reqwest::Certificate::from_pem_bundle(&ca.value).map_err(Error::Setup)?;
            http = http.tls_certs_only(trusted);
        }
        Ok(Self {
            http: http.build().map_err(Error::Setup)?,
            url: settings.url.value.as_str().trim_end_matches('/').to_owned(),
            url_origin: settings.url.origin.to_string(),
            token_origin: settings.token.origin().to_owned(),
        })
    }

    /// Submits a job. The same key with the same spec is the same job, however often it is sent.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn submit(&self, spec: &JobSpec, key: Uuid) -> Result<Job, Error> {
        let key = key.hyphenated().to_string();
        let request = self
            .request(Method::POST, api::JOBS)
            .header(api::IDEMPOTENCY_KEY, key);
        self.answer(request.json(spec)).await
    }

    /// The jobs, the newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn jobs(&self, query: &JobsQuery) -> Result<JobList, Error> {
        self.answer(self.request(Method::GET, api::JOBS).query(query))
            .await
    }

    /// One job, at once or when there is news of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn job(&self, id: JobId, query: &JobQuery) -> Result<Job, Error> {
        let request = self.job_request(Method::GET, api::JOB, id).query(query);
        self.answer(request).await
    }

    /// The events of a job from a position of its output log on; `None` if what came is no event
    /// stream, because something on the way does not let one through.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn events(&self, id: JobId, from: u64) -> Result<Option<EventStream>, Error> {
        let request = self
            .job_request(Method::GET, api::JOB_EVENTS, id)
            .query(&EventsQuery {
                from,
                announce: true,
            })
            .header(ACCEPT, "text/event-stream")
            .header("last-event-id", from);
        let response = self.send(request).await?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let is_stream = media_type.is_some_and(|media| media.starts_with("text/event-stream"));
        Ok(is_stream.then(|| EventStream::new(response)))
    }

    /// A piece of a job's output log, whole frames from a position on; empty where the log ends.
    ///
    /// # Errors
    /// See [`Error`]. A body that is cut off is [`Error::Unreachable`].
    pub async fn output(&self, id: JobId, from: u64) -> Result<Vec<u8>, Error> {
        let query = OutputQuery {
            from,
            last_bytes: None,
        };
        let (_, log) = self.piece_of_output(id, query, |_| Some(from)).await?;
        Ok(log)
    }

    /// The piece of a job's output log that begins at least so many bytes before its end, and where it
    /// begins.
    ///
    /// # Errors
    /// As [`Client::output`].
    pub async fn last_output(&self, id: JobId, last_bytes: u64) -> Result<(u64, Vec<u8>), Error> {
        let query = OutputQuery {
            from: 0,
            last_bytes: Some(last_bytes),
        };
        let start = |headers: &HeaderMap| position(headers, api::OUTPUT_START);
        self.piece_of_output(id, query, start).await
    }

    async fn piece_of_output(
        &self,
        id: JobId,
        query: OutputQuery,
        start: impl Fn(&HeaderMap) -> Option<u64>,
    ) -> Result<(u64, Vec<u8>), Error> {
        let request = self.job_request(Method::GET, api::JOB_OUTPUT, id);
        let response = self.send(request.query(&query)).await?;
        let (start, end) = (
            start(response.headers()),
            position(response.headers(), api::OUTPUT_END),
        );
        let log = self.body(response, MAX_OUTPUT_BYTES).await?;
        match (start, end) {
            (Some(start), Some(end)) if end.checked_sub(start) == Some(log.len() as u64) => {
                Ok((start, log))
            }
            _ => Err(self.nonsense("a piece of output does not have the length that it claims")),
        }
    }

    /// The artifacts of a job that is over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn artifacts(&self, id: JobId) -> Result<ArtifactList, Error> {
        let request = self.job_request(Method::GET, api::JOB_ARTIFACTS, id);
        let body = self
            .body(self.send(request).await?, MAX_MANIFEST_BYTES)
            .await?;
        serde_json::from_slice(&body).map_err(|error| self.nonsense(error.to_string()))
    }

    /// Bytes of a job's artifacts, from one position to before another, piece by piece. The range must not
    /// be empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn artifact(
        &self,
        id: JobId,
        range: std::ops::Range<u64>,
    ) -> Result<ArtifactBytes<'_>, Error> {
        let header = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let request = self
            .job_request(Method::GET, api::JOB_ARTIFACTS_CONTENT, id)
            .header(RANGE, header);
        let response = self.send(request).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.nonsense("a range of bytes is not answered as one"));
        }
        Ok(ArtifactBytes {
            client: self,
            response,
        })
    }

    /// Asks for a job to be stopped. To ask again changes nothing, or shortens the grace.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel(&self, id: JobId, how: CancelRequest) -> Result<Job, Error> {
        let request = self.job_request(Method::POST, api::JOB_CANCEL, id);
        self.answer(request.json(&how)).await
    }

    /// The clusters, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clusters(&self) -> Result<ClusterList, Error> {
        self.answer(self.request(Method::GET, api::CLUSTERS)).await
    }

    /// Adds a cluster.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_cluster(&self, cluster: &AddClusterRequest) -> Result<JoinInvitation, Error> {
        let request = self.request(Method::POST, api::CLUSTERS);
        self.answer(request.json(cluster)).await
    }

    /// Changes a cluster's labels, and returns all of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn label_cluster(
        &self,
        name: &ClusterName,
        patch: &LabelsPatch,
    ) -> Result<Labels, Error> {
        let path = api::CLUSTER_LABELS.replace("{name}", name.as_str());
        self.answer(self.request(Method::PATCH, &path).json(patch))
            .await
    }

    /// Makes another join token for a cluster.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn join_token(&self, name: &ClusterName) -> Result<JoinInvitation, Error> {
        let path = api::CLUSTER_JOIN_TOKENS.replace("{name}", name.as_str());
        self.answer(self.request(Method::POST, &path)).await
    }

    fn job_request(&self, method: Method, path: &str, id: JobId) -> RequestBuilder {
        self.request(method, &path.replace("{id}", &id.to_string()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let body = self.body(response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| self.nonsense(error.to_string()))
    }

    /// Sends a request, and hands on only what a dispatcher says when it agrees.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !response.headers().contains_key(api::SERVER_VERSION) {
            let origin = self.url_origin.clone();
            return Err(Error::NotADispatcher {
                url: self.url.clone(),
                origin,
                status,
            });
        }
        if status.is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = match self.body(response, MAX_PROBLEM_BYTES).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => {
                let token_origin = self.token_origin.clone();
                // The status line is what decides, whatever the body claims.
                let problem = Box::new(Problem {
                    status: status.as_u16(),
                    ..problem
                });
                Error::Refused {
                    problem,
                    token_origin,
                    retry_after,
                }
            }
            Err(_) => self.nonsense(format!("{status} without {}", problem::MEDIA_TYPE)),
        }
    }

    async fn body(&self, mut response: Response, most: usize) -> Result<Vec<u8>, Error> {
        // In one go if it says how long it is: what grows by doubling is in memory twice.
        let length = response.content_length().unwrap_or_default();
        let length = usize::try_from(length).unwrap_or(most).min(most);
        let mut body = Vec::with_capacity(length.min(MAX_OUTPUT_BYTES));
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            if body.len() + piece.len() > most {
                return Err(self.nonsense(format!("it is longer than {most} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        self.because(Cause::of(error))
    }

    fn because(&self, cause: Cause) -> Error {
        let (url, origin) = (self.url.clone(), self.url_origin.clone());
        Error::Unreachable {
            url,
            origin,
            cause: Box::new(cause),
        }
    }

    /// A connection that was cut in the middle of an answer.
    #[must_use]
    pub(crate) fn cut(&self) -> Error {
        self.because(Cause::Cut)
    }

    /// An answer that makes no sense.
    #[must_use]
    pub(crate) fn nonsense(&self, why: impl Into<String>) -> Error {
        Error::Nonsense {
            url: self.url.clone(),
            why: why.into(),
        }
    }
}

/// Bytes that come piece by piece.
pub struct ArtifactBytes<'a> {
    client: &'a Client,
    response: Response,
}

impl ArtifactBytes<'_> {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unreachable`], if the connection is cut.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        let piece = self.response.chunk().await;
        piece.map_err(|error| self.client.unreachable(&error))
    }
}

fn position(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// When a dispatcher wants to be asked again, in the form in which dispatchers say it: in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
