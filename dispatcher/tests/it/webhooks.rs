//! Webhooks: signed, told once, tried again, and not led astray.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use invoke_dispatcher::clock;
use invoke_dispatcher::schedule::webhooks::Webhooks;
use invoke_dispatcher::store::Session;
use invoke_dispatcher::store::notifications::{self, NewNotification};
use invoke_protocol::api::JobList;
use invoke_protocol::id::ScheduleId;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{Notification, Schedule, Tick, WebhookKey};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::bed::{AWAY, Dispatcher, expect, problem};
use crate::runner::exit;

/// A request as it came.
struct Told {
    head: String,
    body: String,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.head))
    }
}

/// Something that is told, and answers as it is scripted.
struct Receiver {
    port: u16,
    told: mpsc::UnboundedReceiver<Told>,
    calls: Arc<AtomicUsize>,
    /// How many who were not answered gave up.
    given_up: Arc<AtomicUsize>,
}

impl Receiver {
    /// `answers`, one after the other, the last again and again; `None` never answers.
    async fn start(answers: Vec<Option<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, told) = mpsc::unbounded_channel();
        let calls = Arc::new(AtomicUsize::new(0));
        let given_up = Arc::new(AtomicUsize::new(0));
        let (counted, gone) = (Arc::clone(&calls), Arc::clone(&given_up));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let call = counted.fetch_add(1, Ordering::SeqCst);
                let mut text = Vec::new();
                let mut buffer = [0; 4096];
                let request = loop {
                    let length = stream.read(&mut buffer).await.unwrap_or(0);
                    text.extend_from_slice(&buffer[..length]);
                    let request = String::from_utf8_lossy(&text);
                    if let Some((head, body)) = request.split_once("\r\n\r\n")
                        && is_whole(head, body)
                    {
                        break Some(Told {
                            head: head.to_owned(),
                            body: body.to_owned(),
                        });
                    }
                    if length == 0 {
                        break None;
                    }
                };
                let Some(request) = request else { continue };
                let _nobody_listens = sender.send(request);
                match answers.get(call).or(answers.last()).cloned().flatten() {
                    Some(answer) => {
                        let _gone = stream.write_all(answer.as_bytes()).await;
                    }
                    None => {
                        let gone = Arc::clone(&gone);
                        tokio::spawn(async move {
                            let _nothing_more = stream.read(&mut [0]).await;
                            gone.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                }
            }
        });
        Self {
            port,
            told,
            calls,
            given_up,
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }
}

fn is_whole(head: &str, body: &str) -> bool {
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse().unwrap())
}

fn answer(status: &str) -> Option<String> {
    Some(format!(
        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ))
}

/// A dispatcher whose own webhooks are never told, because they are at private addresses; and one that tells them.
async fn bed(private_allowed: bool) -> (Dispatcher, Webhooks) {
    let dispatcher = Dispatcher::start().await;
    let app = dispatcher.running.app();
    let webhooks = Webhooks {
        store: app.store.clone(),
        keys: Arc::clone(&app.webhook_keys),
        private_allowed,
    };
    (dispatcher, webhooks)
}

/// A schedule to be told about, and something to tell.
async fn noted(dispatcher: &Dispatcher, urls: &[String]) -> Schedule {
    dispatcher.cluster("edge-7").await;
    let spec = json!({
        "run": { "job": { "command": { "shell": "true" } } },
        "timing": { "when": { "type": "every", "seconds": 3600, "from": in_hours(48) } },
    });
    let put = dispatcher
        .request(Method::PUT, "/v1/schedules/nightly")
        .json(&spec);
    let schedule: Schedule = expect(put.send().await.unwrap(), StatusCode::CREATED).await;
    for url in urls {
        note(dispatcher, schedule.id, url).await;
    }
    schedule
}

async fn note(dispatcher: &Dispatcher, schedule: ScheduleId, url: &str) {
    let mut session = dispatcher.running.app().store.write().await.unwrap();
    let notification = NewNotification {
        schedule,
        dedup: format!("{schedule} {url}"),
        url: url.to_owned(),
        body: r#"{"type":"schedule.failed"}"#.to_owned(),
    };
    notifications::add(&mut session, &notification, clock::now())
        .await
        .unwrap();
    session.commit().await.unwrap();
}

/// After the rest of whatever was tried before.
fn in_hours(hours: i64) -> Timestamp {
    clock::now() + SignedDuration::from_hours(hours)
}

async fn open(dispatcher: &Dispatcher) -> i64 {
    let mut session = dispatcher.running.app().store.read().await.unwrap();
    let Session::Sqlite(transaction) = &mut session else {
        unreachable!("the bed is on SQLite");
    };
    let (count,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM notifications WHERE done_at IS NULL")
            .fetch_one(&mut **transaction)
            .await
            .unwrap();
    count
}

/// The words for whoever is still to be told.
async fn what_went_wrong(dispatcher: &Dispatcher) -> String {
    let mut session = dispatcher.running.app().store.read().await.unwrap();
    let Session::Sqlite(transaction) = &mut session else {
        unreachable!("the bed is on SQLite");
    };
    let (words,): (String,) =
        sqlx::query_as("SELECT last_error FROM notifications WHERE done_at IS NULL")
            .fetch_one(&mut **transaction)
            .await
            .unwrap();
    words
}

/// What a receiver does with <https://www.standardwebhooks.com> in its hand.
fn verify(key: &WebhookKey, told: &Told) {
    let secret = BASE64
        .decode(key.key.strip_prefix("whsec_").unwrap())
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let (id, time) = (told.header("webhook-id"), told.header("webhook-timestamp"));
    let signed = format!("{id}.{time}.{}", told.body);
    let signature = told
        .header("webhook-signature")
        .strip_prefix("v1,")
        .unwrap();
    let signature = BASE64.decode(signature).unwrap();
    hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
    let age = clock::now().as_second() - time.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
}

#[tokio::test]
async fn what_is_told_is_signed_with_the_schedules_own_key() {
    let mut receiver = Receiver::start(vec![answer("204 No Content")]).await;
    let (dispatcher, webhooks) = bed(true).await;
    let schedule = noted(&dispatcher, &[receiver.url()]).await;
    assert_eq!(webhooks.round(in_hours(1)).await.unwrap(), 1);
    let told = receiver.told.recv().await.unwrap();
    let path = "/v1/schedules/nightly/webhook-key";
    verify(&dispatcher.get(path).await, &told);
    assert!(
        told.head.starts_with("POST /hook HTTP/1.1"),
        "{}",
        told.head
    );
    assert_eq!(told.header("content-type"), "application/json");
    // Noted again, and looked at again: it is told once.
    note(&dispatcher, schedule.id, &receiver.url()).await;
    assert_eq!(webhooks.round(in_hours(9)).await.unwrap(), 0);
    assert_eq!(
        (
            open(&dispatcher).await,
            receiver.calls.load(Ordering::SeqCst)
        ),
        (0, 1)
    );
    // The key is the owner's alone.
    let token = dispatcher.token_of("ann").await;
    let other = dispatcher.anonymous(Method::GET, path).bearer_auth(token);
    problem(other.send().await.unwrap(), ProblemCode::Forbidden).await;
}

#[tokio::test]
async fn who_did_not_hear_is_told_again_under_the_same_id() {
    let answers = vec![answer("500 Internal Server Error"), answer("200 OK")];
    let mut receiver = Receiver::start(answers).await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/hook", listener.local_addr().unwrap())
    };
    let (dispatcher, webhooks) = bed(true).await;
    noted(&dispatcher, &[receiver.url(), nobody]).await;
    assert_eq!(webhooks.round(in_hours(1)).await.unwrap(), 2);
    assert_eq!(open(&dispatcher).await, 2);
    assert_eq!(webhooks.round(in_hours(9)).await.unwrap(), 2);
    let (first, second) = (
        receiver.told.recv().await.unwrap(),
        receiver.told.recv().await.unwrap(),
    );
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    assert_eq!(
        open(&dispatcher).await,
        1,
        "only who is not there is still to be told"
    );
    // A path may be a credential, and these words go to the log too.
    let words = what_went_wrong(&dispatcher).await;
    assert!(words.contains("does not answer"), "{words}");
    assert!(!words.contains("/hook"), "{words}");
}

#[tokio::test]
async fn a_slow_receiver_keeps_nobody_else_waiting() {
    let mut slow = Receiver::start(vec![None]).await;
    let mut fast = Receiver::start(vec![answer("200 OK")]).await;
    let (dispatcher, webhooks) = bed(true).await;
    noted(&dispatcher, &[slow.url(), fast.url()]).await;
    let round = webhooks.round(in_hours(1));
    tokio::pin!(round);
    tokio::select! {
        _ = &mut round => panic!("the slow one has not answered"),
        told = async { (slow.told.recv().await, fast.told.recv().await) } => {
            assert!(told.0.is_some() && told.1.is_some());
            let given_up = slow.given_up.load(Ordering::SeqCst);
            assert_eq!(given_up, 0, "the fast one waited for the slow one");
        }
    }
    // The slow one is let go of in the end.
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(30), round)
            .await
            .unwrap()
            .unwrap(),
        2
    );
    assert_eq!(open(&dispatcher).await, 1);
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let inside = Receiver::start(vec![answer("200 OK")]).await;
    let redirect = format!("307 Temporary Redirect\r\nlocation: {}", inside.url());
    let mut receiver = Receiver::start(vec![answer(&redirect)]).await;
    let (dispatcher, webhooks) = bed(true).await;
    noted(&dispatcher, &[receiver.url()]).await;
    webhooks.round(in_hours(1)).await.unwrap();
    receiver.told.recv().await.unwrap();
    assert_eq!(inside.calls.load(Ordering::SeqCst), 0);
    assert_eq!(open(&dispatcher).await, 1);
}

/// A name that is public when it is looked at and private when it is dialled is the same thing: what is dialled is
/// what was looked at.
#[tokio::test]
async fn a_name_that_leads_inside_is_not_dialled() {
    let inside = Receiver::start(vec![answer("200 OK")]).await;
    let (dispatcher, webhooks) = bed(false).await;
    let schedule = noted(&dispatcher, &[]).await;
    let name = format!("https://localhost:{}/hook", inside.port);
    note(&dispatcher, schedule.id, &name).await;
    assert_eq!(webhooks.round(in_hours(1)).await.unwrap(), 1);
    assert_eq!(
        (open(&dispatcher).await, inside.calls.load(Ordering::SeqCst)),
        (1, 0)
    );
}

/// From the end of a run to the receiver, by the dispatcher's own parts.
#[tokio::test]
async fn who_wants_to_know_of_a_failure_does() {
    let mut receiver = Receiver::start(vec![answer("200 OK")]).await;
    let dispatcher = Dispatcher::start_with(&[&AWAY[..], &["--private-webhooks"]].concat()).await;
    let runner = dispatcher.cluster("edge-7").await;
    let spec = json!({
        "run": { "job": { "command": { "shell": "false" } } },
        "timing": { "when": { "type": "every", "seconds": 3600, "from": in_hours(48) } },
        "notify": [
            { "by": { "webhook": receiver.url() }, "on": ["failed", "recovered"] },
            { "by": { "command": { "shell": "page $SCHEDULE_EVENT" } }, "on": ["failed"] },
        ],
    });
    let put = dispatcher
        .request(Method::PUT, "/v1/schedules/nightly")
        .json(&spec);
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    for (code, kind) in [(3, "schedule.failed"), (0, "schedule.recovered")] {
        let run = dispatcher.request(Method::POST, "/v1/schedules/nightly/run");
        let run = run
            .header("idempotency-key", Uuid::now_v7().to_string())
            .send();
        let tick: Tick = expect(run.await.unwrap(), StatusCode::OK).await;
        let job: Job = dispatcher
            .get(&format!("/v1/jobs/{}", tick.job.unwrap()))
            .await;
        let pod = runner.start(&job).await;
        runner.complete(&job, pod, &exit(code, 0)).await;
        let told = receiver.told.recv().await.unwrap();
        let told: Notification = serde_json::from_str(&told.body).unwrap();
        assert_eq!((told.kind.as_str(), told.data.job), (kind, Some(job.id)));
    }
    let jobs: JobList = dispatcher.get("/v1/jobs").await;
    let told = jobs
        .jobs
        .iter()
        .filter(|job| job.tick.is_none())
        .collect::<Vec<_>>();
    let [page] = told.as_slice() else {
        panic!("{told:?}");
    };
    let variables = page.environment.variables();
    assert_eq!(variables["SCHEDULE_EVENT"], "failed");
    assert_eq!(variables["SCHEDULE_MESSAGE"], "ended with exit code 3");
}
