//! A job from its claim to its end, over the doors, with everything that comes twice or too late.

use std::sync::Arc;
use std::time::Duration;

use invoke_dispatcher::store::{audit, clusters};
use invoke_dispatcher::sweeper::Sweeper;
use invoke_protocol::envelope::{Envelope, Order};
use invoke_protocol::id::PodUid;
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{Cancellation, Claim, Permit, PermitRefusal};
use invoke_protocol::state::{MAX_RETRIES, ReasonCode, Started, StateName};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::bed::{Dispatcher, eventually, expect, problem};
use crate::runner::{exit, log, pod};

#[tokio::test]
async fn a_job_runs_once_and_ends_once() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("echo hello").await;

    assert_eq!(runner.claim(&job).await, Claim::Yours);
    assert_eq!(
        runner.claim(&job).await,
        Claim::Yours,
        "a redelivery, or another replica"
    );
    assert_eq!(
        runner
            .report(&job, &json!({ "type": "pod_created" }))
            .await
            .status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(dispatcher.job(&job).await.state, StateName::Starting);

    let (winner, loser) = (pod(), pod());
    let Permit::Granted {
        envelope,
        start_within_seconds,
        secrets: None,
        log_bytes,
    } = runner.permit(&job, winner).await
    else {
        panic!("the first pod is not permitted");
    };
    assert_eq!((start_within_seconds, log_bytes), (60, 0));
    let key = &runner.enrolment.signing_keys[0];
    assert_eq!(envelope.key_id, key.key_id);
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, &key.public_key)
        .verify(
            &Envelope::signed_bytes(&envelope.payload),
            &envelope.signature,
        )
        .unwrap();
    let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
    assert_eq!((order.job, order.cluster), (job.id, runner.cluster));

    let refused = Permit::Refused {
        why: PermitRefusal::OtherPod,
    };
    assert_eq!(runner.permit(&job, loser).await, refused);
    assert!(
        matches!(runner.permit(&job, winner).await, Permit::Granted { .. }),
        "its answer was lost"
    );
    assert_eq!(runner.claim(&job).await, Claim::Started);

    let output = log(&[b"hello\n"]);
    assert_eq!(
        runner.upload(&job, winner, 0, &output).await.status(),
        StatusCode::OK
    );
    problem(
        runner.upload(&job, loser, 0, &output).await,
        ProblemCode::OtherPod,
    )
    .await;

    let end = exit(0, output.len() as u64);
    problem(
        runner.complete(&job, loser, &end).await,
        ProblemCode::OtherPod,
    )
    .await;
    assert_eq!(
        runner.complete(&job, winner, &end).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        runner.complete(&job, winner, &end).await.status(),
        StatusCode::NO_CONTENT,
        "its answer was lost"
    );
    problem(
        runner.complete(&job, winner, &exit(1, 11)).await,
        ProblemCode::Contradiction,
    )
    .await;
    problem(
        runner
            .upload(&job, winner, output.len() as u64, &output)
            .await,
        ProblemCode::JobOver,
    )
    .await;
    assert_eq!(runner.claim(&job).await, Claim::Over);
    assert_eq!(
        runner.permit(&job, winner).await,
        Permit::Refused {
            why: PermitRefusal::Over
        }
    );

    let job = dispatcher.job(&job).await;
    assert_eq!(
        (job.state, job.exit_code, job.started),
        (StateName::Succeeded, Some(0), Started::Yes)
    );
    assert_eq!(
        (job.output_complete, job.pod),
        (Some(Completeness::Yes), Some(winner))
    );
    assert_eq!(job.runner.unwrap().0, "runner-0");
}

/// No false success: what was not uploaded is not said to be complete.
#[tokio::test]
async fn an_end_before_the_output_says_so() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("echo hello").await;
    let pod = runner.start(&job).await;
    assert_eq!(
        runner.complete(&job, pod, &exit(3, 11)).await.status(),
        StatusCode::NO_CONTENT
    );
    let job = dispatcher.job(&job).await;
    assert_eq!((job.state, job.exit_code), (StateName::Failed, Some(3)));
    assert_eq!(job.output_complete, Some(Completeness::No));
}

#[tokio::test]
async fn nothing_is_believed_of_a_command_that_never_started() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    problem(
        runner.complete(&job, pod(), &exit(0, 0)).await,
        ProblemCode::NotStarted,
    )
    .await;
    problem(
        runner.upload(&job, pod(), 0, &log(&[b"x"])).await,
        ProblemCode::NotStarted,
    )
    .await;
}

/// To a cluster, the jobs of another do not exist.
#[tokio::test]
async fn a_cluster_reaches_its_own_jobs_only() {
    let dispatcher = Dispatcher::start().await;
    let owner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let stranger = dispatcher.cluster("other").await;
    assert_eq!(stranger.claim(&job).await, Claim::Over);
    let pod = pod();
    let ask = stranger.request(Method::POST, &format!("/v1/runner/jobs/{}/permit", job.id));
    problem(
        ask.json(&json!({ "pod": pod })).send().await.unwrap(),
        ProblemCode::JobNotFound,
    )
    .await;
    problem(
        stranger
            .report(&job, &json!({ "type": "pod_created" }))
            .await,
        ProblemCode::JobNotFound,
    )
    .await;
    let waiting = json!({ "type": "waiting", "reason": { "code": "image_pull", "message": "" } });
    problem(
        stranger.report(&job, &waiting).await,
        ProblemCode::JobNotFound,
    )
    .await;
    problem(
        stranger.upload(&job, pod, 0, &log(&[b"x"])).await,
        ProblemCode::JobNotFound,
    )
    .await;
    problem(
        stranger.complete(&job, pod, &exit(0, 0)).await,
        ProblemCode::JobNotFound,
    )
    .await;
    assert_eq!(dispatcher.job(&job).await.state, StateName::Queued);
    assert_eq!(owner.claim(&job).await, Claim::Yours);
}

#[tokio::test]
async fn a_job_that_has_not_started_is_cancelled_at_once() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let cancel = async || {
        dispatcher
            .post(&format!("/v1/jobs/{}/cancel", job.id), &json!({}))
            .await
    };
    let cancelled: Job = expect(cancel().await, StatusCode::ACCEPTED).await;
    assert_eq!(
        (cancelled.state, cancelled.started),
        (StateName::Cancelled, Started::No)
    );
    assert_eq!(cancelled.cancelled_by.as_deref(), Some("local"));
    assert_eq!(
        cancel().await.status(),
        StatusCode::ACCEPTED,
        "again is fine"
    );
    assert_eq!(runner.claim(&job).await, Claim::Over);
    assert_eq!(
        runner.permit(&job, pod()).await,
        Permit::Refused {
            why: PermitRefusal::Over
        }
    );
}

/// The runner waits for news; a cancel is news, and so is its end.
#[tokio::test]
async fn a_running_command_is_cancelled_through_its_runner() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("sleep 100").await;
    let pod = runner.start(&job).await;
    let cancel = async {
        // Once the runner waits, or before: either way it must hear of it.
        let response = dispatcher
            .post(&format!("/v1/jobs/{}/cancel", job.id), &json!({}))
            .await;
        expect::<Job>(response, StatusCode::ACCEPTED).await
    };
    let began = std::time::Instant::now();
    let (heard, cancelled) = tokio::join!(runner.contact_knowing(&[], 15), cancel);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was told when the wait was over"
    );
    assert_eq!(
        (heard.cancelling, cancelled.state),
        (
            vec![Cancellation {
                job: job.id,
                grace_seconds: None
            }],
            StateName::Cancelling
        )
    );
    let end = invoke_protocol::output::ExitRecord {
        cause: invoke_protocol::output::EndCause::Cancelled,
        ..exit(143, 0)
    };
    let known = [Cancellation {
        job: job.id,
        grace_seconds: None,
    }];
    let (heard, ended) = tokio::join!(
        runner.contact_knowing(&known, 15),
        runner.complete(&job, pod, &end)
    );
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert!(heard.cancelling.is_empty() && began.elapsed() < Duration::from_secs(10));
    let again = dispatcher
        .post(&format!("/v1/jobs/{}/cancel", job.id), &json!({}))
        .await;
    assert_eq!(
        again.status(),
        StatusCode::ACCEPTED,
        "it is what was asked for"
    );
}

#[tokio::test]
async fn a_job_that_is_over_cannot_be_cancelled() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let pod = runner.start(&job).await;
    runner.complete(&job, pod, &exit(0, 0)).await;
    let refused = dispatcher
        .post(&format!("/v1/jobs/{}/cancel", job.id), &json!({}))
        .await;
    let refused = problem(refused, ProblemCode::JobOver).await;
    assert!(
        refused.detail.ends_with("it is succeeded"),
        "{}",
        refused.detail
    );
}

#[tokio::test]
async fn what_the_runner_says_is_what_the_job_waits_for() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    runner.claim(&job).await;
    let report = json!({ "type": "waiting", "reason": { "code": "image_pull", "message": "no such image" } });
    assert_eq!(
        runner.report(&job, &report).await.status(),
        StatusCode::NO_CONTENT
    );
    let waiting = dispatcher.job(&job).await;
    assert_eq!(waiting.waiting.unwrap().code, ReasonCode::ImagePull);
    assert_eq!(
        runner.report(&job, &report).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        dispatcher.job(&job).await.version,
        waiting.version,
        "said again, nothing has changed"
    );
    let failed = json!({ "type": "pod_failed", "pod": null, "reason": { "code": "image_pull", "message": "gave up" } });
    assert_eq!(
        runner.report(&job, &failed).await.status(),
        StatusCode::NO_CONTENT
    );
    let failed = dispatcher.job(&job).await;
    assert_eq!(
        (failed.state, failed.started),
        (StateName::InfraFailed, Started::No)
    );
    problem(runner.report(&job, &report).await, ProblemCode::JobOver).await;
}

/// Whatever a forged message makes a runner report: a command that runs, runs on.
#[tokio::test]
async fn a_started_command_cannot_be_rejected() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    runner.start(&job).await;
    let rejected =
        json!({ "type": "rejected", "reason": { "code": "signature", "message": "forged" } });
    problem(runner.report(&job, &rejected).await, ProblemCode::OtherPod).await;
    let failed = json!({ "type": "pod_failed", "pod": pod(), "reason": { "code": "pod_gone", "message": "" } });
    problem(runner.report(&job, &failed).await, ProblemCode::OtherPod).await;
    assert_eq!(dispatcher.job(&job).await.state, StateName::Running);
}

/// To the second, and with the reason that it waited for.
#[tokio::test]
async fn a_job_expires_at_its_start_deadline() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.invite("edge-7").await;
    let body = json!({ "command": { "shell": "date" }, "start_within_seconds": 1 });
    let job: Job = expect(
        dispatcher.submit_as(uuid::Uuid::now_v7(), &body).await,
        StatusCode::ACCEPTED,
    )
    .await;
    let path = format!("/v1/jobs/{}?wait_seconds=10", job.id);
    let expired: Job = dispatcher.get(&path).await;
    assert_eq!(
        (expired.state, expired.started),
        (StateName::Expired, Started::No)
    );
    assert_eq!(
        expired.reason.unwrap().code,
        ReasonCode::ClusterNeverConnected
    );
    let late = expired
        .times
        .ended
        .unwrap()
        .duration_since(job.times.start_deadline);
    assert!(!late.is_negative() && late.as_millis() < 1000, "{late:#}");
}

/// Silence is not the end: a runner that is back goes on, and only much later nobody can know.
#[tokio::test]
async fn a_silent_cluster_is_marked_heard_again_and_at_last_given_up() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("sleep 100").await;
    let pod = runner.start(&job).await;
    let app = dispatcher.running.app();
    let (store, broker) = (app.store.clone(), Arc::clone(&app.broker));
    let now = jiff::Timestamp::now();
    let later = |seconds| now + SignedDuration::from_secs(seconds);
    let sweeper =
        |listening_since| Sweeper::new(store.clone(), Arc::clone(&broker), listening_since);
    let (sweeper, restarted) = (sweeper(now), sweeper(later(30)));
    sweeper.sweep(later(59)).await.unwrap();
    assert_eq!(dispatcher.job(&job).await.state, StateName::Running);
    restarted.sweep(later(61)).await.unwrap();
    assert_eq!(
        dispatcher.job(&job).await.state,
        StateName::Running,
        "it was not there to hear"
    );
    sweeper.sweep(later(61)).await.unwrap();
    assert_eq!(dispatcher.job(&job).await.state, StateName::ContactLost);
    runner.contact().await;
    let job = dispatcher.job(&job).await;
    assert_eq!((job.state, job.pod), (StateName::Running, Some(pod)));
    // The profile lets it run for an hour; ten minutes after that nobody has said how it ended.
    sweeper.sweep(later(3600 + 599)).await.unwrap();
    assert_eq!(dispatcher.job(&job).await.state, StateName::ContactLost);
    let restarted = Sweeper::new(store.clone(), Arc::clone(&broker), later(3600 + 601));
    restarted.sweep(later(3600 + 720)).await.unwrap();
    assert_eq!(
        dispatcher.job(&job).await.state,
        StateName::ContactLost,
        "who could not be heard has two minutes to say it"
    );
    sweeper.sweep(later(3600 + 602)).await.unwrap();
    let job = dispatcher.job(&job).await;
    assert_eq!(
        (job.state, job.started),
        (StateName::Lost, Started::Unknown)
    );
    assert_eq!(job.reason.unwrap().code, ReasonCode::NoReport);
    assert_eq!(
        runner.claim(&dispatcher.submit("date").await).await,
        Claim::Yours
    );
}

/// Two dispatchers on one database: what one does, people at the other see within a second.
#[tokio::test]
async fn replicas_share_jobs_keys_and_output() {
    let database = crate::store::Database::postgres().await;
    let blobs = tempfile::tempdir().unwrap();
    let blob_url = format!("file://{}", blobs.path().display());
    let arguments = [
        "--amqp-url",
        "amqp://127.0.0.1:1/%2f",
        "--amqp-management-url",
        "http://127.0.0.1:1",
        "--database-url",
        &database.url,
        "--blob-url",
        &blob_url,
    ];
    let one = Dispatcher::start_with(&arguments).await;
    let runner = one.cluster("edge-7").await;
    let job = one.submit("echo hello").await;
    let other = Dispatcher::start_with(&arguments).await;
    assert_eq!(
        other.running.app().signer.public(),
        runner.enrolment.signing_keys[0]
    );
    let news = format!(
        "/v1/jobs/{}?wait_seconds=30&version={}",
        job.id, job.version
    );
    let began = std::time::Instant::now();
    let (seen, _) = tokio::join!(other.get::<Job>(&news), runner.claim(&job));
    assert_eq!(seen.state, StateName::Claimed);
    assert!(began.elapsed() < Duration::from_secs(5));
    let pod = runner.start(&job).await;
    let output = log(&[b"hello\n"]);
    assert_eq!(
        runner.upload(&job, pod, 0, &output).await.status(),
        StatusCode::OK
    );
    let path = format!("/v1/jobs/{}/output", job.id);
    let read = other.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), output);
    database.remove().await;
}

#[tokio::test]
async fn a_long_poll_ends_with_the_news() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let path = format!(
        "/v1/jobs/{}?wait_seconds=30&version={}",
        job.id, job.version
    );
    let began = std::time::Instant::now();
    let (seen, claimed) = tokio::join!(dispatcher.get::<Job>(&path), runner.claim(&job));
    assert_eq!((claimed, seen.state), (Claim::Yours, StateName::Claimed));
    assert!(began.elapsed() < Duration::from_secs(5));
    let nothing_new = format!(
        "/v1/jobs/{}?wait_seconds=1&version={}",
        job.id, seen.version
    );
    assert_eq!(
        dispatcher.get::<Job>(&nothing_new).await.version,
        seen.version
    );
}

#[tokio::test]
async fn a_cluster_is_shown_as_its_runner_speaks() {
    use invoke_protocol::api::{ClusterList, ClusterState};
    let dispatcher = Dispatcher::start().await;
    let invitation = dispatcher.invite("edge-7").await;
    let show = async || {
        dispatcher
            .get::<ClusterList>("/v1/clusters")
            .await
            .clusters
            .remove(0)
    };
    assert_eq!(
        (show().await.state, show().await.last_contact),
        (ClusterState::NeverConnected, None)
    );
    let runner = crate::runner::Runner::enrol(&dispatcher, &invitation).await;
    runner.contact().await;
    let job = dispatcher.submit("date").await;
    let cluster = show().await;
    assert_eq!(
        (cluster.state, cluster.open_jobs),
        (ClusterState::Connected, 1)
    );
    assert_eq!(cluster.runner_version.as_deref(), Some("0.1.0"));
    assert_eq!(cluster.profiles[0].name.as_str(), "default");
    let taken = dispatcher
        .post("/v1/clusters", &json!({ "name": "edge-7" }))
        .await;
    problem(taken, ProblemCode::ClusterExists).await;
    eventually("the job is listed for its cluster", async || {
        let list: invoke_protocol::api::JobList = dispatcher.get("/v1/jobs?cluster=edge-7").await;
        list.jobs
            .iter()
            .any(|listed| listed.id == job.id)
            .then_some(())
    })
    .await;
}

/// The story is shown where one job is asked for, and nowhere else.
#[tokio::test]
async fn a_jobs_story_is_shown_with_it() {
    use invoke_protocol::job::StepName;
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let pod = runner.start(&job).await;
    assert_eq!(
        runner.complete(&job, pod, &exit(0, 0)).await.status(),
        StatusCode::NO_CONTENT
    );
    problem(
        runner.complete(&job, pod, &exit(1, 0)).await,
        ProblemCode::Contradiction,
    )
    .await;
    // Output that comes late is refused too; what is stored already is no news.
    for late in [&log(&[b"more"])[..], b""] {
        problem(
            runner.upload(&job, pod, 0, late).await,
            ProblemCode::JobOver,
        )
        .await;
    }
    let told = dispatcher.job(&job).await.story;
    let steps: Vec<_> = told
        .iter()
        .map(|step| (step.step, step.by.as_str()))
        .collect();
    let by_runner = "runner edge-7/runner-0";
    assert_eq!(
        steps,
        [
            (StepName::Submitted, "local"),
            (StepName::Claimed, by_runner),
            (StepName::Permitted, by_runner),
            (StepName::Ended, by_runner),
            (StepName::ReportRefused, by_runner),
            (StepName::ReportRefused, by_runner),
        ]
    );
    let list: invoke_protocol::api::JobList = dispatcher.get("/v1/jobs").await;
    assert!(list.jobs[0].story.is_empty());
}

/// Before its start, a lost pod is replaced by itself; told of the same pod again, nothing happens.
#[tokio::test]
async fn a_job_whose_pod_is_lost_before_its_start_is_queued_again() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    runner.claim(&job).await;
    let store = &dispatcher.running.app().store;
    let leased = store.lease_unsent(1, jiff::Timestamp::now()).await.unwrap();
    store
        .mark_sent(leased[0], jiff::Timestamp::now())
        .await
        .unwrap();
    let lose = async |pod: PodUid| {
        let reason = json!({ "code": "evicted", "message": "drained" });
        let lost = json!({ "type": "pod_failed", "pod": pod, "reason": reason });
        let told = runner.report(&job, &lost).await;
        assert_eq!(told.status(), StatusCode::NO_CONTENT);
        let job = dispatcher.job(&job).await;
        (job.state, job.retries)
    };
    let first = pod();
    for _ in 0..2 {
        assert_eq!(lose(first).await, (StateName::Queued, 1));
    }
    assert_eq!(store.unsent().await.unwrap(), 1);
    for retries in 2..=MAX_RETRIES {
        assert_eq!(lose(pod()).await, (StateName::Queued, retries));
    }
    assert_eq!(
        lose(pod()).await,
        (StateName::InfraFailed, MAX_RETRIES),
        "what kills six pods in a row is no accident"
    );
}

/// A store from a backup that does not know of a start: the cluster does, and its word is taken before
/// the job is given up as never started.
#[tokio::test]
async fn a_restored_store_learns_of_a_start_before_the_job_expires() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let (started, forgotten) = (
        dispatcher.submit("date").await,
        dispatcher.submit("date").await,
    );
    dispatcher.invite("never").await;
    let body = json!({ "command": { "shell": "date" }, "cluster": "never" });
    let unheard: Job = expect(
        dispatcher.submit_as(uuid::Uuid::now_v7(), &body).await,
        StatusCode::ACCEPTED,
    )
    .await;
    let app = dispatcher.running.app();
    let restored = started.times.start_deadline + SignedDuration::from_secs(60);
    let later = |seconds| restored + SignedDuration::from_secs(seconds);
    let sweeper = Sweeper::new(app.store.clone(), Arc::clone(&app.broker), restored);
    let state = async |job: &Job| dispatcher.job(job).await.state;

    sweeper.sweep(later(1)).await.unwrap();
    assert_eq!(state(&started).await, StateName::Queued);
    assert_eq!(
        state(&unheard).await,
        StateName::Expired,
        "no runner ever was there that could tell"
    );
    // The cluster's runner is back, and looks at its own records.
    contact_at(&app.store, runner.cluster, later(20)).await;
    sweeper.sweep(later(21)).await.unwrap();
    sweeper.sweep(later(35)).await.unwrap();
    assert_eq!(state(&started).await, StateName::Queued);
    let pod = pod();
    let not_started = runner.complete(&started, pod, &exit(0, 0)).await;
    problem(not_started, ProblemCode::NotStarted).await;
    let recovered = json!({
        "type": "recovered", "pod": pod, "started": started.times.submitted,
    });
    for _ in 0..2 {
        let told = runner.report(&started, &recovered).await;
        assert_eq!(told.status(), StatusCode::NO_CONTENT);
    }
    sweeper.sweep(later(36)).await.unwrap();
    assert_eq!(
        (state(&started).await, state(&forgotten).await),
        (StateName::Running, StateName::Expired)
    );
    assert_eq!(
        runner.complete(&started, pod, &exit(0, 0)).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(state(&started).await, StateName::Succeeded);
    // Too late, it is an alarm, and no second life.
    let told = runner.report(&forgotten, &recovered).await;
    problem(told, ProblemCode::JobOver).await;
}

/// A cluster that stays away does not hold anything up for ever.
#[tokio::test]
async fn an_overdue_job_of_a_silent_cluster_expires_two_minutes_after_a_start() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let app = dispatcher.running.app();
    let began = job.times.start_deadline + SignedDuration::from_secs(1);
    let sweeper = Sweeper::new(app.store.clone(), Arc::clone(&app.broker), began);
    let at = |seconds| began + SignedDuration::from_secs(seconds);
    sweeper.sweep(at(119)).await.unwrap();
    assert_eq!(dispatcher.job(&job).await.state, StateName::Queued);
    sweeper.sweep(at(120)).await.unwrap();
    assert_eq!(dispatcher.job(&job).await.state, StateName::Expired);
}

async fn contact_at(
    store: &invoke_dispatcher::store::Store,
    cluster: invoke_protocol::id::ClusterId,
    at: jiff::Timestamp,
) {
    let mut session = store.write().await.unwrap();
    let contact = clusters::Contact {
        runner_version: "0.1.0",
        profiles: &[],
        clock_skew_seconds: None,
    };
    clusters::record_contact(&mut session, cluster, contact, at)
        .await
        .unwrap();
    session.commit().await.unwrap();
}

/// The silence of a pod that does not run the command says nothing about the one that does.
#[tokio::test]
async fn only_the_pod_that_runs_the_command_can_fall_silent() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let running = runner.start(&job).await;
    let silent = |pod| json!({ "type": "contact_lost", "pod": pod, "reason": { "code": "node_lost", "message": "" } });
    problem(
        runner.report(&job, &silent(pod())).await,
        ProblemCode::OtherPod,
    )
    .await;
    assert_eq!(dispatcher.job(&job).await.state, StateName::Running);
    let told = runner.report(&job, &silent(running)).await;
    assert_eq!(told.status(), StatusCode::NO_CONTENT);
    let lost = dispatcher.job(&job).await;
    assert_eq!(
        (lost.state, lost.waiting.unwrap().code),
        (StateName::ContactLost, ReasonCode::NodeLost)
    );
    runner.contact().await;
    assert_eq!(
        dispatcher.job(&job).await.state,
        StateName::ContactLost,
        "the runner is there, the node is not"
    );
    let back = json!({ "type": "contact_back", "pod": running });
    runner.report(&job, &back).await;
    assert_eq!(dispatcher.job(&job).await.state, StateName::Running);
}

/// A message that the broker confirmed and lost is sent again, while there is somebody to take it.
#[tokio::test]
async fn the_sweeper_sends_again_what_nobody_took() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let submitted = dispatcher.submit("date").await.times.submitted;
    let app = dispatcher.running.app();
    let leased = app.store.lease_unsent(1, submitted).await.unwrap();
    app.store.mark_sent(leased[0], submitted).await.unwrap();
    let later = |seconds| submitted + SignedDuration::from_secs(seconds);
    let sweeper = Sweeper::new(app.store.clone(), Arc::clone(&app.broker), submitted);
    contact_at(&app.store, runner.cluster, later(50)).await;
    sweeper.sweep(later(59)).await.unwrap();
    assert_eq!(app.store.unsent().await.unwrap(), 0, "not yet");
    sweeper.sweep(later(60)).await.unwrap();
    assert_eq!(app.store.unsent().await.unwrap(), 1);
}

/// A shim that could not prepare for its command says so, and then the command has never started: whoever
/// reads the state, the story or the audit log is told the same.
#[tokio::test]
async fn a_start_that_the_pod_could_not_prepare_for_never_was() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let refused = |pod: PodUid| {
        json!({ "type": "start_refused", "pod": pod,
            "reason": { "code": "files_refused", "message": "../x leads out of the work folder" } })
    };
    let job = dispatcher.submit("make").await;
    let early = runner.report(&job, &refused(pod())).await;
    problem(early, ProblemCode::NotStarted).await;
    let holder = runner.start(&job).await;
    let other = runner.report(&job, &refused(pod())).await;
    problem(other, ProblemCode::OtherPod).await;
    for _ in 0..2 {
        let taken = runner.report(&job, &refused(holder)).await;
        assert_eq!(taken.status(), StatusCode::NO_CONTENT, "also again");
    }
    let over = dispatcher.job(&job).await;
    assert_eq!(
        (over.state, over.started, over.output_complete),
        (StateName::InfraFailed, Started::No, Some(Completeness::Yes))
    );
    let reason = over.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::FilesRefused);
    let told = over.story.last().unwrap();
    assert_eq!(told.by, "runner edge-7/runner-0");
    assert_eq!(
        told.message,
        "infra_failed: ../x leads out of the work folder"
    );
    let lines = audited(&dispatcher, &job).await;
    assert_eq!(
        lines.last().unwrap()[1..],
        ["job.start_refused", "infra_failed"]
    );
    let ended = runner.complete(&job, holder, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::CONFLICT, "nor can it end now");

    // Cancelled before, it is what was asked for; and an end that is on record is not denied.
    let job = dispatcher.submit("make").await;
    let holder = runner.start(&job).await;
    let path = format!("/v1/jobs/{}/cancel", job.id);
    dispatcher.post(&path, &json!({})).await;
    let taken = runner.report(&job, &refused(holder)).await;
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    let over = dispatcher.job(&job).await;
    assert_eq!(
        (over.state, over.started),
        (StateName::Cancelled, Started::No)
    );
    let job = dispatcher.submit("make").await;
    let holder = runner.start(&job).await;
    runner.complete(&job, holder, &exit(0, 0)).await;
    let denied = runner.report(&job, &refused(holder)).await;
    problem(denied, ProblemCode::JobOver).await;
    let over = dispatcher.job(&job).await;
    assert_eq!(over.state, StateName::Succeeded);
    let told = &over.story.last().unwrap().message;
    assert!(told.contains("never started the command"), "{told}");
    let lines = audited(&dispatcher, &job).await;
    assert_eq!(lines.last().unwrap()[1..], ["job.start_refused", "refused"]);
}

async fn audited(dispatcher: &Dispatcher, job: &Job) -> Vec<[String; 3]> {
    let mut session = dispatcher.running.app().store.read().await.unwrap();
    let object = format!("job {}", job.id);
    let lines = audit::of_object(&mut session, &object).await.unwrap();
    lines.into_iter().map(Into::into).collect()
}
