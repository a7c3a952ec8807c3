//! The folder for what is kept in files, and the local API token in it.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use jiff::Timestamp;
use uuid::Uuid;

use crate::signing::{self, random_token, sha256};
use crate::store::{self, Store, api_tokens};

/// The folder, for its owner alone.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder(PathBuf);

/// What went wrong with a file in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder cannot be made.
    #[error("cannot make the data folder {0}")]
    Make(PathBuf, #[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// The token's hash cannot be looked up or stored.
    #[error("cannot store the local token's hash")]
    Store(#[from] store::Error),
    /// There is no randomness to make the token of.
    #[error("cannot make the local token")]
    Random(#[from] signing::Error),
}

/// The name of the local token's holder.
const LOCAL: &str = "local";

impl DataFolder {
    /// Takes the folder, or the user's own if none is given; makes it if it is missing.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, Error> {
        let folder = folder.map_or_else(default_folder, Path::to_path_buf);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| Error::Make(folder.clone(), error))?;
        Ok(Self(folder))
    }

    /// The path of a file or folder in it.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The file's text; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        match std::fs::read_to_string(self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Read(self.path(name), error)),
        }
    }

    /// Writes a file whole or not at all, with these permissions from its first byte.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Error> {
        let (path, unfinished) = (self.path(name), self.path(&format!(".{name}.unfinished")));
        let write = || -> io::Result<()> {
            // What a killed start left behind may have other permissions.
            let _absent = std::fs::remove_file(&unfinished);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            std::fs::File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| Error::Write(path.clone(), error))
    }

    /// Makes sure that the file `local-token` holds a token that is good: whoever can read the file may
    /// do everything. A file that is missing, or whose token is unknown or revoked, is made anew, which
    /// revokes the one before: the one of this folder, since dispatchers that share a database have a
    /// folder each, and a start must not lock out who uses another's.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn ensure_local_token(
        &self,
        store: &Store,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = "local-token";
        let mut session = store.write().await?;
        if let Some(token) = self.read(name)? {
            let holder = api_tokens::holder(&mut session, &sha256(token.trim().as_bytes())).await?;
            if holder.is_some() {
                return Ok(());
            }
        }
        let token = random_token("invoke_")?;
        let hash = sha256(token.as_bytes());
        api_tokens::replace(&mut session, self.id()?, LOCAL, &hash, now).await?;
        // File first: a token without its hash is made anew at the next start; a hash without its file
        // would be a credential that nobody has, and nobody revokes.
        self.write(name, &format!("{token}\n"), 0o600)?;
        session.commit().await?;
        tracing::info!("the local API token is in {}", self.path(name).display());
        Ok(())
    }

    /// Which folder this is, wherever it is moved to: made once, and no secret.
    fn id(&self) -> Result<Uuid, Error> {
        let name = "folder-id";
        if let Some(text) = self.read(name)? {
            let id = text.trim().parse();
            return id.map_err(|error| {
                Error::Read(
                    self.path(name),
                    io::Error::new(io::ErrorKind::InvalidData, error),
                )
            });
        }
        let id = Uuid::new_v4();
        self.write(name, &format!("{id}\n"), 0o600)?;
        Ok(id)
    }
}

fn default_folder() -> PathBuf {
    etcetera::choose_base_strategy().map_or_else(
        |_| PathBuf::from("./data"),
        |user| user.data_dir().join("invoke-dispatcher"),
    )
}
