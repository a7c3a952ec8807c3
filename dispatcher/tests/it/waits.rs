//! What a person is told who waits, or who should not have to.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use invoke_dispatcher::store::{Session, clusters};
use invoke_protocol::api::ClusterList;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{Claim, ContactRequest, ProfileSummary};
use invoke_protocol::state::{ReasonCode, StateName};
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Dispatcher, expect, problem};
use crate::runner::{Runner, words};

async fn ask(dispatcher: &Dispatcher, fields: Value) -> reqwest::Response {
    let mut body = json!({ "command": { "shell": "date" } });
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    dispatcher.submit_as(Uuid::now_v7(), &body).await
}

/// As if the cluster's runner had not spoken for this long.
async fn falls_silent(dispatcher: &Dispatcher, runner: &Runner, seconds: i64) {
    let store = &dispatcher.running.app().store;
    let words = words();
    let contact = clusters::Contact {
        runner_version: &words.version,
        profiles: &words.profiles,
        clock_skew_seconds: None,
    };
    let then = Timestamp::now() - SignedDuration::from_secs(seconds);
    let mut session = store.write().await.unwrap();
    clusters::record_contact(&mut session, runner.cluster, contact, then)
        .await
        .unwrap();
    session.commit().await.unwrap();
}

/// Whoever cannot wait is told at once, and nothing is left behind; a retry of what was accepted is
/// answered as it was.
#[tokio::test]
async fn a_job_that_shall_not_wait_is_refused_while_its_cluster_is_away() {
    let dispatcher = Dispatcher::start().await;
    let fail = json!({ "if_offline": "fail" });
    let invitation = dispatcher.invite("edge-7").await;
    let refused = problem(
        ask(&dispatcher, fail.clone()).await,
        ProblemCode::ClusterOffline,
    )
    .await;
    assert!(
        refused.detail.starts_with("no runner has ever connected"),
        "{}",
        refused.detail
    );
    let runner = Runner::enrol(&dispatcher, &invitation).await;
    runner.contact().await;
    let (key, body) = (
        Uuid::now_v7(),
        json!({ "command": { "shell": "date" }, "if_offline": "fail" }),
    );
    let accepted: Job = expect(dispatcher.submit_as(key, &body).await, StatusCode::ACCEPTED).await;
    falls_silent(&dispatcher, &runner, 600).await;
    let refused = problem(
        ask(&dispatcher, fail.clone()).await,
        ProblemCode::ClusterOffline,
    )
    .await;
    for words in ["has been offline since 20", "10 min", "wait"] {
        assert!(refused.detail.contains(words), "{}", refused.detail);
    }
    let again: Job = expect(dispatcher.submit_as(key, &body).await, StatusCode::OK).await;
    assert_eq!(again.id, accepted.id);
    let waiting: Job = expect(ask(&dispatcher, json!({})).await, StatusCode::ACCEPTED).await;
    assert_eq!(waiting.waiting.unwrap().code, ReasonCode::ClusterOffline);
    runner.contact().await;
    let taken: Job = expect(ask(&dispatcher, fail).await, StatusCode::ACCEPTED).await;
    assert_eq!(taken.state, StateName::Queued);
}

/// The owner of the cluster says for how long an order may lie about.
#[tokio::test]
async fn a_profile_limits_the_wait_for_the_start() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let profile = ProfileSummary {
        max_start_within_seconds: Some(120),
        ..words().profiles.remove(0)
    };
    runner
        .say(&ContactRequest {
            profiles: vec![profile],
            ..words()
        })
        .await;
    let refused = problem(
        ask(&dispatcher, json!({ "start_within_seconds": 121 })).await,
        ProblemCode::InvalidDeadline,
    )
    .await;
    for words in ["profile default", "edge-7", "120 seconds"] {
        assert!(refused.detail.contains(words), "{}", refused.detail);
    }
    let silent: Job = expect(ask(&dispatcher, json!({})).await, StatusCode::ACCEPTED).await;
    let patience = silent
        .times
        .start_deadline
        .duration_since(silent.times.submitted);
    assert_eq!(patience.as_secs(), 120);
}

#[tokio::test]
async fn who_waits_for_its_turn_is_told_its_place() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let (first, second) = (
        dispatcher.submit("one").await,
        dispatcher.submit("two").await,
    );
    let third = dispatcher.submit("three").await;
    let place =
        "it is 3rd in the queue of cluster edge-7: 2 jobs submitted earlier have not started";
    assert_eq!(runner.claim(&third).await, Claim::Yours);
    let waiting = dispatcher.job(&third).await.waiting.unwrap();
    assert_eq!(waiting.code, ReasonCode::OnItsWay);
    assert!(waiting.message.ends_with(place), "{}", waiting.message);
    let busy = json!({ "type": "waiting", "reason": { "code": "runner_busy", "message": "2 jobs at once" } });
    runner.report(&third, &busy).await;
    let waiting = dispatcher.job(&third).await.waiting.unwrap();
    assert_eq!(waiting.message, format!("2 jobs at once; {place}"));
    runner.start(&first).await;
    runner.start(&second).await;
    let waiting = dispatcher.job(&third).await.waiting.unwrap();
    assert_eq!(waiting.message, "2 jobs at once");
}

/// A clock that is wrong is named, where people look.
#[tokio::test]
async fn a_wrong_clock_is_shown() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let says = async |seconds| {
        let clock = Timestamp::now() + SignedDuration::from_secs(seconds);
        runner.say(&ContactRequest { clock, ..words() }).await;
        let list: ClusterList = dispatcher.get("/v1/clusters").await;
        list.clusters[0].clock_skew_seconds
    };
    assert_eq!(says(20).await, None);
    let ahead = says(7200).await.unwrap();
    assert!((7190..=7200).contains(&ahead), "{ahead}");
    let behind = says(-86_400).await.unwrap();
    assert!((-86_410..=-86_400).contains(&behind), "{behind}");
    assert_eq!(says(0).await, None, "it was set");
}

/// A burst beyond what the store can take is refused within moments, and only the burst: who polls is
/// answered, and what was let in is stored.
#[tokio::test]
async fn a_burst_of_submissions_is_refused_and_harms_nobody_else() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("before").await;
    let writer = dispatcher.running.app().store.write().await.unwrap();
    let burst: FuturesUnordered<_> = (0..40)
        .map(|_| ask(&dispatcher, json!({ "profile": "default" })))
        .collect();
    let (refused, rest): (Vec<_>, Vec<_>) = {
        let mut answers = burst;
        let mut refused = Vec::new();
        for _ in 0..32 {
            refused.push(answers.next().await.unwrap());
        }
        let began = std::time::Instant::now();
        assert_eq!(dispatcher.job(&job).await.id, job.id);
        assert!(began.elapsed().as_millis() < 500, "a poll waits too");
        drop(writer);
        (refused, answers.collect().await)
    };
    for response in refused {
        assert_eq!(response.headers()["retry-after"], "1");
        problem(response, ProblemCode::TooManyRequests).await;
    }
    assert_eq!(rest.len(), 8);
    for response in rest {
        expect::<Job>(response, StatusCode::ACCEPTED).await;
    }
    dispatcher.submit("after").await;
}

/// Without RabbitMQ jobs wait in the store, but not without end.
#[tokio::test]
async fn what_is_unsent_for_too_long_lets_no_more_in() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    dispatcher.cluster("other").await;
    let to = async |cluster: &str| ask(&dispatcher, json!({ "cluster": cluster })).await;
    grow_older(&dispatcher, 590).await;
    expect::<Job>(to("edge-7").await, StatusCode::ACCEPTED).await;
    grow_older(&dispatcher, 20).await;
    let response = to("edge-7").await;
    assert_eq!(response.headers()["retry-after"], "30");
    let refused = problem(response, ProblemCode::Unavailable).await;
    for words in ["RabbitMQ", "cluster edge-7", "more than 10 minutes"] {
        assert!(refused.detail.contains(words), "{}", refused.detail);
    }
    expect::<Job>(to("other").await, StatusCode::ACCEPTED).await;
    assert_eq!(dispatcher.job(&job).await.state, StateName::Queued);
}

async fn grow_older(dispatcher: &Dispatcher, seconds: i64) {
    let session = dispatcher.running.app().store.write().await.unwrap();
    let Session::Sqlite(mut transaction) = session else {
        panic!("this test is for the default database")
    };
    sqlx::query("UPDATE outbox SET created_at = created_at - $1")
        .bind(seconds * 1_000_000)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// The grace that a person chose gets to the runner, and a shorter one replaces it.
#[tokio::test]
async fn a_cancellation_takes_its_grace_along() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("sleep 100").await;
    runner.start(&job).await;
    let path = format!("/v1/jobs/{}/cancel", job.id);
    let heard = async || runner.contact().await.cancelling[0].grace_seconds;
    let too_long = dispatcher
        .post(&path, &json!({ "grace_seconds": 3601 }))
        .await;
    let refused = problem(too_long, ProblemCode::InvalidRequest).await;
    assert!(refused.detail.contains("3600"), "{}", refused.detail);
    assert_eq!(dispatcher.job(&job).await.state, StateName::Running);
    let empty = dispatcher
        .request(reqwest::Method::POST, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(empty.status(), StatusCode::ACCEPTED);
    assert_eq!(heard().await, None, "the cluster's own");
    for (asked, in_force) in [(60, 60), (300, 60), (0, 0)] {
        let body = json!({ "grace_seconds": asked });
        let shown: Job = expect(dispatcher.post(&path, &body).await, StatusCode::ACCEPTED).await;
        assert_eq!(shown.state, StateName::Cancelling);
        assert_eq!(heard().await, Some(in_force));
    }
}
