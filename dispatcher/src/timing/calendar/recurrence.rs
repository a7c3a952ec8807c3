//! Recurrence rules (RFC 5545, 3.3.10), on the clock on the wall: what a time zone makes of it comes later.
//!
//! Every rule goes in periods, of so many days, weeks, months or years. A period that a range touches is found
//! by arithmetic, and what recurs in it by trying each of its days, which are 366 at most. So a question about
//! next week looks at next week, however long ago the event began. Only `COUNT` has to be counted from there,
//! once, when the file is read.

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan as _};

use super::Problem;
use super::component::short;
use super::moment::{self, Moment};

/// The longest interval, in periods.
const MAX_INTERVAL: i32 = 1000;

/// How many days are looked at to find the end of what has a COUNT: fifty years.
const MAX_DAYS_COUNTED: i64 = 366 * 50;

/// The most times of one day.
const MAX_TIMES: usize = 48;

/// The most days that BYDAY names.
const MAX_DAYS: usize = 100;

/// A rule, with the start that gives it what it leaves out.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) frequency: Frequency,
    pub(super) interval: i32,
    pub(super) months: Vec<i8>,
    /// Negative ones count from the month's end.
    pub(super) month_days: Vec<i8>,
    pub(super) days: Vec<Day>,
    /// Places in the period; negative ones count from its end.
    pub(super) positions: Vec<i16>,
    times: Vec<Time>,
    week_start: Weekday,
    start: DateTime,
    /// The last time at which it may recur.
    until: Option<DateTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// `MO`, `2TU` or `-1FR`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    pub(super) nth: Option<i8>,
    pub(super) weekday: Weekday,
}

impl Rule {
    /// Reads the value of an RRULE.
    pub(super) fn parse(text: &str, start: &Moment) -> Result<Self, Problem> {
        let mut parts = Parts::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            parts.read(part, start)?;
        }
        parts.into_rule(start)
    }

    /// The times after the event's start at which it recurs, in order, on the days of a range.
    pub(super) fn recurrences(&self, from: Date, to: Date) -> impl Iterator<Item = DateTime> + '_ {
        let last = self.until.map_or(to, |until| until.date().min(to));
        (self.first_period(from)..)
            .map_while(move |number| self.period(number).filter(|(first, _)| *first <= last))
            .flat_map(|(first, last)| self.in_period(first, last))
            .skip_while(move |wall| *wall <= self.start || wall.date() < from)
            .take_while(move |wall| {
                wall.date() <= last && self.until.is_none_or(|end| *wall <= end)
            })
    }

    /// How often it recurs at most in so many days.
    pub(super) fn most_in_days(&self, days: i64) -> usize {
        let in_month = 31.min(self.month_days.len() + 5 * self.days.len());
        let months = match self.months.len() {
            0 => 12,
            months => months,
        };
        let in_period = match self.frequency {
            Frequency::Daily => 1,
            Frequency::Weekly => self.days.len(),
            Frequency::Monthly => in_month,
            Frequency::Yearly => months * in_month,
        };
        let period = i64::from(self.frequency.days()) * i64::from(self.interval);
        let periods = usize::try_from(days / period + 2).unwrap_or(usize::MAX);
        periods.saturating_mul(in_period * self.times.len())
    }

    /// The days of a period, from its first to its last.
    fn period(&self, number: i64) -> Option<(Date, Date)> {
        let passed = number.checked_mul(i64::from(self.interval))?;
        let begin = self.first_day_of_period(self.start.date());
        match self.frequency {
            Frequency::Daily => {
                let day = begin.checked_add(Span::new().try_days(passed).ok()?).ok()?;
                Some((day, day))
            }
            Frequency::Weekly => {
                let day = begin
                    .checked_add(Span::new().try_weeks(passed).ok()?)
                    .ok()?;
                Some((day, day.checked_add(6.days()).ok()?))
            }
            Frequency::Monthly => {
                let day = begin
                    .checked_add(Span::new().try_months(passed).ok()?)
                    .ok()?;
                Some((day, day.last_of_month()))
            }
            Frequency::Yearly => {
                let day = begin
                    .checked_add(Span::new().try_years(passed).ok()?)
                    .ok()?;
                Some((day, day.last_of_year()))
            }
        }
    }

    fn first_day_of_period(&self, day: Date) -> Date {
        match self.frequency {
            Frequency::Daily => day,
            Frequency::Weekly => {
                let into_week = self.week_start.until(day.weekday());
                day.checked_sub(i64::from(into_week).days()).unwrap_or(day)
            }
            Frequency::Monthly => day.first_of_month(),
            Frequency::Yearly => day.first_of_year(),
        }
    }

    /// The number of the last period that begins no later than a day.
    fn first_period(&self, from: Date) -> i64 {
        let begin = self.first_day_of_period(self.start.date());
        let years = i64::from(from.year()) - i64::from(begin.year());
        let days = from.duration_since(begin).as_hours() / 24;
        let passed = match self.frequency {
            Frequency::Daily => days,
            Frequency::Weekly => days.div_euclid(7),
            Frequency::Monthly => years * 12 + i64::from(from.month()) - i64::from(begin.month()),
            Frequency::Yearly => years,
        };
        passed.div_euclid(i64::from(self.interval)).max(0)
    }

    fn in_period(&self, first: Date, last: Date) -> Vec<DateTime> {
        let days = first.series(1.day()).take_while(|day| *day <= last);
        let walls: Vec<_> = days
            .filter(|day| self.is_on(*day))
            .flat_map(|day| self.times.iter().map(move |time| day.to_datetime(*time)))
            .collect();
        if self.positions.is_empty() {
            return walls;
        }
        let place = |position: i16| match usize::from(position.unsigned_abs()) {
            from_end if position < 0 => walls.len().checked_sub(from_end),
            from_start => from_start.checked_sub(1),
        };
        let is_chosen = |index: usize| self.positions.iter().any(|p| place(*p) == Some(index));
        let chosen = walls
            .iter()
            .enumerate()
            .filter(|(index, _)| is_chosen(*index));
        chosen.map(|(_, wall)| *wall).collect()
    }

    fn is_on(&self, day: Date) -> bool {
        let from_end = day.day() - day.days_in_month() - 1;
        let is_month_day = |wanted: &i8| *wanted == day.day() || *wanted == from_end;
        (self.months.is_empty() || self.months.contains(&day.month()))
            && (self.month_days.is_empty() || self.month_days.iter().any(is_month_day))
            && (self.days.is_empty() || self.days.iter().any(|wanted| self.is_nth(*wanted, day)))
    }

    /// Whether a day is the nth of its weekday: of its month, or of its year if a yearly rule names no month.
    fn is_nth(&self, wanted: Day, day: Date) -> bool {
        let Some(nth) = wanted.nth else {
            return wanted.weekday == day.weekday();
        };
        let (day_of, days_of) = if self.frequency == Frequency::Yearly && self.months.is_empty() {
            (day.day_of_year(), day.days_in_year())
        } else {
            (i16::from(day.day()), i16::from(day.days_in_month()))
        };
        let nth_of_weekday = if nth > 0 {
            (day_of - 1) / 7 + 1
        } else {
            -((days_of - day_of) / 7 + 1)
        };
        wanted.weekday == day.weekday() && nth_of_weekday == i16::from(nth)
    }

    /// The last of `count` times, of which the start is the first.
    fn nth_time(&self, count: u32) -> Result<DateTime, Problem> {
        let Some(more) = count.checked_sub(2) else {
            return Ok(self.start);
        };
        let in_period = i64::from(self.frequency.days());
        let periods = (0..MAX_DAYS_COUNTED / in_period).map_while(|number| self.period(number));
        periods
            .flat_map(|(first, last)| self.in_period(first, last))
            .filter(|wall| *wall > self.start)
            .nth(usize::try_from(more).unwrap_or(usize::MAX))
            .ok_or(Problem::CountNotReached)
    }
}

/// The parts of a rule, before it is known what each means.
#[derive(Default)]
struct Parts {
    frequency: Option<Frequency>,
    interval: Option<i32>,
    count: Option<u32>,
    until: Option<DateTime>,
    months: Vec<i8>,
    month_days: Vec<i8>,
    days: Vec<Day>,
    hours: Vec<i8>,
    minutes: Vec<i8>,
    seconds: Vec<i8>,
    positions: Vec<i16>,
    week_start: Option<Weekday>,
}

impl Parts {
    fn read(&mut self, part: &str, start: &Moment) -> Result<(), Problem> {
        let unknown = || Problem::RulePart(short(part));
        let (name, value) = part.split_once('=').ok_or_else(unknown)?;
        match name.to_ascii_uppercase().as_str() {
            "FREQ" => self.frequency = Some(Frequency::parse(value)?),
            "INTERVAL" => {
                let allowed = "1 to 1000";
                self.interval = Some(number("INTERVAL", value, allowed, |n| {
                    (1..=MAX_INTERVAL).contains(&n)
                })?);
            }
            "COUNT" => self.count = Some(number("COUNT", value, "1 or more", |n| n > 0)?),
            "UNTIL" => self.until = Some(until(value, start)?),
            "BYMONTH" => {
                self.months = numbers("BYMONTH", value, "1 to 12", |n| (1..=12).contains(&n))?;
            }
            "BYMONTHDAY" => {
                let allowed = "1 to 31, or -31 to -1 from the end";
                let is_allowed = |n: i8| (1..=31).contains(&n.saturating_abs());
                self.month_days = numbers("BYMONTHDAY", value, allowed, is_allowed)?;
            }
            "BYDAY" => {
                self.days = value.split(',').map(Day::parse).collect::<Result<_, _>>()?;
                if self.days.len() > MAX_DAYS {
                    return Err(Problem::Unsupported("a BYDAY of so many days"));
                }
            }
            "BYHOUR" => self.hours = numbers("BYHOUR", value, "0 to 23", |n| (0..24).contains(&n))?,
            "BYMINUTE" => {
                self.minutes = numbers("BYMINUTE", value, "0 to 59", |n| (0..60).contains(&n))?;
            }
            "BYSECOND" => {
                self.seconds = numbers("BYSECOND", value, "0 to 59", |n| (0..60).contains(&n))?;
            }
            "BYSETPOS" => {
                let allowed = "1 to 366, or -366 to -1 from the end";
                let is_allowed = |n: i16| (1..=366).contains(&n.saturating_abs());
                self.positions = numbers("BYSETPOS", value, allowed, is_allowed)?;
            }
            "WKST" => self.week_start = Some(weekday(value).ok_or_else(unknown)?),
            "BYWEEKNO" => return Err(Problem::Unsupported("BYWEEKNO (weeks of the year)")),
            "BYYEARDAY" => return Err(Problem::Unsupported("BYYEARDAY (days of the year)")),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn into_rule(self, start: &Moment) -> Result<Rule, Problem> {
        let frequency = self.frequency.ok_or(Problem::NoFrequency)?;
        self.check(frequency, start)?;
        let count = self.count;
        let times = self.times(start);
        if times.len() > MAX_TIMES {
            return Err(Problem::Unsupported("an event of more than 48 times a day"));
        }
        let mut rule = Rule {
            frequency,
            interval: self.interval.unwrap_or(1),
            months: self.months,
            month_days: self.month_days,
            days: self.days,
            positions: self.positions,
            times,
            week_start: self.week_start.unwrap_or(Weekday::Monday),
            start: start.wall,
            until: self.until,
        };
        rule.fill_in();
        if let Some(count) = count {
            rule.until = Some(rule.nth_time(count)?);
        }
        Ok(rule)
    }

    /// What the standard does not allow together.
    fn check(&self, frequency: Frequency, start: &Moment) -> Result<(), Problem> {
        let has_nth = self.days.iter().any(|day| day.nth.is_some());
        let has_times =
            !(self.hours.is_empty() && self.minutes.is_empty() && self.seconds.is_empty());
        match frequency {
            _ if self.count.is_some() && self.until.is_some() => Err(Problem::CountAndUntil),
            _ if start.is_day && has_times => Err(Problem::Unsupported(
                "a time of day (BYHOUR) of an event of whole days",
            )),
            Frequency::Daily | Frequency::Weekly if has_nth => Err(Problem::RuleMismatch(
                "a BYDAY with a number",
                frequency.name(),
            )),
            Frequency::Weekly if !self.month_days.is_empty() => {
                Err(Problem::RuleMismatch("BYMONTHDAY", frequency.name()))
            }
            _ => Ok(()),
        }
    }

    /// The times of the day, in order.
    fn times(&self, start: &Moment) -> Vec<Time> {
        let or = |given: &[i8], start: i8| match given {
            [] => vec![start],
            given => given.to_vec(),
        };
        let time = start.wall.time();
        let mut times = Vec::new();
        for hour in or(&self.hours, time.hour()) {
            for minute in or(&self.minutes, time.minute()) {
                for second in or(&self.seconds, time.second()) {
                    times.extend(Time::new(hour, minute, second, 0));
                }
            }
        }
        times
    }
}

impl Rule {
    /// What a rule does not say is as it is at the start.
    fn fill_in(&mut self) {
        let start = self.start.date();
        let names_no_day = self.days.is_empty() && self.month_days.is_empty();
        match self.frequency {
            Frequency::Yearly if names_no_day => {
                self.month_days = vec![start.day()];
                if self.months.is_empty() {
                    self.months = vec![start.month()];
                }
            }
            Frequency::Monthly if names_no_day => self.month_days = vec![start.day()],
            Frequency::Weekly if names_no_day => {
                self.days = vec![Day {
                    nth: None,
                    weekday: start.weekday(),
                }];
            }
            _ => {}
        }
    }
}

impl Frequency {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text.to_ascii_uppercase().as_str() {
            "DAILY" => Ok(Self::Daily),
            "WEEKLY" => Ok(Self::Weekly),
            "MONTHLY" => Ok(Self::Monthly),
            "YEARLY" => Ok(Self::Yearly),
            _ => Err(Problem::Frequency(short(text))),
        }
    }

    /// How many days a period has at least.
    const fn days(self) -> i32 {
        match self {
            Self::Daily => 1,
            Self::Weekly => 7,
            Self::Monthly => 28,
            Self::Yearly => 365,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Daily => "DAILY",
            Self::Weekly => "WEEKLY",
            Self::Monthly => "MONTHLY",
            Self::Yearly => "YEARLY",
        }
    }
}

impl Day {
    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::RuleNumber {
            part: "BYDAY",
            value: short(text),
            allowed: "MO to SU, 1MO to 53MO, or -1MO from the end",
        };
        let letters = text.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
        let weekday = weekday(letters).ok_or_else(wrong)?;
        let nth = match text.strip_suffix(letters) {
            None | Some("") => None,
            Some(nth) => {
                let nth: i8 = nth.parse().map_err(|_| wrong())?;
                let is_week = (1..=53).contains(&nth.saturating_abs());
                Some(if is_week { nth } else { return Err(wrong()) })
            }
        };
        Ok(Self { nth, weekday })
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text.to_ascii_uppercase().as_str() {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    })
}

/// The last time at which a rule may recur, on the wall of the event's zone.
fn until(value: &str, start: &Moment) -> Result<DateTime, Problem> {
    let until = Moment::parse(value, &start.zone)?;
    if until.is_day {
        // A day means all of it, also where a time is asked for: programs write it so.
        return Ok(until.wall.date().to_datetime(Time::MAX));
    }
    let beyond = || Problem::Beyond(short(value));
    if until.zone == TimeZone::UTC {
        let instant = moment::instant(&until.zone, until.wall).ok_or_else(beyond)?;
        return Ok(start.zone.to_datetime(instant));
    }
    Ok(until.wall)
}

/// The numbers of a list in order, each once.
fn numbers<T: FromStr + Copy + Ord>(
    part: &'static str,
    text: &str,
    allowed: &'static str,
    is_allowed: impl Fn(T) -> bool,
) -> Result<Vec<T>, Problem> {
    let numbers: Result<BTreeSet<_>, _> = text
        .split(',')
        .map(|text| number(part, text, allowed, &is_allowed))
        .collect();
    Ok(numbers?.into_iter().collect())
}

fn number<T: FromStr + Copy>(
    part: &'static str,
    text: &str,
    allowed: &'static str,
    is_allowed: impl Fn(T) -> bool,
) -> Result<T, Problem> {
    let number = text.parse().ok().filter(|number| is_allowed(*number));
    number.ok_or_else(|| Problem::RuleNumber {
        part,
        value: short(text),
        allowed,
    })
}
