//! What `-f` attaches: one archive of files and folders, the same bytes for the same tree.
//!
//! Each value of `-f` (`argument`) is walked (`walk`) into one `tree` of what the command's work
//! folder will hold. The finished [`Plan`] has been checked in every way that needs no reading: nothing
//! is unreadable, in two places at once, a device, a link that leads astray, or too much. Its
//! `fingerprint` finds an archive that was made of the same files before (`cache`); otherwise it is
//! packed (`archive`).
//!
//! | value | lands in the work folder as |
//! |---|---|
//! | `values.yaml`, `charts/web` | itself, below the same folders |
//! | `.` | its content |
//! | `../x`, `/etc/x` | `x`, which a notice says |
//! | `SRC:DEST` | `DEST`; for a file and a DEST that ends in `/`, or is `.`, below it |
//!
//! What is there under the whole value is meant, colons and all; failing that, DEST begins behind the
//! last colon that has something existing before it. What a value names is sent, even where it is a
//! symbolic link (then what that points to, under the link's name) or `.git`, or `.invokeignore` speaks
//! of it. What lies below a named folder is sent as it is, with symbolic links as links and empty
//! folders, except for everything called `.git`, for `.invokeignore` files, and for what these say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use invoke_protocol::files::{DEFAULT_FILES_BYTES, DEFAULT_FILES_ENTRIES};
use jiff::Timestamp;

mod argument;
mod ignored;
mod walk;
mod tree;
mod links;
mod fingerprint;
mod gzip;
mod archive;
mod cache;
mod error;

pub use archive::Packed;
pub use cache::{Cache, Known};
pub use error::Error;
pub use fingerprint::Fingerprint;

use argument::Argument;
use tree::Tree;

/// How much may be attached to one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of all regular files together.
    pub content_bytes: u64,
    /// Files, folders and symbolic links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            content_bytes: DEFAULT_FILES_BYTES,
            entries: DEFAULT_FILES_ENTRIES,
        }
    }
}

/// What will be sent, checked; not yet read.
#[derive(Debug)]
pub struct Plan {
    /// Where the sources' paths begin.
    folder: PathBuf,
    tree: Tree,
    notices: Vec<String>,
    /// When it was made.
    at: Timestamp,
}

impl Plan {
    /// Finds out what the values of `-f` mean, seen from a folder. `now` must not be later than the
    /// call: what has changed shortly before it is not remembered by the [`Cache`].
    ///
    /// # Errors
    /// See [`Error`]. Whatever can go wrong with a file goes wrong here, before anything is sent, unless
    /// the file changes later.
    pub fn make(
        values: &[OsString],
        folder: &Path,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let mut tree = Tree::new(*limits);
        let mut notices = Vec::new();
        for value in values {
            let argument = Argument::understand(value, folder)?;
            walk::walk(&argument, folder, &mut tree)?;
            notices.extend(argument.notice);
        }
        links::check(&tree)?;
        tree.check_limits()?;
        Ok(Self {
            folder: folder.to_owned(),
            tree,
            notices,
            at: now,
        })
    }

    /// How many files, folders and symbolic links there are. None is possible: of an empty folder, its
    /// content is nothing.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.tree.entries()
    }

    /// The bytes of all regular files together.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.tree.content_bytes()
    }

    /// What the person should know: which files land elsewhere than they are.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// What distinguishes these files, as they are now, from all others: without reading them.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.tree)
    }

    /// Reads the files into an archive, a temporary file without a name. `progress` is told how many
    /// bytes of content were read so far. This blocks for as long as it takes.
    ///
    /// # Errors
    /// [`Error::Changed`] for a file that is no longer as it was planned, [`Error::Unreadable`], or
    /// [`Error::Archive`].
    pub fn pack(&self, progress: impl FnMut(u64)) -> Result<Packed, Error> {
        archive::pack(&self.tree, &self.folder, progress)
    }
}

#[cfg(test)]
mod tests;
