//! Table `job_output`: which blob holds which part of a job's output log.

use invoke_protocol::id::{JobId, PodUid};
use uuid::Uuid;

use super::column::{self, Row};
use super::{Error, Session, one_row};

/// A part of an output log, in a blob of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where in the log it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// The blob's key.
    pub blob: String,
}

/// Appends a part that is in its blob, durably, to the log of a running job.
///
/// `false`, and nothing written, unless the log ends exactly where the part begins, and the job runs,
/// and in this pod: who lost that race looks again.
///
/// # Errors
/// [`Error::Database`].
pub async fn append(
    session: &mut Session,
    job: JobId,
    pod: PodUid,
    part: &Part,
) -> Result<bool, Error> {
    let moved = sql!(
        &mut *session,
        execute,
        "UPDATE jobs SET log_bytes = $3 WHERE id = $1 AND log_bytes = $2 AND pod = $4 \
         AND state IN ('running', 'contact_lost', 'cancelling')",
        *job.as_uuid(),
        column::to_column(part.from),
        column::to_column(part.to),
        *pod.as_uuid(),
    )?;
    if moved == 0 {
        return Ok(false);
    }
    let added = sql!(
        session,
        execute,
        "INSERT INTO job_output (job_id, from_offset, to_offset, blob) VALUES ($1, $2, $3, $4)",
        *job.as_uuid(),
        column::to_column(part.from),
        column::to_column(part.to),
        part.blob.as_str(),
    )?;
    one_row("job_output", job, added)?;
    Ok(true)
}

/// The parts from the one that holds the byte at `position`, in order, at most `limit`.
///
/// # Errors
/// [`Error`].
pub async fn parts(
    session: &mut Session,
    job: JobId,
    position: u64,
    limit: u32,
) -> Result<Vec<Part>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, i64, i64, String),
        "SELECT job_id, from_offset, to_offset, blob FROM job_output \
         WHERE job_id = $1 AND to_offset > $2 AND from_offset >= COALESCE( \
             (SELECT MAX(from_offset) FROM job_output WHERE job_id = $1 AND from_offset <= $2), 0) \
         ORDER BY from_offset LIMIT $3",
        *job.as_uuid(),
        column::to_column(position),
        i64::from(limit),
    )?;
    rows.into_iter()
        .map(|(id, from, to, blob)| {
            let place = Row {
                table: "job_output",
                key: format!("{id} at {from}"),
            };
            Ok(Part {
                from: place.count("from_offset", from)?,
                to: place.count("to_offset", to)?,
                blob,
            })
        })
        .collect()
}
