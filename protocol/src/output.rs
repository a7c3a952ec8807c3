//! What a command printed, and how it ended.
//!
//! A job has **one output log**: the frames of both streams in the order in which the shim read
//! them. A position in it, counted in bytes with the frame headers, is what every part resumes at:
//! the shim's spool, the runner's relay, the dispatcher's chunks and the CLI's cursor all mean the
//! same number, and it always lies between two frames.
//!
//! ```text
//! 0        13           13+n
//! ├ header ┼ n bytes … ─┼ header ┼ …    header = stream: u8, time: i64, n: u32, big-endian
//! ```
//!
//! The time is that of the read, in microseconds since 1970, by the node's clock: it tells people when
//! something was printed, and decides nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifacts::ArtifactsSummary;

/// Bytes of a frame's header: the stream's number, the time, and the payload's length.
pub const FRAME_HEADER_BYTES: usize = 13;

/// The longest payload of one frame. Longer writes become several frames.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 64 * 1024;

/// The most bytes of log, whole frames, in one upload.
pub const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// One of the two streams of a command. The numbers are those of the file descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// A piece of one stream, borrowed from a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which stream wrote it.
    pub stream: Stream,
    /// When the shim read it, to the microsecond.
    pub at: Timestamp,
    /// What it wrote: 1 to [`MAX_FRAME_PAYLOAD_BYTES`] bytes.
    pub payload: &'a [u8],
}

/// Bytes that are no output log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLog {
    /// A header that names neither stdout (1) nor stderr (2).
    #[error("the frame names stream {0}, which is neither stdout (1) nor stderr (2)")]
    UnknownStream(u8),
    /// A time before or after every calendar.
    #[error("the frame claims a time of {0} microseconds since 1970, which no clock shows")]
    Time(i64),
    /// A length of nothing, or over [`MAX_FRAME_PAYLOAD_BYTES`].
    #[error("the frame claims {0} bytes; 1 to {MAX_FRAME_PAYLOAD_BYTES} are allowed")]
    Length(usize),
    /// The bytes end inside a frame.
    #[error("the log ends inside a frame")]
    Torn,
}

impl Frame<'_> {
    /// Appends this frame to a log. A payload that is empty or over [`MAX_FRAME_PAYLOAD_BYTES`]
    /// makes a log that [`frames`] refuses.
    pub fn encode(&self, log: &mut Vec<u8>) {
        log.push(match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        });
        log.extend_from_slice(&self.at.as_microsecond().to_be_bytes());
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        log.extend_from_slice(&length.to_be_bytes());
        log.extend_from_slice(self.payload);
    }

    /// Reads the frame at the start of `log`, and says how many bytes of the log it takes up;
    /// `None` while it is not there whole.
    ///
    /// # Errors
    /// [`InvalidLog`] for a header that no shim writes.
    pub fn decode(log: &[u8]) -> Result<Option<(Frame<'_>, usize)>, InvalidLog> {
        let Some((&[number, rest @ ..], payload)) = log.split_first_chunk::<FRAME_HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h, length @ ..] = rest;
        let stream = match number {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(InvalidLog::UnknownStream(other)),
        };
        let time = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let at = Timestamp::from_microsecond(time).map_err(|_| InvalidLog::Time(time))?;
        let length = u32::from_be_bytes(length) as usize;
        if !(1..=MAX_FRAME_PAYLOAD_BYTES).contains(&length) {
            return Err(InvalidLog::Length(length));
        }
        let frame = payload.get(..length).map(|payload| Frame {
            stream,
            at,
            payload,
        });
        Ok(frame.map(|frame| (frame, FRAME_HEADER_BYTES + length)))
    }
}

/// The frames of a piece of log that begins and ends between two frames.
///
/// Yields [`InvalidLog`] once and then nothing, where the bytes stop being a log.
pub fn frames(log: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, InvalidLog>> {
    let mut rest = log;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let decoded = Frame::decode(rest).and_then(|frame| frame.ok_or(InvalidLog::Torn));
        Some(match decoded {
            Ok((frame, taken)) => {
                rest = &rest[taken..];
                Ok(frame)
            }
            Err(error) => {
                rest = &[];
                Err(error)
            }
        })
    })
}

/// How a command ended: written once by the shim, re-sent until it is acknowledged. Without one
/// there is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExitRecord {
    /// What wait(2) said.
    pub status: ExitStatus,
    /// Who ended it.
    pub cause: EndCause,
    /// When the command was executed, by the node's clock.
    pub started_at: Timestamp,
    /// When it was gone, by the node's clock.
    pub finished_at: Timestamp,
    /// The whole length of the output log.
    pub log_bytes: u64,
    /// What stdout came to, up to the cap.
    pub stdout: StreamSummary,
    /// What stderr came to, up to the cap.
    pub stderr: StreamSummary,
    /// What it cost.
    pub usage: ResourceUsage,
    /// Whether the kernel killed a process in the pod for its memory while the command ran.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// Why the rest of the output log will never be uploaded, if the shim has given it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<IncompleteReason>,
    /// What the command printed beyond the cap, which was read, counted and thrown away.
    #[serde(default, skip_serializing_if = "Discarded::is_nothing")]
    pub discarded: Discarded,
    /// What the command left to be sent back, if it left anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactsSummary>,
}

/// What is stored of the output of one job at most, in bytes of log, unless its profile says less.
pub const DEFAULT_OUTPUT_CAP_BYTES: u64 = 4 << 30;

/// What a command printed beyond the cap, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Discarded {
    /// Of stdout.
    pub stdout_bytes: u64,
    /// Of stderr.
    pub stderr_bytes: u64,
}

impl Discarded {
    /// Whether everything was kept.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.stdout_bytes == 0 && self.stderr_bytes == 0
    }
}

/// What became of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code, 0 to 255.
    Exited(u8),
    /// This signal killed it.
    Signalled(u8),
}

impl ExitStatus {
    /// The code as every shell tells it: the command's own, or 128 and the signal's number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

/// Who ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// Itself: its exit code is its own word.
    Itself,
    /// The shim, because somebody cancelled the job.
    Cancelled,
    /// The shim, because the command ran longer than it was allowed.
    RunTimeout,
    /// Kubernetes, which told the pod to stop: a drain, an eviction, a deletion by hand.
    PodTerminated,
}

/// Length and digest of one stream, without frame headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamSummary {
    /// How many bytes the command wrote, without those that were discarded.
    pub bytes: u64,
    /// SHA-256 of them, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What getrusage(2) said of the command and the children that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResourceUsage {
    /// CPU time in user mode, in microseconds.
    pub user_micros: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_micros: u64,
    /// The largest resident set of any one process, in bytes.
    pub max_rss_bytes: u64,
}

/// Whether the stored output is everything that the command printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputComplete {
    /// Every byte.
    Yes,
    /// Not every byte, and why.
    No(IncompleteReason),
}

/// Why output is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IncompleteReason {
    /// The end was reported before everything was uploaded.
    NotUploaded,
    /// There was no room to store it.
    StorageFull,
    /// The command printed more than is kept of one job: see [`Discarded`].
    Cap,
    /// The pod was gone before its shim could report the end: nobody knows how much is missing.
    PodGone,
    /// One that was made after this program.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was written in whatever pieces is read back, in order.
        #[test]
        fn a_log_reads_back_as_written(
            pieces in prop::collection::vec((any::<bool>(), -1_000_000_000_000_i64..2_000_000_000_000_000, prop::collection::vec(any::<u8>(), 1..200)), 0..50)
        ) {
            let stream = |first| if first { Stream::Stdout } else { Stream::Stderr };
            let frame = |(first, at, payload): &'_ (bool, i64, Vec<u8>)| (stream(*first), Timestamp::from_microsecond(*at).unwrap(), payload.clone());
            let mut log = Vec::new();
            let written: Vec<_> = pieces.iter().map(frame).collect();
            for (stream, at, payload) in &written {
                Frame { stream: *stream, at: *at, payload }.encode(&mut log);
            }
            let read: Vec<_> = frames(&log).map(Result::unwrap).map(|frame| (frame.stream, frame.at, frame.payload.to_vec())).collect();
            prop_assert_eq!(read, written);
        }

        /// Any bytes at all end in frames or an error, never in a panic or an endless loop.
        #[test]
        fn hostile_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read: Vec<_> = frames(&bytes).collect();
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn a_torn_or_foreign_log_is_refused() {
        let mut log = Vec::new();
        Frame {
            stream: Stream::Stdout,
            at: Timestamp::UNIX_EPOCH,
            payload: b"whole",
        }
        .encode(&mut log);
        let whole = log.len();
        let header = |stream: u8, time: i64, length: u32| {
            [&[stream][..], &time.to_be_bytes(), &length.to_be_bytes()].concat()
        };
        log.extend(header(2, 0, 9));
        log.extend(b"cut");
        assert_eq!(frames(&log).last(), Some(Err(InvalidLog::Torn)));
        assert_eq!(Frame::decode(&log[whole..]), Ok(None));
        let wrong = |header: Vec<u8>| Frame::decode(&header).unwrap_err();
        assert_eq!(wrong(header(3, 0, 1)), InvalidLog::UnknownStream(3));
        assert_eq!(wrong(header(1, 0, 0)), InvalidLog::Length(0));
        assert_eq!(
            wrong(header(1, 0, 0xff00_0000)),
            InvalidLog::Length(0xff00_0000)
        );
        assert_eq!(wrong(header(1, i64::MAX, 1)), InvalidLog::Time(i64::MAX));
    }

    #[test]
    fn a_killed_command_has_the_code_that_a_shell_gives_it() {
        assert_eq!(ExitStatus::Signalled(9).code(), 137);
        assert_eq!(ExitStatus::Exited(37).code(), 37);
    }
}
