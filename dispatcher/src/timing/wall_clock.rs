//! From what a clock on the wall shows to instants, and what becomes of the times that it skips or shows twice.
//!
//! ```text
//!                      the clock is set forward           the clock is set back
//!   on the wall     01:00 ─────┐ ┌──── 03:00 04:00     01:00 02:00 ┐ ┌ 02:00 03:00
//!   instants        ───────────┴─┴────────────────     ────────────┴─┴────────────
//!   a fixed time    02:30 ──▶  at 03:00, once           02:30 ──▶ the first, once
//!   a wildcard      02:30 ──▶  not at all               02:30 ──▶ both
//! ```
//!
//! A fixed time means a time of the day, which every day has once; a wildcard means "so and so often", and
//! the time that elapses between two ticks stays the same.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan as _};

use super::cron::Cron;

/// A cron expression on the clocks of a zone.
#[derive(Debug, Clone)]
pub(super) struct WallClock {
    pub(super) cron: Cron,
    /// Days that are added to each time that the expression names.
    pub(super) days: Span,
}

/// A time that was asked for.
pub(super) struct Found {
    pub(super) instant: Timestamp,
    /// What the clock would have shown, if that was skipped.
    pub(super) skipped: Option<DateTime>,
    /// The time before, or an instant at the same distance from UTC.
    pub(super) previous: Option<Timestamp>,
}

impl WallClock {
    /// The first time after an instant, until another.
    pub(super) fn next(
        &self,
        zone: &TimeZone,
        after: Timestamp,
        until: Timestamp,
    ) -> Option<Found> {
        if self.cron.is_fixed() {
            self.next_fixed(zone, after, until)
        } else {
            self.next_elapsed(zone, after, until)
        }
    }

    /// Each time on the wall is one instant, and later times are never earlier instants. So what is not after
    /// `after` is passed over, and nothing else.
    fn next_fixed(&self, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Option<Found> {
        let mut wall = zone.to_datetime(after);
        loop {
            wall = self.following(wall)?;
            let (instant, is_skipped) = fixed_instant(zone, wall)?;
            if instant > until {
                return None;
            }
            if instant > after {
                let previous = self.preceding(wall);
                return Some(Found {
                    instant,
                    skipped: is_skipped.then_some(wall),
                    previous: previous
                        .and_then(|previous| fixed_instant(zone, previous))
                        .map(|(instant, _)| instant),
                });
            }
        }
    }

    /// Between two changes of the zone's distance to UTC the clock on the wall runs evenly: one such stretch
    /// after the other is searched.
    fn next_elapsed(&self, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Option<Found> {
        let mut from = after;
        let mut search_after = zone.to_datetime(after);
        loop {
            let offset = zone.to_offset(from);
            let change = zone.following(from).next().map(|change| change.timestamp());
            let wall = self.following(search_after)?;
            let instant = offset.to_timestamp(wall).ok()?;
            if change.is_none_or(|change| instant < change) {
                let previous = self.preceding(wall);
                return (instant <= until).then(|| Found {
                    instant,
                    skipped: None,
                    previous: previous.and_then(|previous| last_instant(zone, previous)),
                });
            }
            from = change.filter(|change| *change <= until)?;
            // What the clock shows at the change itself is searched too.
            search_after = zone.to_datetime(from).checked_sub(1.second()).ok()?;
        }
    }

    fn following(&self, wall: DateTime) -> Option<DateTime> {
        let named = wall.checked_sub(self.days).ok()?;
        self.cron.next(named)?.checked_add(self.days).ok()
    }

    fn preceding(&self, wall: DateTime) -> Option<DateTime> {
        let named = wall.checked_sub(self.days).ok()?;
        self.cron.previous(named)?.checked_add(self.days).ok()
    }
}

/// When a fixed time is, and whether the clock skips it.
fn fixed_instant(zone: &TimeZone, wall: DateTime) -> Option<(Timestamp, bool)> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            Some((offset.to_timestamp(wall).ok()?, false))
        }
        AmbiguousOffset::Gap { after, .. } => {
            // With the later offset, a time in the gap is an instant before the change.
            let earlier = after.to_timestamp(wall).ok()?;
            let change = zone.following(earlier).next()?;
            Some((change.timestamp(), true))
        }
    }
}

/// The last instant at which the clock shows a time; if it skips it, one before.
fn last_instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset: after }
        | AmbiguousOffset::Fold { after, .. }
        | AmbiguousOffset::Gap { after, .. } => after.to_timestamp(wall).ok(),
    }
}
