//! What was measured, against what must be reached.

use std::fmt::Write as _;
use std::time::Duration;

/// One figure.
pub(crate) struct Figure {
    what: String,
    must: Bound,
    reached: f64,
    unit: &'static str,
    beside: String,
}

/// What must be reached.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// Less than this.
    Under(f64),
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// Nothing: it is told for comparison.
    Told,
}

impl Figure {
    /// A number of something.
    pub(crate) fn count(
        what: impl Into<String>,
        must: Bound,
        reached: f64,
        unit: &'static str,
        beside: String,
    ) -> Self {
        Self {
            what: what.into(),
            must,
            reached,
            unit,
            beside,
        }
    }

    /// A time, in milliseconds.
    pub(crate) fn time(
        what: impl Into<String>,
        must: Bound,
        reached: Duration,
        beside: String,
    ) -> Self {
        Self::count(what, must, milliseconds(reached), "ms", beside)
    }

    /// Whether it is as it must be. What could not be measured is no number, and is not.
    pub(crate) fn is_met(&self) -> bool {
        match self.must {
            Bound::Under(limit) => self.reached < limit,
            Bound::AtMost(limit) => self.reached <= limit,
            Bound::AtLeast(limit) => self.reached >= limit,
            Bound::Told => true,
        }
    }

    fn row(&self) -> String {
        let unit = self.unit;
        let must = match self.must {
            Bound::Under(limit) => format!("under {} {unit}", short(limit)),
            Bound::AtMost(limit) => format!("at most {} {unit}", short(limit)),
            Bound::AtLeast(limit) => format!("at least {} {unit}", short(limit)),
            Bound::Told => "–".to_owned(),
        };
        let missed = if self.is_met() { "" } else { " **missed**" };
        format!(
            "| {} | {must} | {} {unit}{missed} | {} |",
            self.what,
            short(self.reached),
            self.beside
        )
    }
}

/// All figures as a Markdown table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut table =
        "| what | must reach | reached | beside, in the same run |\n|---|---|---|---|\n".to_owned();
    for figure in figures {
        let _ = writeln!(table, "{}", figure.row());
    }
    table
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// As many digits as mean something.
pub(crate) fn short(number: f64) -> String {
    if number < 20.0 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// The value that so many per cent of the values do not exceed; zero of none.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut values: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        for (percent, expected) in [(50, 50), (95, 95), (99, 99), (100, 100)] {
            assert_eq!(
                percentile(&mut values, percent),
                Duration::from_millis(expected)
            );
        }
        let mut two = [Duration::from_millis(7), Duration::from_millis(3)];
        assert_eq!(percentile(&mut two, 99), Duration::from_millis(7));
        assert_eq!(percentile(&mut [], 99), Duration::ZERO);
    }

    #[test]
    fn what_is_missed_is_said() {
        let figure =
            |must, reached| Figure::count("jobs", must, reached, "jobs/s", "nothing".to_owned());
        for (must, reached, met) in [
            (Bound::Under(50.0), 49.9, true),
            (Bound::Under(50.0), 50.0, false),
            (Bound::AtMost(6.0), 6.0, true),
            (Bound::AtMost(6.0), 6.1, false),
            (Bound::AtLeast(300.0), 300.0, true),
            (Bound::AtLeast(300.0), 299.0, false),
            (Bound::AtLeast(300.0), f64::NAN, false),
            (Bound::Told, 1.0, true),
        ] {
            let figure = figure(must, reached);
            assert_eq!(figure.is_met(), met, "{}", figure.row());
            assert_eq!(!figure.row().contains("missed"), met, "{}", figure.row());
        }
    }
}
