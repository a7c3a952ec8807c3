//! How every refusal looks outside, and what is logged of it: all status codes and outward sentences
//! of common cases are in this file.
//!
//! Handlers return a [`Refusal`]. [`frame`] is around all of them: it names the request, writes the
//! problem document (RFC 9457), and turns what is not ours (axum's own rejections, unknown routes,
//! panics) into one too, so that no caller ever has to read anything else.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use invoke_protocol::api::SERVER_VERSION;
use invoke_protocol::id::{FanOutId, JobId, ParseError};
use invoke_protocol::problem::{MEDIA_TYPE, Problem, ProblemCode};
use jiff::Timestamp;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::access::Denial;
use crate::store::fanouts::StoredFanOut;
use crate::store::jobs::StoredJob;
use crate::upload::{self, Misfit};
use crate::{blobs, clock, fanout, output, sealing, signing, store};

/// A request that is refused: what the caller is told, and for the log what lies behind it.
#[derive(Debug, Clone)]
pub struct Refusal {
    code: ProblemCode,
    detail: String,
    retry_after: Option<u64>,
    length: Option<u64>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Refusal {
    /// A refusal in the caller's words: what happened, to which object, and what to do now.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: retry_after(code),
            length: None,
            cause: None,
        }
    }

    /// The same, for a caller that may try again after these seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// Which problem it is.
    pub(crate) const fn code(&self) -> ProblemCode {
        self.code
    }

    /// The words for the caller.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether it says nothing of what was asked for, and the same may be taken in a moment.
    pub(crate) const fn is_passing(&self) -> bool {
        self.code.status() >= 500 || matches!(self.code, ProblemCode::TooManyRequests)
    }

    /// The same, with what lies behind it. The cause goes to the log and never to the caller.
    #[must_use]
    pub fn because(self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self {
            cause: Some(Arc::new(cause)),
            ..self
        }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidRequest, detail)
    }

    pub(crate) fn invalid_id(error: &ParseError) -> Self {
        Self::new(ProblemCode::InvalidId, error.to_string())
    }

    pub(crate) fn unauthenticated(detail: &str) -> Self {
        Self::new(ProblemCode::Unauthenticated, detail)
    }

    pub(crate) fn no_job(job: JobId) -> Self {
        Self::new(ProblemCode::JobNotFound, format!("there is no job {job}"))
    }

    pub(crate) fn no_fanout(fanout: FanOutId) -> Self {
        let detail = format!("there is no fan-out {fanout}");
        Self::new(ProblemCode::FanoutNotFound, detail)
    }

    pub(crate) fn fanout_over(fanout: &StoredFanOut) -> Self {
        let (id, state) = (fanout.id, fanout.state.name());
        let detail = format!("fan-out {id} is over: it is {state}");
        Self::new(ProblemCode::FanoutOver, detail)
    }

    pub(crate) fn job_over(job: &StoredJob) -> Self {
        let state = job.state.name();
        Self::new(
            ProblemCode::JobOver,
            format!("job {} is over: it is {state}", job.id),
        )
    }

    pub(crate) fn not_started(job: JobId) -> Self {
        let detail = format!("job {job} was not permitted to start, so nothing can have run");
        Self::new(ProblemCode::NotStarted, detail)
    }

    pub(crate) fn other_pod(job: JobId) -> Self {
        let detail = format!("the command of job {job} was started in another pod, and only there");
        Self::new(ProblemCode::OtherPod, detail)
    }

    pub(crate) fn no_stdin(job: JobId) -> Self {
        let detail =
            format!("the command of job {job} reads nothing: it was submitted without stdin");
        Self::new(ProblemCode::NoStdin, detail)
    }

    /// None of the bytes that were asked for are there: the whole has `length`.
    pub(crate) fn range_not_satisfiable(length: u64) -> Self {
        let detail = format!("there are {length} bytes, and the range has none of them");
        Self {
            length: Some(length),
            ..Self::new(ProblemCode::RangeNotSatisfiable, detail)
        }
    }

    pub(crate) fn output_expired(job: JobId, at: Timestamp) -> Self {
        let detail = format!(
            "what was kept of job {job} expired on {}: its output, files and artifacts had been kept for as long as \
             this dispatcher keeps them",
            at.strftime("%Y-%m-%d %H:%M UTC")
        );
        Self::new(ProblemCode::OutputExpired, detail)
    }

    fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        let detail =
            "something went wrong in the dispatcher; its log has more under this request's id";
        Self::new(ProblemCode::Internal, detail).because(cause)
    }

    fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        let detail = "the dispatcher cannot reach its store at the moment; the same request may be sent again";
        Self::new(ProblemCode::Unavailable, detail).because(cause)
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        if error.is_passing() {
            Self::unavailable(error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::new(ProblemCode::Forbidden, denial.to_string())
    }
}

impl From<blobs::Error> for Refusal {
    /// A disk that is full or broken, or a bucket that does not answer: who sends keeps it and sends again.
    fn from(error: blobs::Error) -> Self {
        match error {
            blobs::Error::Full(..) => Self::new(
                ProblemCode::StorageFull,
                "the dispatcher has no room for more; what it has stored stays, and the same bytes may be sent again \
                 when there is room",
            )
            .because(error),
            blobs::Error::Broken => Self::new(
                ProblemCode::Unavailable,
                "the dispatcher's disk has failed, and it takes no more until it is restarted; the same bytes may be \
                 sent again then",
            )
            .because(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<sealing::Error> for Refusal {
    fn from(error: sealing::Error) -> Self {
        Self::internal(error)
    }
}

impl From<fanout::Error> for Refusal {
    fn from(error: fanout::Error) -> Self {
        match error {
            fanout::Error::Store(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

impl From<signing::Error> for Refusal {
    fn from(error: signing::Error) -> Self {
        Self::internal(error)
    }
}

impl Refusal {
    pub(crate) fn of_output(job: JobId, error: output::Error) -> Self {
        match error {
            output::Error::NoJob => Self::no_job(job),
            output::Error::Over(job) => Self::job_over(&job),
            output::Error::NotStarted => Self::not_started(job),
            output::Error::OtherPod => Self::other_pod(job),
            output::Error::Gap { .. } => Self::new(ProblemCode::OutputGap, error.to_string()),
            output::Error::Invalid(invalid) => {
                Self::new(ProblemCode::InvalidOutput, invalid.to_string())
            }
            output::Error::Expired(at) => Self::output_expired(job, at),
            output::Error::Position { .. } => Self::invalid(error.to_string()),
            output::Error::Store(error) => error.into(),
            output::Error::Blobs(error) => error.into(),
            output::Error::Contended => Self::unavailable(error),
            output::Error::Blob { .. } => Self::internal(error),
        }
    }
}

impl Refusal {
    /// A piece of `what` that was not taken.
    pub(crate) fn of_upload(what: &str, error: upload::Error) -> Self {
        match error {
            upload::Error::Misfit(misfit) => {
                let code = match misfit {
                    Misfit::Gap { .. } => ProblemCode::UploadGap,
                    Misfit::OtherTotal { .. } | Misfit::Beyond { .. } => {
                        ProblemCode::UploadContradiction
                    }
                };
                Self::new(code, format!("{what}: {misfit}"))
            }
            upload::Error::Store(error) => error.into(),
            upload::Error::Blobs(error) => error.into(),
            upload::Error::Contended => Self::unavailable(error),
            upload::Error::Blob { .. } | upload::Error::Missing { .. } => Self::internal(error),
        }
    }
}

impl IntoResponse for Refusal {
    /// Only the status: [`frame`] knows the request's id and writes the document.
    fn into_response(self) -> Response {
        let mut response = status(self.code).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Around every request: its id, its log span, the server's version, and the problem document.
pub async fn frame(request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = id, method = %request.method(), route);
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = match refusal_of(response).await {
        Ok(response) => response,
        Err((headers, refusal)) => {
            span.in_scope(|| log(&refusal));
            document(headers, &refusal, &id)
        }
    };
    response.headers_mut().insert(
        SERVER_VERSION,
        HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
    );
    response.headers_mut().extend(date(clock::now()));
    response
}

/// `Date`, by the clock that decides everything here: a runner whose own is wrong sets its tokens by it.
/// The HTTP library would fill in this machine's clock.
fn date(now: Timestamp) -> Option<(HeaderName, HeaderValue)> {
    let text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    Some((DATE, text.parse().ok()?))
}

/// Turns a handler's panic into a refusal; the panic hook has logged where it was.
pub fn of_panic(_panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let detail = "something went wrong in the dispatcher; its log has more";
    Refusal::new(ProblemCode::Internal, detail).into_response()
}

/// What is not found by any route.
pub async fn no_such_route(request: Request) -> Refusal {
    Refusal::new(
        ProblemCode::NoSuchRoute,
        format!("there is nothing at {}", request.uri().path()),
    )
}

/// The refusal that a response stands for, with the headers to keep; or the response, if it is none.
async fn refusal_of(mut response: Response) -> Result<Response, (HeaderMap, Refusal)> {
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        return Err((HeaderMap::new(), refusal));
    }
    let code = match response.status() {
        status if status.as_u16() < 400 => return Ok(response),
        _ if response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind == "application/json") =>
        {
            return Ok(response);
        }
        StatusCode::METHOD_NOT_ALLOWED => ProblemCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::TooLarge,
        status if status.is_client_error() => ProblemCode::InvalidRequest,
        _ => ProblemCode::Internal,
    };
    // A rejection of axum's: its headers (`Allow`) stay, its one sentence becomes the detail.
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let text = to_bytes(body, 4096)
        .await
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    let detail = text
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| code.title().to_owned());
    Err((parts.headers, Refusal::new(code, detail)))
}

fn document(mut headers: HeaderMap, refusal: &Refusal, request_id: &str) -> Response {
    let problem = Problem::new(refusal.code, refusal.detail.as_str(), request_id);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.extend(
        refusal
            .retry_after
            .map(|seconds| (RETRY_AFTER, seconds.into())),
    );
    let length = refusal.length.map(|length| format!("bytes */{length}"));
    headers.extend(length.and_then(|range| Some((CONTENT_RANGE, range.parse().ok()?))));
    if refusal.code == ProblemCode::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // A problem is strings and a number: it has a JSON form.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status(refusal.code), headers, Body::from(body)).into_response()
}

/// In how many seconds the same request may succeed, if it may at all.
const fn retry_after(code: ProblemCode) -> Option<u64> {
    match code {
        ProblemCode::TooManyRequests => Some(1),
        ProblemCode::Unavailable => Some(2),
        // Somebody has to make room.
        ProblemCode::StorageFull => Some(10),
        _ => None,
    }
}

fn log(refusal: &Refusal) {
    let cause = refusal.cause.as_ref().map(|cause| chain(cause.as_ref()));
    let code = refusal.code.as_str();
    match refusal.code {
        ProblemCode::Internal => {
            tracing::error!(
                problem.code = code,
                cause,
                "a request failed: {}",
                refusal.detail
            );
        }
        ProblemCode::Unavailable => {
            tracing::warn!(
                problem.code = code,
                cause,
                "a request was put off: {}",
                refusal.detail
            );
        }
        _ => tracing::debug!(
            problem.code = code,
            cause,
            "a request was refused: {}",
            refusal.detail
        ),
    }
}

/// An error with all that lies behind it, in one line. What has told its cause itself is not asked for it.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.ends_with(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

fn status(code: ProblemCode) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_as_http_writes_it() {
        let now = "2026-11-01T08:49:37.9Z".parse().unwrap();
        let (_, date) = date(now).unwrap();
        assert_eq!(date, "Sun, 01 Nov 2026 08:49:37 GMT");
    }
}
