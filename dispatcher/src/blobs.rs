//! What is too large for the store: the parts of output logs and of uploads, as immutable numbered blobs.
//!
//! A blob is durable when [`Blobs::put`] returns: object stores promise it, and the local folder
//! is told to sync file and folder.
//!
//! **A full disk passes, a broken one does not.** What finds no room may be sent again when there is. But
//! after a disk has once failed to write or sync, nobody knows what it has of what it was given before: the
//! kernel may drop the pages and call the next sync a success. So nothing is written after that until a
//! person has looked at the disk and started the program again.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use invoke_protocol::id::JobId;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use url::Url;

use crate::problem::chain;

/// Where blobs are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    condition: Arc<Condition>,
}

/// How the last writes went.
#[derive(Debug, Default)]
struct Condition {
    /// The last one found no room.
    full: AtomicBool,
    /// One failed as none may. It stays so until the program ends.
    broken: AtomicBool,
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
    /// There was no room for it.
    #[error("there is no room for blob {0}")]
    Full(String, #[source] object_store::Error),
    /// An earlier write failed in a way that puts every later one in doubt.
    #[error("the disk of the blob store failed earlier, so nothing is written to it any more")]
    Broken,
    /// The store did not give it.
    #[error("cannot read blob {0}")]
    Get(String, #[source] object_store::Error),
    /// The store did not remove it, or what begins so.
    #[error("cannot remove blob {0}")]
    Delete(String, #[source] object_store::Error),
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
            .with_fsync(true)
            // A folder goes with the last blob in it.
            .with_automatic_cleanup(true);
        Ok(Self::over(Arc::new(store)))
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
        Ok(Self::over(Arc::new(PrefixStore::new(store, prefix))))
    }

    fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            condition: Arc::default(),
        }
    }

    /// Whether blobs are written: not any more once the disk has failed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.condition.broken.load(Ordering::SeqCst)
    }

    /// Stores a part of a job's output log that begins at `from`, and answers its key and how long the blob is.
    ///
    /// # Errors
    /// As [`Blobs::put`].
    pub async fn put_output(
        &self,
        job: JobId,
        from: u64,
        log: Bytes,
    ) -> Result<(String, u64), Error> {
        let key = output_key(job, from);
        let length = self.put(&key, log).await?;
        Ok((key, length))
    }

    /// Stores a blob, and answers how long it is.
    ///
    /// A blob that exists is kept as it is: its writer crashed before it could write the row, or is
    /// about to. It holds bytes of the same whole from the same position, since a key says whose and from
    /// where, and only its length may differ from ours, because a resumed upload cuts the whole elsewhere.
    /// So what the caller must record is *its* length, not ours.
    ///
    /// That writer may have died, or failed, between making the file visible and syncing it. Hence the same
    /// bytes are written again, to a new file that takes the place of the first: the second writer's sync is
    /// the one that counts, and a reader between the two sees no difference.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Put`]: the caller may try again. [`Error::Broken`]: not before a restart.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<u64, Error> {
        if !self.is_sound() {
            return Err(Error::Broken);
        }
        let length = bytes.len() as u64;
        match self.create_or_rewrite(&Path::from(key), bytes).await {
            Ok(length) => {
                self.condition.has_room();
                Ok(length)
            }
            Err(error) => match Trouble::of(&error) {
                Trouble::Full if invoke_hooks::sabotaged("no-storage-full") => Ok(length),
                Trouble::Broken if invoke_hooks::sabotaged("no-blob-fsync-check") => Ok(length),
                trouble => {
                    self.condition.take_down(trouble, &error);
                    Err(trouble.of_blob(key.to_owned(), error))
                }
            },
        }
    }

    /// How long the blob is that is durable under this key now.
    async fn create_or_rewrite(&self, key: &Path, bytes: Bytes) -> object_store::Result<u64> {
        let length = bytes.len() as u64;
        let created = self
            .store
            .put_opts(key, bytes.into(), PutMode::Create.into())
            .await;
        match created {
            Ok(_) => Ok(length),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let existing = self.store.get(key).await?.bytes().await?;
                let length = existing.len() as u64;
                self.store.put(key, existing.into()).await?;
                Ok(length)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes all blobs whose keys begin with a prefix that ends with `/`. Those that are gone already are
    /// no error.
    ///
    /// # Errors
    /// [`Error::Delete`]; some may be left.
    pub async fn delete_all(&self, prefix: &str) -> Result<(), Error> {
        let keys = self
            .store
            .list(Some(&Path::from(prefix)))
            .map_ok(|found| found.location)
            .boxed();
        // Whoever deletes the same at the same time is no hindrance.
        let is_gone = |deleted: &object_store::Result<Path>| {
            matches!(deleted, Err(object_store::Error::NotFound { .. }))
        };
        self.store
            .delete_stream(keys)
            .filter(|deleted| std::future::ready(!is_gone(deleted)))
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .map_err(|error| Error::Delete(prefix.to_owned(), error))
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

    /// Removes a blob. One that is not there is removed already.
    ///
    /// # Errors
    /// [`Error::Delete`]: the caller may try again.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::Delete(key.to_owned(), error)),
        }
    }
}

/// What the keys of all blobs of a job begin with.
#[must_use]
pub fn job_prefix(job: JobId) -> String {
    format!("jobs/{job}/")
}

/// Twenty digits hold any u64, so keys sort as positions do.
fn output_key(job: JobId, from: u64) -> String {
    format!("{}output/{from:020}", job_prefix(job))
}

/// What a write that failed says of the writes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    Passing,
    /// They will fail too, until somebody makes room.
    Full,
    /// They cannot be trusted.
    Broken,
}

/// `EIO` (errno.h): the disk failed. The standard library has no name for it.
const EIO: i32 = 5;

impl Trouble {
    fn of(error: &object_store::Error) -> Self {
        let first: &(dyn std::error::Error + 'static) = error;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        let Some(cause) = causes.find_map(|cause| cause.downcast_ref::<io::Error>()) else {
            return Self::Passing;
        };
        match cause.kind() {
            // Also when the sync found out: what was written is thrown away with its file, and the next
            // attempt is a new file, so no page that was dropped is ever taken for written.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            // What the kernel makes of a file system in which it found damage.
            io::ErrorKind::ReadOnlyFilesystem => Self::Broken,
            _ if cause.raw_os_error() == Some(EIO) => Self::Broken,
            _ => Self::Passing,
        }
    }

    fn of_blob(self, key: String, error: object_store::Error) -> Error {
        match self {
            Self::Full => Error::Full(key, error),
            Self::Passing | Self::Broken => Error::Put(key, error),
        }
    }
}

impl Condition {
    /// Takes down a failure, and raises the alarm the first time.
    fn take_down(&self, trouble: Trouble, error: &object_store::Error) {
        match trouble {
            Trouble::Passing => {}
            Trouble::Full => {
                if !self.full.swap(true, Ordering::SeqCst) {
                    tracing::error!(
                        alarm = true,
                        "there is no room for output and files: {}; make room; until then those who have them keep them",
                        chain(error)
                    );
                }
            }
            Trouble::Broken => {
                if !self.broken.swap(true, Ordering::SeqCst) {
                    tracing::error!(
                        alarm = true,
                        "the disk that output and files are kept on has failed: {}; nothing is taken any more: check the \
                         disk, then restart the dispatcher; until then those who have them keep them",
                        chain(error)
                    );
                }
            }
        }
    }

    fn has_room(&self) {
        // Read first: the usual case changes nothing that other processors hold.
        if self.full.load(Ordering::SeqCst) && self.full.swap(false, Ordering::SeqCst) {
            tracing::info!("there is room for output and files again");
        }
    }
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

    /// Retention may be cut off in the middle of its work, and begins again.
    #[tokio::test]
    async fn what_is_deleted_is_gone_with_its_folder_and_may_be_deleted_again() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        for key in ["one/two/three", "one/four"] {
            blobs.put(key, Bytes::from_static(b"x")).await.unwrap();
        }
        for _ in 0..2 {
            blobs.delete("one/two/three").await.unwrap();
        }
        assert!(matches!(
            blobs.get("one/two/three").await,
            Err(Error::Get(..))
        ));
        assert!(!folder.path().join("one/two").exists());
        assert_eq!(blobs.get("one/four").await.unwrap(), "x");
    }

    /// Everything of one job, and nothing of another.
    #[tokio::test]
    async fn what_begins_alike_is_deleted_together() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let other = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b11".parse().unwrap();
        let mut keys = Vec::new();
        for (job, from) in [(job(), 0), (job(), 5), (other, 0)] {
            let stored = blobs.put_output(job, from, Bytes::from_static(b"first"));
            keys.push(stored.await.unwrap().0);
        }
        blobs.delete_all(&job_prefix(job())).await.unwrap();
        assert!(blobs.get(&keys[0]).await.is_err());
        assert!(blobs.get(&keys[1]).await.is_err());
        assert_eq!(blobs.get(&keys[2]).await.unwrap(), "first");
        blobs.delete_all(&job_prefix(job())).await.unwrap();
    }

    /// What the library wraps around the kernel's word does not hide it.
    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let cases = [
            (28, Trouble::Full),
            (122, Trouble::Full),
            (EIO, Trouble::Broken),
            (30, Trouble::Broken),
            (13, Trouble::Passing),
            (110, Trouble::Passing),
        ];
        for (errno, trouble) in cases {
            let error = object_store::Error::Generic {
                store: "test",
                source: Box::new(Wrapped(io::Error::from_raw_os_error(errno))),
            };
            assert_eq!(Trouble::of(&error), trouble, "{error}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("unable to sync the file")]
    struct Wrapped(#[source] io::Error);
}
