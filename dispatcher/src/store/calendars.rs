//! Table `calendars`: iCalendar files as they were imported.

use invoke_protocol::id::CalendarName;
use invoke_protocol::schedule::CalendarKind;
use invoke_protocol::timing::TimeZoneName;
use jiff::Timestamp;

use super::column::Row;
use super::{Error, Session};

/// A calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCalendar {
    /// Its name.
    pub name: CalendarName,
    /// What its events mean.
    pub kind: CalendarKind,
    /// The file.
    pub ics: String,
    /// The zone of times in it that have none.
    pub time_zone: Option<TimeZoneName>,
    /// Who imported it last.
    pub imported_by: String,
    /// When.
    pub imported_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct CalendarRow {
    name: String,
    kind: String,
    ics: String,
    time_zone: Option<String>,
    imported_by: String,
    imported_at: i64,
}

impl TryFrom<CalendarRow> for StoredCalendar {
    type Error = Error;

    fn try_from(row: CalendarRow) -> Result<Self, Error> {
        let place = Row {
            table: "calendars",
            key: row.name.clone(),
        };
        let kind = match row.kind.as_str() {
            "closed" => CalendarKind::Closed,
            "open" => CalendarKind::Open,
            other => return Err(place.contradiction("kind", format!("{other:?}"))),
        };
        Ok(Self {
            name: place.parsed("name", &row.name)?,
            kind,
            ics: row.ics,
            time_zone: row
                .time_zone
                .map(|name| place.parsed("time_zone", &name))
                .transpose()?,
            imported_by: row.imported_by,
            imported_at: place.time("imported_at", row.imported_at)?,
        })
    }
}

/// Keeps a calendar, in place of the one of its name if there is one; whether there was none.
///
/// # Errors
/// [`Error`].
pub async fn put(session: &mut Session, calendar: &StoredCalendar) -> Result<bool, Error> {
    let is_new = by_name(session, &calendar.name).await?.is_none();
    sql!(
        session,
        execute,
        "INSERT INTO calendars (name, kind, ics, time_zone, imported_by, imported_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, ics = excluded.ics, time_zone = excluded.time_zone, \
         imported_by = excluded.imported_by, imported_at = excluded.imported_at",
        calendar.name.as_str(),
        calendar.kind.as_str(),
        calendar.ics.as_str(),
        calendar.time_zone.as_ref().map(TimeZoneName::as_str),
        calendar.imported_by.as_str(),
        calendar.imported_at.as_microsecond(),
    )?;
    Ok(is_new)
}

/// The calendar of this name.
///
/// # Errors
/// [`Error`].
pub async fn by_name(
    session: &mut Session,
    name: &CalendarName,
) -> Result<Option<StoredCalendar>, Error> {
    let row = sql!(
        session,
        fetch_optional as CalendarRow,
        "SELECT name, kind, ics, time_zone, imported_by, imported_at FROM calendars WHERE name = $1",
        name.as_str(),
    )?;
    row.map(TryInto::try_into).transpose()
}

/// All calendars, by name.
///
/// # Errors
/// [`Error`].
pub async fn all(session: &mut Session) -> Result<Vec<StoredCalendar>, Error> {
    let rows = sql!(
        session,
        fetch_all as CalendarRow,
        "SELECT name, kind, ics, time_zone, imported_by, imported_at FROM calendars ORDER BY name",
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// How many calendars there are, and the sum of the times of their imports: whether what was made of them still
/// holds.
///
/// # Errors
/// [`Error::Database`].
pub async fn stamp(session: &mut Session) -> Result<(i64, i64), Error> {
    sql!(
        session,
        fetch_one as (i64, i64),
        "SELECT COUNT(*), CAST(COALESCE(SUM(imported_at), 0) AS BIGINT) FROM calendars",
    )
}

/// Removes a calendar; `false` if there is none of this name.
///
/// # Errors
/// [`Error::Database`].
pub async fn remove(session: &mut Session, name: &CalendarName) -> Result<bool, Error> {
    let removed = sql!(
        session,
        execute,
        "DELETE FROM calendars WHERE name = $1",
        name.as_str(),
    )?;
    Ok(removed == 1)
}
