//! `cancel`: three stages, each said when it is reached.

use std::time::{Duration, Instant};

use insta::assert_snapshot;
use invoke_protocol::job::{Job, Step, StepName, Times};
use invoke_protocol::output::EndCause;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::StateName;
use serde_json::Value;

use crate::fixtures::{ID, Printed, ended, queued, route, running};
use crate::program::{Bed, run};
use crate::stub::Answer;

fn requested() -> Job {
    Job {
        state: StateName::Cancelling,
        cancelled_by: Some("local".into()),
        ..running()
    }
}

fn delivered() -> Job {
    Job {
        times: Times {
            cancel_delivered: Some(queued().times.start_deadline),
            ..running().times
        },
        version: 6,
        ..requested()
    }
}

fn cancelled() -> Job {
    Job {
        state: StateName::Cancelled,
        cause: Some(EndCause::Cancelled),
        cancelled_by: Some("local".into()),
        ..ended(143, &Printed::nothing())
    }
}

/// A bed whose dispatcher answers a cancel with the first job and questions with the rest.
fn bed(first: &Job, rest: &[Job]) -> Bed {
    let bed = Bed::new();
    bed.stub
        .on(&route("POST", "/cancel"), vec![Answer::json(202, first)]);
    let rest = rest.iter().map(|job| Answer::json(200, job)).collect();
    bed.stub.on(&route("GET", ""), rest);
    bed
}

fn shown(bed: &Bed, arguments: &[&str]) -> String {
    bed.transcript(arguments).replace(ID, "[ID]")
}

#[test]
fn a_cancel_tells_each_stage_once() {
    let bed = bed(
        &requested(),
        &[requested(), delivered(), delivered(), cancelled()],
    );
    assert_snapshot!(shown(&bed, &["cancel", "--grace", "5s", ID]), @"
    exit: 0
    --- stderr
    invoke: job [ID]: cancel requested
    invoke: job [ID]: delivered to the pod: SIGTERM sent, SIGKILL after 5 s
    invoke: the command is dead: job [ID] was cancelled by local; its command ended with code 143
    ");
    let body: Value =
        serde_json::from_slice(&bed.stub.seen(&route("POST", "/cancel"))[0].body).unwrap();
    assert_eq!(body["grace_seconds"], 5);
}

/// The command may be dead before the delivery can be seen; the story knows of it.
#[test]
fn a_quick_end_leaves_no_stage_out() {
    let story = vec![Step {
        at: queued().times.start_deadline,
        by: "runner demo/runner-0".into(),
        step: StepName::CancelDelivered,
        message: String::new(),
    }];
    let bed = bed(
        &requested(),
        &[Job {
            story,
            ..cancelled()
        }],
    );
    assert_snapshot!(shown(&bed, &["cancel", "--grace", "0s", ID]), @"
    exit: 0
    --- stderr
    invoke: job [ID]: cancel requested
    invoke: job [ID]: delivered to the pod: SIGTERM sent, SIGKILL at once
    invoke: the command is dead: job [ID] was cancelled by local; its command ended with code 143
    ");
    let body: Value =
        serde_json::from_slice(&bed.stub.seen(&route("POST", "/cancel"))[0].body).unwrap();
    assert_eq!(body["grace_seconds"], 0);
}

#[test]
fn a_cancel_without_a_grace_leaves_it_to_the_cluster() {
    let bed = bed(&requested(), &[delivered(), cancelled()]);
    assert_snapshot!(shown(&bed, &["cancel", ID]), @"
    exit: 0
    --- stderr
    invoke: job [ID]: cancel requested
    invoke: job [ID]: delivered to the pod: SIGTERM sent, SIGKILL when the cluster's grace is over
    invoke: the command is dead: job [ID] was cancelled by local; its command ended with code 143
    ");
    let seen = bed.stub.seen(&route("POST", "/cancel"));
    assert_eq!(&seen[0].body[..], b"{}");
    let over = Answer::problem(ProblemCode::JobOver, "job 1 is over: it succeeded");
    bed.stub.on(&route("POST", "/cancel"), vec![over]);
    assert_snapshot!(shown(&bed, &["cancel", ID]), @"
    exit: 240
    --- stderr
    invoke: job 1 is over: it succeeded
    ");
}

#[test]
fn a_job_that_never_started_has_no_dead_command() {
    let unstarted = Job {
        state: StateName::Cancelled,
        cancelled_by: Some("local".into()),
        ..queued()
    };
    assert_snapshot!(shown(&bed(&unstarted, &[]), &["cancel", ID]), @"
    exit: 0
    --- stderr
    invoke: job [ID] was cancelled by local; its command never started
    ");
}

/// The command was quicker than the cancel: that is said, and its code is passed on.
#[test]
fn a_cancel_that_comes_too_late_says_so() {
    let bed = bed(&requested(), &[ended(3, &Printed::nothing())]);
    assert_snapshot!(shown(&bed, &["cancel", ID]), @"
    exit: 3
    --- stderr
    invoke: job [ID]: cancel requested
    invoke: job [ID] was not cancelled: its command ended first with code 3
    ");
}

#[test]
fn a_grace_beyond_an_hour_is_refused() {
    let bed = bed(&requested(), &[]);
    let refused = shown(&bed, &["cancel", "--grace", "61m", ID]);
    assert!(refused.starts_with("exit: 240\n"), "{refused}");
    assert!(refused.contains("at most 3600 seconds"), "{refused}");
    assert!(bed.stub.seen(&route("POST", "/cancel")).is_empty());
}

/// A dispatcher that is being restarted is asked again: a request may be repeated as often as one likes.
#[test]
fn a_cancel_is_asked_for_until_it_is_answered() {
    let bed = bed(&requested(), &[cancelled()]);
    bed.stub.on(
        &route("POST", "/cancel"),
        vec![
            Answer::cut(),
            Answer::problem(ProblemCode::Unavailable, "restarting").retry_after(1),
            Answer::json(202, &requested()),
        ],
    );
    let mut command = bed.invoke(&["cancel", ID]);
    command.env("INVOKE_RETRY_FOR", "30s");
    let begun = Instant::now();
    let output = run(command);
    assert_eq!(output.status.code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After");
    assert_eq!(bed.stub.seen(&route("POST", "/cancel")).len(), 3);
}
