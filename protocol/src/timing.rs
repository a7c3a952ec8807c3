//! When a schedule runs: its times, its zone, and what moves or limits them.
//!
//! Only the shape is checked here. Whether a cron expression can fire, a zone exists and a window fits is the
//! dispatcher's to say: it alone reads cron and keeps the time zone database.

use std::fmt;
use std::str::FromStr;

use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// When a schedule's ticks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timing {
    /// What makes a tick.
    pub when: When,
    /// Where a cron expression's hours and an offset's days are counted.
    #[serde(default)]
    pub time_zone: TimeZoneName,
    /// What is added to each time: with `0 3 * * TUE#2` and `4d`, the Saturday after the second Tuesday.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "4d"))]
    pub offset: Option<Offset>,
    /// For how long after its tick a job may run; for ever if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
    /// For how long before the end of the window nothing is started any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoff_seconds: Option<u64>,
    /// What becomes of a command that still runs at the end of the window.
    #[serde(default, skip_serializing_if = "AtWindowEnd::is_finish")]
    pub at_window_end: AtWindowEnd,
    /// By how much a start may be delayed at random, so that many schedules do not start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_seconds: Option<u64>,
}

/// What makes a tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum When {
    /// The clock on the wall.
    Cron {
        /// Minute, hour, day of month, month, day of week, with `L`, `W` and `#`; or `@daily` and the like.
        expression: String,
    },
    /// Elapsed time, whatever the clock on the wall does.
    Every {
        /// From one tick to the next, in seconds: at least 60.
        seconds: u64,
        /// The first tick.
        from: Timestamp,
    },
    /// Once.
    At {
        /// When.
        time: Timestamp,
    },
}

/// What becomes of a command that still runs at the end of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AtWindowEnd {
    /// It runs on.
    #[default]
    Finish,
    /// It is cancelled.
    Cancel,
}

impl AtWindowEnd {
    /// The default.
    #[must_use]
    pub const fn is_finish(&self) -> bool {
        matches!(self, Self::Finish)
    }
}

/// The name of a time zone as in the IANA database: `Europe/Berlin`, `UTC`. That there is one of this name
/// is not checked here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "Europe/Berlin"))]
#[serde(try_from = "String", into = "String")]
pub struct TimeZoneName(String);

/// The longest name of a time zone; the longest that there is has 32 letters.
const MAX_TIME_ZONE_NAME_BYTES: usize = 64;

/// Text that cannot be the name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a time zone: write it as in the IANA database, for example Europe/Berlin or UTC"
)]
pub struct InvalidTimeZoneName(String);

impl TimeZoneName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TimeZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TimeZoneName {
    type Err = InvalidTimeZoneName;

    fn from_str(text: &str) -> Result<Self, InvalidTimeZoneName> {
        // The database may be a folder, and the name a path in it: no dots, and no root.
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/');
        let is_name = text.len() <= MAX_TIME_ZONE_NAME_BYTES
            && text.bytes().all(is_inner)
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && !text.ends_with('/');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTimeZoneName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for TimeZoneName {
    type Error = InvalidTimeZoneName;

    fn try_from(text: String) -> Result<Self, InvalidTimeZoneName> {
        text.parse()
    }
}

impl From<TimeZoneName> for String {
    fn from(name: TimeZoneName) -> Self {
        name.0
    }
}

/// What is added to each time of a schedule: whole days of the calendar, which keep the time of day across a
/// change of the clock, and then elapsed time. Written as `4d`, `1d 12h` or `-30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Offset {
    days: i32,
    seconds: i64,
}

/// The longest offset, in days, in either direction.
pub const MAX_OFFSET_DAYS: i32 = 366;

/// Text that is no offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOffset {
    /// Not a duration.
    #[error("{0:?} is no offset: write days and time, for example 4d, 1d 12h or -30m")]
    Unreadable(String),
    /// Months and years are not always as long.
    #[error(
        "the offset {0:?} has months or years, which are not all equally long: write days, for example 30d"
    )]
    Uneven(String),
    /// Parts of a second.
    #[error("the offset {0:?} is not a whole number of seconds")]
    Subsecond(String),
    /// Over [`MAX_OFFSET_DAYS`].
    #[error("the offset {0:?} is too long: write at most {MAX_OFFSET_DAYS}d")]
    TooLong(String),
}

impl Offset {
    /// Days of the calendar; negative is earlier.
    #[must_use]
    pub const fn days(&self) -> i32 {
        self.days
    }

    /// Elapsed time after the days; of the same sign.
    #[must_use]
    pub const fn seconds(&self) -> i64 {
        self.seconds
    }
}

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        let short = || text.chars().take(80).collect();
        let span: Span = text
            .parse()
            .map_err(|_| InvalidOffset::Unreadable(short()))?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(InvalidOffset::Uneven(short()));
        }
        if span.get_milliseconds() != 0
            || span.get_microseconds() != 0
            || span.get_nanoseconds() != 0
        {
            return Err(InvalidOffset::Subsecond(short()));
        }
        let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
        let seconds =
            i64::from(span.get_hours()) * 3600 + span.get_minutes() * 60 + span.get_seconds();
        let most = i64::from(MAX_OFFSET_DAYS);
        match i32::try_from(days) {
            Ok(in_days) if days.abs() + seconds.abs() / 86_400 <= most => Ok(Self {
                days: in_days,
                seconds,
            }),
            _ => Err(InvalidOffset::TooLong(short())),
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.days.unsigned_abs(), self.seconds.unsigned_abs());
        let parts = [
            (u64::from(days), "d"),
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
        ];
        let written: Vec<String> = parts
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, unit)| format!("{number}{unit}"))
            .collect();
        match (written.is_empty(), self.days < 0 || self.seconds < 0) {
            (true, _) => f.pad("0s"),
            (false, true) => f.pad(&format!("-{}", written.join(" "))),
            (false, false) => f.pad(&written.join(" ")),
        }
    }
}

impl TryFrom<String> for Offset {
    type Error = InvalidOffset;

    fn try_from(text: String) -> Result<Self, InvalidOffset> {
        text.parse()
    }
}

impl From<Offset> for String {
    fn from(offset: Offset) -> Self {
        offset.to_string()
    }
}

/// What daylight saving, or another change of the clock on the wall, does to a tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Shift {
    /// The clock is set forward over the time that was asked for: the tick is right after that.
    Gap {
        /// The time on the wall that does not exist.
        #[cfg_attr(feature = "openapi", schema(value_type = String, example = "2026-03-29T02:30:00"))]
        wanted: jiff::civil::DateTime,
    },
    /// The clock is set back over the time of the tick, which is on the wall twice.
    Fold {
        /// Which of the two it is.
        pass: Pass,
    },
    /// The zone's distance to UTC is not what it was at the tick before.
    UtcOffset {
        /// The distance at the tick before, in seconds east.
        before_seconds: i32,
        /// The distance at this one, in seconds east.
        after_seconds: i32,
    },
}

/// Which of the two times that a time is on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say all there is")]
pub enum Pass {
    First,
    Second,
}

/// Why a calendar does not allow a tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Blackout {
    /// An event of a closed calendar.
    Closed {
        /// The calendar's name.
        calendar: String,
        /// What the event is called.
        event: String,
    },
    /// No event of any open calendar.
    NotOpen {
        /// The calendars' names.
        calendars: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(text: &str) -> Result<(i32, i64), InvalidOffset> {
        text.parse::<Offset>()
            .map(|offset| (offset.days(), offset.seconds()))
    }

    #[test]
    fn a_timing_is_written_in_one_way() {
        let written = r#"{
          "when": {"type": "cron", "expression": "0 3 * * TUE#2"},
          "time_zone": "Europe/Berlin",
          "offset": "P1WT90M"
        }"#;
        let timing: Timing = serde_json::from_str(written).unwrap();
        insta::assert_json_snapshot!(timing, @r#"
        {
          "when": {
            "type": "cron",
            "expression": "0 3 * * TUE#2"
          },
          "time_zone": "Europe/Berlin",
          "offset": "7d 1h 30m"
        }
        "#);
        let least = r#"{"when":{"type":"at","time":"2026-03-29T01:00:00Z"},"time_zone":"UTC"}"#;
        let timing: Timing = serde_json::from_str(least).unwrap();
        assert_eq!(serde_json::to_string(&timing).unwrap(), least);
        let wrong = written.replace("P1WT90M", "1mo");
        assert!(serde_json::from_str::<Timing>(&wrong).is_err());
    }

    #[test]
    fn an_offset_is_days_and_time() {
        for (text, expected) in [
            ("4d", (4, 0)),
            ("1d 12h", (1, 43_200)),
            ("-30m", (0, -1800)),
            ("-1d 2h", (-1, -7200)),
            ("2w", (14, 0)),
            ("36h", (0, 129_600)),
            ("0s", (0, 0)),
        ] {
            assert_eq!(offset(text), Ok(expected), "{text}");
            let again = text.parse::<Offset>().unwrap().to_string();
            assert_eq!(offset(&again), Ok(expected), "{again}");
        }
        let wrong = [
            "", "4", "d", "1mo", "1y", "1.5s", "367d", "366d 24h", "99999h",
        ];
        let errors = wrong.map(|text| offset(text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        "" is no offset: write days and time, for example 4d, 1d 12h or -30m
        "4" is no offset: write days and time, for example 4d, 1d 12h or -30m
        "d" is no offset: write days and time, for example 4d, 1d 12h or -30m
        the offset "1mo" has months or years, which are not all equally long: write days, for example 30d
        the offset "1y" has months or years, which are not all equally long: write days, for example 30d
        the offset "1.5s" is not a whole number of seconds
        the offset "367d" is too long: write at most 366d
        the offset "366d 24h" is too long: write at most 366d
        the offset "99999h" is too long: write at most 366d
        "#);
    }

    #[test]
    fn a_zone_is_no_path() {
        for good in [
            "UTC",
            "Europe/Berlin",
            "Etc/GMT+5",
            "America/Port-au-Prince",
            "America/Argentina/Buenos_Aires",
        ] {
            assert_eq!(good.parse::<TimeZoneName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/etc/passwd",
            "../etc/passwd",
            "Europe/../..",
            "Europe/",
            "Europe Berlin",
            "+01:00",
            "CET-1CEST,M3.5.0",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<TimeZoneName>().is_err(), "{bad}");
            assert!(
                serde_json::from_value::<TimeZoneName>(bad.into()).is_err(),
                "{bad}"
            );
        }
    }
}
