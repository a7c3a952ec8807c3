//! `why`: one to three lines about any state.

use insta::assert_snapshot;
use invoke_protocol::job::{Completeness, Job, Times};
use invoke_protocol::output::{EndCause, IncompleteReason};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{Reason, ReasonCode, Started, StateName};
use serde_json::Value;

use crate::fixtures::{ID, Printed, ended, over, queued, route, running};
use crate::program::{Bed, run};
use crate::stub::Answer;

fn why(job: &Job) -> String {
    let bed = Bed::new();
    bed.stub.on(&route("GET", ""), vec![Answer::json(200, job)]);
    let shown = bed.transcript(&["why", ID]);
    assert!(shown.starts_with("exit: 0\n--- stdout\n"), "{shown}");
    let lines = shown.lines().count() - 2;
    assert!((1..=3).contains(&lines), "{shown}");
    without_age(&shown.replace(ID, "[ID]"))
}

/// `(176d)` grows with the calendar.
fn without_age(shown: &str) -> String {
    match shown.split_once(" UTC (") {
        Some((before, after)) => {
            let (_, rest) = after.split_once(')').unwrap();
            format!("{before} UTC ([AGE]){rest}")
        }
        None => shown.to_owned(),
    }
}

fn because(code: ReasonCode, message: &str) -> Option<Reason> {
    Some(Reason::new(code, message))
}

#[test]
fn a_job_that_waits_says_for_what_and_until_when() {
    let offline = Job {
        waiting: because(
            ReasonCode::ClusterOffline,
            "cluster demo has been offline for 3 min",
        ),
        retries: 2,
        ..queued()
    };
    assert_snapshot!(why(&offline), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo waits for its start: cluster demo has been offline for 3 min
    it may start until 2026-05-28 20:41:40 UTC, and is never started later; its pod was lost before the start and replaced, 2 in a row so far
    the cluster's owner must bring its runner back: `invoke clusters` shows it; `invoke cancel [ID]` gives it up
    ");
    assert_snapshot!(why(&queued()), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo waits for its start: it is on its way to the cluster
    it may start until 2026-05-28 20:41:40 UTC, and is never started later
    nothing to do yet; `invoke cancel [ID]` gives it up
    ");
}

#[test]
fn a_job_that_runs_says_since_when_and_for_how_long() {
    let limited = Job {
        run_timeout_seconds: Some(5400),
        ..running()
    };
    assert_snapshot!(why(&limited), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo is running: since 2026-05-28 20:26:42 UTC ([AGE]), for at most 1h30m
    `invoke logs -f [ID]` follows it, `invoke cancel [ID]` stops it
    ");
    let silent = Job {
        state: StateName::ContactLost,
        waiting: because(
            ReasonCode::NodeLost,
            "node edge-1 has not spoken since 14:00 UTC",
        ),
        ..running()
    };
    assert_snapshot!(why(&silent), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo was started, and contact with it is lost: node edge-1 has not spoken since 14:00 UTC
    it may still be running, and is not started a second time; it becomes lost if nobody speaks for it
    wait: `invoke logs -f [ID]` follows it; `invoke clusters` shows whether its cluster speaks
    ");
}

/// Whether the pod has the order is what a person who waits wants to know.
#[test]
fn a_job_that_is_being_cancelled_says_how_far_that_is() {
    let requested = Job {
        state: StateName::Cancelling,
        cancelled_by: Some("alice".into()),
        times: Times {
            cancel_requested: Some(running().times.start_deadline),
            ..running().times
        },
        ..running()
    };
    assert_snapshot!(why(&requested), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo is being cancelled: alice asked for it at 2026-05-28 20:41:40 UTC; the order has not reached its pod yet
    `invoke clusters` shows whether its cluster speaks
    ");
    let delivered = Job {
        times: Times {
            cancel_delivered: requested.times.cancel_requested,
            ..requested.times
        },
        ..requested
    };
    assert_snapshot!(why(&delivered), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo is being cancelled: alice asked for it at 2026-05-28 20:41:40 UTC; its pod has had the order since 2026-05-28 20:41:40 UTC: SIGTERM was sent, and SIGKILL follows when the grace is over
    `invoke cancel --grace 0s [ID]` does not wait for the grace
    ");
}

#[test]
fn a_job_that_is_over_says_what_it_died_of() {
    let printed = Printed::nothing().out("pods\n");
    let with = |state, reason, job: Job| Job {
        state,
        reason,
        ..job
    };
    let exited = because(ReasonCode::Exited, "the command exited with code 0");
    assert_snapshot!(why(&with(StateName::Succeeded, exited, ended(0, &printed))), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo succeeded: the command exited with code 0
    its command started; its output is complete: 5 bytes of stdout, 0 of stderr
    `invoke result [ID]` prints its output
    ");
    let memory = because(
        ReasonCode::OutOfMemory,
        "the kernel killed a process of the command because the pod used all its memory",
    );
    assert_snapshot!(why(&with(StateName::Failed, memory, ended(137, &printed))), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo failed: the kernel killed a process of the command because the pod used all its memory
    its command started; its output is complete: 5 bytes of stdout, 0 of stderr
    give it less to do at once, or a profile with more memory: `invoke clusters` lists them
    ");
    let late = because(
        ReasonCode::RunTimeout,
        "the command ran longer than it was allowed and was stopped",
    );
    assert_snapshot!(why(&with(StateName::TimedOut, late, ended(143, &printed))), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo timed out: the command ran longer than it was allowed and was stopped
    its command started; its output is complete: 5 bytes of stdout, 0 of stderr
    `--run-timeout` allows more, up to the profile's maximum
    ");
    let offline = because(ReasonCode::ClusterOffline, "cluster demo was offline");
    assert_snapshot!(why(&over(StateName::Expired, Started::No, offline)), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo expired: cluster demo was offline
    its command never started, and never will
    the cluster's owner must bring its runner back: `invoke clusters` shows it; then it can be run again
    ");
    let unknown = because(ReasonCode::UnknownProfile, "cluster demo has no profile x");
    assert_snapshot!(why(&over(StateName::Rejected, Started::No, unknown)), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo was rejected by its cluster: cluster demo has no profile x
    its command never started, and never will
    `invoke clusters` lists the profiles that there are; then it can be run again
    ");
    let pull = because(ReasonCode::ImagePull, "cannot pull jobs:1: not found");
    assert_snapshot!(why(&over(StateName::InfraFailed, Started::No, pull)), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo could not be started: cannot pull jobs:1: not found
    its command never started, and never will
    the cluster's owner must put that right; then it can be run again
    ");
    let cancelled = because(
        ReasonCode::Cancelled,
        "it was cancelled by ada before its command started",
    );
    assert_snapshot!(why(&over(StateName::Cancelled, Started::No, cancelled)), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo was cancelled: it was cancelled by ada before its command started
    its command never started, and never will
    ");
}

#[test]
fn a_lost_job_says_what_is_certain() {
    let gone = because(ReasonCode::PodGone, "pod invoke-1 is gone");
    let lost = Job {
        output_complete: Some(Completeness::No),
        output_incomplete_reason: Some(IncompleteReason::PodGone),
        ..over(StateName::Lost, Started::Unknown, gone)
    };
    assert_snapshot!(why(&lost), @"
    exit: 0
    --- stdout
    job [ID] on cluster demo is lost: pod invoke-1 is gone
    its command was permitted to start, and nobody can say whether it did its work; its output is INCOMPLETE: nobody knows how much is missing
    look at what it did before you run it again; `invoke logs [ID]` prints what it said
    ");
}

/// Scripts have every field, whatever the state.
#[test]
fn json_has_the_code() {
    let bed = Bed::new();
    let lost = Job {
        cause: Some(EndCause::PodTerminated),
        output_complete: Some(Completeness::No),
        output_incomplete_reason: Some(IncompleteReason::NotUploaded),
        ..over(
            StateName::Lost,
            Started::Yes,
            because(ReasonCode::PodTerminated, "a drain"),
        )
    };
    bed.stub.on(
        &route("GET", ""),
        vec![Answer::json(200, &lost), Answer::json(200, &running())],
    );
    let document = || -> Value {
        serde_json::from_slice(&run(bed.invoke(&["why", "-o", "json", ID])).stdout).unwrap()
    };
    insta::assert_json_snapshot!(document(), @r#"
    {
      "advice": "look at what it did before you run it again; `invoke logs 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` prints what it said",
      "code": "pod_terminated",
      "detail": "its command started; its output is INCOMPLETE: the rest was never uploaded",
      "exit_code": null,
      "id": "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10",
      "message": "a drain",
      "output_complete": "no",
      "output_incomplete_reason": "not_uploaded",
      "retries": 0,
      "started": "yes",
      "state": "lost"
    }
    "#);
    let running = document();
    assert_eq!(
        (&running["code"], &running["state"]),
        (&Value::Null, &Value::from("running"))
    );
}

/// A store that is away is the answer itself, and no success.
#[test]
fn a_store_that_is_away_is_said_in_the_dispatchers_words() {
    let bed = Bed::new();
    let detail = "the store is away: PostgreSQL refuses connections";
    bed.stub.on(
        &route("GET", ""),
        vec![Answer::problem(ProblemCode::Unavailable, detail)],
    );
    assert_snapshot!(bed.transcript(&["why", ID]), @"
    exit: 241
    --- stderr
    invoke: the store is away: PostgreSQL refuses connections
    ");
}
