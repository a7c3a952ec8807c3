//! The output log on disk, from the moment it is read until it is acknowledged; and the artifacts likewise.
//!
//! The file's positions are the log's positions. What was acknowledged is punched out of the file,
//! so it takes up no more room than what still waits, however much the command prints.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use invoke_protocol::output::{Frame, MAX_CHUNK_BYTES};
use nix::fcntl::{FallocateFlags, fallocate};

/// File systems free whole blocks; every common one has blocks of this size or smaller.
const BLOCK_BYTES: u64 = 4096;

/// Makes the spool in the pod's state folder.
///
/// # Errors
/// Where the file cannot be made.
pub(crate) fn create(state_dir: &Path) -> io::Result<(Writer, Reader)> {
    // The marker knows whether there was one before; should it ever not, this knows too, and a spool that is
    // being filled is never emptied. A test that turns the marker off turns this off with it.
    let is_first = !invoke_hooks::sabotaged("shim.no-marker");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(is_first)
        .create(true)
        .truncate(true)
        .open(state_dir.join("spool"))?;
    let writer = Writer {
        file: file.try_clone()?,
        position: 0,
    };
    Ok((writer, Reader::new(file, Cut::BetweenFrames)))
}

/// The end that the recorder holds.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    position: u64,
}

impl Writer {
    /// Where the log ends.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Appends whole frames. After an error nothing was appended: the same may be tried again.
    pub(crate) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        // At a position, not at the file's end: a half-written attempt is overwritten by the next.
        self.file.write_all_at(frames, self.position)?;
        self.position += frames.len() as u64;
        Ok(())
    }
}

/// The end that the uploader holds.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    cut: Cut,
    released: u64,
}

/// Where one upload may end and the next begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// In an output log.
    BetweenFrames,
    /// In a stream that is only bytes.
    Anywhere,
}

impl Reader {
    pub(crate) const fn new(file: File, cut: Cut) -> Self {
        Self {
            file,
            cut,
            released: 0,
        }
    }

    /// What follows `from`: as much as is there before `end`, fits into one upload, and ends at a cut.
    pub(crate) fn chunk(&self, from: u64, end: u64) -> io::Result<Bytes> {
        let length =
            usize::try_from(end - from).map_or(MAX_CHUNK_BYTES, |there| there.min(MAX_CHUNK_BYTES));
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, from)?;
        if self.cut == Cut::BetweenFrames {
            bytes.truncate(whole_frames(&bytes)?);
        }
        Ok(bytes.into())
    }

    /// Whether it can still be read from a position.
    pub(crate) fn holds(&self, position: u64) -> bool {
        position >= self.released
    }

    /// Gives the room of everything before `position` back.
    pub(crate) fn release(&mut self, position: u64) -> io::Result<()> {
        let end = position - position % BLOCK_BYTES;
        if end <= self.released {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let offset = |position: u64| i64::try_from(position).map_err(io::Error::other);
        fallocate(
            &self.file,
            flags,
            offset(self.released)?,
            offset(end - self.released)?,
        )?;
        self.released = end;
        Ok(())
    }
}

fn whole_frames(log: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some((_, length)) = Frame::decode(&log[taken..]).map_err(io::Error::other)? {
        taken += length;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use invoke_protocol::output::{FRAME_HEADER_BYTES, MAX_FRAME_PAYLOAD_BYTES, Stream, frames};
    use jiff::Timestamp;

    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut log = Vec::new();
        Frame {
            stream: Stream::Stdout,
            at: Timestamp::UNIX_EPOCH,
            payload,
        }
        .encode(&mut log);
        log
    }

    #[test]
    fn a_spool_that_is_there_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = create(folder.path()).unwrap();
        writer.append(&frame(b"first")).unwrap();
        let again = create(folder.path()).map(drop).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let chunk = reader.chunk(0, writer.position()).unwrap();
        assert_eq!(chunk, frame(b"first"));
    }

    #[test]
    fn a_chunk_is_whole_frames_and_fits_into_one_upload() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = create(folder.path()).unwrap();
        for _ in 0..40 {
            writer
                .append(&frame(&[7; MAX_FRAME_PAYLOAD_BYTES]))
                .unwrap();
        }
        let mut position = 0;
        let mut count = 0;
        while position < writer.position() {
            let chunk = reader.chunk(position, writer.position()).unwrap();
            assert!((1..=MAX_CHUNK_BYTES).contains(&chunk.len()));
            count += frames(&chunk).map(Result::unwrap).count();
            position += chunk.len() as u64;
        }
        assert_eq!(count, 40);
    }

    /// Without the hole a command that prints a terabyte would need one.
    #[test]
    fn what_is_released_takes_up_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = create(folder.path()).unwrap();
        for _ in 0..64 {
            writer.append(&frame(&[7; 60_000])).unwrap();
        }
        writer.file.sync_all().unwrap();
        let room = || {
            std::fs::metadata(folder.path().join("spool"))
                .unwrap()
                .blocks()
                * 512
        };
        assert!(room() > 3_000_000);
        reader.release(writer.position() - 10).unwrap();
        assert!(room() < 100_000, "{}", room());
        assert!(!reader.holds(0) && reader.holds(writer.position()));
        writer.append(&frame(b"more")).unwrap();
        let last = reader
            .chunk(
                writer.position() - (FRAME_HEADER_BYTES + 4) as u64,
                writer.position(),
            )
            .unwrap();
        assert_eq!(last, frame(b"more"));
    }
}
