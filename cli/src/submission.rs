//! Submits a job once, however often it must be sent.

use std::time::Duration;

use invoke_protocol::job::{Job, JobSpec};
use invoke_protocol::problem::ProblemCode;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{self, Client};
use crate::failure::chain;
use crate::patience::Patience;
use crate::printer::Printer;

/// Why there is no job to follow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(transparent)]
    NotAccepted(client::Error),
    /// There may be one: a request was sent and its answer never came.
    #[error("it is not known whether the job was accepted")]
    Unknown(#[source] client::Error),
}

impl Error {
    /// Whether the files of the job, which were there, are not any more.
    #[must_use]
    pub fn lacks_files(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.code() == Some(ProblemCode::FilesMissing),
            Self::Unknown(_) => false,
        }
    }
}

/// Submits a job, again and again with the same key while the dispatcher cannot be reached, so that
/// an answer that was lost on the way does not make a second job.
///
/// # Errors
/// See [`Error`].
pub async fn submit(
    client: &Client,
    spec: &JobSpec,
    key: Uuid,
    retry_for: Duration,
    printer: &Printer,
) -> Result<Job, Error> {
    let mut patience = Patience::new(retry_for);
    let (mut in_doubt, mut announced) = (false, false);
    loop {
        let error = match client.submit(spec, key).await {
            Ok(job) => return Ok(job),
            Err(error) => error,
        };
        if !error.is_passing() {
            // The dispatcher's own refusal of this key proves that no earlier attempt made the job.
            let refused = matches!(error, client::Error::Refused { .. });
            return Err(if in_doubt && !refused || error.may_have_arrived() {
                Error::Unknown(error)
            } else {
                Error::NotAccepted(error)
            });
        }
        in_doubt |= error.may_have_arrived();
        if !patience.is_left(Instant::now()) {
            return Err(if in_doubt {
                Error::Unknown(error)
            } else {
                Error::NotAccepted(error)
            });
        }
        if !std::mem::replace(&mut announced, true) {
            printer.say(&format!("{}; trying again", chain(&error)));
        }
        patience.pause(error.retry_after()).await;
    }
}
