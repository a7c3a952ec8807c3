//! Table `job_output`: which blob holds which part of a job's output log, and of each stream.

use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::output::Stream;
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

/// How much of each stream a part has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamBytes {
    /// Of stdout.
    pub stdout: u64,
    /// Of stderr.
    pub stderr: u64,
}

/// A part that has something of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPart {
    /// The part.
    pub part: Part,
    /// Where in the stream its first byte of that is.
    pub stream_from: u64,
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
    streams: StreamBytes,
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
    let before = stream_bytes(&mut *session, job).await?;
    let added = sql!(
        session,
        execute,
        "INSERT INTO job_output (job_id, from_offset, to_offset, blob, stdout_from, stdout_bytes, stderr_from, \
         stderr_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *job.as_uuid(),
        column::to_column(part.from),
        column::to_column(part.to),
        part.blob.as_str(),
        column::to_column(before.stdout),
        column::to_column(streams.stdout),
        column::to_column(before.stderr),
        column::to_column(streams.stderr),
    )?;
    one_row("job_output", job, added)?;
    Ok(true)
}

/// How much of each stream is stored.
///
/// # Errors
/// [`Error`].
pub async fn stream_bytes(session: &mut Session, job: JobId) -> Result<StreamBytes, Error> {
    let last = sql!(
        session,
        fetch_optional as (i64, i64),
        "SELECT stdout_from + stdout_bytes, stderr_from + stderr_bytes FROM job_output \
         WHERE job_id = $1 ORDER BY from_offset DESC LIMIT 1",
        *job.as_uuid(),
    )?;
    let Some((stdout, stderr)) = last else {
        return Ok(StreamBytes::default());
    };
    let place = Row {
        table: "job_output",
        key: job.to_string(),
    };
    Ok(StreamBytes {
        stdout: place.count("stdout_bytes", stdout)?,
        stderr: place.count("stderr_bytes", stderr)?,
    })
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
        .map(|(job, from, to, blob)| part(job, from, to, blob))
        .collect()
}

macro_rules! stream_part {
    ($from:literal, $bytes:literal) => {
        concat!(
            "SELECT job_id, from_offset, to_offset, blob, ",
            $from,
            " FROM job_output WHERE job_id = $1 AND from_offset >= $2 AND ",
            $bytes,
            " > 0 AND ",
            $from,
            " + ",
            $bytes,
            " > $3 ORDER BY from_offset LIMIT 1"
        )
    };
}

/// The first part, not before `after` in the log, that has something of a stream beyond a position in that
/// stream. Who reads on passes the end of the part before as `after`, and the search is short.
///
/// # Errors
/// [`Error`].
pub async fn stream_part(
    session: &mut Session,
    job: JobId,
    stream: Stream,
    position: u64,
    after: u64,
) -> Result<Option<StreamPart>, Error> {
    let text = match stream {
        Stream::Stdout => stream_part!("stdout_from", "stdout_bytes"),
        Stream::Stderr => stream_part!("stderr_from", "stderr_bytes"),
    };
    let found = sql!(
        session,
        fetch_optional as (Uuid, i64, i64, String, i64),
        text,
        *job.as_uuid(),
        column::to_column(after),
        column::to_column(position),
    )?;
    found
        .map(|(job, from, to, blob, stream_from)| {
            let stream_from = place(job, from).count("stdout_from", stream_from)?;
            let part = part(job, from, to, blob)?;
            Ok(StreamPart { part, stream_from })
        })
        .transpose()
}

/// Forgets the parts of a job.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn remove(session: &mut Session, job: JobId) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "DELETE FROM job_output WHERE job_id = $1",
        *job.as_uuid(),
    )?;
    Ok(())
}

fn part(job: Uuid, from: i64, to: i64, blob: String) -> Result<Part, Error> {
    let place = place(job, from);
    Ok(Part {
        from: place.count("from_offset", from)?,
        to: place.count("to_offset", to)?,
        blob,
    })
}

fn place(job: Uuid, from: i64) -> Row {
    Row {
        table: "job_output",
        key: format!("{job} at {from}"),
    }
}
