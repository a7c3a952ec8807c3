//! Table `schedule_ticks`: the ledger. One entry for each tick of each schedule, made by whoever decides it
//! first, and never removed.

use invoke_protocol::id::{FanOutId, JobId, ScheduleId, ScheduleName};
use invoke_protocol::schedule::{Tick, TickCause, TickOutcome, TickResult};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::column::Row;
use super::{Error, Session, one_row};

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTick {
    /// The schedule.
    pub schedule: ScheduleId,
    /// Its revision then.
    pub revision: i64,
    /// The moment, without jitter.
    pub instant: Timestamp,
    /// Whether somebody asked for it.
    pub by_hand: bool,
    /// What became of it.
    pub outcome: TickOutcome,
    /// Why that.
    pub cause: Option<TickCause>,
    /// The particulars, for people.
    pub message: String,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// How long after its moment and its jitter it was fired.
    pub lateness: Option<SignedDuration>,
    /// Until when it may start, while it waits.
    pub start_deadline: Timestamp,
    /// Whether it came too late, and is run all the same.
    pub caught_up: bool,
    /// How many attempts it has had.
    pub attempts: u32,
    /// The last attempt's job.
    pub job: Option<JobId>,
    /// The last attempt's fan-out.
    pub fanout: Option<FanOutId>,
    /// Whether its run, or the wait for it, goes on.
    pub open: bool,
    /// When to look at it again, besides at the end of its job.
    pub look_at: Timestamp,
    /// Whether it was told that it goes on for long.
    pub told_long: bool,
    /// How the run ended.
    pub result: Option<TickResult>,
    /// The key of whoever asked for it.
    pub request_key: Option<Uuid>,
}

impl StoredTick {
    /// As people see it.
    #[must_use]
    pub fn view(&self, schedule: &ScheduleName) -> Tick {
        Tick {
            schedule: schedule.clone(),
            revision: self.revision,
            instant: self.instant,
            by_hand: self.by_hand,
            outcome: self.outcome,
            cause: self.cause,
            message: self.message.clone(),
            decided: self.decided_at,
            lateness_ms: self
                .lateness
                .map(|late| u64::try_from(late.as_millis()).unwrap_or_default()),
            job: self.job,
            fanout: self.fanout,
            attempts: self.attempts,
            result: self.result,
        }
    }
}

#[derive(sqlx::FromRow)]
struct TickRow {
    schedule_id: Uuid,
    revision: i64,
    instant: i64,
    by_hand: bool,
    outcome: String,
    cause: Option<String>,
    message: String,
    decided_at: i64,
    lateness: Option<i64>,
    start_deadline: i64,
    caught_up: bool,
    attempts: i64,
    job_id: Option<Uuid>,
    fanout_id: Option<Uuid>,
    open: bool,
    look_at: i64,
    told_long: bool,
    result: Option<String>,
    request_key: Option<Uuid>,
}

macro_rules! select_ticks {
    ($rest:literal) => {
        concat!(
            "SELECT schedule_id, revision, instant, by_hand, outcome, cause, message, decided_at, lateness, \
             start_deadline, caught_up, attempts, job_id, fanout_id, open, look_at, told_long, result, request_key \
             FROM schedule_ticks ",
            $rest
        )
    };
}

impl TryFrom<TickRow> for StoredTick {
    type Error = Error;

    fn try_from(row: TickRow) -> Result<Self, Error> {
        let schedule = ScheduleId::from_uuid(row.schedule_id);
        let place = Row {
            table: "schedule_ticks",
            key: format!("{schedule} {}", row.instant),
        };
        Ok(Self {
            schedule,
            revision: row.revision,
            instant: place.time("instant", row.instant)?,
            by_hand: row.by_hand,
            outcome: name(&place, "outcome", &row.outcome)?,
            cause: row
                .cause
                .map(|text| name(&place, "cause", &text))
                .transpose()?,
            message: row.message,
            decided_at: place.time("decided_at", row.decided_at)?,
            lateness: row.lateness.map(SignedDuration::from_micros),
            start_deadline: place.time("start_deadline", row.start_deadline)?,
            caught_up: row.caught_up,
            attempts: u32::try_from(row.attempts)
                .map_err(|error| place.contradiction("attempts", error))?,
            job: row.job_id.map(JobId::from_uuid),
            fanout: row.fanout_id.map(FanOutId::from_uuid),
            open: row.open,
            look_at: place.time("look_at", row.look_at)?,
            told_long: row.told_long,
            result: row
                .result
                .map(|text| name(&place, "result", &text))
                .transpose()?,
            request_key: row.request_key,
        })
    }
}

/// Makes the entry of a tick: whoever does has decided it. `false` if it is decided already.
///
/// # Errors
/// [`Error`].
pub async fn add(session: &mut Session, tick: &StoredTick) -> Result<bool, Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO schedule_ticks (schedule_id, revision, instant, by_hand, outcome, cause, message, decided_at, \
         lateness, start_deadline, caught_up, attempts, job_id, fanout_id, open, look_at, told_long, result, \
         request_key) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
         ON CONFLICT DO NOTHING",
        *tick.schedule.as_uuid(),
        tick.revision,
        tick.instant.as_microsecond(),
        tick.by_hand,
        tick.outcome.as_str(),
        tick.cause.map(TickCause::as_str),
        tick.message.as_str(),
        tick.decided_at.as_microsecond(),
        tick.lateness.map(in_microseconds),
        tick.start_deadline.as_microsecond(),
        tick.caught_up,
        i64::from(tick.attempts),
        tick.job.map(|job| *job.as_uuid()),
        tick.fanout.map(|fanout| *fanout.as_uuid()),
        tick.open,
        tick.look_at.as_microsecond(),
        tick.told_long,
        tick.result.map(TickResult::as_str),
        tick.request_key,
    )?;
    Ok(added == 1)
}

/// Writes what has become of an entry that was open. Only for who holds the schedule's row.
///
/// # Errors
/// [`Error`].
pub async fn write(session: &mut Session, tick: &StoredTick) -> Result<(), Error> {
    let written = sql!(
        session,
        execute,
        "UPDATE schedule_ticks SET outcome = $4, cause = $5, message = $6, decided_at = $7, lateness = $8, \
         attempts = $9, job_id = $10, fanout_id = $11, open = $12, look_at = $13, told_long = $14, result = $15, \
         start_deadline = $16 WHERE schedule_id = $1 AND revision = $2 AND instant = $3 AND open",
        *tick.schedule.as_uuid(),
        tick.revision,
        tick.instant.as_microsecond(),
        tick.outcome.as_str(),
        tick.cause.map(TickCause::as_str),
        tick.message.as_str(),
        tick.decided_at.as_microsecond(),
        tick.lateness.map(in_microseconds),
        i64::from(tick.attempts),
        tick.job.map(|job| *job.as_uuid()),
        tick.fanout.map(|fanout| *fanout.as_uuid()),
        tick.open,
        tick.look_at.as_microsecond(),
        tick.told_long,
        tick.result.map(TickResult::as_str),
        tick.start_deadline.as_microsecond(),
    )?;
    one_row(
        "schedule_ticks",
        format!("{} {}", tick.schedule, tick.instant),
        written,
    )
}

/// The ticks of a schedule that wait or run, the oldest first.
///
/// # Errors
/// [`Error`].
pub async fn open(session: &mut Session, schedule: ScheduleId) -> Result<Vec<StoredTick>, Error> {
    let rows = sql!(
        session,
        fetch_all as TickRow,
        select_ticks!("WHERE schedule_id = $1 AND open ORDER BY instant, revision"),
        *schedule.as_uuid(),
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The moments of a schedule's open ticks whose runs are over, or are to be looked at.
///
/// # Errors
/// [`Error`].
pub async fn to_look_at(
    session: &mut Session,
    schedule: ScheduleId,
    now: Timestamp,
) -> Result<Vec<(Timestamp, i64)>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64, i64),
        "SELECT t.instant, t.revision FROM schedule_ticks t LEFT JOIN jobs j ON j.id = t.job_id \
         LEFT JOIN fanouts f ON f.id = t.fanout_id \
         WHERE t.schedule_id = $1 AND t.open AND (t.look_at <= $2 OR j.ended_at IS NOT NULL \
         OR f.state NOT IN ('running', 'stopping', 'cancelling'))",
        *schedule.as_uuid(),
        now.as_microsecond(),
    )?;
    let place = Row {
        table: "schedule_ticks",
        key: schedule.to_string(),
    };
    rows.into_iter()
        .map(|(instant, revision)| Ok((place.time("instant", instant)?, revision)))
        .collect()
}

/// A page of a schedule's ledger, the newest first.
///
/// # Errors
/// [`Error`].
pub async fn page(
    session: &mut Session,
    schedule: ScheduleId,
    before: Option<Timestamp>,
    limit: u32,
) -> Result<Vec<StoredTick>, Error> {
    let rows = sql!(
        session,
        fetch_all as TickRow,
        select_ticks!(
            "WHERE schedule_id = $1 AND instant < $2 ORDER BY instant DESC, revision DESC LIMIT $3"
        ),
        *schedule.as_uuid(),
        before.map_or(i64::MAX, Timestamp::as_microsecond),
        i64::from(limit),
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The tick that somebody asked for with a key.
///
/// # Errors
/// [`Error`].
pub async fn by_request(
    session: &mut Session,
    schedule: ScheduleId,
    key: Uuid,
) -> Result<Option<StoredTick>, Error> {
    let row = sql!(
        session,
        fetch_optional as TickRow,
        select_ticks!("WHERE schedule_id = $1 AND request_key = $2"),
        *schedule.as_uuid(),
        key,
    )?;
    row.map(TryInto::try_into).transpose()
}

/// How long the last runs of a schedule took that ended well, at most `limit` of them.
///
/// # Errors
/// [`Error`].
pub async fn durations(
    session: &mut Session,
    schedule: ScheduleId,
    limit: u32,
) -> Result<Vec<SignedDuration>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64,),
        "SELECT j.ended_at - j.submitted_at FROM schedule_ticks t JOIN jobs j ON j.id = t.job_id \
         WHERE t.schedule_id = $1 AND t.result = 'succeeded' AND j.ended_at IS NOT NULL \
         ORDER BY t.instant DESC LIMIT $2",
        *schedule.as_uuid(),
        i64::from(limit),
    )?;
    Ok(rows
        .into_iter()
        .map(|(micros,)| SignedDuration::from_micros(micros))
        .collect())
}

fn in_microseconds(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A value of one of the protocol's enumerations, by the name that it has in JSON.
fn name<T: DeserializeOwned + Serialize>(
    place: &Row,
    column: &'static str,
    text: &str,
) -> Result<T, Error> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|error| place.contradiction(column, error))
}
