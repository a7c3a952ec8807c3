//! Writes artifacts below a folder that the user named, and nowhere else.
//!
//! Names and lengths come from a command, by way of a pod, a cluster and a dispatcher: any of them may lie.
//! So a name is a path below the folder or it is refused, and the folder is opened once and everything is
//! made relative to it: a link in it that leads out is not followed by the operating system
//! (openat2(2), `RESOLVE_BENEATH`). A file has its name when all of it is there and has the digest.

use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use invoke_protocol::artifacts::Artifact;
use invoke_protocol::digest::Sha256;
use invoke_protocol::id::JobId;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{self, Client};
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::patience::Patience;
use crate::printer::Printer;

/// The folder that the user named.
#[derive(Debug)]
pub struct Folder {
    dir: Dir,
    path: PathBuf,
    overwrite: bool,
}

/// One file on its way.
pub struct Download<'a> {
    /// Where it is.
    pub client: &'a Client,
    /// Whose it is.
    pub job: JobId,
    /// What it is, as the manifest says.
    pub artifact: &'a Artifact,
    /// For how long to try again when the connection is cut.
    pub patience: Patience,
    /// Where to say how far it is.
    pub printer: &'a Printer,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made or opened.
    #[error("cannot use the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// A name that would lead out of the folder, or names no file.
    #[error(
        "the artifact {0:?} is not written: its name is no path below a folder, and whoever chose it may mean harm"
    )]
    Name(String),
    /// There is a file already.
    #[error("{0} exists already, and was not replaced")]
    Exists(PathBuf),
    /// The disk does not take it.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// It is not what the manifest says.
    #[error(
        "{0} is not written: what came does not have the digest that the pod stated; it was changed on the way"
    )]
    Digest(PathBuf),
    /// The dispatcher does not give it.
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = |exit| Self::new(exit, chain(&error));
        match error {
            Error::Client(error) => error.into(),
            Error::Exists(_) => failure(Exit::BAD_INPUT)
                .with_hint("--overwrite replaces it; -d FOLDER puts it elsewhere"),
            Error::Folder(..) | Error::Write(..) => failure(Exit::BAD_INPUT),
            Error::Name(_) | Error::Digest(_) => failure(Exit::INTERNAL),
        }
    }
}

impl Folder {
    /// Opens the folder, and makes it if it is missing.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn open(path: &Path, overwrite: bool) -> Result<Self, Error> {
        let open = || {
            std::fs::create_dir_all(path)?;
            Dir::open_ambient_dir(path, cap_std::ambient_authority())
        };
        let dir = open().map_err(|error| Error::Folder(path.to_owned(), error))?;
        Ok(Self {
            dir,
            path: path.to_owned(),
            overwrite,
        })
    }

    /// Begins a file, under a name of our own beside where it is to be.
    fn begin(&self, artifact: &Artifact) -> Result<Begun<'_>, Error> {
        let name = below(&artifact.path)?;
        let shown = self.path.join(&name);
        // Looked at before all the bytes were fetched for nothing; `finish` makes sure.
        if !self.overwrite && self.dir.symlink_metadata(&name).is_ok() {
            return Err(Error::Exists(shown));
        }
        let parent = name
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let unfinished = name.with_file_name(format!(".invoke-{}", Uuid::new_v4()));
        let mut how = OpenOptions::new();
        how.write(true)
            .create_new(true)
            .mode(match artifact.executable {
                true => 0o777,
                false => 0o666,
            });
        let made = parent
            .map_or(Ok(()), |parent| self.dir.create_dir_all(parent))
            .and_then(|()| self.dir.open_with(&unfinished, &how));
        let file = made.map_err(|error| Error::Write(shown.clone(), error))?;
        Ok(Begun {
            folder: self,
            file,
            unfinished,
            name,
            shown,
            digest: digest::Context::new(&digest::SHA256),
            bytes: 0,
            is_finished: false,
        })
    }
}

/// A file that does not have its name yet. Dropped without it, it is removed.
struct Begun<'a> {
    folder: &'a Folder,
    file: File,
    unfinished: PathBuf,
    name: PathBuf,
    shown: PathBuf,
    digest: digest::Context,
    bytes: u64,
    is_finished: bool,
}

impl Begun<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|error| Error::Write(self.shown.clone(), error))
    }

    fn finish(mut self, sha256: Sha256) -> Result<(), Error> {
        if self.digest.clone().finish().as_ref() != sha256.as_bytes() {
            return Err(Error::Digest(self.shown.clone()));
        }
        let Folder { dir, overwrite, .. } = self.folder;
        // A link never takes the place of a file; a rename does.
        let named = match overwrite {
            true => dir.rename(&self.unfinished, dir, &self.name),
            false => dir.hard_link(&self.unfinished, dir, &self.name),
        };
        match named {
            Ok(()) => {
                self.is_finished = *overwrite;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists(self.shown.clone()))
            }
            Err(error) => Err(Error::Write(self.shown.clone(), error)),
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed has a name that says what it is.
            let _ = self.folder.dir.remove_file(&self.unfinished);
        }
    }
}

impl Download<'_> {
    /// Fetches the file, and gives it its name when all of it is there.
    ///
    /// # Errors
    /// [`Error`]; then there is no such file, or the one that was there before.
    pub async fn to(mut self, folder: &Folder) -> Result<(), Error> {
        let mut begun = folder.begin(self.artifact)?;
        while begun.bytes < self.artifact.bytes {
            if let Err(error) = self.fetch(&mut begun).await {
                self.wait_after(error).await?;
            }
        }
        begun.finish(self.artifact.sha256)
    }

    async fn fetch(&mut self, begun: &mut Begun<'_>) -> Result<(), Error> {
        let Artifact { offset, bytes, .. } = *self.artifact;
        let range = offset.saturating_add(begun.bytes)..offset.saturating_add(bytes);
        let mut pieces = self.client.artifact(self.job, range).await?;
        while let Some(piece) = pieces.next().await? {
            if piece.len() as u64 > bytes - begun.bytes {
                let why = "more bytes came than were asked for";
                return Err(self.client.nonsense(why).into());
            }
            begun.write(&piece)?;
            self.patience.renew(true);
            self.printer.status(&format!(
                "{}: {} of {bytes} bytes",
                self.artifact.path, begun.bytes
            ));
        }
        match begun.bytes == bytes {
            true => Ok(()),
            false => Err(self.client.cut().into()),
        }
    }

    /// What was written stays, and the rest is asked for.
    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        match error {
            // It has answered before, so whatever keeps it from being reached will pass.
            Error::Client(error)
                if (error.is_passing() || error.is_unreachable())
                    && self.patience.is_left(Instant::now()) =>
            {
                self.patience.pause(error.retry_after()).await;
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// A name as a path below a folder.
fn below(name: &str) -> Result<PathBuf, Error> {
    let path = Path::new(name);
    let is_below = !name.contains('\0')
        && !name.ends_with('/')
        && path.components().next().is_some()
        && path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
    match is_below {
        true => Ok(path.to_owned()),
        false => Err(Error::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn artifact(path: &str, content: &[u8]) -> Artifact {
        let digest = digest::digest(&digest::SHA256, content);
        Artifact {
            path: path.to_owned(),
            bytes: content.len() as u64,
            sha256: Sha256::from_bytes(digest.as_ref().try_into().unwrap()),
            offset: 0,
            executable: false,
        }
    }

    fn write(folder: &Folder, artifact: &Artifact, content: &[u8]) -> Result<(), Error> {
        let mut begun = folder.begin(artifact)?;
        begun.write(content)?;
        begun.finish(artifact.sha256)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), false).unwrap();
        let report = artifact("a/b/report", b"fine");
        write(&folder, &report, b"fine").unwrap();
        let written = place.path().join("a/b/report");
        assert_eq!(std::fs::read(&written).unwrap(), b"fine");
        assert_eq!(names(&place.path().join("a/b")), ["report"]);
        let other = artifact("other", b"what was stated");
        let changed = write(&folder, &other, b"what came").unwrap_err();
        assert!(matches!(changed, Error::Digest(_)));
        assert_eq!(names(place.path()), ["a"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_on_request() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("report");
        std::fs::write(&file, "mine").unwrap();
        let report = artifact("report", b"theirs");
        let keep = Folder::open(place.path(), false).unwrap();
        assert!(matches!(
            write(&keep, &report, b"theirs"),
            Err(Error::Exists(_))
        ));
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        // Also if it comes while ours is under way.
        let late = artifact("late", b"theirs");
        let mut begun = keep.begin(&late).unwrap();
        begun.write(b"theirs").unwrap();
        std::fs::write(place.path().join("late"), "mine").unwrap();
        assert!(matches!(begun.finish(late.sha256), Err(Error::Exists(_))));
        let replace = Folder::open(place.path(), true).unwrap();
        write(&replace, &report, b"theirs").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
        assert_eq!(names(place.path()), ["late", "report"]);
    }

    /// kubectl cp has written where a tar said (CVE-2019-1002101): nobody chooses a place but the user.
    #[test]
    fn nothing_is_written_outside_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("in"), place.path().join("out"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "mine").unwrap();
        let folder = Folder::open(&inside, true).unwrap();
        let absolute = outside.join("new").display().to_string();
        for name in [
            "../out/new",
            "a/../../out/new",
            &absolute,
            "",
            ".",
            "..",
            "a/",
            "/",
            "a\0b",
        ] {
            let refused = write(&folder, &artifact(name, b"x"), b"x");
            assert!(matches!(refused, Err(Error::Name(_))), "{name:?}");
        }
        symlink(&outside, inside.join("link")).unwrap();
        symlink("../out", inside.join("relative")).unwrap();
        symlink("../out/file", inside.join("file")).unwrap();
        for name in ["link/new", "relative/new", "link/deeper/new"] {
            let refused = write(&folder, &artifact(name, b"x"), b"x");
            assert!(matches!(refused, Err(Error::Write(..))), "{name:?}");
        }
        // A link is replaced by the file, not written through.
        write(&folder, &artifact("file", b"x"), b"x").unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"mine");
        assert_eq!(names(&outside), ["file"]);
    }

    #[test]
    fn an_executable_is_one() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), false).unwrap();
        let tool = Artifact {
            executable: true,
            ..artifact("tool", b"#!/bin/sh")
        };
        write(&folder, &tool, b"#!/bin/sh").unwrap();
        let mode = std::fs::metadata(place.path().join("tool")).unwrap().mode();
        assert_eq!(mode & 0o100, 0o100);
    }
}
