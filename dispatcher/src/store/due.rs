//! What the sweeper looks for in table `jobs`: each query names what is due at a moment.

use std::time::Duration;

use invoke_protocol::id::{ClusterId, JobId};
use jiff::Timestamp;
use uuid::Uuid;

use super::column::Row;
use super::{Error, Session, Store, outbox};

/// For how much longer than a queued job a claimed one is taken to be in good hands: its runner holds the
/// message while the pod is being made, and a repetition would only take up another of its slots.
const CLAIMED_PATIENCE: Duration = Duration::from_secs(4 * 60);

/// How many jobs one round takes on. What is left is due in the next.
pub const ROUND: u32 = 200;

/// A job that was not started by its start deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// The job.
    pub job: JobId,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whether a runner can ever have spoken for that.
    pub cluster_enrolled: bool,
    /// When one did last.
    pub cluster_last_contact: Option<Timestamp>,
}

/// Jobs that were not started by their start deadline, at most `limit`.
///
/// # Errors
/// [`Error`].
pub async fn to_expire(
    session: &mut Session,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Overdue>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, i64, Uuid, Option<Vec<u8>>, Option<i64>),
        "SELECT j.id, j.submitted_at, c.id, c.public_key, c.last_contact \
         FROM jobs j JOIN clusters c ON c.id = j.cluster_id \
         WHERE j.state IN ('queued', 'claimed', 'starting') AND j.start_deadline < $1 \
         ORDER BY j.start_deadline LIMIT $2",
        now.as_microsecond(),
        i64::from(limit),
    )?;
    rows.into_iter().map(overdue).collect()
}

fn overdue(
    (id, submitted_at, cluster, key, last_contact): (Uuid, i64, Uuid, Option<Vec<u8>>, Option<i64>),
) -> Result<Overdue, Error> {
    let job = JobId::from_uuid(id);
    let place = Row::of_job(job);
    Ok(Overdue {
        job,
        submitted_at: place.time("submitted_at", submitted_at)?,
        cluster: ClusterId::from_uuid(cluster),
        cluster_enrolled: key.is_some(),
        cluster_last_contact: place.optional_time("cluster_id", last_contact)?,
    })
}

/// The next moment at which a job's start deadline is over.
///
/// # Errors
/// [`Error`].
pub async fn next_start_deadline(session: &mut Session) -> Result<Option<Timestamp>, Error> {
    let (next,) = sql!(
        session,
        fetch_one as (Option<i64>,),
        "SELECT MIN(start_deadline) FROM jobs WHERE state IN ('queued', 'claimed', 'starting')",
    )?;
    Row {
        table: "jobs",
        key: "all".to_owned(),
    }
    .optional_time("start_deadline", next)
}

/// Running jobs of clusters that have not spoken since `silent_since`.
///
/// # Errors
/// [`Error::Database`].
pub async fn gone_silent(
    session: &mut Session,
    silent_since: Timestamp,
) -> Result<Vec<JobId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT j.id FROM jobs j JOIN clusters c ON c.id = j.cluster_id \
         WHERE j.state = 'running' AND (c.last_contact IS NULL OR c.last_contact < $1) LIMIT $2",
        silent_since.as_microsecond(),
        i64::from(ROUND),
    )?;
    Ok(ids(rows))
}

/// The cluster's jobs that were marked silent.
///
/// # Errors
/// [`Error::Database`].
pub async fn silent(session: &mut Session, cluster: ClusterId) -> Result<Vec<JobId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT id FROM jobs WHERE cluster_id = $1 AND state = 'contact_lost'",
        *cluster.as_uuid(),
    )?;
    Ok(ids(rows))
}

/// Started jobs of which nothing was heard until long after their run deadline.
///
/// # Errors
/// [`Error::Database`].
pub async fn to_give_up(session: &mut Session, now: Timestamp) -> Result<Vec<JobId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT id FROM jobs WHERE state IN ('running', 'contact_lost', 'cancelling') AND give_up_at < $1 \
         ORDER BY give_up_at LIMIT $2",
        now.as_microsecond(),
        i64::from(ROUND),
    )?;
    Ok(ids(rows))
}

impl Store {
    /// Puts jobs back into the outbox that the broker confirmed a while ago and that have not started,
    /// though their cluster has spoken since `spoken_since`: the message may be gone, or gone with the
    /// runner that took it. While a cluster is away there is nobody to take it, and a repetition would
    /// only make its queue longer. How many it were.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn requeue_forgotten(
        &self,
        spoken_since: Timestamp,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let mut session = self.write().await?;
        let rows = sql!(
            &mut session,
            fetch_all as (Uuid,),
            "SELECT j.id FROM jobs j JOIN clusters c ON c.id = j.cluster_id \
             WHERE (j.state = 'queued' AND j.republish_at <= $1 \
              OR j.state IN ('claimed', 'starting') AND j.republish_at <= $2) AND c.last_contact >= $3 \
             AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.job_id = j.id) LIMIT $4",
            now.as_microsecond(),
            before(now, CLAIMED_PATIENCE).as_microsecond(),
            spoken_since.as_microsecond(),
            i64::from(ROUND),
        )?;
        let forgotten = ids(rows);
        for job in &forgotten {
            outbox::add(&mut session, *job, now).await?;
        }
        session.commit().await?;
        Ok(forgotten.len())
    }

    /// Makes every confirmed job that nobody has taken due for publication: the broker was away, and
    /// may have come back without its memory.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn doubt_confirms(&self, now: Timestamp) -> Result<(), Error> {
        let mut session = self.write().await?;
        sql!(
            &mut session,
            execute,
            "UPDATE jobs SET republish_at = $1 WHERE state = 'queued' AND republish_at > $1",
            now.as_microsecond(),
        )?;
        session.commit().await
    }
}

/// As a span of time before `now`.
#[must_use]
pub fn before(now: Timestamp, span: Duration) -> Timestamp {
    now.saturating_sub(span).unwrap_or(Timestamp::MIN)
}

fn ids(rows: Vec<(Uuid,)>) -> Vec<JobId> {
    rows.into_iter().map(|(id,)| JobId::from_uuid(id)).collect()
}
