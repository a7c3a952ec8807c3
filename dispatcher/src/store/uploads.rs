//! Tables `uploads` and `upload_parts`: what is uploaded piece by piece, and which blob holds which part.
//!
//! Archives of attached files belong to whoever uploaded them; what a command reads, and what it leaves,
//! belong to their job.

use std::fmt;

use invoke_protocol::digest::Sha256;
use invoke_protocol::id::JobId;
use jiff::Timestamp;
use uuid::Uuid;

use super::column::{self, Row};
use super::job_output::Part;
use super::{Error, Session, Store, garbage, one_row};

/// What is uploaded, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An archive of attached files. What one owner has is nothing to another.
    Files {
        /// Who uploads it.
        owner: String,
        /// Its digest.
        sha256: Sha256,
    },
    /// What the command of a job reads.
    Stdin(JobId),
    /// What the command of a job leaves.
    Artifacts(JobId),
}

impl Key {
    const fn owner(&self) -> Option<&str> {
        match self {
            Self::Files { owner, .. } => Some(owner.as_str()),
            Self::Stdin(_) | Self::Artifacts(_) => None,
        }
    }
}

impl fmt::Display for Key {
    /// The name comes last: it may have any character in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { owner, sha256 } => write!(f, "files/{sha256}/{owner}"),
            Self::Stdin(job) => write!(f, "stdin/{job}"),
            Self::Artifacts(job) => write!(f, "artifacts/{job}"),
        }
    }
}

/// An upload as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredUpload {
    /// Its blobs are under this id, so what is begun anew never meets a blob of what was there before.
    pub id: Uuid,
    /// Its whole length, once somebody has stated it.
    pub total: Option<u64>,
    /// How much of it is stored, durably.
    pub stored: u64,
    /// How much of that was handed on, and is needed no more.
    pub taken: u64,
    /// Whether all of it is stored and, where it has a digest, that was compared.
    pub complete: bool,
}

/// What an upload has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The part that was added; it is in its blob, durably. None if only the length was stated.
    pub part: Option<Part>,
    /// The whole length, if that is known now.
    pub total: Option<u64>,
    /// Whether nothing is missing any more.
    pub complete: bool,
}

#[derive(sqlx::FromRow)]
struct UploadRow {
    id: Uuid,
    total_bytes: Option<i64>,
    stored_bytes: i64,
    taken_bytes: i64,
    complete: bool,
}

macro_rules! select_uploads {
    ($rest:literal) => {
        concat!(
            "SELECT id, total_bytes, stored_bytes, taken_bytes, complete FROM uploads ",
            $rest
        )
    };
}

impl TryFrom<UploadRow> for StoredUpload {
    type Error = Error;

    fn try_from(row: UploadRow) -> Result<Self, Error> {
        let place = place(row.id);
        let total = row
            .total_bytes
            .map(|bytes| place.count("total_bytes", bytes));
        Ok(Self {
            id: row.id,
            total: total.transpose()?,
            stored: place.count("stored_bytes", row.stored_bytes)?,
            taken: place.count("taken_bytes", row.taken_bytes)?,
            complete: row.complete,
        })
    }
}

/// The upload with this key.
///
/// # Errors
/// [`Error`].
pub async fn find(session: &mut Session, key: &Key) -> Result<Option<StoredUpload>, Error> {
    let row = sql!(
        session,
        fetch_optional as UploadRow,
        select_uploads!("WHERE key = $1"),
        key.to_string(),
    )?;
    row.map(TryInto::try_into).transpose()
}

/// The upload with this id.
///
/// # Errors
/// [`Error`].
pub async fn by_id(session: &mut Session, id: Uuid) -> Result<Option<StoredUpload>, Error> {
    let row = sql!(
        session,
        fetch_optional as UploadRow,
        select_uploads!("WHERE id = $1"),
        id,
    )?;
    row.map(TryInto::try_into).transpose()
}

/// Begins an upload, unless it was begun already.
///
/// # Errors
/// [`Error::Database`].
pub async fn begin(
    session: &mut Session,
    key: &Key,
    total: Option<u64>,
    now: Timestamp,
) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "INSERT INTO uploads (id, key, owner, total_bytes, stored_bytes, taken_bytes, complete, touched_at) \
         VALUES ($1, $2, $3, $4, 0, 0, FALSE, $5) ON CONFLICT (key) DO NOTHING",
        Uuid::new_v4(),
        key.to_string(),
        key.owner(),
        total.map(column::to_column),
        now.as_microsecond(),
    )?;
    Ok(())
}

/// Takes down that an upload has grown.
///
/// `false`, and nothing written, unless it is still as it was seen: who lost that race looks again.
///
/// # Errors
/// [`Error::Database`].
pub async fn append(
    session: &mut Session,
    seen: &StoredUpload,
    growth: &Growth,
    now: Timestamp,
) -> Result<bool, Error> {
    let to = growth.part.as_ref().map_or(seen.stored, |part| part.to);
    let moved = sql!(
        &mut *session,
        execute,
        "UPDATE uploads SET stored_bytes = $3, total_bytes = $4, complete = $5, touched_at = $6 \
         WHERE id = $1 AND stored_bytes = $2 AND NOT complete",
        seen.id,
        column::to_column(seen.stored),
        column::to_column(to),
        growth.total.map(column::to_column),
        growth.complete,
        now.as_microsecond(),
    )?;
    let Some(part) = growth.part.as_ref().filter(|_| moved == 1) else {
        return Ok(moved == 1);
    };
    let added = sql!(
        session,
        execute,
        "INSERT INTO upload_parts (upload_id, from_offset, to_offset, blob) VALUES ($1, $2, $3, $4)",
        seen.id,
        column::to_column(part.from),
        column::to_column(part.to),
        part.blob.as_str(),
    )?;
    one_row("upload_parts", seen.id, added)?;
    Ok(true)
}

/// Takes down that all of an upload is stored and has its digest. `false` if it is not there any more, or
/// not whole.
///
/// # Errors
/// [`Error::Database`].
pub async fn complete(session: &mut Session, id: Uuid, now: Timestamp) -> Result<bool, Error> {
    let completed = sql!(
        session,
        execute,
        "UPDATE uploads SET complete = TRUE, touched_at = $2 WHERE id = $1 AND stored_bytes = total_bytes",
        id,
        now.as_microsecond(),
    )?;
    Ok(completed == 1)
}

/// Takes down that a complete upload is used: it is kept from now on for as long as a new one. `false` if it
/// is not there any more.
///
/// # Errors
/// [`Error::Database`].
pub async fn touch(session: &mut Session, id: Uuid, now: Timestamp) -> Result<bool, Error> {
    let touched = sql!(
        session,
        execute,
        "UPDATE uploads SET touched_at = $2 WHERE id = $1 AND complete",
        id,
        now.as_microsecond(),
    )?;
    Ok(touched == 1)
}

/// The parts from the one that holds the byte at `position`, in order, at most `limit`.
///
/// # Errors
/// [`Error`].
pub async fn parts(
    session: &mut Session,
    id: Uuid,
    position: u64,
    limit: u32,
) -> Result<Vec<Part>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64, i64, String),
        "SELECT from_offset, to_offset, blob FROM upload_parts \
         WHERE upload_id = $1 AND to_offset > $2 AND from_offset >= COALESCE( \
             (SELECT MAX(from_offset) FROM upload_parts WHERE upload_id = $1 AND from_offset <= $2), 0) \
         ORDER BY from_offset LIMIT $3",
        id,
        column::to_column(position),
        i64::from(limit),
    )?;
    rows.into_iter().map(|row| part(id, row)).collect()
}

/// Takes down that everything before `position` was handed on. `false` if that was known.
///
/// # Errors
/// [`Error::Database`].
pub async fn take(session: &mut Session, id: Uuid, position: u64) -> Result<bool, Error> {
    let taken = sql!(
        session,
        execute,
        "UPDATE uploads SET taken_bytes = $2 WHERE id = $1 AND taken_bytes < $2 AND stored_bytes >= $2",
        id,
        column::to_column(position),
    )?;
    Ok(taken == 1)
}

/// The parts of which everything was handed on, at most `limit`.
///
/// # Errors
/// [`Error`].
pub async fn taken_parts(session: &mut Session, id: Uuid, limit: u32) -> Result<Vec<Part>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64, i64, String),
        "SELECT p.from_offset, p.to_offset, p.blob FROM upload_parts p JOIN uploads u ON u.id = p.upload_id \
         WHERE p.upload_id = $1 AND p.to_offset <= u.taken_bytes ORDER BY p.from_offset LIMIT $2",
        id,
        i64::from(limit),
    )?;
    rows.into_iter().map(|row| part(id, row)).collect()
}

/// Forgets the parts up to a position, whose blobs are gone.
///
/// # Errors
/// [`Error::Database`].
pub async fn forget_parts(session: &mut Session, id: Uuid, position: u64) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "DELETE FROM upload_parts WHERE upload_id = $1 AND to_offset <= $2",
        id,
        column::to_column(position),
    )?;
    Ok(())
}

/// Gives up an upload that is not complete: it will never be, or is to begin anew.
///
/// # Errors
/// [`Error::Database`].
pub async fn give_up(session: &mut Session, id: Uuid, now: Timestamp) -> Result<(), Error> {
    let given_up = sql!(
        &mut *session,
        execute,
        "DELETE FROM uploads WHERE id = $1 AND NOT complete",
        id,
    )?;
    throw_away(session, id, given_up, now).await
}

/// Gives up what was uploaded for a job, if anything was: a job that is over reads nothing any more.
///
/// # Errors
/// [`Error`].
pub async fn remove(session: &mut Session, key: &Key, now: Timestamp) -> Result<(), Error> {
    let Some(upload) = find(&mut *session, key).await? else {
        return Ok(());
    };
    let removed = sql!(
        &mut *session,
        execute,
        "DELETE FROM uploads WHERE id = $1",
        upload.id,
    )?;
    throw_away(session, upload.id, removed, now).await
}

/// The blobs of an upload whose row is gone, with those that no row tells of: a writer that lost its race, or
/// its life, may have left one.
async fn throw_away(
    session: &mut Session,
    id: Uuid,
    removed: u64,
    now: Timestamp,
) -> Result<(), Error> {
    if removed == 0 {
        return Ok(());
    }
    garbage::add(session, &prefix(id), now).await
}

impl Store {
    /// Gives up archives that nobody has uploaded to and no job has used since a moment, and that are not of
    /// a job of which everything is kept, nor of a fan-out that can go on; at most `limit`. Answers how many. What several jobs share goes with
    /// the last of them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn give_up_idle_files(
        &self,
        idle_since: Timestamp,
        limit: u32,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let mut session = self.read().await?;
        let idle = sql!(
            &mut session,
            fetch_all as (Uuid,),
            "SELECT u.id FROM uploads u WHERE u.owner IS NOT NULL AND u.touched_at < $1 AND NOT EXISTS ( \
                 SELECT 1 FROM jobs j WHERE j.files_upload = u.id AND j.output_expired_at IS NULL) \
                 AND NOT EXISTS (SELECT 1 FROM schedules s WHERE s.files_upload = u.id) \
             AND NOT EXISTS (SELECT 1 FROM fanouts f WHERE f.files_upload = u.id) \
             ORDER BY u.touched_at LIMIT $2",
            idle_since.as_microsecond(),
            i64::from(limit),
        )?;
        drop(session);
        let mut given_up = 0;
        for (id,) in idle {
            let mut session = self.write().await?;
            // A job that is being accepted touches it first, so one of the two sees what the other did.
            let removed = sql!(
                &mut session,
                execute,
                "DELETE FROM uploads WHERE id = $1 AND touched_at < $2",
                id,
                idle_since.as_microsecond(),
            )?;
            throw_away(&mut session, id, removed, now).await?;
            session.commit().await?;
            given_up += removed;
        }
        Ok(given_up)
    }
}

/// What the keys of all blobs of an upload begin with.
#[must_use]
pub fn prefix(id: Uuid) -> String {
    format!("uploads/{id}/")
}

/// The key of the blob that begins at a position. Twenty digits hold any u64, so keys sort as positions do.
#[must_use]
pub fn blob(id: Uuid, from: u64) -> String {
    format!("{}{from:020}", prefix(id))
}

fn part(id: Uuid, (from, to, blob): (i64, i64, String)) -> Result<Part, Error> {
    let place = Row {
        table: "upload_parts",
        key: format!("{id} at {from}"),
    };
    Ok(Part {
        from: place.count("from_offset", from)?,
        to: place.count("to_offset", to)?,
        blob,
    })
}

fn place(id: Uuid) -> Row {
    Row {
        table: "uploads",
        key: id.to_string(),
    }
}
