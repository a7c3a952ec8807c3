//! `schedule export` and `schedule apply`.

use std::io::Write as _;
use std::process::Stdio;

use insta::assert_snapshot;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{Schedule, ScheduleList, ScheduleSpec};

use crate::program::{Bed, run, transcript};
use crate::schedule::{schedule, spec};
use crate::stub::Answer;

fn named(name: &str) -> Schedule {
    Schedule {
        name: name.parse().unwrap(),
        ..schedule()
    }
}

/// Three of a name each: one is not there yet, one is changed, and one is as it was.
fn bed() -> Bed {
    let bed = Bed::new();
    let none = Answer::problem(ProblemCode::ScheduleNotFound, "there is no schedule new");
    let changed = Schedule {
        revision: 5,
        ..named("changed")
    };
    bed.stub
        .on("GET /v1/schedules/new", vec![none])
        .on(
            "GET /v1/schedules/changed",
            vec![Answer::json(200, &named("changed"))],
        )
        .on(
            "GET /v1/schedules/same",
            vec![Answer::json(200, &named("same"))],
        )
        .on(
            "PUT /v1/schedules/new",
            vec![Answer::json(201, &named("new"))],
        )
        .on(
            "PUT /v1/schedules/changed",
            vec![Answer::json(200, &changed)],
        )
        .on(
            "PUT /v1/schedules/same",
            vec![Answer::json(200, &named("same"))],
        );
    bed
}

const YAML: &str = "\
name: new
spec: &spec
  run: {job: {command: {shell: helm test db}, cluster: prod-eu}}
  timing: {when: {type: cron, expression: 30 2 * * *}, time_zone: Europe/Berlin}
---
name: changed
spec:
  run: {job: {command: {shell: helm test db}, cluster: prod-eu}}
  timing: {when: {type: cron, expression: 30 2 * * *}, time_zone: Europe/Berlin}
---
name: same
spec:
  run: {job: {command: {shell: helm test db}, cluster: prod-eu}}
  timing: {when: {type: cron, expression: 30 2 * * *}, time_zone: Europe/Berlin}
";

/// Applies this from stdin.
fn apply(bed: &Bed, yaml: &str, more: &[&str]) -> String {
    let mut command = bed.invoke(&[&["schedule", "apply", "-f", "-"], more].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(yaml.as_bytes()).unwrap();
    drop(stdin);
    transcript(&child.wait_with_output().unwrap())
}

#[test]
fn an_export_is_stable_and_has_no_secret() {
    let bed = Bed::new();
    let mut secret = Schedule {
        secrets: vec!["KEY".into(), "TOKEN".into()],
        ..named("secret")
    };
    secret.spec.run.job_mut().command =
        invoke_protocol::command::Command::shell("set -e\n./migrate.sh # yes: 'all'\n").unwrap();
    let list = ScheduleList {
        schedules: vec![named("plain"), secret.clone()],
    };
    bed.stub
        .on("GET /v1/schedules", vec![Answer::json(200, &list)])
        .on("GET /v1/schedules/secret", vec![Answer::json(200, &secret)]);
    assert_snapshot!(bed.transcript(&["schedule", "export"]), @"
    exit: 0
    --- stdout
    name: plain
    spec:
      run:
        job:
          command:
            shell: helm test db
          cluster: prod-eu
          profile: default
      timing:
        when:
          type: cron
          expression: 30 2 * * *
        time_zone: Europe/Berlin
    ---
    # Not in here: the values of its secrets KEY, TOKEN
    name: secret
    spec:
      run:
        job:
          command:
            shell: |
              set -e
              ./migrate.sh # yes: 'all'
          cluster: prod-eu
          profile: default
      timing:
        when:
          type: cron
          expression: 30 2 * * *
        time_zone: Europe/Berlin
    ");
    let one = bed.transcript(&["schedule", "export", "secret"]);
    assert!(
        one.contains("name: secret") && !one.contains("---\nname"),
        "{one}"
    );
    let json = run(bed.invoke(&["schedule", "export", "-o", "json"])).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json[1]["name"], "secret");
}

/// What was exported is what is applied.
#[test]
fn an_export_can_be_applied() {
    let bed = bed();
    bed.stub.on(
        "GET /v1/schedules",
        vec![Answer::json(
            200,
            &ScheduleList {
                schedules: vec![named("same")],
            },
        )],
    );
    let yaml = run(bed.invoke(&["schedule", "export"])).stdout;
    let yaml = String::from_utf8(yaml).unwrap();
    assert_eq!(
        apply(&bed, &yaml, &[]),
        "exit: 0\n--- stdout\nsame unchanged\n"
    );
    let sent: ScheduleSpec =
        serde_json::from_slice(&bed.stub.seen("PUT /v1/schedules/same")[0].body).unwrap();
    assert_eq!(sent, spec());
}

#[test]
fn each_schedule_is_made_changed_or_left_alone() {
    let bed = bed();
    assert_snapshot!(apply(&bed, YAML, &[]), @"
    exit: 0
    --- stdout
    new created
    changed changed
    same unchanged
    ");
    let query = |name: &str| {
        let seen = bed.stub.seen(&format!("PUT /v1/schedules/{name}"));
        seen[0].query.clone()
    };
    assert_eq!(query("new"), "create=true");
    assert_eq!(query("changed"), "revision=4");
    let json = apply(&bed, YAML, &["-o", "json"]);
    let (_, json) = json.split_once("--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json[1]["change"], "changed");
}

/// A file is applied whole, or not at all.
#[test]
fn nothing_is_applied_of_a_file_that_cannot_be_read() {
    let bed = bed();
    let wrong = YAML.replacen("name: same", "name: same\nspce: 1", 1);
    assert_snapshot!(apply(&bed, &wrong, &[]), @"
    exit: 240
    --- stderr
    invoke: stdin: document 3 (same): spce: there is no such field
    invoke: hint: nothing was applied; `invoke schedule export` shows how it is written
    ");
    let missing = bed.transcript(&["schedule", "apply", "-f", "/nonexistent/schedules.yaml"]);
    assert_snapshot!(missing, @"
    exit: 240
    --- stderr
    invoke: /nonexistent/schedules.yaml: No such file or directory (os error 2)
    invoke: hint: nothing was applied; `invoke schedule export` shows how it is written
    ");
    assert!(bed.stub.seen("PUT*").is_empty());
}

/// A refusal in the middle names the schedule; what was applied before it was said.
#[test]
fn a_refusal_names_its_schedule() {
    let bed = bed();
    let refusal = Answer::problem(
        ProblemCode::InvalidSchedule,
        "the cron expression never fires",
    );
    bed.stub.on("PUT /v1/schedules/changed", vec![refusal]);
    assert_snapshot!(apply(&bed, YAML, &[]), @"
    exit: 240
    --- stdout
    new created
    --- stderr
    invoke: schedule changed: the cron expression never fires
    ");
    assert!(bed.stub.seen("PUT /v1/schedules/same").is_empty());
}

/// Secrets are in no file, and are not lost by that.
#[test]
fn secrets_stay_as_they_are() {
    let bed = bed();
    let secret = Schedule {
        secrets: vec!["TOKEN".into()],
        ..named("changed")
    };
    bed.stub.on(
        "GET /v1/schedules/changed",
        vec![Answer::json(200, &secret)],
    );
    apply(&bed, YAML, &[]);
    let query = &bed.stub.seen("PUT /v1/schedules/changed")[0].query;
    assert_eq!(query, "revision=4&keep_secrets=true");
}
