//! A job's output log: appended by the runner's uploads, read by people.
//!
//! The row says how far the log goes, the blobs hold it. **Blob first, row second**: a row that counts
//! bytes of a blob that is not durable yet would acknowledge what a power failure takes back; a blob
//! without its row is found again by the next upload ([`Blobs::put_output`]).

use bytes::{Buf as _, Bytes, BytesMut};
use invoke_protocol::id::{ClusterId, JobId, PodUid};
use invoke_protocol::output::{InvalidLog, Stream, frames};
use invoke_protocol::state::JobState;
use jiff::Timestamp;

use crate::blobs::{self, Blobs};
use crate::store::job_output::{self, Part, StreamBytes, StreamPart};
use crate::store::jobs::{self, StoredJob};
use crate::store::{self, Store};

/// A piece of the log that a pod uploads.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The job.
    pub job: JobId,
    /// The cluster that speaks.
    pub cluster: ClusterId,
    /// The pod that the output is of.
    pub pod: PodUid,
    /// Where in the log it begins.
    pub from: u64,
    /// Whole frames.
    pub log: Bytes,
}

/// Why an upload was not taken, or a log not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This cluster has no such job.
    #[error("there is no such job")]
    NoJob,
    /// The job is over: its output is what is stored.
    #[error("the job is over")]
    Over(Box<StoredJob>),
    /// No command was permitted to start.
    #[error("the command was never started")]
    NotStarted,
    /// The command was permitted to start in another pod.
    #[error("the command was started in another pod")]
    OtherPod,
    /// The upload begins after the end of what is stored.
    #[error("the stored output ends at {end}, the upload begins at {from}")]
    Gap {
        /// Where the stored output ends.
        end: u64,
        /// Where the upload begins.
        from: u64,
    },
    /// The bytes are no log.
    #[error("the bytes are no output log")]
    Invalid(#[from] InvalidLog),
    /// The position is inside a frame, or after the end.
    #[error("position {position} is not between two frames of the log, which has {end} bytes")]
    Position {
        /// What was asked for.
        position: u64,
        /// Where the log ends.
        end: u64,
    },
    /// It was kept long enough.
    #[error("the output was removed at {0}")]
    Expired(Timestamp),
    /// The blob is not what its row says.
    #[error("blob {blob} has {found} bytes, and its row says {expected}")]
    Blob {
        /// Its key.
        blob: String,
        /// What was found.
        found: u64,
        /// What the row says.
        expected: u64,
    },
    /// Others appended each time.
    #[error("others appended each time")]
    Contended,
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The blob store has none.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}

/// How often an upload may find that another was faster.
const MAX_RACES: u32 = 8;

/// Appends what of the upload is not stored yet, durably, and answers where the log ends then.
///
/// # Errors
/// [`Error`]; nothing of the upload was acknowledged.
pub async fn append(store: &Store, blobs: &Blobs, upload: &Upload) -> Result<u64, Error> {
    for _ in 0..MAX_RACES {
        let job = find(store, upload).await?;
        let Some(rest) = not_yet_stored(&job, upload)? else {
            return Ok(job.log_bytes);
        };
        let (blob, length) = blobs
            .put_output(job.id, job.log_bytes, rest.clone())
            .await?;
        let part = Part {
            from: job.log_bytes,
            to: job.log_bytes + length,
            blob,
        };
        // What the blob holds, which need not end where the upload does.
        let streams = match usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
        {
            Some(stored) => tally(stored)?,
            None => tally(&whole(blobs, &part).await?)?,
        };
        let mut session = store.write().await?;
        if job_output::append(&mut session, job.id, upload.pod, &part, streams).await? {
            session.commit().await?;
            store.events().job_changed(job.id);
            if part.to >= upload.from + upload.log.len() as u64 {
                return Ok(part.to);
            }
        }
    }
    Err(Error::Contended)
}

/// How much of each stream whole frames have.
fn tally(log: &[u8]) -> Result<StreamBytes, InvalidLog> {
    let mut streams = StreamBytes::default();
    for frame in frames(log) {
        let frame = frame?;
        let bytes = frame.payload.len() as u64;
        match frame.stream {
            Stream::Stdout => streams.stdout += bytes,
            Stream::Stderr => streams.stderr += bytes,
        }
    }
    Ok(streams)
}

async fn find(store: &Store, upload: &Upload) -> Result<StoredJob, Error> {
    let mut session = store.read().await?;
    let job = jobs::find(&mut session, upload.job).await?;
    let job = job
        .filter(|job| job.cluster == upload.cluster)
        .ok_or(Error::NoJob)?;
    match &job.state {
        JobState::Running { pod, .. }
        | JobState::ContactLost { pod, .. }
        | JobState::Cancelling { pod, .. } => {
            if *pod == upload.pod {
                Ok(job)
            } else {
                Err(Error::OtherPod)
            }
        }
        JobState::Queued | JobState::Claimed { .. } | JobState::Starting { .. } => {
            Err(Error::NotStarted)
        }
        _ => Err(Error::Over(Box::new(job))),
    }
}

/// What lies beyond the stored end, or `None` if all of it is stored. The stored end is between two
/// frames of this same log, so the rest is whole frames too; an upload that is of another log fails
/// here.
fn not_yet_stored(job: &StoredJob, upload: &Upload) -> Result<Option<Bytes>, Error> {
    let end = job.log_bytes;
    let known = end.checked_sub(upload.from).ok_or(Error::Gap {
        end,
        from: upload.from,
    })?;
    match usize::try_from(known) {
        Ok(known) if known < upload.log.len() => {
            let rest = upload.log.slice(known..);
            frames(&rest).try_for_each(|frame| frame.map(drop))?;
            Ok(Some(rest))
        }
        _ => Ok(None),
    }
}

/// A piece of a log, whole frames: the rest of the part that `position` lies in. `None` at the end of
/// what is stored. One part is all that is ever held in memory.
///
/// # Errors
/// [`Error::Position`] for a position that is not between two frames.
pub async fn read(
    store: &Store,
    blobs: &Blobs,
    job: &StoredJob,
    position: u64,
) -> Result<Option<Bytes>, Error> {
    if let Some(at) = job.output_expired_at {
        return Err(Error::Expired(at));
    }
    let end = job.log_bytes;
    if position >= end {
        return if position == end {
            Ok(None)
        } else {
            Err(Error::Position { position, end })
        };
    }
    let mut session = store.read().await?;
    let part = job_output::parts(&mut session, job.id, position, 1)
        .await?
        .into_iter()
        .next();
    drop(session);
    let part = part.ok_or(Error::Position { position, end })?;
    let log = whole(blobs, &part).await?;
    let skip = position.saturating_sub(part.from);
    if !is_between_frames(&log, skip)? {
        return Err(Error::Position { position, end });
    }
    // The part is one upload, so the number fits.
    Ok(Some(
        log.slice(usize::try_from(skip).unwrap_or(log.len())..),
    ))
}

/// The bytes of one stream alone, from a position in it: what the first part has of it that has any beyond
/// that position. `after` is where in the log the part before ended, 0 at first. `None` at the end of what
/// is stored.
///
/// # Errors
/// [`Error`].
pub async fn read_stream(
    store: &Store,
    blobs: &Blobs,
    job: JobId,
    stream: Stream,
    position: u64,
    after: u64,
) -> Result<Option<StreamPiece>, Error> {
    let mut session = store.read().await?;
    let found = job_output::stream_part(&mut session, job, stream, position, after).await?;
    drop(session);
    let Some(StreamPart { part, stream_from }) = found else {
        return Ok(None);
    };
    let log = whole(blobs, &part).await?;
    let mut bytes = BytesMut::new();
    for frame in frames(&log) {
        let frame = frame?;
        if frame.stream == stream {
            bytes.extend_from_slice(frame.payload);
        }
    }
    let skip = usize::try_from(position - stream_from).unwrap_or(usize::MAX);
    bytes.advance(skip.min(bytes.len()));
    Ok(Some(StreamPiece {
        bytes: bytes.freeze(),
        log_end: part.to,
    }))
}

/// A piece of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPiece {
    /// Its bytes.
    pub bytes: Bytes,
    /// Where in the log the part ends that it is of.
    pub log_end: u64,
}

async fn whole(blobs: &Blobs, part: &Part) -> Result<Bytes, Error> {
    let log = blobs.get(&part.blob).await?;
    let (found, expected) = (log.len() as u64, part.to - part.from);
    if found == expected {
        Ok(log)
    } else {
        Err(Error::Blob {
            blob: part.blob.clone(),
            found,
            expected,
        })
    }
}

fn is_between_frames(log: &[u8], position: u64) -> Result<bool, InvalidLog> {
    let mut reached = 0;
    for frame in frames(log) {
        if reached >= position {
            break;
        }
        reached += (invoke_protocol::output::FRAME_HEADER_BYTES + frame?.payload.len()) as u64;
    }
    Ok(reached == position)
}

#[cfg(test)]
mod tests {
    use invoke_protocol::output::Frame;

    use super::*;
    use crate::store::jobs::tests::queued_job;

    fn log(pieces: &[&str]) -> Vec<u8> {
        let mut log = Vec::new();
        for payload in pieces {
            Frame {
                stream: Stream::Stdout,
                at: Timestamp::UNIX_EPOCH,
                payload: payload.as_bytes(),
            }
            .encode(&mut log);
        }
        log
    }

    #[test]
    fn a_position_is_between_frames_or_refused() {
        let log = log(&["abc", "de"]);
        for (position, between) in [
            (0, true),
            (1, false),
            (16, true),
            (17, false),
            (31, true),
            (32, false),
        ] {
            assert_eq!(is_between_frames(&log, position), Ok(between), "{position}");
        }
    }

    /// Resume, overlap, repetition and gap, as a runner meets them after a lost answer.
    #[test]
    fn only_what_is_new_is_stored() {
        let whole = Bytes::from(log(&["abc", "de"]));
        let upload = |from| Upload {
            job: queued_job().id,
            cluster: queued_job().cluster,
            pod: "0197c1f0-0000-7000-8000-0000000000aa".parse().unwrap(),
            from,
            log: whole.clone(),
        };
        let rest = |end, from| {
            not_yet_stored(
                &StoredJob {
                    log_bytes: end,
                    ..queued_job()
                },
                &upload(from),
            )
        };
        assert_eq!(rest(0, 0).unwrap().unwrap(), whole);
        assert_eq!(rest(16, 0).unwrap().unwrap(), whole.slice(16..));
        assert!(rest(31, 0).unwrap().is_none());
        assert!(rest(100, 0).unwrap().is_none());
        assert!(matches!(
            rest(16, 17),
            Err(Error::Gap { end: 16, from: 17 })
        ));
        assert!(
            matches!(rest(3, 0), Err(Error::Invalid(_))),
            "the stored log is another one"
        );
    }
}
