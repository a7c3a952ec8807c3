//! Dates, times and durations, as iCalendar writes them.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::component::{Component, Line, short};
use super::{Error, Problem};
use crate::timing::zone;

/// The zones that times of a file may be in, besides those of the time zone database.
pub(super) struct Zones<'a> {
    /// Of what has no zone.
    pub(super) floating: TimeZone,
    /// Of the file's own; `None` for one that is not understood.
    pub(super) described: BTreeMap<&'a str, Option<TimeZone>>,
}

/// A day, or a time on the wall, in its zone.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// The beginning of a day.
    pub(super) wall: DateTime,
    pub(super) zone: TimeZone,
    pub(super) is_day: bool,
}

/// How long an event is: days of the calendar, and then elapsed time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    pub(super) days: i32,
    pub(super) exact: SignedDuration,
}

impl Zones<'_> {
    /// All moments of a line, which are separated by commas.
    pub(super) fn moments(&self, line: &Line) -> Result<Vec<Moment>, Error> {
        let zone = self.zone_of(line)?;
        let values = line.value.split(',');
        values
            .map(|value| Moment::parse(value, &zone).map_err(|problem| line.error(problem)))
            .collect()
    }

    /// The only moment of a line.
    pub(super) fn moment(&self, line: &Line) -> Result<Moment, Error> {
        Moment::parse(&line.value, &self.zone_of(line)?).map_err(|problem| line.error(problem))
    }

    /// Moments and lengths of a line with periods (`start/end`, `start/duration`).
    pub(super) fn periods(&self, line: &Line) -> Result<Vec<(Moment, Length)>, Error> {
        let zone = self.zone_of(line)?;
        let period = |value: &str| {
            let (start, end) = value
                .split_once('/')
                .ok_or_else(|| Problem::NoMoment(short(value)))?;
            let start = Moment::parse(start, &zone)?;
            let length = if end.starts_with(['P', '+', '-']) {
                Length::parse(end)?
            } else {
                Length::between(&start, &Moment::parse(end, &zone)?, end)?
            };
            Ok((start, length))
        };
        let values = line.value.split(',');
        values
            .map(|value| period(value).map_err(|problem| line.error(problem)))
            .collect()
    }

    /// The database's rules are newer than those that a file has about the same zone.
    fn zone_of(&self, line: &Line) -> Result<TimeZone, Error> {
        let Some(name) = line.parameter("TZID") else {
            return Ok(self.floating.clone());
        };
        let known = name.parse().ok().and_then(|name| zone::known(&name));
        match (known, self.described.get(name).cloned()) {
            (Some(zone), _) | (None, Some(Some(zone))) => Ok(zone),
            (None, Some(None)) => Err(line.error(Problem::UnreadableZone(short(name)))),
            (None, None) => Err(line.error(Problem::UnknownZone(short(name)))),
        }
    }
}

impl Moment {
    /// Reads `20261224`, `20261224T180000` or `20261224T180000Z`.
    pub(super) fn parse(value: &str, zone: &TimeZone) -> Result<Self, Problem> {
        let wrong = || Problem::NoMoment(short(value));
        let (local, is_utc) = match value.strip_suffix('Z') {
            Some(local) => (local, true),
            None => (value, false),
        };
        let (date, time) = match local.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (local, None),
        };
        let date = parse_date(date).ok_or_else(wrong)?;
        let wall = match time {
            Some(time) => date.to_datetime(parse_time(time).ok_or_else(wrong)?),
            None if is_utc => return Err(wrong()),
            None => date.to_datetime(Time::midnight()),
        };
        Ok(Self {
            wall,
            zone: if is_utc { TimeZone::UTC } else { zone.clone() },
            is_day: time.is_none(),
        })
    }

    pub(super) fn instant(&self) -> Option<Timestamp> {
        instant(&self.zone, self.wall)
    }
}

/// When a time on the wall is: the first time if twice; if never, as if the clock had not been changed yet
/// (RFC 5545, 3.3.5).
pub(super) fn instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    zone.to_ambiguous_timestamp(wall).compatible().ok()
}

fn parse_date(text: &str) -> Option<Date> {
    let digits = digits::<8>(text)?;
    let year = digits
        .iter()
        .take(4)
        .fold(0, |year, digit| year * 10 + i16::from(*digit));
    Date::new(year, two(digits, 4), two(digits, 6)).ok()
}

fn parse_time(text: &str) -> Option<Time> {
    let digits = digits::<6>(text)?;
    // A leap second is no time of its own anywhere else.
    Time::new(two(digits, 0), two(digits, 2), two(digits, 4).min(59), 0).ok()
}

fn digits<const COUNT: usize>(text: &str) -> Option<[i8; COUNT]> {
    let digits: &[u8; COUNT] = text.as_bytes().try_into().ok()?;
    let are_digits = digits.iter().all(u8::is_ascii_digit);
    are_digits.then(|| digits.map(|digit| i8::try_from(digit - b'0').unwrap_or(0)))
}

fn two<const COUNT: usize>(digits: [i8; COUNT], at: usize) -> i8 {
    digits
        .iter()
        .skip(at)
        .take(2)
        .fold(0, |number, digit| number * 10 + digit)
}

impl Length {
    /// What an event says about its end.
    pub(super) fn of_event(
        event: &Component,
        start: &Moment,
        zones: &Zones<'_>,
    ) -> Result<Self, Error> {
        let (end, duration) = (event.single("DTEND")?, event.single("DURATION")?);
        match (end, duration) {
            (Some(line), None) => {
                let end = zones.moment(line)?;
                Self::between(start, &end, &line.value).map_err(|problem| line.error(problem))
            }
            (None, Some(line)) => Self::parse(&line.value).map_err(|problem| line.error(problem)),
            (None, None) if start.is_day => Ok(Self {
                days: 1,
                exact: SignedDuration::ZERO,
            }),
            (None, None) => Err(event.error(Problem::NoEnd)),
            (Some(_), Some(line)) => Err(line.error(Problem::Twice("the end (DTEND, DURATION)"))),
        }
    }

    /// Days between days; between times what elapses, whatever the clock does (RFC 5545, 3.8.5.3).
    fn between(start: &Moment, end: &Moment, written: &str) -> Result<Self, Problem> {
        if start.is_day != end.is_day {
            return Err(Problem::DateOrTime(short(written)));
        }
        let beyond = || Problem::Beyond(short(written));
        let length = if start.is_day {
            let between = end.wall.date().duration_since(start.wall.date());
            Self {
                days: i32::try_from(between.as_hours() / 24).map_err(|_| beyond())?,
                exact: SignedDuration::ZERO,
            }
        } else {
            let (start, end) = (start.instant(), end.instant());
            let between = start.zip(end).map(|(start, end)| end.duration_since(start));
            Self {
                days: 0,
                exact: between.ok_or_else(beyond)?,
            }
        };
        length.above_zero()
    }

    /// Reads `P2D`, `P1W` or `PT8H30M`.
    fn parse(value: &str) -> Result<Self, Problem> {
        let wrong = || Problem::NoDuration(short(value));
        let is_iso = value.trim_start_matches(['+', '-']).starts_with('P');
        let span: Span = value.parse().map_err(|_| wrong())?;
        if !is_iso || span.get_years() != 0 || span.get_months() != 0 {
            return Err(wrong());
        }
        let exact = Span::new()
            .hours(span.get_hours())
            .minutes(span.get_minutes())
            .seconds(span.get_seconds());
        let length = Self {
            days: span
                .get_weeks()
                .checked_mul(7)
                .and_then(|days| days.checked_add(span.get_days()))
                .ok_or_else(wrong)?,
            exact: SignedDuration::try_from(exact).map_err(|_| wrong())?,
        };
        length.above_zero()
    }

    fn above_zero(self) -> Result<Self, Problem> {
        if self.days > 0 || self.exact > SignedDuration::ZERO {
            Ok(self)
        } else {
            Err(Problem::NoLength)
        }
    }

    /// When what begins at an instant is over.
    pub(super) fn end(&self, start: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let days = Span::new().try_days(self.days).ok()?;
        let day = start.to_zoned(zone.clone()).checked_add(days).ok()?;
        day.timestamp().checked_add(self.exact).ok()
    }

    /// The length in whole days, rounded up.
    pub(super) fn whole_days(&self) -> i64 {
        i64::from(self.days) + self.exact.as_hours() / 24 + 1
    }
}
