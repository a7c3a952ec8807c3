//! `invoke schedule why NAME TIME`: why it did, or did not, run then.

use invoke_protocol::id::ScheduleName;
use invoke_protocol::schedule::{Schedule, Tick, TickResult, TicksQuery};
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{ledger, spec};
use crate::args::Format;
use crate::client;
use crate::commands::Session;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::neutral;
use crate::table::moment;

/// The most entries that are asked for at once.
const PAGE: u32 = 500;

/// Says what became of a schedule's times on a day, or at a time.
pub(super) async fn why(
    name: &ScheduleName,
    text: &str,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    // One that was deleted still has its ledger, and its zone is not known any more.
    let schedule = session.client.find_schedule(name).await?;
    let zone = match &schedule {
        Some(schedule) => spec::time_zone(&schedule.spec.timing.time_zone)?,
        None => TimeZone::system(),
    };
    let span = Span::understand(text, &zone, session.now)?;
    let ticks = ticks(name, &span, session).await?;
    match session.format {
        Format::Json => session.printer.print_json(&Answer {
            schedule: name,
            from: span.from,
            until: span.until,
            ticks: &ticks,
        })?,
        Format::Text if ticks.is_empty() => {
            let lines = nothing(name, &span, schedule.as_ref(), session).await?;
            session.printer.print(&lines)?;
        }
        Format::Text => session.printer.print(&told(&ticks))?,
    }
    Ok(Exit::SUCCESS)
}

/// What became of the times between two, the oldest first. Stable: names are added, never changed.
#[derive(Serialize)]
struct Answer<'a> {
    schedule: &'a ScheduleName,
    from: Timestamp,
    until: Timestamp,
    ticks: &'a [Tick],
}

/// From when to before when somebody wants to know.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    /// It, after "not due".
    words: String,
}

impl Span {
    fn understand(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Self, Failure> {
        let today = now.to_zoned(zone.clone()).date();
        let refused = || {
            Failure::new(Exit::BAD_INPUT, format!("{text:?} is no day and no time")).with_hint(
                "write today, yesterday, a day of the week, 2026-11-17, 2026-11-17T02:30, or RFC 3339",
            )
        };
        let out_of_reach = |_| refused();
        let day = match text.to_lowercase().as_str() {
            "today" => Some(today),
            "yesterday" => Some(today.yesterday().map_err(out_of_reach)?),
            word => match weekday(word) {
                // The last one, which is not today.
                Some(weekday) => Some(today.nth_weekday(-1, weekday).map_err(out_of_reach)?),
                None if text.len() == "2026-11-17".len() => text.parse().ok(),
                None => None,
            },
        };
        if let Some(day) = day {
            return Self::of_day(day, zone).map_err(out_of_reach);
        }
        let at = text.parse::<Timestamp>().or_else(|_| {
            let wall: DateTime = text.parse()?;
            zone.to_timestamp(wall)
        });
        Self::of_minute(at.map_err(out_of_reach)?).map_err(out_of_reach)
    }

    fn of_day(day: Date, zone: &TimeZone) -> Result<Self, jiff::Error> {
        let begin = |day: Date| day.to_zoned(zone.clone()).map(|begin| begin.timestamp());
        Ok(Self {
            from: begin(day)?,
            until: begin(day.tomorrow()?)?,
            words: format!("on {}", day.strftime("%a %Y-%m-%d")),
        })
    }

    fn of_minute(at: Timestamp) -> Result<Self, jiff::Error> {
        let from = Timestamp::from_second(at.as_second().div_euclid(60) * 60)?;
        Ok(Self {
            from,
            until: from.checked_add(SignedDuration::from_mins(1))?,
            words: format!("at {}", moment(from)),
        })
    }
}

fn weekday(word: &str) -> Option<Weekday> {
    Some(match word {
        "mon" | "monday" => Weekday::Monday,
        "tue" | "tuesday" => Weekday::Tuesday,
        "wed" | "wednesday" => Weekday::Wednesday,
        "thu" | "thursday" => Weekday::Thursday,
        "fri" | "friday" => Weekday::Friday,
        "sat" | "saturday" => Weekday::Saturday,
        "sun" | "sunday" => Weekday::Sunday,
        _ => return None,
    })
}

/// Its entries in the ledger, the oldest first.
async fn ticks(
    name: &ScheduleName,
    span: &Span,
    session: &Session<'_>,
) -> Result<Vec<Tick>, client::Error> {
    let (mut found, mut before) = (Vec::new(), Some(span.until));
    while let Some(until) = before {
        let query = TicksQuery {
            limit: Some(PAGE),
            before: Some(until),
        };
        let page = session.client.ticks(name, &query).await?;
        let is_complete = page.ticks.iter().any(|tick| tick.instant < span.from);
        let within = page.ticks.into_iter();
        found.extend(within.filter(|tick| (span.from..span.until).contains(&tick.instant)));
        // Whatever it says, each page is an earlier one.
        before = page.next.filter(|next| !is_complete && *next < until);
    }
    found.reverse();
    Ok(found)
}

fn told(ticks: &[Tick]) -> String {
    let lines = ticks.iter().flat_map(|tick| {
        let failed = tick.job.filter(|_| tick.result == Some(TickResult::Failed));
        let advice = failed.map(|job| format!("  `invoke why {job}` says what it died of"));
        [Some(ledger::sentence(tick)), advice]
    });
    lines.flatten().map(|line| neutral(&line) + "\n").collect()
}

/// Why there is no entry.
async fn nothing(
    name: &ScheduleName,
    span: &Span,
    schedule: Option<&Schedule>,
    session: &Session<'_>,
) -> Result<String, Failure> {
    let query = TicksQuery {
        limit: Some(1),
        before: Some(span.from),
    };
    let last = session.client.ticks(name, &query).await?.ticks;
    let mut lines = match schedule {
        _ if span.from > session.now => vec![
            format!("schedule {name}: that is still to come"),
            format!("`invoke schedule next {name}` shows when it runs"),
        ],
        Some(schedule) if span.until <= schedule.created => vec![format!(
            "schedule {name} was not there yet: it was created at {}",
            moment(schedule.created)
        )],
        Some(schedule) if span.from < schedule.changed => vec![
            format!("schedule {name} was not due {}", span.words),
            format!(
                "what it is to do was changed after that, at {}",
                moment(schedule.changed)
            ),
        ],
        _ => vec![format!("schedule {name} was not due {}", span.words)],
    };
    let before = last.first().map(ledger::sentence);
    lines.extend(before.map(|sentence| format!("the time before, {sentence}")));
    Ok(lines.iter().map(|line| neutral(line) + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Option<(String, String)> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        // A Sunday.
        let now = "2026-03-29T20:00:00Z".parse().unwrap();
        let span = Span::understand(text, &zone, now).ok()?;
        Some((span.from.to_string(), span.until.to_string()))
    }

    #[test]
    fn days_and_times_are_those_of_the_zone() {
        let is = |text: &str, from: &str, until: &str| {
            assert_eq!(span(text), Some((from.into(), until.into())), "{text}");
        };
        // A day of 23 hours.
        is("today", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        is("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        is("yesterday", "2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z");
        is("Tuesday", "2026-03-23T23:00:00Z", "2026-03-24T23:00:00Z");
        is("sat", "2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z");
        // The last one, not the one that goes on.
        is("sunday", "2026-03-21T23:00:00Z", "2026-03-22T23:00:00Z");
        is(
            "2026-03-24T02:30",
            "2026-03-24T01:30:00Z",
            "2026-03-24T01:31:00Z",
        );
        is(
            "2026-03-24 02:30:59",
            "2026-03-24T01:30:00Z",
            "2026-03-24T01:31:00Z",
        );
        is(
            "2026-03-24T02:30:00Z",
            "2026-03-24T02:30:00Z",
            "2026-03-24T02:31:00Z",
        );
        for wrong in ["", "someday", "2026-13-01", "2026-03-32", "02:30", "-1"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }
}
