//! What waits, seen from one cluster: which place a job has in its queue, and whether there is a job
//! that could not be sent for long.

use invoke_protocol::id::ClusterId;
use jiff::Timestamp;

use super::column::Row;
use super::jobs::StoredJob;
use super::{Error, Session};

/// How many jobs of the same cluster were submitted earlier and have not started either. Ids are UUIDv7,
/// so they sort as jobs were submitted.
///
/// # Errors
/// [`Error`].
pub async fn earlier(session: &mut Session, job: &StoredJob) -> Result<u64, Error> {
    let (count,) = sql!(
        session,
        fetch_one as (i64,),
        "SELECT COUNT(*) FROM jobs WHERE cluster_id = $1 AND id < $2 \
         AND state IN ('queued', 'claimed', 'starting')",
        *job.cluster.as_uuid(),
        *job.id.as_uuid(),
    )?;
    Row::of_job(job.id).count("id", count)
}

/// Whether a job of the cluster has waited in the outbox since before `then`.
///
/// # Errors
/// [`Error::Database`].
pub async fn unsent_since(
    session: &mut Session,
    cluster: ClusterId,
    then: Timestamp,
) -> Result<bool, Error> {
    let unsent = sql!(
        session,
        fetch_optional as (i64,),
        "SELECT o.created_at FROM outbox o JOIN jobs j ON j.id = o.job_id \
         WHERE o.created_at < $2 AND j.cluster_id = $1 LIMIT 1",
        *cluster.as_uuid(),
        then.as_microsecond(),
    )?;
    Ok(unsent.is_some())
}
