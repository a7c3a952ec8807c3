//! Table `notifications`: what webhooks are still to be told.

use std::time::Duration;

use invoke_protocol::id::ScheduleId;
use jiff::Timestamp;
use uuid::Uuid;

use super::column::Row;
use super::{Error, Session, Store};

/// Something that somebody is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotification {
    /// The schedule that it is about.
    pub schedule: ScheduleId,
    /// Of all with the same, one is told.
    pub dedup: String,
    /// To whom.
    pub url: String,
    /// What.
    pub body: String,
}

/// What a dispatcher has taken to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedNotification {
    /// Its id, which the receiver sees with each attempt.
    pub id: Uuid,
    /// The schedule that it is about.
    pub schedule: ScheduleId,
    /// To whom.
    pub url: String,
    /// What.
    pub body: String,
    /// How often it was taken, this time included.
    pub attempts: u32,
}

/// For how long a dispatcher keeps what it took: longer than the longest delivery.
const LEASE: Duration = Duration::from_secs(60);

/// Adds what is to be told, unless that was done before.
///
/// # Errors
/// [`Error::Database`].
pub async fn add(
    session: &mut Session,
    notification: &NewNotification,
    now: Timestamp,
) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "INSERT INTO notifications (id, schedule_id, dedup, url, body, created_at, leased_until, attempts) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0) ON CONFLICT (dedup) DO NOTHING",
        Uuid::new_v4(),
        *notification.schedule.as_uuid(),
        notification.dedup.as_str(),
        notification.url.as_str(),
        notification.body.as_str(),
        now.as_microsecond(),
    )
    .map(drop)
}

/// A text that differs, as in [`super::outbox`].
macro_rules! lease {
    ($skip_locked:literal) => {
        concat!(
            "UPDATE notifications SET leased_until = $1, attempts = attempts + 1 WHERE id IN \
             (SELECT id FROM notifications WHERE done_at IS NULL AND leased_until <= $2 \
              ORDER BY created_at LIMIT $3 ",
            $skip_locked,
            ") RETURNING id, schedule_id, url, body, attempts"
        )
    };
}

impl Store {
    /// Takes up to `limit` notifications that are to be delivered, the oldest first, for a minute.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lease_notifications(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<LeasedNotification>, Error> {
        let mut session = self.write().await?;
        let text = match session {
            Session::Sqlite(_) => lease!(""),
            Session::Postgres(_) | Session::PostgresReads(_) => lease!("FOR UPDATE SKIP LOCKED"),
        };
        let rows = sql!(
            &mut session,
            fetch_all as (Uuid, Uuid, String, String, i64),
            text,
            later(now, LEASE).as_microsecond(),
            now.as_microsecond(),
            i64::from(limit),
        )?;
        session.commit().await?;
        let leased = |(id, schedule, url, body, attempts): (Uuid, Uuid, String, String, i64)| {
            let place = Row {
                table: "notifications",
                key: id.to_string(),
            };
            Ok(LeasedNotification {
                id,
                schedule: ScheduleId::from_uuid(schedule),
                url,
                body,
                attempts: u32::try_from(attempts)
                    .map_err(|error| place.contradiction("attempts", error))?,
            })
        };
        rows.into_iter().map(leased).collect()
    }

    /// Takes down that a notification needs no further attempt: it was answered or, with the words of what went
    /// wrong last, given up.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn notified(
        &self,
        id: Uuid,
        given_up: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut session = self.write().await?;
        sql!(
            &mut session,
            execute,
            "UPDATE notifications SET done_at = $2, last_error = $3 WHERE id = $1",
            id,
            now.as_microsecond(),
            given_up,
        )?;
        session.commit().await
    }

    /// Gives a notification back that was not delivered, to rest for a while.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn not_notified(
        &self,
        id: Uuid,
        why: &str,
        rest: Duration,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut session = self.write().await?;
        sql!(
            &mut session,
            execute,
            "UPDATE notifications SET leased_until = $2, last_error = $3 WHERE id = $1",
            id,
            later(now, rest).as_microsecond(),
            why,
        )?;
        session.commit().await
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
