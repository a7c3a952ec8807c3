//! Table `schedules`: what is run at times of its own, whose it is, and up to when that is decided.

use invoke_protocol::id::{ScheduleId, ScheduleName};
use invoke_protocol::schedule::{ScheduleSpec, ScheduleState};
use jiff::Timestamp;
use uuid::Uuid;

use super::column::{self, Row};
use super::{Error, Session, audit, uploads};

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchedule {
    /// Its id.
    pub id: ScheduleId,
    /// Its name.
    pub name: ScheduleName,
    /// Grows with each change of what it is to do.
    pub revision: i64,
    /// Grows with each change of the row.
    pub version: i64,
    /// With whose rights it runs.
    pub owner: String,
    /// What it is to do, without the values of secret variables.
    pub spec: ScheduleSpec,
    /// The names of secret variables.
    pub secret_names: Vec<String>,
    /// Their values, sealed for the schedule.
    pub sealed_secrets: Option<Vec<u8>>,
    /// Keyed digest of all that was asked.
    pub request_digest: Vec<u8>,
    /// Which upload its files are.
    pub files_upload: Option<Uuid>,
    /// Whether it is at work.
    pub state: ScheduleState,
    /// The ticks until then, including, are decided.
    pub decided_until: Timestamp,
    /// When to look at it again: only a hint.
    pub due_at: Option<Timestamp>,
    /// Whether its next tick is to be skipped.
    pub skip_next: bool,
    /// How many runs have failed since one last ended well.
    pub failures: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When what it is to do was changed last.
    pub changed_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct ScheduleRow {
    id: Uuid,
    name: String,
    revision: i64,
    version: i64,
    owner: String,
    spec: String,
    secret_names: String,
    sealed_secrets: Option<Vec<u8>>,
    request_digest: Vec<u8>,
    files_upload: Option<Uuid>,
    state: String,
    decided_until: i64,
    due_at: Option<i64>,
    skip_next: bool,
    failures: i64,
    created_at: i64,
    changed_at: i64,
    deleted_at: Option<i64>,
}

macro_rules! select_schedules {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, revision, version, owner, spec, secret_names, sealed_secrets, request_digest, \
             files_upload, state, decided_until, due_at, skip_next, failures, created_at, changed_at, deleted_at \
             FROM schedules ",
            $rest
        )
    };
}

impl TryFrom<ScheduleRow> for StoredSchedule {
    type Error = Error;

    fn try_from(row: ScheduleRow) -> Result<Self, Error> {
        let id = ScheduleId::from_uuid(row.id);
        let place = place(id);
        Ok(Self {
            id,
            name: place.parsed("name", &row.name)?,
            revision: row.revision,
            version: row.version,
            owner: row.owner,
            spec: place.json("spec", &row.spec)?,
            secret_names: place.json("secret_names", &row.secret_names)?,
            sealed_secrets: row.sealed_secrets,
            request_digest: row.request_digest,
            files_upload: row.files_upload,
            state: place.json("state", &row.state)?,
            decided_until: place.time("decided_until", row.decided_until)?,
            due_at: place.optional_time("due_at", row.due_at)?,
            skip_next: row.skip_next,
            failures: u32::try_from(row.failures)
                .map_err(|error| place.contradiction("failures", error))?,
            created_at: place.time("created_at", row.created_at)?,
            changed_at: place.time("changed_at", row.changed_at)?,
            deleted_at: place.optional_time("deleted_at", row.deleted_at)?,
        })
    }
}

/// The schedule of this name that is not deleted.
///
/// # Errors
/// [`Error`].
pub async fn by_name(
    session: &mut Session,
    name: &ScheduleName,
) -> Result<Option<StoredSchedule>, Error> {
    let row = sql!(
        session,
        fetch_optional as ScheduleRow,
        select_schedules!("WHERE name = $1 AND deleted_at IS NULL"),
        name.as_str(),
    )?;
    row.map(TryInto::try_into).transpose()
}

/// The schedule that had this name last, deleted or not.
///
/// # Errors
/// [`Error`].
pub async fn last_of_name(
    session: &mut Session,
    name: &ScheduleName,
) -> Result<Option<StoredSchedule>, Error> {
    let row = sql!(
        session,
        fetch_optional as ScheduleRow,
        select_schedules!("WHERE name = $1 ORDER BY created_at DESC LIMIT 1"),
        name.as_str(),
    )?;
    row.map(TryInto::try_into).transpose()
}

/// All schedules that are not deleted, by name.
///
/// # Errors
/// [`Error`].
pub async fn all(session: &mut Session) -> Result<Vec<StoredSchedule>, Error> {
    let rows = sql!(
        session,
        fetch_all as ScheduleRow,
        select_schedules!("WHERE deleted_at IS NULL ORDER BY name"),
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// A text that differs: several dispatchers must not wait for each other's rows, and SQLite, which has one
/// writer, knows no such clause.
macro_rules! select_one {
    ($skip_locked:literal) => {
        concat!(select_schedules!("WHERE id = $1 "), $skip_locked)
    };
}

/// The schedule with this id, for who is about to change it; `None` also if another dispatcher is at it.
///
/// # Errors
/// [`Error`].
pub async fn for_a_look(
    session: &mut Session,
    id: ScheduleId,
) -> Result<Option<StoredSchedule>, Error> {
    let text = match session {
        Session::Sqlite(_) => select_one!(""),
        Session::Postgres(_) | Session::PostgresReads(_) => select_one!("FOR UPDATE SKIP LOCKED"),
    };
    let row = sql!(session, fetch_optional as ScheduleRow, text, *id.as_uuid())?;
    row.map(TryInto::try_into).transpose()
}

/// The schedule of this name, for who is about to change it, and waits for others who are.
///
/// # Errors
/// [`Error`].
pub async fn by_name_held(
    session: &mut Session,
    name: &ScheduleName,
) -> Result<Option<StoredSchedule>, Error> {
    let text = match session {
        Session::Sqlite(_) => select_schedules!("WHERE name = $1 AND deleted_at IS NULL"),
        Session::Postgres(_) | Session::PostgresReads(_) => {
            select_schedules!("WHERE name = $1 AND deleted_at IS NULL FOR UPDATE")
        }
    };
    let row = sql!(session, fetch_optional as ScheduleRow, text, name.as_str())?;
    row.map(TryInto::try_into).transpose()
}

/// Adds a schedule; `false` if there is one of this name.
///
/// # Errors
/// [`Error`].
pub async fn add(session: &mut Session, schedule: &StoredSchedule) -> Result<bool, Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO schedules (id, name, revision, version, owner, spec, secret_names, sealed_secrets, \
         request_digest, files_upload, state, decided_until, due_at, skip_next, failures, created_at, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING",
        *schedule.id.as_uuid(),
        schedule.name.as_str(),
        schedule.revision,
        schedule.version,
        schedule.owner.as_str(),
        column::to_json(&schedule.spec)?,
        column::to_json(&schedule.secret_names)?,
        schedule.sealed_secrets.as_deref(),
        schedule.request_digest.as_slice(),
        schedule.files_upload,
        column::to_json(&schedule.state)?,
        schedule.decided_until.as_microsecond(),
        schedule.due_at.map(Timestamp::as_microsecond),
        schedule.skip_next,
        i64::from(schedule.failures),
        schedule.created_at.as_microsecond(),
        schedule.changed_at.as_microsecond(),
    )?;
    Ok(added == 1)
}

/// Writes a schedule as it is after a change; `false` if somebody else has changed it since `after` was read.
/// `after.version` is one more than what was read.
///
/// # Errors
/// [`Error`].
pub async fn write(session: &mut Session, after: &StoredSchedule) -> Result<bool, Error> {
    let written = sql!(
        session,
        execute,
        "UPDATE schedules SET revision = $3, version = $2, owner = $4, spec = $5, secret_names = $6, \
         sealed_secrets = $7, request_digest = $8, files_upload = $9, state = $10, decided_until = $11, due_at = $12, \
         skip_next = $13, failures = $14, changed_at = $15, deleted_at = $16 WHERE id = $1 AND version = $2 - 1",
        *after.id.as_uuid(),
        after.version,
        after.revision,
        after.owner.as_str(),
        column::to_json(&after.spec)?,
        column::to_json(&after.secret_names)?,
        after.sealed_secrets.as_deref(),
        after.request_digest.as_slice(),
        after.files_upload,
        column::to_json(&after.state)?,
        after.decided_until.as_microsecond(),
        after.due_at.map(Timestamp::as_microsecond),
        after.skip_next,
        i64::from(after.failures),
        after.changed_at.as_microsecond(),
        after.deleted_at.map(Timestamp::as_microsecond),
    )?;
    Ok(written == 1)
}

/// The schedules that have to be looked at: one of their ticks is due, or a run or a wait of theirs may be over.
/// The longest due first.
///
/// # Errors
/// [`Error`].
pub async fn due(
    session: &mut Session,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<ScheduleId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, i64),
        "SELECT id, due_at FROM schedules WHERE due_at <= $1 UNION \
         SELECT t.schedule_id, 0 FROM schedule_ticks t LEFT JOIN jobs j ON j.id = t.job_id \
         LEFT JOIN fanouts f ON f.id = t.fanout_id \
         WHERE t.open AND (t.look_at <= $1 OR j.ended_at IS NOT NULL \
         OR f.state NOT IN ('running', 'stopping', 'cancelling')) \
         ORDER BY 2 LIMIT $2",
        now.as_microsecond(),
        i64::from(limit),
    )?;
    let mut ids: Vec<_> = rows
        .into_iter()
        .map(|(id, _)| ScheduleId::from_uuid(id))
        .collect();
    ids.dedup();
    Ok(ids)
}

/// When the next tick is due.
///
/// # Errors
/// [`Error`].
pub async fn next_due(session: &mut Session) -> Result<Option<Timestamp>, Error> {
    let (due,) = sql!(
        session,
        fetch_one as (Option<i64>,),
        "SELECT MIN(due_at) FROM schedules WHERE due_at IS NOT NULL",
    )?;
    Row {
        table: "schedules",
        key: "all".to_owned(),
    }
    .optional_time("due_at", due)
}

/// Makes every schedule be looked at: what was computed by another program, with other rules of time zones, is
/// not trusted.
///
/// # Errors
/// [`Error::Database`].
pub async fn look_at_all(session: &mut Session) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "UPDATE schedules SET due_at = 0 WHERE deleted_at IS NULL",
    )
    .map(drop)
}

/// Takes down what somebody did to a schedule, for the audit log.
///
/// # Errors
/// [`Error`].
pub async fn record(
    session: &mut Session,
    schedule: &StoredSchedule,
    who: &str,
    action: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let object = format!("schedule {}", schedule.id);
    let entry = audit::Entry {
        who,
        action,
        object: &object,
        outcome: schedule.state.as_str(),
    };
    audit::add(session, entry, now).await
}

/// Touches the files of a schedule in the transaction that makes it, so that what removes idle files either sees
/// it or was faster.
///
/// # Errors
/// [`Error::FilesGone`] if they were removed meanwhile.
pub async fn keep_files(
    session: &mut Session,
    schedule: &StoredSchedule,
    now: Timestamp,
) -> Result<(), Error> {
    match (schedule.files_upload, schedule.spec.run.job().files) {
        (Some(upload), Some(files)) if !uploads::touch(session, upload, now).await? => {
            Err(Error::FilesGone(files.sha256))
        }
        _ => Ok(()),
    }
}

fn place(id: ScheduleId) -> Row {
    Row {
        table: "schedules",
        key: id.to_string(),
    }
}
