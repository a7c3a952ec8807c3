//! Reads both pipes of the command into the spool, in the order in which they have something, with known
//! secrets masked, up to the cap. What comes after that is read as well, so that the command goes on; it is
//! counted and dropped.

use std::io;
use std::time::Duration;

use aws_lc_rs::digest;
use invoke_protocol::output::{
    Discarded, FRAME_HEADER_BYTES, Frame, MAX_FRAME_PAYLOAD_BYTES, Stream, StreamSummary,
};
use jiff::Timestamp;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use crate::log;
use crate::mask::Masker;
use crate::spool::Writer;

/// How long to wait for room on a full disk before trying again. The command waits too.
const FULL_DISK: Duration = Duration::from_millis(500);

/// The output log while it grows. Dropping it says that it will grow no more.
pub(crate) struct Recorder {
    writer: Writer,
    limits: Limits,
    written: watch::Sender<u64>,
    acknowledged: watch::Receiver<u64>,
    /// How long the log is with what was read and perhaps not written yet.
    log_bytes: u64,
    stdout: Heard,
    stderr: Heard,
    frame: Vec<u8>,
}

/// How much output there may be, in bytes of log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// That waits for its acknowledgement: beyond it the command waits too.
    pub(crate) waiting: u64,
    /// In all: what comes after it is dropped.
    pub(crate) recorded: u64,
}

/// What the output came to.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) log_bytes: u64,
    pub(crate) stdout: StreamSummary,
    pub(crate) stderr: StreamSummary,
    pub(crate) discarded: Discarded,
}

/// The command's ends of its output. `None` is a stream that is at its end.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: Option<Receiver>,
    pub(crate) stderr: Option<Receiver>,
}

impl Recorder {
    /// Records into `writer`, says in `written` how far, and reads on only while what lies between that
    /// and what `acknowledged` says is within its limit.
    pub(crate) fn new(
        writer: Writer,
        masker: Masker,
        limits: Limits,
        written: watch::Sender<u64>,
        acknowledged: watch::Receiver<u64>,
    ) -> Self {
        Self {
            writer,
            limits,
            written,
            acknowledged,
            log_bytes: 0,
            stdout: Heard::new(masker.for_another_stream()),
            stderr: Heard::new(masker),
            frame: Vec::new(),
        }
    }

    /// Reads until both streams are closed by everybody who held them. When `all_are_dead`, what they left
    /// in the pipes is read whatever the limit: it is little, and nothing more will come.
    pub(crate) async fn record(
        &mut self,
        mut pipes: Pipes,
        mut all_are_dead: watch::Receiver<bool>,
    ) {
        let mut buffer = vec![0; MAX_FRAME_PAYLOAD_BYTES];
        let mut preferred = Stream::Stdout;
        loop {
            tokio::select! {
                () = self.room() => {}
                Ok(_) = all_are_dead.wait_for(|dead| *dead) => {}
            }
            let Some(stream) = pipes.next_readable(preferred).await else {
                return;
            };
            let pipe = pipes.of(stream);
            match pipe.as_ref().map(|open| open.try_read(&mut buffer)) {
                None => {}
                Some(Ok(0)) => {
                    *pipe = None;
                    self.end(stream).await;
                }
                Some(Ok(length)) => self.append(stream, &buffer[..length]).await,
                // Somebody else's wake-up.
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(Err(error)) => {
                    log::chain("a pipe of the command cannot be read", &error);
                    *pipe = None;
                    self.end(stream).await;
                }
            }
            // In turns, so that one stream that never pauses cannot hold the other back.
            preferred = other(stream);
        }
    }

    /// Adds one piece of output. The end of it is held back where it may be the beginning of a secret.
    pub(crate) async fn append(&mut self, stream: Stream, output: &[u8]) {
        let mut decided = Vec::with_capacity(output.len());
        self.heard(stream).masker.mask(output, &mut decided);
        self.keep(stream, &decided).await;
    }

    /// Says that nothing comes after this on a stream: so what was held back is no secret.
    pub(crate) async fn end(&mut self, stream: Stream) {
        let mut rest = Vec::new();
        self.heard(stream).masker.finish(&mut rest);
        self.keep(stream, &rest).await;
    }

    /// Keeps what of a piece is within the cap.
    async fn keep(&mut self, stream: Stream, masked: &[u8]) {
        for payload in masked.chunks(MAX_FRAME_PAYLOAD_BYTES) {
            let (kept, dropped) = payload.split_at(payload.len().min(self.below_cap()));
            let heard = self.heard(stream);
            heard.tally.add(kept);
            heard.discarded_bytes += dropped.len() as u64;
            if !kept.is_empty() {
                self.write(stream, kept).await;
            }
        }
    }

    fn heard(&mut self, stream: Stream) -> &mut Heard {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// The longest payload that a frame may still have. Once one was cut, this is 0: what is recorded is
    /// the beginning of the output, without a gap.
    fn below_cap(&self) -> usize {
        let left = self.limits.recorded.saturating_sub(self.log_bytes);
        let payload = left.saturating_sub(FRAME_HEADER_BYTES as u64);
        usize::try_from(payload).unwrap_or(usize::MAX)
    }

    async fn write(&mut self, stream: Stream, payload: &[u8]) {
        self.frame.clear();
        Frame {
            stream,
            at: Timestamp::now(),
            payload,
        }
        .encode(&mut self.frame);
        self.log_bytes += self.frame.len() as u64;
        let mut said = false;
        while let Err(error) = self.writer.append(&self.frame) {
            if !std::mem::replace(&mut said, true) {
                log::chain("output cannot be spooled, the command waits", &error);
            }
            tokio::time::sleep(FULL_DISK).await;
        }
        // After the write: the uploader reads what this says is there.
        self.written.send_replace(self.writer.position());
        invoke_hooks::point("shim.mid-output");
    }

    /// Ends the log.
    pub(crate) fn finish(self) -> Recorded {
        Recorded {
            log_bytes: self.log_bytes,
            discarded: Discarded {
                stdout_bytes: self.stdout.discarded_bytes,
                stderr_bytes: self.stderr.discarded_bytes,
            },
            stdout: self.stdout.tally.finish(),
            stderr: self.stderr.tally.finish(),
        }
    }

    async fn room(&mut self) {
        if self.below_cap() == 0 {
            // What is dropped needs none.
            return;
        }
        let (end, limit) = (self.writer.position(), self.limits.waiting);
        // An uploader that is gone acknowledges nothing: then the whole pod is about to end.
        let _ = self
            .acknowledged
            .wait_for(|acknowledged| end.saturating_sub(*acknowledged) < limit)
            .await;
    }
}

impl Pipes {
    /// The stream that can be read, the preferred one if both can; `None` when both are closed.
    async fn next_readable(&self, preferred: Stream) -> Option<Stream> {
        if self.stdout.is_none() && self.stderr.is_none() {
            return None;
        }
        let stream = tokio::select! {
            biased;
            () = readable(self.at(preferred)) => preferred,
            () = readable(self.at(other(preferred))) => other(preferred),
        };
        Some(stream)
    }

    fn at(&self, stream: Stream) -> Option<&Receiver> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    fn of(&mut self, stream: Stream) -> &mut Option<Receiver> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        // An error shows again in the read that follows.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

const fn other(stream: Stream) -> Stream {
    match stream {
        Stream::Stdout => Stream::Stderr,
        Stream::Stderr => Stream::Stdout,
    }
}

/// What is known of one stream.
struct Heard {
    masker: Masker,
    /// Of what was recorded.
    tally: Tally,
    discarded_bytes: u64,
}

impl Heard {
    fn new(masker: Masker) -> Self {
        Self {
            masker,
            tally: Tally::new(),
            discarded_bytes: 0,
        }
    }
}

struct Tally {
    bytes: u64,
    digest: digest::Context,
}

impl Tally {
    fn new() -> Self {
        Self {
            bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn add(&mut self, payload: &[u8]) {
        self.bytes += payload.len() as u64;
        self.digest.update(payload);
    }

    fn finish(self) -> StreamSummary {
        let digest = self.digest.finish();
        let sha256 = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        StreamSummary {
            bytes: self.bytes,
            sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_stream_has_the_digest_of_nothing() {
        let summary = Tally::new().finish();
        assert_eq!(summary.bytes, 0);
        assert_eq!(
            summary.sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
