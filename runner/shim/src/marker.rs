//! The marker that a command was started in this pod. It outlives the container, not the pod.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The file in the state folder whose existence says "started".
#[derive(Debug)]
pub(crate) struct Marker {
    folder: PathBuf,
    file: PathBuf,
}

impl Marker {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.to_owned(),
            file: state_dir.join("started"),
        }
    }

    /// Whether a command was started in this pod before. An error counts as yes: a shim that cannot
    /// tell must not start.
    pub(crate) fn exists(&self) -> bool {
        !invoke_hooks::sabotaged("shim.no-marker") && self.file.try_exists().unwrap_or(true)
    }

    /// Sets the marker. Before the exec and on the disk, in this order: a node that loses power just
    /// after the exec must find it when it comes back.
    ///
    /// # Errors
    /// Where it exists already, or cannot be written: then nothing may be started.
    pub(crate) fn set(&self) -> io::Result<()> {
        if invoke_hooks::sabotaged("shim.no-marker") {
            return Ok(());
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.file)?
            .sync_all()?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_set_once() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::new(folder.path());
        assert!(!marker.exists());
        marker.set().unwrap();
        assert!(marker.exists());
        assert_eq!(
            marker.set().unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn what_cannot_be_known_counts_as_started() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Marker::new(file.path()).exists());
    }
}
