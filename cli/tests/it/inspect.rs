//! `result`, `logs`, `jobs`.

use insta::assert_snapshot;
use invoke_protocol::api::JobList;
use invoke_protocol::command::Command;
use invoke_protocol::job::{Job, Step, StepName};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::TickReference;
use invoke_protocol::state::{Reason, ReasonCode};
use serde_json::Value;

use crate::fixtures::{ID, Printed, ended, queued, route, running, whole_stream};
use crate::program::{Bed, run};
use crate::stub::Answer;

/// A bed with a job that is known, and its stored output.
fn with_job(job: &Job, printed: &Printed) -> Bed {
    let bed = Bed::new();
    bed.stub.on(&route("GET", ""), vec![Answer::json(200, job)]);
    bed.stub
        .with_log(printed.log())
        .on(&route("GET", "/output"), vec![Answer::log()]);
    bed
}

#[test]
fn a_result_is_the_stored_output_and_the_code() {
    let printed = Printed::nothing()
        .out("pods\n")
        .err("warning\n")
        .out(b"\xff\n");
    let bed = with_job(&ended(4, &printed), &printed);
    let output = run(bed.invoke(&["result", ID]));
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        (output.stdout, output.stderr),
        (b"pods\n\xff\n".to_vec(), b"warning\n".to_vec())
    );
    let document = run(bed.invoke(&["-o", "json", "result", ID]));
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["stdout_encoding"], "base64");
    assert_eq!(document["stderr"], "warning\n");
    assert_eq!(document["exit_code"], 4);
}

#[test]
fn a_result_waits_for_nothing() {
    let bed = with_job(&running(), &Printed::nothing());
    assert_snapshot!(bed.transcript(&["result", ID]), @"
    exit: 248
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 is not over: its state is running
    invoke: hint: `invoke logs -f 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` follows it to its end
    ");
}

#[test]
fn an_unknown_job_is_refused() {
    let bed = Bed::new();
    let detail = format!("there is no job {ID}, or you may not see it");
    let refusal = Answer::problem(ProblemCode::JobNotFound, &detail);
    bed.stub.on(&route("GET", ""), vec![refusal.clone()]);
    bed.stub.on(&route("GET", "/events"), vec![refusal.clone()]);
    bed.stub.on(&route("POST", "/cancel"), vec![refusal]);
    for line in [
        vec!["result", ID],
        vec!["logs", ID],
        vec!["logs", "-f", ID],
        vec!["jobs", ID],
        vec!["why", ID],
        vec!["cancel", ID],
    ] {
        assert_eq!(
            bed.transcript(&line),
            format!("exit: 240\n--- stderr\ninvoke: {detail}\n")
        );
    }
}

#[test]
fn logs_print_what_there_is_and_follow_on_demand() {
    let printed = Printed::nothing().out("so far\n");
    let mut job = running();
    job.log_bytes = printed.log().len() as u64;
    let bed = with_job(&job, &printed);
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(whole_stream(9, &printed))],
    );
    assert_eq!(
        bed.transcript(&["logs", ID]),
        "exit: 0\n--- stdout\nso far\n"
    );
    assert_eq!(
        bed.transcript(&["logs", "-f", ID]),
        "exit: 9\n--- stdout\nso far\n"
    );
    assert_snapshot!(bed.transcript(&["logs", "-o", "json", ID]), @"
    exit: 240
    --- stderr
    invoke: logs prints the command's output as it is, and has no JSON form
    invoke: hint: `invoke result -o json 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` prints one document
    ");
}

/// One row for each job, whatever its command is made of.
#[test]
fn jobs_are_listed_one_to_a_line() {
    let bed = Bed::new();
    let mut nasty = queued();
    nasty.command =
        Command::shell(format!("printf 'a\nb\u{1b}[2J' # {}", "x".repeat(100))).unwrap();
    let jobs = vec![nasty, running(), ended(1, &Printed::nothing())];
    bed.stub.on(
        "GET /v1/jobs",
        vec![Answer::json(200, &JobList { jobs, next: None })],
    );
    let shown = bed.transcript(&["jobs", "-c", "demo", "--limit", "3"]);
    let shown = without_ages(&shown);
    assert_snapshot!(shown, @r"
    exit: 0
    --- stdout
    ID                                     CLUSTER   PROFILE   STATE     EXIT   AGE    COMMAND
    0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   demo      default   queued    -      [AGE]   printf 'a\nb^[[2J' # xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
    0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   demo      default   running   -      [AGE]   kubectl get pods
    0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   demo      default   failed    1      [AGE]   kubectl get pods
    ");
    assert_eq!(
        bed.stub.seen("GET /v1/jobs")[0].query,
        "cluster=demo&limit=3"
    );
    let json = run(bed.invoke(&["jobs", "-o", "json"])).stdout;
    assert_eq!(
        serde_json::from_slice::<Value>(&json).unwrap()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

/// Ages grow with the calendar.
fn without_ages(shown: &str) -> String {
    let is_age = |word: &str| {
        word.strip_suffix('d')
            .is_some_and(|days| !days.is_empty() && days.bytes().all(|b| b.is_ascii_digit()))
    };
    let age = shown
        .split_whitespace()
        .find(|word| is_age(word))
        .unwrap_or("0d")
        .to_owned();
    shown.replace(&age, "[AGE]")
}

#[test]
fn no_jobs_are_no_empty_table() {
    let bed = Bed::new();
    bed.stub.on(
        "GET /v1/jobs",
        vec![Answer::json(
            200,
            &JobList {
                jobs: vec![],
                next: None,
            },
        )],
    );
    assert_snapshot!(bed.transcript(&["jobs"]), @"
    exit: 0
    --- stderr
    invoke: no jobs yet
    ");
}

#[test]
fn one_job_is_shown_in_detail() {
    let printed = Printed::nothing().out("pods\n");
    let job = Job {
        story: vec![submission()],
        ..ended(0, &printed)
    };
    let bed = with_job(&job, &printed);
    assert_snapshot!(bed.transcript(&["jobs", ID]), @"
    exit: 0
    --- stdout
    id            0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10
    cluster       demo
    profile       default
    command       kubectl get pods
    submitted by  local
    state         succeeded
    exit code     0
    started       yes
    output        complete: 5 bytes of stdout, 0 of stderr
    submitted     2026-05-28 20:26:40 UTC
    permitted     2026-05-28 20:26:42 UTC
    command began 2026-05-28 20:26:43 UTC
    command ended 2026-05-28 20:26:44 UTC
    over          2026-05-28 20:26:45 UTC
    runner        invoke-runner-0
    pod           4f1f3c9e-0a57-4d0b-8d3e-6f0a8b1c2d3e

    TIME (UTC)                BY      STEP        MESSAGE
    2026-05-28 20:26:40.000   local   submitted
    ");
    let document = run(bed.invoke(&["jobs", "-o", "json", ID]));
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["stdout"], "pods\n");
}

/// Who wonders where a job came from sees it, on the page and in the document.
#[test]
fn a_job_says_what_made_it() {
    let printed = Printed::nothing();
    let job = Job {
        tick: Some(TickReference {
            schedule: "vacuum".parse().unwrap(),
            instant: queued().times.submitted,
        }),
        fanout: Some(ID.parse().unwrap()),
        ..ended(0, &printed)
    };
    let bed = with_job(&job, &printed);
    let shown = bed.transcript(&["jobs", ID]);
    assert!(
        shown.contains(&format!(
            "\nfan-out       {ID}\nschedule      vacuum at 2026-05-28 20:26:40 UTC\n"
        )),
        "{shown}"
    );
    let document = run(bed.invoke(&["jobs", "-o", "json", ID])).stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["tick"]["schedule"], "vacuum");
    assert_eq!(document["fanout"], ID);
}

fn step(second: i64, by: &str, step: StepName, message: &str) -> Step {
    Step {
        at: queued().times.submitted + jiff::SignedDuration::from_millis(second * 1000 + 7),
        by: by.into(),
        step,
        message: message.into(),
    }
}

/// What every story begins with.
fn submission() -> Step {
    Step {
        at: queued().times.submitted,
        ..step(0, "local", StepName::Submitted, "")
    }
}

/// Who did what and when, in text and in JSON alike.
#[test]
fn a_job_tells_its_story() {
    let printed = Printed::nothing();
    let job = Job {
        retries: 1,
        reason: Some(Reason::new(
            ReasonCode::Exited,
            "the command exited with code 1",
        )),
        story: vec![
            submission(),
            step(1, "dispatcher", StepName::Published, ""),
            step(
                2,
                "runner demo/runner-0",
                StepName::Retried,
                "its pod was evicted:\nnode-1 is drained",
            ),
            step(
                9,
                "dispatcher",
                StepName::Ended,
                "the command exited with code 1",
            ),
        ],
        ..ended(1, &printed)
    };
    let bed = with_job(&job, &printed);
    assert_snapshot!(bed.transcript(&["jobs", ID]), @r"
    exit: 0
    --- stdout
    id            0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10
    cluster       demo
    profile       default
    command       kubectl get pods
    submitted by  local
    state         failed
    reason        the command exited with code 1
    retries       1
    exit code     1
    started       yes
    output        complete: 0 bytes of stdout, 0 of stderr
    submitted     2026-05-28 20:26:40 UTC
    permitted     2026-05-28 20:26:42 UTC
    command began 2026-05-28 20:26:43 UTC
    command ended 2026-05-28 20:26:44 UTC
    over          2026-05-28 20:26:45 UTC
    runner        invoke-runner-0
    pod           4f1f3c9e-0a57-4d0b-8d3e-6f0a8b1c2d3e

    TIME (UTC)                BY                     STEP           MESSAGE
    2026-05-28 20:26:40.000   local                  submitted
    2026-05-28 20:26:41.007   dispatcher             published
    2026-05-28 20:26:42.007   runner demo/runner-0   queued again   its pod was evicted:\nnode-1 is drained
    2026-05-28 20:26:49.007   dispatcher             over           the command exited with code 1
    ");
    let document = run(bed.invoke(&["jobs", "-o", "json", ID])).stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    insta::assert_json_snapshot!(document["story"][0], @r#"
    {
      "at": "2026-05-28T20:26:40Z",
      "by": "local",
      "message": "",
      "step": "submitted"
    }
    "#);
    assert_eq!(document["story"].as_array().unwrap().len(), 4);
}
