//! Typed calls to the dispatcher ([`invoke_protocol::runner`]). The only address outside the cluster
//! that the runner knows besides the broker's, which it learns from here.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use invoke_protocol::files::FILES_WITHIN_SECONDS;
use invoke_protocol::id::{ClusterId, JobId, RunnerId};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{
    AMQP_CREDENTIAL, ARTIFACTS, AmqpCredential, ArtifactsAck, CLAIM, COMPLETE, CONTACT, Claim,
    CompleteRequest, ContactRequest, ContactResponse, ENROL, EnrolRequest, Enrolment, FILES,
    FilesQuery, MAX_TOKEN_LIFETIME_SECONDS, OUTPUT, OutputAck, OutputQuery, PERMIT, Permit,
    PermitRequest, REPORT, Report, STDIN, StdinQuery, TOKEN_AUDIENCE, TokenClaims, path,
};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::DATE;
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use rustls::CertificateError;
use serde::de::DeserializeOwned;
use url::Url;

use crate::clock;

const CONNECT: Duration = Duration::from_secs(10);
/// A small question.
const CALL: Duration = Duration::from_secs(20);
/// A chunk of 1 MiB over a line of 64 kbit/s takes over two minutes.
const UPLOAD: Duration = Duration::from_secs(240);
/// A whole archive, at the pace of its shim, who has no longer.
const DOWNLOAD: Duration = Duration::from_secs(FILES_WITHIN_SECONDS);
/// What is shorter does not hold up the questions that it travels with.
const SHORT_BYTES: usize = 64 * 1024;
/// What a held-back answer may take beyond the wait that was asked for.
const CONTACT_SLACK: Duration = Duration::from_secs(15);

/// A call that did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No answer, or not a whole one. The call may have had its effect.
    #[error("the dispatcher cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// An answer that is no dispatcher's, such as a proxy's.
    #[error("the answer {0} is not the dispatcher's")]
    Strange(StatusCode),
    /// The dispatcher refuses, and says why.
    #[error("the dispatcher refuses: {}", .0.detail)]
    Refused(Box<Problem>),
    /// One of the two clocks is wrong, or somebody forgot to renew a certificate.
    #[error(
        "the dispatcher's certificate is not valid at {now}, which is the time by this node's clock: \
         that clock is wrong, or the certificate has expired"
    )]
    CertificateTime {
        now: Timestamp,
        #[source]
        source: reqwest::Error,
    },
    /// Our own token cannot be made.
    #[error("a token for the dispatcher cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

impl Error {
    /// Why the dispatcher refuses, if it was the dispatcher who did.
    pub(crate) fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// Whether the same call can never succeed. Everything else may be repeated: a missing network, a
    /// dispatcher that restarts, a clock that is set right, a cluster that is enrolled again.
    pub(crate) fn is_final(&self) -> bool {
        let Self::Refused(problem) = self else {
            return false;
        };
        (400..500).contains(&problem.status)
            && !matches!(problem.status, 401 | 403 | 408 | 425 | 429)
    }
}

/// Why there is no connection to be had at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("cannot read the dispatcher's certificate authority {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{0} has no certificate in it")]
    NoCertificate(PathBuf),
    #[error("TLS cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// The connection to the dispatcher, before one has a name.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    /// Questions: all on one connection, with HTTP/2.
    questions: Client,
    /// What is long, with HTTP/1.1: a connection for each. On a shared one, what a slow shim leaves unread
    /// would use up the window for all others, and every permit would wait behind every upload.
    freight: Client,
    base: Url,
}

impl Wire {
    pub(crate) fn new(base: Url, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        let trusted = ca_file.map(certificates).transpose()?;
        let client = |builder: ClientBuilder| {
            let builder = match &trusted {
                Some(trusted) => builder.tls_certs_only(trusted.clone()),
                None => builder,
            };
            builder.build().map_err(SetupError::Tls)
        };
        Ok(Self {
            questions: client(builder())?,
            freight: client(builder().http1_only())?,
            base,
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The one call without a token.
    pub(crate) async fn enrol(&self, request: &EnrolRequest) -> Result<Enrolment, Error> {
        let call = self
            .request(Method::POST, ENROL)
            .timeout(CALL)
            .json(request);
        read(judge(self::call(call).await?).await?).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.questions.request(method, self.url(path))
    }

    fn download(&self, path: &str) -> RequestBuilder {
        self.freight.get(self.url(path))
    }

    fn upload(&self, path: &str, bytes: Bytes) -> RequestBuilder {
        let client = match bytes.len() {
            0..=SHORT_BYTES => &self.questions,
            _ => &self.freight,
        };
        client.put(self.url(path)).body(bytes).timeout(UPLOAD)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        // A base path is kept: the dispatcher may live behind a prefix.
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        // A redirect would carry the token to an address that nobody configured.
        .redirect(reqwest::redirect::Policy::none())
        .https_only(true)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(20))
        .tcp_user_timeout(Duration::from_secs(30))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .user_agent(concat!("invoke-runner/", env!("CARGO_PKG_VERSION")))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    let pem = std::fs::read(path).map_err(|error| SetupError::Read(path.to_owned(), error))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(SetupError::Tls)?;
    if found.is_empty() {
        Err(SetupError::NoCertificate(path.to_owned()))
    } else {
        Ok(found)
    }
}

/// The dispatcher, as a replica of an enrolled cluster speaks to it.
pub(crate) struct Upstream {
    wire: Wire,
    cluster: ClusterId,
    runner: RunnerId,
    key: EncodingKey,
    /// How far our clock is behind the dispatcher's, in seconds, as its last answer said.
    behind_seconds: AtomicI64,
}

impl Upstream {
    /// `key` is the cluster's, PKCS#8.
    pub(crate) fn new(wire: Wire, cluster: ClusterId, runner: RunnerId, key: &[u8]) -> Self {
        Self {
            wire,
            cluster,
            runner,
            key: EncodingKey::from_ed_der(key),
            behind_seconds: AtomicI64::new(0),
        }
    }

    /// How far our clock is behind the dispatcher's; below zero if it is ahead.
    pub(crate) fn behind(&self) -> SignedDuration {
        SignedDuration::from_secs(self.behind_seconds.load(Ordering::Relaxed))
    }

    pub(crate) async fn amqp_credential(&self) -> Result<AmqpCredential, Error> {
        self.ask(
            self.wire
                .request(Method::POST, AMQP_CREDENTIAL)
                .timeout(CALL),
        )
        .await
    }

    pub(crate) async fn contact(&self, request: &ContactRequest) -> Result<ContactResponse, Error> {
        let patience = Duration::from_secs(request.wait_seconds) + CONTACT_SLACK;
        self.ask(
            self.wire
                .request(Method::POST, CONTACT)
                .timeout(patience)
                .json(request),
        )
        .await
    }

    pub(crate) async fn claim(&self, job: JobId) -> Result<Claim, Error> {
        match self
            .ask(
                self.wire
                    .request(Method::POST, &path(CLAIM, job))
                    .timeout(CALL),
            )
            .await
        {
            // `Over` means "or there is none" too; this is how another dispatcher would say it.
            Err(error) if error.code() == Some(ProblemCode::JobNotFound) => Ok(Claim::Over),
            answer => answer,
        }
    }

    pub(crate) async fn permit(
        &self,
        job: JobId,
        request: &PermitRequest,
    ) -> Result<Permit, Error> {
        self.ask(
            self.wire
                .request(Method::POST, &path(PERMIT, job))
                .timeout(CALL)
                .json(request),
        )
        .await
    }

    pub(crate) async fn report(&self, job: JobId, report: &Report) -> Result<(), Error> {
        self.tell(
            self.wire
                .request(Method::POST, &path(REPORT, job))
                .timeout(CALL)
                .json(report),
        )
        .await
    }

    /// The archive of attached files, as it comes.
    pub(crate) async fn files(&self, job: JobId, query: FilesQuery) -> Result<Response, Error> {
        let request = self.wire.download(&path(FILES, job)).query(&query);
        self.send(request.timeout(DOWNLOAD)).await
    }

    /// What the command is to read, as it comes.
    pub(crate) async fn stdin(&self, job: JobId, query: StdinQuery) -> Result<Response, Error> {
        let patience = Duration::from_secs(query.wait_seconds) + UPLOAD;
        let request = self.wire.download(&path(STDIN, job)).query(&query);
        self.send(request.timeout(patience)).await
    }

    pub(crate) async fn output(
        &self,
        job: JobId,
        query: OutputQuery,
        log: Bytes,
    ) -> Result<OutputAck, Error> {
        let request = self.wire.upload(&path(OUTPUT, job), log);
        self.ask(request.query(&query)).await
    }

    pub(crate) async fn artifacts(
        &self,
        job: JobId,
        query: OutputQuery,
        bytes: Bytes,
    ) -> Result<ArtifactsAck, Error> {
        let request = self.wire.upload(&path(ARTIFACTS, job), bytes);
        self.ask(request.query(&query)).await
    }

    pub(crate) async fn complete(
        &self,
        job: JobId,
        request: &CompleteRequest,
    ) -> Result<(), Error> {
        self.tell(
            self.wire
                .request(Method::POST, &path(COMPLETE, job))
                .timeout(CALL)
                .json(request),
        )
        .await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        read(self.send(request).await?).await
    }

    async fn tell(&self, request: RequestBuilder) -> Result<(), Error> {
        self.send(request).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = call(request.bearer_auth(self.token()?)).await?;
        // Also of a refusal: what is refused may be the token, for its time.
        if let Some(behind) = behind(&response, clock::now()) {
            self.behind_seconds
                .store(behind.as_secs(), Ordering::Relaxed);
        }
        judge(response).await
    }

    /// A new token for each call. One signature costs 20 µs, less than keeping one fresh would. Its times
    /// are the dispatcher's, who is the only one to read them: a node's wrong clock cuts no cluster off.
    fn token(&self) -> Result<String, Error> {
        let now = clock::now().as_second() + self.behind().as_secs();
        let claims = TokenClaims {
            sub: self.cluster,
            aud: TOKEN_AUDIENCE.to_owned(),
            iat: now,
            exp: now + MAX_TOKEN_LIFETIME_SECONDS,
            runner: self.runner.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key)
            .map_err(Error::Sign)
    }
}

async fn call(request: RequestBuilder) -> Result<Response, Error> {
    request.send().await.map_err(|source| {
        if is_about_certificate_time(&source) {
            let now = clock::now();
            Error::CertificateTime { now, source }
        } else {
            Error::Unreachable(source)
        }
    })
}

async fn judge(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(Error::Unreachable)?;
    Err(
        serde_json::from_slice(&body).map_or(Error::Strange(status), |problem| {
            Error::Refused(Box::new(problem))
        }),
    )
}

/// How far `now` is behind the time at which the answer was made.
fn behind(response: &Response, now: Timestamp) -> Option<SignedDuration> {
    let date = response.headers().get(DATE)?.to_str().ok()?;
    let made = rfc2822::parse(date).ok()?.timestamp();
    Some(made.duration_since(now))
}

fn is_about_certificate_time(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return matches!(
                why,
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
            );
        }
        // What an `io::Error` carries is not among its sources.
        cause = match error.downcast_ref().and_then(std::io::Error::get_ref) {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    false
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    response.json().await.map_err(Error::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Script, World, job, uid};

    fn refused(code: ProblemCode) -> Error {
        Error::Refused(Box::new(Problem::new(code, "", "")))
    }

    #[test]
    fn only_what_can_never_succeed_is_final() {
        for code in [
            ProblemCode::JobOver,
            ProblemCode::OtherPod,
            ProblemCode::InvalidOutput,
            ProblemCode::JobNotFound,
        ] {
            assert!(refused(code).is_final(), "{code:?}");
        }
        for code in [
            ProblemCode::Unauthenticated,
            ProblemCode::Forbidden,
            ProblemCode::Unavailable,
            ProblemCode::Internal,
        ] {
            assert!(!refused(code).is_final(), "{code:?}");
        }
        assert!(
            !Error::Strange(StatusCode::NOT_FOUND).is_final(),
            "a proxy's 404 is not about the job"
        );
    }

    /// Also of a refusal: at first the token itself is what is refused.
    #[tokio::test]
    async fn the_dispatchers_clock_is_learned_from_its_answers() {
        for hours in [2, -24] {
            let script = Script {
                clock_ahead: hours * 3600,
                ..Script::default()
            };
            let world = World::new(script).await;
            assert_eq!(world.upstream.behind(), SignedDuration::ZERO);
            let _refused = world.upstream.permit(job(), &request()).await.unwrap_err();
            let off = world.upstream.behind() - SignedDuration::from_hours(hours);
            assert!(off.abs() < SignedDuration::from_secs(5), "{off}");
            let token = world.upstream.token().unwrap();
            let claims = jsonwebtoken::dangerous::insecure_decode::<TokenClaims>(&token).unwrap();
            let off = claims.claims.iat - clock::now().as_second() - hours * 3600;
            assert!(off.abs() < 5, "{off}");
        }
    }

    /// On a shared connection what waits for slow shims would use up the window, and no permit came through.
    #[tokio::test]
    async fn downloads_that_nobody_reads_hold_up_nothing() {
        let script = Script {
            files: vec![7; 64 << 20].into(),
            claim: Some(Claim::Yours),
            ..Script::default()
        };
        let world = World::new(script).await;
        let query = FilesQuery {
            pod: request().pod,
            from: 0,
        };
        let download = || world.upstream.files(job(), query);
        let _unread = tokio::try_join!(download(), download(), download(), download()).unwrap();
        settled(&world).await;
        let claim = tokio::time::timeout(CALL, world.upstream.claim(job()));
        assert_eq!(claim.await.unwrap().unwrap(), Claim::Yours);
    }

    /// Until every buffer on the way is full.
    async fn settled(world: &World) {
        let sent = || world.script().files_sent.load(Ordering::Relaxed);
        let mut before = 0;
        while before < sent() {
            before = sent();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    fn request() -> PermitRequest {
        PermitRequest {
            pod: uid(1).parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_certificate_out_of_its_time_is_told_from_a_dispatcher_that_is_away() {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let wire = crate::scripted::wire_with(parameters).await;
        let error = call(wire.request(Method::POST, CONTACT)).await.unwrap_err();
        assert!(matches!(error, Error::CertificateTime { .. }), "{error:?}");
        let nobody = Wire::new("https://localhost:1".parse().unwrap(), None).unwrap();
        let error = call(nobody.request(Method::POST, CONTACT)).await;
        assert!(matches!(error, Err(Error::Unreachable(_))));
    }
}
