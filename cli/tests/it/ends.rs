//! Ends without an exit record: each has its words and its code.

use insta::assert_snapshot;
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::output::{EndCause, IncompleteReason};
use invoke_protocol::state::{Reason, ReasonCode, Started, StateName};

use crate::fixtures::{ID, Printed, end_event, ended, over, queued, route};
use crate::program::Bed;
use crate::stub::Answer;

fn shown(job: Job) -> String {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(vec![end_event(job)])],
    );
    bed.transcript(&["ls"]).replace(ID, "[ID]")
}

fn because(code: ReasonCode, message: &str) -> Option<Reason> {
    Some(Reason::new(code, message))
}

#[test]
fn a_job_that_never_started_says_why() {
    let offline = because(ReasonCode::ClusterOffline, "cluster demo was offline");
    assert_snapshot!(shown(over(StateName::Expired, Started::No, offline)), @"
    exit: 243
    --- stderr
    invoke: job [ID] expired: it was not started by 2026-05-28 20:41:40 UTC: cluster demo was offline
    ");
    let refused = because(ReasonCode::UnknownProfile, "cluster demo has no profile x");
    assert_snapshot!(shown(over(StateName::Rejected, Started::No, refused)), @"
    exit: 244
    --- stderr
    invoke: job [ID] was rejected by its cluster and never started: cluster demo has no profile x
    ");
    let pull = because(ReasonCode::ImagePull, "cannot pull jobs:1: not found");
    assert_snapshot!(shown(over(StateName::InfraFailed, Started::No, pull)), @"
    exit: 244
    --- stderr
    invoke: job [ID] never started: cannot pull jobs:1: not found
    ");
}

#[test]
fn a_lost_job_is_no_success_and_no_failure_of_the_command() {
    let gone = because(ReasonCode::PodGone, "pod invoke-1 is gone");
    let lost = Job {
        output_complete: Some(Completeness::No),
        output_incomplete_reason: Some(IncompleteReason::PodGone),
        ..over(StateName::Lost, Started::Unknown, gone)
    };
    assert_snapshot!(shown(lost), @"
    exit: 247
    --- stderr
    invoke: OUTPUT IS INCOMPLETE: this is 0 bytes; nobody knows how much is missing
    invoke: job [ID] is lost: its command was permitted to start, and nobody knows how it ended: pod invoke-1 is gone
    ");
}

/// A drain that ran out of patience: what is known of the end is said, and it is no result.
#[test]
fn a_command_that_kubernetes_stopped_is_lost_in_these_words() {
    let drained = because(
        ReasonCode::PodTerminated,
        "Kubernetes told the pod to stop: it was stopped half-way, with code 143",
    );
    assert_snapshot!(shown(over(StateName::Lost, Started::Yes, drained)), @"
    exit: 247
    --- stderr
    invoke: job [ID] is lost: its command was stopped half-way, and nobody knows how much it did: Kubernetes told the pod to stop: it was stopped half-way, with code 143
    ");
}

/// A code of 137 says "killed", but not by whom.
#[test]
fn a_command_that_ran_out_of_memory_says_so() {
    for (code, state) in [(137, StateName::Failed), (0, StateName::Succeeded)] {
        let job = Job {
            state,
            reason: because(
                ReasonCode::OutOfMemory,
                "the kernel killed a process of the command",
            ),
            ..ended(code, &Printed::nothing())
        };
        let said = shown(job);
        assert!(said.starts_with(&format!("exit: {code}\n")), "{said}");
        assert!(said.contains("the kernel killed a process"), "{said}");
    }
    let exited = Job {
        reason: because(ReasonCode::Exited, "the command exited with code 1"),
        ..ended(1, &Printed::nothing())
    };
    assert_eq!(shown(exited), "exit: 1\n", "it has said everything itself");
}

/// Whatever the command made of its signal: 0 after SIGTERM is not what was asked for.
#[test]
fn a_stopped_command_has_our_code_whatever_its_own() {
    let stopped = |state, cause| Job {
        state,
        cause: Some(cause),
        cancelled_by: Some("alice".into()),
        ..ended(0, &Printed::nothing())
    };
    assert_snapshot!(shown(stopped(StateName::TimedOut, EndCause::RunTimeout)), @"
    exit: 246
    --- stderr
    invoke: job [ID] timed out: it ran longer than it was allowed and was stopped; its command ended with code 0
    ");
    assert_snapshot!(shown(stopped(StateName::Cancelled, EndCause::Cancelled)), @"
    exit: 245
    --- stderr
    invoke: job [ID] was cancelled by alice; its command ended with code 0
    ");
    let unstarted = Job {
        cancelled_by: Some("alice".into()),
        ..over(StateName::Cancelled, Started::No, None)
    };
    assert_snapshot!(shown(unstarted), @"
    exit: 245
    --- stderr
    invoke: job [ID] was cancelled by alice; its command never started
    ");
}

/// No exit record, no success: also where a dispatcher forgets itself.
#[test]
fn a_success_without_a_code_is_none() {
    let job = Job {
        exit_code: None,
        ..ended(0, &Printed::nothing())
    };
    assert!(shown(job).starts_with("exit: 249\n"));
}
