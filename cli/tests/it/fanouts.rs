//! `fanouts`, and what other subcommands do with the id of a fan-out.

use insta::assert_snapshot;
use invoke_protocol::fanout::{
    ChildStateName, FanOut, FanOutList, FanOutStateName, FanOutStep, FanOutStepName, StopCode,
    StopReason,
};
use invoke_protocol::problem::ProblemCode;
use serde_json::Value;

use crate::fanout::{FANOUT, at, child, events, fanout, route, shown, stream};
use crate::fixtures::Printed;
use crate::program::{Bed, run};
use crate::stub::Answer;

/// One that stopped after its first cluster.
fn stopped() -> FanOut {
    let mut canary = child(0, "edge-1", ChildStateName::Failed);
    canary.canary = true;
    let step = |second, by: &str, step, cluster: Option<&str>, message: &str| FanOutStep {
        at: at(second),
        by: by.into(),
        step,
        cluster: cluster.map(|name| name.parse().unwrap()),
        message: message.into(),
    };
    FanOut {
        reason: Some(StopReason {
            code: StopCode::CanaryFailed,
            message: "canary edge-1 failed".into(),
        }),
        story: vec![
            step(0, "local", FanOutStepName::Submitted, None, "2 clusters"),
            step(
                1,
                "dispatcher",
                FanOutStepName::ClusterStarted,
                Some("edge-1"),
                "",
            ),
            step(
                3,
                "dispatcher",
                FanOutStepName::ClusterEnded,
                Some("edge-1"),
                "failed\u{1b}",
            ),
            step(
                3,
                "dispatcher",
                FanOutStepName::Stopped,
                None,
                "canary edge-1 failed",
            ),
        ],
        ..fanout(
            FanOutStateName::Stopped,
            vec![canary, child(1, "prod-eu", ChildStateName::NotStarted)],
        )
    }
}

/// The same, gone on to its end.
fn succeeded() -> FanOut {
    let mut again = child(2, "edge-1", ChildStateName::Succeeded);
    again.attempt = 2;
    FanOut {
        round: 1,
        version: 9,
        ..fanout(
            FanOutStateName::Succeeded,
            vec![again, child(1, "prod-eu", ChildStateName::Succeeded)],
        )
    }
}

fn bed(answers: &[&FanOut]) -> Bed {
    let bed = Bed::new();
    let answers = answers.iter().map(|fanout| Answer::json(200, fanout));
    bed.stub.on(&route("GET", ""), answers.collect());
    for (number, name) in ["edge-1", "prod-eu", "edge-1"].into_iter().enumerate() {
        let printed = Printed::nothing().out(format!("of job {number}\n"));
        let code = if number == 0 { 7 } else { 0 };
        bed.stub.on(
            &events(number),
            vec![Answer::events(stream(number, name, code, &printed))],
        );
    }
    let none = Answer::problem(ProblemCode::JobNotFound, "there is no such job");
    for (method, rest) in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/artifacts"),
        ("POST", "/cancel"),
    ] {
        let route = format!("{method} /v1/jobs/{FANOUT}{rest}");
        bed.stub.on(&route, vec![none.clone()]);
    }
    bed
}

#[test]
fn fanouts_are_listed_and_shown() {
    let bed = bed(&[&stopped()]);
    let list = FanOutList {
        fanouts: vec![stopped()],
        next: None,
    };
    bed.stub
        .on("GET /v1/fanouts", vec![Answer::json(200, &list)]);
    let listed = shown(&bed, &["fanouts", "--limit", "3"]);
    let age = listed
        .split_whitespace()
        .find(|word| word.ends_with('d') && word[..1].chars().all(char::is_numeric));
    assert_snapshot!(listed.replace(age.unwrap(), "[AGE]"), @"
    exit: 0
    --- stdout
    ID                                     STATE     CLUSTERS   SELECTOR   AGE    COMMAND
    [FANOUT]   stopped   0/2        env=prod   [AGE]   kubectl get nodes -o name
    ");
    assert_eq!(bed.stub.seen("GET /v1/fanouts")[0].query, "limit=3");
    assert_snapshot!(shown(&bed, &["fanouts", FANOUT]), @"
    exit: 0
    --- stdout
    id            [FANOUT]
    selector      env=prod
    profile       default
    command       kubectl get nodes -o name
    submitted by  local
    state         stopped
    reason        canary edge-1 failed
    clusters      0 of 2 clusters succeeded, 1 failed, 1 not started
    at once       2
    submitted     2026-05-28 20:26:40 UTC
    over          2026-05-28 20:26:49 UTC

    CLUSTER   STATE         EXIT   JOB                                    WHY
    edge-1    failed        7      0197c1f0-5a3e-7c22-9d1b-000000000000
    prod-eu   not started   -      -

    TIME (UTC)                BY           STEP              CLUSTER   MESSAGE
    2026-05-28 20:26:40.000   local        submitted         -         2 clusters
    2026-05-28 20:26:41.000   dispatcher   cluster started   edge-1
    2026-05-28 20:26:43.000   dispatcher   cluster ended     edge-1    failed^[
    2026-05-28 20:26:43.000   dispatcher   stopped           -         canary edge-1 failed
    ");
    let json = run(bed.invoke(&["fanouts", FANOUT, "-o", "json"])).stdout;
    assert_eq!(serde_json::from_slice::<FanOut>(&json).unwrap(), stopped());
    let empty = FanOutList {
        fanouts: Vec::new(),
        next: None,
    };
    bed.stub
        .on("GET /v1/fanouts", vec![Answer::json(200, &empty)]);
    assert_snapshot!(shown(&bed, &["fanouts"]), @r#"
    exit: 0
    --- stderr
    invoke: no commands on many clusters yet
    invoke: hint: `invoke -l env=prod "kubectl get nodes"` runs one
    "#);
}

/// Of one that is over, each cluster's output stands together.
#[test]
fn one_that_is_over_is_shown_again() {
    let bed = bed(&[&succeeded()]);
    let again = shown(&bed, &["fanouts", FANOUT, "follow"]);
    assert_snapshot!(again, @"
    exit: 0
    --- stdout
    edge-1  | of job 2
    prod-eu | of job 1
    --- stderr
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-1    succeeded   0      2.0s
    prod-eu   succeeded   0      2.0s
    invoke: fan-out [FANOUT]: 2 of 2 clusters succeeded
    ");
    assert_eq!(shown(&bed, &["result", FANOUT]), again);
    let json = run(bed.invoke(&["result", "-o", "json", FANOUT])).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["clusters"][1]["stdout"], "of job 1\n");
}

/// What was printed before it stopped was seen before.
#[test]
fn it_goes_on_and_only_what_is_new_is_printed() {
    let bed = bed(&[&stopped(), &succeeded()]);
    bed.stub.on(
        &route("POST", "/retry-failed"),
        vec![Answer::json(202, &stopped())],
    );
    assert_snapshot!(shown(&bed, &["fanouts", FANOUT, "retry-failed", "--lost"]), @"
    exit: 0
    --- stdout
    edge-1  | of job 2
    prod-eu | of job 1
    --- stderr
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-1    succeeded   0      2.0s
    prod-eu   succeeded   0      2.0s
    invoke: fan-out [FANOUT]: 2 of 2 clusters succeeded
    ");
    let body: Value =
        serde_json::from_slice(&bed.stub.seen(&route("POST", "/retry-failed"))[0].body).unwrap();
    assert_eq!(body, serde_json::json!({ "lost": true }));

    let clusters = |second| {
        vec![
            child(0, "edge-1", ChildStateName::Succeeded),
            child(1, "prod-eu", second),
        ]
    };
    let half = fanout(
        FanOutStateName::Stopped,
        clusters(ChildStateName::NotStarted),
    );
    let whole = fanout(
        FanOutStateName::Succeeded,
        clusters(ChildStateName::Succeeded),
    );
    let bed = self::bed(&[&half, &whole, &half]);
    bed.stub
        .on(&route("POST", "/resume"), vec![Answer::json(202, &half)]);
    let resumed = shown(&bed, &["fanouts", FANOUT, "resume"]);
    assert!(
        resumed.contains("--- stdout\nprod-eu | of job 1\n--- stderr"),
        "{resumed}"
    );
    let left = shown(&bed, &["fanouts", FANOUT, "resume", "--no-wait"]);
    assert_eq!(left, "exit: 0\n--- stdout\n[FANOUT]\n");
}

#[test]
fn one_that_cannot_go_on_says_why() {
    let bed = bed(&[&stopped()]);
    let why = "it was cancelled, which is for ever: submit it again";
    let refusal = Answer::problem(ProblemCode::FanoutCannotGoOn, why);
    bed.stub.on(&route("POST", "/resume"), vec![refusal]);
    assert_eq!(
        shown(&bed, &["fanouts", FANOUT, "resume"]),
        format!("exit: 240\n--- stderr\ninvoke: {why}\n")
    );
    let usage = shown(&bed, &["fanouts", "resume"]);
    assert_snapshot!(usage, @"
    exit: 240
    --- stderr
    invoke: which fan-out?
    invoke: hint: its id comes first: `invoke fanouts ID …`; `invoke fanouts` lists them
    ");
}

#[test]
fn a_cancel_waits_for_the_end() {
    let running = FanOut {
        cancelled_by: Some("local".into()),
        ..fanout(
            FanOutStateName::Cancelling,
            vec![child(1, "prod-eu", ChildStateName::Running)],
        )
    };
    let cancelled = FanOut {
        cancelled_by: Some("local".into()),
        version: 2,
        ..fanout(
            FanOutStateName::Cancelled,
            vec![child(1, "prod-eu", ChildStateName::Cancelled)],
        )
    };
    let bed = bed(&[&running, &cancelled]);
    bed.stub
        .on(&route("POST", "/cancel"), vec![Answer::json(202, &running)]);
    let said = shown(&bed, &["fanouts", FANOUT, "cancel", "--grace", "5s"]);
    assert_snapshot!(said, @"
    exit: 0
    --- stderr
    invoke: fan-out [FANOUT]: cancel requested
    invoke: fan-out [FANOUT]: 0 of 1 cluster succeeded, 1 cancelled; local cancelled it
    ");
    let body: Value =
        serde_json::from_slice(&bed.stub.seen(&route("POST", "/cancel"))[0].body).unwrap();
    assert_eq!(body["grace_seconds"], 5);
    // The verb of a job finds out.
    assert_eq!(shown(&bed, &["cancel", FANOUT]), said);
    bed.stub.on(
        &route("POST", "/cancel"),
        vec![Answer::problem(ProblemCode::FanoutOver, "it is over")],
    );
    assert_eq!(
        shown(&bed, &["fanouts", FANOUT, "cancel"]),
        "exit: 240\n--- stderr\ninvoke: it is over\n"
    );
}

/// Both ids look alike: whoever confuses them is told where to go.
#[test]
fn a_verb_for_jobs_says_which_is_for_fanouts() {
    let bed = bed(&[&stopped()]);
    for line in [
        &["logs", FANOUT][..],
        &["logs", "-f", FANOUT],
        &["jobs", FANOUT],
        &["why", FANOUT],
        &["artifacts", FANOUT],
    ] {
        let shown = shown(&bed, line);
        insta::allow_duplicates! {
            assert_snapshot!(shown, @"
            exit: 240
            --- stderr
            invoke: [FANOUT] is a command on many clusters, and each has a job of its own
            invoke: hint: `invoke fanouts [FANOUT]` lists them; `invoke fanouts [FANOUT] follow` prints what all of them print
            ");
        }
    }
    let running = fanout(
        FanOutStateName::Running,
        vec![child(1, "prod-eu", ChildStateName::Running)],
    );
    let bed = self::bed(&[&running]);
    assert_snapshot!(shown(&bed, &["result", FANOUT]), @"
    exit: 248
    --- stderr
    invoke: fan-out [FANOUT] is not over: its state is running
    invoke: hint: `invoke fanouts [FANOUT] follow` follows it to its end
    ");
}
