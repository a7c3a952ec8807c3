//! A scripted runner: it speaks the runners' protocol and runs nothing.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invoke_protocol::api::JoinInvitation;
use invoke_protocol::id::{ClusterId, JobId, PodUid, ProfileName, RunnerId};
use invoke_protocol::job::Job;
use invoke_protocol::output::{
    Discarded, EndCause, ExitRecord, ExitStatus, Frame, ResourceUsage, Stream, StreamSummary,
};
use invoke_protocol::runner::{
    self, Cancellation, Claim, ContactRequest, ContactResponse, Enrolment, Permit, ProfileSummary,
    TOKEN_AUDIENCE, TokenClaims,
};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Dispatcher, client, expect};

pub(crate) struct Runner {
    pub(crate) cluster: ClusterId,
    pub(crate) enrolment: Enrolment,
    key: EncodingKey,
    client: Client,
    url: String,
}

/// A key as a cluster makes one: the public half, and what signs tokens.
pub(crate) fn new_key() -> (Vec<u8>, EncodingKey) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    (pair.public_key().as_ref().to_vec(), key)
}

pub(crate) async fn enrol(
    dispatcher: &Dispatcher,
    join_token: &str,
    public_key: &[u8],
) -> Response {
    let body = json!({ "join_token": join_token, "public_key": STANDARD.encode(public_key) });
    dispatcher
        .anonymous(Method::POST, runner::ENROL)
        .json(&body)
        .send()
        .await
        .unwrap()
}

impl Runner {
    pub(crate) async fn enrol(dispatcher: &Dispatcher, invitation: &JoinInvitation) -> Self {
        let (public_key, key) = new_key();
        let response = enrol(dispatcher, &invitation.join_token, &public_key).await;
        let enrolment: Enrolment = expect(response, StatusCode::OK).await;
        assert_eq!(enrolment.cluster, invitation.cluster);
        Self {
            cluster: enrolment.cluster,
            enrolment,
            key,
            client: client(&dispatcher.ca_pem),
            url: dispatcher.url.clone(),
        }
    }

    /// The same, after its dispatcher was started again elsewhere.
    pub(crate) fn at(self, dispatcher: &Dispatcher) -> Self {
        Self {
            client: client(&dispatcher.ca_pem),
            url: dispatcher.url.clone(),
            ..self
        }
    }

    pub(crate) fn token(&self) -> String {
        // By the dispatcher's time, which a runner learns from its answers.
        let now = invoke_dispatcher::clock::now().as_second();
        let claims = TokenClaims {
            sub: self.cluster,
            aud: TOKEN_AUDIENCE.to_owned(),
            iat: now,
            exp: now + 300,
            runner: RunnerId("runner-0".to_owned()),
        };
        encode(&Header::new(Algorithm::EdDSA), &claims, &self.key).unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token())
    }

    async fn post(&self, template: &str, job: JobId, body: &Value) -> Response {
        self.request(Method::POST, &runner::path(template, job))
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn contact(&self) -> ContactResponse {
        self.contact_knowing(&[], 0).await
    }

    pub(crate) async fn contact_knowing(
        &self,
        cancelling: &[Cancellation],
        wait_seconds: u64,
    ) -> ContactResponse {
        self.say(&ContactRequest {
            cancelling: cancelling.to_vec(),
            wait_seconds,
            ..words()
        })
        .await
    }

    pub(crate) async fn say(&self, words: &ContactRequest) -> ContactResponse {
        let response = self
            .request(Method::POST, runner::CONTACT)
            .json(words)
            .send()
            .await
            .unwrap();
        expect(response, StatusCode::OK).await
    }

    pub(crate) async fn claim(&self, job: &Job) -> Claim {
        let path = runner::path(runner::CLAIM, job.id);
        expect(
            self.request(Method::POST, &path).send().await.unwrap(),
            StatusCode::OK,
        )
        .await
    }

    pub(crate) async fn permit(&self, job: &Job, pod: PodUid) -> Permit {
        expect(
            self.post(runner::PERMIT, job.id, &json!({ "pod": pod }))
                .await,
            StatusCode::OK,
        )
        .await
    }

    pub(crate) async fn report(&self, job: &Job, report: &Value) -> Response {
        self.post(runner::REPORT, job.id, report).await
    }

    pub(crate) async fn upload(&self, job: &Job, pod: PodUid, from: u64, log: &[u8]) -> Response {
        let path = runner::path(runner::OUTPUT, job.id);
        let request = self
            .request(Method::PUT, &path)
            .query(&[("pod", pod.to_string()), ("from", from.to_string())]);
        request.body(log.to_vec()).send().await.unwrap()
    }

    pub(crate) async fn complete(&self, job: &Job, pod: PodUid, exit: &ExitRecord) -> Response {
        self.post(
            runner::COMPLETE,
            job.id,
            &json!({ "pod": pod, "exit": exit }),
        )
        .await
    }

    /// Takes a job as far as its start.
    pub(crate) async fn start(&self, job: &Job) -> PodUid {
        let pod = pod();
        assert_eq!(self.claim(job).await, Claim::Yours);
        assert!(matches!(
            self.permit(job, pod).await,
            Permit::Granted { .. }
        ));
        pod
    }
}

/// What a runner says that has nothing to tell.
pub(crate) fn words() -> ContactRequest {
    ContactRequest {
        version: "0.1.0".to_owned(),
        profiles: vec![ProfileSummary {
            name: ProfileName::default_profile(),
            max_run_seconds: 3600,
            max_start_within_seconds: None,
            output_cap_bytes: None,
        }],
        clock: jiff::Timestamp::now(),
        cancelling: Vec::new(),
        wait_seconds: 0,
    }
}

/// A pod that no other test has.
pub(crate) fn pod() -> PodUid {
    PodUid::from_uuid(uuid::Uuid::new_v4())
}

/// A log of stdout, a frame each.
pub(crate) fn log(pieces: &[&[u8]]) -> Vec<u8> {
    let mut log = Vec::new();
    for payload in pieces {
        Frame {
            stream: Stream::Stdout,
            at: Timestamp::UNIX_EPOCH,
            payload,
        }
        .encode(&mut log);
    }
    log
}

/// The record of a command that exited by itself.
pub(crate) fn exit(code: u8, log_bytes: u64) -> ExitRecord {
    let nothing = StreamSummary {
        bytes: 0,
        sha256: "0".repeat(64),
    };
    ExitRecord {
        out_of_memory: false,
        incomplete: None,
        discarded: Discarded::default(),
        artifacts: None,
        status: ExitStatus::Exited(code),
        cause: EndCause::Itself,
        started_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        finished_at: "2026-11-22T10:00:01Z".parse().unwrap(),
        log_bytes,
        stdout: nothing.clone(),
        stderr: nothing,
        usage: ResourceUsage::default(),
    }
}
