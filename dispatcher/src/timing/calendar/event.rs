//! Events: when they are, once or again and again, and when not.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};

use super::component::{Component, Line, short};
use super::moment::{self, Length, Moment, Zones};
use super::recurrence::Rule;
use super::{Error, MAX_SPANS, Problem};

/// How many letters of a summary are kept.
const MAX_SUMMARY: usize = 200;

/// The longest event that repeats, in days.
const MAX_REPEATED_DAYS: i64 = 366;

/// Two instants on one day may be this far apart on two clocks.
const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

/// One event of a file with its recurrences.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) summary: String,
    zone: TimeZone,
    length: Length,
    /// Its start, and what it names besides (RDATE): begin and end.
    named: Vec<(Timestamp, Timestamp)>,
    rule: Option<Rule>,
    except: Exceptions,
}

/// When an event is not, though its rule says so.
#[derive(Debug, Default)]
struct Exceptions {
    instants: BTreeSet<Timestamp>,
    days: BTreeSet<Date>,
}

/// Reads the events of a file. One that was moved or cancelled (RECURRENCE-ID) is an exception to the event of
/// the same UID, and an event of its own if it was moved.
pub(super) fn read_all(events: &[&Component], zones: &Zones<'_>) -> Result<Vec<Event>, Error> {
    let mut replaced: BTreeMap<&str, Vec<Moment>> = BTreeMap::new();
    for event in events {
        if let Some(line) = event.single("RECURRENCE-ID")? {
            if line.parameter("RANGE").is_some() {
                return Err(line.error(Problem::Unsupported("RANGE=THISANDFUTURE")));
            }
            let moment = zones.moment(line)?;
            replaced.entry(uid(event)).or_default().push(moment);
        }
    }
    let mut read = Vec::with_capacity(events.len());
    for event in events {
        let is_cancelled = |status: &Line| status.value.eq_ignore_ascii_case("CANCELLED");
        if event.property("STATUS").is_some_and(is_cancelled) {
            continue;
        }
        let is_replacement = event.property("RECURRENCE-ID").is_some();
        let except = match replaced.entry(uid(event)) {
            Entry::Occupied(others) if !is_replacement => others.remove(),
            _ => Vec::new(),
        };
        read.push(Event::read(event, &except, zones)?);
    }
    Ok(read)
}

fn uid(event: &Component) -> &str {
    event.property("UID").map_or("", |line| line.value.as_str())
}

impl Event {
    fn read(event: &Component, replaced: &[Moment], zones: &Zones<'_>) -> Result<Self, Error> {
        if let Some(line) = event.property("EXRULE") {
            return Err(line.error(Problem::Unsupported("EXRULE")));
        }
        let line = event
            .single("DTSTART")?
            .ok_or_else(|| event.error(Problem::NoStart))?;
        let start = zones.moment(line)?;
        let length = Length::of_event(event, &start, zones)?;
        let rule = match event.single("RRULE")? {
            None => None,
            Some(line) => {
                Some(Rule::parse(&line.value, &start).map_err(|problem| line.error(problem))?)
            }
        };
        let mut except = Exceptions::default();
        except.extend(replaced);
        for line in event.all("EXDATE") {
            except.extend(&zones.moments(line)?);
        }
        let mut named = vec![span(line, &start, length)?];
        for line in event.all("RDATE") {
            named.extend(named_spans(line, length, zones)?);
        }
        let repeats = rule.is_some() || named.len() > 1;
        if repeats && length.whole_days() > MAX_REPEATED_DAYS + 1 {
            return Err(event.error(Problem::TooLong));
        }
        named.retain(|(begin, _)| !except.contains(*begin, &start.zone));
        named.sort_unstable();
        Ok(Self {
            summary: summary(event),
            zone: start.zone,
            length,
            named,
            rule,
            except,
        })
    }

    /// Whether an instant is in it.
    pub(super) fn covers(&self, instant: Timestamp) -> bool {
        let after = instant.checked_add(1.nanosecond()).unwrap_or(instant);
        self.spans(instant, after).next().is_some()
    }

    /// What of it touches a range: first what it names, in order, then what its rule says, in order and at most
    /// [`MAX_SPANS`].
    pub(super) fn spans(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let touches = move |(start, end): &(Timestamp, Timestamp)| *start < until && *end > from;
        let by_rule = self.by_rule(from, until).filter(touches).take(MAX_SPANS);
        self.named.iter().copied().filter(touches).chain(by_rule)
    }

    /// How many recurrences are looked at for one instant.
    pub(super) fn recurrences_at_once(&self) -> usize {
        let days = self.length.whole_days() + 2;
        self.rule.as_ref().map_or(0, |rule| rule.most_in_days(days))
    }

    fn by_rule(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        // What began so long ago may go on in the range.
        let back = SignedDuration::from_hours(24 * self.length.whole_days()) + ONE_DAY;
        let first = from.checked_sub(back).unwrap_or(Timestamp::MIN);
        let last = until.checked_add(ONE_DAY).unwrap_or(Timestamp::MAX);
        let day = |instant| self.zone.to_datetime(instant).date();
        let rule = self.rule.iter();
        let walls = rule.flat_map(move |rule| rule.recurrences(day(first), day(last)));
        walls.filter_map(|wall| {
            let start = moment::instant(&self.zone, wall)?;
            let is_except = self.except.contains(start, &self.zone);
            let end = self.length.end(start, &self.zone)?;
            (!is_except).then_some((start, end))
        })
    }
}

impl Exceptions {
    fn extend(&mut self, moments: &[Moment]) {
        for moment in moments {
            if moment.is_day {
                self.days.insert(moment.wall.date());
            } else {
                self.instants.extend(moment.instant());
            }
        }
    }

    fn contains(&self, start: Timestamp, zone: &TimeZone) -> bool {
        self.instants.contains(&start)
            || (!self.days.is_empty() && self.days.contains(&zone.to_datetime(start).date()))
    }
}

/// What RDATE names: starts of the same length, or periods.
fn named_spans(
    line: &Line,
    length: Length,
    zones: &Zones<'_>,
) -> Result<Vec<(Timestamp, Timestamp)>, Error> {
    let is_period = line
        .parameter("VALUE")
        .is_some_and(|value| value.eq_ignore_ascii_case("PERIOD"));
    let starts: Vec<_> = if is_period {
        zones.periods(line)?
    } else {
        let moments = zones.moments(line)?;
        moments.into_iter().map(|moment| (moment, length)).collect()
    };
    starts
        .iter()
        .map(|(moment, length)| span(line, moment, *length))
        .collect()
}

fn span(line: &Line, start: &Moment, length: Length) -> Result<(Timestamp, Timestamp), Error> {
    let start_and_end = start
        .instant()
        .and_then(|instant| Some((instant, length.end(instant, &start.zone)?)));
    start_and_end.ok_or_else(|| line.error(Problem::Beyond(short(&line.value))))
}

fn summary(event: &Component) -> String {
    let text = event
        .property("SUMMARY")
        .map(Line::text)
        .unwrap_or_default();
    let text: String = text.trim().chars().take(MAX_SUMMARY).collect();
    if text.is_empty() {
        "an event without a name".to_owned()
    } else {
        text
    }
}
