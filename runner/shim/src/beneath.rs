//! Reaches what lies beneath a folder, and follows no link on the way: a path that somebody else chose
//! ends beneath the folder or nowhere, whatever was planted there.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// Folders are held only to go on from: that needs no right to list them.
const FOLDER: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder that everything else lies beneath. Only its last part must not be a link.
    ///
    /// # Errors
    /// Where it is no folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, FOLDER, Mode::empty())?))
    }

    /// The folder that `path` lies in, and the name that it has there.
    ///
    /// # Errors
    /// `NotFound` where a folder on the way is missing, `NotADirectory` where it is none or a link.
    pub(crate) fn parent_of<'a>(&self, path: &'a [u8]) -> io::Result<(Self, &'a OsStr)> {
        let mut parts = path.split(|byte| *byte == b'/').map(OsStr::from_bytes);
        // A path that was split has at least one part.
        let name = parts.next_back().unwrap_or_default();
        let mut folder = Self(self.0.try_clone()?);
        for part in parts {
            folder = Self(openat(&folder.0, part, FOLDER, Mode::empty())?);
        }
        Ok((folder, name))
    }

    /// Opens or makes a file in this folder; never what a link of this name points to.
    ///
    /// # Errors
    /// openat(2)'s. A link is `ELOOP`, or with `O_DIRECTORY` `ENOTDIR`.
    pub(crate) fn open_in(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, mode)?.into())
    }
}

impl std::os::fd::AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_link_on_the_way_is_no_folder() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        for (link, target) in [("out", ".."), ("in", "real")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let folder = Folder::open(&root).unwrap();
        assert!(folder.parent_of(b"real/deep/file").is_ok());
        let cases: [(&[u8], io::ErrorKind); 3] = [
            (b"out/secret", io::ErrorKind::NotADirectory),
            (b"in/deep/file", io::ErrorKind::NotADirectory),
            (b"none/file", io::ErrorKind::NotFound),
        ];
        for (path, kind) in cases {
            assert_eq!(folder.parent_of(path).unwrap_err().kind(), kind);
        }
        let through = folder.open_in("in".as_ref(), OFlag::O_RDONLY, Mode::empty());
        assert_eq!(
            through.unwrap_err().raw_os_error(),
            Some(Errno::ELOOP as i32)
        );
        assert!(Folder::open(&root.join("in")).is_err());
    }
}
