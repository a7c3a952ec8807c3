//! One suite, two engines: what the store promises, it promises on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt as _;
use invoke_dispatcher::events::Events;
use invoke_dispatcher::store::job_output::{self, Part, StreamBytes};
use invoke_dispatcher::store::jobs::{self, NewJob};
use invoke_dispatcher::store::transition::{Change, Verdict};
use invoke_dispatcher::store::{
    Store, api_tokens, audit, backlog, clusters, due, join_tokens, secrets, story,
};
use invoke_protocol::command::Command;
use invoke_protocol::environment::Environment;
use invoke_protocol::id::{ClusterId, JobId, PodUid, ProfileName, RunnerId};
use invoke_protocol::job::Step;
use invoke_protocol::labels::Labels;
use invoke_protocol::output::OutputComplete;
use invoke_protocol::runner::ProfileSummary;
use invoke_protocol::state::{
    Event, JobState, MAX_RETRIES, Reason, ReasonCode, Refusal, Retries, StateName,
};
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::bed::{eventually, required};

/// A database of one test's own.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) url: String,
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/invoke.db", folder.path().display());
        Self {
            url,
            _folder: Some(Arc::new(folder)),
        }
    }

    pub(crate) async fn postgres() -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        on_the_server(format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        let url = required("INVOKE_TEST_POSTGRES_URL");
        let (server, _) = url.rsplit_once('/').unwrap();
        Self {
            url: format!("{server}/{name}"),
            _folder: None,
        }
    }

    /// Drops it, whoever is still connected. After a test that failed it stays, to be looked at.
    pub(crate) async fn remove(self) {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        // Refused while the server's own cleaner is at it, which is soon over.
        eventually("the database is dropped", async || {
            on_the_server(format!("DROP DATABASE {name} WITH (FORCE)"))
                .await
                .ok()
        })
        .await;
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url, Arc::new(Events::default()))
            .await
            .unwrap()
    }
}

async fn on_the_server(statement: String) -> sqlx::Result<()> {
    let pool = sqlx::PgPool::connect(&required("INVOKE_TEST_POSTGRES_URL")).await?;
    let done = sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&pool)
        .await;
    pool.close().await;
    done.map(drop)
}

macro_rules! on_both_engines {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(super::Database::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() {
                let database = super::Database::postgres().await;
                super::$test(database.clone()).await;
                database.remove().await;
            })*
        }
    };
}

pub(crate) use on_both_engines;

on_both_engines! {
    what_was_accepted_is_read_back
    what_is_shown_without_reading_is_what_is_read
    jobs_that_are_not_over_are_counted_by_cluster
    one_key_makes_one_job
    jobs_are_listed_newest_first_and_by_page
    of_permit_and_cancel_exactly_one_wins
    of_two_pods_exactly_one_is_permitted
    a_refused_event_leaves_everything_as_it_was
    a_job_of_another_cluster_does_not_exist
    what_is_leased_is_not_leased_twice
    what_is_confirmed_leaves_the_outbox
    what_failed_rests_and_comes_again
    a_forgotten_job_is_sent_again_while_its_cluster_speaks
    a_job_whose_pod_is_lost_is_sent_again
    a_job_that_is_put_off_is_sent_again
    a_recovered_start_is_given_up_later
    a_job_has_a_story
    a_contradiction_is_in_the_story
    output_is_appended_where_it_ends_or_not_at_all
    an_end_is_the_end_of_the_output
    due_jobs_are_found
    a_join_token_is_for_one_key
    a_token_is_good_until_its_owner_has_another
    a_place_counts_what_the_cluster_was_given_earlier
    an_old_unsent_job_is_found_by_its_cluster
    a_wrong_clock_is_remembered_until_it_is_right
    replicas_share_one_secret
    every_change_is_in_the_audit_log
}

pub(crate) fn now() -> Timestamp {
    "2026-11-22T10:00:00.123456Z".parse().unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

pub(crate) fn pod() -> PodUid {
    PodUid::from_uuid(Uuid::new_v4())
}

pub(crate) fn new_job(cluster: ClusterId) -> NewJob {
    NewJob {
        id: JobId::from_uuid(Uuid::now_v7()),
        cluster,
        profile: ProfileName::default_profile(),
        command: Command::shell("printf 'ä\\n' | cat").unwrap(),
        submitted_by: "local".to_owned(),
        start_deadline: after(900),
        run_timeout_seconds: Some(60),
        idempotency_key: Uuid::new_v4(),
        request_digest: vec![1; 32],
        files: None,
        environment: Environment::default(),
        secrets: None,
        stdin: false,
        tick: None,
        fanout: None,
    }
}

pub(crate) async fn cluster(store: &Store, name: &str) -> ClusterId {
    let id = ClusterId::from_uuid(Uuid::new_v4());
    let mut session = store.write().await.unwrap();
    assert!(
        clusters::add(
            &mut session,
            id,
            &name.parse().unwrap(),
            &Labels::default(),
            now()
        )
        .await
        .unwrap()
    );
    session.commit().await.unwrap();
    id
}

async fn speaks(store: &Store, cluster: ClusterId, at: Timestamp) {
    let profiles = [ProfileSummary {
        max_start_within_seconds: None,
        output_cap_bytes: None,
        name: ProfileName::default_profile(),
        max_run_seconds: 3600,
    }];
    let mut session = store.write().await.unwrap();
    let contact = clusters::Contact {
        runner_version: "0.1.0",
        profiles: &profiles,
        clock_skew_seconds: None,
    };
    clusters::record_contact(&mut session, cluster, contact, at)
        .await
        .unwrap();
    session.commit().await.unwrap();
}

async fn accepted(store: &Store) -> NewJob {
    let cluster = cluster(store, "edge-7").await;
    let job = new_job(cluster);
    assert!(store.accept(&job, now()).await.unwrap());
    job
}

pub(crate) async fn change(
    store: &Store,
    job: JobId,
    event: Event,
    at: Timestamp,
) -> Result<Verdict, Refusal> {
    let change = Change {
        job,
        scope: None,
        by: "test",
        now: at,
    };
    store
        .change(change, |_| event.clone())
        .await
        .unwrap()
        .unwrap()
        .verdict
}

pub(crate) async fn found(store: &Store, job: JobId) -> jobs::StoredJob {
    let mut session = store.read().await.unwrap();
    jobs::find(&mut session, job).await.unwrap().unwrap()
}

pub(crate) fn permit(pod: PodUid) -> Event {
    Event::Permit {
        pod,
        start_deadline: after(900),
    }
}

pub(crate) fn cancel() -> Event {
    Event::Cancel {
        grace_seconds: None,
        by: "anna".to_owned(),
    }
}

async fn what_was_accepted_is_read_back(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    store.close().await;
    let job_again = found(&database.open().await, job.id).await;
    assert_eq!(job_again.state, JobState::Queued);
    assert_eq!(
        (job_again.command, job_again.submitted_at),
        (job.command, now())
    );
    assert_eq!(
        (job_again.start_deadline, job_again.run_timeout_seconds),
        (after(900), Some(60))
    );
    assert_eq!(
        (
            job_again.cluster_name.as_str(),
            job_again.version,
            job_again.log_bytes
        ),
        ("edge-7", 1, 0)
    );
}

/// The answer to a submission is made of what was written: it must not differ from what is read later.
async fn what_is_shown_without_reading_is_what_is_read(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    speaks(&store, cluster, now()).await;
    let mut session = store.read().await.unwrap();
    let stored = clusters::by_id(&mut session, cluster).await.unwrap();
    drop(session);
    // Columns hold microseconds.
    let at = now() + SignedDuration::from_nanos(1_234_567);
    let job = NewJob {
        start_deadline: at + SignedDuration::from_secs(900),
        ..new_job(cluster)
    };
    assert!(store.accept(&job, at).await.unwrap());
    let read = found(&store, job.id).await;
    let object = format!("job {}", job.id);
    let mut session = store.read().await.unwrap();
    let audited = audit::of_object(&mut session, &object).await.unwrap();
    let line = ["local", "job.submit", "queued"].map(str::to_owned);
    assert_eq!(audited, [line.into()]);
    assert_eq!(store.unsent().await.unwrap(), 1);
    drop(session);
    let shown = jobs::StoredJob::accepted(job, stored.unwrap(), at);
    assert_eq!(format!("{shown:#?}"), format!("{read:#?}"));
}

async fn jobs_that_are_not_over_are_counted_by_cluster(database: Database) {
    let store = database.open().await;
    let (busy, idle) = (cluster(&store, "busy").await, cluster(&store, "idle").await);
    let over = new_job(busy);
    for job in [&over, &new_job(busy), &new_job(busy)] {
        assert!(store.accept(job, now()).await.unwrap());
    }
    change(&store, over.id, cancel(), now()).await.unwrap();
    let mut session = store.read().await.unwrap();
    let counted = clusters::open_jobs(&mut session).await.unwrap();
    assert_eq!((counted.get(&busy), counted.get(&idle)), (Some(&2), None));
}

/// Also when both come at the same moment.
async fn one_key_makes_one_job(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let (one, mut other) = (new_job(cluster), new_job(cluster));
    other.idempotency_key = one.idempotency_key;
    let (first, second) = tokio::join!(store.accept(&one, now()), store.accept(&other, now()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first ^ second, "{first} {second}");
    assert_eq!(store.unsent().await.unwrap(), 1);
    let mut session = store.read().await.unwrap();
    let made = jobs::by_idempotency_key(&mut session, "local", one.idempotency_key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(made.id, if first { one.id } else { other.id });
    let somebody_else = jobs::by_idempotency_key(&mut session, "anna", one.idempotency_key)
        .await
        .unwrap();
    assert!(somebody_else.is_none());
}

async fn jobs_are_listed_newest_first_and_by_page(database: Database) {
    let store = database.open().await;
    let (here, there) = (
        cluster(&store, "here").await,
        cluster(&store, "there").await,
    );
    let mut ids = Vec::new();
    for number in 0..5 {
        let mut job = new_job(if number == 2 { there } else { here });
        job.id = JobId::from_uuid(Uuid::from_u128(
            0x0197_c1f0_0000_7000_8000_0000_0000_0000 + number,
        ));
        assert!(store.accept(&job, now()).await.unwrap());
        ids.push(job.id);
    }
    let mut session = store.read().await.unwrap();
    let mut page = async |cluster, before, limit| {
        let page = jobs::list(&mut session, cluster, before, limit)
            .await
            .unwrap();
        page.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None, None, 2).await, [ids[4], ids[3]]);
    assert_eq!(page(None, Some(ids[3]), 2).await, [ids[2], ids[1]]);
    assert_eq!(
        page(Some(here), Some(ids[4]), 9).await,
        [ids[3], ids[1], ids[0]]
    );
    assert!(page(None, Some(ids[0]), 9).await.is_empty());
}

async fn of_permit_and_cancel_exactly_one_wins(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    for _ in 0..20 {
        let job = new_job(cluster);
        store.accept(&job, now()).await.unwrap();
        let (permitted, cancelled) = tokio::join!(
            change(&store, job.id, permit(pod()), now()),
            change(&store, job.id, cancel(), now())
        );
        let state = found(&store, job.id).await.state.name();
        // The cancel may come second, and then stops what runs; the permit may not come second.
        match permitted {
            Ok(_) => assert_eq!(
                (cancelled, state),
                (Ok(Verdict::Changed), StateName::Cancelling)
            ),
            Err(refusal) => assert_eq!((refusal, state), (Refusal::Over, StateName::Cancelled)),
        }
    }
}

async fn of_two_pods_exactly_one_is_permitted(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    for _ in 0..20 {
        let job = new_job(cluster);
        store.accept(&job, now()).await.unwrap();
        let (one, other) = (pod(), pod());
        let verdicts = tokio::join!(
            change(&store, job.id, permit(one), now()),
            change(&store, job.id, permit(other), now())
        );
        let stored = found(&store, job.id).await;
        let winner = match verdicts {
            (Ok(Verdict::Changed), Err(Refusal::OtherPod)) => one,
            (Err(Refusal::OtherPod), Ok(Verdict::Changed)) => other,
            both => panic!("{both:?}"),
        };
        assert_eq!(
            (stored.pod, stored.permitted_at),
            (Some(winner), Some(now()))
        );
        assert_eq!(
            change(&store, job.id, permit(winner), after(1)).await,
            Ok(Verdict::Repeated)
        );
    }
}

async fn a_refused_event_leaves_everything_as_it_was(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let late = Event::Permit {
        pod: pod(),
        start_deadline: now(),
    };
    assert_eq!(
        change(&store, job.id, late, after(1)).await,
        Err(Refusal::TooLate)
    );
    let stored = found(&store, job.id).await;
    assert_eq!(
        (stored.state, stored.version, stored.pod),
        (JobState::Queued, 1, None)
    );
}

async fn a_job_of_another_cluster_does_not_exist(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let other = cluster(&store, "other").await;
    let event = |_: &jobs::StoredJob| cancel();
    let outcome = store
        .change(
            Change {
                job: job.id,
                scope: Some(other),
                by: "test",
                now: now(),
            },
            event,
        )
        .await;
    assert!(outcome.unwrap().is_none());
    let own = Change {
        job: job.id,
        scope: Some(job.cluster),
        by: "test",
        now: now(),
    };
    assert!(store.change(own, event).await.unwrap().is_some());
}

async fn what_is_leased_is_not_leased_twice(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    for _ in 0..10 {
        store.accept(&new_job(cluster), now()).await.unwrap();
    }
    let (one, other) = tokio::join!(store.lease_unsent(6, now()), store.lease_unsent(6, now()));
    let mut leased: Vec<_> = one
        .unwrap()
        .into_iter()
        .chain(other.unwrap())
        .map(|leased| leased.job)
        .collect();
    // On PostgreSQL a relay skips what another is about to take, so the two may miss a few: never double.
    let all = leased.len();
    leased.sort_unstable();
    leased.dedup();
    assert_eq!(leased.len(), all);
    store.lease_unsent(10, now()).await.unwrap();
    assert!(store.lease_unsent(10, after(29)).await.unwrap().is_empty());
    // A relay that died keeps nothing for ever.
    assert_eq!(store.lease_unsent(10, after(30)).await.unwrap().len(), 10);
}

/// Takes the job from the outbox, and the broker confirms it.
async fn send(store: &Store, job: JobId, at: Timestamp) {
    let leased = store.lease_unsent(10, at).await.unwrap();
    let leased = leased.into_iter().find(|leased| leased.job == job).unwrap();
    store.mark_sent(leased, at).await.unwrap();
}

async fn what_is_confirmed_leaves_the_outbox(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let leased = store.lease_unsent(10, now()).await.unwrap();
    assert_eq!(
        (leased.len(), store.unsent().await.unwrap()),
        (1, 1),
        "leased is not sent"
    );
    store.mark_sent(leased[0], after(1)).await.unwrap();
    assert_eq!(store.unsent().await.unwrap(), 0);
    assert_eq!(found(&store, job.id).await.published_at, Some(after(1)));
}

async fn what_failed_rests_and_comes_again(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let leased = store.lease_unsent(10, now()).await.unwrap()[0];
    assert_eq!(leased.attempts, 1);
    store.give_back(leased, "NO_ROUTE", now()).await.unwrap();
    assert_eq!(
        found(&store, job.id).await.outbox_error.as_deref(),
        Some("NO_ROUTE")
    );
    assert!(store.lease_unsent(10, now()).await.unwrap().is_empty());
    assert_eq!(
        store.lease_unsent(10, after(1)).await.unwrap()[0].attempts,
        2
    );
}

async fn a_forgotten_job_is_sent_again_while_its_cluster_speaks(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    send(&store, job.id, now()).await;
    let forgotten = async |spoken_since, at| {
        let forgotten = store.requeue_forgotten(after(spoken_since), after(at));
        forgotten.await.unwrap()
    };
    assert_eq!(forgotten(40, 70).await, 0, "the cluster is away");
    speaks(&store, job.cluster, after(65)).await;
    assert_eq!(forgotten(29, 59).await, 0, "too early");
    assert_eq!(forgotten(40, 70).await, 1);
    assert_eq!(forgotten(40, 70).await, 0, "it is in the outbox");
    // A broker that came back may have lost what it confirmed a moment ago.
    send(&store, job.id, after(70)).await;
    store.doubt_confirms(after(71)).await.unwrap();
    assert_eq!(forgotten(40, 71).await, 1);
    // Who took it has it; but the message may be gone with a runner that was killed.
    send(&store, job.id, after(71)).await;
    change(&store, job.id, claim(), after(72)).await.unwrap();
    store.doubt_confirms(after(73)).await.unwrap();
    assert_eq!(forgotten(40, 71 + 180 + 239).await, 0);
    assert_eq!(forgotten(40, 71 + 180 + 240).await, 1);
    send(&store, job.id, after(500)).await;
    change(&store, job.id, permit(pod()), after(501))
        .await
        .unwrap();
    assert_eq!(forgotten(40, 10_000).await, 0, "it has started");
}

fn claim() -> Event {
    Event::Claim {
        runner: RunnerId("r".to_owned()),
    }
}

fn pod_lost(pod: PodUid, retries: Retries) -> Event {
    Event::PodFailed {
        pod: Some(pod),
        reason: Reason::new(ReasonCode::Evicted, "the node was drained"),
        retries,
    }
}

/// Lost before its start, a pod is replaced: the job is in the queue and in the outbox by one
/// transaction, whatever the relay is doing with its first message.
async fn a_job_whose_pod_is_lost_is_sent_again(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let first = store.lease_unsent(10, now()).await.unwrap()[0];
    change(&store, job.id, claim(), now()).await.unwrap();
    let reason = Reason::new(ReasonCode::ImagePull, "no such image");
    let waits = store.record_waiting(job.id, "test", &reason, after(1));
    assert!(waits.await.unwrap());
    let lost = pod();
    let retries = Retries::default();
    assert_eq!(
        change(&store, job.id, pod_lost(lost, retries), after(2)).await,
        Ok(Verdict::Changed)
    );
    // The confirm of the first message comes late, and must not remove the second.
    store.mark_sent(first, after(3)).await.unwrap();
    let again = store.lease_unsent(10, after(3)).await.unwrap();
    assert_eq!(
        again.iter().map(|leased| leased.job).collect::<Vec<_>>(),
        [job.id]
    );
    let stored = found(&store, job.id).await;
    let retries = Retries {
        count: 1,
        last: Some(lost),
    };
    assert_eq!((stored.state, stored.retries), (JobState::Queued, retries));
    assert_eq!(stored.reported_waiting, None, "that was the lost pod's");

    assert_eq!(
        change(&store, job.id, pod_lost(lost, retries), after(4)).await,
        Ok(Verdict::Repeated)
    );
    let another = pod_lost(pod(), retries);
    assert_eq!(
        change(&store, job.id, another, after(5)).await,
        Ok(Verdict::Changed),
        "from the queue too"
    );
    let retries = Retries {
        count: MAX_RETRIES,
        ..found(&store, job.id).await.retries
    };
    change(&store, job.id, pod_lost(pod(), retries), after(6))
        .await
        .unwrap();
    assert_eq!(
        found(&store, job.id).await.state.name(),
        StateName::InfraFailed
    );
}

async fn a_job_that_is_put_off_is_sent_again(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    send(&store, job.id, now()).await;
    change(&store, job.id, claim(), now()).await.unwrap();
    let reason = Reason::new(ReasonCode::ImagePull, "no such image");
    let waits = store.record_waiting(job.id, "test", &reason, after(1));
    assert!(waits.await.unwrap());
    change(&store, job.id, Event::Postpone, after(2))
        .await
        .unwrap();
    let stored = found(&store, job.id).await;
    assert_eq!(
        (stored.state, stored.published_at, stored.reported_waiting),
        (JobState::Queued, None, Some(reason)),
        "what it was put off for is the best that is known"
    );
    send(&store, job.id, after(3)).await;
    change(&store, job.id, claim(), after(4)).await.unwrap();
    assert_eq!(found(&store, job.id).await.reported_waiting, None);
}

/// A start that only the cluster remembers may be long ago. Its report gets its time all the same.
async fn a_recovered_start_is_given_up_later(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let (pod, long_ago) = (pod(), after(-86_400));
    let recover = Event::Recover {
        pod,
        started: long_ago,
    };
    change(&store, job.id, recover.clone(), now())
        .await
        .unwrap();
    let stored = found(&store, job.id).await;
    assert_eq!(
        (stored.pod, stored.permitted_at),
        (Some(pod), Some(long_ago))
    );
    assert_eq!(stored.give_up_at, Some(after(600)));
    assert_eq!(
        change(&store, job.id, recover, after(9)).await,
        Ok(Verdict::Repeated)
    );
    let mut session = store.read().await.unwrap();
    let due = due::to_give_up(&mut session, after(601)).await.unwrap();
    assert_eq!(due, [job.id]);
}

async fn story(store: &Store, job: JobId) -> Vec<String> {
    let mut session = store.read().await.unwrap();
    let steps = story::of_job(&mut session, job).await.unwrap();
    let line = |step: Step| format!("{} {} {}", step.by, step.step.as_str(), step.message);
    steps.into_iter().map(line).collect()
}

/// What happened to a job is told whole, in order, and each thing once.
async fn a_job_has_a_story(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let pod: PodUid = "0197c1f0-0000-7000-8000-0000000000aa".parse().unwrap();
    assert!(
        story(&store, job.id).await.is_empty(),
        "submission is not in it"
    );
    send(&store, job.id, now()).await;
    let reason = Reason::new(ReasonCode::Quota, "exceeded quota");
    let created = Event::PodCreated {
        runner: RunnerId("r".to_owned()),
    };
    for event in [claim(), claim()] {
        change(&store, job.id, event, after(1)).await.unwrap();
    }
    store
        .record_waiting(job.id, "test", &reason, after(2))
        .await
        .unwrap();
    let steps = [
        created,
        pod_lost(pod, Retries::default()),
        claim(),
        Event::Postpone,
        permit(pod),
        Event::Silence {
            reason: Reason::new(ReasonCode::NodeLost, "node n1 is silent"),
        },
        Event::Contact {
            ends: ReasonCode::NodeLost,
        },
        cancel(),
        Event::CancelDelivered { pod },
        Event::Exit {
            pod,
            exit: crate::runner::exit(0, 0),
            stored: 0,
        },
    ];
    for event in steps {
        change(&store, job.id, event, after(3)).await.unwrap();
    }
    assert_eq!(
        story(&store, job.id).await,
        [
            "dispatcher published ",
            "test claimed ",
            "test waiting exceeded quota",
            "test pod_created ",
            "test retried the node was drained (retry 1 of 5)",
            "test claimed ",
            "test postponed ",
            "test permitted pod 0197c1f0-0000-7000-8000-0000000000aa",
            "test contact_lost node n1 is silent",
            "test contact_back ",
            "test cancel_requested ",
            "test cancel_delivered pod 0197c1f0-0000-7000-8000-0000000000aa",
            "test ended succeeded: the command exited with code 0",
        ]
    );
}

/// Who says of a job what cannot be true if the record is: the record stands, and it is written down,
/// once however often it is said.
async fn a_contradiction_is_in_the_story(database: Database) {
    let store = database.open().await;
    let (job, winner) = (accepted(&store).await, pod());
    let exit = |pod, code| Event::Exit {
        pod,
        exit: crate::runner::exit(code, 0),
        stored: 0,
    };
    change(&store, job.id, permit(winner), now()).await.unwrap();
    change(&store, job.id, exit(winner, 0), after(1))
        .await
        .unwrap();
    let before = found(&store, job.id).await;
    for _ in 0..3 {
        assert_eq!(
            change(&store, job.id, exit(winner, 1), after(2)).await,
            Err(Refusal::Contradiction)
        );
    }
    assert_eq!(
        change(&store, job.id, exit(winner, 0), after(2)).await,
        Ok(Verdict::Repeated)
    );
    let output = Change {
        job: job.id,
        scope: None,
        by: "test",
        now: after(3),
    };
    for _ in 0..2 {
        store.refuse_output(&before, output).await.unwrap();
    }
    let after = found(&store, job.id).await;
    assert_eq!(
        (after.state, after.version),
        (before.state, before.version + 2)
    );
    assert_eq!(
        story(&store, job.id).await[2..],
        [
            "test report_refused it says that the command left with code 1, and the job is succeeded on \
             record, with code 0",
            "test report_refused it has output beyond the 0 bytes that are stored, and the job is succeeded \
             on record, with code 0",
        ]
    );

    let expired = new_job(job.cluster);
    store.accept(&expired, now()).await.unwrap();
    let deadline = Event::StartDeadline {
        reason: Reason::new(ReasonCode::OnItsWay, "not started"),
    };
    change(&store, expired.id, deadline, now()).await.unwrap();
    let recover = Event::Recover {
        pod: winner,
        started: now(),
    };
    assert_eq!(
        change(&store, expired.id, recover, now()).await,
        Err(Refusal::Over)
    );
    let told = story(&store, expired.id).await;
    assert!(told[1].contains("never started"), "{told:?}");
}

async fn append(store: &Store, job: JobId, pod: PodUid, from: u64, to: u64) -> bool {
    let mut session = store.write().await.unwrap();
    let part = Part {
        from,
        to,
        blob: format!("{from}"),
    };
    let streams = StreamBytes {
        stdout: to - from - 1,
        stderr: 1,
    };
    let appended = job_output::append(&mut session, job, pod, &part, streams)
        .await
        .unwrap();
    session.commit().await.unwrap();
    appended
}

async fn output_is_appended_where_it_ends_or_not_at_all(database: Database) {
    let store = database.open().await;
    let (job, pod) = (accepted(&store).await, pod());
    assert!(!append(&store, job.id, pod, 0, 10).await, "not started");
    change(&store, job.id, permit(pod), now()).await.unwrap();
    assert!(append(&store, job.id, pod, 0, 10).await);
    assert!(
        !append(&store, job.id, pod, 0, 12).await,
        "the end has moved"
    );
    assert!(!append(&store, job.id, pod, 11, 12).await, "a gap");
    assert!(
        !append(&store, job.id, self::pod(), 10, 12).await,
        "another pod"
    );
    assert!(append(&store, job.id, pod, 10, 30).await);
    assert_eq!(found(&store, job.id).await.log_bytes, 30);
    let mut session = store.read().await.unwrap();
    let mut parts = async |position| {
        let parts = job_output::parts(&mut session, job.id, position, 9)
            .await
            .unwrap();
        parts
            .into_iter()
            .map(|part| (part.from, part.to))
            .collect::<Vec<_>>()
    };
    assert_eq!(parts(0).await, [(0, 10), (10, 30)]);
    assert_eq!(parts(9).await, [(0, 10), (10, 30)]);
    assert_eq!(parts(10).await, [(10, 30)]);
    assert!(parts(30).await.is_empty());
}

/// The compare-and-set sees the output too: an upload that lands between load and update is counted, or
/// a complete output would be called incomplete for ever. On SQLite nothing can land there: the change
/// holds the one write lock.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_counts_the_output_that_was_stored_meanwhile() {
    let database = Database::postgres().await;
    let store = database.open().await;
    let (job, pod) = (accepted(&store).await, pod());
    change(&store, job.id, permit(pod), now()).await.unwrap();
    let looked = AtomicU32::new(0);
    let exit = crate::runner::exit(0, 10);
    let event = |job: &jobs::StoredJob| {
        if looked.fetch_add(1, Ordering::SeqCst) == 0 {
            let upload = append(&store, job.id, pod, 0, 10);
            let uploaded = tokio::task::block_in_place(|| Handle::current().block_on(upload));
            assert!(uploaded);
        }
        Event::Exit {
            pod,
            exit: exit.clone(),
            stored: job.log_bytes,
        }
    };
    let end = Change {
        job: job.id,
        scope: None,
        by: "test",
        now: now(),
    };
    let outcome = store.change(end, event).await.unwrap().unwrap();
    assert_eq!(
        outcome.job.state.output_complete(),
        Some(OutputComplete::Yes)
    );
    assert_eq!(looked.into_inner(), 2);
    database.remove().await;
}

/// After the end, nothing is appended.
async fn an_end_is_the_end_of_the_output(database: Database) {
    let store = database.open().await;
    let (job, pod) = (accepted(&store).await, pod());
    change(&store, job.id, permit(pod), now()).await.unwrap();
    assert!(append(&store, job.id, pod, 0, 10).await);
    let exit = Event::Exit {
        pod,
        exit: crate::runner::exit(0, 20),
        stored: 10,
    };
    change(&store, job.id, exit, now()).await.unwrap();
    assert!(!append(&store, job.id, pod, 10, 20).await);
    assert_eq!(found(&store, job.id).await.log_bytes, 10);
}

async fn due_jobs_are_found(database: Database) {
    let store = database.open().await;
    let waiting = accepted(&store).await;
    let (running, pod) = (
        NewJob {
            start_deadline: after(100),
            ..new_job(waiting.cluster)
        },
        pod(),
    );
    store.accept(&running, now()).await.unwrap();
    change(&store, running.id, permit(pod), now())
        .await
        .unwrap();
    speaks(&store, waiting.cluster, now()).await;
    let mut session = store.read().await.unwrap();
    assert_eq!(
        due::next_start_deadline(&mut session).await.unwrap(),
        Some(after(900)),
        "not of the running one"
    );
    assert!(
        due::to_expire(&mut session, after(900), 9)
            .await
            .unwrap()
            .is_empty(),
        "at the deadline it may start"
    );
    let overdue = due::Overdue {
        job: waiting.id,
        submitted_at: now(),
        cluster: waiting.cluster,
        cluster_enrolled: false,
        cluster_last_contact: Some(now()),
    };
    assert_eq!(
        due::to_expire(&mut session, after(901), 9).await.unwrap(),
        [overdue]
    );
    assert!(
        due::gone_silent(&mut session, now())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        due::gone_silent(&mut session, after(1)).await.unwrap(),
        [running.id]
    );
    // A minute to run, and ten in which nobody says how it ended.
    assert!(
        due::to_give_up(&mut session, after(660))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        due::to_give_up(&mut session, after(661)).await.unwrap(),
        [running.id]
    );
    drop(session);
    change(
        &store,
        running.id,
        Event::Silence {
            reason: Reason::new(ReasonCode::ClusterOffline, "silent"),
        },
        after(61),
    )
    .await
    .unwrap();
    let mut session = store.read().await.unwrap();
    assert_eq!(
        due::silent(&mut session, running.cluster).await.unwrap(),
        [running.id]
    );
    assert_eq!(
        due::to_give_up(&mut session, after(661)).await.unwrap(),
        [running.id]
    );
}

async fn a_join_token_is_for_one_key(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let mut session = store.write().await.unwrap();
    join_tokens::replace(&mut session, cluster, b"first", after(900))
        .await
        .unwrap();
    let mut redeem = async |token: &[u8], key: &[u8], at| {
        join_tokens::redeem(&mut session, token, key, at)
            .await
            .unwrap()
            .is_some()
    };
    assert!(!redeem(b"unknown", b"key", now()).await);
    assert!(
        !redeem(b"first", b"key", after(900)).await,
        "it has expired"
    );
    assert!(redeem(b"first", b"key", now()).await);
    assert!(redeem(b"first", b"key", now()).await, "the answer was lost");
    assert!(!redeem(b"first", b"another key", now()).await);
    join_tokens::replace(&mut session, cluster, b"second", after(900))
        .await
        .unwrap();
    assert!(
        join_tokens::redeem(&mut session, b"first", b"key", now())
            .await
            .unwrap()
            .is_none(),
        "void"
    );
    assert!(
        join_tokens::redeem(&mut session, b"second", b"another key", now())
            .await
            .unwrap()
            .is_some()
    );
    let stored = clusters::by_id(&mut session, cluster)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stored.public_key.as_deref(),
        Some(b"another key".as_slice())
    );
}

async fn a_token_is_good_until_its_owner_has_another(database: Database) {
    let store = database.open().await;
    let mut session = store.write().await.unwrap();
    let (owner, neighbour) = (Uuid::new_v4(), Uuid::new_v4());
    let replacements: [(Uuid, &[u8]); 3] = [
        (owner, b"first"),
        (neighbour, b"neighbour"),
        (owner, b"second"),
    ];
    for (owner, sha256) in replacements {
        api_tokens::replace(&mut session, owner, "local", sha256, now())
            .await
            .unwrap();
        let holder = api_tokens::holder(&mut session, sha256).await.unwrap();
        assert_eq!(holder.as_deref(), Some("local"));
    }
    let good: [(&[u8], bool); 4] = [
        (b"first", false),
        (b"second", true),
        (b"neighbour", true),
        (b"guess", false),
    ];
    for (sha256, good) in good {
        let holder = api_tokens::holder(&mut session, sha256).await.unwrap();
        assert_eq!(holder.is_some(), good, "{sha256:?}");
    }
}

async fn a_place_counts_what_the_cluster_was_given_earlier(database: Database) {
    let store = database.open().await;
    let (one, other) = (
        cluster(&store, "edge-7").await,
        cluster(&store, "other").await,
    );
    let mut jobs_of_one = Vec::new();
    for cluster in [one, other, one, one, one] {
        let job = new_job(cluster);
        assert!(store.accept(&job, now()).await.unwrap());
        if cluster == one {
            jobs_of_one.push(job.id);
        }
    }
    let place = async |job| {
        let mut session = store.read().await.unwrap();
        let job = jobs::find(&mut session, job).await.unwrap().unwrap();
        backlog::earlier(&mut session, &job).await.unwrap()
    };
    assert_eq!(place(jobs_of_one[0]).await, 0);
    assert_eq!(place(jobs_of_one[3]).await, 3, "not the other cluster's");
    let cancel = Change {
        job: jobs_of_one[1],
        scope: None,
        by: "local",
        now: now(),
    };
    let cancelled = store.change(cancel, |_| Event::Cancel {
        by: "local".to_owned(),
        grace_seconds: None,
    });
    cancelled.await.unwrap().unwrap();
    assert_eq!(place(jobs_of_one[3]).await, 2, "who is over does not wait");
}

async fn an_old_unsent_job_is_found_by_its_cluster(database: Database) {
    let store = database.open().await;
    let (one, other) = (
        cluster(&store, "edge-7").await,
        cluster(&store, "other").await,
    );
    assert!(store.accept(&new_job(one), now()).await.unwrap());
    let mut session = store.read().await.unwrap();
    for (cluster, then, found) in [
        (one, after(1), true),
        (one, now(), false),
        (other, after(1), false),
    ] {
        let unsent = backlog::unsent_since(&mut session, cluster, then).await;
        assert_eq!(unsent.unwrap(), found);
    }
}

async fn a_wrong_clock_is_remembered_until_it_is_right(database: Database) {
    let store = database.open().await;
    let id = cluster(&store, "edge-7").await;
    let mut session = store.write().await.unwrap();
    for clock_skew_seconds in [Some(-7200), None] {
        let contact = clusters::Contact {
            runner_version: "0.1.0",
            profiles: &[],
            clock_skew_seconds,
        };
        clusters::record_contact(&mut session, id, contact, now())
            .await
            .unwrap();
        let cluster = clusters::by_id(&mut session, id).await.unwrap().unwrap();
        assert_eq!(cluster.clock_skew_seconds, clock_skew_seconds);
    }
}

async fn replicas_share_one_secret(database: Database) {
    let (one, other) = (database.open().await, database.open().await);
    let get = async |store: &Store, fresh: &[u8]| {
        let mut session = store.write().await.unwrap();
        let secret = secrets::get_or_set(&mut session, "key", fresh)
            .await
            .unwrap();
        session.commit().await.unwrap();
        secret
    };
    let (one, other) = tokio::join!(get(&one, b"one"), get(&other, b"other"));
    assert_eq!(one, other);
}

async fn every_change_is_in_the_audit_log(database: Database) {
    let store = database.open().await;
    let job = accepted(&store).await;
    let reason = Reason::new(ReasonCode::ImagePull, "no such image");
    store
        .record_waiting(job.id, "test", &reason, after(1))
        .await
        .unwrap();
    assert_eq!(found(&store, job.id).await.reported_waiting, Some(reason));
    change(&store, job.id, cancel(), after(2)).await.unwrap();
    assert_eq!(
        change(&store, job.id, permit(pod()), after(3)).await,
        Err(Refusal::Over)
    );
    let mut session = store.read().await.unwrap();
    let lines = audit::of_object(&mut session, &format!("job {}", job.id))
        .await
        .unwrap();
    let line = |who: &str, action: &str, outcome: &str| {
        (who.to_owned(), action.to_owned(), outcome.to_owned())
    };
    assert_eq!(
        lines,
        [
            line("local", "job.submit", "queued"),
            line("test", "job.cancel", "cancelled")
        ]
    );
}

/// News comes after the change is durable: who is woken sees it. The wait ends at once, not with the
/// poll that is there for changes of other replicas.
#[tokio::test]
async fn who_waits_is_told() {
    let store = Database::sqlite().open().await;
    let job = accepted(&store).await;
    let mut of_job = store.events().of_job(job.id);
    let mut of_cluster = store.events().of_cluster(job.cluster);
    assert!(of_job.news_or_poll().now_or_never().is_none());
    change(&store, job.id, cancel(), now()).await.unwrap();
    assert!(of_job.news_or_poll().now_or_never().is_some());
    assert!(of_cluster.news_or_poll().now_or_never().is_some());
    assert_eq!(
        found(&store, job.id).await.state.name(),
        StateName::Cancelled
    );
}
