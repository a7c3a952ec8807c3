//! Brings the attached files into the work folder, before the command starts.
//!
//! The archive is fetched whole into the state folder, resumed at the byte where a line broke, compared with
//! the digest that was stated, and only then unpacked. Whatever fails, the command does not start, and that
//! is final: the pod is marked already.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use invoke_protocol::digest::Sha256;
use invoke_protocol::files::Files;
use invoke_protocol::state::{Reason, ReasonCode};
use tokio::time::{Instant, timeout_at};

use crate::aside::aside;
use crate::config::Config;
use crate::door::{self, Answer, Door};
use crate::patience::Patience;
use crate::unpack::{self, Stated, unpack};
use crate::{archive, log};

/// Why the attached files are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the archive of the attached files cannot be fetched")]
    Call(#[from] door::Error),
    #[error("the archive of the attached files is not to be had any more")]
    Gone,
    #[error("the attached files were not there within {} seconds; {there} of {bytes} bytes have come", .within.as_secs())]
    Late {
        within: Duration,
        there: u64,
        bytes: u64,
    },
    #[error("the archive of the attached files cannot be kept in the pod's state folder")]
    Keep(#[from] io::Error),
    #[error("the archive of the attached files is longer than the {0} bytes that were stated")]
    TooLong(u64),
    #[error("the archive of the attached files has the digest {found}; {stated} was stated")]
    Digest { stated: Sha256, found: Sha256 },
    #[error("the attached files cannot be unpacked")]
    Unpack(#[from] unpack::Error),
}

impl Error {
    /// The same for the submitter.
    pub(crate) fn reason(&self) -> Reason {
        Reason::new(self.code(), log::sentence(self))
    }

    /// Whether it is the fault of the files, or of the way and the pod.
    const fn code(&self) -> ReasonCode {
        use unpack::Error::{Archive, Full, WorkFolder, Write};
        match self {
            Self::Call(_) | Self::Gone | Self::Late { .. } | Self::Keep(_) => {
                ReasonCode::FilesUnavailable
            }
            Self::Unpack(
                WorkFolder(_) | Full(..) | Write(..) | Archive(archive::Error::Read(_)),
            ) => ReasonCode::FilesUnavailable,
            Self::TooLong(_) | Self::Digest { .. } | Self::Unpack(_) => ReasonCode::FilesRefused,
        }
    }
}

/// Fetches, checks and unpacks. Given up in the middle, it leaves a work folder that is good for nothing.
///
/// # Errors
/// [`Error`]: the command must not start.
pub(crate) async fn bring(config: &Config, door: &Door, files: &Files) -> Result<(), Error> {
    let deadline = Instant::now() + config.files_within;
    let path = Disposable(config.state_dir.join("files.tar.gz"));
    let mut download = Download::begin(&path.0)?;
    let brought = async {
        download.fetch(door, files, deadline).await?;
        download.check(files)?;
        unpack_aside(&path.0, &config.work_dir, files).await
    };
    let brought = timeout_at(deadline, brought).await;
    brought.unwrap_or(Err(Error::Late {
        within: config.files_within,
        there: download.bytes,
        bytes: files.bytes,
    }))
}

/// A file that goes when nobody needs it any more, however that comes.
struct Disposable(PathBuf);

impl Drop for Disposable {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            log::chain("a file that nobody needs still takes up room", &error);
        }
    }
}

/// The archive, as far as it has come.
struct Download {
    file: File,
    bytes: u64,
    digest: Context,
}

impl Download {
    fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Self {
            file,
            bytes: 0,
            digest: Context::new(&SHA256),
        })
    }

    /// Asks until all of it is there. A failure that comes at the deadline is the reason for being late.
    async fn fetch(&mut self, door: &Door, files: &Files, deadline: Instant) -> Result<(), Error> {
        let mut patience = Patience::new();
        while self.bytes < files.bytes {
            let before = self.bytes;
            match self.fetch_more(door, files).await {
                Err(Error::Call(error)) if Instant::now() + Patience::LONGEST < deadline => {
                    if patience.is_fresh() {
                        log::chain("the attached files are not here yet, asking again", &error);
                    }
                }
                answered => answered?,
            }
            match self.bytes > before {
                true => patience.reset(),
                false => patience.wait().await,
            }
        }
        Ok(())
    }

    /// What one answer brings. It may end early.
    async fn fetch_more(&mut self, door: &Door, files: &Files) -> Result<(), Error> {
        let Answer::Is(mut body) = door.files(self.bytes).await? else {
            return Err(Error::Gone);
        };
        while let Some(piece) = body.next().await? {
            let bytes = self.bytes + piece.len() as u64;
            if bytes > files.bytes {
                return Err(Error::TooLong(files.bytes));
            }
            self.file.write_all(&piece)?;
            self.digest.update(&piece);
            self.bytes = bytes;
        }
        Ok(())
    }

    fn check(&self, files: &Files) -> Result<(), Error> {
        let digest = self.digest.clone().finish();
        if digest.as_ref() == files.sha256.as_bytes() {
            return Ok(());
        }
        // SHA-256 has 32 bytes.
        let found = digest.as_ref().try_into().unwrap_or_default();
        Err(Error::Digest {
            stated: files.sha256,
            found: Sha256::from_bytes(found),
        })
    }
}

async fn unpack_aside(archive: &Path, into: &Path, files: &Files) -> Result<(), Error> {
    let stated = Stated {
        content_bytes: files.content_bytes,
        entries: files.entries,
    };
    let into = into.to_owned();
    let archive = File::open(archive)?;
    aside(archive, move |archive| unpack(archive, &into, stated)).await??;
    Ok(())
}
