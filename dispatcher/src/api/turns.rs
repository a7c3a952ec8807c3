//! Submissions take turns, so that many of them cannot keep everybody else from the store.
//!
//! Who polls, who cancels, and above all the runners, whose jobs are accepted already, share the store
//! with those who submit. A burst of submissions waits here, for a moment, and not in the queue for the
//! store's one writer; what the store does not get to in that moment is refused and may be sent again
//! with the same key. It is better to be told at once than to time out.

use std::time::Duration;

use invoke_protocol::problem::ProblemCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::problem::Refusal;

/// How many submissions are worked on at once: enough to keep a writer busy that syncs to disk, and less
/// than half of the connections to PostgreSQL.
const AT_ONCE: usize = 8;

/// For how long a submission waits for its turn. Its caller waits too, and holds a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The turns there are.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Turns {
    /// Waits for a turn, which lasts until what is returned is dropped.
    ///
    /// # Errors
    /// A [`Refusal`] if there is none within a second.
    pub(super) async fn take(&self) -> Result<Option<SemaphorePermit<'_>>, Refusal> {
        if invoke_hooks::sabotaged("no-overload-limit") {
            return Ok(None);
        }
        match tokio::time::timeout(PATIENCE, self.0.acquire()).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(
                ProblemCode::TooManyRequests,
                "more jobs are being submitted than can be stored at the moment; nothing was stored, and the same \
                 request with the same key may be sent again in a moment",
            )),
        }
    }
}
