//! Table `outbox`: jobs that the broker has not confirmed.
//!
//! An entry leaves the table when the broker has taken responsibility for the message, and not before;
//! a relay that dies in between leaves a lease that runs out, and the message goes out twice, which
//! the runner's claim makes harmless.

use std::time::Duration;

use invoke_protocol::id::JobId;
use invoke_protocol::job::{Step, StepName};
use jiff::Timestamp;
use uuid::Uuid;

use super::column::Row;
use super::{Error, Session, Store, one_row, story};

/// For how long a relay keeps what it took. Longer than the slowest confirm, so that two relays do not
/// send the same for no reason.
const LEASE: Duration = Duration::from_secs(30);

/// The rest after a first failure; it doubles with each, up to [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest after a failure.
const MAX_REST: Duration = Duration::from_secs(15);

/// How long a confirmed job may stay queued before it is published again, the first time; then twice as
/// long, three times, … up to [`MAX_REPUBLISH`]: a busy cluster's queue must not fill with repetitions.
const REPUBLISH_AFTER: Duration = Duration::from_secs(60);
/// The longest time between two publications.
const MAX_REPUBLISH: Duration = Duration::from_secs(10 * 60);

/// What a relay took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The job to publish.
    pub job: JobId,
    /// How often it was taken, this time included.
    pub attempts: u32,
    /// Until when: by this the entry is told from one that was made meanwhile.
    pub until: Timestamp,
}

/// Puts a job into the outbox. If it is there already, it is due at once, and who has leased it has
/// leased it no more: its message may be the one that was taken just now, and this is about another.
///
/// # Errors
/// [`Error::Database`].
pub async fn add(session: &mut Session, job: JobId, now: Timestamp) -> Result<(), Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO outbox (job_id, created_at, leased_until, attempts) VALUES ($1, $2, 0, 0) \
         ON CONFLICT (job_id) DO UPDATE SET leased_until = 0",
        *job.as_uuid(),
        now.as_microsecond(),
    )?;
    one_row("outbox", job, added)
}

/// A text that differs: relays of several dispatchers must not wait for each other's rows, and
/// SQLite, which has one writer, knows no such clause.
macro_rules! lease {
    ($skip_locked:literal) => {
        concat!(
            "UPDATE outbox SET leased_until = $1, attempts = attempts + 1 WHERE job_id IN \
             (SELECT job_id FROM outbox WHERE leased_until <= $2 ORDER BY created_at LIMIT $3 ",
            $skip_locked,
            ") RETURNING job_id, attempts"
        )
    };
}

impl Store {
    /// Takes up to `limit` unsent jobs, the oldest first, for half a minute.
    ///
    /// # Guarantees
    /// No two relays hold the same job at the same time, unless one of them outlives its lease.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lease_unsent(&self, limit: u32, now: Timestamp) -> Result<Vec<Leased>, Error> {
        let mut session = self.write().await?;
        let until = later(now, LEASE);
        let text = match session {
            Session::Sqlite(_) => lease!(""),
            Session::Postgres(_) | Session::PostgresReads(_) => lease!("FOR UPDATE SKIP LOCKED"),
        };
        let rows = sql!(
            &mut session,
            fetch_all as (Uuid, i64),
            text,
            until.as_microsecond(),
            now.as_microsecond(),
            i64::from(limit),
        )?;
        session.commit().await?;
        rows.into_iter().map(|row| leased(row, until)).collect()
    }

    /// Takes down that the broker has the message, durably: the job is unsent no more, unless it was put
    /// into the outbox again meanwhile.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn mark_sent(&self, leased: Leased, now: Timestamp) -> Result<(), Error> {
        let job = leased.job;
        let mut session = self.write().await?;
        let rows = sql!(
            &mut session,
            fetch_all as (i64, i64),
            "UPDATE jobs SET published_at = $2, publications = publications + 1, version = version + 1 \
             WHERE id = $1 RETURNING publications, version",
            *job.as_uuid(),
            now.as_microsecond(),
        )?;
        one_row("jobs", job, rows.len() as u64)?;
        for (publications, version) in rows {
            republish_later(&mut session, job, publications, now).await?;
            let step = published(publications, now);
            story::add(&mut session, job, version, &step).await?;
        }
        remove(&mut session, leased).await?;
        session.commit().await?;
        self.events().job_changed(job);
        Ok(())
    }

    /// Gives a job back that could not be sent, to rest for a while that grows with its attempts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn give_back(&self, leased: Leased, why: &str, now: Timestamp) -> Result<(), Error> {
        let mut session = self.write().await?;
        let rest = FIRST_REST
            .saturating_mul(1 << leased.attempts.saturating_sub(1).min(10))
            .min(MAX_REST);
        sql!(
            &mut session,
            execute,
            "UPDATE outbox SET leased_until = $3, last_error = $4 WHERE job_id = $1 AND leased_until = $2",
            *leased.job.as_uuid(),
            leased.until.as_microsecond(),
            later(now, rest).as_microsecond(),
            why,
        )?;
        session.commit().await
    }

    /// Removes what need not be sent any more, because the job has started or is over.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn drop_unsent(&self, leased: Leased) -> Result<(), Error> {
        let mut session = self.write().await?;
        remove(&mut session, leased).await?;
        session.commit().await
    }

    /// How many jobs wait in the outbox.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unsent(&self) -> Result<u64, Error> {
        let mut session = self.read().await?;
        let (count,) = sql!(
            &mut session,
            fetch_one as (i64,),
            "SELECT COUNT(*) FROM outbox"
        )?;
        Row {
            table: "outbox",
            key: "all".to_owned(),
        }
        .count("job_id", count)
    }
}

async fn republish_later(
    session: &mut Session,
    job: JobId,
    publications: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let times = u32::try_from(publications).unwrap_or(u32::MAX);
    let rest = REPUBLISH_AFTER.saturating_mul(times).min(MAX_REPUBLISH);
    let written = sql!(
        session,
        execute,
        "UPDATE jobs SET republish_at = $2 WHERE id = $1",
        *job.as_uuid(),
        later(now, rest).as_microsecond(),
    )?;
    one_row("jobs", job, written)
}

fn published(publications: i64, now: Timestamp) -> Step {
    let message = match publications {
        1 => String::new(),
        times => format!("publication {times}"),
    };
    Step {
        at: now,
        by: "dispatcher".to_owned(),
        step: StepName::Published,
        message,
    }
}

/// Removes the entry that was leased: none, if the lease has run out or the job was put in again.
async fn remove(session: &mut Session, leased: Leased) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "DELETE FROM outbox WHERE job_id = $1 AND leased_until = $2",
        *leased.job.as_uuid(),
        leased.until.as_microsecond(),
    )
    .map(drop)
}

fn leased((job, attempts): (Uuid, i64), until: Timestamp) -> Result<Leased, Error> {
    let job = JobId::from_uuid(job);
    let place = Row {
        table: "outbox",
        key: job.to_string(),
    };
    let attempts =
        u32::try_from(attempts).map_err(|error| place.contradiction("attempts", error))?;
    Ok(Leased {
        job,
        attempts,
        until,
    })
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
