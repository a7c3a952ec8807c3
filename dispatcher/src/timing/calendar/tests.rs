use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A file with these events, each of them some lines.
fn file(events: &[&str]) -> String {
    let events = events
        .iter()
        .map(|event| format!("BEGIN:VEVENT\n{event}\nEND:VEVENT\n"));
    format!(
        "BEGIN:VCALENDAR\nVERSION:2.0\n{}END:VCALENDAR\n",
        events.collect::<String>()
    )
}

fn calendar(text: &str) -> Calendar {
    let berlin = "Europe/Berlin".parse().unwrap();
    Calendar::parse("freeze", text, Some(&berlin)).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    match Calendar::parse("freeze", text, None) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// `2026-03-29T01:00 +8h Night` for each span of a range, in UTC.
fn listed(calendar: &Calendar, from: &str, until: &str) -> String {
    let spans = calendar.spans(at(from), at(until));
    let lines = spans.iter().map(|span| {
        let length = span.end.duration_since(span.start);
        format!(
            "{} +{length:#} {}",
            span.start.strftime("%FT%RZ"),
            span.summary
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The spans of one event in the spring of 2026, with the change of the clock in it.
fn spring(event: &str) -> String {
    listed(
        &calendar(&file(&[event])),
        "2026-03-26T00:00:00Z",
        "2026-04-02T00:00:00Z",
    )
}

#[test]
fn an_event_is_days_or_times_in_a_zone() {
    let events = [
        // All day, in the zone that was stated: 23 hours on the day of the change.
        "SUMMARY:one day\nDTSTART;VALUE=DATE:20260329",
        "SUMMARY:two days\nDTSTART:20260328\nDTEND:20260330",
        "SUMMARY:a week\nDTSTART:20260328\nDURATION:P1W",
        "SUMMARY:floating\nDTSTART:20260329T180000\nDTEND:20260329T200000",
        "SUMMARY:UTC\nDTSTART:20260329T180000Z\nDTEND:20260329T200000Z",
        "SUMMARY:New York\nDTSTART;TZID=America/New_York:20260329T180000\nDURATION:PT2H",
        "SUMMARY:two zones\nDTSTART;TZID=America/New_York:20260329T180000\nDTEND;TZID=\"Europe/London\":20260330T000000",
        "SUMMARY:in the gap\nDTSTART:20260329T023000\nDURATION:PT1H",
        // A duration of a day is to the same time on the wall, one of 24 hours is not.
        "SUMMARY:a day\nDTSTART:20260328T120000\nDURATION:P1D",
        "SUMMARY:24 hours\nDTSTART:20260328T120000\nDURATION:PT24H",
        "SUMMARY:from DTEND\nDTSTART:20260328T120000\nDTEND:20260329T120000",
    ];
    let spans = events.map(spring);
    insta::assert_snapshot!(spans.join("\n"), @r"
    2026-03-28T23:00Z +23h one day
    2026-03-27T23:00Z +47h two days
    2026-03-27T23:00Z +167h a week
    2026-03-29T16:00Z +2h floating
    2026-03-29T18:00Z +2h UTC
    2026-03-29T22:00Z +2h New York
    2026-03-29T22:00Z +1h two zones
    2026-03-29T01:30Z +1h in the gap
    2026-03-28T11:00Z +23h a day
    2026-03-28T11:00Z +24h 24 hours
    2026-03-28T11:00Z +23h from DTEND
    ");
}

#[test]
fn an_event_recurs_on_the_clock_on_the_wall() {
    let events = [
        "SUMMARY:nights\nDTSTART:20200101T220000\nDURATION:PT8H\nRRULE:FREQ=DAILY",
        "SUMMARY:as long as the first\nDTSTART:20260327T220000\nDTEND:20260328T060000\nRRULE:FREQ=DAILY;COUNT=3",
        "SUMMARY:weekends\nDTSTART:20260103\nDTEND:20260105\nRRULE:FREQ=WEEKLY",
        "SUMMARY:not that one\nDTSTART:20260327T120000\nDURATION:PT1H\nRRULE:FREQ=DAILY\nEXDATE:20260328T120000,20260329T100000Z\nEXDATE;VALUE=DATE:20260401",
        "SUMMARY:and those\nDTSTART:20250101T120000\nDURATION:PT1H\nRDATE:20260328T120000\nRDATE;VALUE=PERIOD:20260329T100000Z/PT30M,20260330T100000Z/20260330T110000Z",
        "SUMMARY:until a day\nDTSTART:20260327T120000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20260329",
        "SUMMARY:until a time\nDTSTART:20260327T120000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20260329T095959Z",
        "SUMMARY:not at its start\nDTSTART:20260326\nRRULE:FREQ=DAILY;COUNT=2\nEXDATE:20260326",
        // The start counts, also where the rule does not say it (RFC 5545, 3.8.5.3).
        "SUMMARY:start off the rule\nDTSTART:20260326\nRRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=2",
    ];
    let spans = events.map(spring);
    insta::assert_snapshot!(spans.join("\n"), @r"
    2026-03-25T21:00Z +8h nights
    2026-03-26T21:00Z +8h nights
    2026-03-27T21:00Z +8h nights
    2026-03-28T21:00Z +8h nights
    2026-03-29T20:00Z +8h nights
    2026-03-30T20:00Z +8h nights
    2026-03-31T20:00Z +8h nights
    2026-04-01T20:00Z +8h nights
    2026-03-27T21:00Z +8h as long as the first
    2026-03-28T21:00Z +8h as long as the first
    2026-03-29T20:00Z +8h as long as the first
    2026-03-27T23:00Z +47h weekends
    2026-03-27T11:00Z +1h not that one
    2026-03-30T10:00Z +1h not that one
    2026-03-31T10:00Z +1h not that one
    2026-03-28T11:00Z +1h and those
    2026-03-29T10:00Z +30m and those
    2026-03-30T10:00Z +1h and those
    2026-03-27T11:00Z +1h until a day
    2026-03-28T11:00Z +1h until a day
    2026-03-29T10:00Z +1h until a day
    2026-03-27T11:00Z +1h until a time
    2026-03-28T11:00Z +1h until a time
    2026-03-26T23:00Z +24h not at its start
    2026-03-25T23:00Z +24h start off the rule
    2026-03-29T22:00Z +24h start off the rule
    ");
}

/// Of the freeze that everybody has.
#[test]
fn a_freeze_comes_every_year() {
    let text = file(&[
        "SUMMARY:Christmas\nDTSTART:20191220\nDTEND:20200107\nRRULE:FREQ=YEARLY",
        "SUMMARY:Black Friday\nDTSTART:20201127\nDURATION:P4D\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=FR;BYMONTHDAY=23,24,25,26,27,28,29",
        "SUMMARY:last working day\nDTSTART:20200131\nRRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "SUMMARY:leap day\nDTSTART:20200229\nRRULE:FREQ=YEARLY",
    ]);
    insta::assert_snapshot!(listed(&calendar(&text), "2027-10-01T00:00:00Z", "2028-03-01T00:00:00Z"), @r"
    2027-10-28T22:00Z +24h last working day
    2027-11-25T23:00Z +96h Black Friday
    2027-11-29T23:00Z +24h last working day
    2027-12-19T23:00Z +432h Christmas
    2027-12-30T23:00Z +24h last working day
    2028-01-30T23:00Z +24h last working day
    2028-02-28T23:00Z +24h last working day
    2028-02-28T23:00Z +24h leap day
    ");
}

#[test]
fn an_event_that_was_moved_or_cancelled_is_not_where_it_was() {
    let text = file(&[
        "UID:1\nSUMMARY:moved\nDTSTART:20260330T120000\nDURATION:PT2H\nRECURRENCE-ID:20260328T120000",
        "UID:1\nSUMMARY:daily\nDTSTART:20260327T120000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=4",
        "UID:1\nSTATUS:CANCELLED\nSUMMARY:cancelled\nDTSTART:20260329T120000\nDURATION:PT1H\nRECURRENCE-ID;TZID=Europe/Berlin:20260329T120000",
        "UID:2\nSUMMARY:another\nDTSTART:20260328T120000\nDURATION:PT1H",
        "UID:3\nSTATUS:CANCELLED\nSUMMARY:cancelled\nDTSTART:20260328T120000\nDURATION:PT1H",
    ]);
    insta::assert_snapshot!(listed(&calendar(&text), "2026-03-26T00:00:00Z", "2026-04-02T00:00:00Z"), @r"
    2026-03-27T11:00Z +1h daily
    2026-03-28T11:00Z +1h another
    2026-03-30T10:00Z +1h daily
    2026-03-30T10:00Z +2h moved
    ");
}

const OUTLOOK: &str = "BEGIN:VTIMEZONE\r
TZID:W. Europe Standard Time\r
BEGIN:STANDARD\r
DTSTART:16010101T030000\r
TZOFFSETFROM:+0200\r
TZOFFSETTO:+0100\r
RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=10\r
END:STANDARD\r
BEGIN:DAYLIGHT\r
DTSTART:16010101T020000\r
TZOFFSETFROM:+0100\r
TZOFFSETTO:+0200\r
RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=3\r
END:DAYLIGHT\r
END:VTIMEZONE\r
";

const MANY_RULES: &str = "BEGIN:VTIMEZONE
TZID:/example.org/New York
BEGIN:DAYLIGHT
DTSTART:19870405T020000
TZOFFSETFROM:-0500
TZOFFSETTO:-0400
RRULE:FREQ=YEARLY;BYMONTH=4;BYDAY=1SU;UNTIL=20060402T070000Z
END:DAYLIGHT
BEGIN:DAYLIGHT
DTSTART:20070311T020000
TZOFFSETFROM:-0500
TZOFFSETTO:-0400
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=2SU
END:DAYLIGHT
BEGIN:DAYLIGHT
DTSTART:20100404T020000
TZOFFSETFROM:-0500
TZOFFSETTO:-0400
RRULE:FREQ=YEARLY;BYMONTH=4;BYDAY=1SU;UNTIL=20110403T070000Z
END:DAYLIGHT
BEGIN:STANDARD
DTSTART:20071104T020000
TZOFFSETFROM:-0400
TZOFFSETTO:-0500
RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=1SU
END:STANDARD
BEGIN:STANDARD
DTSTART:19670101T000000
TZOFFSETFROM:-0600
TZOFFSETTO:-0600
END:STANDARD
END:VTIMEZONE
";

const FIXED: &str = "BEGIN:VTIMEZONE
TZID:Half
BEGIN:STANDARD
DTSTART:19700101T000000
TZOFFSETFROM:+0000
TZOFFSETTO:-033000
END:STANDARD
END:VTIMEZONE
";

/// The zones of Windows have no names that anybody else knows; their rules are in the file.
#[test]
fn a_zone_that_the_file_describes_is_understood() {
    let in_zone = |described: &str, zone: &str| {
        let event = format!(
            "SUMMARY:{zone}\nDTSTART;TZID={zone}:20260301T120000\nDURATION:PT1H\nRDATE;TZID={zone}:20260315T120000,20260329T120000,20261101T120000"
        );
        let text = file(&[&event]).replacen("BEGIN:VEVENT", &format!("{described}BEGIN:VEVENT"), 1);
        listed(
            &calendar(&text),
            "2026-01-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        )
    };
    let lines = [
        in_zone(OUTLOOK, "W. Europe Standard Time"),
        in_zone(MANY_RULES, "/example.org/New York"),
        in_zone(FIXED, "Half"),
        // The database knows better than a file that says something else about a zone of that name.
        in_zone(&FIXED.replace("Half", "Europe/Berlin"), "Europe/Berlin"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    2026-03-01T11:00Z +1h W. Europe Standard Time
    2026-03-15T11:00Z +1h W. Europe Standard Time
    2026-03-29T10:00Z +1h W. Europe Standard Time
    2026-11-01T11:00Z +1h W. Europe Standard Time
    2026-03-01T17:00Z +1h /example.org/New York
    2026-03-15T16:00Z +1h /example.org/New York
    2026-03-29T16:00Z +1h /example.org/New York
    2026-11-01T17:00Z +1h /example.org/New York
    2026-03-01T15:30Z +1h Half
    2026-03-15T15:30Z +1h Half
    2026-03-29T15:30Z +1h Half
    2026-11-01T15:30Z +1h Half
    2026-03-01T11:00Z +1h Europe/Berlin
    2026-03-15T11:00Z +1h Europe/Berlin
    2026-03-29T10:00Z +1h Europe/Berlin
    2026-11-01T11:00Z +1h Europe/Berlin
    ");
}

/// In this order: what was asked for, what the file says, UTC.
#[test]
fn what_has_no_zone_is_in_a_stated_one() {
    let silent = file(&["DTSTART:20260101"]);
    let named = silent.replace("VERSION:2.0", "X-WR-TIMEZONE:Asia/Kathmandu");
    let start = |text: &str, zone: Option<&str>| {
        let zone = zone.map(|zone| zone.parse().unwrap());
        let calendar = Calendar::parse("a", text, zone.as_ref()).unwrap();
        calendar.spans(at("2025-12-31T00:00:00Z"), at("2026-01-03T00:00:00Z"))[0].start
    };
    assert_eq!(start(&silent, None), at("2026-01-01T00:00:00Z"));
    assert_eq!(start(&named, None), at("2025-12-31T18:15:00Z"));
    assert_eq!(
        start(&named, Some("Europe/Berlin")),
        at("2025-12-31T23:00:00Z")
    );
}

#[test]
fn lines_are_read_as_programs_write_them() {
    let text = "\u{feff}begin:vcalendar\r\nPRODID:-//x//y\r\nBEGIN:VTODO\r\nDUE:20260101\r\nEND:VTODO\r\n\
        BEGIN:VEVENT\r\nSUMMARY;LANGUAGE=\"de:DE\":Einfrieren\\, 1.\\nTeil \u{1b}[31m und ein la\r\n nger T\r\n\text\r\n\
        dtstart;value=date:20260101\r\nBEGIN:VALARM\r\nTRIGGER:-PT5M\r\nEND:VALARM\r\nEND:VEVENT\r\n\r\nend:vcalendar";
    let calendar = calendar(text);
    assert_eq!(
        calendar.covers(at("2026-01-01T12:00:00Z")),
        Some("Einfrieren, 1. Teil  [31m und ein langer Text")
    );
    assert_eq!(calendar.covers(at("2026-01-02T12:00:00Z")), None);
    assert_eq!(calendar.name(), "freeze");
}

#[test]
fn a_broken_file_is_refused_with_what_to_write_instead() {
    let event = |lines: &str| file(&[lines]);
    let rule = |rule: &str| {
        file(&[&format!(
            "DTSTART:20260101T000000\nDURATION:PT1H\nRRULE:{rule}"
        )])
    };
    let files = [
        String::new(),
        "<html>".to_owned(),
        "SUMMARY:x".to_owned(),
        "BEGIN:VEVENT\nEND:VEVENT".to_owned(),
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\nEND:VCALENDAR".to_owned(),
        "BEGIN:VCALENDAR\nEND:VCALENDAR\nEND:VCALENDAR".to_owned(),
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101".to_owned(),
        "BEGIN:VCALENDAR\n".repeat(5),
        file(&[]),
        event("SUMMARY:x"),
        event("DTSTART:20260101\nDTSTART:20260102"),
        event("DTSTART:20260101\nDTEND"),
        event("DTSTART:2026-01-01"),
        event("DTSTART:20260230"),
        event("DTSTART:20260101T250000"),
        event("DTSTART:20260101T000000"),
        event("DTSTART:20260102\nDTEND:20260101"),
        event("DTSTART:20260102\nDTEND:20260102"),
        event("DTSTART:20260102\nDTEND:20260102T120000"),
        event("DTSTART:20260102\nDURATION:-P1D"),
        event("DTSTART:20260102\nDURATION:P1M"),
        event("DTSTART:20260102\nDURATION:2 days"),
        event("DTSTART:20260102\nDTEND:20260103\nDURATION:P1D"),
        event("DTSTART:99991231T235959\nDURATION:PT1H"),
        event("DTSTART;TZID=W. Europe Standard Time:20260101T000000\nDURATION:PT1H"),
        event("DTSTART:20260101\nRDATE:20260201,soon"),
        event("DTSTART:20260101\nRDATE;VALUE=PERIOD:20260201"),
        event("DTSTART:20260101\nEXRULE:FREQ=DAILY"),
        event("DTSTART:20260101\nRECURRENCE-ID;RANGE=THISANDFUTURE:20260101"),
        event("DTSTART:20260101\nDURATION:P400D\nRRULE:FREQ=YEARLY"),
        event("DTSTART:20260101\nRRULE:FREQ=DAILY;BYHOUR=3"),
        rule("BYDAY=MO"),
        rule("FREQ=SECONDLY"),
        rule("FREQ=FORTNIGHTLY"),
        rule("FREQ=DAILY;INTERVAL=0"),
        rule("FREQ=DAILY;COUNT=0"),
        rule("FREQ=DAILY;COUNT=2;UNTIL=20270101"),
        rule("FREQ=DAILY;COUNT=999999999"),
        rule("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;COUNT=2"),
        rule("FREQ=DAILY;UNTIL=tomorrow"),
        rule("FREQ=YEARLY;BYMONTH=13"),
        rule("FREQ=MONTHLY;BYMONTHDAY=0"),
        rule("FREQ=MONTHLY;BYMONTHDAY=-128"),
        rule("FREQ=MONTHLY;BYDAY=1XX"),
        rule("FREQ=WEEKLY;BYDAY=1MO"),
        rule("FREQ=WEEKLY;BYMONTHDAY=1"),
        rule("FREQ=YEARLY;BYWEEKNO=52"),
        rule("FREQ=DAILY;BYEASTER=0"),
        rule("FREQ=DAILY;nonsense"),
        event("DTSTART:20260101").replace("VERSION:2.0", "X-WR-TIMEZONE:Mars/Olympus"),
        event("DTSTART;TZID=Half:20260101")
            .replace("VERSION:2.0\n", &FIXED.replace("TZOFFSETTO:-033000\n", "")),
    ];
    let refusals = files.map(|text| refusal(&text));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    the file has no event: write at least one BEGIN:VEVENT … END:VEVENT into it
    line 1: "<html>" is no line of an iCalendar file: it begins with BEGIN:VCALENDAR, and each line is NAME:VALUE
    line 1: "SUMMARY:x" is outside of BEGIN:VCALENDAR and END:VCALENDAR
    line 1: "BEGIN:VEVENT" is outside of BEGIN:VCALENDAR and END:VCALENDAR
    line 2: BEGIN:VEVENT has no END:VEVENT: is the file cut off?
    line 3: END:VCALENDAR ends what did not begin
    line 2: BEGIN:VEVENT has no END:VEVENT: is the file cut off?
    line 5: BEGIN:VCALENDAR is nested too deeply
    the file has no event: write at least one BEGIN:VEVENT … END:VEVENT into it
    line 3: the event has no DTSTART: write when it begins, for example DTSTART:20261224T000000Z
    line 5: DTSTART is there twice in one event
    line 5: "DTEND" is no line of an iCalendar file: it begins with BEGIN:VCALENDAR, and each line is NAME:VALUE
    line 4: "2026-01-01" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 4: "20260230" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 4: "20260101T250000" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 3: the event has no end: write DTEND or DURATION, for example DURATION:PT8H
    line 5: the event ends before or when it begins: write a later DTEND, or a DURATION above zero
    line 5: the event ends before or when it begins: write a later DTEND, or a DURATION above zero
    line 5: "20260102T120000" does not go with DTSTART: write two days, or two times
    line 5: the event ends before or when it begins: write a later DTEND, or a DURATION above zero
    line 5: "P1M" is no duration: write for example P2D or PT8H
    line 5: "2 days" is no duration: write for example P2D or PT8H
    line 6: the end (DTEND, DURATION) is there twice in one event
    line 4: "99991231T235959" is beyond every calendar
    line 4: the zone "W. Europe Standard Time" is not in the time zone database, and the file has no VTIMEZONE of that name: write for example TZID=Europe/Berlin
    line 5: "soon" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 5: "20260201" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 5: EXRULE is not read: write an event of its own for what it means
    line 5: RANGE=THISANDFUTURE is not read: write an event of its own for what it means
    line 3: an event that repeats may last 366 days at most: write one event that does not repeat
    line 5: a time of day (BYHOUR) of an event of whole days is not read: write an event of its own for what it means
    line 6: the rule has no FREQ: write FREQ=DAILY, WEEKLY, MONTHLY or YEARLY
    line 6: FREQ=SECONDLY is not read: write one longer event, or FREQ=DAILY with BYHOUR
    line 6: FREQ=FORTNIGHTLY is not read: write one longer event, or FREQ=DAILY with BYHOUR
    line 6: INTERVAL "0" in the rule is out of range: write 1 to 1000
    line 6: COUNT "0" in the rule is out of range: write 1 or more
    line 6: the rule has COUNT and UNTIL: write one of them
    line 6: the rule does not come to its COUNT in fifty years: write UNTIL
    line 6: the rule does not come to its COUNT in fifty years: write UNTIL
    line 6: "tomorrow" is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z
    line 6: BYMONTH "13" in the rule is out of range: write 1 to 12
    line 6: BYMONTHDAY "0" in the rule is out of range: write 1 to 31, or -31 to -1 from the end
    line 6: BYMONTHDAY "-128" in the rule is out of range: write 1 to 31, or -31 to -1 from the end
    line 6: BYDAY "1XX" in the rule is out of range: write MO to SU, 1MO to 53MO, or -1MO from the end
    line 6: a BYDAY with a number does not go with FREQ=WEEKLY
    line 6: BYMONTHDAY does not go with FREQ=WEEKLY
    line 6: BYWEEKNO (weeks of the year) is not read: write an event of its own for what it means
    line 6: "BYEASTER=0" in the rule is unknown: write for example RRULE:FREQ=YEARLY;BYMONTH=12;BYDAY=1FR
    line 6: "nonsense" in the rule is unknown: write for example RRULE:FREQ=YEARLY;BYMONTH=12;BYDAY=1FR
    line 2: the zone "Mars/Olympus" is not in the time zone database, and the file has no VTIMEZONE of that name: write for example TZID=Europe/Berlin
    line 10: the zone "Half" is not in the time zone database, and its VTIMEZONE is not one yearly rule for each change: write for example TZID=Europe/Berlin
    "#);
    let zone = "Europe/Belrin".parse().unwrap();
    let error = Calendar::parse("a", &file(&["DTSTART:20260101"]), Some(&zone)).unwrap_err();
    insta::assert_snapshot!(error, @"there is no time zone Europe/Belrin; did you mean Europe/Berlin?");
}

/// Whoever may import a file may not stop the dispatcher with it.
#[test]
fn a_hostile_file_is_refused() {
    let large = file(&[&format!(
        "DTSTART:20260101\nSUMMARY:{}",
        "x".repeat(MAX_BYTES)
    )]);
    let many = file(&vec!["DTSTART:20260101"; MAX_EVENTS + 1]);
    let often = "DTSTART:20260101T000000\nDURATION:PT1M\nRRULE:FREQ=DAILY;BYHOUR=0,1,2,3,4,5;BYMINUTE=0,1,2,3,4,5";
    let often = file(&vec![often; 100]);
    let lists =
        |list: &str| format!("DTSTART:20260101T000000\nDURATION:PT1M\nRRULE:FREQ=DAILY;{list}");
    let numbers = "0,".repeat(50_000);
    let long = file(&[&lists(&format!(
        "BYHOUR={numbers}0;BYMINUTE={numbers}0;BYSECOND={numbers}0;COUNT=999999999"
    ))]);
    let every_second: Vec<_> = (0..60).map(|second| second.to_string()).collect();
    let every_second = every_second.join(",");
    let seconds = file(&[&lists(&format!(
        "BYMINUTE={every_second};BYSECOND={every_second};COUNT=4000000000"
    ))]);
    let days = file(&[&lists(&format!("BYDAY={}MO", "MO,".repeat(100)))]);
    let counted = file(&["DTSTART:20260101\nRRULE:FREQ=YEARLY;COUNT=60"]);
    let refusals = [large, many, often, long, seconds, days, counted].map(|text| refusal(&text));
    insta::assert_snapshot!(refusals.join("\n"), @r"
    the file has 1048668 bytes; at most 1048576 (1 MiB) are read: remove what is long past
    the file has 5001 events; at most 5000 are read: remove what is long past, or write rules (RRULE)
    the events of the file repeat so often that 18000 recurrences may be near one day; at most 5000 are read: write fewer, longer events
    line 6: the rule does not come to its COUNT in fifty years: write UNTIL
    line 6: an event of more than 48 times a day is not read: write an event of its own for what it means
    line 6: a BYDAY of so many days is not read: write an event of its own for what it means
    line 5: the rule does not come to its COUNT in fifty years: write UNTIL
    ");
}

/// What is allowed is answered at once, whatever is asked for: no range is longer than ten years, no answer
/// longer than [`MAX_SPANS`].
#[test]
fn the_largest_file_has_an_answer() {
    let daily = "DTSTART:19700101T000000\nDURATION:PT1H\nRRULE:FREQ=DAILY";
    let never = "DTSTART:19700101\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30";
    let mut events = vec![daily; 500];
    events.extend(vec![never; 1000]);
    events.extend(vec!["DTSTART:20260101\nDURATION:P10000D"; 3500]);
    let calendar = calendar(&file(&events));
    assert_eq!(calendar.covers(at("1999-07-01T12:00:00Z")), None);
    let spans = calendar.spans(Timestamp::MIN, Timestamp::MAX);
    assert_eq!(spans.len(), 0);
    let spans = calendar.spans(at("2026-01-01T00:00:00Z"), Timestamp::MAX);
    assert_eq!(spans.len(), MAX_SPANS);
    assert_eq!(spans[MAX_SPANS - 1].start, at("2025-12-31T23:00:00Z"));
    for edge in [Timestamp::MIN, Timestamp::MAX] {
        assert_eq!(calendar.covers(edge), None);
    }
}

/// Rules of all kinds that both this and the rrule crate read.
fn rule() -> impl Strategy<Value = String> {
    let days = proptest::sample::subsequence(vec!["MO", "TU", "WE", "TH", "FR", "SA", "SU"], 1..4);
    let numbers = proptest::sample::select(vec!["1", "2", "-1", "-3"]);
    let nth_days = (numbers, days.clone()).prop_map(|(nth, days)| {
        let days: Vec<_> = days.iter().map(|day| format!("{nth}{day}")).collect();
        format!(";BYDAY={}", days.join(","))
    });
    let days = days.prop_map(|days| format!(";BYDAY={}", days.join(",")));
    let list = |name: &'static str, values: std::ops::RangeInclusive<i32>| {
        proptest::collection::btree_set(values, 1..4).prop_map(move |values| {
            let values: Vec<_> = values
                .iter()
                .filter(|v| **v != 0)
                .map(i32::to_string)
                .collect();
            match values.as_slice() {
                [] => String::new(),
                values => format!(";{name}={}", values.join(",")),
            }
        })
    };
    let maybe = |part: BoxedStrategy<String>| prop_oneof![1 => part, 2 => Just(String::new())];
    (
        proptest::sample::select(vec!["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]),
        1..5_i32,
        maybe(list("BYMONTH", 1..=12).boxed()),
        // The other implementation takes very long to see that nothing recurs: two conditions at most.
        prop_oneof![
            Just(String::new()),
            nth_days,
            days.clone(),
            list("BYMONTHDAY", -28..=28),
            (days.clone(), list("BYMONTHDAY", 1..=28)).prop_map(|(one, other)| one + &other),
            (days, list("BYSETPOS", -2..=2)).prop_map(|(one, other)| one + &other),
        ],
        maybe(list("BYHOUR", 1..=23).boxed()),
        maybe(
            prop_oneof![
                (1..40_i32).prop_map(|count| format!(";COUNT={count}")),
                (2024..2030_i32).prop_map(|year| format!(";UNTIL={year}0701T120000Z")),
                Just(";WKST=SU".to_owned()),
            ]
            .boxed(),
        ),
    )
        .prop_map(|(frequency, interval, month, days, hour, end)| {
            format!("FREQ={frequency};INTERVAL={interval}{month}{days}{hour}{end}")
        })
}

/// What the rrule crate makes of a rule.
fn theirs(rule: &str, start: Timestamp) -> Option<impl Iterator<Item = Timestamp>> {
    let start = start.strftime("%Y%m%dT%H%M%SZ");
    let rule = format!("DTSTART:{start}\nRRULE:{rule}").parse::<rrule::RRuleSet>();
    let all = rule.ok()?.into_iter();
    Some(all.map_while(|date| Timestamp::from_second(date.timestamp()).ok()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Another implementation, which walks from the start, finds the same.
    #[test]
    fn a_rule_is_what_another_implementation_finds(
        rule in rule(),
        start in 0..3000_i64,
        from in 0..1000_i64,
    ) {
        let start = at("2020-01-01T09:30:00Z") + SignedDuration::from_hours(24 * start);
        let from = start + SignedDuration::from_hours(24 * from);
        let until = from + SignedDuration::from_hours(24 * 300);
        // It leaves the days before the start out of the first week, and so counts other places in it.
        prop_assume!(!(rule.contains("WEEKLY") && rule.contains("BYSETPOS")));
        // Whether a start off the rule is a recurrence, and counts, is read in two ways: begin on it.
        let Some(start) = theirs(&rule, start).and_then(|mut all| all.next()) else { return Ok(()) };
        let theirs = theirs(&rule, start).unwrap().take_while(|date| *date < until);
        let theirs: Vec<_> = theirs.filter(|start| *start >= from).collect();
        let written = start.strftime("%Y%m%dT%H%M%SZ");
        let text = file(&[&format!("DTSTART:{written}\nDURATION:PT1H\nRRULE:{rule}")]);
        let ours = Calendar::parse("a", &text, None);
        let ours = match ours {
            Err(Error::Line { problem: Problem::CountNotReached | Problem::RuleMismatch(..), .. }) => return Ok(()),
            ours => ours.unwrap().spans(from, until),
        };
        let ours: Vec<_> = ours.into_iter().map(|span| span.start).filter(|start| *start >= from).collect();
        prop_assert_eq!(ours, theirs, "{} {}", written, rule);
    }

    #[test]
    fn what_covers_an_instant_is_a_span_that_it_is_in(
        rule in rule(),
        hours in 1..60_i64,
        instant in 0..2000 * 24_i64,
    ) {
        let text = file(&[&format!("DTSTART:20220331T220000\nDURATION:PT{hours}H\nRRULE:{rule}")]);
        let berlin = "Europe/Berlin".parse().unwrap();
        let Ok(calendar) = Calendar::parse("a", &text, Some(&berlin)) else { return Ok(()) };
        let instant = at("2022-03-01T00:00:00Z") + SignedDuration::from_hours(instant);
        let around = calendar.spans(instant - SignedDuration::from_hours(100), instant + SignedDuration::from_hours(100));
        let is_in = around.iter().any(|span| span.start <= instant && instant < span.end);
        prop_assert_eq!(calendar.covers(instant).is_some(), is_in);
    }

    #[test]
    fn no_file_makes_it_panic(lines in proptest::collection::vec(prop_oneof![
        Just("BEGIN:VCALENDAR".to_owned()),
        Just("BEGIN:VEVENT".to_owned()),
        Just("END:VEVENT".to_owned()),
        Just("END:VCALENDAR".to_owned()),
        Just(OUTLOOK.to_owned()),
        "(DTSTART|DTEND|RDATE|EXDATE|RECURRENCE-ID)(;TZID=[A-Z. ]{0,5})?:[0-9]{8}(T[0-9]{6}Z?)?",
        "DURATION:-?P[0-9]{1,12}[WDYM]",
        "RRULE:FREQ=(DAILY|WEEKLY|YEARLY);(COUNT|INTERVAL|BYMONTHDAY|BYSETPOS|BYDAY)=-?[0-9]{1,5}(MO)?",
        "[ -~ä\t]{0,30}",
    ], 0..30)) {
        for text in [lines.join("\n"), file(&[&lines.join("\n")])] {
            if let Ok(calendar) = Calendar::parse("a", &text, None) {
                let _ = calendar.spans(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
                let _ = calendar.covers(Timestamp::MAX);
            }
        }
    }
}
