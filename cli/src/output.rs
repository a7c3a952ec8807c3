//! Where a command's output goes, and the proof that all of it got there.
//!
//! Output arrives in pieces with positions. Each piece is taken exactly once: one that was taken
//! before is passed over, one that leaves a gap is refused. What was taken is counted and digested per
//! stream, and at the end compared with what the shim, which read the pipes, says that it was. All of
//! that is about the command's own bytes, whatever a terminal is shown of them.

use std::borrow::Cow;
use std::io;

use aws_lc_rs::digest;
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::output::{FRAME_HEADER_BYTES, Stream, StreamSummary, frames};
use jiff::Timestamp;

use crate::door::Door;
use crate::fanout::{ClusterLines, Spool};
use crate::printer::{self, Printer, write_and_flush};
use crate::view::View;

/// Stored output of one stream is written in pieces of about this length.
const WRITTEN_AT_ONCE_BYTES: usize = 512 * 1024;

/// Takes the output of one job.
pub struct Output<'a> {
    destination: Destination<'a>,
    /// What of it is shown; `None` if all.
    view: Option<View>,
    /// Whether it was taken from its first byte on: only then can it be compared.
    is_whole: bool,
    position: u64,
    stdout: Tally,
    stderr: Tally,
    first_error: FirstLine,
}

enum Destination<'a> {
    /// To our own streams, as it comes.
    Streams {
        printer: &'a Printer,
        stdout: Door,
        stderr: Door,
    },
    /// To our own streams, line by line beside the lines of other clusters.
    Lines(ClusterLines<'a>),
    /// Aside, to be compared with what other clusters printed.
    Spool(Spool),
    /// Into memory, for one document at the end.
    Memory { stdout: Vec<u8>, stderr: Vec<u8> },
}

struct Tally {
    bytes: u64,
    digest: digest::Context,
}

/// The first line of a stream that is not blank, as far as it is shown in a table.
#[derive(Default)]
struct FirstLine {
    bytes: Vec<u8>,
    is_whole: bool,
}

/// Why output cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own streams refuse it.
    #[error(transparent)]
    Print(#[from] printer::Error),
    /// There is no room for it.
    #[error("output cannot be kept in {}", std::env::temp_dir().display())]
    Spool(#[source] io::Error),
    /// What arrived is not what the command printed, though everyone says that it is complete.
    #[error(
        "OUTPUT IS WRONG: {stream} came to {got_bytes} bytes (sha256 {got_sha256}), \
         but the command wrote {bytes} (sha256 {sha256}): do not trust what was printed"
    )]
    Mismatch {
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// How much we took.
        got_bytes: u64,
        /// Its digest.
        got_sha256: String,
        /// How much the command wrote, by the shim's word.
        bytes: u64,
        /// Its digest, by the shim's word.
        sha256: String,
    },
}

impl<'a> Output<'a> {
    /// Prints as it comes: byte for byte, but where it comes to a terminal only what is harmless there.
    /// `raw` lets also a terminal have every byte.
    #[must_use]
    pub fn to_streams(printer: &'a Printer, raw: bool) -> Self {
        Self::new(Destination::Streams {
            printer,
            stdout: Door::of(printer.prints_to_terminal() && !raw),
            stderr: Door::of(printer.is_interactive() && !raw),
        })
    }

    /// Keeps it for a document.
    #[must_use]
    pub fn to_memory() -> Self {
        Self::new(Destination::Memory {
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    /// Prints it as lines beside those of other clusters.
    #[must_use]
    pub fn to_lines(lines: ClusterLines<'a>) -> Self {
        Self::new(Destination::Lines(lines))
    }

    /// Keeps it aside, without limit, until the end.
    #[must_use]
    pub fn to_spool() -> Self {
        Self::new(Destination::Spool(Spool::default()))
    }

    fn new(destination: Destination<'a>) -> Self {
        Self {
            destination,
            view: None,
            is_whole: true,
            position: 0,
            stdout: Tally::new(),
            stderr: Tally::new(),
            first_error: FirstLine::default(),
        }
    }

    /// The same, of which only a part is shown.
    #[must_use]
    pub fn seen_through(self, view: View) -> Self {
        Self {
            view: Some(view),
            ..self
        }
    }

    /// The same, taken only from a position of the output log on.
    #[must_use]
    pub fn from_position(self, position: u64) -> Self {
        Self {
            position,
            is_whole: position == 0,
            ..self
        }
    }

    /// The position in the output log up to which everything was taken.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Takes what one stream printed up to a position of the log. `Ok(false)` if it does not continue
    /// where the piece before ended; nothing was taken then.
    ///
    /// # Errors
    /// [`Error::Print`].
    pub async fn take(
        &mut self,
        stream: Stream,
        at: Timestamp,
        bytes: &[u8],
        end: u64,
    ) -> Result<bool, Error> {
        if end <= self.position {
            return Ok(true);
        }
        // One frame, or several of one stream put together.
        let length = bytes.len() as u64;
        let headers = (end - self.position).checked_sub(length);
        let header = FRAME_HEADER_BYTES as u64;
        let fits = |all: u64| all.is_multiple_of(header) && (1..=length).contains(&(all / header));
        if !headers.is_some_and(fits) {
            return Ok(false);
        }
        self.write(stream, at, bytes).await?;
        self.position = end;
        Ok(true)
    }

    /// Takes a piece of the log, whole frames from the position on. `Ok(false)` if it is none.
    ///
    /// # Errors
    /// [`Error::Print`].
    pub async fn take_log(&mut self, log: &[u8]) -> Result<bool, Error> {
        let mut frames = frames(log).peekable();
        while let Some(frame) = frames.next() {
            let Ok(frame) = frame else {
                return Ok(false);
            };
            let mut taken = FRAME_HEADER_BYTES + frame.payload.len();
            // A write for each frame would be a thread woken up for each.
            let mut bytes = Cow::Borrowed(frame.payload);
            while self.view.is_none()
                && bytes.len() < WRITTEN_AT_ONCE_BYTES
                && let Some(Ok(more)) =
                    frames.next_if(|next| next.is_ok_and(|next| next.stream == frame.stream))
            {
                bytes.to_mut().extend_from_slice(more.payload);
                taken += FRAME_HEADER_BYTES + more.payload.len();
            }
            self.write(frame.stream, frame.at, &bytes).await?;
            self.position += taken as u64;
        }
        Ok(true)
    }

    async fn write(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<(), Error> {
        let seen = self.view.as_mut().map(|view| view.show(stream, at, bytes));
        let wanted = seen.as_deref().unwrap_or(bytes);
        match (&mut self.destination, stream) {
            (
                Destination::Streams {
                    printer,
                    stdout,
                    stderr,
                },
                stream,
            ) => {
                printer.clear_status();
                let shown = match stream {
                    Stream::Stdout => stdout.show(wanted),
                    Stream::Stderr => stderr.show(wanted),
                };
                printer.leave_colours(stdout.is_coloured() || stderr.is_coloured());
                write_now(stream, shown).await?;
            }
            (Destination::Lines(lines), stream) => lines.take(stream, wanted).await?,
            (Destination::Spool(spool), stream) => {
                spool.take(stream, wanted).map_err(Error::Spool)?;
            }
            (Destination::Memory { stdout, .. }, Stream::Stdout) => {
                stdout.extend_from_slice(wanted);
            }
            (Destination::Memory { stderr, .. }, Stream::Stderr) => {
                stderr.extend_from_slice(wanted);
            }
        }
        match stream {
            Stream::Stdout => self.stdout.add(bytes),
            Stream::Stderr => {
                self.stderr.add(bytes);
                self.first_error.add(bytes);
            }
        }
        Ok(())
    }

    /// Prints what had to wait for the bytes that follow it, where no more will.
    ///
    /// # Errors
    /// [`Error::Print`].
    pub async fn end(&mut self) -> Result<(), Error> {
        match &mut self.destination {
            Destination::Streams {
                printer,
                stdout,
                stderr,
            } => {
                for (stream, door) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                    let shown = door.end();
                    if !shown.is_empty() {
                        write_now(stream, shown).await?;
                    }
                }
                printer.leave_colours(false);
            }
            Destination::Lines(lines) => lines.end().await?,
            Destination::Spool(_) | Destination::Memory { .. } => {}
        }
        Ok(())
    }

    /// Compares what was taken with what a job that is over says of its output. A job that says
    /// itself that output is missing has nothing to compare, nor has who took only a part.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn verify(&self, job: &Job) -> Result<(), Error> {
        if job.output_complete != Some(Completeness::Yes) || !self.is_whole {
            return Ok(());
        }
        self.stdout.compare("stdout", job.stdout.as_ref())?;
        self.stderr.compare("stderr", job.stderr.as_ref())
    }

    /// How many bytes of both streams were taken.
    #[must_use]
    pub const fn taken_bytes(&self) -> u64 {
        self.stdout.bytes + self.stderr.bytes
    }

    /// What was kept: stdout and stderr. Empty if it was printed.
    #[must_use]
    pub fn into_memory(self) -> (Vec<u8>, Vec<u8>) {
        match self.destination {
            Destination::Memory { stdout, stderr } => (stdout, stderr),
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// What was kept aside; empty if it was not.
    #[must_use]
    pub fn into_spool(self) -> Spool {
        match self.destination {
            Destination::Spool(spool) => spool,
            _ => Spool::default(),
        }
    }

    /// The first line of stderr, its beginning if it is long; empty if there is none.
    #[must_use]
    pub fn first_error(&self) -> String {
        String::from_utf8_lossy(&self.first_error.bytes).into_owned()
    }

    /// What a stream came to so far: its digest.
    #[must_use]
    pub fn sha256(&self, stream: Stream) -> Vec<u8> {
        let tally = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        tally.digest.clone().finish().as_ref().to_vec()
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn compare(&self, stream: &'static str, said: Option<&StreamSummary>) -> Result<(), Error> {
        let got_sha256 = hex(self.digest.clone().finish().as_ref());
        // A command that never started has printed nothing, and nobody says more about it.
        let (bytes, sha256) = match said {
            Some(summary) => (summary.bytes, summary.sha256.clone()),
            None => (0, hex(digest::digest(&digest::SHA256, b"").as_ref())),
        };
        if bytes == self.bytes && sha256 == got_sha256 {
            Ok(())
        } else {
            let got_bytes = self.bytes;
            Err(Error::Mismatch {
                stream,
                got_bytes,
                got_sha256,
                bytes,
                sha256,
            })
        }
    }
}

impl FirstLine {
    const MOST_BYTES: usize = 256;

    fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_whole {
                return;
            }
            let room = Self::MOST_BYTES - self.bytes.len();
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            self.bytes.extend_from_slice(&text[..text.len().min(room)]);
            if part.ends_with(b"\n") {
                self.is_whole = !self.bytes.trim_ascii().is_empty();
                if !self.is_whole {
                    self.bytes.clear();
                }
            }
        }
    }
}

/// Writes to a stream of our own, on a thread that may block: a pager that is not read must not keep
/// signals from being heard.
pub(crate) async fn write_now(stream: Stream, bytes: Vec<u8>) -> Result<(), printer::Error> {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    // Flushed at once: a line must not wait in a buffer until the next one comes.
    let written = tokio::task::spawn_blocking(move || match stream {
        Stream::Stdout => write_and_flush(&mut io::stdout().lock(), &bytes),
        Stream::Stderr => write_and_flush(&mut io::stderr().lock(), &bytes),
    });
    let written = written
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)));
    written.map_err(|source| printer::Error::of(name, source))
}

/// A digest as it is written everywhere.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[tokio::test]
    async fn a_piece_is_taken_once_and_a_gap_never() {
        let mut output = Output::to_memory();
        assert!(output.take(Stream::Stdout, NOW, b"one", 16).await.unwrap());
        assert!(
            output.take(Stream::Stdout, NOW, b"one", 16).await.unwrap(),
            "again: passed over"
        );
        assert!(
            !output.take(Stream::Stdout, NOW, b"two", 33).await.unwrap(),
            "a byte is missing"
        );
        assert!(
            !output.take(Stream::Stdout, NOW, b"two", 19).await.unwrap(),
            "no room for a header"
        );
        assert!(output.take(Stream::Stderr, NOW, b"two", 32).await.unwrap());
        assert!(
            output
                .take(Stream::Stdout, NOW, b"three four", 68)
                .await
                .unwrap(),
            "two frames in one"
        );
        assert_eq!(output.position(), 68);
        assert_eq!(
            output.into_memory(),
            (b"onethree four".to_vec(), b"two".to_vec())
        );
    }
}
