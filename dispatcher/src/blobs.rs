//! What is too large for the store: the parts of output logs and of uploads, as immutable numbered blobs.
//!
//! A blob is durable when [`Blobs::put`] returns: object stores promise it, and the local folder
//! is told to sync file and folder.
//!
//! **A full disk passes, a broken one does not.** What finds no room may be sent again when there is. But
//! after a disk has once failed to write or sync, nobody knows what it has of what it was given before: the
//! kernel may drop the pages and call the next sync a success. So nothing is written after that until a
//! person has looked at the disk and started the program again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use invoke_protocol::id::JobId;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Certificate, ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, RetryConfig,
};
use url::Url;
use uuid::Uuid;

use crate::problem::chain;

/// Environment variables, by name.
pub type Environment = BTreeMap<String, String>;

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
    /// The file with the bucket's authority cannot be read.
    #[error("cannot read the certificates in {0}, which AWS_CA_BUNDLE names")]
    Ca(PathBuf, #[source] std::io::Error),
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

/// The library's builders are alike and share no trait. What does not begin with a name of the cloud's own is not
/// meant for it, though the library would take it: `TOKEN` or `ENDPOINT` may mean anything in an environment.
macro_rules! in_bucket {
    ($builder:ty, $names:expr, $url:expr, $client:expr, $environment:expr) => {{
        let plain = <$builder>::new()
            .with_url($url.as_str())
            .with_client_options($client)
            .with_retry(patience());
        let named = $environment
            .iter()
            .filter(|(name, _)| $names.iter().any(|own| name.starts_with(own)));
        let configured = named.fold(plain, |builder, (name, value)| {
            match name.to_ascii_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            }
        });
        configured.build().map(|store| Arc::new(store) as _)
    }};
}

impl Error {
    /// Whether the store is there and says no: to the credential, or for want of the bucket.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        match self {
            Self::Put(_, error) | Self::Get(_, error) | Self::Delete(_, error) => matches!(
                error,
                NotFound { .. } | PermissionDenied { .. } | Unauthenticated { .. }
            ),
            _ => false,
        }
    }
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
    /// [`Error::Open`], [`Error::Folder`], [`Error::Unknown`], [`Error::Ca`].
    pub fn at(url: &Url, environment: &Environment) -> Result<Self, Error> {
        let unknown = || Error::Unknown(url.scheme().to_owned());
        let client = ClientOptions::default();
        let store: object_store::Result<Arc<dyn ObjectStore>> = match url.scheme() {
            "file" => return Self::in_folder(&url.to_file_path().map_err(|()| unknown())?),
            "s3" => {
                let client = trusting(environment.get("AWS_CA_BUNDLE"), client)?;
                in_bucket!(AmazonS3Builder, ["AWS_"], url, client, environment)
            }
            "gs" => in_bucket!(
                GoogleCloudStorageBuilder,
                ["GOOGLE_"],
                url,
                client,
                environment
            ),
            "az" => {
                // The second is set by Azure's own services, for those who run in them.
                let names = ["AZURE_", "IDENTITY_ENDPOINT"];
                in_bucket!(MicrosoftAzureBuilder, names, url, client, environment)
            }
            _ => return Err(unknown()),
        };
        let below_prefix = || Ok(PrefixStore::new(store?, Path::from_url_path(url.path())?));
        let store = below_prefix().map_err(|error| Error::Open(url.to_string(), error))?;
        Ok(Self::over(Arc::new(store)))
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

    /// Tries everything that is ever done to the store, with a blob of its own, so that a wrong credential shows
    /// before there is output.
    ///
    /// # Errors
    /// As what is tried.
    pub async fn probe(&self) -> Result<(), Error> {
        let folder = format!("probes/{}/", Uuid::now_v7());
        let key = format!("{folder}probe");
        self.put(&key, Bytes::from_static(b"probe")).await?;
        self.get(&key).await?;
        self.delete_all(&folder).await
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
        let existing = match created {
            Ok(_) => return Ok(length),
            Err(object_store::Error::AlreadyExists { .. }) => self.read(key).await?,
            // A server that refuses before it has read all of it closes the connection, and its answer is lost
            // while we still write; so may be the answer of one that has stored it. Reading tells: it is there,
            // or the key is wrong, and so on.
            Err(error) if Trouble::of(&error) == Trouble::Passing => match self.read(key).await {
                Err(object_store::Error::NotFound { .. }) => return Err(error),
                read => read?,
            },
            Err(error) => return Err(error),
        };
        let length = existing.len() as u64;
        self.store.put(key, existing.into()).await?;
        Ok(length)
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
        let read = self.read(&Path::from(key)).await;
        read.map_err(|error| Error::Get(key.to_owned(), error))
    }

    async fn read(&self, key: &Path) -> object_store::Result<Bytes> {
        self.store.get(key).await?.bytes().await
    }

    /// Removes a blob. One that is not there is removed already.
    ///
    /// # Errors
    /// [`Error::Delete`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::Delete(key.to_owned(), error)),
        }
    }
}

/// A client that also trusts the authorities in this file.
fn trusting(file: Option<&String>, client: ClientOptions) -> Result<ClientOptions, Error> {
    let Some(file) = file else {
        return Ok(client);
    };
    let unreadable = |error| Error::Ca(PathBuf::from(file), error);
    let pem = std::fs::read(file).map_err(unreadable)?;
    let found = Certificate::from_pem_bundle(&pem).map_err(io::Error::other);
    let certificates = found.map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(unreadable(io::Error::other("there is none in it")));
    }
    Ok(certificates
        .into_iter()
        .fold(client, ClientOptions::with_root_certificate))
}

/// How long a bucket is tried again before the caller is told: the runner sends again by itself, and a person waits
/// for an answer. The library's own three minutes would hold every upload in memory for as long.
fn patience() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
        ..RetryConfig::default()
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
