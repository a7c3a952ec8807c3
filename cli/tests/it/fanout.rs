//! `invoke -l SELECTOR COMMAND`: one command on many clusters.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use insta::assert_snapshot;
use invoke_protocol::api::JobEvent;
use invoke_protocol::command::Command;
use invoke_protocol::environment::{Environment, SecretEnvironment};
use invoke_protocol::fanout::{
    Child, ChildCounts, ChildRefusal, ChildStateName, FanOut, FanOutLimits, FanOutPlan, FanOutSpec,
    FanOutStateName, OfflineClusters, OnStop, PlannedChild, StopCode, StopReason,
};
use invoke_protocol::id::JobId;
use invoke_protocol::job::{IfOffline, Job, JobSpec};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::StateName;
use jiff::Timestamp;
use serde_json::Value;

use crate::fixtures::{Printed, end_event, ended, job_event, running, whole_stream};
use crate::program::{Bed, run, signal, spawn, transcript};
use crate::pty::Terminal;
use crate::stub::{Answer, Piece, event};

pub(crate) const FANOUT: &str = "0197c1f0-5a3e-7c22-9d1b-00000000fa00";

/// A route of the fan-out.
pub(crate) fn route(method: &str, rest: &str) -> String {
    format!("{method} /v1/fanouts/{FANOUT}{rest}")
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

/// The job of the cluster with this number.
pub(crate) fn job_id(number: usize) -> JobId {
    format!("0197c1f0-5a3e-7c22-9d1b-{number:012}")
        .parse()
        .unwrap()
}

pub(crate) fn spec() -> FanOutSpec {
    FanOutSpec {
        job: JobSpec {
            command: Command::shell("kubectl get nodes -o name").unwrap(),
            cluster: None,
            profile: "default".parse().unwrap(),
            start_within_seconds: None,
            run_timeout_seconds: None,
            if_offline: IfOffline::Wait,
            files: None,
            environment: Environment::default(),
            secrets: SecretEnvironment::default(),
            stdin: false,
        },
        selector: "env=prod".parse().unwrap(),
        canary: Vec::new(),
        concurrency: None,
        ramp: false,
        max_failures: None,
        on_stop: OnStop::Finish,
        if_offline: OfflineClusters::Wait,
        expected: None,
    }
}

/// A cluster of a fan-out, with the job that has its number.
pub(crate) fn child(number: usize, name: &str, state: ChildStateName) -> Child {
    let over = |second| {
        (!matches!(state, ChildStateName::Pending | ChildStateName::Running)).then(|| at(second))
    };
    let (has_job, job_state, exit_code) = match state {
        ChildStateName::Running => (true, Some(StateName::Running), None),
        ChildStateName::Succeeded => (true, Some(StateName::Succeeded), Some(0)),
        ChildStateName::Failed => (true, Some(StateName::Failed), Some(7)),
        ChildStateName::Cancelled => (true, Some(StateName::Cancelled), None),
        _ => (false, None, None),
    };
    Child {
        cluster: name.parse().unwrap(),
        canary: false,
        state,
        attempt: 1,
        job: has_job.then(|| job_id(number)),
        job_state,
        exit_code,
        reason: None,
        refusal: None,
        started: has_job.then(|| at(1)),
        ended: over(3),
    }
}

pub(crate) fn fanout(state: FanOutStateName, clusters: Vec<Child>) -> FanOut {
    let mut counts = ChildCounts::default();
    clusters.iter().for_each(|child| counts.add(child.state, 1));
    FanOut {
        id: FANOUT.parse().unwrap(),
        spec: spec(),
        secrets: Vec::new(),
        submitted_by: "local".into(),
        submitted: at(0),
        state,
        reason: None,
        cancelled_by: None,
        ended: state.is_over().then(|| at(9)),
        limits: FanOutLimits {
            clusters: counts.all(),
            canaries: 0,
            concurrency: counts.all(),
            max_failures: None,
        },
        allowed: counts.all(),
        counts,
        round: 0,
        version: 1,
        clusters,
        story: Vec::new(),
    }
}

fn plan(clusters: &[&str]) -> FanOutPlan {
    let count = u32::try_from(clusters.len()).unwrap();
    FanOutPlan {
        limits: FanOutLimits {
            clusters: count,
            canaries: 0,
            concurrency: count,
            max_failures: None,
        },
        clusters: clusters
            .iter()
            .map(|name| PlannedChild {
                cluster: name.parse().unwrap(),
                canary: false,
                offline: None,
                refusal: None,
            })
            .collect(),
    }
}

/// The job of a cluster.
fn of(number: usize, name: &str, job: Job) -> Job {
    Job {
        id: job_id(number),
        cluster: name.parse().unwrap(),
        ..job
    }
}

/// All events of the job of a cluster that prints this and exits with a code.
pub(crate) fn stream(number: usize, name: &str, code: u8, printed: &Printed) -> Vec<Piece> {
    let mut pieces = vec![job_event(0, of(number, name, running()))];
    pieces.extend(printed.events());
    pieces.push(end_event(of(number, name, ended(code, printed))));
    pieces
}

pub(crate) fn events(number: usize) -> String {
    format!("GET /v1/jobs/{}/events", job_id(number))
}

/// A bed whose next fan-out has these clusters, first running and then as they are here; each prints this.
pub(crate) fn bed(last: &FanOut, printed: &[(u8, Printed)]) -> Bed {
    let bed = Bed::new();
    let names: Vec<_> = last
        .clusters
        .iter()
        .map(|child| child.cluster.as_str())
        .collect();
    bed.stub.on(
        "POST /v1/fanouts/plan",
        vec![Answer::json(200, &plan(&names))],
    );
    let begun = last.clusters.iter().cloned().map(|child| Child {
        state: match child.job {
            Some(_) => ChildStateName::Running,
            None => ChildStateName::Pending,
        },
        job_state: child.job.map(|_| StateName::Running),
        exit_code: None,
        ended: None,
        ..child
    });
    let begun = fanout(FanOutStateName::Running, begun.collect());
    let submitted = FanOut {
        clusters: Vec::new(),
        ..begun.clone()
    };
    bed.stub
        .on("POST /v1/fanouts", vec![Answer::json(202, &submitted)]);
    let last = FanOut {
        version: 2,
        ..last.clone()
    };
    bed.stub.on(
        &route("GET", ""),
        vec![Answer::json(200, &begun), Answer::json(200, &last)],
    );
    for (number, (code, printed)) in printed.iter().enumerate() {
        let name = names[number];
        bed.stub.on(
            &events(number),
            vec![Answer::events(stream(number, name, *code, printed))],
        );
    }
    bed
}

pub(crate) fn shown(bed: &Bed, arguments: &[&str]) -> String {
    without_ids(&bed.transcript(arguments))
}

pub(crate) fn without_ids(text: &str) -> String {
    text.replace(FANOUT, "[FANOUT]")
}

/// Lines of clusters come as they come: for a snapshot, each cluster's together.
fn sorted(shown: &str) -> String {
    let mut lines: Vec<_> = shown.lines().collect();
    let name = |line: &str| line.split(" | ").next().unwrap_or_default().to_owned();
    lines.sort_by_key(|line| match line.contains(" | ") {
        true => (1, name(line)),
        false => (0, String::new()),
    });
    lines.join("\n")
}

fn two(last: FanOutStateName, states: [ChildStateName; 2]) -> FanOut {
    let clusters = vec![
        child(0, "edge-1", states[0]),
        child(1, "prod-eu", states[1]),
    ];
    fanout(last, clusters)
}

const READ: &str = "kubectl get nodes -o name";

#[test]
fn every_line_is_whole_and_behind_the_name_of_its_cluster() {
    let succeeded = [ChildStateName::Succeeded; 2];
    let last = two(FanOutStateName::Succeeded, succeeded);
    let one = Printed::nothing()
        .out("node/")
        .err("warn")
        .out("a\nnode/b\nno ")
        .err("ing\n")
        .out("newline");
    let other = Printed::nothing().out("\nnode/c\n").err("\u{1b}[31mred\n");
    let bed = bed(&last, &[(0, one), (0, other)]);
    let output = run(bed.invoke(&["-l", "env=prod", READ]));
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_snapshot!(sorted(&stdout), @"
    edge-1  | node/a
    edge-1  | node/b
    edge-1  | no newline
    prod-eu | 
    prod-eu | node/c
    ");
    let stderr = without_ids(&String::from_utf8(output.stderr).unwrap());
    assert_snapshot!(sorted(&stderr), @"
    invoke: these are 2 clusters
    CLUSTER   NOTE
    edge-1
    prod-eu
    invoke: fan-out [FANOUT]
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-1    succeeded   0      2.0s
    prod-eu   succeeded   0      2.0s
    invoke: fan-out [FANOUT]: 2 of 2 clusters succeeded
    edge-1  | warning
    prod-eu | [31mred
    ");
}

#[test]
fn what_was_asked_for_is_sent() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let bed = bed(&last, &[(0, Printed::nothing()), (0, Printed::nothing())]);
    let mut command = bed.invoke(&[
        "-l",
        "env=prod,tier!=edge",
        "--canary",
        "edge-1",
        "--concurrency",
        "10%",
        "--ramp",
        "--max-failures",
        "2",
        "--on-stop",
        "cancel",
        "--if-offline",
        "skip",
        "--yes",
        "--profile",
        "deploy",
        "--run-timeout",
        "90s",
        "--secret",
        "TOKEN",
        "--no-wait",
        "helm upgrade",
    ]);
    command
        .env("TOKEN", "hunter2")
        .env("INVOKE_CLUSTER", "prod-eu");
    let shown = without_ids(&bed.show(&run(command)));
    assert_snapshot!(shown, @"
    exit: 0
    --- stdout
    [FANOUT]
    --- stderr
    invoke: these are 2 clusters; one more with each success
    CLUSTER   NOTE
    edge-1
    prod-eu
    ");
    let body = |route: &str| -> Value {
        let seen = bed.stub.seen(route);
        assert_eq!(seen.len(), 1);
        serde_json::from_slice(&seen[0].body).unwrap()
    };
    insta::assert_json_snapshot!(body("POST /v1/fanouts/plan"), @r#"
    {
      "canary": [
        "edge-1"
      ],
      "concurrency": "10%",
      "if_offline": "skip",
      "job": {
        "command": {
          "shell": "helm upgrade"
        },
        "profile": "deploy",
        "run_timeout_seconds": 90
      },
      "max_failures": 2,
      "on_stop": "cancel",
      "ramp": true,
      "selector": "env=prod,tier!=edge"
    }
    "#);
    let submitted = body("POST /v1/fanouts");
    assert_eq!(
        submitted["expected"],
        serde_json::json!(["edge-1", "prod-eu"])
    );
    assert_eq!(submitted["job"]["secrets"]["TOKEN"], "hunter2");
    let key = bed.stub.seen("POST /v1/fanouts")[0]
        .header("idempotency-key")
        .len();
    assert_eq!(key, 36);
}

/// Who is shown other clusters than it would be by now is told, and nothing is run.
#[test]
fn clusters_that_have_changed_since_are_refused() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let bed = bed(&last, &[]);
    let detail = "the selector matches edge-2 too now: look again";
    bed.stub.on(
        "POST /v1/fanouts",
        vec![Answer::problem(ProblemCode::ClustersChanged, detail)],
    );
    assert_snapshot!(shown(&bed, &["-l", "env=prod", READ]), @"
    exit: 240
    --- stderr
    invoke: these are 2 clusters
    CLUSTER   NOTE
    edge-1
    prod-eu
    invoke: the selector matches edge-2 too now: look again
    ");
}

#[test]
fn a_command_that_may_write_needs_a_yes() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let bed = bed(&last, &[(0, Printed::nothing()), (0, Printed::nothing())]);
    assert_snapshot!(shown(&bed, &["-l", "env=prod", "./migrate.sh"]), @"
    exit: 240
    --- stderr
    invoke: these are 2 clusters
    CLUSTER   NOTE
    edge-1
    prod-eu
    invoke: it would run on 2 clusters, is not known to only read, and there is nobody to ask
    invoke: hint: --yes runs it; --dry-run shows what it would be
    ");
    assert!(bed.stub.seen("POST /v1/fanouts").is_empty());
    let json = shown(&bed, &["-o", "json", "-l", "env=prod", "./migrate.sh"]);
    assert!(json.starts_with("exit: 240\n--- stderr\n"), "{json}");
    assert!(shown(&bed, &["-l", "env=prod", "-y", "./migrate.sh"]).starts_with("exit: 0\n"));
    // One cluster is no more than without a selector.
    let one = fanout(
        FanOutStateName::Succeeded,
        vec![child(0, "edge-1", ChildStateName::Succeeded)],
    );
    let bed = self::bed(&one, &[(0, Printed::nothing())]);
    assert!(shown(&bed, &["-l", "env=prod", "./migrate.sh"]).starts_with("exit: 0\n"));
}

#[test]
fn on_a_terminal_it_asks() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let bed = bed(&last, &[(0, Printed::nothing()), (0, Printed::nothing())]);
    for no in [&b"\n"[..], b"n\n", b"\x03", b"\x04"] {
        let mut terminal = Terminal::open(&bed, "-l env=prod ./migrate.sh");
        terminal.await_text("run on 2 clusters? [y/N]");
        terminal.type_keys(no);
        let (code, rest) = terminal.end();
        assert_eq!(code, Some(130), "{rest}");
        assert!(rest.contains("nothing was submitted"), "{rest}");
    }
    assert!(bed.stub.seen("POST /v1/fanouts").is_empty());
    let mut terminal = Terminal::open(&bed, "-l env=prod ./migrate.sh");
    terminal.await_text("run on 2 clusters? [y/N]");
    terminal.type_keys(b"y\n");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
}

#[test]
fn a_dry_run_shows_what_it_would_be_and_runs_nothing() {
    let bed = Bed::new();
    let mut plan = plan(&["edge-1", "edge-2", "edge-3"]);
    plan.clusters[0].canary = true;
    plan.clusters[1].offline = Some("offline for 3 min".into());
    plan.clusters[2].refusal = Some(ChildRefusal {
        code: ProblemCode::UnknownProfile,
        message: "cluster edge-3 has no profile deploy\u{1b}[2J".into(),
    });
    bed.stub
        .on("POST /v1/fanouts/plan", vec![Answer::json(200, &plan)]);
    assert_snapshot!(shown(&bed, &["-l", "env=prod", "--dry-run", "./migrate.sh"]), @"
    exit: 0
    --- stdout
    CLUSTER   NOTE
    edge-1    canary
    edge-2    offline for 3 min
    edge-3    would be refused: cluster edge-3 has no profile deploy^[[2J
    ");
    let json = run(bed.invoke(&["-o", "json", "-l", "env=prod", "--dry-run", "./x"]));
    let json: FanOutPlan = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json, plan);
    assert!(bed.stub.seen("POST /v1/fanouts").is_empty());
}

#[test]
fn the_plan_says_what_holds_it_back() {
    let bed = Bed::new();
    let mut plan = plan(&["edge-1", "edge-2", "edge-3"]);
    plan.limits = FanOutLimits {
        clusters: 3,
        canaries: 1,
        concurrency: 2,
        max_failures: Some(1),
    };
    bed.stub
        .on("POST /v1/fanouts/plan", vec![Answer::json(200, &plan)]);
    let shown = shown(&bed, &["-l", "env=prod", "--ramp", "./migrate.sh"]);
    let sentence = shown.lines().nth(2).unwrap();
    assert_snapshot!(sentence, @"invoke: these are 3 clusters; the canary first; at most 2 at once; one more with each success; it stops when 2 have failed");
}

/// What each cluster came to, and 0 only for what succeeded.
#[test]
fn the_end_is_a_table_and_a_code() {
    use ChildStateName as Child;
    let end = |state, states: &[Child]| {
        let mut clusters: Vec<_> = states
            .iter()
            .enumerate()
            .map(|(number, state)| child(number, &format!("edge-{number}"), *state))
            .collect();
        for child in &mut clusters {
            child.reason = match child.state {
                Child::Refused => Some("it has no profile deploy".into()),
                Child::Offline => Some("it has been offline for 3 min".into()),
                Child::Skipped => Some("it is offline".into()),
                _ => None,
            };
        }
        let mut last = fanout(state, clusters);
        if state == FanOutStateName::Stopped {
            last.reason = Some(StopReason {
                code: StopCode::TooManyFailures,
                message: "2 clusters have failed, and 1 may".into(),
            });
        }
        if state == FanOutStateName::Cancelled {
            last.cancelled_by = Some("alice".into());
        }
        let printed: Vec<_> = states
            .iter()
            .map(|state| match state {
                Child::Failed => (7, Printed::nothing().err("\nError: no\nmore\n")),
                _ => (0, Printed::nothing()),
            })
            .collect();
        let shown = shown(&bed(&last, &printed), &["-l", "env=prod", READ]);
        // From the table on.
        let code = shown.lines().next().unwrap().to_owned();
        let table = shown.rfind("CLUSTER").unwrap();
        format!("{code}\n{}\n", &shown[table..])
    };
    let ends = [
        end(
            FanOutStateName::Incomplete,
            &[
                Child::Succeeded,
                Child::Failed,
                Child::Refused,
                Child::Offline,
                Child::Skipped,
            ],
        ),
        end(
            FanOutStateName::Stopped,
            &[Child::Failed, Child::Failed, Child::NotStarted],
        ),
        end(
            FanOutStateName::Succeeded,
            &[Child::Succeeded, Child::Skipped],
        ),
        end(
            FanOutStateName::Incomplete,
            &[Child::Skipped, Child::Skipped],
        ),
        end(
            FanOutStateName::Cancelled,
            &[Child::Succeeded, Child::NotStarted],
        ),
    ];
    assert_snapshot!(ends.join("\n"), @"
    exit: 1
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-0    succeeded   0      2.0s
    edge-1    failed      7      2.0s   Error: no
    edge-2    refused     -      -      it has no profile deploy
    edge-3    offline     -      -      it has been offline for 3 min
    edge-4    skipped     -      -      it is offline
    invoke: fan-out [FANOUT]: 1 of 5 clusters succeeded, 1 failed, 1 refused, 1 offline, 1 skipped
    invoke: hint: `invoke fanouts [FANOUT] retry-failed` tries again what has failed


    exit: 1
    CLUSTER   STATE         EXIT   TIME   WHY
    edge-0    failed        7      2.0s   Error: no
    edge-1    failed        7      2.0s   Error: no
    edge-2    not started   -      -
    invoke: fan-out [FANOUT]: 0 of 3 clusters succeeded, 2 failed, 1 not started; it stopped: 2 clusters have failed, and 1 may
    invoke: hint: `invoke fanouts [FANOUT] resume` goes on with the rest, `invoke fanouts [FANOUT] retry-failed` also tries again what has failed


    exit: 0
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-0    succeeded   0      2.0s
    edge-1    skipped     -      -      it is offline
    invoke: fan-out [FANOUT]: 1 of 2 clusters succeeded, 1 skipped


    exit: 1
    CLUSTER   STATE     EXIT   TIME   WHY
    edge-0    skipped   -      -      it is offline
    edge-1    skipped   -      -      it is offline
    invoke: fan-out [FANOUT]: 0 of 2 clusters succeeded, 2 skipped


    exit: 245
    CLUSTER   STATE         EXIT   TIME   WHY
    edge-0    succeeded     0      2.0s
    edge-1    not started   -      -
    invoke: fan-out [FANOUT]: 1 of 2 clusters succeeded, 1 not started; alice cancelled it
    ");
}

/// Those beyond the bound are followed when others end, from their first byte on.
#[test]
fn no_more_are_followed_at_once_than_a_connection_has_room_for() {
    let names: Vec<_> = (0..70).map(|number| format!("edge-{number}")).collect();
    let clusters = names
        .iter()
        .enumerate()
        .map(|(number, name)| child(number, name, ChildStateName::Succeeded))
        .collect();
    let last = fanout(FanOutStateName::Succeeded, clusters);
    let bed = bed(&last, &[]);
    for (number, name) in names.iter().enumerate() {
        let printed = Printed::nothing().out(format!("{number} begins\n"));
        let mut pieces = stream(number, name, 0, &printed);
        pieces.insert(2, Piece::Pause(Duration::from_secs(1)));
        bed.stub.on(&events(number), vec![Answer::events(pieces)]);
    }
    let output = run(bed.invoke(&["-l", "env=prod", READ]));
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    for (number, name) in names.iter().enumerate() {
        let line = format!("{name:7} | {number} begins");
        assert!(stdout.lines().any(|shown| shown == line), "{line}");
    }
    assert_eq!(stdout.lines().count(), 70);
    assert_eq!(bed.stub.most_open(), 64);
}

/// Stored output comes in large pieces: few of them are in memory at once, however many clusters there are.
#[test]
fn pieces_of_stored_output_are_taken_in_turns() {
    let names: Vec<_> = (0..12).map(|number| format!("edge-{number}")).collect();
    let children = names.iter().enumerate();
    let children = children
        .map(|(number, name)| child(number, name, ChildStateName::Succeeded))
        .collect();
    let bed = bed(&fanout(FanOutStateName::Succeeded, children), &[]);
    let printed = Printed::nothing().out("stored\n");
    bed.stub.with_log(printed.log());
    let slow = Answer::slow_log(Duration::from_millis(500));
    for (number, name) in names.iter().enumerate() {
        let log_bytes = printed.log().len() as u64;
        let pieces = vec![
            job_event(0, of(number, name, running())),
            event(0, &JobEvent::Stored { log_bytes }),
            end_event(of(number, name, ended(0, &printed))),
        ];
        // Whole: only what is slow is counted.
        let pieces = pieces.into_iter().flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            _ => Vec::new(),
        });
        bed.stub.on(
            &events(number),
            vec![Answer::whole_events(pieces.collect())],
        );
        let output = format!("GET /v1/jobs/{}/output", job_id(number));
        bed.stub.on(&output, vec![slow.clone()]);
    }
    let output = run(bed.invoke(&["-l", "env=prod", READ]));
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.matches("| stored\n").count(), 12);
    assert_eq!(bed.stub.most_open(), 4);
}

/// A plan changes nothing, so it is asked for again.
#[test]
fn a_plan_outlasts_an_outage() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let bed = bed(&last, &[(0, Printed::nothing()), (0, Printed::nothing())]);
    bed.stub.on(
        "POST /v1/fanouts/plan",
        vec![
            Answer::cut(),
            Answer::problem(ProblemCode::Unavailable, "restarting"),
            Answer::json(200, &plan(&["edge-1", "prod-eu"])),
        ],
    );
    let mut command = bed.invoke(&["-l", "env=prod", READ]);
    command.env("INVOKE_RETRY_FOR", "5s");
    let shown = bed.show(&run(command));
    assert!(shown.starts_with("exit: 0\n"), "{shown}");
    assert_eq!(shown.matches("; trying again").count(), 1, "{shown}");
}

/// A stream that breaks goes on where it was, and the dispatcher's absence is told once for all.
#[test]
fn an_outage_loses_nothing_and_is_told_once() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let printed = Printed::nothing().out("one\ntw").out("o\nthree\n");
    let bed = bed(&last, &[]);
    for (number, name) in ["edge-1", "prod-eu"].into_iter().enumerate() {
        let whole = stream(number, name, 0, &printed);
        let cut = [&whole[..2], &[Piece::Cut]].concat();
        bed.stub.on(
            &events(number),
            vec![Answer::events(cut), Answer::events(whole)],
        );
    }
    let running = two(FanOutStateName::Running, [ChildStateName::Running; 2]);
    bed.stub.on(
        &route("GET", ""),
        vec![
            Answer::json(200, &running),
            Answer::cut(),
            Answer::problem(ProblemCode::Unavailable, "restarting"),
            Answer::json(200, &FanOut { version: 2, ..last }),
        ],
    );
    let mut command = bed.invoke(&["-l", "env=prod", READ]);
    command.env("INVOKE_RETRY_FOR", "5s");
    let output = run(command);
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_snapshot!(sorted(&stdout), @"
    edge-1  | one
    edge-1  | two
    edge-1  | three
    prod-eu | one
    prod-eu | two
    prod-eu | three
    ");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches("reconnecting").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("reconnected").count(), 1, "{stderr}");
}

/// stdout and stderr may be one pipe, which takes little at once.
#[test]
fn a_line_is_never_mixed_with_anothers() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let line = |letter: u8| [vec![letter; 40_000], vec![b'\n']].concat();
    let out = (0..20).fold(Printed::nothing(), |printed, _| printed.out(line(b'o')));
    let err = (0..20).fold(Printed::nothing(), |printed, _| printed.err(line(b'e')));
    let bed = bed(&last, &[(0, out), (0, err)]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bed.invoke(&["-l", "env=prod", READ]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    // What holds the other end of the pipe.
    drop(command);
    // Slowly: both streams have something to write all the time.
    let (mut all, mut piece) = (Vec::new(), [0; 2048]);
    loop {
        match std::io::Read::read(&mut reader, &mut piece).unwrap() {
            0 => break,
            length => all.extend_from_slice(&piece[..length]),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let all = String::from_utf8(all).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines = all.lines().filter(|line| line.contains(" | "));
    let mut count = 0;
    for line in lines {
        let (name, text) = line.split_once(" | ").unwrap();
        let letter = if name == "edge-1 " { 'o' } else { 'e' };
        let is_whole = text.len() == 40_000 && text.chars().all(|other| other == letter);
        assert!(is_whole, "{name}: {} bytes", text.len());
        count += 1;
    }
    assert_eq!(count, 40);
}

/// Whoever reads the output may be slow. That it has been stopped is said all the same.
#[test]
fn unread_output_holds_up_no_news() {
    let names = ["a", "b", "c", "d"];
    let children = |state| {
        let names = names.iter().enumerate();
        names
            .map(|(number, name)| child(number, name, state))
            .collect()
    };
    let running = fanout(FanOutStateName::Running, children(ChildStateName::Running));
    let bed = bed(&running, &[]);
    let piece = [vec![b'x'; 100_000], vec![b'\n']].concat();
    let much = (0..40).fold(Printed::nothing(), |printed, _| printed.out(&piece));
    for (number, name) in names.iter().enumerate() {
        let much = stream(number, name, 0, &much);
        bed.stub.on(&events(number), vec![Answer::events(much)]);
    }
    let stopping = FanOut {
        cancelled_by: Some("alice".into()),
        version: 3,
        ..fanout(
            FanOutStateName::Cancelling,
            children(ChildStateName::Running),
        )
    };
    let mut child = spawn(bed.invoke(&["-l", "env=prod", READ]));
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    // More than a connection takes before somebody reads it.
    while bed.stub.bytes_taken() < 6_000_000 {
        std::thread::yield_now();
    }
    bed.stub
        .on(&route("GET", ""), vec![Answer::json(200, &stopping)]);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let said = stderr
        .lines()
        .map(Result::unwrap)
        .find(|line| line.contains("alice asked for it to be cancelled"));
    assert!(said.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What one cluster printed is not had: the others go on, and it is no success.
#[test]
fn output_that_is_wrong_is_no_success() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let good = Printed::nothing().out("good\n");
    let bed = bed(&last, &[(0, good.clone()), (0, good.clone())]);
    let mut wrong = stream(1, "prod-eu", 0, &good);
    wrong.splice(1..2, Printed::nothing().out("evil\n").events());
    bed.stub.on(&events(1), vec![Answer::events(wrong)]);
    let shown = shown(&bed, &["-l", "env=prod", READ]);
    assert!(shown.starts_with("exit: 249\n"), "{shown}");
    assert!(shown.contains("edge-1  | good\n"), "{shown}");
    assert!(
        shown.contains("invoke: cluster prod-eu: OUTPUT IS WRONG: stdout came to 5 bytes"),
        "{shown}"
    );
}

/// Whoever reads the output has gone, as in `| head -1`.
#[test]
fn a_reader_who_leaves_ends_it_quietly() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let lines = (0..20).fold(Printed::nothing(), |printed, _| {
        printed.out([vec![b'x'; 8192], vec![b'\n']].concat())
    });
    let bed = bed(&last, &[(0, lines.clone()), (0, lines)]);
    let mut command = bed.invoke(&["-l", "env=prod", READ]);
    command.stderr(std::process::Stdio::null());
    let mut child = spawn(command);
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(141));
}

#[test]
fn what_is_the_same_is_shown_once() {
    let names = ["edge-1", "edge-2", "prod-eu", "quiet"];
    let clusters = names
        .iter()
        .enumerate()
        .map(|(number, name)| child(number, name, ChildStateName::Succeeded))
        .collect();
    let last = fanout(FanOutStateName::Succeeded, clusters);
    let same = Printed::nothing().out("v1.33\n");
    // Cut elsewhere, and longer than what is kept in memory.
    let long = "x".repeat(40_000);
    let printed = [
        (0, same.clone().out(&long).err("warning")),
        (
            0,
            Printed::nothing()
                .err("warning")
                .out("v1.3")
                .out(format!("3\n{long}")),
        ),
        (0, same.err("other\n")),
        (0, Printed::nothing()),
    ];
    let bed = bed(&last, &printed);
    let shown = shown(&bed, &["-l", "env=prod", "--group", READ]);
    assert_snapshot!(shown.replace(&long, "[LONG]"), @"
    exit: 0
    --- stdout
    --- edge-1 edge-2 (2 clusters)
    v1.33
    [LONG]
    --- prod-eu
    v1.33
    --- stderr
    invoke: these are 4 clusters
    CLUSTER   NOTE
    edge-1
    edge-2
    prod-eu
    quiet
    invoke: fan-out [FANOUT]
    --- edge-1 edge-2 (2 clusters), stderr
    warning
    --- prod-eu, stderr
    other
    CLUSTER   STATE       EXIT   TIME   WHY
    edge-1    succeeded   0      2.0s
    edge-2    succeeded   0      2.0s
    prod-eu   succeeded   0      2.0s
    quiet     succeeded   0      2.0s
    invoke: fan-out [FANOUT]: 4 of 4 clusters succeeded
    ");
}

/// A document has every cluster with what it printed.
#[test]
fn a_document_has_everything() {
    let mut last = two(
        FanOutStateName::Incomplete,
        [ChildStateName::Succeeded, ChildStateName::Failed],
    );
    let mut refused = child(2, "refused", ChildStateName::Refused);
    refused.refusal = Some(ProblemCode::UnknownProfile);
    last.clusters.push(refused);
    let bed = bed(
        &last,
        &[
            (0, Printed::nothing().out("one\n")),
            (7, Printed::nothing().err(b"\xff")),
        ],
    );
    let output = run(bed.invoke(&["-o", "json", "-l", "env=prod", READ]));
    assert_eq!(transcript(&output).lines().next(), Some("exit: 1"));
    assert!(output.stderr.is_empty());
    assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

const CTRL_C: &[u8] = b"\x03";

fn endless() -> Bed {
    let last = two(FanOutStateName::Running, [ChildStateName::Running; 2]);
    let bed = bed(&last, &[]);
    for (number, name) in ["edge-1", "prod-eu"].into_iter().enumerate() {
        let mut pieces = stream(number, name, 0, &Printed::nothing().out("begun\n"));
        pieces.pop();
        pieces.push(Piece::Silence);
        bed.stub.on(&events(number), vec![Answer::events(pieces)]);
    }
    bed
}

#[test]
fn without_a_terminal_a_signal_detaches() {
    let bed = endless();
    let mut child = spawn(bed.invoke(&["-l", "env=prod", READ]));
    let mut line = [0; 15];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(248));
    let stderr = without_ids(&String::from_utf8(output.stderr).unwrap());
    let end: Vec<_> = stderr.lines().rev().take(2).collect();
    assert_snapshot!(end.join("\n"), @"
    invoke: hint: `invoke fanouts [FANOUT] follow` follows it again, `invoke fanouts [FANOUT] cancel` stops it
    invoke: detached; fan-out [FANOUT] goes on
    ");
    assert!(bed.stub.seen(&route("POST", "/cancel")).is_empty());
}

#[test]
fn on_a_terminal_ctrl_c_asks() {
    let bed = endless();
    let mut terminal = Terminal::open(&bed, &format!("-l env=prod '{READ}'"));
    terminal.await_text("begun");
    terminal.type_keys(CTRL_C);
    terminal.await_text("detach (d), cancel it on all clusters (c) or go on (Enter)?");
    terminal.type_keys(b"\n");
    terminal.await_text("going on");
    terminal.type_keys(CTRL_C);
    terminal.await_text("(Enter)?");
    terminal.type_keys(b"d\n");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(248), "{rest}");
    assert!(
        rest.contains(&format!("fan-out {FANOUT} goes on")),
        "{rest}"
    );
    assert!(bed.stub.seen(&route("POST", "/cancel")).is_empty());
}

/// The answer is for all of it, and it is followed to its end.
#[test]
fn on_a_terminal_all_of_it_can_be_cancelled() {
    let bed = endless();
    for number in 0..2 {
        let printed = Printed::nothing().out("begun\n");
        let over = Job {
            state: StateName::Cancelled,
            cancelled_by: Some("local".into()),
            ..of(number, "edge-1", ended(143, &printed))
        };
        let mut pieces = stream(number, "edge-1", 0, &printed);
        pieces.pop();
        pieces.extend([Piece::Pause(Duration::from_secs(2)), end_event(over)]);
        bed.stub.on(&events(number), vec![Answer::events(pieces)]);
    }
    let cancelled = FanOut {
        cancelled_by: Some("local".into()),
        version: 3,
        ..two(FanOutStateName::Cancelled, [ChildStateName::Cancelled; 2])
    };
    bed.stub.on(
        &route("POST", "/cancel"),
        vec![Answer::json(202, &cancelled)],
    );
    let mut terminal = Terminal::open(&bed, &format!("-l env=prod '{READ}'"));
    terminal.await_text("begun");
    terminal.type_keys(CTRL_C);
    terminal.await_text("(Enter)?");
    bed.stub
        .on(&route("GET", ""), vec![Answer::json(200, &cancelled)]);
    terminal.type_keys(b"c\n");
    terminal.await_text("to be cancelled");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(245), "{rest}");
    assert_eq!(bed.stub.seen(&route("POST", "/cancel")).len(), 1);
}

/// On a terminal there is a progress until something is printed, a name has its colour, and what a cluster prints
/// cannot act.
#[test]
fn a_terminal_sees_colours_and_is_safe() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let evil = Printed::nothing().out("\u{1b}]0;title\u{7}\u{1b}[31mred\n");
    let bed = bed(&last, &[(0, evil), (0, Printed::nothing())]);
    let line = format!("-l env=prod '{READ}'");
    let (code, screen) = Terminal::open(&bed, &line).end();
    assert_eq!(code, Some(0), "{screen}");
    let progress = "\r\u{1b}[2Kinvoke: 0 of 2 clusters succeeded, 2 running\r\u{1b}[2K";
    assert!(screen.contains(progress), "{screen:?}");
    let shown = screen.lines().find(|line| line.contains("title"));
    let shown = shown.and_then(|line| line.rsplit("\u{1b}[2K").next());
    assert_snapshot!(shown.unwrap().replace('\u{1b}', "␛"), @"␛[32medge-1 ␛[0m | ^[]0;title^G␛[31mred␛[0m");
}

/// Who sees no colours asked for none, and is sent none of ours.
#[test]
fn names_have_no_colours_where_none_are_wanted() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let plain = Printed::nothing().out("plain\n");
    let bed = bed(&last, &[(0, plain.clone()), (0, plain)]);
    let line = format!("-l env=prod '{READ}'");
    let (_, screen) = Terminal::with(&bed, &line, &[("NO_COLOR", "1")]).end();
    assert!(screen.contains("edge-1  | plain\r\n"), "{screen:?}");
    let (_, screen) = Terminal::with(&bed, &line, &[("NO_COLOR", "")]).end();
    assert!(!screen.contains("edge-1  | plain"), "{screen}");
}

/// While output is kept for the end, a person sees how far it is.
#[test]
fn on_a_terminal_groups_come_with_a_progress() {
    let last = two(FanOutStateName::Succeeded, [ChildStateName::Succeeded; 2]);
    let same = Printed::nothing().out("same\n");
    let bed = bed(&last, &[(0, same.clone()), (0, same)]);
    let line = format!("-l env=prod --group '{READ}'");
    let (code, screen) = Terminal::open(&bed, &line).end();
    assert_eq!(code, Some(0), "{screen}");
    let progress = "\r\x1b[2Kinvoke: 0 of 2 clusters succeeded, 2 running\r\x1b[2K";
    assert!(screen.contains(progress), "{screen:?}");
    assert!(
        screen.contains("--- edge-1 prod-eu (2 clusters)\r\nsame\r\n"),
        "{screen}"
    );
}

#[test]
fn options_of_many_need_a_selector() {
    let bed = Bed::new();
    let mut lines: Vec<String> = [
        &["--canary", "a"][..],
        &["--concurrency", "2"],
        &["--ramp"],
        &["--max-failures", "1"],
        &["--on-stop", "cancel"],
        &["--if-offline", "skip"],
        &["--yes"],
        &["--dry-run"],
        &["--group"],
    ]
    .into_iter()
    .map(|option| bed.transcript(&[option, &["ls"]].concat()))
    .collect();
    lines.push(bed.transcript(&["-l", "env=prod", "-c", "demo", "ls"]));
    lines.push(bed.transcript(&["-l", "env=prod", "--stdin", "cat"]));
    lines.push(bed.transcript(&["-l", "env=prod", "-f", "-", "cat"]));
    lines.push(bed.transcript(&["-l", "", "cat"]));
    lines.push(bed.transcript(&["-l", "env=prod", "--concurrency", "0%", "cat"]));
    lines.push(bed.transcript(&["-l", "env=prod", "jobs"]));
    assert_snapshot!(lines.join(""), @"
    exit: 240
    --- stderr
    invoke: --canary is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --concurrency is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --ramp is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --max-failures is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --on-stop is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --if-offline skip is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --yes is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --dry-run is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --group is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: the argument '--selector <SELECTOR>' cannot be used with '--cluster <NAME>'
    invoke: hint: `invoke --help` shows how it is written
    exit: 240
    --- stderr
    invoke: the commands of many clusters cannot share one stdin
    invoke: hint: attach what they read as a file: -f FILE, and `command < FILE`
    exit: 240
    --- stderr
    invoke: the commands of many clusters cannot share one stdin
    invoke: hint: attach what they read as a file: -f FILE, and `command < FILE`
    exit: 240
    --- stderr
    invoke: invalid value '' for '--selector <SELECTOR>': the selector is empty, which would be every cluster: say which, such as env=prod; a label that all of them have, such as env, selects all
    invoke: hint: `invoke --help` shows how it is written
    exit: 240
    --- stderr
    invoke: invalid value '0%' for '--concurrency <COUNT|PERCENT%>': 0% would let no cluster run: write a number from 1, or a percentage from 1% to 100%
    invoke: hint: `invoke --help` shows how it is written
    exit: 240
    --- stderr
    invoke: --selector before a subcommand means nothing
    invoke: hint: `invoke help SUBCOMMAND` shows whether it has --selector of its own
    ");
    assert!(bed.stub.seen("POST*").is_empty());
}

#[test]
fn single_jobs_are_not_touched() {
    let bed = Bed::new();
    bed.stub.on(
        "POST /v1/jobs",
        vec![Answer::json(202, &crate::fixtures::queued())],
    );
    bed.stub.on(
        &crate::fixtures::route("GET", "/events"),
        vec![Answer::events(whole_stream(
            0,
            &Printed::nothing().out("x"),
        ))],
    );
    assert_eq!(bed.transcript(&["./migrate.sh"]), "exit: 0\n--- stdout\nx");
}
