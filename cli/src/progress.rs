//! How far something is: one line for a terminal, in numbers that people can compare with their patience.

use std::time::Duration;

use tokio::time::Instant;

use crate::amount::size;

/// How many places the bar has.
const PLACES: u64 = 10;
/// How long to look before a rate is told: the first moments say little.
const FIRST_RATE_AFTER: Duration = Duration::from_millis(500);

/// Something with a known end.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is done.
    verb: &'static str,
    /// How many bytes it is.
    total: u64,
    /// How many were done before.
    before: u64,
    begun: Instant,
}

impl Progress {
    /// Something of so many bytes, of which some were done before, begins.
    #[must_use]
    pub const fn new(verb: &'static str, total: u64, before: u64, begun: Instant) -> Self {
        Self {
            verb,
            total,
            before,
            begun,
        }
    }

    /// How far it is when so many bytes are done.
    #[must_use]
    pub fn line(&self, done: u64, now: Instant) -> String {
        let done = done.min(self.total);
        let part = |whole: u64| match self.total {
            0 => whole,
            total => (u128::from(done) * u128::from(whole) / u128::from(total)) as u64,
        };
        let bar: String = (0..PLACES)
            .map(|place| if place < part(PLACES) { '#' } else { '-' })
            .collect();
        let mut line = format!(
            "{} [{bar}] {}%, {} of {}",
            self.verb,
            part(100),
            size(done),
            size(self.total)
        );
        if let Some(rate) = self.rate(done, now) {
            let left = Duration::from_secs((self.total - done).div_ceil(rate));
            line = format!("{line}, {}/s, {} left", size(rate), short(left));
        }
        line
    }

    /// In bytes each second, on average; `None` as long as there is nothing to tell it by.
    fn rate(&self, done: u64, now: Instant) -> Option<u64> {
        let time = now.saturating_duration_since(self.begun);
        let bytes = u128::from(done.saturating_sub(self.before));
        let rate = (bytes * 1000).checked_div(time.as_millis())?;
        let rate = u64::try_from(rate).ok()?;
        (rate > 0 && time >= FIRST_RATE_AFTER).then_some(rate)
    }
}

/// A time in the two units that matter.
fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds @ 60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(total: u64, before: u64, done: u64, milliseconds: u64) -> String {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(milliseconds);
        Progress::new("uploading", total, before, begun).line(done, now)
    }

    #[test]
    fn a_line_has_part_amount_rate_and_time_left() {
        let mebi = 1 << 20;
        let lines = [
            line(1000 * mebi, 0, 250 * mebi, 10_000),
            // What was there before says nothing about the rate.
            line(1000 * mebi, 250 * mebi, 260 * mebi, 10_000),
            line(1000 * mebi, 0, 999 * mebi, 1_000_000),
            line(1000 * mebi, 0, mebi, 100_000),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        uploading [##--------] 25%, 250 MiB of 1000 MiB, 25 MiB/s, 30 s left
        uploading [##--------] 26%, 260 MiB of 1000 MiB, 1 MiB/s, 12 min 20 s left
        uploading [#########-] 99%, 999 MiB of 1000 MiB, 1023 KiB/s, 2 s left
        uploading [----------] 0%, 1 MiB of 1000 MiB, 10.2 KiB/s, 27 h 45 min left
        ");
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(
            line(100, 0, 50, 100),
            "uploading [#####-----] 50%, 50 bytes of 100 bytes"
        );
        assert_eq!(
            line(100, 50, 50, 10_000),
            "uploading [#####-----] 50%, 50 bytes of 100 bytes"
        );
        assert_eq!(
            line(0, 0, 0, 10_000),
            "uploading [##########] 100%, 0 bytes of 0 bytes"
        );
        assert!(line(10, 0, 20, 0).contains(" 100%, 10 bytes of 10 bytes"));
        assert!(line(u64::MAX, 0, u64::MAX, u64::MAX / 2).contains(" 100%"));
    }

    /// What does not fit into a line of 80 is cut off.
    #[test]
    fn a_line_is_short_enough() {
        let longest = line(1023 << 20, 0, (1022 << 20) + 123_456, 3_600_000);
        let shown = format!("invoke: {longest}");
        assert!(shown.len() < 80 + 6, "{shown}: {}", shown.len());
    }
}
