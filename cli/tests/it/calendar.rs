//! `calendar import`, `list`, `show`, `delete`.

use insta::assert_snapshot;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{
    Calendar, CalendarKind, CalendarList, CalendarSpan, MAX_CALENDAR_BYTES,
};
use serde_json::Value;

use crate::program::Bed;
use crate::schedule::at;
use crate::stub::Answer;

const DOOR: &str = "/v1/calendars/freeze";
const ICS: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n";

fn freeze() -> Calendar {
    Calendar {
        name: "freeze".parse().unwrap(),
        kind: CalendarKind::Closed,
        imported_by: "alice".into(),
        imported: at("2026-11-01T00:00:00Z"),
        coming: vec![CalendarSpan {
            from: at("2026-12-20T00:00:00Z"),
            until: at("2027-01-07T00:00:00Z"),
            summary: "end of\nyear\u{1b}[2J".into(),
        }],
    }
}

fn bed() -> Bed {
    let bed = Bed::new();
    std::fs::write(bed.home.path().join("freeze.ics"), ICS).unwrap();
    bed.stub
        .on(&format!("PUT {DOOR}"), vec![Answer::json(200, &freeze())])
        .on(&format!("GET {DOOR}"), vec![Answer::json(200, &freeze())]);
    bed
}

#[test]
fn a_file_is_imported_under_its_name() {
    let bed = bed();
    let file = bed.home.path().join("freeze.ics");
    let file = file.to_str().unwrap();
    assert_snapshot!(bed.transcript(&["calendar", "import", file, "--closed"]), @r"
    exit: 0
    --- stdout
    name          freeze
    kind          closed: meanwhile nothing is run, but by schedules that ignore it
    imported by   alice
    imported      2026-11-01 00:00:00 UTC

    FROM                      UNTIL                     EVENT
    2026-12-20 00:00:00 UTC   2027-01-07 00:00:00 UTC   end of\nyear^[[2J
    --- stderr
    invoke: calendar freeze is imported: closed
    ");
    let named = [
        "calendar",
        "import",
        file,
        "--open",
        "--name",
        "freeze",
        "--tz",
        "Europe/Berlin",
    ];
    assert!(bed.transcript(&named).starts_with("exit: 0\n"));
    let bodies: Vec<Value> = bed
        .stub
        .seen(&format!("PUT {DOOR}"))
        .iter()
        .map(|seen| serde_json::from_slice(&seen.body).unwrap())
        .collect();
    insta::assert_json_snapshot!(bodies, @r#"
    [
      {
        "ics": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n",
        "kind": "closed"
      },
      {
        "ics": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n",
        "kind": "open",
        "time_zone": "Europe/Berlin"
      }
    ]
    "#);
}

#[test]
fn what_is_no_calendar_is_not_sent() {
    let bed = bed();
    let write = |name: &str, content: &[u8]| {
        let path = bed.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let nasty = write("No Name.ics", ICS.as_bytes());
    let bytes = write("bytes.ics", b"\xff");
    let long = write("long.ics", &vec![b'x'; MAX_CALENDAR_BYTES + 1]);
    let shown = [
        &["calendar", "import", &nasty, "--closed"][..],
        &["calendar", "import", &bytes, "--closed"],
        &["calendar", "import", &long, "--closed"],
        &["calendar", "import", "/nonexistent/x.ics", "--closed"],
        &["calendar", "import", "-", "--closed"],
        &["calendar", "import", &bytes],
        &["calendar", "import", &bytes, "--closed", "--open"],
    ]
    .map(|line| bed.transcript(line));
    let home = bed.home.path().to_str().unwrap();
    assert_snapshot!(shown.join("").replace(home, "[HOME]"), @r#"
    exit: 240
    --- stderr
    invoke: [HOME]/No Name.ics: "No Name" is not a calendar name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
    invoke: hint: name it: --name NAME
    exit: 240
    --- stderr
    invoke: the calendar [HOME]/bytes.ics is not valid UTF-8
    exit: 240
    --- stderr
    invoke: the calendar [HOME]/long.ics is longer than 1048576 bytes
    exit: 240
    --- stderr
    invoke: the calendar /nonexistent/x.ics cannot be read: No such file or directory (os error 2)
    exit: 240
    --- stderr
    invoke: stdin has no name to call a calendar by
    invoke: hint: name it: --name NAME
    exit: 240
    --- stderr
    invoke: the following required arguments were not provided: <--closed|--open>
    invoke: hint: `invoke calendar import --help` shows how it is written
    exit: 240
    --- stderr
    invoke: the argument '--closed' cannot be used with '--open'
    invoke: hint: `invoke calendar import --help` shows how it is written
    "#);
    assert!(bed.stub.seen("PUT*").is_empty());
    let refusal = Answer::problem(
        ProblemCode::InvalidCalendar,
        "line 3: an event without a DTSTART",
    );
    bed.stub.on(&format!("PUT {DOOR}"), vec![refusal]);
    let file = bed.home.path().join("freeze.ics");
    let shown = bed.transcript(&["calendar", "import", file.to_str().unwrap(), "--closed"]);
    assert!(
        shown.contains("invoke: line 3: an event without"),
        "{shown}"
    );
}

#[test]
fn calendars_are_listed_shown_and_deleted() {
    let bed = bed();
    let never = Calendar {
        name: "nights".parse().unwrap(),
        kind: CalendarKind::Open,
        coming: vec![],
        ..freeze()
    };
    let list = CalendarList {
        calendars: vec![freeze(), never.clone()],
    };
    bed.stub
        .on("GET /v1/calendars", vec![Answer::json(200, &list)])
        .on("GET /v1/calendars/nights", vec![Answer::json(200, &never)])
        .on(&format!("DELETE {DOOR}"), vec![Answer::pieces(204, vec![])]);
    let shown = [
        &["calendar", "list"][..],
        &["calendar", "show", "freeze"],
        &["calendar", "show", "nights"],
        &["calendar", "delete", "freeze"],
    ]
    .map(|line| bed.transcript(line));
    assert_snapshot!(shown.join(""), @r"
    exit: 0
    --- stdout
    NAME     KIND     NEXT                      EVENT               IMPORTED                  BY
    freeze   closed   2026-12-20 00:00:00 UTC   end of\nyear^[[2J   2026-11-01 00:00:00 UTC   alice
    nights   open     -                         -                   2026-11-01 00:00:00 UTC   alice
    exit: 0
    --- stdout
    name          freeze
    kind          closed: meanwhile nothing is run, but by schedules that ignore it
    imported by   alice
    imported      2026-11-01 00:00:00 UTC

    FROM                      UNTIL                     EVENT
    2026-12-20 00:00:00 UTC   2027-01-07 00:00:00 UTC   end of\nyear^[[2J
    exit: 0
    --- stdout
    name          nights
    kind          open: only meanwhile something is run, by schedules that name it
    imported by   alice
    imported      2026-11-01 00:00:00 UTC

    no events within a year
    exit: 0
    --- stderr
    invoke: calendar freeze is deleted
    ");
    assert_eq!(bed.stub.seen(&format!("DELETE {DOOR}")).len(), 1);
}
