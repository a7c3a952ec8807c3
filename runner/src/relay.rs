//! The door for shims ([`invoke_protocol::shim`]): inside the cluster only, TLS with the runner's own
//! certificate. Whoever knocks proves which pod it is, and is told what concerns that pod's job.
//!
//! Nothing is kept here. A shim may ask any replica at any time, and what it is told to be stored, is.

mod speaker;
mod assignment;
mod files;
mod start_refusal;
mod stdin;
mod piece;
mod output;
mod orders;
mod cancelling;
mod artifacts;
mod exit;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures::TryStreamExt as _;
use invoke_protocol::id::{ClusterName, JobId};
use invoke_protocol::output::MAX_CHUNK_BYTES;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::shim::{
    ARTIFACTS, ASSIGNMENT, CANCELLING, EXIT, FILES, ORDERS, OUTPUT, START_REFUSAL, STDIN,
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::contact::Cancellations;
use crate::order::Trust;
use crate::pool::Pool;
use crate::recovery::{self, Recovery};
use crate::report::chain;
use crate::starter::Decision;
use crate::upstream::Upstream;

pub(crate) use piece::Room;
pub(crate) use server::{serve, tls};
pub(crate) use speaker::Porter;

/// For how long an answer is held back: shorter than what cuts idle connections.
const HOLD: Duration = Duration::from_secs(20);

/// What the handlers need.
pub(crate) struct Relay {
    pub(crate) porter: Porter,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) trust: Trust,
    pub(crate) config: Arc<Config>,
    pub(crate) cluster: ClusterName,
    pub(crate) pool: Pool,
    pub(crate) recovery: Recovery,
    /// For what shims upload.
    pub(crate) room: Room,
    /// Where a handed-on permit is announced.
    pub(crate) decided: broadcast::Sender<Decision>,
    /// The jobs that are to be cancelled.
    pub(crate) cancelling: watch::Receiver<Cancellations>,
    /// Long polls end with it.
    pub(crate) stop: CancellationToken,
}

/// Why a shim is not given what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not prove that it is a job's pod.
    Unauthenticated,
    /// It asks for what cannot be.
    Invalid,
    /// Nobody wants anything of this pod any more.
    Gone,
    /// Not now; ask again.
    Later,
    /// Not now: there is no room to store it.
    NoRoom,
    /// It sends more than is taken at once.
    TooLarge,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED.into_response(),
            Self::Invalid => StatusCode::BAD_REQUEST.into_response(),
            Self::Gone => StatusCode::GONE.into_response(),
            Self::NoRoom => StatusCode::INSUFFICIENT_STORAGE.into_response(),
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Self::Later => {
                let soon = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
                (StatusCode::SERVICE_UNAVAILABLE, soon).into_response()
            }
        }
    }
}

/// All that a shim can ask for.
pub(crate) fn routes(relay: Arc<Relay>) -> Router {
    Router::new()
        .route(ASSIGNMENT, post(assignment::post))
        .route(FILES, get(files::get))
        .route(START_REFUSAL, post(start_refusal::post))
        .route(STDIN, get(stdin::get))
        .route(OUTPUT, put(output::put))
        .route(ORDERS, get(orders::get))
        .route(CANCELLING, post(cancelling::post))
        .route(ARTIFACTS, put(artifacts::put))
        .route(EXIT, post(exit::post))
        .layer(DefaultBodyLimit::max(MAX_CHUNK_BYTES))
        .with_state(relay)
}

/// A dispatcher that cannot answer is waited for; one that refuses for good is believed.
fn refusal(job: JobId, what: &str, error: &recovery::Error) -> Refusal {
    if error.is_final() {
        tracing::info!(job.id = %job, "{what} of job {job} is not wanted: {}", chain(error));
        return Refusal::Gone;
    }
    tracing::warn!(job.id = %job, "{what} of job {job} must wait: {}", chain(error));
    match error.code() {
        Some(ProblemCode::StorageFull) => Refusal::NoRoom,
        _ => Refusal::Later,
    }
}

/// The dispatcher's answer as it comes, with some of its headers. What the shim does not read is not read
/// here either.
fn pass_on<const N: usize>(
    job: JobId,
    what: &'static str,
    answer: reqwest::Response,
    headers: [HeaderName; N],
) -> Response {
    let headers = headers.map(|name| {
        answer
            .headers()
            .get(&name)
            .map(|value| (name, value.clone()))
    });
    let cut = move |error: &reqwest::Error| {
        tracing::warn!(job.id = %job, "{what} of job {job}: the line broke, and the shim asks for the rest: {}", chain(error));
    };
    let mut passed = Response::new(Body::from_stream(answer.bytes_stream().inspect_err(cut)));
    passed.headers_mut().extend(headers.into_iter().flatten());
    passed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    use axum::body::to_bytes;
    use axum::http::Request;
    use futures::StreamExt as _;
    use invoke_protocol::command::Command;
    use invoke_protocol::digest::Sha256;
    use invoke_protocol::envelope::{Order, OrderV1};
    use invoke_protocol::files::Files;
    use invoke_protocol::runner::{Permit, PermitRefusal, Report};
    use invoke_protocol::shim::{Assignment, STDIN_END};
    use invoke_protocol::state::{Reason, ReasonCode};
    use invoke_protocol::topology::pod_name;
    use kube::{Api, ResourceExt as _};
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::tests::config;
    use crate::order::tests::{Dispatcher, accepted, order};
    use crate::scripted::{Script, World, job, uid};

    struct Door {
        world: World,
        routes: Router,
        decided: broadcast::Receiver<Decision>,
        cancelling: watch::Sender<Cancellations>,
        stop: CancellationToken,
    }

    impl Door {
        /// A door that is knocked at by the pod of [`order`].
        async fn open(dispatcher: &Dispatcher, permit: Option<Permit>) -> Self {
            let script = Script {
                permit,
                ..Script::with_pod(1)
            };
            Self::onto(dispatcher, script).await
        }

        async fn onto(dispatcher: &Dispatcher, script: Script) -> Self {
            let script = Script {
                vouch: Some((pod_name(job()), uid(1))),
                ..script
            };
            let world = World::new(script).await;
            let (decided, receiver) = broadcast::channel(4);
            let (cancelling, jobs) = watch::channel(Cancellations::new());
            let stop = CancellationToken::new();
            let relay = Relay {
                porter: Porter::new(
                    Api::all(world.client.clone()),
                    world.pool.clone(),
                    "invoke-jobs",
                ),
                upstream: Arc::clone(&world.upstream),
                trust: dispatcher.trust(),
                config: Arc::new(config()),
                cluster: "edge-7".parse().unwrap(),
                pool: world.pool.clone(),
                recovery: world.recovery(),
                room: Room::default(),
                decided,
                cancelling: jobs,
                stop: stop.clone(),
            };
            Self {
                world,
                routes: routes(Arc::new(relay)),
                decided: receiver,
                cancelling,
                stop,
            }
        }

        async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
            let response = self.answer(method, path, body).await;
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap_or_default())
        }

        async fn answer(&self, method: &str, path: &str, body: impl Into<Body>) -> Response {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", "Bearer t");
            let request = request
                .header("content-type", "application/json")
                .body(body.into())
                .unwrap();
            self.routes.clone().oneshot(request).await.unwrap()
        }

        fn has_pod(&self) -> bool {
            !self.world.script().pods.is_empty()
        }
    }

    fn granted(dispatcher: &Dispatcher, order: OrderV1) -> Permit {
        let envelope = dispatcher.envelope(&Order::V1(order).to_payload().unwrap());
        Permit::Granted {
            envelope,
            start_within_seconds: 60,
            log_bytes: 0,
            secrets: None,
        }
    }

    #[tokio::test]
    async fn a_permit_brings_the_command() {
        let dispatcher = Dispatcher::new();
        let mut door = Door::open(&dispatcher, Some(granted(&dispatcher, order()))).await;
        let (status, body) = door.ask("POST", ASSIGNMENT, "").await;
        assert_eq!(status, 200);
        let assignment: Assignment = serde_json::from_value(body).unwrap();
        assert_eq!(
            (assignment.job, assignment.command),
            (job(), order().command)
        );
        assert_eq!(
            (
                assignment.start_within_seconds,
                assignment.run_timeout_seconds
            ),
            (60, 3600)
        );
        assert!(
            assignment
                .environment
                .contains(&("INVOKE_CLUSTER".to_owned(), "edge-7".to_owned()))
        );
        assert_eq!(
            (assignment.grace_seconds, assignment.drain_seconds),
            (30, 60)
        );
        assert_eq!(door.decided.try_recv(), Ok(Decision::Granted(job())));
        let record = door.world.records.find(job()).await.unwrap().unwrap();
        assert_eq!(record.pod.to_string(), uid(1));
    }

    fn with_secrets(permit: Permit, given: Option<&[u8]>) -> Permit {
        let Permit::Granted {
            envelope,
            start_within_seconds,
            log_bytes,
            ..
        } = permit
        else {
            unreachable!()
        };
        Permit::Granted {
            envelope,
            start_within_seconds,
            log_bytes,
            secrets: given.map(ToOwned::to_owned),
        }
    }

    /// A door for an order of which the pod was made; [`Script::with_pod`] makes one of [`order`].
    async fn door_for(order: OrderV1, secrets: Option<&[u8]>) -> Door {
        let dispatcher = Dispatcher::new();
        let payload = Order::V1(order.clone()).to_payload().unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &payload);
        let permit = with_secrets(granted(&dispatcher, order), secrets);
        let mut script = Script {
            permit: Some(permit),
            ..Script::with_pod(1)
        };
        let pod = script.pods.get_mut(&pod_name(job())).unwrap();
        let digest = crate::identity::hexadecimal(digest.as_ref());
        pod.annotations_mut()
            .insert("invoke.dev/order-sha256".to_owned(), digest);
        Door::onto(&dispatcher, script).await
    }

    #[tokio::test]
    async fn what_the_order_gives_a_command_is_handed_over() {
        let given = BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]);
        let files = Files {
            sha256: Sha256::from_bytes([7; 32]),
            bytes: 10,
            content_bytes: 20,
            entries: 1,
        };
        let order = OrderV1 {
            environment: given.try_into().unwrap(),
            files: Some(files),
            stdin: true,
            profile: "nightly".parse().unwrap(),
            ..order()
        };
        let door = door_for(order, None).await;
        let (status, body) = door.ask("POST", ASSIGNMENT, "").await;
        assert_eq!(status, 200);
        let assignment: Assignment = serde_json::from_value(body).unwrap();
        let names: Vec<_> = assignment
            .environment
            .iter()
            .map(|(name, _)| &**name)
            .collect();
        let expected = [
            "INVOKE_JOB_ID",
            "INVOKE_CLUSTER",
            "INVOKE_PROFILE",
            "COLOUR",
        ];
        assert_eq!(names, expected);
        assert_eq!((assignment.files, assignment.stdin), (Some(files), true));
        assert_eq!(assignment.output_cap_bytes, 1 << 20, "the profile's");
        assert!(assignment.secrets.is_empty());
    }

    /// They are not in the order, but their digest is, and that is signed.
    #[tokio::test]
    async fn secrets_are_handed_over_if_they_are_the_orders() {
        let text = br#"{"salt":"c2FsdA==","variables":{"TOKEN":"hunter2"}}"#;
        let other = br#"{"salt":"c2FsdA==","variables":{"TOKEN":"hunter3"}}"#;
        let of = |text: &[u8]| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
            Some(Sha256::from_bytes(digest.as_ref().try_into().unwrap()))
        };
        let cases: [(_, Option<&[u8]>, _); 6] = [
            (None, None, true),
            (of(text), Some(text), true),
            (of(text), Some(other), false),
            (of(text), None, false),
            (None, Some(text), false),
            (of(b"{}"), Some(b"{}"), false),
        ];
        for (secrets_sha256, secrets, is_handed_over) in cases {
            let order = OrderV1 {
                secrets_sha256,
                ..order()
            };
            let mut door = door_for(order, secrets).await;
            let (status, body) = door.ask("POST", ASSIGNMENT, "").await;
            let case = (secrets_sha256, secrets.map(String::from_utf8_lossy));
            assert_eq!(status == 200, is_handed_over, "{case:?}: {status}");
            assert_eq!(door.decided.try_recv().is_ok(), is_handed_over, "{case:?}");
            let handed_over = body["secrets"]["TOKEN"].as_str();
            let is_secret = is_handed_over && secrets.is_some();
            assert_eq!(handed_over, is_secret.then_some("hunter2"), "{case:?}");
        }
    }

    /// A shim whose answer was lost asks again, and any replica answers the same.
    #[tokio::test]
    async fn the_same_pod_may_ask_again() {
        let dispatcher = Dispatcher::new();
        let door = Door::open(&dispatcher, Some(granted(&dispatcher, order()))).await;
        let first = door.ask("POST", ASSIGNMENT, "").await;
        assert_eq!(first.0, 200);
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await, first);
        assert_eq!(door.world.script().config_maps.len(), 1);
    }

    /// The dispatcher's store was restored and has forgotten the first start. The cluster has not.
    #[tokio::test]
    async fn what_was_started_in_another_pod_is_not_started_again() {
        let dispatcher = Dispatcher::new();
        for believes_in_this_pod in [true, false] {
            let script = Script {
                permit: Some(granted(&dispatcher, order())),
                refuse_reports: believes_in_this_pod.then_some(|report: &Report| {
                    let this = Some(uid(1).parse().unwrap());
                    let of_this = matches!(report, Report::PodFailed { pod, .. } if *pod == this);
                    (!of_this).then_some(ProblemCode::OtherPod)
                }),
                ..Script::with_pod(1).with_record(2)
            };
            let mut door = Door::onto(&dispatcher, script).await;
            assert_eq!(door.ask("POST", ASSIGNMENT, "").await, (410, Value::Null));
            assert!(door.decided.try_recv().is_err());
            assert!(!door.has_pod());
            let script = door.world.script();
            let lost = |report: &Report| matches!(report, Report::PodFailed { reason, .. } if reason.code == ReasonCode::StartedBefore);
            assert!(script.reports.iter().any(lost), "{:?}", script.reports);
            let reminded = |report: &Report| matches!(report, Report::Recovered { pod, .. } if pod.to_string() == uid(2));
            assert_eq!(script.reports.iter().any(reminded), !believes_in_this_pod);
        }
    }

    /// Without the record a restored store would start the command again.
    #[tokio::test]
    async fn nothing_starts_while_the_cluster_cannot_put_it_on_record() {
        let dispatcher = Dispatcher::new();
        let script = Script {
            permit: Some(granted(&dispatcher, order())),
            refuse_config_map: Some((503, "etcd has no leader")),
            ..Script::with_pod(1)
        };
        let mut door = Door::onto(&dispatcher, script).await;
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 503);
        assert!(door.decided.try_recv().is_err());
        door.world.script().refuse_config_map = None;
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 200);
    }

    /// The command runs: that a restored store does not know it is no reason to stop it.
    #[tokio::test]
    async fn a_restored_store_is_reminded_by_whoever_speaks_for_the_pod() {
        let script = || Script {
            forgotten: true,
            ..Script::with_pod(1).with_record(1)
        };
        let door = Door::onto(&Dispatcher::new(), script()).await;
        let answer = door.ask("PUT", "/v1/shim/output?from=0", "xx").await;
        assert_eq!(answer, (200, json!({"log_bytes": 2})));
        assert!(matches!(
            &door.world.script().reports[..],
            [Report::Recovered { .. }]
        ));
        let door = Door::onto(&Dispatcher::new(), script()).await;
        assert_eq!(door.ask("POST", EXIT, record(0)).await.0, 204);
        // A pod that was never handed a command has nothing to say.
        let script = Script {
            forgotten: true,
            ..Script::with_pod(1)
        };
        let door = Door::onto(&Dispatcher::new(), script).await;
        assert_eq!(door.ask("POST", EXIT, record(0)).await.0, 410);
    }

    /// The promise of `deploy/README.md`: etcd's disk is what a cluster runs short of first. The sixth is
    /// the proof of who speaks.
    #[tokio::test]
    async fn a_job_costs_the_api_server_six_calls_that_are_no_reads() {
        let dispatcher = Dispatcher::new();
        let script = Script {
            permit: Some(granted(&dispatcher, order())),
            ..Script::default()
        };
        let door = Door::onto(&dispatcher, script).await;
        let pod = door.world.pool.provide(&accepted()).await.unwrap();
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 200);
        for _ in 0..3 {
            assert_eq!(door.ask("PUT", "/v1/shim/output?from=0", "xx").await.0, 200);
        }
        assert_eq!(door.ask("POST", EXIT, record(0)).await.0, 204);
        door.world.pool.remove(job(), pod).await.unwrap();
        let record = door.world.records.find(job()).await.unwrap().unwrap();
        door.world.records.forget(&record).await.unwrap();
        let script = door.world.script();
        assert!(script.pods.is_empty() && script.config_maps.is_empty());
        assert_eq!(script.writes, 6);
    }

    /// A stolen store, or a bug in it, must not put another command into a pod than it was made for.
    #[tokio::test]
    async fn a_permit_with_another_order_brings_nothing() {
        let (dispatcher, forger) = (Dispatcher::new(), Dispatcher::new());
        let other = OrderV1 {
            command: Command::shell("rm -rf /").unwrap(),
            ..order()
        };
        for permit in [granted(&dispatcher, other), granted(&forger, order())] {
            let mut door = Door::open(&dispatcher, Some(permit)).await;
            assert_eq!(door.ask("POST", ASSIGNMENT, "").await, (410, Value::Null));
            assert!(door.decided.try_recv().is_err());
        }
    }

    /// The command runs as the shim's user and can ask too: it gets nothing that it could start again.
    #[tokio::test]
    async fn who_has_printed_something_is_not_given_a_command() {
        let dispatcher = Dispatcher::new();
        let envelope = dispatcher.envelope(&Order::V1(order()).to_payload().unwrap());
        let permit = Permit::Granted {
            envelope,
            start_within_seconds: 60,
            log_bytes: 1,
            secrets: None,
        };
        let door = Door::open(&dispatcher, Some(permit)).await;
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 410);
    }

    #[tokio::test]
    async fn a_pod_that_may_not_start_is_removed_unless_its_job_expires() {
        let dispatcher = Dispatcher::new();
        for (why, kept) in [
            (PermitRefusal::Over, false),
            (PermitRefusal::OtherPod, false),
            (PermitRefusal::TooLate, true),
        ] {
            let door = Door::open(&dispatcher, Some(Permit::Refused { why })).await;
            assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 410);
            assert_eq!(door.has_pod(), kept, "{why:?}");
        }
    }

    #[tokio::test]
    async fn while_the_dispatcher_is_away_shims_are_told_to_ask_again() {
        let door = Door::open(&Dispatcher::new(), None).await;
        assert_eq!(door.ask("POST", ASSIGNMENT, "").await.0, 503);
        assert!(door.has_pod());
    }

    /// Every route, without a proof: nothing is answered and nothing asked of the dispatcher.
    #[tokio::test]
    async fn who_is_no_job_pod_gets_nothing() {
        let dispatcher = Dispatcher::new();
        let door = Door::open(&dispatcher, Some(granted(&dispatcher, order()))).await;
        let routes = [
            ("POST", ASSIGNMENT),
            ("GET", FILES),
            ("POST", START_REFUSAL),
            ("GET", STDIN),
            ("PUT", OUTPUT),
            ("GET", ORDERS),
            ("POST", CANCELLING),
            ("PUT", ARTIFACTS),
            ("POST", EXIT),
        ];
        let strangers = [
            None,
            Some((pod_name(job()), uid(2))),
            Some(("another".to_owned(), uid(1))),
        ];
        for stranger in strangers {
            door.world.script().vouch = stranger;
            for (method, path) in routes {
                assert_eq!(
                    door.ask(method, path, "").await,
                    (401, Value::Null),
                    "{method} {path}"
                );
            }
        }
        let bare = Request::builder()
            .method("POST")
            .uri(ASSIGNMENT)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            door.routes.clone().oneshot(bare).await.unwrap().status(),
            401
        );
        assert_eq!(door.world.script().stored, 0);
    }

    #[tokio::test]
    async fn a_shim_that_is_ahead_is_told_where_to_go_on() {
        let door = Door::open(&Dispatcher::new(), None).await;
        door.world.script().stored = 7;
        assert_eq!(
            door.ask("PUT", "/v1/shim/output?from=9", "xx").await,
            (200, json!({"log_bytes": 7}))
        );
        assert_eq!(
            door.ask("PUT", "/v1/shim/output?from=7", "xx").await,
            (200, json!({"log_bytes": 9}))
        );
        assert_eq!(
            door.ask("PUT", "/v1/shim/output?from=-1", "xx").await.0,
            400
        );
        let too_much = vec![0; MAX_CHUNK_BYTES + 1];
        assert_eq!(
            door.ask("PUT", "/v1/shim/output?from=9", too_much).await.0,
            413
        );
    }

    /// The shim keeps what it has, and goes on reading: it knows what to do when nobody takes it.
    #[tokio::test]
    async fn that_there_is_no_room_is_passed_on() {
        let script = Script {
            full: true,
            ..Script::with_pod(1)
        };
        let door = Door::onto(&Dispatcher::new(), script).await;
        assert_eq!(door.ask("PUT", "/v1/shim/output?from=0", "xx").await.0, 507);
    }

    fn with_files(length: usize) -> Script {
        let files: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
        Script {
            files: files.into(),
            ..Script::with_pod(1)
        }
    }

    async fn files_from(door: &Door, from: usize) -> Response {
        let path = format!("/v1/shim/files?from={from}");
        door.answer("GET", &path, "").await
    }

    #[tokio::test]
    async fn files_come_through_as_they_are_and_from_where_they_were_cut() {
        let script = Script {
            cut_files_after: Some(3_000_000),
            ..with_files(5_000_000)
        };
        let door = Door::onto(&Dispatcher::new(), script).await;
        let expected = door.world.script().files.clone();
        let cut = files_from(&door, 0).await;
        assert_eq!(cut.status(), 200);
        assert_eq!(cut.headers()["content-type"], "application/gzip");
        assert_eq!(cut.headers()["content-length"], "5000000");
        let mut came = Vec::new();
        let mut parts = cut.into_body().into_data_stream();
        let ended = loop {
            match parts.next().await {
                Some(Ok(part)) => came.extend_from_slice(&part),
                other => break other,
            }
        };
        assert!(ended.is_some(), "a cut must not look like the end");
        assert!(came.len() <= 3_000_000 && came[..] == expected[..came.len()]);
        let rest = files_from(&door, came.len()).await;
        let length = (expected.len() - came.len()).to_string();
        assert_eq!(rest.headers()["content-length"], &*length);
        came.extend(to_bytes(rest.into_body(), usize::MAX).await.unwrap());
        assert!(came == expected);
    }

    /// What is in between: our buffers, and the kernel's for one connection.
    #[tokio::test]
    async fn a_slow_shim_slows_its_own_download_and_costs_no_memory() {
        const LENGTH: usize = 64 << 20;
        let door = Door::onto(&Dispatcher::new(), with_files(LENGTH)).await;
        let sent = Arc::clone(&door.world.script().files_sent);
        let mut parts = files_from(&door, 0).await.into_body().into_data_stream();
        let mut taken = 0;
        while let Some(part) = parts.next().await {
            let ahead = sent.load(Ordering::Relaxed) - taken;
            assert!(ahead < LENGTH / 2, "{ahead} bytes wait after {taken}");
            taken += part.unwrap().len();
        }
        assert_eq!(taken, LENGTH);
    }

    #[tokio::test]
    async fn what_the_command_reads_is_held_back_until_it_is_there() {
        let door = Door::onto(&Dispatcher::new(), Script::with_pod(1)).await;
        let typed = async {
            tokio::task::yield_now().await;
            door.world.script().stdin.send_replace(Some("hello"));
        };
        let (answer, ()) = tokio::join!(door.answer("GET", "/v1/shim/stdin?from=2", ""), typed);
        assert_eq!(answer.headers()[STDIN_END], "true");
        assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "llo");
    }

    /// A replica that stops waits for nobody's keyboard; what it answers is not the end.
    #[tokio::test]
    async fn a_reader_is_sent_to_another_replica_when_this_one_stops() {
        let door = Door::onto(&Dispatcher::new(), Script::with_pod(1)).await;
        let stop = async {
            tokio::task::yield_now().await;
            door.stop.cancel();
        };
        let answer = door.answer("GET", "/v1/shim/stdin?from=0", "");
        let answer = tokio::time::timeout(HOLD, answer);
        let (answer, ()) = tokio::join!(answer, stop);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().get(STDIN_END), None);
        assert!(to_bytes(answer.into_body(), 100).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn artifacts_are_stored_and_a_shim_that_is_ahead_is_told_where_to_go_on() {
        let door = Door::onto(&Dispatcher::new(), Script::with_pod(1)).await;
        for (from, piece, stored) in [(0, "1234", 4), (9, "xx", 4), (4, "5", 5)] {
            let path = format!("/v1/shim/artifacts?from={from}");
            let answer = door.ask("PUT", &path, piece).await;
            assert_eq!(answer, (200, json!({"bytes": stored})), "{from}");
        }
        let long = vec![0; MAX_CHUNK_BYTES];
        let path = "/v1/shim/artifacts?from=5";
        let stored = 5 + MAX_CHUNK_BYTES;
        assert_eq!(
            door.ask("PUT", path, long).await,
            (200, json!({"bytes": stored}))
        );
        let too_much = vec![0; MAX_CHUNK_BYTES + 1];
        assert_eq!(door.ask("PUT", path, too_much).await.0, 413);
    }

    /// Whatever a pod is given of a job, it is given by the uid that the API server vouches for.
    #[tokio::test]
    async fn only_the_pod_with_the_permit_gets_anything() {
        for (holder, status) in [(uid(1), 200), (uid(2), 410)] {
            let script = Script {
                holder: Some(holder),
                ..with_files(9)
            };
            script.stdin.send_replace(Some("hello"));
            let door = Door::onto(&Dispatcher::new(), script).await;
            for (method, path) in [("GET", FILES), ("GET", STDIN), ("PUT", ARTIFACTS)] {
                let answer = door.ask(method, &format!("{path}?from=0"), "").await;
                assert_eq!(answer.0, status, "{path}");
                let answer = door.ask(method, &format!("{path}?from=-1"), "").await;
                assert_eq!(answer.0, 400, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn files_that_will_never_be_there_are_not_asked_for_again() {
        let door = Door::onto(&Dispatcher::new(), with_files(0)).await;
        assert_eq!(files_from(&door, 0).await.status(), 410);
        door.world.script().no_answer = true;
        assert_eq!(files_from(&door, 0).await.status(), 503);
    }

    /// The pod has its record in the cluster from before its files are fetched.
    #[tokio::test]
    async fn a_restored_store_is_reminded_by_whoever_fetches_files() {
        let script = Script {
            forgotten: true,
            ..with_files(9).with_record(1)
        };
        let door = Door::onto(&Dispatcher::new(), script).await;
        assert_eq!(files_from(&door, 0).await.status(), 200);
    }

    #[tokio::test]
    async fn that_the_command_was_not_started_is_told() {
        let door = Door::onto(&Dispatcher::new(), Script::with_pod(1)).await;
        let reason = Reason::new(ReasonCode::FilesRefused, "a link that leads out");
        let refusal = json!({"reason": reason}).to_string();
        assert_eq!(
            door.ask("POST", START_REFUSAL, refusal.clone()).await.0,
            204
        );
        let pod = uid(1).parse().unwrap();
        let report = Report::StartRefused { pod, reason };
        assert_eq!(door.world.script().reports, [report]);
        let refusals: [(fn(&Report) -> _, _); 2] = [
            (|_| Some(ProblemCode::Contradiction), 410),
            (|_| Some(ProblemCode::Unavailable), 503),
        ];
        for (refuse, status) in refusals {
            door.world.script().refuse_reports = Some(refuse);
            let answer = door.ask("POST", START_REFUSAL, refusal.clone()).await;
            assert_eq!(answer.0, status);
        }
        assert_eq!(door.ask("POST", START_REFUSAL, "{}").await.0, 400);
    }

    fn record(code: u8) -> String {
        let stream = json!({"bytes": 0, "sha256": ""});
        json!({
            "status": {"exited": code}, "cause": "itself", "log_bytes": 0, "stdout": stream, "stderr": stream,
            "started_at": "2026-11-22T10:00:00Z", "finished_at": "2026-11-22T10:00:01Z",
            "usage": {"user_micros": 0, "system_micros": 0, "max_rss_bytes": 0},
        })
        .to_string()
    }

    #[tokio::test]
    async fn the_end_is_acknowledged_once_it_is_on_record_and_a_second_end_is_not_taken() {
        let door = Door::open(&Dispatcher::new(), None).await;
        assert_eq!(door.ask("POST", EXIT, record(0)).await.0, 204);
        assert_eq!(door.ask("POST", EXIT, record(0)).await.0, 204);
        assert_eq!(door.ask("POST", EXIT, record(1)).await.0, 410);
        assert_eq!(door.ask("POST", EXIT, "{}").await.0, 400);
    }

    #[tokio::test]
    async fn a_cancellation_is_passed_on_at_once() {
        let door = Door::open(&Dispatcher::new(), None).await;
        let cancel = async {
            tokio::task::yield_now().await;
            door.cancelling.send_replace([(job(), None)].into());
        };
        let (answer, ()) = tokio::join!(door.ask("GET", ORDERS, ""), cancel);
        assert_eq!(answer, (200, json!({"cancel": true})));
    }

    #[tokio::test]
    async fn a_harder_cancel_reaches_a_shim_that_follows_a_softer_one() {
        let door = Door::open(&Dispatcher::new(), None).await;
        door.cancelling.send_replace([(job(), Some(0))].into());
        let known = "/v1/shim/orders?cancel=true&grace_seconds=30";
        let harder = json!({"cancel": true, "grace_seconds": 0});
        assert_eq!(door.ask("GET", known, "").await, (200, harder));
    }

    /// Else every shim would ask again without a pause.
    #[tokio::test]
    async fn what_a_shim_follows_already_is_not_answered_at_once() {
        let door = Door::open(&Dispatcher::new(), None).await;
        let stop = Cancellations::from([(job(), Some(30))]);
        let cases = [
            (Cancellations::new(), ORDERS),
            (stop, "/v1/shim/orders?cancel=true&grace_seconds=30"),
        ];
        for (jobs, path) in cases {
            door.cancelling.send_replace(jobs);
            let answer = door.ask("GET", path, "");
            let held_back = tokio::time::timeout(Duration::from_millis(200), answer).await;
            assert!(held_back.is_err(), "{path}: {held_back:?}");
        }
    }

    #[tokio::test]
    async fn that_the_order_to_stop_arrived_is_told() {
        let door = Door::open(&Dispatcher::new(), None).await;
        for refused in [false, true] {
            door.world.script().refuse_reports =
                refused.then_some(|_: &Report| Some(ProblemCode::JobOver));
            assert_eq!(door.ask("POST", CANCELLING, "").await.0, 204);
        }
        let pod = uid(1).parse().unwrap();
        assert_eq!(
            door.world.script().reports,
            [Report::CancelDelivered { pod }]
        );
    }
}
