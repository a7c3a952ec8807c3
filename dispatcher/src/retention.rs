//! Gives up what has been kept long enough, and deletes what was given up. It takes no input, does the same
//! each time, and may run in several dispatchers at once.
//!
//! ```text
//!   over for longer than the retention ──▶ marked as expired, rows gone, garbage noted   (one transaction)
//!   archive of no job that is kept     ──▶ row gone, garbage noted                       (one transaction)
//!   fan-out that stopped long ago      ──▶ secrets erased, archive let go
//!   garbage ──▶ blobs deleted ──▶ note gone
//! ```
//!
//! In this order a reader never finds a row whose blob is gone, and a crash leaves nothing behind for ever.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::clock;
use crate::problem::chain;
use crate::store::due::before;
use crate::store::{Store, expiry, fanouts, garbage};

/// How often to look. What is kept for days may be kept for a minute more.
const PAUSE: Duration = Duration::from_secs(60);

/// How much one round takes on. What is left is due in the next, at once.
const ROUND: u32 = 100;

/// For how long an archive is kept that no job of which anything is kept has used: the submission that it
/// was uploaded for may be on its way, or be repeated.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Blobs(#[from] crate::blobs::Error),
}

/// What keeps, and for how long.
pub(crate) struct Retention {
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    /// From the end of a job on.
    pub(crate) keep: Duration,
}

impl Retention {
    /// Gives up and deletes until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let is_all_done = self.round(clock::now()).await.unwrap_or_else(|error| {
                tracing::warn!(
                    "what is kept long enough was not removed: {}",
                    chain(&error)
                );
                true
            });
            let pause = if is_all_done { PAUSE } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether nothing is left to do.
    async fn round(&self, now: Timestamp) -> Result<bool, Error> {
        let mut session = self.store.read().await?;
        let due = expiry::due(&mut session, before(now, self.keep), ROUND).await?;
        drop(session);
        for job in &due {
            if self.store.expire_output(*job, now).await? {
                tracing::info!(job.id = %job, "what was kept of job {job} has expired");
            }
        }
        let idle_since = before(now, IDLE.min(self.keep));
        let idle = self
            .store
            .give_up_idle_files(idle_since, ROUND, now)
            .await?;
        let mut session = self.store.write().await?;
        fanouts::forget_overdue(&mut session, now).await?;
        session.commit().await?;
        let mut session = self.store.read().await?;
        let garbage = garbage::list(&mut session, ROUND).await?;
        drop(session);
        for prefix in &garbage {
            self.blobs.delete_all(prefix).await?;
            let mut session = self.store.write().await?;
            garbage::remove(&mut session, prefix).await?;
            session.commit().await?;
        }
        let most = due.len().max(garbage.len()) as u64;
        Ok(most.max(idle) < u64::from(ROUND))
    }
}
