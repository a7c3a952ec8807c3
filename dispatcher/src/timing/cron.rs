//! Cron expressions: five fields, with `L`, `W`, `#`, `+` and names, or a nickname.
//!
//! croner searches the calendar; what a time zone makes of what it finds is decided in [`super::wall_clock`].
//! croner could do that too, but it takes only a single hour and minute for a fixed time: `0 2,14 * * *`
//! would not run at all where two o'clock is skipped, and twice where it is repeated.

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};

/// The longest expression, in bytes: room for every minute by its number, twice.
const MAX_BYTES: usize = 512;

/// How many ticks are looked at for the shortest time between two.
const SAMPLE: usize = 3000;

/// Why something is no cron expression, or one that nobody means.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not five fields.
    #[error(
        "the cron expression {expression:?} has {fields} fields, not five: write minute, hour, day of the month, \
         month and day of the week, for example \"30 2 * * MON-FRI\""
    )]
    Fields {
        /// What came.
        expression: String,
        /// How many it has.
        fields: usize,
    },
    /// Six fields, or seven: seconds, as some other programs have them.
    #[error(
        "the cron expression {expression:?} has {fields} fields, but seconds and years are not supported: a schedule \
         ticks once a minute at most; write {instead:?}"
    )]
    Seconds {
        /// What came.
        expression: String,
        /// How many it has.
        fields: usize,
        /// The same without seconds and years.
        instead: String,
    },
    /// A name of an expression that is none.
    #[error(
        "there is no cron expression {expression:?}: write @hourly, @daily, @weekly, @monthly or @yearly, or five \
         fields, for example \"30 2 * * *\""
    )]
    Nickname {
        /// What came.
        expression: String,
    },
    /// A word in a field that has no such words.
    #[error(
        "the {field} {word:?} of the cron expression {expression:?} is unknown: write {allowed}"
    )]
    Word {
        /// What came.
        expression: String,
        /// Which field.
        field: &'static str,
        /// The word in it.
        word: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A number in a field that does not go so far.
    #[error(
        "the {field} {number} of the cron expression {expression:?} is out of range: write {allowed}"
    )]
    Number {
        /// What came.
        expression: String,
        /// Which field.
        field: &'static str,
        /// The number in it.
        number: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// Anything else.
    #[error(
        "{expression:?} is no cron expression ({cause}): write lists (1,15), ranges from low to high (MON-FRI) and \
         steps (*/5, 10-50/10), for example \"*/15 8-18 * * MON-FRI\""
    )]
    Syntax {
        /// What came.
        expression: String,
        /// The parser's words.
        cause: String,
    },
    /// No day is as it says.
    #[error(
        "the cron expression {expression:?} never fires: no month that it names has such a day; for the last day of a \
         month write L: {instead:?}"
    )]
    Never {
        /// What came.
        expression: String,
        /// The same with the last day of the month.
        instead: String,
    },
    /// Over [`MAX_BYTES`].
    #[error(
        "the cron expression has {0} bytes; at most {MAX_BYTES} are read: write ranges and steps, for example */5"
    )]
    TooLong(usize),
}

/// A cron expression that fires.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    pattern: croner::Cron,
    /// Whether neither minute nor hour have a wildcard: then it means times of the day, and none of them is
    /// lost or doubled when the clock changes. The rule is Vixie cron's.
    is_fixed: bool,
}

impl Cron {
    pub(super) fn parse(expression: &str) -> Result<Self, Error> {
        let expression = expression.trim();
        if expression.len() > MAX_BYTES {
            return Err(Error::TooLong(expression.len()));
        }
        let fields = fields(expression)?;
        for (text, field) in fields.iter().zip(&FIELDS) {
            field.check(expression, text)?;
        }
        let pattern = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(&fields.join(" "))
            .map_err(|error| Error::Syntax {
                expression: expression.to_owned(),
                cause: cause(&error.to_string()),
            })?;
        let is_fixed = fields.iter().take(2).all(|field| !field.contains('*'));
        let cron = Self { pattern, is_fixed };
        // The calendar repeats itself after 400 years, which begin here with a leap year.
        match cron.next(date(1999, 12, 31).at(23, 59, 0, 0)) {
            Some(first) if first.year() < 2400 => Ok(cron),
            _ => Err(Error::Never {
                expression: expression.to_owned(),
                instead: with_last_day(&fields),
            }),
        }
    }

    pub(super) const fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// The first time on the wall after another one that matches.
    pub(super) fn next(&self, after: DateTime) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&after, false).ok()
    }

    /// The last time on the wall before another one that matches.
    pub(super) fn previous(&self, before: DateTime) -> Option<DateTime> {
        self.pattern.find_previous_occurrence(&before, false).ok()
    }

    /// The shortest time between two ticks, in seconds, on a clock that nobody changes.
    pub(super) fn shortest_interval(&self) -> u64 {
        // From the end of a year that is followed by a leap year, so that no neighbours are missed.
        let start = date(2023, 12, 30).at(0, 0, 0, 0);
        let end = date(2032, 1, 1).at(0, 0, 0, 0);
        let ticks = std::iter::successors(self.next(start), |tick| self.next(*tick))
            .take_while(|tick| *tick < end)
            .take(SAMPLE);
        let mut shortest = u64::MAX;
        let mut before = None;
        for tick in ticks {
            let gap = before.map(|before| tick.duration_since(before).as_secs().unsigned_abs());
            shortest = shortest.min(gap.unwrap_or(u64::MAX));
            before = Some(tick);
            if shortest == super::MIN_INTERVAL_SECONDS {
                break;
            }
        }
        shortest
    }
}

/// The parser's words, without their frame.
fn cause(text: &str) -> String {
    let text = text.strip_prefix("Component error: ").unwrap_or(text);
    text.trim_end_matches('.').to_owned()
}

/// The five fields of an expression or of what a nickname stands for, in capitals.
fn fields(expression: &str) -> Result<Vec<String>, Error> {
    let long_form = match expression.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * SUN",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        nickname if nickname.starts_with('@') => {
            return Err(Error::Nickname {
                expression: expression.to_owned(),
            });
        }
        _ => expression,
    };
    let fields: Vec<_> = long_form
        .split_whitespace()
        .map(str::to_ascii_uppercase)
        .collect();
    let expression = expression.to_owned();
    match fields.len() {
        5 => Ok(fields),
        count @ (6 | 7) => Err(Error::Seconds {
            expression,
            fields: count,
            instead: without_seconds(&fields).join(" "),
        }),
        count => Err(Error::Fields {
            expression,
            fields: count,
        }),
    }
}

/// The five fields that are meant, where seconds come first and years come last.
fn without_seconds(fields: &[String]) -> &[String] {
    let is_year = |last: &String| last.len() == 4 && last.parse::<u16>().is_ok();
    let has_only_year = fields.len() == 6 && fields.last().is_some_and(is_year);
    let first = usize::from(!has_only_year);
    fields.get(first..first + 5).unwrap_or_default()
}

/// The same expression, on the last day of its months.
fn with_last_day(fields: &[String]) -> String {
    let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    if let Some(day) = fields.get_mut(2) {
        *day = "L";
    }
    fields.join(" ")
}

/// What may stand in a field. croner takes a name for its number wherever it stands (`MON` as a minute) and
/// does not say which field is wrong.
struct Field {
    name: &'static str,
    numbers: std::ops::RangeInclusive<u32>,
    words: &'static [&'static str],
    allowed: &'static str,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        numbers: 0..=59,
        words: &[],
        allowed: "0 to 59",
    },
    Field {
        name: "hour",
        numbers: 0..=23,
        words: &[],
        allowed: "0 to 23",
    },
    Field {
        name: "day of the month",
        numbers: 1..=31,
        words: &["L", "W", "LW"],
        allowed: "1 to 31, L for the last day, 15W for the weekday nearest to the 15th, or LW",
    },
    Field {
        name: "month",
        numbers: 1..=12,
        words: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        allowed: "1 to 12, or JAN to DEC",
    },
    Field {
        name: "day of the week",
        numbers: 0..=7,
        words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"],
        allowed: "0 to 7 (both are Sunday), SUN to SAT, TUE#2 for the second Tuesday of the month, or FRI#L for the \
                  last Friday",
    },
];

impl Field {
    fn check(&self, expression: &str, text: &str) -> Result<(), Error> {
        let is_letter = |letter: char| letter.is_alphabetic();
        let is_known = |word: &&str| word.is_empty() || self.words.contains(word);
        if let Some(word) = text
            .split(|other| !is_letter(other))
            .find(|word| !is_known(word))
        {
            return Err(Error::Word {
                expression: expression.to_owned(),
                field: self.name,
                word: word.to_owned(),
                allowed: self.allowed,
            });
        }
        let mut before = ' ';
        for part in text.split_inclusive(|end: char| !end.is_ascii_digit()) {
            let digits = part.trim_end_matches(|end: char| !end.is_ascii_digit());
            // A step and a place in the month have limits of their own, which croner knows.
            let is_value = !matches!(before, '/' | '#');
            let is_in_range = |digits: &str| {
                let number: Result<u32, _> = digits.parse();
                number.is_ok_and(|number| self.numbers.contains(&number))
            };
            if is_value && !digits.is_empty() && !is_in_range(digits) {
                return Err(Error::Number {
                    expression: expression.to_owned(),
                    field: self.name,
                    number: digits.to_owned(),
                    allowed: self.allowed,
                });
            }
            before = part.chars().next_back().unwrap_or(' ');
        }
        Ok(())
    }
}
