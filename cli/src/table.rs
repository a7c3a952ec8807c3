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

/// The same at its full width. Every cell is made neutral.
fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
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
    fn an_age_has_one_unit() {
        let ages: Vec<_> = [0, 119, 120, 7199, 7200, 172_800]
            .into_iter()
            .map(age)
            .collect();
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
