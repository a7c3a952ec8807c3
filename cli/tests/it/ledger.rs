//! `schedule history` and `schedule why`: what became of the times of a schedule.

use insta::assert_snapshot;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{Schedule, Tick, TickCause, TickList, TickOutcome, TickResult};

use crate::program::{Bed, run};
use crate::schedule::{at, schedule, tick};
use crate::stub::Answer;

const TICKS: &str = "GET /v1/schedules/vacuum/ticks";

fn not_run(instant: &str, outcome: TickOutcome, cause: TickCause, message: &str) -> Tick {
    Tick {
        instant: at(instant),
        outcome,
        cause: Some(cause),
        message: message.into(),
        lateness_ms: None,
        job: None,
        attempts: 0,
        result: None,
        ..tick()
    }
}

fn ledger() -> Vec<Tick> {
    vec![
        not_run(
            "2026-11-19T01:30:00Z",
            TickOutcome::Skipped,
            TickCause::Overlap,
            "job 1 of 2026-11-18 runs still\u{1b}[2J",
        ),
        Tick {
            instant: at("2026-11-18T01:30:00Z"),
            outcome: TickOutcome::CaughtUp,
            lateness_ms: Some(5_432_100),
            attempts: 2,
            result: Some(TickResult::Failed),
            ..tick()
        },
        Tick {
            instant: at("2026-11-17T12:00:00Z"),
            by_hand: true,
            result: None,
            ..tick()
        },
        tick(),
        not_run(
            "2026-11-16T01:30:00Z",
            TickOutcome::Missed,
            TickCause::NobodyThere,
            "",
        ),
    ]
}

/// A bed whose ledger has these pages.
fn bed(pages: &[TickList]) -> Bed {
    let bed = Bed::new();
    bed.stub.on(
        "GET /v1/schedules/vacuum",
        vec![Answer::json(200, &schedule())],
    );
    let pages = pages.iter().map(|page| Answer::json(200, page)).collect();
    bed.stub.on(TICKS, pages);
    bed
}

fn page(ticks: &[Tick]) -> TickList {
    TickList {
        ticks: ticks.to_vec(),
        next: None,
    }
}

#[test]
fn a_history_tells_what_became_of_every_time() {
    let bed = bed(&[page(&ledger())]);
    assert_snapshot!(bed.transcript(&["schedule", "history", "vacuum", "-n", "9"]), @"
    exit: 0
    --- stdout
    TIME                      OUTCOME                 LATE       RUN                                    RESULT               MESSAGE
    2026-11-19 01:30:00 UTC   skipped (overlap)       -          -                                      -                    job 1 of 2026-11-18 runs still^[[2J
    2026-11-18 01:30:00 UTC   caught up               1h30m32s   0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   failed (attempt 2)
    2026-11-17 12:00:00 UTC   fired (run now)         0.1s       0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   -
    2026-11-17 01:30:00 UTC   fired                   0.1s       0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10   succeeded
    2026-11-16 01:30:00 UTC   missed (nobody there)   -          -                                      -
    ");
    assert_eq!(bed.stub.seen(TICKS)[0].query, "limit=9");
    let json = run(bed.invoke(&["schedule", "history", "vacuum", "-o", "json"]));
    let json: TickList = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json.ticks, ledger());
    bed.stub.on(TICKS, vec![Answer::json(200, &page(&[]))]);
    assert_eq!(
        bed.transcript(&["schedule", "history", "vacuum"]),
        "exit: 0\n--- stderr\ninvoke: schedule vacuum was never due yet\n"
    );
}

/// "Why did it not run last Tuesday?"
#[test]
fn one_command_says_why_it_did_not_run() {
    let bed = bed(&[page(&ledger()[..1]), page(&ledger()[1..2])]);
    let shown = [
        bed.transcript(&["schedule", "why", "vacuum", "2026-11-19"]),
        bed.transcript(&["schedule", "why", "vacuum", "2026-11-18T02:30"]),
    ];
    assert_snapshot!(shown.join(""), @"
    exit: 0
    --- stdout
    2026-11-19 01:30:00 UTC: it was skipped, because the run before it went on: job 1 of 2026-11-18 runs still^[[2J
    exit: 0
    --- stdout
    2026-11-18 01:30:00 UTC: it was run later, to make up for it; job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 failed
      `invoke why 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` says what it died of
    ");
    // The day of the schedule's zone.
    let asked = bed.stub.seen(TICKS);
    assert_eq!(asked[0].query, "limit=500&before=2026-11-19T23%3A00%3A00Z");
    assert_eq!(asked[1].query, "limit=500&before=2026-11-18T01%3A31%3A00Z");
}

/// A day may have more times than a page.
#[test]
fn pages_are_read_until_the_day_is_over() {
    let first = TickList {
        next: Some(at("2026-11-17T12:00:00Z")),
        ..page(&ledger()[2..3])
    };
    let second = TickList {
        next: Some(at("2026-11-16T01:30:00Z")),
        ..page(&ledger()[3..])
    };
    let bed = bed(&[first, second, page(&ledger())]);
    assert_snapshot!(bed.transcript(&["schedule", "why", "vacuum", "2026-11-17"]), @"
    exit: 0
    --- stdout
    2026-11-17 01:30:00 UTC: it was run; job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 succeeded
    2026-11-17 12:00:00 UTC: it was run because somebody said so; job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10
    ");
    assert_eq!(bed.stub.seen(TICKS).len(), 2);
    let json = run(bed.invoke(&["schedule", "why", "vacuum", "2026-11-17", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["ticks"].as_array().unwrap().len(), 2);
    assert_eq!(json["until"], "2026-11-17T23:00:00Z");
}

/// A time that is in no ledger is explained, too.
#[test]
fn it_says_why_there_is_nothing_to_say() {
    let mut shown = Vec::new();
    for (day, last) in [
        ("2026-11-15", &ledger()[4..]),
        ("2026-01-03", &[]),
        ("2099-01-01", &ledger()[..1]),
    ] {
        let changed = Schedule {
            changed: at("2026-11-15T12:00:00Z"),
            ..schedule()
        };
        let bed = bed(&[page(&[]), page(last)]);
        bed.stub.on(
            "GET /v1/schedules/vacuum",
            vec![Answer::json(200, &changed)],
        );
        shown.push(bed.transcript(&["schedule", "why", "vacuum", day]));
    }
    let wrong = bed(&[]).transcript(&["schedule", "why", "vacuum", "someday"]);
    shown.push(wrong);
    assert_snapshot!(shown.join(""), @r#"
    exit: 0
    --- stdout
    schedule vacuum was not due on Sun 2026-11-15
    what it is to do was changed after that, at 2026-11-15 12:00:00 UTC
    the time before, 2026-11-16 01:30:00 UTC: it was missed, because no dispatcher was there in time
    exit: 0
    --- stdout
    schedule vacuum was not there yet: it was created at 2026-01-05 10:00:00 UTC
    exit: 0
    --- stdout
    schedule vacuum: that is still to come
    `invoke schedule next vacuum` shows when it runs
    the time before, 2026-11-19 01:30:00 UTC: it was skipped, because the run before it went on: job 1 of 2026-11-18 runs still^[[2J
    exit: 240
    --- stderr
    invoke: "someday" is no day and no time
    invoke: hint: write today, yesterday, a day of the week, 2026-11-17, 2026-11-17T02:30, or RFC 3339
    "#);
}

/// The ledger of a schedule that was deleted is still there.
#[test]
fn a_deleted_schedule_still_says_why() {
    let bed = bed(&[page(&ledger()[..1])]);
    let gone = Answer::problem(ProblemCode::ScheduleNotFound, "there is no schedule vacuum");
    bed.stub.on("GET /v1/schedules/vacuum", vec![gone]);
    let shown = bed.transcript(&["schedule", "why", "vacuum", "2026-11-19"]);
    assert!(shown.contains("it was skipped, because"), "{shown}");
}
