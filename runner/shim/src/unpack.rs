//! Unpacks the attached files into the work folder, before the command starts.
//!
//! What may be in an archive at all is decided in [`archive`]; here is what it may do to the disk. Nothing
//! is written through a link, whoever made it: every folder is opened from the one above it, every file is
//! made anew. So the file system itself refuses what comes twice, under one kind or two. A folder comes
//! before what is in it, which makes the number of entries the number of things made, and the submitter's
//! figures a true limit: content is refused by its stated size before a byte of it is written.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use crate::archive::{self, Archive, Entry, Kind, Name};
use crate::beneath::Folder;

/// What the shim itself needs of a folder until everything in it is made.
const OWN_FOLDER: u32 = 0o700;

/// How much may be remembered of folders that are closed to their owner at the end.
const CLOSED_FOLDERS_BYTES: usize = 1024 * 1024;

const COPY_BYTES: usize = 64 * 1024;

/// What the submitter said of the archive. It holds exactly this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stated {
    /// The sizes of all files together.
    pub(crate) content_bytes: u64,
    /// Files, folders and links.
    pub(crate) entries: u64,
}

/// Why the attached files are not there. The work folder holds some of them or none: the command must not
/// be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the work folder cannot be opened")]
    WorkFolder(#[source] io::Error),
    #[error(transparent)]
    Archive(#[from] archive::Error),
    #[error("the archive holds more than the {0} entries that were stated: {1} is one more")]
    TooManyEntries(u64, Name),
    #[error(
        "the archive holds more than the {0} bytes of content that were stated: {1} is too much"
    )]
    TooMuchContent(u64, Name),
    #[error(
        "the archive holds less than was stated: {} of {} entries, {} of {} bytes of content",
        found.entries, stated.entries, found.content_bytes, stated.content_bytes
    )]
    LessThanStated { stated: Stated, found: Stated },
    #[error("{0} in the archive is in a folder that comes after it or not at all")]
    NoFolder(Name),
    #[error("{0} in the archive is beneath something that is no folder")]
    NotInFolder(Name),
    #[error("{0} is in the archive twice, or was in the work folder before")]
    Exists(Name),
    #[error("{0} in the archive is one folder too many that its owner may not use freely")]
    TooManyClosedFolders(Name),
    #[error("there is no room in the work folder for {0}")]
    Full(Name, #[source] io::Error),
    #[error("{0} cannot be made in the work folder")]
    Write(Name, #[source] io::Error),
}

/// Unpacks a tar.gz into a folder. Permission bits are the archive's whatever the umask, owner and group
/// are the caller's, times are those of unpacking.
///
/// *Guarantees*: nothing outside the folder is touched; no more is written than was stated; memory does
/// not grow with the archive.
///
/// *Assumptions*: nobody else writes into the folder meanwhile.
///
/// # Errors
/// [`Error`]. The archive is taken whole or not at all: on any error the command must not start.
pub(crate) fn unpack(archive: impl Read, into: &Path, stated: Stated) -> Result<(), Error> {
    let mut archive = Archive::new(archive);
    let mut unpacked = Unpacked {
        root: Folder::open(into).map_err(Error::WorkFolder)?,
        found: Stated {
            content_bytes: 0,
            entries: 0,
        },
        closed_folders: Vec::new(),
        closed_folders_bytes: 0,
        buffer: vec![0; COPY_BYTES],
    };
    while let Some(entry) = archive.next_entry()? {
        unpacked.count(&entry, stated)?;
        unpacked.place(entry, &mut archive)?;
    }
    if unpacked.found != stated {
        let found = unpacked.found;
        return Err(Error::LessThanStated { stated, found });
    }
    unpacked.close_folders()
}

/// What was unpacked so far.
struct Unpacked {
    root: Folder,
    found: Stated,
    /// Folders whose own mode must wait for what is in them, in the archive's order.
    closed_folders: Vec<(Name, u32)>,
    closed_folders_bytes: usize,
    buffer: Vec<u8>,
}

impl Unpacked {
    fn count(&mut self, entry: &Entry, stated: Stated) -> Result<(), Error> {
        let bytes = entry.content_bytes();
        if self.found.entries == stated.entries {
            return Err(Error::TooManyEntries(stated.entries, entry.name.clone()));
        }
        if bytes > stated.content_bytes - self.found.content_bytes {
            let name = entry.name.clone();
            return Err(Error::TooMuchContent(stated.content_bytes, name));
        }
        self.found.entries += 1;
        self.found.content_bytes += bytes;
        Ok(())
    }

    fn place(&mut self, entry: Entry, archive: &mut Archive<impl Read>) -> Result<(), Error> {
        let Entry { name, kind } = entry;
        match kind {
            Kind::File { mode, .. } => {
                let file = self
                    .make_file(&name)
                    .map_err(|error| not_made(&name, error))?;
                self.fill(&file, &name, archive)?;
                set_mode(&file, mode).map_err(|error| not_made(&name, error))
            }
            Kind::Folder { mode } => {
                let folder = self
                    .make_folder(&name)
                    .map_err(|error| not_made(&name, error))?;
                set_mode(&folder, mode | OWN_FOLDER).map_err(|error| not_made(&name, error))?;
                match mode & OWN_FOLDER {
                    OWN_FOLDER => Ok(()),
                    _ => self.close_later(name, mode),
                }
            }
            Kind::Symlink { target } => self
                .make_link(&name, &target)
                .map_err(|error| not_made(&name, error)),
        }
    }

    fn make_file(&self, name: &Name) -> io::Result<File> {
        let (folder, name) = self.root.parent_of(name.as_bytes())?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        folder.open_in(name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    fn fill(
        &mut self,
        mut file: &File,
        name: &Name,
        archive: &mut Archive<impl Read>,
    ) -> Result<(), Error> {
        loop {
            let length = archive.read_content(&mut self.buffer)?;
            if length == 0 {
                return Ok(());
            }
            let written = file.write_all(&self.buffer[..length]);
            written.map_err(|error| not_made(name, error))?;
        }
    }

    fn make_folder(&self, name: &Name) -> io::Result<File> {
        let (folder, name) = self.root.parent_of(name.as_bytes())?;
        mkdirat(&folder, name, Mode::S_IRWXU)?;
        folder.open_in(name, OFlag::O_DIRECTORY, Mode::empty())
    }

    fn make_link(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        let (folder, name) = self.root.parent_of(name.as_bytes())?;
        Ok(symlinkat(
            std::ffi::OsStr::from_bytes(target),
            &folder,
            name,
        )?)
    }

    fn close_later(&mut self, name: Name, mode: u32) -> Result<(), Error> {
        self.closed_folders_bytes += size_of::<(Name, u32)>() + name.as_bytes().len();
        if self.closed_folders_bytes > CLOSED_FOLDERS_BYTES {
            return Err(Error::TooManyClosedFolders(name));
        }
        self.closed_folders.push((name, mode));
        Ok(())
    }

    /// The inner ones before the outer ones, which lead to them.
    fn close_folders(self) -> Result<(), Error> {
        for (name, mode) in self.closed_folders.into_iter().rev() {
            let parent = self.root.parent_of(name.as_bytes());
            let closed = parent.and_then(|(folder, name)| {
                let folder = folder.open_in(name, OFlag::O_DIRECTORY, Mode::empty())?;
                set_mode(&folder, mode)
            });
            closed.map_err(|error| not_made(&name, error))?;
        }
        Ok(())
    }
}

/// By the file itself: its name could lead elsewhere, and a mode at its making is what the umask leaves.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

fn not_made(name: &Name, error: io::Error) -> Error {
    let name = name.clone();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EEXIST) => Error::Exists(name),
        Some(Errno::ENOENT) => Error::NoFolder(name),
        Some(Errno::ENOTDIR | Errno::ELOOP) => Error::NotInFolder(name),
        Some(Errno::ENOSPC | Errno::EDQUOT) => Error::Full(name, error),
        _ => Error::Write(name, error),
    }
}
