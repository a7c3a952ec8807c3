//! Columns, ages and moments, for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::printer::neutral;

/// Rows under their headings, in columns as wide as what is in them, for stdout: on a terminal each
/// line is cut where the terminal ends, because a table that wraps cannot be read.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let text = columns(headings, rows);
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((width, _)) => text
            .lines()
            .map(|line| cut(line, width.0.into()) + "\n")
            .collect(),
        None => text,
    }
}

/// The same at its full width: for rows that end in a sentence. Every cell is made neutral.
#[must_use]
pub fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| neutral(cell)))
        .collect();
    let headings = headings.map(ToOwned::to_owned);
    let all = || std::iter::once(&headings).chain(&rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = all().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How long ago, in one unit.
#[must_use]
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long before `now` something was; 0 if clocks disagree.
#[must_use]
pub fn seconds_since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

/// A moment in the person's own time zone.
#[must_use]
pub fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

/// A moment to the millisecond, in UTC: to be compared with the logs of machines.
#[must_use]
pub fn exact_moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

/// A length of time, as it is written for an option: `1h30m`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let parts = [
        (seconds / 3600, "h"),
        (seconds % 3600 / 60, "m"),
        (seconds % 60, "s"),
    ];
    let written: String = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if written.is_empty() {
        "0s".to_owned()
    } else {
        written
    }
}

/// Text cut to a length, with an ellipsis where it was cut.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        text.chars()
            .take(most.saturating_sub(1))
            .chain(['…'])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_harmless() {
        let rows = [
            ["a".to_owned(), "x\ny".to_owned()],
            ["longer".to_owned(), String::new()],
        ];
        assert_eq!(
            columns(["ID", "WHAT"], &rows),
            "ID       WHAT\na        x\\ny\nlonger\n"
        );
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        let written: Vec<_> = [0, 59, 60, 5400, 3601].into_iter().map(duration).collect();
        assert_eq!(written, ["0s", "59s", "1m", "1h30m", "1h1s"]);
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages: Vec<_> = [0, 119, 120, 7199, 7200, 172_800]
            .into_iter()
            .map(age)
            .collect();
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
