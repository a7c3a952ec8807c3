//! Schedules over the doors, with rounds of the scheduler at times that the tests choose.

use invoke_dispatcher::clock;
use invoke_dispatcher::schedule::Scheduler;
use invoke_dispatcher::store::Session;
use invoke_protocol::fanout::FanOut;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{
    ComingTicks, Schedule, ScheduleState, Tick, TickCause, TickList, TickOutcome, TickResult,
};
use invoke_protocol::state::StateName;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Dispatcher, eventually, expect, problem};
use crate::runner::{Runner, exit};

/// A dispatcher with one cluster that speaks, and a scheduler whose time is the test's.
struct Bed {
    dispatcher: Dispatcher,
    runner: Runner,
    scheduler: Scheduler,
}

/// Two days from now, at a full hour: what is due then, the dispatcher's own scheduler does not touch.
fn base() -> Timestamp {
    let hours = clock::now().as_second() / 3600 + 48;
    Timestamp::from_second(hours * 3600).unwrap()
}

fn minutes(number: i64) -> SignedDuration {
    SignedDuration::from_mins(number)
}

fn every(seconds: u64) -> Value {
    json!({ "when": { "type": "every", "seconds": seconds, "from": base() } })
}

fn spec(timing: &Value, rest: &Value) -> Value {
    let mut spec =
        json!({ "run": { "job": { "command": { "shell": "./vacuum.sh" } } }, "timing": timing });
    for (name, value) in rest.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

impl Bed {
    async fn start() -> Self {
        let dispatcher = Dispatcher::start().await;
        let runner = dispatcher.cluster("edge-7").await;
        let scheduler = Scheduler::new(std::sync::Arc::clone(dispatcher.running.app()));
        let bed = Self {
            dispatcher,
            runner,
            scheduler,
        };
        bed.speaks_until(base() + minutes(60 * 24 * 365)).await;
        bed
    }

    /// Has the cluster's runner speak until then.
    async fn speaks_until(&self, time: Timestamp) {
        let mut session = self.dispatcher.running.app().store.write().await.unwrap();
        let Session::Sqlite(transaction) = &mut session else {
            unreachable!("the bed is on SQLite");
        };
        sqlx::query("UPDATE clusters SET last_contact = $1")
            .bind(time.as_microsecond())
            .execute(&mut **transaction)
            .await
            .unwrap();
        session.commit().await.unwrap();
    }

    async fn put(&self, name: &str, spec: &Value) -> Response {
        let path = format!("/v1/schedules/{name}");
        let request = self.dispatcher.request(Method::PUT, &path);
        request.json(spec).send().await.unwrap()
    }

    async fn made(&self, spec: &Value) -> Schedule {
        expect(self.put("nightly", spec).await, StatusCode::CREATED).await
    }

    async fn refused(&self, spec: &Value) -> String {
        problem(
            self.put("nightly", spec).await,
            ProblemCode::InvalidSchedule,
        )
        .await
        .detail
    }

    async fn show(&self) -> Schedule {
        self.dispatcher.get("/v1/schedules/nightly").await
    }

    async fn say(&self, verb: &str) -> Response {
        let path = format!("/v1/schedules/nightly/{verb}");
        self.dispatcher.post(&path, &json!({})).await
    }

    async fn said(&self, verb: &str) -> Schedule {
        expect(self.say(verb).await, StatusCode::OK).await
    }

    /// A round of the scheduler at this time. What it makes is sent at once, as far as the store knows.
    async fn round(&self, now: Timestamp) {
        self.scheduler.round(now).await.unwrap();
        self.execute("DELETE FROM outbox").await;
    }

    async fn execute(&self, text: &'static str) {
        let mut session = self.dispatcher.running.app().store.write().await.unwrap();
        let Session::Sqlite(transaction) = &mut session else {
            unreachable!("the bed is on SQLite");
        };
        sqlx::query(text).execute(&mut **transaction).await.unwrap();
        session.commit().await.unwrap();
    }

    /// The ledger, the oldest first.
    async fn ticks(&self) -> Vec<Tick> {
        let list: TickList = self
            .dispatcher
            .get("/v1/schedules/nightly/ticks?limit=500")
            .await;
        list.ticks.into_iter().rev().collect()
    }

    /// The ledger, in words.
    async fn ledger(&self) -> String {
        let word = |tick: &Tick| {
            let minute = tick.instant.duration_since(base()).as_mins();
            let mut word = format!("{minute}m {}", tick.outcome.as_str());
            if let Some(cause) = tick.cause {
                word += &format!("({})", cause.as_str());
            }
            if let Some(result) = tick.result {
                word += &format!(" {}", result.as_str());
            }
            word
        };
        self.ticks()
            .await
            .iter()
            .map(word)
            .collect::<Vec<_>>()
            .join("\n")
    }

    async fn job_of(&self, tick: &Tick) -> Job {
        let id = tick.job.expect("the tick has a job");
        self.dispatcher.get(&format!("/v1/jobs/{id}")).await
    }

    /// Runs the job of the last tick to its end.
    async fn ends(&self, code: u8) -> Job {
        let job = self.job_of(self.ticks().await.last().unwrap()).await;
        let pod = self.runner.start(&job).await;
        let ended = self.runner.complete(&job, pod, &exit(code, 0)).await;
        assert_eq!(ended.status(), StatusCode::NO_CONTENT);
        job
    }
}

#[tokio::test]
async fn a_tick_makes_one_job_and_has_one_entry() {
    let bed = Bed::start().await;
    let schedule = bed.made(&spec(&every(3600), &json!({}))).await;
    assert_eq!(
        schedule.next,
        Some(base()),
        "also before anybody looked at it"
    );
    assert_eq!((schedule.revision, schedule.owner.as_str()), (1, "local"));
    assert_eq!(
        schedule.spec.run.job().cluster.as_ref().unwrap().as_str(),
        "edge-7"
    );

    bed.round(base() - SignedDuration::from_secs(5)).await;
    assert_eq!(bed.ledger().await, "");
    bed.round(base() + SignedDuration::from_millis(250)).await;
    bed.round(base() + SignedDuration::from_millis(500)).await;
    let ticks = bed.ticks().await;
    let [tick] = ticks.as_slice() else {
        panic!("{ticks:?}");
    };
    assert_eq!((tick.instant, tick.outcome), (base(), TickOutcome::Fired));
    let lateness = tick.lateness_ms.unwrap();
    assert!((250..5250).contains(&lateness), "{lateness}");
    assert_eq!(tick.attempts, 1);

    let job = bed.job_of(tick).await;
    assert_eq!(
        (job.submitted_by.as_str(), job.state),
        ("local", StateName::Queued)
    );
    let reference = job.tick.clone().unwrap();
    assert_eq!(
        (reference.schedule.as_str(), reference.instant),
        ("nightly", base())
    );
    assert_eq!(job.times.start_deadline, base() + minutes(15));

    bed.ends(0).await;
    bed.round(base() + minutes(1)).await;
    assert_eq!(bed.ledger().await, "0m fired succeeded");
    let shown = bed.show().await;
    assert_eq!(shown.next, Some(base() + minutes(60)));
    assert_eq!(shown.last.unwrap().result, Some(TickResult::Succeeded));
}

/// Whatever the clock does, what was decided is decided.
#[tokio::test]
async fn a_clock_that_steps_back_and_forth_runs_nothing_twice() {
    let bed = Bed::start().await;
    bed.made(&spec(
        &every(600),
        &json!({ "overlap": "allow", "catch_up": { "all": 100 } }),
    ))
    .await;
    for minute in [0, 60, 0, 65, 5, 70, -60, 70] {
        bed.round(base() + minutes(minute)).await;
    }
    let ticks = bed.ticks().await;
    let instants: Vec<_> = ticks.iter().map(|tick| tick.instant).collect();
    let expected: Vec<_> = (0..8).map(|tenth| base() + minutes(10 * tenth)).collect();
    assert_eq!(instants, expected);
    let mut jobs: Vec<_> = ticks.iter().map(|tick| tick.job.unwrap()).collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 8);
}

/// With a minute's schedule, and nobody there for the first ten of its ticks, or for an hour.
#[tokio::test]
async fn after_a_silence_each_policy_does_as_it_says() {
    let cases = [
        (json!("none"), 120, "missed: 120, fired: 1"),
        (json!("last"), 120, "missed: 120, fired: 1"),
        (json!({ "all": 3 }), 120, "missed: 118, fired: 3"),
    ];
    for (policy, late, expected) in cases {
        let bed = Bed::start().await;
        let rest = json!({ "catch_up": policy, "overlap": "allow" });
        bed.made(&spec(&every(60), &rest)).await;
        bed.round(base() + minutes(late)).await;
        assert_eq!(counted(&bed.ticks().await), expected, "{rest}");
    }
    // Nothing is due at that minute itself, and the last tick is twenty minutes old.
    let cases = [
        (json!("none"), "missed: 1", "0m missed(nobody_there)"),
        (json!("last"), "caught_up: 1", "0m caught_up"),
        (json!({ "all": 3 }), "caught_up: 1", "0m caught_up"),
    ];
    for (policy, expected, ledger) in cases {
        let bed = Bed::start().await;
        bed.made(&spec(&every(3600), &json!({ "catch_up": policy })))
            .await;
        bed.round(base() + minutes(20)).await;
        assert_eq!(counted(&bed.ticks().await), expected);
        assert_eq!(bed.ledger().await, ledger);
    }
}

/// More than one look decides, and more than are caught up.
#[tokio::test]
async fn a_long_silence_is_worked_off_in_order() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(60), &json!({ "catch_up": "last" })))
        .await;
    bed.round(base() + minutes(2000) + SignedDuration::from_secs(30))
        .await;
    while bed.ticks_decided().await < 2001 {
        bed.round(base() + minutes(2000) + SignedDuration::from_secs(30))
            .await;
    }
    let list: TickList = bed
        .dispatcher
        .get("/v1/schedules/nightly/ticks?limit=2")
        .await;
    let outcomes: Vec<_> = list.ticks.iter().map(|tick| tick.outcome).collect();
    assert_eq!(outcomes, [TickOutcome::Fired, TickOutcome::Missed]);
}

impl Bed {
    async fn ticks_decided(&self) -> usize {
        let mut session = self.dispatcher.running.app().store.read().await.unwrap();
        let Session::Sqlite(transaction) = &mut session else {
            unreachable!("the bed is on SQLite");
        };
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM schedule_ticks")
            .fetch_one(&mut **transaction)
            .await
            .unwrap();
        usize::try_from(count).unwrap()
    }
}

fn counted(ticks: &[Tick]) -> String {
    let outcomes = [
        TickOutcome::Missed,
        TickOutcome::CaughtUp,
        TickOutcome::Fired,
    ];
    let count = |outcome| ticks.iter().filter(|tick| tick.outcome == outcome).count();
    let counted = outcomes.iter().filter(|outcome| count(**outcome) > 0);
    let counted = counted.map(|outcome| format!("{}: {}", outcome.as_str(), count(*outcome)));
    counted.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn what_is_caught_up_runs_one_after_the_other() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({ "catch_up": { "all": 2 } })))
        .await;
    let late = base() + minutes(60 + 20);
    bed.round(late).await;
    assert_eq!(bed.ledger().await, "0m caught_up\n60m queued(overlap)");
    let first = bed.job_of(&bed.ticks().await[0]).await;
    let pod = bed.runner.start(&first).await;
    bed.runner.complete(&first, pod, &exit(0, 0)).await;
    bed.round(late + minutes(1)).await;
    assert_eq!(bed.ledger().await, "0m caught_up succeeded\n60m caught_up");
}

#[tokio::test]
async fn each_overlap_policy_meets_a_run_that_goes_on() {
    let after = [
        (
            "skip",
            "0m fired\n60m skipped(overlap)\n120m skipped(overlap)",
            "0m fired succeeded\n60m skipped(overlap)\n120m skipped(overlap)",
        ),
        (
            "queue_one",
            "0m fired\n60m queued(overlap)\n120m skipped(overlap)",
            "0m fired succeeded\n60m fired\n120m skipped(overlap)",
        ),
        (
            "cancel_running",
            "0m fired\n60m queued(overlap)\n120m skipped(overlap)",
            "0m fired cancelled\n60m fired\n120m skipped(overlap)",
        ),
        (
            "allow",
            "0m fired\n60m fired\n120m fired",
            "0m fired succeeded\n60m fired\n120m fired",
        ),
    ];
    for (policy, while_it_runs, when_it_is_over) in after {
        let bed = Bed::start().await;
        bed.made(&spec(&every(3600), &json!({ "overlap": policy })))
            .await;
        bed.round(base()).await;
        let job = bed.job_of(&bed.ticks().await[0]).await;
        let pod = bed.runner.start(&job).await;
        bed.round(base() + minutes(60)).await;
        bed.round(base() + minutes(120)).await;
        assert_eq!(bed.ledger().await, while_it_runs, "{policy}");
        let is_cancelled = bed.dispatcher.job(&job).await.state == StateName::Cancelling;
        assert_eq!(is_cancelled, policy == "cancel_running");
        let mut end = exit(0, 0);
        if is_cancelled {
            end.cause = invoke_protocol::output::EndCause::Cancelled;
        }
        let ended = bed.runner.complete(&job, pod, &end).await;
        assert_eq!(ended.status(), StatusCode::NO_CONTENT);
        bed.round(base() + minutes(121)).await;
        assert_eq!(bed.ledger().await, when_it_is_over, "{policy}");
    }
}

/// A run of which nobody can tell how it ended is over, and not in the way for ever.
#[tokio::test]
async fn a_run_that_is_lost_or_expired_is_over() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    bed.round(base()).await;
    let job = bed.job_of(&bed.ticks().await[0]).await;
    let change = invoke_dispatcher::store::transition::Change {
        job: job.id,
        scope: None,
        by: "dispatcher",
        now: base() + minutes(30),
    };
    let reason = invoke_protocol::state::Reason::new(
        invoke_protocol::state::ReasonCode::ClusterOffline,
        "cluster edge-7 is offline",
    );
    let expired = invoke_protocol::state::Event::StartDeadline { reason };
    let store = &bed.dispatcher.running.app().store;
    store.change(change, |_| expired.clone()).await.unwrap();
    bed.round(base() + minutes(60)).await;
    assert_eq!(bed.ledger().await, "0m fired failed\n60m fired");
    let message = &bed.ticks().await[0].message;
    assert_eq!(message, "is expired: cluster edge-7 is offline");
}

#[tokio::test]
async fn a_tick_waits_for_a_cluster_that_is_offline_as_long_as_a_job_would() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    bed.speaks_until(base() - minutes(5)).await;
    bed.round(base()).await;
    bed.round(base() + minutes(10)).await;
    assert_eq!(bed.ledger().await, "0m deferred(cluster_offline)");
    bed.speaks_until(base() + minutes(12)).await;
    bed.round(base() + minutes(12)).await;
    assert_eq!(bed.ledger().await, "0m fired");
    let lateness = bed.ticks().await[0].lateness_ms.unwrap();
    assert!((720_000..725_000).contains(&lateness), "{lateness}");
    bed.ends(0).await;

    bed.round(base() + minutes(60)).await;
    bed.round(base() + minutes(74)).await;
    assert_eq!(
        bed.ledger().await,
        "0m fired succeeded\n60m deferred(cluster_offline)"
    );
    bed.round(base() + minutes(76)).await;
    bed.speaks_until(base() + minutes(77)).await;
    bed.round(base() + minutes(77)).await;
    assert_eq!(
        bed.ledger().await,
        "0m fired succeeded\n60m missed(cluster_offline)"
    );
}

#[tokio::test]
async fn who_would_not_wait_for_an_offline_cluster_does_not() {
    let bed = Bed::start().await;
    let run = json!({ "run": { "job": { "command": { "shell": "x" }, "if_offline": "fail" } } });
    bed.made(&spec(&every(3600), &run)).await;
    bed.speaks_until(base() - minutes(5)).await;
    bed.round(base()).await;
    assert_eq!(bed.ledger().await, "0m missed(cluster_offline)");
}

#[tokio::test]
async fn nothing_starts_after_the_window_but_its_cut_off() {
    let bed = Bed::start().await;
    let mut timing = every(3600);
    timing["window_seconds"] = json!(1800);
    timing["cutoff_seconds"] = json!(600);
    bed.made(&spec(&timing, &json!({ "catch_up": "last" })))
        .await;
    bed.round(base() + minutes(19)).await;
    let job = bed.ends(0).await;
    assert_eq!(job.times.start_deadline, base() + minutes(20));
    bed.round(base() + minutes(60 + 21)).await;
    assert_eq!(
        bed.ledger().await,
        "0m fired succeeded\n60m missed(too_late)"
    );
}

#[tokio::test]
async fn a_run_is_cancelled_at_the_end_of_its_window_if_that_is_wanted() {
    for (at_end, expected) in [
        ("finish", StateName::Running),
        ("cancel", StateName::Cancelling),
    ] {
        let bed = Bed::start().await;
        let mut timing = every(3600);
        timing["window_seconds"] = json!(1800);
        timing["at_window_end"] = json!(at_end);
        bed.made(&spec(&timing, &json!({}))).await;
        bed.round(base()).await;
        let job = bed.job_of(&bed.ticks().await[0]).await;
        bed.runner.start(&job).await;
        bed.round(base() + minutes(29)).await;
        assert_eq!(bed.dispatcher.job(&job).await.state, StateName::Running);
        bed.round(base() + minutes(30)).await;
        let job = bed.dispatcher.job(&job).await;
        assert_eq!(job.state, expected);
        if expected == StateName::Cancelling {
            assert_eq!(job.cancelled_by.as_deref(), Some("schedule nightly"));
        }
    }
}

#[tokio::test]
async fn a_failure_is_tried_again_where_that_is_safe_or_wanted() {
    let bed = Bed::start().await;
    let retry = json!({ "retry": { "times": 2, "on": ["never_started", { "exit": 75 }] } });
    bed.made(&spec(&every(3600), &retry)).await;
    bed.round(base()).await;
    let mut jobs = Vec::new();
    for minute in 1..=3 {
        jobs.push(bed.ends(75).await.id);
        bed.round(base() + minutes(minute)).await;
    }
    jobs.dedup();
    assert_eq!(jobs.len(), 3, "each attempt is a job of its own");
    assert_eq!(bed.ledger().await, "0m fired failed");
    let tick = bed.ticks().await.remove(0);
    assert_eq!(
        (tick.attempts, tick.message.as_str()),
        (3, "ended with exit code 75")
    );
    assert_eq!(
        bed.show().await.failures,
        1,
        "one run, however often it was tried"
    );

    bed.round(base() + minutes(60)).await;
    bed.ends(1).await;
    bed.round(base() + minutes(61)).await;
    let tick = bed.ticks().await.remove(1);
    assert_eq!((tick.attempts, tick.result), (1, Some(TickResult::Failed)));
}

/// An attempt is a start like the first: what must not start now does not because something failed before.
#[tokio::test]
async fn nothing_is_tried_again_while_nothing_may_start() {
    let retry = json!({ "retry": { "times": 2, "on": [{ "exit": 75 }] } });
    for reason in ["paused", "closed"] {
        let bed = Bed::start().await;
        bed.made(&spec(&every(3600), &retry)).await;
        bed.round(base()).await;
        let now = clock::now();
        let ics = calendar(now - minutes(600), base() + minutes(600));
        let freeze = bed.dispatcher.request(Method::PUT, "/v1/calendars/freeze");
        let freeze = freeze
            .json(&json!({ "kind": "closed", "ics": ics.replace("RRULE:FREQ=DAILY\r\n", "") }));
        match reason {
            "paused" => drop(bed.said("pause").await),
            _ => assert_eq!(freeze.send().await.unwrap().status(), StatusCode::CREATED),
        }
        bed.ends(75).await;
        bed.round(base() + minutes(1)).await;
        let tick = bed.ticks().await.remove(0);
        let is_over = (tick.attempts, tick.result) == (1, Some(TickResult::Failed));
        assert!(is_over, "{reason}: {tick:?}");
    }
}

/// A run may take for ever; a cluster that is away is waited for as long as a job would.
#[tokio::test]
async fn who_waited_for_a_run_does_not_wait_for_a_cluster_for_ever() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({ "overlap": "queue_one" })))
        .await;
    bed.round(base()).await;
    let job = bed.job_of(&bed.ticks().await[0]).await;
    let pod = bed.runner.start(&job).await;
    bed.round(base() + minutes(60)).await;
    // For the dispatcher's own scheduler too, which may look first.
    bed.speaks_until(clock::now() - minutes(10)).await;
    let ended = bed.runner.complete(&job, pod, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    bed.round(base() + minutes(80)).await;
    bed.round(base() + minutes(96)).await;
    let ledger = bed.ledger().await;
    assert!(
        ledger.starts_with("0m fired succeeded\n60m missed(cluster_offline)"),
        "{ledger}"
    );
}

#[tokio::test]
async fn a_schedule_that_keeps_failing_pauses_itself() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({ "pause_after_failures": 2 })))
        .await;
    for hour in 0..4 {
        bed.round(base() + minutes(60 * hour)).await;
        if hour < 2 {
            bed.ends(1).await;
        }
        bed.round(base() + minutes(60 * hour + 1)).await;
    }
    let ledger = "0m fired failed\n60m fired failed\n120m skipped(paused)\n180m skipped(paused)";
    assert_eq!(bed.ledger().await, ledger);
    let state = bed.show().await.state;
    let ScheduleState::Paused { by, reason, .. } = state else {
        panic!("{state:?}");
    };
    assert_eq!(
        (by.as_str(), reason.as_str()),
        ("dispatcher", "2 runs failed, one after the other")
    );
    let resumed = bed.said("resume").await;
    assert_eq!(
        (resumed.state, resumed.failures),
        (ScheduleState::Active, 0)
    );
    bed.round(base() + minutes(240)).await;
    assert!(bed.ledger().await.ends_with("240m fired"));
}

#[tokio::test]
async fn what_somebody_says_is_in_the_ledger() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    let paused: Schedule = expect(
        bed.dispatcher
            .post(
                "/v1/schedules/nightly/pause",
                &json!({ "reason": "upgrade" }),
            )
            .await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(paused.state.as_str(), "paused");
    bed.round(base()).await;
    assert_eq!(bed.ticks().await[0].message, "paused by local: upgrade");
    bed.said("resume").await;
    assert!(bed.said("skip").await.skip_next);
    let next: ComingTicks = bed
        .dispatcher
        .get("/v1/schedules/nightly/next?limit=2")
        .await;
    assert_eq!(
        next.ticks[0].notes[0].message,
        "will be skipped: somebody said so"
    );
    assert!(next.ticks[1].notes.is_empty());
    bed.round(base() + minutes(60)).await;
    bed.round(base() + minutes(120)).await;
    assert_eq!(
        bed.ledger().await,
        "0m skipped(paused)\n60m skipped(by_hand)\n120m fired"
    );
    assert!(!bed.show().await.skip_next);
}

#[tokio::test]
async fn run_now_is_one_tick_for_one_key() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    let key = Uuid::now_v7().to_string();
    let run = async |key: &str| {
        let request = bed
            .dispatcher
            .request(Method::POST, "/v1/schedules/nightly/run");
        request.header("idempotency-key", key).send().await.unwrap()
    };
    let first: Tick = expect(run(&key).await, StatusCode::OK).await;
    let again: Tick = expect(run(&key).await, StatusCode::OK).await;
    assert!(first.by_hand && first.job.is_some());
    assert_eq!(first.job, again.job);
    let other = Uuid::now_v7().to_string();
    let words = problem(run(&other).await, ProblemCode::NotRun).await.detail;
    assert_eq!(
        words,
        "schedule nightly does not run now: the run before it went on"
    );
    bed.ends(0).await;
    let third: Tick = expect(run(&other).await, StatusCode::OK).await;
    assert_ne!(first.job, third.job);
    problem(run("none").await, ProblemCode::InvalidRequest).await;
}

/// Rights are asked for at each tick: a schedule is no way to go on with what one may not do any more.
#[tokio::test]
async fn an_owner_who_lost_their_rights_suspends_the_schedule() {
    let bed = Bed::start().await;
    let token = bed.dispatcher.token_of("ann").await;
    let by_ann =
        |method: Method, path: &str| bed.dispatcher.anonymous(method, path).bearer_auth(&token);
    let path = "/v1/schedules/nightly";
    let made = by_ann(Method::PUT, path).json(&spec(&every(3600), &json!({})));
    let made: Schedule = expect(made.send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(made.owner, "ann");
    // Nobody changes what runs with another's rights.
    let changed = spec(&every(3600), &json!({ "overlap": "allow" }));
    problem(bed.put("nightly", &changed).await, ProblemCode::Forbidden).await;
    bed.execute("UPDATE api_tokens SET revoked_at = 1 WHERE name = 'ann'")
        .await;
    let next: ComingTicks = bed
        .dispatcher
        .get("/v1/schedules/nightly/next?limit=1")
        .await;
    let notes = &next.ticks[0].notes;
    assert_eq!(
        notes[0].message,
        "will be refused: the owner ann has no valid credential any more"
    );

    bed.round(base()).await;
    bed.round(base() + minutes(60)).await;
    assert_eq!(
        bed.ledger().await,
        "0m refused(not_allowed)\n60m skipped(suspended)"
    );
    assert_eq!(bed.show().await.state.as_str(), "suspended");
    problem(bed.say("resume").await, ProblemCode::NotRun).await;
    let taken = bed.said("take-over").await;
    assert_eq!(
        (taken.owner.as_str(), taken.state),
        ("local", ScheduleState::Active)
    );
    bed.round(base() + minutes(120)).await;
    assert!(bed.ledger().await.ends_with("120m fired"));
    let job = bed.job_of(bed.ticks().await.last().unwrap()).await;
    assert_eq!(job.submitted_by, "local");
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_a_change_begins_now() {
    let bed = Bed::start().await;
    let first = spec(&every(3600), &json!({}));
    bed.made(&first).await;
    bed.round(base()).await;
    let again: Schedule = expect(bed.put("nightly", &first).await, StatusCode::OK).await;
    assert_eq!(again.revision, 1);
    let second = spec(&every(1800), &json!({ "overlap": "allow" }));
    let changed: Schedule = expect(bed.put("nightly", &second).await, StatusCode::OK).await;
    assert_eq!(changed.revision, 2);
    bed.round(base() + minutes(1)).await;
    assert_eq!(
        bed.ledger().await,
        "0m fired",
        "what was decided is not decided again"
    );
    bed.round(base() + minutes(30)).await;
    assert_eq!(bed.ledger().await, "0m fired\n30m fired");
    let stale = bed
        .dispatcher
        .request(Method::PUT, "/v1/schedules/nightly?revision=1");
    problem(
        stale.json(&first).send().await.unwrap(),
        ProblemCode::ScheduleChanged,
    )
    .await;
    let create = bed
        .dispatcher
        .request(Method::PUT, "/v1/schedules/nightly?create=true");
    problem(
        create.json(&first).send().await.unwrap(),
        ProblemCode::ScheduleExists,
    )
    .await;
}

/// Whoever applies a file again has in it what is over, too.
#[tokio::test]
async fn what_is_over_can_be_applied_again() {
    let bed = Bed::start().await;
    let soon = clock::now() + SignedDuration::from_secs(3);
    let once = spec(
        &json!({ "when": { "type": "at", "time": soon } }),
        &json!({}),
    );
    bed.made(&once).await;
    let tick = eventually("it was run", async || bed.ticks().await.pop()).await;
    assert_eq!(tick.outcome, TickOutcome::Fired);
    let again: Schedule = expect(bed.put("nightly", &once).await, StatusCode::OK).await;
    assert_eq!((again.revision, again.next), (1, None));
}

#[tokio::test]
async fn a_deleted_schedule_runs_nothing_and_keeps_its_ledger() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    bed.round(base()).await;
    let delete = bed
        .dispatcher
        .request(Method::DELETE, "/v1/schedules/nightly");
    assert_eq!(
        delete.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    bed.round(base() + minutes(60)).await;
    assert_eq!(bed.ledger().await, "0m fired");
    let gone = bed
        .dispatcher
        .request(Method::GET, "/v1/schedules/nightly")
        .send()
        .await
        .unwrap();
    problem(gone, ProblemCode::ScheduleNotFound).await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    assert_eq!(bed.ledger().await, "", "another schedule of the same name");
}

/// Secrets come out of the store for a run of the schedule, and cannot be read back.
#[tokio::test]
async fn secrets_are_kept_for_the_runs() {
    let bed = Bed::start().await;
    let run = json!({ "run": { "job": { "command": { "shell": "x" }, "secrets": { "TOKEN": "hunter2" } } } });
    let made = bed.made(&spec(&every(3600), &run)).await;
    assert_eq!(made.secrets, ["TOKEN"]);
    assert!(!serde_json::to_string(&made).unwrap().contains("hunter2"));
    let kept = bed
        .dispatcher
        .request(Method::PUT, "/v1/schedules/nightly?keep_secrets=true");
    let changed = spec(&every(3600), &json!({ "overlap": "allow" }));
    let changed: Schedule = expect(kept.json(&changed).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(changed.secrets, ["TOKEN"]);
    bed.round(base()).await;
    let job = bed.job_of(&bed.ticks().await[0]).await;
    assert_eq!(job.secrets, ["TOKEN"]);
    let pod = crate::runner::pod();
    bed.runner.claim(&job).await;
    let invoke_protocol::runner::Permit::Granted {
        secrets: Some(secrets),
        ..
    } = bed.runner.permit(&job, pod).await
    else {
        panic!("no secrets come with the permit");
    };
    assert!(
        format!("{secrets:?}").contains("hunter2")
            || String::from_utf8_lossy(secrets.as_ref()).contains("hunter2")
    );
}

const FREEZE: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20260101T000000Z\r\nDTSTART:FROM\r\nDTEND:UNTIL\r\nRRULE:FREQ=DAILY\r\nSUMMARY:Freeze\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

fn calendar(from: Timestamp, until: Timestamp) -> String {
    let text = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
    FREEZE
        .replace("FROM", &text(from))
        .replace("UNTIL", &text(until))
}

#[tokio::test]
async fn calendars_close_and_open() {
    let bed = Bed::start().await;
    let put = async |name: &str, kind: &str, ics: &str| {
        let path = format!("/v1/calendars/{name}");
        let request = bed.dispatcher.request(Method::PUT, &path);
        request
            .json(&json!({ "kind": kind, "ics": ics }))
            .send()
            .await
            .unwrap()
    };
    bed.made(&spec(&every(3600), &json!({ "overlap": "allow" })))
        .await;
    let freeze = calendar(base() + minutes(60), base() + minutes(120));
    assert_eq!(
        put("freeze", "closed", &freeze).await.status(),
        StatusCode::CREATED
    );
    for hour in 0..3 {
        bed.round(base() + minutes(60 * hour)).await;
    }
    assert_eq!(
        bed.ledger().await,
        "0m fired\n60m skipped(blackout)\n120m fired"
    );
    assert_eq!(
        bed.ticks().await[1].message,
        "calendar freeze is closed then (Freeze)"
    );
    let key = Uuid::now_v7().to_string();
    let now = clock::now();
    let closed_now = calendar(now - minutes(60), now + minutes(60));
    assert_eq!(
        put("freeze", "closed", &closed_now).await.status(),
        StatusCode::OK
    );
    let run = bed
        .dispatcher
        .request(Method::POST, "/v1/schedules/nightly/run");
    problem(
        run.header("idempotency-key", &key).send().await.unwrap(),
        ProblemCode::NotRun,
    )
    .await;

    let ignored = spec(
        &every(3600),
        &json!({ "overlap": "allow", "ignored_calendars": ["freeze"] }),
    );
    expect::<Schedule>(bed.put("nightly", &ignored).await, StatusCode::OK).await;
    let hours = calendar(base() + minutes(180), base() + minutes(200));
    assert_eq!(
        put("hours", "open", &hours).await.status(),
        StatusCode::CREATED
    );
    let only = spec(
        &every(3600),
        &json!({ "overlap": "allow", "ignored_calendars": ["freeze"], "open_calendars": ["hours"] }),
    );
    expect::<Schedule>(bed.put("nightly", &only).await, StatusCode::OK).await;
    bed.round(base() + minutes(180)).await;
    bed.round(base() + minutes(240)).await;
    assert!(
        bed.ledger()
            .await
            .ends_with("180m fired\n240m skipped(blackout)"),
        "{}",
        bed.ledger().await
    );
    let delete = bed
        .dispatcher
        .request(Method::DELETE, "/v1/calendars/hours")
        .send()
        .await
        .unwrap();
    problem(delete, ProblemCode::InvalidCalendar).await;
    problem(
        put("broken", "closed", "BEGIN:VCALENDAR\r\n").await,
        ProblemCode::InvalidCalendar,
    )
    .await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_what_to_write() {
    let bed = Bed::start().await;
    let cron = |expression: &str, zone: &str| json!({ "when": { "type": "cron", "expression": expression }, "time_zone": zone });
    let mut wide = every(3600);
    wide["window_seconds"] = json!(7200);
    let past = json!({ "when": { "type": "at", "time": "2020-01-01T00:00:00Z" } });
    let unknown = json!({ "run": { "job": { "command": { "shell": "x" }, "profile": "deplyo" } } });
    let wrong = [
        spec(&cron("0 0 30 2 *", "UTC"), &json!({})),
        spec(&cron("0 3 * *", "UTC"), &json!({})),
        spec(&cron("0 3 * * *", "Europe/Berln"), &json!({})),
        spec(&wide, &json!({})),
        spec(&past, &json!({})),
        spec(&every(30), &json!({})),
        spec(&every(3600), &json!({ "open_calendars": ["hours"] })),
        spec(
            &every(3600),
            &json!({ "notify": [{ "by": { "webhook": "https://10.0.0.1/" } }] }),
        ),
    ];
    let mut words = Vec::new();
    for spec in wrong {
        words.push(bed.refused(&spec).await);
    }
    let words = words.join("\n");
    let (before, after) = words.split_once("it is 20").unwrap();
    let (_now, after) = after.split_once(": ").unwrap();
    insta::assert_snapshot!(format!("{before}it is NOW: {after}"), @r#"
    the cron expression "0 0 30 2 *" never fires: no month that it names has such a day; for the last day of a month write L: "0 0 L 2 *"
    the cron expression "0 3 * *" has 4 fields, not five: write minute, hour, day of the month, month and day of the week, for example "30 2 * * MON-FRI"
    there is no time zone Europe/Berln; did you mean Europe/Berlin?
    the window of 2h is longer than the 1h from one tick to the next: write a window of at most 1h
    2020-01-01T00:00:00Z is past, it is NOW: write a time that is still to come
    an interval of 30s is too short: write at least 1m
    there is no calendar hours: `invoke calendar list` shows those that there are
    10.0.0.1 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
    "#);
    problem(
        bed.put("nightly", &spec(&every(3600), &unknown)).await,
        ProblemCode::UnknownProfile,
    )
    .await;
    let nobody = bed
        .dispatcher
        .anonymous(Method::PUT, "/v1/schedules/nightly");
    let nobody = nobody
        .json(&spec(&every(3600), &json!({})))
        .send()
        .await
        .unwrap();
    problem(nobody, ProblemCode::Unauthenticated).await;
}

/// One tick, whatever of it went to the broker or the store and back: the cause is in the ledger.
#[tokio::test]
async fn what_a_cluster_does_not_offer_any_more_is_refused_at_the_tick() {
    let bed = Bed::start().await;
    bed.made(&spec(&every(3600), &json!({}))).await;
    let mut words = crate::runner::words();
    words.profiles.clear();
    bed.runner.say(&words).await;
    bed.speaks_until(base() + minutes(60)).await;
    bed.round(base()).await;
    let tick = bed.ticks().await.remove(0);
    assert_eq!(
        (tick.outcome, tick.cause),
        (TickOutcome::Refused, Some(TickCause::NotAllowed))
    );
    assert!(
        tick.message
            .starts_with("cluster edge-7 has no profile default"),
        "{}",
        tick.message
    );
    assert_eq!(
        bed.show().await.state,
        ScheduleState::Active,
        "the next tick may be allowed"
    );
}

/// A selector chooses its clusters at each tick, and the ledger tells of the whole as of one run.
#[tokio::test]
async fn a_tick_can_be_one_command_on_many_clusters() {
    let bed = Bed::start().await;
    let other = bed.dispatcher.cluster("edge-8").await;
    for name in ["edge-7", "edge-8"] {
        let path = format!("/v1/clusters/{name}/labels");
        let patch = bed
            .dispatcher
            .request(Method::PATCH, &path)
            .json(&json!({ "env": "prod" }));
        assert_eq!(patch.send().await.unwrap().status(), StatusCode::OK);
    }
    bed.speaks_until(base() + minutes(60 * 24 * 365)).await;
    let job = json!({ "command": { "shell": "x" }, "secrets": { "TOKEN": "hunter2" } });
    let run = json!({ "run": { "fanout": { "job": job, "selector": "env=prod" } } });
    let made = bed.made(&spec(&every(3600), &run)).await;
    assert_eq!(made.secrets, ["TOKEN"]);
    bed.round(base()).await;
    bed.round(base() + minutes(60)).await;
    assert_eq!(bed.ledger().await, "0m fired\n60m skipped(overlap)");
    let id = bed.ticks().await[0].fanout.unwrap();
    let path = format!("/v1/fanouts/{id}");
    for (name, runner) in [("edge-7", &bed.runner), ("edge-8", &other)] {
        let job = eventually("its job is made", async || {
            let fanout: FanOut = bed.dispatcher.get(&path).await;
            let child = fanout
                .clusters
                .iter()
                .find(|child| child.cluster.as_str() == name);
            child.unwrap().job
        })
        .await;
        let job: Job = bed.dispatcher.get(&format!("/v1/jobs/{job}")).await;
        assert_eq!(
            (job.fanout, job.secrets.as_slice()),
            (Some(id), &["TOKEN".to_owned()][..])
        );
        let pod = runner.start(&job).await;
        runner.complete(&job, pod, &exit(0, 0)).await;
    }
    eventually("it is over", async || {
        let fanout: FanOut = bed.dispatcher.get(&path).await;
        fanout.state.is_over().then_some(())
    })
    .await;
    bed.round(base() + minutes(61)).await;
    assert_eq!(
        bed.ledger().await,
        "0m fired succeeded\n60m skipped(overlap)"
    );
    bed.round(base() + minutes(120)).await;
    let again = bed.ticks().await.last().unwrap().fanout.unwrap();
    assert_ne!(again, id);
}
