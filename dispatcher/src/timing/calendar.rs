//! Calendars that close, or open: the events of iCalendar files (RFC 5545), with their recurrences.
//!
//! ```text
//!   text ─▶ component (lines, BEGIN … END) ─▶ event ─┬─ moment (dates, times, durations, zones)
//!                                                    ├─ observance (a zone that the file itself describes)
//!                                                    └─ recurrence (RRULE)
//! ```
//!
//! A file is refused whole or understood whole: what it says and what is not read here, such as a rule of a
//! kind that no calendar program writes, is an error and never passed over, since then something would run in
//! the middle of a freeze.
//!
//! A file comes from anybody, so everything about it is bounded ([`MAX_BYTES`], [`MAX_EVENTS`],
//! [`MAX_RECURRENCES`]). The recurrences are worked out here and not by a library because of that: those begin
//! to count at an event's first day, and a daily event of twenty years ago would cost as much with every tick.
//! Here a rule is asked for a range and looks at no other days.

mod component;
mod event;
mod moment;
mod observance;
mod recurrence;

use std::collections::BTreeMap;

use invoke_protocol::timing::TimeZoneName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::component::{Component, Line};
use self::event::Event;
use self::moment::Zones;
use super::{look_ahead, zone};

/// The longest file, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The most events of a file.
pub const MAX_EVENTS: usize = 5000;

/// The most recurrences that may have to be looked at for one instant, over all events of a file.
pub const MAX_RECURRENCES: usize = 5000;

/// How many events [`Calendar::spans`] answers at most.
pub const MAX_SPANS: usize = 1000;

/// The events of one iCalendar file.
#[derive(Debug)]
pub struct Calendar {
    name: String,
    events: Vec<Event>,
}

/// One event, or one recurrence of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// When it begins.
    pub start: Timestamp,
    /// When it is over: the first instant that is not in it.
    pub end: Timestamp,
    /// What it is called.
    pub summary: String,
}

/// Why a file is refused. The text says what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`MAX_BYTES`].
    #[error(
        "the file has {0} bytes; at most {MAX_BYTES} (1 MiB) are read: remove what is long past"
    )]
    TooLarge(usize),
    /// Over [`MAX_EVENTS`].
    #[error(
        "the file has {0} events; at most {MAX_EVENTS} are read: remove what is long past, or write rules (RRULE)"
    )]
    TooManyEvents(usize),
    /// Over [`MAX_RECURRENCES`].
    #[error(
        "the events of the file repeat so often that {0} recurrences may be near one day; at most {MAX_RECURRENCES} are read: write fewer, longer events"
    )]
    TooManyRecurrences(usize),
    /// No events.
    #[error("the file has no event: write at least one BEGIN:VEVENT … END:VEVENT into it")]
    Empty,
    /// The zone that was stated for what has none.
    #[error(transparent)]
    Zone(#[from] zone::Unknown),
    /// One line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a line, or with the component that begins there.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say all there is")]
pub enum Problem {
    #[error(
        "{0:?} is no line of an iCalendar file: it begins with BEGIN:VCALENDAR, and each line is NAME:VALUE"
    )]
    NoProperty(String),
    #[error("{0:?} is outside of BEGIN:VCALENDAR and END:VCALENDAR")]
    Outside(String),
    #[error("BEGIN:{0} has no END:{0}: is the file cut off?")]
    NotEnded(String),
    #[error("END:{0} ends what did not begin")]
    NotBegun(String),
    #[error("BEGIN:{0} is nested too deeply")]
    TooDeep(String),
    #[error("{0} is there twice in one event")]
    Twice(&'static str),
    #[error("the event has no DTSTART: write when it begins, for example DTSTART:20261224T000000Z")]
    NoStart,
    #[error("the event has no end: write DTEND or DURATION, for example DURATION:PT8H")]
    NoEnd,
    #[error(
        "the event ends before or when it begins: write a later DTEND, or a DURATION above zero"
    )]
    NoLength,
    #[error("{0:?} is no date and no time: write 20261224, 20261224T180000 or 20261224T180000Z")]
    NoMoment(String),
    #[error("{0:?} does not go with DTSTART: write two days, or two times")]
    DateOrTime(String),
    #[error("{0:?} is no duration: write for example P2D or PT8H")]
    NoDuration(String),
    #[error("{0:?} is beyond every calendar")]
    Beyond(String),
    #[error(
        "the zone {0:?} is not in the time zone database, and the file has no VTIMEZONE of that name: write for example TZID=Europe/Berlin"
    )]
    UnknownZone(String),
    #[error(
        "the zone {0:?} is not in the time zone database, and its VTIMEZONE is not one yearly rule for each change: write for example TZID=Europe/Berlin"
    )]
    UnreadableZone(String),
    #[error("{0} is not read: write an event of its own for what it means")]
    Unsupported(&'static str),
    #[error(
        "{0:?} in the rule is unknown: write for example RRULE:FREQ=YEARLY;BYMONTH=12;BYDAY=1FR"
    )]
    RulePart(String),
    #[error("the rule has no FREQ: write FREQ=DAILY, WEEKLY, MONTHLY or YEARLY")]
    NoFrequency,
    #[error("FREQ={0} is not read: write one longer event, or FREQ=DAILY with BYHOUR")]
    Frequency(String),
    #[error("{part} {value:?} in the rule is out of range: write {allowed}")]
    RuleNumber {
        part: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error("{0} does not go with FREQ={1}")]
    RuleMismatch(&'static str, &'static str),
    #[error("the rule has COUNT and UNTIL: write one of them")]
    CountAndUntil,
    #[error("the rule does not come to its COUNT in fifty years: write UNTIL")]
    CountNotReached,
    #[error(
        "an event that repeats may last 366 days at most: write one event that does not repeat"
    )]
    TooLong,
}

impl Calendar {
    /// Reads an iCalendar file. Days, and times without a zone, are in `floating`; if that is silent in the
    /// file's own zone (`X-WR-TIMEZONE`), or else in UTC. What is of no event (tasks, alarms) is not looked at.
    ///
    /// # Errors
    /// Says in which line what is wrong, and what to write instead.
    pub fn parse(name: &str, text: &str, floating: Option<&TimeZoneName>) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::TooLarge(text.len()));
        }
        let calendars = component::parse(text)?;
        let parts = || calendars.iter().flat_map(|calendar| &calendar.parts);
        let zones = Zones {
            floating: match floating {
                Some(name) => zone::find(name)?,
                None => own_zone(&calendars)?,
            },
            described: parts()
                .filter(|part| part.name == "VTIMEZONE")
                .filter_map(|part| {
                    Some((
                        part.property("TZID")?.value.as_str(),
                        observance::zone(part),
                    ))
                })
                .collect::<BTreeMap<_, _>>(),
        };
        let events: Vec<_> = parts().filter(|part| part.name == "VEVENT").collect();
        match events.len() {
            0 => return Err(Error::Empty),
            1..=MAX_EVENTS => {}
            count => return Err(Error::TooManyEvents(count)),
        }
        let events = event::read_all(&events, &zones)?;
        let recurrences = events.iter().map(Event::recurrences_at_once).sum();
        if recurrences > MAX_RECURRENCES {
            return Err(Error::TooManyRecurrences(recurrences));
        }
        Ok(Self {
            name: name.to_owned(),
            events,
        })
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the event is called that an instant is in, if it is in one.
    #[must_use]
    pub fn covers(&self, instant: Timestamp) -> Option<&str> {
        self.events
            .iter()
            .find(|event| event.covers(instant))
            .map(|event| event.summary.as_str())
    }

    /// The events that touch a range, by their start; the first [`MAX_SPANS`], and those of the first ten years.
    #[must_use]
    pub fn spans(&self, from: Timestamp, until: Timestamp) -> Vec<Span> {
        let mut until = until.min(look_ahead(from));
        let mut spans = Vec::new();
        for event in &self.events {
            let found = event.spans(from, until);
            spans.extend(found.map(|(start, end)| (start, end, event.summary.as_str())));
            spans.sort_unstable();
            spans.truncate(MAX_SPANS);
            // What is later than the last of so many is not looked for any more.
            if let Some((last, ..)) = spans.get(MAX_SPANS - 1) {
                until = until.min(*last);
            }
        }
        let spans = spans.into_iter();
        spans
            .map(|(start, end, summary)| Span {
                start,
                end,
                summary: summary.to_owned(),
            })
            .collect()
    }
}

/// The zone that a file names for what has none; no standard says so, but all programs do.
fn own_zone(calendars: &[Component]) -> Result<TimeZone, Error> {
    let named = calendars
        .iter()
        .find_map(|calendar| calendar.property("X-WR-TIMEZONE"));
    let Some(line) = named else {
        return Ok(TimeZone::UTC);
    };
    let name = line.value.parse::<TimeZoneName>().ok();
    name.and_then(|name| zone::known(&name))
        .ok_or_else(|| line.error(Problem::UnknownZone(component::short(&line.value))))
}

impl Line {
    fn error(&self, problem: Problem) -> Error {
        Error::Line {
            line: self.number,
            problem,
        }
    }
}

#[cfg(test)]
mod tests;
