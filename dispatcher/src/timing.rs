//! When a schedule's ticks are. Pure: no clock, no store, and the same answer in every dispatcher.
//!
//! ```text
//!   cron ─▶ wall_clock (zone, days of the offset) ─┐
//!   every ─────────────────────────────────────────┼─▶ + time of the offset ─▶ calendars ─▶ Tick
//!   at ────────────────────────────────────────────┘
//! ```
//!
//! A tick is named by its instant, so that instant is computed anew from the timing and the rules of the zone
//! each time, and never remembered: a zone's rules change. All dispatchers should therefore have the same time
//! zone database: that of their machine, or, where there is none, that of the program.

mod cron;
mod wall_clock;
mod zone;
pub mod calendar;

use std::sync::Arc;

use aws_lc_rs::digest;
use invoke_protocol::timing::{AtWindowEnd, Blackout, Offset, Pass, Shift, Timing, When};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};
use uuid::Uuid;

use self::calendar::Calendar;
use self::cron::Cron;
use self::wall_clock::{Found, WallClock};

/// The shortest time between two ticks, in seconds.
pub const MIN_INTERVAL_SECONDS: u64 = 60;

/// The longest interval, window, cut-off and jitter, in seconds: 366 days.
pub const MAX_SECONDS: u64 = 366 * 86_400;

/// How far ahead ticks are looked for. What does not tick in ten years is over.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_hours(24 * 3653);

/// A timing that was checked, with its zone and its calendars.
#[derive(Debug, Clone)]
pub struct Plan {
    times: Times,
    zone: TimeZone,
    /// The exact part of the offset.
    delay: SignedDuration,
    calendars: Calendars,
}

#[derive(Debug, Clone)]
enum Times {
    Cron(Box<WallClock>),
    Every {
        interval: SignedDuration,
        from: Timestamp,
    },
    At(Timestamp),
}

/// The calendars of a schedule.
#[derive(Debug, Clone, Default)]
pub struct Calendars {
    /// Nothing starts during their events.
    pub closed: Vec<Arc<Calendar>>,
    /// If there are any, everything starts during their events only.
    pub open: Vec<Arc<Calendar>>,
}

/// One time at which a schedule is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// When, with the offset and without the jitter. This names the tick.
    pub instant: Timestamp,
    /// Why it may not run, if so.
    pub blackout: Option<Blackout>,
    /// What a change of the clock does to it.
    pub shift: Option<Shift>,
}

/// Why a timing is refused. The text says what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cron expression.
    #[error(transparent)]
    Cron(#[from] cron::Error),
    /// The zone.
    #[error(transparent)]
    Zone(#[from] zone::Unknown),
    /// Below [`MIN_INTERVAL_SECONDS`].
    #[error("an interval of {} is too short: write at least {}", people(*.0), people(MIN_INTERVAL_SECONDS))]
    IntervalTooShort(u64),
    /// Over [`MAX_SECONDS`].
    #[error("{what} of {} is too long: write at most {}", people(*.seconds), people(MAX_SECONDS))]
    TooLong {
        /// Which of them, with its article.
        what: &'static str,
        /// How long it is.
        seconds: u64,
    },
    /// A window without length.
    #[error("a window of 0s lets nothing start: write for how long a run may take, for example 2h")]
    WindowEmpty,
    /// The next tick comes before the end of the window.
    #[error(
        "the window of {} is longer than the {} from one tick to the next: write a window of at most {}",
        people(*.window), people(*.interval), people(*.interval)
    )]
    WindowTooLong {
        /// The window, in seconds.
        window: u64,
        /// The shortest time between two ticks, in seconds.
        interval: u64,
    },
    /// A cut-off of no window.
    #[error("a cut-off is counted from the end of a window, and there is none: add a window longer than {}", people(*.0))]
    CutoffWithoutWindow(u64),
    /// Nothing could start.
    #[error(
        "the cut-off of {} is not shorter than the window of {}, so nothing could ever start: write a shorter cut-off, \
         or a longer window",
        people(*.cutoff), people(*.window)
    )]
    CutoffTooLong {
        /// The cut-off, in seconds.
        cutoff: u64,
        /// The window, in seconds.
        window: u64,
    },
    /// The end of no window.
    #[error(
        "what still runs is to be cancelled at the end of a window, and there is none: add a window, for example 2h"
    )]
    CancelWithoutWindow,
    /// A start could come after the next tick.
    #[error(
        "the jitter of {} is longer than the {} from one tick to the next: write a jitter of at most {}",
        people(*.jitter), people(*.interval), people(*.interval)
    )]
    JitterTooLong {
        /// The jitter, in seconds.
        jitter: u64,
        /// The shortest time between two ticks, in seconds.
        interval: u64,
    },
    /// A start could come too late for its window.
    #[error(
        "a jitter of {} may delay a start beyond the {} of its window in which it is allowed: write a jitter of at \
         most {}",
        people(*.jitter), people(*.room), people(*.room)
    )]
    JitterBeyondWindow {
        /// The jitter, in seconds.
        jitter: u64,
        /// The window less the cut-off, in seconds.
        room: u64,
    },
    /// The offset leads out of every calendar.
    #[error("with its offset of {0} the time is beyond every calendar: write an earlier time")]
    Beyond(Offset),
    /// The only tick was before now.
    #[error("{time} is past, it is {now}: write a time that is still to come")]
    Past {
        /// When it was, with the offset.
        time: Timestamp,
        /// When it is.
        now: Timestamp,
    },
    /// No tick in ten years.
    #[error(
        "the schedule would not run in the next ten years: write an earlier time, or a cron expression that fires more often"
    )]
    NothingAhead,
}

impl Plan {
    /// Checks a timing, in the zone of its name.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn new(timing: &Timing, calendars: Calendars) -> Result<Self, Error> {
        Self::in_zone(timing, zone::find(&timing.time_zone)?, calendars)
    }

    /// Checks a timing, in a zone whose rules are given, whatever the timing calls it.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn in_zone(timing: &Timing, zone: TimeZone, calendars: Calendars) -> Result<Self, Error> {
        let days = Span::new().days(timing.offset.map_or(0, |offset| offset.days()));
        let delay = SignedDuration::from_secs(timing.offset.map_or(0, |offset| offset.seconds()));
        // Without a clock on the wall the days are counted once, from the first tick.
        let moved = |time: Timestamp| {
            let moved = time.to_zoned(zone.clone()).checked_add(days);
            let moved = moved.map(|moved| moved.timestamp());
            moved.map_err(|_| timing.offset.map_or(Error::NothingAhead, Error::Beyond))
        };
        let times = match &timing.when {
            When::Cron { expression } => Times::Cron(Box::new(WallClock {
                cron: Cron::parse(expression)?,
                days,
            })),
            When::Every { seconds, from } => Times::Every {
                interval: interval(*seconds)?,
                from: moved(*from)?,
            },
            When::At { time } => Times::At(moved(*time)?),
        };
        let plan = Self {
            times,
            zone,
            delay,
            calendars,
        };
        plan.check_window(timing)?;
        Ok(plan)
    }

    /// Refuses what will never tick again: for the moment at which a schedule is made or changed.
    ///
    /// # Errors
    /// Says what to write instead.
    pub fn check_future(&self, now: Timestamp) -> Result<(), Error> {
        if self.next(now).is_some() {
            return Ok(());
        }
        let Times::At(time) = self.times else {
            return Err(Error::NothingAhead);
        };
        match time.checked_add(self.delay) {
            Ok(time) if time <= now => Err(Error::Past { time, now }),
            _ => Err(Error::NothingAhead),
        }
    }

    /// The ticks strictly after an instant, each once and in order, for ten years from then at most.
    pub fn ticks_after(&self, instant: Timestamp) -> impl Iterator<Item = Tick> + '_ {
        let until = look_ahead(instant);
        let next = move |after| self.next_until(after, until);
        std::iter::successors(next(instant), move |found| next(found.instant))
            .map(|found| self.tick(&found))
    }

    /// The zone that local times are in.
    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl Plan {
    fn next(&self, after: Timestamp) -> Option<Found> {
        self.next_until(after, look_ahead(after))
    }

    fn next_until(&self, after: Timestamp, until: Timestamp) -> Option<Found> {
        // The exact part of the offset moves everything alike, so it is taken off before and put on after.
        let after = after.checked_sub(self.delay).unwrap_or(Timestamp::MIN);
        let until = until.checked_sub(self.delay).unwrap_or(Timestamp::MAX);
        let found = match &self.times {
            Times::Cron(clock) => clock.next(&self.zone, after, until)?,
            Times::Every { interval, from } => next_multiple(*from, *interval, after)?,
            Times::At(time) => Found {
                instant: *time,
                skipped: None,
                previous: None,
            },
        };
        if found.instant <= after || found.instant > until {
            return None;
        }
        Some(Found {
            instant: found.instant.checked_add(self.delay).ok()?,
            skipped: found.skipped,
            previous: found
                .previous
                .and_then(|previous| previous.checked_add(self.delay).ok()),
        })
    }

    fn tick(&self, found: &Found) -> Tick {
        Tick {
            instant: found.instant,
            blackout: self.calendars.blackout(found.instant),
            shift: self.shift(found),
        }
    }

    fn shift(&self, found: &Found) -> Option<Shift> {
        if let Some(wanted) = found.skipped {
            return Some(Shift::Gap { wanted });
        }
        let offset = self.zone.to_offset(found.instant);
        let wall = self.zone.to_datetime(found.instant);
        if let AmbiguousOffset::Fold { before, .. } =
            self.zone.to_ambiguous_timestamp(wall).offset()
        {
            let is_first = offset == before;
            let pass = if is_first { Pass::First } else { Pass::Second };
            return Some(Shift::Fold { pass });
        }
        let before = self.zone.to_offset(found.previous?);
        (before != offset).then(|| Shift::UtcOffset {
            before_seconds: before.seconds(),
            after_seconds: offset.seconds(),
        })
    }

    fn check_window(&self, timing: &Timing) -> Result<(), Error> {
        let limited = [
            ("a window", timing.window_seconds),
            ("a cut-off", timing.cutoff_seconds),
            ("a jitter", timing.jitter_seconds),
        ];
        for (what, seconds) in limited {
            not_too_long(what, seconds.unwrap_or(0))?;
        }
        match (timing.window_seconds, timing.cutoff_seconds) {
            (None, Some(cutoff)) => return Err(Error::CutoffWithoutWindow(cutoff)),
            (Some(0), _) => return Err(Error::WindowEmpty),
            (Some(window), Some(cutoff)) if cutoff >= window => {
                return Err(Error::CutoffTooLong { cutoff, window });
            }
            (None, None) if timing.at_window_end == AtWindowEnd::Cancel => {
                return Err(Error::CancelWithoutWindow);
            }
            _ => {}
        }
        if timing.window_seconds.is_none() && timing.jitter_seconds.is_none() {
            return Ok(());
        }
        let window = timing.window_seconds.unwrap_or(0);
        let jitter = timing.jitter_seconds.unwrap_or(0);
        let interval = self.shortest_interval();
        let room = window.saturating_sub(timing.cutoff_seconds.unwrap_or(0));
        if window > interval {
            Err(Error::WindowTooLong { window, interval })
        } else if jitter > interval {
            Err(Error::JitterTooLong { jitter, interval })
        } else if window > 0 && jitter > room {
            Err(Error::JitterBeyondWindow { jitter, room })
        } else {
            Ok(())
        }
    }

    /// The shortest time between two ticks, in seconds, on a clock that nobody changes.
    fn shortest_interval(&self) -> u64 {
        match &self.times {
            Times::Cron(clock) => clock.cron.shortest_interval(),
            Times::Every { interval, .. } => interval.as_secs().unsigned_abs(),
            Times::At(_) => u64::MAX,
        }
    }
}

impl Calendars {
    /// Why nothing may start at an instant, if so.
    #[must_use]
    pub fn blackout(&self, instant: Timestamp) -> Option<Blackout> {
        for calendar in &self.closed {
            if let Some(event) = calendar.covers(instant) {
                return Some(Blackout::Closed {
                    calendar: calendar.name().to_owned(),
                    event: event.to_owned(),
                });
            }
        }
        let is_open = |calendar: &Arc<Calendar>| calendar.covers(instant).is_some();
        if self.open.is_empty() || self.open.iter().any(is_open) {
            return None;
        }
        let names = self.open.iter().map(|calendar| calendar.name().to_owned());
        Some(Blackout::NotOpen {
            calendars: names.collect(),
        })
    }
}

/// By how much the start of a tick is delayed: evenly spread from nothing to `seconds`, and the same in every
/// dispatcher.
#[must_use]
pub fn jitter(schedule: Uuid, tick: Timestamp, seconds: u64) -> SignedDuration {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(schedule.as_bytes());
    hash.update(&tick.as_nanosecond().to_be_bytes());
    let hash = hash.finish();
    let number = hash
        .as_ref()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let milliseconds = (u128::from(number) * u128::from(seconds) * 1000) >> 64;
    SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}

fn interval(seconds: u64) -> Result<SignedDuration, Error> {
    if seconds < MIN_INTERVAL_SECONDS {
        return Err(Error::IntervalTooShort(seconds));
    }
    not_too_long("an interval", seconds)
}

fn not_too_long(what: &'static str, seconds: u64) -> Result<SignedDuration, Error> {
    match i64::try_from(seconds) {
        Ok(whole) if seconds <= MAX_SECONDS => Ok(SignedDuration::from_secs(whole)),
        _ => Err(Error::TooLong { what, seconds }),
    }
}

fn look_ahead(instant: Timestamp) -> Timestamp {
    instant.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX)
}

/// The first of `from`, `from + interval`, … after an instant.
fn next_multiple(from: Timestamp, interval: SignedDuration, after: Timestamp) -> Option<Found> {
    if after < from {
        return Some(Found {
            instant: from,
            skipped: None,
            previous: None,
        });
    }
    let elapsed = after.duration_since(from).as_secs();
    let whole = SignedDuration::from_secs(elapsed - elapsed % interval.as_secs());
    let previous = from.checked_add(whole).ok()?;
    Some(Found {
        instant: previous.checked_add(interval).ok()?,
        skipped: None,
        previous: Some(previous),
    })
}

/// A duration as it is written on the command line.
fn people(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let written: Vec<_> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if written.is_empty() {
        "0s".to_owned()
    } else {
        written.join(" ")
    }
}

#[cfg(test)]
mod tests;
