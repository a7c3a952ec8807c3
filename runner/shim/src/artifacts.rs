//! Collects what the command has left in its folder of artifacts, once it has ended.
//!
//! What lies there was made by somebody else, perhaps to be read by us. No link is followed; nothing is
//! opened that makes one wait, like a FIFO; what was opened is looked at again; and what is not a file that
//! stays the same while it is read is named and left out.
//!
//! **At a limit it ends**: the files before it are taken, in the order of their paths, and none after it,
//! however small. So it does not depend on luck which ones come back, and the manifest names the first that
//! does not.
//!
//! Memory is bounded by [`Pending`], whatever the folder holds.

mod pending;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read as _, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::digest;
use invoke_protocol::artifacts::{
    Artifact, ArtifactsIncomplete, ArtifactsLimits, ArtifactsSummary, MAX_SKIPPED, Manifest,
    Skipped,
};
use invoke_protocol::digest::Sha256;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat};

use crate::beneath::Folder;
use pending::Pending;

/// The longest path that Linux takes, with the NUL at its end.
const PATH_BYTES: usize = 4096;

const COPY_BYTES: usize = 64 * 1024;

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the folder of artifacts cannot be read")]
    Folder(#[source] io::Error),
    #[error("artifacts cannot be spooled")]
    Spool(#[source] io::Error),
}

/// Writes the stream of artifacts, contents and manifest, to the beginning of a spool. What the spool holds
/// behind the length of the stream is not a part of it.
///
/// A folder that is not there has no artifacts.
///
/// *Assumptions*: no process of the command is left. Should there be one, what it changes is skipped.
///
/// # Errors
/// [`Error`]. A file that cannot be read is no error: it is skipped, and the manifest says so.
pub(crate) fn collect(
    folder: &Path,
    limits: ArtifactsLimits,
    spool: &mut (impl Write + Seek),
) -> Result<ArtifactsSummary, Error> {
    let mut collection = Collection {
        spool,
        limits,
        pending: Pending::new(limits.entries),
        manifest: Manifest::default(),
        content_bytes: 0,
        skipped: 0,
        incomplete: None,
    };
    collection.rewind()?;
    match Folder::open(folder) {
        Ok(root) => collection.walk(&root)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::Folder(error)),
    }
    collection.finish()
}

/// What was collected so far. The spool is at the end of `content_bytes`.
struct Collection<'a, S> {
    spool: &'a mut S,
    limits: ArtifactsLimits,
    pending: Pending,
    manifest: Manifest,
    content_bytes: u64,
    skipped: u64,
    incomplete: Option<ArtifactsIncomplete>,
}

/// What something in the folder turns out to be.
enum Finding {
    File(Artifact),
    Folder,
    /// It is not sent, and why.
    Skipped(String),
    /// It does not fit any more.
    TooLarge,
}

impl<S: Write + Seek> Collection<'_, S> {
    fn walk(&mut self, root: &Folder) -> Result<(), Error> {
        let listed = self.list(root, OsStr::new("."), "");
        listed.map_err(Error::Folder)?;
        while let Some(path) = self.pending.next() {
            match self.visit(root, &path) {
                Ok(Finding::File(artifact)) => {
                    self.content_bytes += artifact.bytes;
                    self.manifest.files.push(artifact);
                }
                Ok(Finding::Folder) => {}
                Ok(Finding::Skipped(reason)) => self.skip(&path, reason),
                Ok(Finding::TooLarge) => {
                    let limit = self.limits.content_bytes;
                    let reason = format!("with it there would be more than {limit} bytes");
                    self.end_at(&path, ArtifactsIncomplete::TooLarge, &reason);
                    return Ok(());
                }
                Err(Error::Spool(error)) if is_full(&error) => {
                    // What was spooled of it makes room for the manifest.
                    self.rewind()?;
                    let reason = "there is no room in the pod to keep it until it is sent";
                    self.end_at(&path, ArtifactsIncomplete::StorageFull, reason);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(path) = self.pending.first_left_out().map(<[u8]>::to_vec) {
            let limit = self.limits.entries;
            let reason =
                format!("with it there would be more than {limit} entries, or too many long paths");
            self.end_at(&path, ArtifactsIncomplete::TooMany, &reason);
        }
        Ok(())
    }

    fn visit(&mut self, root: &Folder, path: &[u8]) -> Result<Finding, Error> {
        let skipped = |reason: &str| Ok(Finding::Skipped(reason.to_owned()));
        let Ok(text) = std::str::from_utf8(path) else {
            return skipped("its path is no UTF-8");
        };
        if path.len() >= PATH_BYTES {
            return skipped("its path is too long");
        }
        let found = root.parent_of(path).and_then(|(folder, name)| {
            let status = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            Ok((folder, name, status.st_mode))
        });
        let (folder, name, mode) = match found {
            Ok(found) => found,
            Err(error) => return Ok(unreadable(&error)),
        };
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => self.spool_file(&folder, name, text),
            SFlag::S_IFDIR => match self.list(&folder, name, &format!("{text}/")) {
                Ok(()) => Ok(Finding::Folder),
                Err(error) => Ok(unreadable(&error)),
            },
            SFlag::S_IFLNK => skipped("it is a symbolic link"),
            SFlag::S_IFIFO => skipped("it is a FIFO"),
            SFlag::S_IFSOCK => skipped("it is a socket"),
            _ => skipped("it is a device"),
        }
    }

    fn list(&mut self, parent: &Folder, name: &OsStr, prefix: &str) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let folder: OwnedFd = parent.open_in(name, flags, Mode::empty())?.into();
        for entry in Dir::from_fd(folder)?.iter() {
            match entry?.file_name().to_bytes() {
                b"." | b".." => {}
                name => self.pending.add([prefix.as_bytes(), name].concat()),
            }
        }
        Ok(())
    }

    fn spool_file(&mut self, parent: &Folder, name: &OsStr, path: &str) -> Result<Finding, Error> {
        // Should it be a FIFO by now, opening it must not wait for somebody who writes.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = parent.open_in(name, flags, Mode::empty());
        let (file, before) = match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((before, file)) => (file, before),
            Err(error) => return Ok(unreadable(&error)),
        };
        if !before.is_file() {
            return Ok(Finding::Skipped("it is no file any more".to_owned()));
        }
        if before.len() > self.limits.content_bytes - self.content_bytes {
            return Ok(Finding::TooLarge);
        }
        let copied = self.copy(&file, before.len())?;
        let unchanged = file
            .metadata()
            .is_ok_and(|now| version(&now) == version(&before));
        let finding = match copied {
            Ok(Some(sha256)) if unchanged => {
                return Ok(Finding::File(Artifact {
                    path: path.to_owned(),
                    bytes: before.len(),
                    sha256,
                    offset: self.content_bytes,
                    executable: before.mode() & 0o100 != 0,
                }));
            }
            Ok(_) => Finding::Skipped("it changed while it was read".to_owned()),
            Err(error) => unreadable(&error),
        };
        self.rewind()?;
        Ok(finding)
    }

    /// Appends a file to the spool. `None` if it is not so long; an inner error is the file's.
    fn copy(&mut self, mut file: &File, bytes: u64) -> Result<io::Result<Option<Sha256>>, Error> {
        let mut spooled = Hashed::new(&mut *self.spool);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let length = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => return Ok(Err(error)),
            };
            // It may grow for ever.
            if spooled.bytes + length as u64 > bytes {
                return Ok(Ok(None));
            }
            let written = spooled.write_all(&buffer[..length]);
            written.map_err(Error::Spool)?;
        }
        let is_whole = spooled.bytes == bytes;
        Ok(Ok(is_whole.then(|| spooled.finish())))
    }

    /// Back to where the next file begins, over what was spooled of one that is not sent.
    fn rewind(&mut self) -> Result<(), Error> {
        let position = SeekFrom::Start(self.content_bytes);
        self.spool.seek(position).map_err(Error::Spool)?;
        Ok(())
    }

    fn skip(&mut self, path: &[u8], reason: String) {
        self.skipped += 1;
        // The last place is for what came up against a limit.
        if self.manifest.skipped.len() < MAX_SKIPPED - 1 || self.incomplete.is_some() {
            self.manifest.skipped.push(Skipped {
                path: String::from_utf8_lossy(path).into_owned(),
                reason,
            });
        }
    }

    fn end_at(&mut self, path: &[u8], incomplete: ArtifactsIncomplete, reason: &str) {
        self.incomplete = Some(incomplete);
        self.skip(
            path,
            format!("{reason}: neither it nor anything after it is sent"),
        );
    }

    fn finish(self) -> Result<ArtifactsSummary, Error> {
        let mut spooled = BufWriter::new(Hashed::new(self.spool));
        let written = serde_json::to_writer(&mut spooled, &self.manifest);
        written.map_err(|error| Error::Spool(error.into()))?;
        let flushed = spooled.into_inner();
        let spooled = flushed.map_err(|error| Error::Spool(error.into_error()))?;
        Ok(ArtifactsSummary {
            files: self.manifest.files.len() as u64,
            content_bytes: self.content_bytes,
            manifest_bytes: spooled.bytes,
            manifest_sha256: spooled.finish(),
            skipped: self.skipped,
            incomplete: self.incomplete,
        })
    }
}

fn unreadable(error: &io::Error) -> Finding {
    Finding::Skipped(format!("it cannot be read: {error}"))
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// What changes when a file is written to.
fn version(metadata: &Metadata) -> (u64, i64, i64, i64, i64) {
    (
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

/// Counts and digests what is written through it.
struct Hashed<W> {
    inner: W,
    bytes: u64,
    digest: digest::Context,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn finish(self) -> Sha256 {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.digest.finish().as_ref());
        Sha256::from_bytes(bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.digest.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
