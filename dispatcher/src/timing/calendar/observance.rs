//! A zone that a file describes itself (VTIMEZONE), since its name is none of the time zone database's:
//! programs of Windows write such.

use jiff::tz::{Offset, TimeZone};

use super::component::Component;
use super::moment::Moment;
use super::recurrence::{Frequency, Rule};

/// The zone of a VTIMEZONE as its latest rules say; what was before is of no use to a calendar that closes or
/// opens. `None` if these are not one standard time, or one yearly change to summer time and back.
pub(super) fn zone(described: &Component) -> Option<TimeZone> {
    let standard = latest(described, "STANDARD")?;
    let Some(daylight) = latest(described, "DAYLIGHT").filter(|daylight| daylight.change.is_some())
    else {
        return Some(TimeZone::fixed(standard.offset));
    };
    TimeZone::posix(&format!(
        "STD{}DST{},{},{}",
        posix_offset(standard.offset),
        posix_offset(daylight.offset),
        daylight.change?,
        standard.change?,
    ))
    .ok()
}

struct Observance {
    offset: Offset,
    /// When it begins every year, as POSIX writes it; `None` if it began once.
    change: Option<String>,
}

/// The observance of a kind that began last, of those that still go on.
fn latest(described: &Component, kind: &str) -> Option<Observance> {
    let observances = described.parts.iter().filter(|part| part.name == kind);
    let mut latest: Option<(Moment, Observance)> = None;
    for part in observances {
        let start = Moment::parse(&part.property("DTSTART")?.value, &TimeZone::UTC).ok()?;
        let rule = part
            .property("RRULE")
            .map(|line| line.value.to_ascii_uppercase());
        let is_over = |rule: &String| rule.contains("UNTIL=") || rule.contains("COUNT=");
        if rule.as_ref().is_some_and(is_over) {
            continue;
        }
        let change = match rule {
            None => None,
            Some(rule) => Some(posix_change(&Rule::parse(&rule, &start).ok()?, &start)?),
        };
        let offset = parse_offset(&part.property("TZOFFSETTO")?.value)?;
        if latest
            .as_ref()
            .is_none_or(|(other, _)| start.wall > other.wall)
        {
            latest = Some((start, Observance { offset, change }));
        }
    }
    latest.map(|(_, observance)| observance)
}

/// `M3.5.0/02:00:00`: the last Sunday of March at two o'clock, on the clock before the change.
fn posix_change(rule: &Rule, start: &Moment) -> Option<String> {
    let is_plain = rule.frequency == Frequency::Yearly
        && rule.interval == 1
        && rule.month_days.is_empty()
        && rule.positions.is_empty();
    let (&[month], &[day]) = (rule.months.as_slice(), rule.days.as_slice()) else {
        return None;
    };
    let week = match day.nth? {
        nth @ 1..=4 => nth,
        -1 => 5,
        _ => return None,
    };
    let weekday = day.weekday.to_sunday_zero_offset();
    let time = start.wall.time().strftime("%H:%M:%S");
    is_plain.then(|| format!("M{month}.{week}.{weekday}/{time}"))
}

/// POSIX counts westwards.
fn posix_offset(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds > 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    format!(
        "{sign}{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `+0100`, `-0330` or `+013000`.
fn parse_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_written_so = matches!(digits.len(), 4 | 6) && digits.bytes().all(|b| b.is_ascii_digit());
    let part = |at: usize| {
        digits
            .get(at..at + 2)
            .map_or(Some(0), |part| part.parse::<i32>().ok())
    };
    let seconds = part(0)? * 3600 + part(2)? * 60 + part(4)?;
    Offset::from_seconds(sign * seconds)
        .ok()
        .filter(|_| is_written_so)
}
