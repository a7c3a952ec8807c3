//! Three dispatchers on one database, in compressed time, each killed and paused again and again: every tick
//! makes one job.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use invoke_dispatcher::clock;
use invoke_dispatcher::schedule::Scheduler;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bed::{AWAY, Dispatcher, eventually};
use crate::store::Database;

/// How many schedules, each due once a minute.
const SCHEDULES: usize = 50;

/// For how many minutes of their time.
const MINUTES: i64 = 200;

/// How far behind they may be: ten minutes of their time.
const BEHIND_MICROSECONDS: i64 = 10 * 60_000_000;

/// The same storm each time.
const SEED: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_ticks_make_ten_thousand_jobs() {
    let database = Database::postgres().await;
    let arguments = [&AWAY[..], &["--database-url", &database.url]].concat();
    let mut dispatchers = Vec::new();
    for _ in 0..3 {
        dispatchers.push(Dispatcher::start_with(&arguments).await);
    }
    let last = dispatchers.last().unwrap();
    last.cluster("edge-7").await;
    let pool = PgPool::connect(&database.url).await.unwrap();
    // As far as they are concerned, it speaks for ever.
    let speaks = "UPDATE clusters SET last_contact = 4102444800000000";
    sqlx::query(speaks).execute(&pool).await.unwrap();
    let hours = clock::now().as_second() / 3600 + 48;
    let base = Timestamp::from_second(hours * 3600).unwrap();
    for number in 0..SCHEDULES {
        let spec = json!({
            "run": { "job": { "command": { "shell": "true" } } },
            "timing": { "when": { "type": "every", "seconds": 60, "from": base } },
            "overlap": "allow",
            "catch_up": { "all": 100 },
        });
        let path = format!("/v1/schedules/every-{number}");
        let put = last.request(Method::PUT, &path).json(&spec);
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }

    let time = Arc::new(AtomicI64::new(base.as_microsecond()));
    let end = base + SignedDuration::from_mins(MINUTES - 1);
    let mut working = JoinSet::new();
    for (number, dispatcher) in dispatchers.iter().enumerate() {
        let scheduler = Scheduler::new(Arc::clone(dispatcher.running.app()));
        let rng = Rng::with_seed(SEED + number as u64);
        working.spawn(storm(scheduler, Arc::clone(&time), end, rng));
    }
    let mut rng = Rng::with_seed(SEED);
    while time.load(Ordering::SeqCst) < end.as_microsecond() {
        // Nobody sees every minute, and all see them in another way.
        tokio::time::sleep(Duration::from_millis(rng.u64(1..20))).await;
        let step = 60_000_000 * rng.i64(1..4);
        let now = end.as_microsecond().min(time.load(Ordering::SeqCst) + step);
        time.store(now, Ordering::SeqCst);
        // They are behind, and not without end: who is killed before anything is done never does it.
        eventually("they follow", async || {
            // What is made is sent at once, and over at once.
            for text in [
                "DELETE FROM outbox",
                "UPDATE schedule_ticks SET open = FALSE WHERE open AND job_id IS NOT NULL",
            ] {
                sqlx::query(text).execute(&pool).await.unwrap();
            }
            let (behind,): (i64,) = sqlx::query_as("SELECT MIN(decided_until) FROM schedules")
                .fetch_one(&pool)
                .await
                .unwrap();
            (behind >= now - BEHIND_MICROSECONDS).then_some(())
        })
        .await;
    }
    time.store(end.as_microsecond(), Ordering::SeqCst);
    let mut kills = 0;
    while let Some(killed) = working.join_next().await {
        kills += killed.unwrap();
    }
    assert!(kills > 20, "nobody was killed: {kills}");
    for dispatcher in &dispatchers {
        let scheduler = Scheduler::new(Arc::clone(dispatcher.running.app()));
        scheduler.round(end).await.unwrap();
    }

    let made: Vec<(Uuid, i64, Uuid)> =
        sqlx::query_as("SELECT schedule_id, tick, id FROM jobs WHERE tick IS NOT NULL")
            .fetch_all(&pool)
            .await
            .unwrap();
    let ticks: Vec<(Uuid, i64, String, Option<Uuid>)> =
        sqlx::query_as("SELECT schedule_id, instant, outcome, job_id FROM schedule_ticks")
            .fetch_all(&pool)
            .await
            .unwrap();
    let expected = SCHEDULES * usize::try_from(MINUTES).unwrap();
    let outcomes: HashSet<_> = ticks
        .iter()
        .map(|(_, _, outcome, _)| outcome.as_str())
        .collect();
    assert_eq!(ticks.len(), expected, "of seed {SEED}: {outcomes:?}");
    assert_eq!(made.len(), expected, "of seed {SEED}");
    let named: HashSet<_> = made
        .iter()
        .map(|(schedule, tick, _)| (*schedule, *tick))
        .collect();
    assert_eq!(named.len(), expected, "two jobs for one tick");
    let jobs: HashSet<_> = made.iter().map(|(_, _, job)| *job).collect();
    for (schedule, instant, outcome, job) in &ticks {
        let is_run = matches!(outcome.as_str(), "fired" | "caught_up");
        let has_its_job = job.is_some_and(|job| jobs.contains(&job));
        assert!(
            is_run && has_its_job,
            "{schedule} {instant}: {outcome} {job:?}"
        );
    }
    pool.close().await;
    drop(dispatchers);
    database.remove().await;
}

/// Rounds of a dispatcher that is killed in the middle of many of them, and is not there for a while after some.
/// Answers how often it was killed.
async fn storm(scheduler: Scheduler, time: Arc<AtomicI64>, end: Timestamp, mut rng: Rng) -> usize {
    let mut kills = 0;
    loop {
        let now = Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap();
        // A round that is dropped in the middle leaves what a process leaves that is killed there.
        // Every other one lives long enough to get on, on a slow machine too.
        let lives = match rng.bool() {
            true => Duration::from_millis(rng.u64(1..40)),
            false => Duration::from_secs(2),
        };
        match tokio::time::timeout(lives, scheduler.round(now)).await {
            Ok(round) => {
                let pause = round.unwrap();
                if now >= end && pause > Duration::ZERO {
                    return kills;
                }
            }
            Err(_killed) => kills += 1,
        }
        if rng.u8(..10) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(..500))).await;
        }
    }
}
