//! What is kept of a job that is over, until it has been kept long enough.

use invoke_protocol::id::JobId;
use jiff::Timestamp;
use uuid::Uuid;

use super::uploads::{self, Key};
use super::{Error, Session, Store, audit, garbage, job_output};
use crate::blobs::job_prefix;

/// Jobs that were over before `ended_before` and of which something may be kept, at most `limit`.
///
/// # Errors
/// [`Error::Database`].
pub async fn due(
    session: &mut Session,
    ended_before: Timestamp,
    limit: u32,
) -> Result<Vec<JobId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT id FROM jobs WHERE ended_at < $1 AND ended_at IS NOT NULL AND output_expired_at IS NULL \
         ORDER BY ended_at LIMIT $2",
        ended_before.as_microsecond(),
        i64::from(limit),
    )?;
    Ok(rows.into_iter().map(|(id,)| JobId::from_uuid(id)).collect())
}

impl Store {
    /// Gives up what is kept of a job. `false` if somebody else did.
    ///
    /// # Errors
    /// [`Error`]; then nothing was given up.
    pub async fn expire_output(&self, job: JobId, now: Timestamp) -> Result<bool, Error> {
        let mut session = self.write().await?;
        let marked = sql!(
            &mut session,
            execute,
            "UPDATE jobs SET output_expired_at = $2, version = version + 1 \
             WHERE id = $1 AND ended_at IS NOT NULL AND output_expired_at IS NULL",
            *job.as_uuid(),
            now.as_microsecond(),
        )?;
        if marked == 0 {
            return Ok(false);
        }
        job_output::remove(&mut session, job).await?;
        garbage::add(&mut session, &job_prefix(job), now).await?;
        for key in [Key::Stdin(job), Key::Artifacts(job)] {
            uploads::remove(&mut session, &key, now).await?;
        }
        let object = format!("job {job}");
        let entry = audit::Entry {
            who: "dispatcher",
            action: "job.expire_output",
            object: &object,
            outcome: "expired",
        };
        audit::add(&mut session, entry, now).await?;
        session.commit().await?;
        Ok(true)
    }
}
