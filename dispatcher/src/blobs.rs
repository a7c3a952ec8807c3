//! What is too large for the store: the parts of output logs, as immutable numbered blobs.
//!
//! A blob is durable when [`Blobs::put_output`] returns: object stores promise it, and the local folder
//! is told to sync file and folder.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use invoke_protocol::id::JobId;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use url::Url;

/// Where blobs are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

/// Why a blob was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made.
    #[error("cannot make the blob folder {0}")]
    Folder(String, #[source] std::io::Error),
    /// The URL names no store, or the store cannot be set up.
    #[error("cannot open the blob store {0}")]
    Open(String, #[source] object_store::Error),
    /// The URL is of a kind that we do not know, or that does not keep what it is given.
    #[error("--blob-url must begin with s3://, gs://, az:// or file:///, not {0}:")]
    Unknown(String),
    /// The store did not take it.
    #[error("cannot store blob {0}")]
    Put(String, #[source] object_store::Error),
    /// The store did not give it.
    #[error("cannot read blob {0}")]
    Get(String, #[source] object_store::Error),
}

impl Blobs {
    /// A folder on this machine, made for its owner alone if it is not there.
    ///
    /// # Errors
    /// [`Error::Folder`], [`Error::Open`].
    pub fn in_folder(folder: &FilePath) -> Result<Self, Error> {
        let name = folder.display().to_string();
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.map_err(|error| Error::Folder(name.clone(), error))?;
        // Without fsync a power failure takes back what we said was stored.
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| Error::Open(name, error))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
        })
    }

    /// A bucket: `s3://bucket/prefix`, `gs://…`, `az://…`; or a folder that several dispatchers share:
    /// `file:///…`. Credentials and endpoints come from the environment, by the names that each cloud's
    /// own tools use (`AWS_ACCESS_KEY_ID`, …).
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Folder`], [`Error::Unknown`].
    pub fn at(url: &Url) -> Result<Self, Error> {
        let unknown = || Error::Unknown(url.scheme().to_owned());
        match url.scheme() {
            "s3" | "gs" | "az" => Self::in_bucket(url),
            "file" => Self::in_folder(&url.to_file_path().map_err(|()| unknown())?),
            _ => Err(unknown()),
        }
    }

    fn in_bucket(url: &Url) -> Result<Self, Error> {
        let environment = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (store, prefix) = object_store::parse_url_opts(url, environment)
            .map_err(|error| Error::Open(url.to_string(), error))?;
        Ok(Self {
            store: Arc::new(PrefixStore::new(store, prefix)),
        })
    }

    /// Stores a part of a job's output log that begins at `from`, and answers how long the blob is.
    ///
    /// A blob that exists is kept as it is: its writer crashed before it could write the row, or is
    /// about to. It holds bytes of the same log from the same position, since it was uploaded for the
    /// one pod that holds the permit, and only its length may differ from ours, because a resumed
    /// upload cuts the log elsewhere. So what the caller must record is *its* length, not ours.
    ///
    /// That writer may have died between making the file visible and syncing it. Hence the same bytes
    /// are written over themselves: the second writer's sync is the one that counts, and a reader
    /// between the two sees no difference.
    ///
    /// # Errors
    /// [`Error::Put`], [`Error::Get`]; the caller may try again.
    pub async fn put_output(
        &self,
        job: JobId,
        from: u64,
        log: Bytes,
    ) -> Result<(String, u64), Error> {
        let key = output_key(job, from);
        let length = log.len() as u64;
        let created = self
            .store
            .put_opts(
                &Path::from(key.as_str()),
                log.into(),
                PutMode::Create.into(),
            )
            .await;
        match created {
            Ok(_) => Ok((key, length)),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let existing = self.get(&key).await?;
                let length = existing.len() as u64;
                let again = self
                    .store
                    .put(&Path::from(key.as_str()), existing.into())
                    .await;
                again.map_err(|error| Error::Put(key.clone(), error))?;
                Ok((key, length))
            }
            Err(error) => Err(Error::Put(key, error)),
        }
    }

    /// A whole blob. None is longer than one upload.
    ///
    /// # Errors
    /// [`Error::Get`].
    pub async fn get(&self, key: &str) -> Result<Bytes, Error> {
        let read = async { self.store.get(&Path::from(key)).await?.bytes().await };
        read.await
            .map_err(|error| Error::Get(key.to_owned(), error))
    }
}

/// Twenty digits hold any u64, so keys sort as positions do.
fn output_key(job: JobId, from: u64) -> String {
    format!("jobs/{job}/output/{from:020}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap()
    }

    /// The crash between blob and row: the next upload learns how much is there and loses nothing.
    #[tokio::test]
    async fn a_blob_that_exists_is_kept_with_its_own_length() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let (key, length) = blobs
            .put_output(job(), 7, Bytes::from_static(b"first"))
            .await
            .unwrap();
        assert_eq!(
            (key.as_str(), length),
            (
                "jobs/0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10/output/00000000000000000007",
                5
            )
        );
        let (_, length) = blobs
            .put_output(job(), 7, Bytes::from_static(b"first and more"))
            .await
            .unwrap();
        assert_eq!(length, 5);
        assert_eq!(blobs.get(&key).await.unwrap(), "first");
    }
}
