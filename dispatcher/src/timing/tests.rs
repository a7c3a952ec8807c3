use std::collections::BTreeSet;

use invoke_protocol::timing::TimeZoneName;
use jiff::civil::{Date, DateTime, date};
use jiff::{ToSpan as _, Zoned};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn timing(zone: &str, when: When) -> Timing {
    Timing {
        when,
        time_zone: zone.parse().unwrap(),
        offset: None,
        window_seconds: None,
        cutoff_seconds: None,
        at_window_end: AtWindowEnd::Finish,
        jitter_seconds: None,
    }
}

fn cron(zone: &str, expression: &str) -> Timing {
    let expression = expression.to_owned();
    timing(zone, When::Cron { expression })
}

fn every(zone: &str, seconds: u64, from: &str) -> Timing {
    let from = at(from);
    timing(zone, When::Every { seconds, from })
}

fn plan(timing: &Timing) -> Plan {
    Plan::new(timing, Calendars::default()).unwrap()
}

fn refusal(timing: &Timing) -> String {
    match Plan::new(timing, Calendars::default()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// `03-29 03:00+02 (01:00Z) gap 02:30`, for each tick of a range.
fn listed(plan: &Plan, from: Timestamp, until: Timestamp) -> Vec<String> {
    plan.ticks_after(from)
        .take_while(|tick| tick.instant <= until)
        .map(|tick| {
            let local = tick.instant.to_zoned(plan.zone().clone());
            let (local, utc) = (
                local.strftime("%m-%d %H:%M%z"),
                tick.instant.strftime("%H:%MZ"),
            );
            let shift = match tick.shift {
                None => String::new(),
                Some(Shift::Gap { wanted }) => format!(" gap {}", wanted.strftime("%H:%M")),
                Some(Shift::Fold { pass }) => format!(" fold {pass:?}"),
                Some(Shift::UtcOffset {
                    before_seconds,
                    after_seconds,
                }) => format!(" {:+} min", (after_seconds - before_seconds) / 60),
            };
            format!("{local} ({utc}){shift}")
        })
        .collect()
}

/// The changes of the clock that docs/schedules.md shows.
const CHANGES: [(&str, &str, &str); 8] = [
    ("Europe/Berlin", "gap", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "fold", "2026-10-25T01:00:00Z"),
    ("America/New_York", "gap", "2026-03-08T07:00:00Z"),
    ("America/New_York", "fold", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "gap", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "fold", "2026-04-04T15:00:00Z"),
    ("Asia/Kathmandu", "gap", "1985-12-31T18:30:00Z"),
    ("Asia/Kathmandu", "no change", "2026-03-28T20:15:00Z"),
];

/// A fixed time runs once on every day, whatever the clock does; everything else keeps its distance.
#[test]
fn each_zone_keeps_the_rules_of_daylight_saving() {
    let mut table = String::new();
    for (zone, kind, change) in CHANGES {
        let change = at(change);
        let rules = TimeZone::get(zone).unwrap();
        // What the clock skips, or shows twice.
        let offset = match kind {
            "gap" => rules.to_offset(change - 1.second()),
            _ => rules.to_offset(change),
        };
        let hidden = offset.to_datetime(change + 10.minutes());
        let fixed = cron(
            zone,
            &format!("{} {} * * *", hidden.minute(), hidden.hour()),
        );
        let wildcard = cron(zone, "*/20 * * * *");
        let every = every(zone, 1200, &(change - 10_000.hours()).to_string());
        for (what, timing, hours) in [
            ("fixed", fixed, 25),
            ("wildcard", wildcard, 1),
            ("every", every, 1),
        ] {
            let (from, until) = (change - hours.hours(), change + hours.hours());
            table += &format!("{zone}, {kind}, {what}\n");
            for line in listed(&plan(&timing), from, until) {
                table += &format!("  {line}\n");
            }
        }
    }
    insta::assert_snapshot!(table, @r"
    Europe/Berlin, gap, fixed
      03-28 02:10+0100 (01:10Z)
      03-29 03:00+0200 (01:00Z) gap 02:10
      03-30 02:10+0200 (00:10Z)
    Europe/Berlin, gap, wildcard
      03-29 01:20+0100 (00:20Z)
      03-29 01:40+0100 (00:40Z)
      03-29 03:00+0200 (01:00Z) +60 min
      03-29 03:20+0200 (01:20Z)
      03-29 03:40+0200 (01:40Z)
      03-29 04:00+0200 (02:00Z)
    Europe/Berlin, gap, every
      03-29 01:20+0100 (00:20Z)
      03-29 01:40+0100 (00:40Z)
      03-29 03:00+0200 (01:00Z) +60 min
      03-29 03:20+0200 (01:20Z)
      03-29 03:40+0200 (01:40Z)
      03-29 04:00+0200 (02:00Z)
    Europe/Berlin, fold, fixed
      10-24 02:10+0200 (00:10Z)
      10-25 02:10+0200 (00:10Z) fold First
      10-26 02:10+0100 (01:10Z) -60 min
    Europe/Berlin, fold, wildcard
      10-25 02:20+0200 (00:20Z) fold First
      10-25 02:40+0200 (00:40Z) fold First
      10-25 02:00+0100 (01:00Z) fold Second
      10-25 02:20+0100 (01:20Z) fold Second
      10-25 02:40+0100 (01:40Z) fold Second
      10-25 03:00+0100 (02:00Z)
    Europe/Berlin, fold, every
      10-25 02:20+0200 (00:20Z) fold First
      10-25 02:40+0200 (00:40Z) fold First
      10-25 02:00+0100 (01:00Z) fold Second
      10-25 02:20+0100 (01:20Z) fold Second
      10-25 02:40+0100 (01:40Z) fold Second
      10-25 03:00+0100 (02:00Z)
    America/New_York, gap, fixed
      03-07 02:10-0500 (07:10Z)
      03-08 03:00-0400 (07:00Z) gap 02:10
      03-09 02:10-0400 (06:10Z)
    America/New_York, gap, wildcard
      03-08 01:20-0500 (06:20Z)
      03-08 01:40-0500 (06:40Z)
      03-08 03:00-0400 (07:00Z) +60 min
      03-08 03:20-0400 (07:20Z)
      03-08 03:40-0400 (07:40Z)
      03-08 04:00-0400 (08:00Z)
    America/New_York, gap, every
      03-08 01:20-0500 (06:20Z)
      03-08 01:40-0500 (06:40Z)
      03-08 03:00-0400 (07:00Z) +60 min
      03-08 03:20-0400 (07:20Z)
      03-08 03:40-0400 (07:40Z)
      03-08 04:00-0400 (08:00Z)
    America/New_York, fold, fixed
      10-31 01:10-0400 (05:10Z)
      11-01 01:10-0400 (05:10Z) fold First
      11-02 01:10-0500 (06:10Z) -60 min
    America/New_York, fold, wildcard
      11-01 01:20-0400 (05:20Z) fold First
      11-01 01:40-0400 (05:40Z) fold First
      11-01 01:00-0500 (06:00Z) fold Second
      11-01 01:20-0500 (06:20Z) fold Second
      11-01 01:40-0500 (06:40Z) fold Second
      11-01 02:00-0500 (07:00Z)
    America/New_York, fold, every
      11-01 01:20-0400 (05:20Z) fold First
      11-01 01:40-0400 (05:40Z) fold First
      11-01 01:00-0500 (06:00Z) fold Second
      11-01 01:20-0500 (06:20Z) fold Second
      11-01 01:40-0500 (06:40Z) fold Second
      11-01 02:00-0500 (07:00Z)
    Australia/Lord_Howe, gap, fixed
      10-03 02:10+1030 (15:40Z)
      10-04 02:30+1100 (15:30Z) gap 02:10
      10-05 02:10+1100 (15:10Z)
    Australia/Lord_Howe, gap, wildcard
      10-04 01:20+1030 (14:50Z)
      10-04 01:40+1030 (15:10Z)
      10-04 02:40+1100 (15:40Z) +30 min
      10-04 03:00+1100 (16:00Z)
      10-04 03:20+1100 (16:20Z)
    Australia/Lord_Howe, gap, every
      10-04 01:20+1030 (14:50Z)
      10-04 01:40+1030 (15:10Z)
      10-04 02:30+1100 (15:30Z) +30 min
      10-04 02:50+1100 (15:50Z)
      10-04 03:10+1100 (16:10Z)
      10-04 03:30+1100 (16:30Z)
    Australia/Lord_Howe, fold, fixed
      04-04 01:40+1100 (14:40Z)
      04-05 01:40+1100 (14:40Z) fold First
      04-06 01:40+1030 (15:10Z) -30 min
    Australia/Lord_Howe, fold, wildcard
      04-05 01:20+1100 (14:20Z)
      04-05 01:40+1100 (14:40Z) fold First
      04-05 01:40+1030 (15:10Z) fold Second
      04-05 02:00+1030 (15:30Z)
      04-05 02:20+1030 (15:50Z)
    Australia/Lord_Howe, fold, every
      04-05 01:20+1100 (14:20Z)
      04-05 01:40+1100 (14:40Z) fold First
      04-05 01:30+1030 (15:00Z) fold Second
      04-05 01:50+1030 (15:20Z) fold Second
      04-05 02:10+1030 (15:40Z)
      04-05 02:30+1030 (16:00Z)
    Asia/Kathmandu, gap, fixed
      12-31 00:10+0530 (18:40Z)
      01-01 00:15+0545 (18:30Z) gap 00:10
      01-02 00:10+0545 (18:25Z)
    Asia/Kathmandu, gap, wildcard
      12-31 23:20+0530 (17:50Z)
      12-31 23:40+0530 (18:10Z)
      01-01 00:20+0545 (18:35Z) +15 min
      01-01 00:40+0545 (18:55Z)
      01-01 01:00+0545 (19:15Z)
    Asia/Kathmandu, gap, every
      12-31 23:20+0530 (17:50Z)
      12-31 23:40+0530 (18:10Z)
      01-01 00:15+0545 (18:30Z) +15 min
      01-01 00:35+0545 (18:50Z)
      01-01 00:55+0545 (19:10Z)
      01-01 01:15+0545 (19:30Z)
    Asia/Kathmandu, no change, fixed
      03-28 02:10+0545 (20:25Z)
      03-29 02:10+0545 (20:25Z)
      03-30 02:10+0545 (20:25Z)
    Asia/Kathmandu, no change, wildcard
      03-29 01:20+0545 (19:35Z)
      03-29 01:40+0545 (19:55Z)
      03-29 02:00+0545 (20:15Z)
      03-29 02:20+0545 (20:35Z)
      03-29 02:40+0545 (20:55Z)
      03-29 03:00+0545 (21:15Z)
    Asia/Kathmandu, no change, every
      03-29 01:20+0545 (19:35Z)
      03-29 01:40+0545 (19:55Z)
      03-29 02:00+0545 (20:15Z)
      03-29 02:20+0545 (20:35Z)
      03-29 02:40+0545 (20:55Z)
      03-29 03:00+0545 (21:15Z)
    ");
}

/// A list of hours is as fixed as one hour: none of them may be lost in the gap or run twice in the fold.
#[test]
fn lists_and_ranges_are_fixed_times() {
    for expression in ["0,30 2,14 * * *", "0-30/30 2-14/12 * * *"] {
        let plan = plan(&cron("Europe/Berlin", expression));
        let gap = listed(
            &plan,
            at("2026-03-29T00:00:00Z"),
            at("2026-03-29T20:00:00Z"),
        );
        let fold = listed(
            &plan,
            at("2026-10-24T22:00:00Z"),
            at("2026-10-25T20:00:00Z"),
        );
        insta::allow_duplicates! {
            insta::assert_snapshot!([gap, fold].concat().join("\n"), @r"
            03-29 03:00+0200 (01:00Z) gap 02:00
            03-29 14:00+0200 (12:00Z)
            03-29 14:30+0200 (12:30Z)
            10-25 02:00+0200 (00:00Z) fold First
            10-25 02:30+0200 (00:30Z) fold First
            10-25 14:00+0100 (13:00Z) -60 min
            10-25 14:30+0100 (13:30Z)
            ");
        }
    }
}

/// Also for a dispatcher that begins to look when the clock shows the time once more.
#[test]
fn a_fixed_time_is_over_when_it_is_shown_again() {
    let plan = plan(&cron("Europe/Berlin", "30 2 * * *"));
    let second_pass = at("2026-10-25T01:10:00Z");
    assert_eq!(
        listed(&plan, second_pass, second_pass + 30.hours()),
        ["10-26 02:30+0100 (01:30Z) -60 min"]
    );
}

/// Some zones change at midnight, and one once left out a day: what was meant for then is not lost.
#[test]
fn a_gap_may_be_at_midnight_or_a_whole_day_long() {
    let beirut = plan(&cron("Asia/Beirut", "0 0 29 3 *"));
    let beirut = listed(
        &beirut,
        at("2026-01-01T00:00:00Z"),
        at("2026-12-31T00:00:00Z"),
    );
    let apia = plan(&cron("Pacific/Apia", "0 3 * * *"));
    let apia = listed(
        &apia,
        at("2011-12-29T00:00:00Z"),
        at("2012-01-01T00:00:00Z"),
    );
    insta::assert_snapshot!([beirut, apia].concat().join("\n"), @r"
    03-29 01:00+0300 (22:00Z) gap 00:00
    12-29 03:00-1000 (13:00Z)
    12-31 00:00+1400 (10:00Z) gap 03:00
    12-31 03:00+1400 (13:00Z)
    01-01 03:00+1400 (13:00Z)
    ");
}

#[test]
fn the_calendar_is_known() {
    for (expression, expected) in [
        ("0 0 29 2 *", "2028-02-29 2032-02-29 none"),
        ("0 0 L 2 *", "2026-02-28 2027-02-28 2028-02-29"),
        ("0 0 L * *", "2026-01-31 2026-02-28 2026-03-31"),
        ("0 0 LW * *", "2026-01-30 2026-02-27 2026-03-31"),
        ("0 0 1W * *", "2026-01-01 2026-02-02 2026-03-02"),
        ("0 0 15W 8 *", "2026-08-14 2027-08-16 2028-08-15"),
        ("0 0 * * TUE#2", "2026-01-13 2026-02-10 2026-03-10"),
        ("0 0 * * 5#L", "2026-01-30 2026-02-27 2026-03-27"),
        ("0 0 * * FRI#5", "2026-01-30 2026-05-29 2026-07-31"),
        ("0 0 13 * FRI", "2026-01-02 2026-01-09 2026-01-13"),
        ("0 0 13 * +FRI", "2026-02-13 2026-03-13 2026-11-13"),
        (
            "0 0 * jan-mar/2 sun,sat",
            "2026-01-03 2026-01-04 2026-01-10",
        ),
        ("@monthly", "2026-01-01 2026-02-01 2026-03-01"),
        ("@Weekly", "2026-01-04 2026-01-11 2026-01-18"),
    ] {
        let plan = plan(&cron("UTC", expression));
        let mut ticks = plan.ticks_after(at("2025-12-31T23:00:00Z"));
        let days = [0; 3].map(|_| match ticks.next() {
            Some(tick) => tick.instant.strftime("%F").to_string(),
            None => "none".to_owned(),
        });
        assert_eq!(days.join(" "), expected, "{expression}");
    }
}

/// `--offset 4d` on the second Tuesday is the Saturday after it, at the same time on the wall, though the clock
/// was changed in between; 96 hours are not.
#[test]
fn an_offset_counts_days_on_the_wall_and_hours_as_they_elapse() {
    let mut table = String::new();
    for (zone, offset) in [
        ("America/New_York", "4d"),
        ("America/New_York", "96h"),
        ("America/New_York", "-1d"),
        ("Europe/Berlin", "5d"),
    ] {
        for expression in ["30 2 * * WED#1", "30 2 * * TUE#4"] {
            let timing = Timing {
                offset: Some(offset.parse().unwrap()),
                ..cron(zone, expression)
            };
            table += &format!("{zone} {expression} {offset}\n");
            for line in listed(
                &plan(&timing),
                at("2026-02-28T00:00:00Z"),
                at("2026-04-10T00:00:00Z"),
            ) {
                table += &format!("  {line}\n");
            }
        }
    }
    insta::assert_snapshot!(table, @r"
    America/New_York 30 2 * * WED#1 4d
      03-08 03:00-0400 (07:00Z) gap 02:30
      04-05 02:30-0400 (06:30Z)
    America/New_York 30 2 * * TUE#4 4d
      02-28 02:30-0500 (07:30Z)
      03-28 02:30-0400 (06:30Z) +60 min
    America/New_York 30 2 * * WED#1 96h
      03-08 03:30-0400 (07:30Z) +60 min
      04-05 02:30-0400 (06:30Z)
    America/New_York 30 2 * * TUE#4 96h
      02-28 02:30-0500 (07:30Z)
      03-28 02:30-0400 (06:30Z) +60 min
    America/New_York 30 2 * * WED#1 -1d
      03-03 02:30-0500 (07:30Z)
      03-31 02:30-0400 (06:30Z) +60 min
    America/New_York 30 2 * * TUE#4 -1d
      03-23 02:30-0400 (06:30Z) +60 min
    Europe/Berlin 30 2 * * WED#1 5d
      03-09 02:30+0100 (01:30Z)
      04-06 02:30+0200 (00:30Z) +60 min
    Europe/Berlin 30 2 * * TUE#4 5d
      03-01 02:30+0100 (01:30Z)
      03-29 03:00+0200 (01:00Z) gap 02:30
    ");
    let moved = |offset: &str, when| {
        let offset = Some(offset.parse().unwrap());
        let plan = plan(&Timing {
            offset,
            ..timing("Europe/Berlin", when)
        });
        plan.ticks_after(at("2026-03-01T00:00:00Z"))
            .next()
            .unwrap()
            .instant
    };
    let time = at("2026-03-28T20:00:00Z");
    assert_eq!(moved("1d", When::At { time }), at("2026-03-29T19:00:00Z"));
    assert_eq!(moved("24h", When::At { time }), at("2026-03-29T20:00:00Z"));
    let every = When::Every {
        seconds: 3600,
        from: time,
    };
    assert_eq!(moved("1d 30m", every), at("2026-03-29T19:30:00Z"));
}

#[test]
fn intervals_begin_at_their_anchor_and_never_drift() {
    let plan = plan(&every("Europe/Berlin", 21_600, "2026-03-28T12:00:00.5Z"));
    insta::assert_snapshot!(
        listed(&plan, at("2026-03-01T00:00:00Z"), at("2026-03-29T12:00:00Z")).join("\n"), @r"
    03-28 13:00+0100 (12:00Z)
    03-28 19:00+0100 (18:00Z)
    03-29 01:00+0100 (00:00Z)
    03-29 08:00+0200 (06:00Z) +60 min
    "
    );
    let later = at("2226-03-28T12:00:00.5Z");
    let tick = plan.ticks_after(later).next().unwrap();
    assert_eq!(tick.instant, later + 6.hours());
}

/// The same timing under another law: what is computed follows the rules that are given.
#[test]
fn a_changed_rule_of_a_zone_moves_the_ticks() {
    let timing = cron("Europe/Berlin", "30 2 * * *");
    let listed = [
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "CET-1CEST,M3.4.0,M10.5.0/3",
        "CEST-2",
    ]
    .map(|rule| {
        let zone = TimeZone::posix(rule).unwrap();
        let plan = Plan::in_zone(&timing, zone, Calendars::default()).unwrap();
        let ticks = listed(
            &plan,
            at("2026-03-21T12:00:00Z"),
            at("2026-03-23T12:00:00Z"),
        );
        let later = listed(
            &plan,
            at("2026-03-28T12:00:00Z"),
            at("2026-03-30T12:00:00Z"),
        );
        format!("{rule}\n  {}", [ticks, later].concat().join("\n  "))
    });
    insta::assert_snapshot!(listed.join("\n"), @r"
    CET-1CEST,M3.5.0,M10.5.0/3
      03-22 02:30+0100 (01:30Z)
      03-23 02:30+0100 (01:30Z)
      03-29 03:00+0200 (01:00Z) gap 02:30
      03-30 02:30+0200 (00:30Z)
    CET-1CEST,M3.4.0,M10.5.0/3
      03-22 03:00+0200 (01:00Z) gap 02:30
      03-23 02:30+0200 (00:30Z)
      03-29 02:30+0200 (00:30Z)
      03-30 02:30+0200 (00:30Z)
    CEST-2
      03-22 02:30+0200 (00:30Z)
      03-23 02:30+0200 (00:30Z)
      03-29 02:30+0200 (00:30Z)
      03-30 02:30+0200 (00:30Z)
    ");
}

#[test]
fn what_is_wrong_is_said_with_what_to_write_instead() {
    let window = |window, cutoff, jitter| Timing {
        window_seconds: window,
        cutoff_seconds: cutoff,
        jitter_seconds: jitter,
        ..cron("UTC", "0 3 * * *")
    };
    let cases = [
        cron("UTC", "0 0 30 2 *"),
        cron("UTC", "0 0 31 4,6,9,11 *"),
        cron("UTC", "* * * *"),
        cron("UTC", ""),
        cron("UTC", "0 30 2 * * *"),
        cron("UTC", "30 2 1 1 * 2027"),
        cron("UTC", "0 30 2 * * MON 2027"),
        cron("UTC", "60 2 * * *"),
        cron("UTC", "0 24 * * *"),
        cron("UTC", "0 0 0 * *"),
        cron("UTC", "0 0 * 13 *"),
        cron("UTC", "0 0 * * 8"),
        cron("UTC", "99999999999 0 * * *"),
        cron("UTC", "MON 2 * * *"),
        cron("UTC", "0 2 * * JAN"),
        cron("UTC", "0 2 * MON *"),
        cron("UTC", "0 2 * * MONDAY"),
        cron("UTC", "0 2 * * TUE#6"),
        cron("UTC", "0 2 * * FRI-MON"),
        cron("UTC", "0/5 * * * *"),
        cron("UTC", "*/0 * * * *"),
        cron("UTC", "ä * * * *"),
        cron("UTC", "0 2 * * %"),
        cron("UTC", "@fortnightly"),
        cron("UTC", "@reboot"),
        cron("UTC", &"0,".repeat(300)),
        cron("Europe/Belrin", "0 0 * * *"),
        every("UTC", 0, "2026-01-01T00:00:00Z"),
        every("UTC", 59, "2026-01-01T00:00:00Z"),
        every("UTC", u64::MAX, "2026-01-01T00:00:00Z"),
        window(Some(90_000), None, None),
        window(Some(7200), Some(7200), None),
        window(Some(0), None, None),
        window(None, Some(600), None),
        window(None, None, Some(86_401)),
        window(Some(7200), Some(1800), Some(5401)),
        window(Some(u64::MAX), None, None),
        Timing {
            at_window_end: AtWindowEnd::Cancel,
            ..window(None, None, None)
        },
        Timing {
            window_seconds: Some(3601),
            ..cron("UTC", "0 0,23 1,L * *")
        },
        Timing {
            window_seconds: Some(3601),
            ..every("UTC", 3600, "2026-01-01T00:00:00Z")
        },
        Timing {
            offset: Some("1d".parse().unwrap()),
            ..every("UTC", 3600, "9999-12-30T00:00:00Z")
        },
    ];
    let refusals = cases.map(|timing| refusal(&timing));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    the cron expression "0 0 30 2 *" never fires: no month that it names has such a day; for the last day of a month write L: "0 0 L 2 *"
    the cron expression "0 0 31 4,6,9,11 *" never fires: no month that it names has such a day; for the last day of a month write L: "0 0 L 4,6,9,11 *"
    the cron expression "* * * *" has 4 fields, not five: write minute, hour, day of the month, month and day of the week, for example "30 2 * * MON-FRI"
    the cron expression "" has 0 fields, not five: write minute, hour, day of the month, month and day of the week, for example "30 2 * * MON-FRI"
    the cron expression "0 30 2 * * *" has 6 fields, but seconds and years are not supported: a schedule ticks once a minute at most; write "30 2 * * *"
    the cron expression "30 2 1 1 * 2027" has 6 fields, but seconds and years are not supported: a schedule ticks once a minute at most; write "30 2 1 1 *"
    the cron expression "0 30 2 * * MON 2027" has 7 fields, but seconds and years are not supported: a schedule ticks once a minute at most; write "30 2 * * MON"
    the minute 60 of the cron expression "60 2 * * *" is out of range: write 0 to 59
    the hour 24 of the cron expression "0 24 * * *" is out of range: write 0 to 23
    the day of the month 0 of the cron expression "0 0 0 * *" is out of range: write 1 to 31, L for the last day, 15W for the weekday nearest to the 15th, or LW
    the month 13 of the cron expression "0 0 * 13 *" is out of range: write 1 to 12, or JAN to DEC
    the day of the week 8 of the cron expression "0 0 * * 8" is out of range: write 0 to 7 (both are Sunday), SUN to SAT, TUE#2 for the second Tuesday of the month, or FRI#L for the last Friday
    the minute 99999999999 of the cron expression "99999999999 0 * * *" is out of range: write 0 to 59
    the minute "MON" of the cron expression "MON 2 * * *" is unknown: write 0 to 59
    the day of the week "JAN" of the cron expression "0 2 * * JAN" is unknown: write 0 to 7 (both are Sunday), SUN to SAT, TUE#2 for the second Tuesday of the month, or FRI#L for the last Friday
    the month "MON" of the cron expression "0 2 * MON *" is unknown: write 1 to 12, or JAN to DEC
    the day of the week "MONDAY" of the cron expression "0 2 * * MONDAY" is unknown: write 0 to 7 (both are Sunday), SUN to SAT, TUE#2 for the second Tuesday of the month, or FRI#L for the last Friday
    "0 2 * * TUE#6" is no cron expression (Nth specifier out of bounds): write lists (1,15), ranges from low to high (MON-FRI) and steps (*/5, 10-50/10), for example "*/15 8-18 * * MON-FRI"
    "0 2 * * FRI-MON" is no cron expression (Range out of bounds): write lists (1,15), ranges from low to high (MON-FRI) and steps (*/5, 10-50/10), for example "*/15 8-18 * * MON-FRI"
    "0/5 * * * *" is no cron expression (Invalid step syntax: single number steps like "0/5" are not allowed. Use "*/5" for wildcard steps or "X-Y/5" for range steps): write lists (1,15), ranges from low to high (MON-FRI) and steps (*/5, 10-50/10), for example "*/15 8-18 * * MON-FRI"
    "*/0 * * * *" is no cron expression (Step cannot be zero): write lists (1,15), ranges from low to high (MON-FRI) and steps (*/5, 10-50/10), for example "*/15 8-18 * * MON-FRI"
    the minute "ä" of the cron expression "ä * * * *" is unknown: write 0 to 59
    "0 2 * * %" is no cron expression (Pattern contains illegal characters: CronPattern contains illegal character '%' in part '%'): write lists (1,15), ranges from low to high (MON-FRI) and steps (*/5, 10-50/10), for example "*/15 8-18 * * MON-FRI"
    there is no cron expression "@fortnightly": write @hourly, @daily, @weekly, @monthly or @yearly, or five fields, for example "30 2 * * *"
    there is no cron expression "@reboot": write @hourly, @daily, @weekly, @monthly or @yearly, or five fields, for example "30 2 * * *"
    the cron expression has 600 bytes; at most 512 are read: write ranges and steps, for example */5
    there is no time zone Europe/Belrin; did you mean Europe/Berlin?
    an interval of 0s is too short: write at least 1m
    an interval of 59s is too short: write at least 1m
    an interval of 213503982334601d 7h 15s is too long: write at most 366d
    the window of 1d 1h is longer than the 1d from one tick to the next: write a window of at most 1d
    the cut-off of 2h is not shorter than the window of 2h, so nothing could ever start: write a shorter cut-off, or a longer window
    a window of 0s lets nothing start: write for how long a run may take, for example 2h
    a cut-off is counted from the end of a window, and there is none: add a window longer than 10m
    the jitter of 1d 1s is longer than the 1d from one tick to the next: write a jitter of at most 1d
    a jitter of 1h 30m 1s may delay a start beyond the 1h 30m of its window in which it is allowed: write a jitter of at most 1h 30m
    a window of 213503982334601d 7h 15s is too long: write at most 366d
    what still runs is to be cancelled at the end of a window, and there is none: add a window, for example 2h
    the window of 1h 1s is longer than the 1h from one tick to the next: write a window of at most 1h
    the window of 1h 1s is longer than the 1h from one tick to the next: write a window of at most 1h
    with its offset of 1d the time is beyond every calendar: write an earlier time
    "#);
    for good in [
        window(Some(86_400), Some(86_399), Some(1)),
        window(Some(7200), Some(1800), Some(5400)),
        window(None, None, Some(86_400)),
    ] {
        assert!(Plan::new(&good, Calendars::default()).is_ok());
    }
}

#[test]
fn what_will_never_tick_again_is_refused_when_it_is_made() {
    let now = at("2026-11-25T12:00:00Z");
    let once = |time: &str| timing("UTC", When::At { time: at(time) });
    let later = Timing {
        offset: Some("1d".parse().unwrap()),
        ..once("2026-11-25T00:00:00Z")
    };
    assert!(plan(&later).check_future(now).is_ok());
    let refusals = [
        once("2026-11-25T11:59:59Z"),
        once("2026-11-25T12:00:00Z"),
        once("2040-01-01T00:00:00Z"),
        every("UTC", 3600, "2040-01-01T00:00:00Z"),
        cron("UTC", "0 0 29 2 +MON"),
    ]
    .map(|timing| plan(&timing).check_future(now).unwrap_err().to_string());
    insta::assert_snapshot!(refusals.join("\n"), @r"
    2026-11-25T11:59:59Z is past, it is 2026-11-25T12:00:00Z: write a time that is still to come
    2026-11-25T12:00:00Z is past, it is 2026-11-25T12:00:00Z: write a time that is still to come
    the schedule would not run in the next ten years: write an earlier time, or a cron expression that fires more often
    the schedule would not run in the next ten years: write an earlier time, or a cron expression that fires more often
    the schedule would not run in the next ten years: write an earlier time, or a cron expression that fires more often
    ");
    assert_eq!(
        plan(&once("2026-11-25T12:00:00Z")).ticks_after(now).count(),
        0
    );
}

/// No question is answered for ever.
#[test]
fn ticks_end_after_ten_years() {
    let daily = plan(&cron("Europe/Berlin", "@daily"));
    assert_eq!(daily.ticks_after(at("2026-01-01T12:00:00Z")).count(), 3653);
    let rare = plan(&cron("UTC", "0 0 29 2 +MON"));
    assert_eq!(rare.ticks_after(at("2026-01-01T00:00:00Z")).count(), 0);
    for edge in [Timestamp::MIN, Timestamp::MAX] {
        for timing in [
            cron("Europe/Berlin", "* * * * *"),
            cron("Europe/Berlin", "0 0 * * *"),
            every("UTC", 60, "2026-01-01T00:00:00Z"),
        ] {
            assert!(plan(&timing).ticks_after(edge).take(3).count() <= 3);
        }
    }
}

#[test]
fn jitter_is_the_same_everywhere_and_spread_evenly() {
    let schedule = Uuid::from_u128(0x0197_c1f0_5a3e_7c22_9d1b_3f2a_9c8e_4b10);
    let tick = at("2026-03-29T01:00:00Z");
    assert_eq!(jitter(schedule, tick, 0), SignedDuration::ZERO);
    // This value is a promise: dispatchers of two versions may run side by side.
    insta::assert_snapshot!(format!("{:#}", jitter(schedule, tick, 600)), @"6m 3s 418ms");
    let mut tenths = [0; 10];
    for minute in 0..10_000 {
        let delay = jitter(schedule, tick + minute.minutes(), 600);
        assert!((0..600).contains(&delay.as_secs()));
        tenths[usize::try_from(delay.as_secs() / 60).unwrap()] += 1;
    }
    assert!(
        tenths.iter().all(|count| (880..1120).contains(count)),
        "{tenths:?}"
    );
    let others = (0..100).map(|other| jitter(Uuid::from_u128(other), tick, 600));
    assert!(others.collect::<BTreeSet<_>>().len() > 98);
}

fn calendar(name: &str, events: &str) -> Arc<Calendar> {
    let text = format!("BEGIN:VCALENDAR\r\n{events}\r\nEND:VCALENDAR\r\n");
    let zone: TimeZoneName = "Europe/Berlin".parse().unwrap();
    Arc::new(Calendar::parse(name, &text, Some(&zone)).unwrap())
}

#[test]
fn calendars_close_and_open() {
    let freeze =
        "BEGIN:VEVENT\nSUMMARY:Christmas freeze\nDTSTART:20261224\nDTEND:20261227\nEND:VEVENT";
    let weekend = "BEGIN:VEVENT\nSUMMARY:Weekend\nDTSTART:20260103\nDTEND:20260105\nRRULE:FREQ=WEEKLY\nEND:VEVENT";
    let night = "BEGIN:VEVENT\nSUMMARY:Night\nDTSTART:20260101T220000\nDURATION:PT8H\nRRULE:FREQ=DAILY\nEND:VEVENT";
    let marked = |closed: &[_], open: &[_], expression: &str| {
        let calendars = Calendars {
            closed: closed.to_vec(),
            open: open.to_vec(),
        };
        let plan = Plan::new(&cron("Europe/Berlin", expression), calendars).unwrap();
        let ticks = plan.ticks_after(at("2026-12-23T12:00:00Z")).take(5);
        let lines = ticks.map(|tick| {
            let local = tick.instant.to_zoned(plan.zone().clone());
            format!("{} {:?}", local.strftime("%a %d %H:%M"), tick.blackout)
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let (freeze, weekend, night) = (
        calendar("freeze", freeze),
        calendar("weekends", weekend),
        calendar("nights", night),
    );
    insta::assert_snapshot!(marked(std::slice::from_ref(&freeze), &[], "0 0 * * *"), @r#"
    Thu 24 00:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Fri 25 00:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Sat 26 00:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Sun 27 00:00 None
    Mon 28 00:00 None
    "#);
    insta::assert_snapshot!(marked(&[], &[weekend.clone(), night.clone()], "0 12 * * *"), @r#"
    Thu 24 12:00 Some(NotOpen { calendars: ["weekends", "nights"] })
    Fri 25 12:00 Some(NotOpen { calendars: ["weekends", "nights"] })
    Sat 26 12:00 None
    Sun 27 12:00 None
    Mon 28 12:00 Some(NotOpen { calendars: ["weekends", "nights"] })
    "#);
    insta::assert_snapshot!(marked(&[freeze], &[weekend, night], "0 5,12 * * *"), @r#"
    Thu 24 05:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Thu 24 12:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Fri 25 05:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Fri 25 12:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    Sat 26 05:00 Some(Closed { calendar: "freeze", event: "Christmas freeze" })
    "#);
}

// A brute-force clock: it walks from minute to minute and asks of each whether it is meant.

#[derive(Debug, Clone)]
struct Fields {
    minutes: Values,
    hours: Values,
    days: Values,
    months: Values,
    weekdays: Values,
}

/// What a field says: as it is written, and what it means.
#[derive(Debug, Clone)]
struct Values {
    text: String,
    meaning: Meaning,
}

#[derive(Debug, Clone)]
enum Meaning {
    Any,
    Among(BTreeSet<i8>),
    LastDay,
    LastWeekday,
    NearestWeekday(i8),
    Nth(i8, i8),
    Last(i8),
}

impl Values {
    fn are(&self, value: i8) -> bool {
        match &self.meaning {
            Meaning::Any => true,
            Meaning::Among(values) => values.contains(&value),
            other => unreachable!("{other:?}"),
        }
    }
}

impl Fields {
    fn text(&self) -> String {
        let fields = [
            &self.minutes,
            &self.hours,
            &self.days,
            &self.months,
            &self.weekdays,
        ];
        fields.map(|field| field.text.as_str()).join(" ")
    }

    fn matches(&self, wall: DateTime) -> bool {
        self.minutes.are(wall.minute()) && self.hours.are(wall.hour()) && self.is_on(wall.date())
    }

    fn is_on(&self, day: Date) -> bool {
        let (is_day, is_weekday) = (self.day_matches(day), self.weekday_matches(day));
        let is_one = match (self.days.text.as_str(), self.weekdays.text.as_str()) {
            ("*", "*") => true,
            ("*", _) => is_weekday,
            (_, "*") => is_day,
            _ => is_day || is_weekday,
        };
        self.months.are(day.month()) && is_one
    }

    fn day_matches(&self, day: Date) -> bool {
        let last = day.days_in_month();
        let is_working = |day: Date| day.weekday().to_monday_zero_offset() < 5;
        match &self.days.meaning {
            Meaning::Any => true,
            Meaning::Among(days) => days.contains(&day.day()),
            Meaning::LastDay => day.day() == last,
            Meaning::LastWeekday => {
                let later =
                    (day.day() + 1..=last).map(|later| date(day.year(), day.month(), later));
                is_working(day) && !later.into_iter().any(is_working)
            }
            Meaning::NearestWeekday(wanted) => {
                let nearest = (1..=last)
                    .filter(|other| is_working(date(day.year(), day.month(), *other)))
                    .min_by_key(|other| (other - wanted).abs());
                *wanted <= last && nearest == Some(day.day())
            }
            Meaning::Nth(..) | Meaning::Last(_) => unreachable!(),
        }
    }

    fn weekday_matches(&self, day: Date) -> bool {
        let weekday = day.weekday().to_sunday_zero_offset();
        match &self.weekdays.meaning {
            Meaning::Any => true,
            Meaning::Among(days) => days.contains(&weekday),
            Meaning::Nth(wanted, nth) => *wanted == weekday && (day.day() - 1) / 7 + 1 == *nth,
            Meaning::Last(wanted) => *wanted == weekday && day.day() + 7 > day.days_in_month(),
            _ => unreachable!(),
        }
    }
}

fn star() -> impl Strategy<Value = Values> {
    Just(Values {
        text: "*".to_owned(),
        meaning: Meaning::Any,
    })
}

/// Lists of numbers, ranges and steps.
fn among(least: i8, most: i8) -> impl Strategy<Value = Values> {
    let one = (
        least..=most,
        least..=most,
        1..7_i8,
        any::<bool>(),
        any::<bool>(),
    );
    proptest::collection::vec(one, 1..4).prop_map(|parts| {
        let mut values = BTreeSet::new();
        let mut text = Vec::new();
        for (one, other, step, is_range, is_stepped) in parts {
            let (low, high) = (one.min(other), one.max(other));
            match (is_range, is_stepped) {
                (false, _) => {
                    values.insert(one);
                    text.push(one.to_string());
                }
                (true, false) => {
                    values.extend(low..=high);
                    text.push(format!("{low}-{high}"));
                }
                (true, true) => {
                    values.extend((low..=high).filter(|value| (value - low) % step == 0));
                    text.push(format!("{low}-{high}/{step}"));
                }
            }
        }
        Values {
            text: text.join(","),
            meaning: Meaning::Among(values),
        }
    })
}

fn step(least: i8, most: i8) -> impl Strategy<Value = Values> {
    (1..=most).prop_map(move |step| Values {
        text: format!("*/{step}"),
        meaning: Meaning::Among(
            (least..=most)
                .filter(|value| (value - least) % step == 0)
                .collect(),
        ),
    })
}

fn special_day() -> impl Strategy<Value = Values> {
    let values = |text: &str, meaning| Values {
        text: text.to_owned(),
        meaning,
    };
    prop_oneof![
        Just(values("L", Meaning::LastDay)),
        Just(values("LW", Meaning::LastWeekday)),
        (1..=31_i8).prop_map(move |day| values(&format!("{day}W"), Meaning::NearestWeekday(day))),
    ]
}

fn special_weekday() -> impl Strategy<Value = Values> {
    const NAMES: [&str; 7] = ["SUN", "mon", "TUE", "Wed", "THU", "FRI", "SAT"];
    let name = |day: i8| NAMES[usize::try_from(day).unwrap()];
    prop_oneof![
        (0..7_i8, 1..=5_i8).prop_map(move |(day, nth)| Values {
            text: format!("{}#{nth}", name(day)),
            meaning: Meaning::Nth(day, nth),
        }),
        (0..7_i8).prop_map(move |day| Values {
            text: format!("{}#L", name(day)),
            meaning: Meaning::Last(day),
        }),
        (0..7_i8).prop_map(move |day| Values {
            text: name(day).to_owned(),
            meaning: Meaning::Among([day].into()),
        }),
    ]
}

fn days_and_months() -> impl Strategy<Value = (Values, Values, Values)> {
    (
        prop_oneof![3 => star(), 1 => among(1, 31), 1 => special_day()],
        prop_oneof![3 => star(), 1 => among(1, 12)],
        prop_oneof![3 => star(), 1 => among(0, 6), 1 => special_weekday()],
    )
}

fn fields() -> impl Strategy<Value = Fields> {
    let minutes = prop_oneof![1 => star(), 3 => among(0, 59), 1 => step(0, 59)];
    // The clock is changed in the small hours.
    let hours = prop_oneof![1 => star(), 1 => among(0, 23), 3 => among(0, 3), 1 => step(0, 23)];
    (minutes, hours, days_and_months()).prop_map(|(minutes, hours, (days, months, weekdays))| {
        Fields {
            minutes,
            hours,
            days,
            months,
            weekdays,
        }
    })
}

/// Every minute of some days, with what the clock shows then.
fn minutes(zone: &TimeZone, from: Timestamp, days: i64) -> impl Iterator<Item = Zoned> {
    let zone = zone.clone();
    (1..=days * 24 * 60).map(move |minute| (from + minute.minutes()).to_zoned(zone.clone()))
}

/// What an expression means, by walking. A wildcard means every minute at which the clock shows what it names.
/// A fixed time means the first such minute, or, if the clock skips it, the first minute after.
fn walked(fields: &Fields, zone: &TimeZone, from: Timestamp, days: i64) -> Vec<Timestamp> {
    let is_wild = fields.minutes.text.contains('*') || fields.hours.text.contains('*');
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut last: Option<DateTime> = None;
    // A day earlier, to have seen what is shown again at the beginning.
    for now in minutes(zone, from - 24.hours(), days + 1) {
        let wall = now.datetime();
        if is_wild {
            found.extend(fields.matches(wall).then_some(now.timestamp()));
            continue;
        }
        let mut shown = last.map_or(wall, |last| last + 1.minute()).min(wall);
        while shown <= wall {
            if fields.matches(shown) && seen.insert(shown) {
                found.insert(now.timestamp());
            }
            shown += 1.minute();
        }
        last = Some(last.map_or(wall, |last| last.max(wall)));
    }
    found.into_iter().filter(|tick| *tick > from).collect()
}

fn computed(plan: &Plan, from: Timestamp, days: i64) -> Vec<Timestamp> {
    let until = from + (24 * days).hours();
    plan.ticks_after(from)
        .map(|tick| tick.instant)
        .take_while(|tick| *tick <= until)
        .collect()
}

/// Beginnings of some days, most of them with a change of the clock.
fn days() -> impl Strategy<Value = (&'static str, Timestamp)> {
    let anywhere = (0..CHANGES.len(), 0..6 * 365 * 24_i64).prop_map(|(index, hours)| {
        let (zone, _, _) = CHANGES[index];
        (zone, at("2024-01-01T00:00:00Z") + hours.hours())
    });
    let before = prop_oneof![0..72 * 60_i64, -60..60_i64];
    let changes = (0..CHANGES.len(), before).prop_map(|(index, minutes)| {
        let (zone, _, change) = CHANGES[index];
        (zone, at(change) - minutes.minutes())
    });
    prop_oneof![1 => anywhere, 2 => changes]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cron_is_what_walking_finds(fields in fields(), (zone, from) in days()) {
        let Ok(plan) = Plan::new(&cron(zone, &fields.text()), Calendars::default()) else {
            // Only what is on no day of any year may be refused.
            let mut days = date(2000, 1, 1).series(1.day()).take(400 * 366);
            prop_assert!(!days.any(|day| fields.is_on(day)), "{}", fields.text());
            return Ok(());
        };
        let rules = TimeZone::get(zone).unwrap();
        prop_assert_eq!(computed(&plan, from, 4), walked(&fields, &rules, from, 4), "{}", fields.text());
    }

    /// Wherever somebody begins to ask, the ticks are the same: dispatchers must not differ.
    #[test]
    fn a_tick_does_not_depend_on_when_it_is_asked_for(
        fields in fields(),
        (zone, from) in days(),
        later in 0..4 * 24 * 60_i64,
        offset in prop_oneof![Just("0s"), Just("2d"), Just("-1d"), Just("90m"), Just("-1d 45m")],
    ) {
        let timing = Timing { offset: Some(offset.parse().unwrap()), ..cron(zone, &fields.text()) };
        let Ok(plan) = Plan::new(&timing, Calendars::default()) else { return Ok(()) };
        let all: Vec<_> = plan.ticks_after(from).take(50).collect();
        let later = from + later.minutes();
        let expected: Vec<_> = all.iter().filter(|tick| tick.instant > later).cloned().collect();
        let found: Vec<_> = plan.ticks_after(later).take(expected.len()).collect();
        prop_assert_eq!(&found, &expected, "{} {}", fields.text(), offset);
        prop_assert!(all.windows(2).all(|pair| pair[0].instant < pair[1].instant));
    }

    #[test]
    fn no_text_makes_it_panic(expression in "[ -~ä]{0,20}|([0-9*/,LW#+A-Z-]{1,6} ){4}[0-9*/,LW#+A-Z?-]{1,6}") {
        let _ = Plan::new(&cron("UTC", &expression), Calendars::default());
    }
}
