//! One command on two hundred clusters: the brakes hold, whoever is killed, and everything is accounted for.

use invoke_protocol::fanout::{FanOut, FanOutStateName, StopCode};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::bed::{AWAY, Dispatcher, expect};
use crate::fleet::{Act, Fleet, Place, Work, name};
use crate::store::{Database, on_both_engines};

/// How many clusters there are.
const CLUSTERS: usize = 200;

on_both_engines! {
    a_canary_that_fails_stops_it_and_a_retry_goes_on
    one_failure_too_many_stops_it_and_a_resume_goes_on
    a_third_of_the_clusters_is_away
    a_dispatcher_that_dies_in_the_middle_of_a_ramp_changes_nothing
    a_cancel_in_the_middle_ends_all_of_it
}

fn arguments(database: &Database) -> Vec<String> {
    let arguments = AWAY.into_iter().chain(["--database-url", &database.url]);
    arguments.map(str::to_owned).collect()
}

async fn start(database: &Database) -> Dispatcher {
    let arguments = arguments(database);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Dispatcher::start_with(&arguments).await
}

/// A dispatcher that is killed when it is dropped: all it does ends where it is.
struct Doomed {
    runtime: Option<Runtime>,
    dispatcher: Dispatcher,
}

impl Doomed {
    async fn start(database: &Database) -> Self {
        let database = database.clone();
        let starting = tokio::task::spawn_blocking(move || {
            let mut builder = Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            let dispatcher = runtime.block_on(start(&database));
            (runtime, dispatcher)
        });
        let (runtime, dispatcher) = starting.await.unwrap();
        Self {
            runtime: Some(runtime),
            dispatcher,
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn spec(rollout: &Value) -> Value {
    let mut spec = json!({ "job": { "command": { "shell": "date" } }, "selector": "env=test" });
    spec.as_object_mut()
        .unwrap()
        .extend(rollout.as_object().unwrap().clone());
    spec
}

async fn go_on(place: &Place, fanout: &FanOut, what: &str) {
    let answer: FanOut = expect(
        place.order(fanout.id, what, &json!({})).await,
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(answer.state, FanOutStateName::Running);
}

fn stopped_by(fanout: &FanOut) -> StopCode {
    assert_eq!(fanout.state, FanOutStateName::Stopped);
    fanout.reason.as_ref().unwrap().code
}

async fn a_canary_that_fails_stops_it_and_a_retry_goes_on(database: Database) {
    let dispatcher = start(&database).await;
    let fleet = Fleet::enrol(&dispatcher, CLUSTERS).await;
    let canaries = [name(7), name(3)];
    let spec = spec(&json!({ "canary": canaries, "concurrency": "10%", "ramp": true }));
    let fanout = fleet.place().submit(&spec).await;
    // One of the two fails at first.
    let acts = |index, runs| Act::Exit(u8::from(index == 3 && runs == 0));
    let mut work = Work::new(&fanout, acts);
    let stopped = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&stopped).await <= 2, "the canaries are alone");
    assert_eq!(stopped_by(&stopped), StopCode::CanaryFailed);
    assert_eq!(
        (stopped.counts.failed, stopped.counts.not_started),
        (1, 198)
    );

    // Nothing starts before it has succeeded.
    let refused = fleet.place().order(fanout.id, "resume", &json!({})).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    go_on(&fleet.place(), &fanout, "retry-failed").await;
    work.go_on();
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&ended).await <= 20);
    assert_eq!(ended.state, FanOutStateName::Succeeded);
    assert_eq!((ended.counts.succeeded, ended.round), (200, 1));
}

async fn one_failure_too_many_stops_it_and_a_resume_goes_on(database: Database) {
    let dispatcher = start(&database).await;
    let fleet = Fleet::enrol(&dispatcher, CLUSTERS).await;
    let spec = spec(&json!({ "concurrency": 20, "max_failures": "5%" }));
    let fanout = fleet.place().submit(&spec).await;
    let acts = |index, runs| Act::Exit(u8::from((100..150).contains(&index) && runs == 0));
    let mut work = Work::new(&fanout, acts);
    let stopped = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&stopped).await <= 20);
    assert_eq!(stopped_by(&stopped), StopCode::TooManyFailures);
    // Those that ran when the eleventh failed came to their end.
    let counts = stopped.counts;
    assert!((11..=30).contains(&counts.failed), "{counts:?}");
    assert!(
        counts.not_started >= 60 && counts.succeeded >= 81,
        "{counts:?}"
    );

    // The failures until now are forgiven, and the next eleven stop it again.
    let mut ended = stopped;
    let mut rounds = 0;
    while ended.state == FanOutStateName::Stopped && ended.counts.not_started > 0 {
        go_on(&fleet.place(), &fanout, "resume").await;
        work.go_on();
        ended = fleet.work(&mut work, fanout.id, |_| false).await;
        work.check(&ended).await;
        rounds += 1;
    }
    assert!((1..=4).contains(&rounds), "{rounds} rounds for 50 failures");
    assert_eq!((ended.counts.failed, ended.counts.succeeded), (50, 150));
    go_on(&fleet.place(), &fanout, "retry-failed").await;
    work.go_on();
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    work.check(&ended).await;
    assert_eq!(ended.state, FanOutStateName::Succeeded);
}

async fn a_third_of_the_clusters_is_away(database: Database) {
    let dispatcher = start(&database).await;
    let fleet = Fleet::enrol(&dispatcher, CLUSTERS).await;
    let is_away = |index: &usize| index.is_multiple_of(3);
    fleet
        .fall_silent(&dispatcher, (0..CLUSTERS).filter(is_away))
        .await;
    for (if_offline, state) in [
        ("skip", FanOutStateName::Incomplete),
        ("fail", FanOutStateName::Incomplete),
    ] {
        let spec = spec(&json!({ "if_offline": if_offline, "concurrency": 50 }));
        let fanout = fleet.place().submit(&spec).await;
        let mut work = Work::new(&fanout, |_, _| Act::Exit(0));
        let ended = fleet.work(&mut work, fanout.id, |_| false).await;
        assert!(work.check(&ended).await <= 50);
        let away = ended.counts.skipped + ended.counts.offline;
        assert_eq!(
            (ended.state, away, ended.counts.succeeded),
            (state, 67, 133)
        );
    }
    // One more than may fail is away: nothing starts at all.
    let spec_of_none = spec(&json!({ "if_offline": "fail", "max_failures": 66 }));
    let fanout = fleet.place().submit(&spec_of_none).await;
    let mut work = Work::new(&fanout, |_, _| Act::Exit(0));
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    assert_eq!(work.check(&ended).await, 0);
    assert_eq!(stopped_by(&ended), StopCode::TooManyFailures);

    wait_for_those_that_are_away(&fleet).await;
}

/// Others overtake them; those that speak in time have their turn, and those that do not have failed.
async fn wait_for_those_that_are_away(fleet: &Fleet) {
    let patient = spec(&json!({ "concurrency": 10 }));
    let fanout = fleet.place().submit(&patient).await;
    let mut work = Work::new(&fanout, |_, _| Act::Exit(0));
    let all_but = |seen: &FanOut| seen.counts.succeeded == 133;
    let others = fleet.work(&mut work, fanout.id, all_but).await;
    assert_eq!((others.counts.pending, others.counts.running), (67, 0));
    // c000, c003, …, c087.
    fleet.come_back((0..30).map(|index| index * 3)).await;
    let all_but = |seen: &FanOut| seen.counts.succeeded == 163;
    let others = fleet.work(&mut work, fanout.id, all_but).await;
    assert_eq!((others.counts.pending, others.counts.running), (37, 0));
    let order = fleet.place().order(fanout.id, "cancel", &json!({})).await;
    let ended: FanOut = expect(order, StatusCode::ACCEPTED).await;
    assert!(work.check(&ended).await <= 10);
    assert_eq!(
        (ended.state, ended.counts.cancelled),
        (FanOutStateName::Cancelled, 37)
    );

    let mut impatient = patient;
    impatient["job"]["start_within_seconds"] = json!(1);
    let fanout = fleet.place().submit(&impatient).await;
    let mut work = Work::new(&fanout, |_, _| Act::Exit(0));
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&ended).await <= 10);
    // A second is short for a job on its way, too: that is a failure, and no cluster that is away.
    assert_eq!(ended.counts.offline, 37);
    assert_eq!(ended.state, FanOutStateName::Incomplete);
}

async fn a_dispatcher_that_dies_in_the_middle_of_a_ramp_changes_nothing(database: Database) {
    let doomed = Doomed::start(&database).await;
    let fleet = Fleet::enrol(&doomed.dispatcher, CLUSTERS).await;
    let spec =
        spec(&json!({ "canary": [name(0)], "concurrency": 25, "ramp": true, "max_failures": 3 }));
    let fanout = fleet.place().submit(&spec).await;
    let mut work = Work::new(&fanout, |index, _| Act::Exit(u8::from(index == 99)));
    let mut dispatcher = doomed;
    for succeeded in [2, 9, 60] {
        let until = |seen: &FanOut| seen.counts.succeeded >= succeeded && seen.counts.running > 0;
        fleet.work(&mut work, fanout.id, until).await;
        drop(dispatcher);
        dispatcher = Doomed::start(&database).await;
        fleet.move_to(vec![Place::of(&dispatcher.dispatcher)]);
    }
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&ended).await <= 25);
    assert_eq!(ended.state, FanOutStateName::Incomplete);
    assert_eq!((ended.counts.succeeded, ended.counts.failed), (199, 1));
}

async fn a_cancel_in_the_middle_ends_all_of_it(database: Database) {
    let dispatcher = start(&database).await;
    let fleet = Fleet::enrol(&dispatcher, CLUSTERS).await;
    let spec = spec(&json!({ "concurrency": 40 }));
    let fanout = fleet.place().submit(&spec).await;
    let mut work = Work::new(
        &fanout,
        |index, _| if index < 30 { Act::Exit(0) } else { Act::Hang },
    );
    let begun = work.begun();
    fleet.work(&mut work, fanout.id, |_| begun() >= 60).await;
    let body = json!({ "grace_seconds": 5 });
    let answer: FanOut = expect(
        fleet.place().order(fanout.id, "cancel", &body).await,
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(answer.state, FanOutStateName::Cancelling);
    assert_eq!(answer.cancelled_by.as_deref(), Some("local"));
    let ended = fleet.work(&mut work, fanout.id, |_| false).await;
    assert!(work.check(&ended).await <= 40);
    assert_eq!(ended.state, FanOutStateName::Cancelled);
    assert_eq!((ended.counts.succeeded, ended.counts.cancelled), (30, 170));
    for what in ["cancel", "resume", "retry-failed"] {
        let refused = fleet.place().order(fanout.id, what, &json!({})).await;
        assert_eq!(refused.status(), StatusCode::CONFLICT, "{what}");
    }
}

mod three {
    use super::*;

    /// Each starts what is next when it sees that it is, and of any two exactly one does.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dispatchers_at_once_start_nothing_twice() {
        let database = Database::postgres().await;
        let mut dispatchers = Vec::new();
        for _ in 0..3 {
            dispatchers.push(Doomed::start(&database).await);
        }
        let places = |dispatchers: &[Doomed]| {
            let places = dispatchers
                .iter()
                .map(|doomed| Place::of(&doomed.dispatcher));
            places.collect::<Vec<_>>()
        };
        let fleet = Fleet::enrol(&dispatchers[0].dispatcher, CLUSTERS).await;
        fleet.move_to(places(&dispatchers));
        let canaries = [name(5), name(6)];
        let spec = spec(
            &json!({ "canary": canaries, "concurrency": "15%", "ramp": true, "max_failures": 10 }),
        );
        let fanout = fleet.place().submit(&spec).await;
        let mut work = Work::new(&fanout, |index, _| {
            Act::Exit(u8::from(index.is_multiple_of(40)))
        });
        for succeeded in [20, 90] {
            fleet
                .work(&mut work, fanout.id, |seen| {
                    seen.counts.succeeded >= succeeded
                })
                .await;
            // The first dies, and another takes its place.
            drop(dispatchers.remove(0));
            dispatchers.push(Doomed::start(&database).await);
            fleet.move_to(places(&dispatchers));
        }
        let ended = fleet.work(&mut work, fanout.id, |_| false).await;
        assert!(work.check(&ended).await <= 30);
        assert_eq!(ended.state, FanOutStateName::Incomplete);
        assert_eq!((ended.counts.succeeded, ended.counts.failed), (195, 5));
        drop(dispatchers);
        database.remove().await;
    }
}
