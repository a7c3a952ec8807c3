//! `schedule create`, `edit`, `list`, `show`, `next`, and what is said to a schedule.

use insta::{assert_json_snapshot, assert_snapshot};
use invoke_protocol::id::ScheduleId;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{
    ComingNote, ComingNoteKind, ComingTick, ComingTicks, Schedule, ScheduleList, ScheduleSpec,
    ScheduleState, Tick, TickCause, TickOutcome, TickResult, WebhookKey,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fixtures::{ID, Printed, whole_stream};
use crate::program::{Bed, run};
use crate::stub::Answer;

const DOOR: &str = "/v1/schedules/vacuum";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What the schedule of these tests is to do.
pub(crate) fn spec() -> ScheduleSpec {
    serde_json::from_value(json!({
        "run": { "job": { "command": { "shell": "helm test db" }, "cluster": "prod-eu" } },
        "timing": {
            "when": { "type": "cron", "expression": "30 2 * * *" },
            "time_zone": "Europe/Berlin",
        },
    }))
    .unwrap()
}

pub(crate) fn schedule() -> Schedule {
    Schedule {
        id: ScheduleId::from_uuid("0197c1f0-0000-7000-8000-00000000005c".parse().unwrap()),
        name: "vacuum".parse().unwrap(),
        revision: 4,
        owner: "alice".into(),
        spec: spec(),
        secrets: Vec::new(),
        state: ScheduleState::Active,
        next: Some(at("2026-11-23T01:30:00Z")),
        skip_next: false,
        failures: 0,
        last: None,
        created: at("2026-01-05T10:00:00Z"),
        changed: at("2026-01-05T10:00:00Z"),
    }
}

/// A time that was run on time.
pub(crate) fn tick() -> Tick {
    Tick {
        schedule: "vacuum".parse().unwrap(),
        revision: 4,
        instant: at("2026-11-17T01:30:00Z"),
        by_hand: false,
        outcome: TickOutcome::Fired,
        cause: None,
        message: String::new(),
        decided: at("2026-11-17T01:30:00Z"),
        lateness_ms: Some(123),
        job: Some(ID.parse().unwrap()),
        fanout: None,
        attempts: 1,
        result: Some(TickResult::Succeeded),
    }
}

fn coming() -> ComingTicks {
    let tick = |instant: &str, local: &str| ComingTick {
        instant: at(instant),
        local: local.into(),
        jitter_seconds: 0,
        start_deadline: at("2027-01-01T00:00:00Z"),
        notes: Vec::new(),
    };
    let note = |kind, message: &str| ComingNote {
        kind,
        message: message.into(),
    };
    ComingTicks {
        time_zone: "Europe/Berlin".into(),
        ticks: vec![
            ComingTick {
                jitter_seconds: 37,
                ..tick(
                    "2026-11-23T01:30:00Z",
                    "2026-11-23T02:30:00+01:00[Europe/Berlin]",
                )
            },
            ComingTick {
                notes: vec![
                    note(
                        ComingNoteKind::Blackout,
                        "calendar freeze closes it: \u{1b}[2Jpeak",
                    ),
                    note(
                        ComingNoteKind::Overlap,
                        "the run before takes 25h on average",
                    ),
                ],
                ..tick(
                    "2026-11-24T01:30:00Z",
                    "2026-11-24T02:30:00+01:00[Europe/Berlin]",
                )
            },
        ],
    }
}

fn bed() -> Bed {
    let bed = Bed::new();
    bed.stub
        .on(&format!("GET {DOOR}"), vec![Answer::json(200, &schedule())])
        .on(&format!("PUT {DOOR}"), vec![Answer::json(201, &schedule())])
        .on(
            &format!("GET {DOOR}/next"),
            vec![Answer::json(200, &coming())],
        );
    bed
}

/// What was put, and how.
fn put(bed: &Bed) -> (String, Value) {
    let seen = bed.stub.seen(&format!("PUT {DOOR}"));
    assert_eq!(seen.len(), 1);
    (
        seen[0].query.clone(),
        serde_json::from_slice(&seen[0].body).unwrap(),
    )
}

#[test]
fn a_new_schedule_shows_when_it_runs() {
    let bed = bed();
    let line = [
        "schedule",
        "create",
        "vacuum",
        "-c",
        "prod-eu",
        "--cron",
        "30 2 * * *",
        "--tz",
        "Europe/Berlin",
        "helm test db",
    ];
    assert_snapshot!(bed.transcript(&line), @"
    exit: 0
    --- stdout
    TIME (Europe/Berlin)          UTC                   NOTES
    Mon 2026-11-23 02:30:00 +01   2026-11-23 01:30:00   starts 37s later
    Tue 2026-11-24 02:30:00 +01   2026-11-24 01:30:00   calendar freeze closes it: ^[[2Jpeak; the run before takes 25h on average
    --- stderr
    invoke: schedule vacuum is created
    ");
    let (query, body) = put(&bed);
    assert_eq!(query, "create=true");
    let sent: ScheduleSpec = serde_json::from_value(body).unwrap();
    assert_eq!(sent, spec());
    let asked = &bed.stub.seen(&format!("GET {DOOR}/next"))[0].query;
    assert_eq!(asked, "limit=3");
    let json = run(bed.invoke(&[&line[..], &["-o", "json"]].concat())).stdout;
    assert_eq!(
        serde_json::from_slice::<Schedule>(&json).unwrap(),
        schedule()
    );
}

#[test]
fn everything_that_is_said_is_sent() {
    let bed = bed();
    let mut command = bed.invoke(&[
        "schedule",
        "create",
        "vacuum",
        "-l",
        "env=prod",
        "--canary",
        "edge-1",
        "--max-failures",
        "10%",
        "--if-offline",
        "skip",
        "--profile",
        "deploy",
        "--cron",
        "0 3 * * TUE#2",
        "--tz",
        "Europe/Berlin",
        "--offset",
        "-1d 2h",
        "--window",
        "2h",
        "--cutoff",
        "30m",
        "--at-window-end",
        "cancel",
        "--jitter",
        "10m",
        "--calendar",
        "nights",
        "--ignore-calendar",
        "freeze",
        "--overlap",
        "cancel-running",
        "--catch-up",
        "all=3",
        "--on-failure",
        "pause-after=5",
        "--retry",
        "2",
        "--retry-on",
        "never-started,exit=75",
        "--notify-webhook",
        "https://example.com/hook",
        "--notify-command",
        "./tell.sh",
        "--notify-on",
        "failed,long-running",
        "--long-running",
        "1h",
        "--env",
        "REGION=eu",
        "--secret",
        "TOKEN",
        "--start-within",
        "5m",
        "--run-timeout",
        "1h30m",
        "--",
        "./patch.sh",
        "-v",
    ]);
    // The cluster of the settings is for commands that name none.
    command
        .env("TOKEN", "hunter2")
        .env("INVOKE_CLUSTER", "demo");
    assert_eq!(run(command).status.code(), Some(0));
    assert_json_snapshot!(put(&bed).1, @r#"
    {
      "catch_up": {
        "all": 3
      },
      "ignored_calendars": [
        "freeze"
      ],
      "long_running_seconds": 3600,
      "notify": [
        {
          "by": {
            "webhook": "https://example.com/hook"
          },
          "on": [
            "failed",
            "long_running"
          ]
        },
        {
          "by": {
            "command": {
              "shell": "./tell.sh"
            }
          },
          "on": [
            "failed",
            "long_running"
          ]
        }
      ],
      "open_calendars": [
        "nights"
      ],
      "overlap": "cancel_running",
      "pause_after_failures": 5,
      "retry": {
        "on": [
          "never_started",
          {
            "exit": 75
          }
        ],
        "times": 2
      },
      "run": {
        "fanout": {
          "canary": [
            "edge-1"
          ],
          "if_offline": "skip",
          "job": {
            "command": {
              "argv": [
                "./patch.sh",
                "-v"
              ]
            },
            "environment": {
              "REGION": "eu"
            },
            "profile": "deploy",
            "run_timeout_seconds": 5400,
            "secrets": {
              "TOKEN": "hunter2"
            },
            "start_within_seconds": 300
          },
          "max_failures": "10%",
          "selector": "env=prod"
        }
      },
      "timing": {
        "at_window_end": "cancel",
        "cutoff_seconds": 1800,
        "jitter_seconds": 600,
        "offset": "-1d 2h",
        "time_zone": "Europe/Berlin",
        "when": {
          "expression": "0 3 * * TUE#2",
          "type": "cron"
        },
        "window_seconds": 7200
      }
    }
    "#);
}

/// Intervals begin now, to the second, and a single time may be on the wall.
#[test]
fn times_are_sent_as_moments() {
    let bed = bed();
    let base = ["schedule", "create", "vacuum", "ls"];
    run(bed.invoke(&[&base[..], &["--every", "6h"]].concat()));
    let (_, body) = put(&bed);
    let when = &body["timing"]["when"];
    assert_eq!(
        (&when["type"], &when["seconds"]),
        (&json!("every"), &json!(21600))
    );
    let from: Timestamp = when["from"].as_str().unwrap().parse().unwrap();
    assert_eq!(from.subsec_nanosecond(), 0);
    let bed = self::bed();
    let wall = ["--at", "2026-11-22T02:30", "--tz", "Europe/Berlin"];
    run(bed.invoke(&[&base[..], &wall].concat()));
    let when = &put(&bed).1["timing"]["when"];
    assert_eq!(
        *when,
        json!({ "type": "at", "time": "2026-11-22T01:30:00Z" })
    );
}

#[test]
fn what_makes_no_sense_is_not_sent() {
    let bed = bed();
    let create = ["schedule", "create", "vacuum"];
    let edit = ["schedule", "edit", "vacuum"];
    let refused = [
        [&create[..], &["ls"]].concat(),
        [&create[..], &["--cron", "@daily", "--every", "1h", "ls"]].concat(),
        [&create[..], &["--cron", "@daily"]].concat(),
        [&create[..], &["--cron", "@daily", "kubectl", "get", "pods"]].concat(),
        [&create[..], &["--cron", "@daily", "-f", "-", "cat"]].concat(),
        [&create[..], &["--cron", "@daily", "--stdin", "cat"]].concat(),
        [&create[..], &["--cron", "@daily", "--ramp", "ls"]].concat(),
        [
            &create[..],
            &["--cron", "@daily", "--if-offline", "skip", "ls"],
        ]
        .concat(),
        [
            &create[..],
            &["--cron", "@daily", "-c", "a", "-l", "b", "ls"],
        ]
        .concat(),
        [
            &create[..],
            &["--cron", "@daily", "--retry-on", "exit=1", "ls"],
        ]
        .concat(),
        [
            &create[..],
            &["--cron", "@daily", "--notify-on", "failed", "ls"],
        ]
        .concat(),
        [
            &create[..],
            &["--cron", "@daily", "--on-failure", "pause-after", "3", "ls"],
        ]
        .concat(),
        [
            &create[..],
            &["--at", "2026-03-29T02:30", "--tz", "Europe/Berlin", "ls"],
        ]
        .concat(),
        [&create[..], &["--every", "1d", "ls"]].concat(),
        [&edit[..], &["-c", "Not A Name"]].concat(),
        [&edit[..], &["--ramp"]].concat(),
    ];
    let shown = refused.map(|line| bed.transcript(&line));
    assert_snapshot!(shown.join(""), @r#"
    exit: 240
    --- stderr
    invoke: nothing says when it is to run
    invoke: hint: add --cron "30 2 * * *", --every 6h or --at 2026-11-22T02:30
    exit: 240
    --- stderr
    invoke: the argument '--cron <EXPRESSION>' cannot be used with '--every <TIME>'
    invoke: hint: `invoke schedule create --help` shows how it is written
    exit: 240
    --- stderr
    invoke: the command is empty: say what to run, for example "kubectl get pods"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `… "kubectl get pods"` or `… -- kubectl get pods`
    exit: 240
    --- stderr
    invoke: a schedule's command has no stdin: nobody is there when it runs
    invoke: hint: attach what it reads as a file: -f FILE, and `command < FILE`
    exit: 240
    --- stderr
    invoke: unexpected argument '--stdin' found
    invoke: hint: `invoke schedule create --help` shows how it is written
    exit: 240
    --- stderr
    invoke: --ramp is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: --if-offline skip is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    exit: 240
    --- stderr
    invoke: the argument '--cluster <NAME>' cannot be used with '--selector <SELECTOR>'
    invoke: hint: `invoke schedule create --help` shows how it is written
    exit: 240
    --- stderr
    invoke: --retry-on says after which failures it is run again, and not how often
    invoke: hint: add --retry COUNT
    exit: 240
    --- stderr
    invoke: --notify-on says of what somebody is told, and not who
    invoke: hint: add --notify-webhook URL or --notify-command "SHELL LINE"
    exit: 240
    --- stderr
    invoke: invalid value 'pause-after' for '--on-failure <pause-after=COUNT>': write it with its number, as one word: pause-after=3
    invoke: hint: `invoke schedule create --help` shows how it is written
    exit: 240
    --- stderr
    invoke: --at 2026-03-29T02:30: clocks in Europe/Berlin are set forward over this time, so it never comes
    invoke: hint: write RFC 3339, such as 2026-11-22T02:30:00+01:00, which is the same everywhere
    exit: 240
    --- stderr
    invoke: invalid value '1d' for '--every <TIME>': "1d" is no duration: write it as 90s, 15m or 1h30m
    invoke: hint: `invoke schedule create --help` shows how it is written
    exit: 240
    --- stderr
    invoke: --cluster: "Not A Name" is not a cluster name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
    exit: 240
    --- stderr
    invoke: --ramp is for a command on many clusters
    invoke: hint: choose them by their labels, as in -l env=prod; `invoke clusters` shows these
    "#);
    assert!(bed.stub.seen("PUT*").is_empty());
}

#[test]
fn the_dispatchers_refusal_is_passed_on() {
    let bed = bed();
    let detail = "the cron expression \"0 0 31 2 *\" never fires: there is no 31st of February";
    bed.stub.on(
        &format!("PUT {DOOR}"),
        vec![Answer::problem(ProblemCode::InvalidSchedule, detail)],
    );
    let line = ["schedule", "create", "vacuum", "--cron", "0 0 31 2 *", "ls"];
    assert_eq!(
        bed.transcript(&line),
        format!("exit: 240\n--- stderr\ninvoke: {detail}\n")
    );
    bed.stub.on(&format!("PUT {DOOR}"), vec![Answer::cut()]);
    assert_snapshot!(bed.transcript(&line), @"
    exit: 241
    --- stderr
    invoke: it is not known whether the schedule was accepted: cannot reach the dispatcher at [URL]: the connection was cut
    invoke: hint: `invoke schedule list` shows whether it was
    ");
}

/// What is given replaces, and the rest stays; the revision says that nobody else was faster.
#[test]
fn an_edit_changes_what_is_given() {
    let bed = bed();
    let changed = Schedule {
        revision: 5,
        ..schedule()
    };
    bed.stub
        .on(&format!("PUT {DOOR}"), vec![Answer::json(200, &changed)]);
    let line = [
        "schedule",
        "edit",
        "vacuum",
        "--window",
        "2h",
        "--retry",
        "1",
        "helm test db --logs",
    ];
    let mut command = bed.invoke(&line);
    command
        .env("INVOKE_CLUSTER", "demo")
        .env("INVOKE_PROFILE", "deploy");
    assert_snapshot!(bed.show(&run(command)), @"
    exit: 0
    --- stdout
    TIME (Europe/Berlin)          UTC                   NOTES
    Mon 2026-11-23 02:30:00 +01   2026-11-23 01:30:00   starts 37s later
    Tue 2026-11-24 02:30:00 +01   2026-11-24 01:30:00   calendar freeze closes it: ^[[2Jpeak; the run before takes 25h on average
    --- stderr
    invoke: schedule vacuum is changed
    ");
    let (query, body) = put(&bed);
    assert_eq!(query, "revision=4");
    assert_json_snapshot!(body, @r#"
    {
      "retry": {
        "on": [
          "never_started"
        ],
        "times": 1
      },
      "run": {
        "job": {
          "cluster": "prod-eu",
          "command": {
            "shell": "helm test db --logs"
          },
          "profile": "default"
        }
      },
      "timing": {
        "time_zone": "Europe/Berlin",
        "when": {
          "expression": "30 2 * * *",
          "type": "cron"
        },
        "window_seconds": 7200
      }
    }
    "#);
    bed.stub
        .on(&format!("PUT {DOOR}"), vec![Answer::json(200, &schedule())]);
    let same = bed.transcript(&["schedule", "edit", "vacuum"]);
    assert!(same.contains("schedule vacuum is as it was"), "{same}");
}

/// From one cluster to many and back: what is only for the other does not stay.
#[test]
fn an_edit_moves_between_one_cluster_and_many() {
    let bed = bed();
    run(bed.invoke(&["schedule", "edit", "vacuum", "-l", "env=prod", "--ramp"]));
    let (_, body) = put(&bed);
    assert_json_snapshot!(body["run"], @r#"
    {
      "fanout": {
        "job": {
          "command": {
            "shell": "helm test db"
          },
          "profile": "default"
        },
        "ramp": true,
        "selector": "env=prod"
      }
    }
    "#);
    let many = Schedule {
        spec: serde_json::from_value(body).unwrap(),
        ..schedule()
    };
    let bed = self::bed();
    bed.stub
        .on(&format!("GET {DOOR}"), vec![Answer::json(200, &many)]);
    run(bed.invoke(&["schedule", "edit", "vacuum", "-c", "demo"]));
    assert_json_snapshot!(put(&bed).1["run"], @r#"
    {
      "job": {
        "cluster": "demo",
        "command": {
          "shell": "helm test db"
        },
        "profile": "default"
      }
    }
    "#);
}

/// Nobody can read secrets back: they are kept, or all are given again.
#[test]
fn an_edit_loses_no_secret() {
    let secret = Schedule {
        secrets: vec!["KEY".into(), "TOKEN".into()],
        ..schedule()
    };
    let bed = || {
        let bed = self::bed();
        bed.stub
            .on(&format!("GET {DOOR}"), vec![Answer::json(200, &secret)]);
        bed
    };
    let edit = |bed: &Bed, secrets: &[&str]| {
        let mut line = vec!["schedule", "edit", "vacuum", "--window", "1h"];
        for secret in secrets {
            line.extend(["--secret", secret]);
        }
        let mut command = bed.invoke(&line);
        command.env("KEY", "a-long-key").env("TOKEN", "hunter2");
        bed.show(&run(command))
    };
    let kept = bed();
    edit(&kept, &[]);
    let (query, body) = put(&kept);
    assert_eq!(query, "revision=4&keep_secrets=true");
    assert_eq!(body["run"]["job"]["secrets"], Value::Null);

    let lost = bed();
    assert_snapshot!(edit(&lost, &["TOKEN"]), @"
    exit: 240
    --- stderr
    invoke: --secret replaces all secrets of schedule vacuum, and KEY would be lost
    invoke: hint: give all of them again; to have less of them, delete the schedule and make it anew
    ");
    assert!(lost.stub.seen("PUT*").is_empty());

    let given = bed();
    edit(&given, &["TOKEN", "KEY"]);
    let (query, body) = put(&given);
    assert_eq!(query, "revision=4");
    assert_eq!(body["run"]["job"]["secrets"]["TOKEN"], "hunter2");
}

/// Files are uploaded as those of a job, and those that are there stay.
#[test]
fn files_are_kept_with_the_schedule() {
    let bed = bed();
    let file = bed.home.path().join("patch.sh");
    std::fs::write(&file, "echo patched\n").unwrap();
    let limits = json!({ "files_bytes": 1024, "files_entries": 10, "retention_seconds": 1 });
    bed.stub
        .on("GET /v1/limits", vec![Answer::json(200, &limits)])
        .on("GET /v1/files/*", vec![Answer::intake()])
        .on("PUT /v1/files/*", vec![Answer::intake()]);
    let mut command = bed.invoke(&[
        "schedule",
        "create",
        "vacuum",
        "--cron",
        "@daily",
        "-f",
        "patch.sh",
        "./patch.sh",
    ]);
    command.current_dir(bed.home.path());
    assert_eq!(run(command).status.code(), Some(0));
    let body = put(&bed).1;
    let sha256 = body["run"]["job"]["files"]["sha256"].as_str().unwrap();
    assert!(bed.stub.intake(|intake| intake.archive(sha256).is_some()));

    let with_files = Schedule {
        spec: serde_json::from_value(body.clone()).unwrap(),
        ..schedule()
    };
    let bed = self::bed();
    bed.stub
        .on(&format!("GET {DOOR}"), vec![Answer::json(200, &with_files)]);
    run(bed.invoke(&["schedule", "edit", "vacuum", "--window", "1h"]));
    assert_eq!(
        put(&bed).1["run"]["job"]["files"],
        body["run"]["job"]["files"]
    );
}

#[test]
fn schedules_are_listed_and_shown() {
    let bed = bed();
    let mut paused = Schedule {
        name: "patch".parse().unwrap(),
        state: ScheduleState::Paused {
            by: "bob".into(),
            since: at("2026-11-01T00:00:00Z"),
            reason: "the disk\nis full".into(),
        },
        next: None,
        skip_next: false,
        failures: 3,
        secrets: vec!["TOKEN".into()],
        last: Some(Tick {
            outcome: TickOutcome::Skipped,
            cause: Some(TickCause::Paused),
            job: None,
            result: None,
            lateness_ms: None,
            ..tick()
        }),
        changed: at("2026-02-01T00:00:00Z"),
        ..schedule()
    };
    paused.spec = serde_json::from_value(json!({
        "run": { "fanout": {
            "job": {
                "command": { "argv": ["./patch.sh", "-v"] },
                "profile": "deploy",
                "run_timeout_seconds": 3600,
                "environment": { "REGION": "eu" },
            },
            "selector": "env=prod",
        } },
        "timing": {
            "when": { "type": "every", "seconds": 21600, "from": "2026-01-01T00:00:00Z" },
            "offset": "4d", "window_seconds": 7200, "cutoff_seconds": 1800,
            "at_window_end": "cancel", "jitter_seconds": 600,
        },
        "overlap": "queue_one",
        "catch_up": { "all": 3 },
        "retry": { "times": 2, "on": ["never_started", { "exit": 75 }] },
        "pause_after_failures": 5,
        "open_calendars": ["nights"],
        "ignored_calendars": ["freeze"],
        "notify": [
            { "by": { "webhook": "https://example.com/hook" }, "on": ["failed", "long_running"] },
            { "by": { "command": { "shell": "./tell.sh" } } },
        ],
        "long_running_seconds": 3600,
    }))
    .unwrap();
    let skipping = Schedule {
        skip_next: true,
        last: Some(tick()),
        ..schedule()
    };
    let list = ScheduleList {
        schedules: vec![paused.clone(), skipping],
    };
    bed.stub
        .on("GET /v1/schedules", vec![Answer::json(200, &list)]);
    bed.stub
        .on("GET /v1/schedules/patch", vec![Answer::json(200, &paused)]);
    assert_snapshot!(bed.transcript(&["schedule", "list"]), @"
    exit: 0
    --- stdout
    NAME     STATE    WHEN                                    WHERE         NEXT           LAST        COMMAND
    patch    paused   every 6h from 2026-01-01 00:00:00 UTC   -l env=prod   -              skipped     ./patch.sh -v
    vacuum   active   30 2 * * * Europe/Berlin                prod-eu       skipped once   succeeded   helm test db
    ");
    assert_snapshot!(bed.transcript(&["schedule", "show", "patch"]), @r"
    exit: 0
    --- stdout
    name          patch
    owner         alice
    state         is paused by bob since 2026-11-01 00:00:00 UTC: the disk\nis full
    command       ./patch.sh -v
    where         -l env=prod
    profile       deploy
    when          every 6h from 2026-01-01 00:00:00 UTC
    offset        4d
    window        2h
    cutoff        30m
    at window end cancel
    jitter        up to 10m
    only during   nights
    also during   freeze
    overlap       queue-one
    catch up      all=3
    retry         2 times, on never-started,exit=75
    on failure    pause after 5
    tells         https://example.com/hook of failed,long-running
    tells         `./tell.sh` of all
    long running  1h
    run timeout   1h
    variables     REGION
    secrets       TOKEN
    failures      3 in a row
    last          2026-11-17 01:30:00 UTC: it was skipped, because the schedule was paused
    created       2026-01-05 10:00:00 UTC
    changed       2026-02-01 00:00:00 UTC (revision 4)
    ");
    assert_snapshot!(bed.transcript(&["schedule", "show", "vacuum"]), @"
    exit: 0
    --- stdout
    name          vacuum
    owner         alice
    state         is active, and runs next at 2026-11-23 01:30:00 UTC
    command       helm test db
    where         prod-eu
    profile       default
    when          30 2 * * * Europe/Berlin
    overlap       skip
    catch up      none
    created       2026-01-05 10:00:00 UTC
    ");
    let empty = ScheduleList { schedules: vec![] };
    bed.stub
        .on("GET /v1/schedules", vec![Answer::json(200, &empty)]);
    assert_snapshot!(bed.transcript(&["schedule", "list"]), @"
    exit: 0
    --- stderr
    invoke: no schedules yet
    invoke: hint: `invoke schedule create --help` shows how one is made
    ");
}

#[test]
fn what_is_to_come_has_both_times_and_its_notes() {
    let bed = bed();
    assert_snapshot!(bed.transcript(&["schedule", "next", "vacuum", "-n", "2"]), @"
    exit: 0
    --- stdout
    TIME (Europe/Berlin)          UTC                   NOTES
    Mon 2026-11-23 02:30:00 +01   2026-11-23 01:30:00   starts 37s later
    Tue 2026-11-24 02:30:00 +01   2026-11-24 01:30:00   calendar freeze closes it: ^[[2Jpeak; the run before takes 25h on average
    ");
    assert_eq!(
        bed.stub.seen(&format!("GET {DOOR}/next"))[0].query,
        "limit=2"
    );
    let never = ComingTicks {
        ticks: vec![],
        ..coming()
    };
    bed.stub
        .on(&format!("GET {DOOR}/next"), vec![Answer::json(200, &never)]);
    assert_eq!(
        bed.transcript(&["schedule", "next", "vacuum"]),
        "exit: 0\n--- stderr\ninvoke: schedule vacuum never runs again\n"
    );
}

#[test]
fn what_is_said_to_a_schedule_is_answered() {
    let bed = bed();
    let paused = Schedule {
        state: ScheduleState::Paused {
            by: "local".into(),
            since: at("2026-11-22T10:00:00Z"),
            reason: "the disk is being replaced".into(),
        },
        ..schedule()
    };
    let skipping = Schedule {
        skip_next: true,
        ..schedule()
    };
    for (verb, answer) in [
        ("pause", &paused),
        ("resume", &schedule()),
        ("skip", &skipping),
        ("take-over", &schedule()),
    ] {
        bed.stub.on(
            &format!("POST {DOOR}/{verb}"),
            vec![Answer::json(200, answer)],
        );
    }
    bed.stub
        .on(&format!("DELETE {DOOR}"), vec![Answer::pieces(204, vec![])]);
    let key = WebhookKey {
        key: "whsec_abc=".into(),
    };
    bed.stub.on(
        &format!("GET {DOOR}/webhook-key"),
        vec![Answer::json(200, &key)],
    );
    let said = [
        &[
            "schedule",
            "pause",
            "vacuum",
            "--reason",
            "the disk is being replaced",
        ][..],
        &["schedule", "resume", "vacuum"],
        &["schedule", "skip-next", "vacuum"],
        &["schedule", "take-over", "vacuum"],
        &["schedule", "delete", "vacuum"],
        &["schedule", "webhook-key", "vacuum"],
    ]
    .map(|line| bed.transcript(line));
    assert_snapshot!(said.join(""), @"
    exit: 0
    --- stderr
    invoke: schedule vacuum is paused by local since 2026-11-22 10:00:00 UTC: the disk is being replaced
    exit: 0
    --- stderr
    invoke: schedule vacuum is active, and runs next at 2026-11-23 01:30:00 UTC
    exit: 0
    --- stderr
    invoke: schedule vacuum skips its next time, 2026-11-23 01:30:00 UTC
    exit: 0
    --- stderr
    invoke: schedule vacuum runs with the rights of alice from now on
    exit: 0
    --- stderr
    invoke: schedule vacuum is deleted; `invoke schedule history vacuum` still tells what became of it
    exit: 0
    --- stdout
    whsec_abc=
    ");
    let body = &bed.stub.seen(&format!("POST {DOOR}/pause"))[0].body;
    assert_eq!(&body[..], br#"{"reason":"the disk is being replaced"}"#);
}

/// `run-now` has a key, so that a lost answer does not run it twice; what it made can be followed.
#[test]
fn it_can_be_run_at_once() {
    let bed = bed();
    let fired = Tick {
        by_hand: true,
        result: None,
        ..tick()
    };
    bed.stub.on(
        &format!("POST {DOOR}/run"),
        vec![Answer::cut(), Answer::json(200, &fired)],
    );
    bed.stub.on(
        &crate::fixtures::route("GET", "/events"),
        vec![Answer::events(whole_stream(
            7,
            &Printed::nothing().out("vacuumed\n"),
        ))],
    );
    let mut command = bed.invoke(&["schedule", "run-now", "vacuum"]);
    command.env("INVOKE_RETRY_FOR", "5s");
    let output = run(command);
    assert_eq!(output.stdout, format!("{ID}\n").into_bytes());
    let seen = bed.stub.seen(&format!("POST {DOOR}/run"));
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert!(keys.len() == 2 && keys[0].len() == 36 && keys[0] == keys[1]);
    assert_eq!(
        bed.transcript(&["schedule", "run-now", "vacuum", "--wait"]),
        "exit: 7\n--- stdout\nvacuumed\n"
    );
    let not_run = |outcome, cause| Tick {
        outcome,
        cause: Some(cause),
        job: None,
        lateness_ms: None,
        ..fired.clone()
    };
    let mut shown = Vec::new();
    for (tick, line) in [
        (
            not_run(TickOutcome::Queued, TickCause::Overlap),
            &["schedule", "run-now", "vacuum"][..],
        ),
        (
            not_run(TickOutcome::Queued, TickCause::Overlap),
            &["schedule", "run-now", "vacuum", "--wait"],
        ),
        (
            not_run(TickOutcome::Refused, TickCause::NotAllowed),
            &["schedule", "run-now", "vacuum", "--wait"],
        ),
    ] {
        bed.stub
            .on(&format!("POST {DOOR}/run"), vec![Answer::json(200, &tick)]);
        shown.push(bed.transcript(line));
    }
    let detail = "schedule vacuum does not run now: calendar freeze closes it";
    bed.stub.on(
        &format!("POST {DOOR}/run"),
        vec![Answer::problem(ProblemCode::NotRun, detail)],
    );
    shown.push(bed.transcript(&["schedule", "run-now", "vacuum"]));
    assert_snapshot!(shown.join(""), @"
    exit: 0
    --- stderr
    invoke: 2026-11-17 01:30:00 UTC: it waits for the end of another run, because the run before it went on
    exit: 248
    --- stderr
    invoke: 2026-11-17 01:30:00 UTC: it waits for the end of another run, because the run before it went on
    exit: 244
    --- stderr
    invoke: 2026-11-17 01:30:00 UTC: it was refused, because its owner may not do that, or its cluster offers no such thing
    exit: 244
    --- stderr
    invoke: schedule vacuum does not run now: calendar freeze closes it
    ");
}

#[test]
fn an_unknown_schedule_is_refused() {
    let bed = Bed::new();
    let detail = "there is no schedule vacum; did you mean vacuum?";
    let refusal = Answer::problem(ProblemCode::ScheduleNotFound, detail);
    for route in ["GET /v1/schedules/vacum", "GET /v1/schedules/vacum/next"] {
        bed.stub.on(route, vec![refusal.clone()]);
    }
    for verb in ["show", "next", "edit", "export"] {
        assert_eq!(
            bed.transcript(&["schedule", verb, "vacum"]),
            format!("exit: 240\n--- stderr\ninvoke: {detail}\n")
        );
    }
}
