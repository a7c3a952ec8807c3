//! Brings the files of a job to the dispatcher, before the job is submitted.
//!
//! ```text
//!   limits ▸ plan ▸ was this packed before? ── yes ▸ is all of it there? ── yes ▸ done, nothing was read
//!                        │ no                             │ no
//!                        └─────────────▸ pack ◂───────────┘
//!                                         ▼
//!                      ┌─▸ how much is there? ▸ the next piece ▸ … ▸ all of it, with its digest ▸ done
//!                      └──────── cut, or restarted ◂──┘
//! ```
//!
//! What the dispatcher says that it has is the only state. An archive is packed into the same bytes each
//! time, so an upload that another run of this program began is continued, too.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invoke_protocol::api::{FilesUploadQuery, UploadedFiles};
use invoke_protocol::files::{Files, MAX_FILES_CHUNK_BYTES};
use invoke_protocol::problem::ProblemCode;
use jiff::Timestamp;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use crate::client::{self, Client};
use crate::failure::chain;
use crate::files::{self, Cache, Limits, Plan};
use crate::patience::Patience;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::settings::Settings;

/// How long something may take before a person is shown how far it is.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// How often that is renewed.
const REDRAWN_EVERY: Duration = Duration::from_millis(200);

/// The files of one job, on their way.
pub struct Upload<'a> {
    dispatcher: Dispatcher<'a>,
    cache: Cache,
    plan: Arc<Plan>,
    archive: Option<Archive>,
}

/// Why files are not there. Nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be sent.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The dispatcher does not take them, or cannot be reached.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// What arrived was something else.
    #[error("the files were damaged on their way to the dispatcher")]
    Damaged(#[source] client::Error),
    /// Our own temporary file.
    #[error("the archive cannot be read again from {}", std::env::temp_dir().display())]
    Archive(#[source] io::Error),
    /// A defect of ours.
    #[error("the files were not read to their end")]
    Task(#[from] JoinError),
}

/// A packed archive.
#[derive(Clone)]
struct Archive {
    file: Arc<File>,
    files: Files,
}

impl<'a> Upload<'a> {
    /// Finds out what the values of `-f` mean, seen from the current folder, and whether the dispatcher
    /// takes that much. Nothing is read yet. `now` must not be later than the call.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn plan(
        values: Vec<OsString>,
        settings: &Settings,
        printer: &'a Printer,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let client = Client::for_uploads(settings)?;
        let mut dispatcher = Dispatcher::new(client, settings.retry_for, printer);
        let limits = dispatcher.answer(Client::limits).await?;
        let limits = Limits {
            content_bytes: limits.files_bytes,
            entries: limits.files_entries,
        };
        let plan = spawn_blocking(move || Plan::make(&values, Path::new("."), &limits, now));
        let plan = plan.await??;
        for notice in plan.notices() {
            printer.say(notice);
        }
        Ok(Self {
            dispatcher,
            cache: Cache::of_user(),
            plan: Arc::new(plan),
            archive: None,
        })
    }

    /// Sees to it that all of them are at the dispatcher, and returns what a job calls them. What is there
    /// already is not sent again, and what is known to be is not even read.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn complete(&mut self) -> Result<Files, Error> {
        let archive = match &self.archive {
            Some(archive) => archive.clone(),
            None => {
                if let Some(files) = self.packed_before()
                    && self
                        .uploaded(files)
                        .await?
                        .is_some_and(|there| there.complete)
                {
                    return Ok(files);
                }
                let archive = self.pack().await?;
                self.archive.insert(archive).clone()
            }
        };
        self.send(&archive).await?;
        Ok(archive.files)
    }

    fn packed_before(&self) -> Option<Files> {
        let known = self.cache.find(&self.plan.fingerprint())?;
        Some(Files {
            sha256: known.sha256,
            bytes: known.bytes,
            content_bytes: self.plan.content_bytes(),
            entries: self.plan.entries(),
        })
    }

    async fn uploaded(&mut self, files: Files) -> Result<Option<UploadedFiles>, client::Error> {
        let uploaded = async |client: &Client| client.uploaded(files.sha256).await;
        self.dispatcher.answer(uploaded).await
    }

    async fn pack(&self) -> Result<Archive, Error> {
        let (plan, read) = (Arc::clone(&self.plan), Arc::new(AtomicU64::new(0)));
        let progress = Progress::new("packing", plan.content_bytes(), 0, Instant::now());
        let told = Arc::clone(&read);
        let packed =
            spawn_blocking(move || plan.pack(|bytes| told.store(bytes, Ordering::Relaxed)));
        let line = |now| progress.line(read.load(Ordering::Relaxed), now);
        let packed = showing(self.dispatcher.printer, line, packed).await??;
        self.cache.remember(&self.plan, &packed);
        Ok(Archive {
            files: Files {
                sha256: packed.sha256,
                bytes: packed.bytes,
                content_bytes: packed.content_bytes,
                entries: packed.entries,
            },
            file: Arc::new(packed.file),
        })
    }

    async fn send(&mut self, archive: &Archive) -> Result<(), Error> {
        let stored = match self.uploaded(archive.files).await? {
            Some(there) if there.complete => return Ok(()),
            there => there.map_or(0, |there| there.stored_bytes),
        };
        let total = archive.files.bytes;
        let progress = Progress::new("uploading", total, stored, Instant::now());
        let stored = Cell::new(stored);
        let line = |now| progress.line(stored.get(), now);
        let printer = self.dispatcher.printer;
        showing(printer, line, self.send_rest(archive, &stored)).await
    }

    async fn send_rest(&mut self, archive: &Archive, stored: &Cell<u64>) -> Result<(), Error> {
        let mut pace = Pace::default();
        loop {
            let (from, begun) = (stored.get(), Instant::now());
            let error = match self.send_piece(archive, from, pace.bytes).await {
                Ok(there) if there.complete => return Ok(()),
                // Also where all of it is there: then the digest is wrong, and that is a refusal.
                Ok(there) if there.stored_bytes <= from => {
                    let why = "it takes a piece of the files, and has no more than before";
                    return Err(self.dispatcher.client.nonsense(why).into());
                }
                Ok(there) => {
                    self.dispatcher.patience.renew(true);
                    pace.took(begun.elapsed());
                    stored.set(there.stored_bytes);
                    continue;
                }
                Err(Error::Client(error)) => error,
                Err(error) => return Err(error),
            };
            pace.failed();
            match error.code() {
                Some(ProblemCode::DigestMismatch) => return Err(Error::Damaged(error)),
                // Somebody removed what was there.
                Some(ProblemCode::UploadGap) => self.dispatcher.pause(error).await?,
                _ => self.dispatcher.outlast(error).await?,
            }
            // An answer that was lost may have been a good one.
            let there = self.uploaded(archive.files).await?;
            stored.set(there.map_or(0, |there| there.stored_bytes));
        }
    }

    async fn send_piece(
        &self,
        archive: &Archive,
        from: u64,
        most: usize,
    ) -> Result<UploadedFiles, Error> {
        let Files { sha256, bytes, .. } = archive.files;
        let place = FilesUploadQuery { from, bytes };
        let piece = archive.read(from, most).await?;
        Ok(self.dispatcher.client.upload(sha256, &place, piece).await?)
    }
}

impl Archive {
    /// A piece of it; less where it ends.
    async fn read(&self, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let file = Arc::clone(&self.file);
        let rest = self.files.bytes.saturating_sub(from);
        let length = usize::try_from(rest).map_or(most, |rest| rest.min(most));
        let read = spawn_blocking(move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, from).map(|()| piece)
        });
        read.await?.map_err(Error::Archive)
    }
}

/// How long a piece should be. Behind much that is on its way over a slow line, the question whether the
/// other side is still there waits too long for its answer, and what is cut is sent again; but where the way
/// is fast, each answer costs time.
struct Pace {
    bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: 256 * 1024 }
    }
}

impl Pace {
    const LEAST_BYTES: usize = 64 * 1024;
    const QUICK: Duration = Duration::from_millis(500);
    const SLOW: Duration = Duration::from_secs(2);

    fn took(&mut self, time: Duration) {
        if time < Self::QUICK {
            self.bytes = (self.bytes * 2).min(MAX_FILES_CHUNK_BYTES);
        } else if time > Self::SLOW {
            self.failed();
        }
    }

    fn failed(&mut self) {
        self.bytes = (self.bytes / 2).max(Self::LEAST_BYTES);
    }
}

/// Calls that are repeated through an outage. All of them may be: they say what is, or change nothing the
/// second time.
struct Dispatcher<'a> {
    client: Client,
    printer: &'a Printer,
    patience: Patience,
    /// Whether it has answered before: then its name and its certificate were right.
    reached: bool,
    announced: bool,
}

impl<'a> Dispatcher<'a> {
    fn new(client: Client, retry_for: Duration, printer: &'a Printer) -> Self {
        Self {
            client,
            printer,
            patience: Patience::new(retry_for),
            reached: false,
            announced: false,
        }
    }

    async fn answer<T>(
        &mut self,
        call: impl AsyncFn(&Client) -> Result<T, client::Error>,
    ) -> Result<T, client::Error> {
        loop {
            match call(&self.client).await {
                Ok(answer) => {
                    self.reached = true;
                    return Ok(answer);
                }
                Err(error) => self.outlast(error).await?,
            }
        }
    }

    /// Waits before another attempt, if one may succeed where this one failed.
    async fn outlast(&mut self, error: client::Error) -> Result<(), client::Error> {
        match error.is_passing() || self.reached && error.is_unreachable() {
            true => self.pause(error).await,
            false => Err(error),
        }
    }

    async fn pause(&mut self, error: client::Error) -> Result<(), client::Error> {
        if !self.patience.is_left(Instant::now()) {
            return Err(error);
        }
        if !std::mem::replace(&mut self.announced, true) {
            self.printer
                .say(&format!("{}; trying again", chain(&error)));
        }
        self.patience.pause(error.retry_after()).await;
        Ok(())
    }
}

/// Does something, and shows a person meanwhile how far it is.
async fn showing<T>(
    printer: &Printer,
    line: impl Fn(Instant) -> String,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let mut due = Instant::now() + QUIET_FOR;
    loop {
        tokio::select! {
            done = &mut work => {
                printer.clear_status();
                return done;
            }
            () = tokio::time::sleep_until(due) => {
                let now = Instant::now();
                printer.status(&format!("invoke: {}", line(now)));
                due = now + REDRAWN_EVERY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_where_the_way_is_fast_and_shrink_where_it_is_slow() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.took(Duration::from_millis(10));
        }
        assert_eq!(pace.bytes, MAX_FILES_CHUNK_BYTES);
        pace.took(Duration::from_secs(1));
        assert_eq!(pace.bytes, MAX_FILES_CHUNK_BYTES);
        for _ in 0..10 {
            pace.took(Duration::from_secs(3));
        }
        assert_eq!(pace.bytes, Pace::LEAST_BYTES);
    }
}
