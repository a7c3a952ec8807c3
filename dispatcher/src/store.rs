//! Everything durable but blobs. All SQL is under here, one file a table.
//!
//! One SQL text serves both engines: `$1` parameters, `ON CONFLICT`, `RETURNING` and partial indexes
//! mean the same to SQLite and PostgreSQL. The macro `sql!` runs a text on whichever engine a
//! [`Session`] is of, with that engine's own types, so nothing is lost to a common denominator.
//! The schemas differ in their column types: `migrations/sqlite`, `migrations/postgres`. Where an engine
//! needs or rewards another text, both stand in one place: `lease!`, `insert_job!`.
//!
//! A state of a job is written in one place, [`transition`]; everything else reads.

use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use crate::events::Events;

/// Runs one SQL text in a [`Session`].
///
/// `sql!(session, execute, "…", bound, …)` answers how many rows it changed;
/// `sql!(session, fetch_optional as Row, "…", bound, …)` and `fetch_all`, `fetch_one` answer rows.
macro_rules! sql {
    ($session:expr, execute, $text:expr $(, $bound:expr)* $(,)?) => {
        match $session {
            $crate::store::Session::Sqlite(transaction) => sqlx::query::<sqlx::Sqlite>($text)
                $(.bind($bound))*.execute(&mut **transaction).await.map(|done| done.rows_affected()),
            $crate::store::Session::Postgres(transaction) => sqlx::query::<sqlx::Postgres>($text)
                $(.bind($bound))*.execute(&mut **transaction).await.map(|done| done.rows_affected()),
            $crate::store::Session::PostgresReads(connection) => {
                debug_assert!($crate::store::only_reads($text), "a session that reads was to write");
                sqlx::query::<sqlx::Postgres>($text)
                    $(.bind($bound))*.execute(&mut **connection).await.map(|done| done.rows_affected())
            }
        }
        .map_err($crate::store::Error::Database)
    };
    ($session:expr, $fetch:ident as $row:ty, $text:expr $(, $bound:expr)* $(,)?) => {
        match $session {
            $crate::store::Session::Sqlite(transaction) => sqlx::query_as::<sqlx::Sqlite, $row>($text)
                $(.bind($bound))*.$fetch(&mut **transaction).await,
            $crate::store::Session::Postgres(transaction) => sqlx::query_as::<sqlx::Postgres, $row>($text)
                $(.bind($bound))*.$fetch(&mut **transaction).await,
            $crate::store::Session::PostgresReads(connection) => {
                debug_assert!($crate::store::only_reads($text), "a session that reads was to write");
                sqlx::query_as::<sqlx::Postgres, $row>($text)
                    $(.bind($bound))*.$fetch(&mut **connection).await
            }
        }
        .map_err($crate::store::Error::Database)
    };
}

pub mod secrets;
pub mod api_tokens;
pub mod clusters;
pub mod join_tokens;
pub mod uploads;
pub mod jobs;
pub mod transition;
pub mod schedules;
pub mod ticks;
pub mod calendars;
pub mod notifications;
pub mod story;
mod contradiction;
pub mod fanouts;
pub mod fanout_clusters;
pub mod fanout_transition;
pub mod fanout_story;
pub mod outbox;
pub mod backlog;
pub mod job_output;
pub mod expiry;
pub mod garbage;
pub mod due;
pub mod audit;
mod column;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    events: Arc<Events>,
}

#[derive(Clone)]
enum Engine {
    /// One writer: SQLite has one write lock, and a queue in the pool is fair where its busy handler
    /// is not. Readers go on beside it (WAL).
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Session::commit`], it never was.
pub enum Session {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
    /// On PostgreSQL, only to read: each query sees its own moment anyway, and what begins and ends a
    /// transaction would be two more messages to the server and back for each of them.
    PostgresReads(PoolConnection<Postgres>),
}

/// Why the store has no answer. "Not found" is an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no engine that we know.
    #[error("the database URL must begin with sqlite:// or postgres://")]
    UnknownEngine,
    /// The schema could not be brought up to date.
    #[error("cannot bring the database's schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database did not do it: it may be away for a moment, see [`Error::is_passing`].
    #[error("the database did not answer")]
    Database(#[source] sqlx::Error),
    /// A row holds what we never wrote.
    #[error("table {table}, row {row}: column {column} holds what it cannot hold")]
    Contradiction {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The key of the row.
        row: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statement that is meant for one row changed none, or more: nothing of it was kept.
    #[error("table {table}, row {row}: one row was to be changed, and {changed} were")]
    NotOne {
        /// The table.
        table: &'static str,
        /// The key of the row.
        row: String,
        /// How many it were.
        changed: u64,
    },
    /// The files of a job that was to be accepted have been removed.
    #[error("the files {0} were removed meanwhile")]
    FilesGone(invoke_protocol::digest::Sha256),
    /// Others changed the job each time we were about to. Trying again may help.
    #[error("job {0} was changed by others each time")]
    Contended(invoke_protocol::id::JobId),
    /// The same of a fan-out.
    #[error("fan-out {0} was changed by others each time")]
    ContendedFanOut(invoke_protocol::id::FanOutId),
    /// A value that we made has no JSON form, which cannot be.
    #[error("cannot write a value as JSON")]
    Encode(#[source] serde_json::Error),
}

impl Error {
    /// Whether the same may succeed in a moment: the database is away, full of others, or starting.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Database(error) => match error {
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => true,
                sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
                sqlx::Error::Database(error) => {
                    error.code().is_some_and(|code| is_passing_code(&code))
                }
                _ => false,
            },
            Self::Contended(_) | Self::ContendedFanOut(_) => true,
            _ => false,
        }
    }
}

/// PostgreSQL's SQLSTATE classes (connection, rollback, resources, operator intervention), a lock that
/// others hold (`lock_not_available`), and SQLite's primary and extended BUSY, LOCKED
/// and FULL: a disk is made room on.
fn is_passing_code(code: &str) -> bool {
    let class = |class: &str| code.len() == 5 && code.starts_with(class);
    let sqlite = code
        .parse::<u32>()
        .ok()
        .filter(|_| code.len() < 5)
        .map(|code| code & 0xff);
    let is_passing_class = ["08", "40", "53", "57"].into_iter().any(class);
    is_passing_class || code == "55P03" || matches!(sqlite, Some(5 | 6 | 13))
}

/// How long a request waits for a connection before it is told to come back.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement waits for a lock that somebody holds in PostgreSQL. Without a limit, whoever keeps
/// a row locked, such as a person with a forgotten transaction, keeps every request for it hanging, each
/// with a connection of the few, and the sweeper with them.
const LOCK_TIMEOUT: &str = "5s";

/// How long a connection to PostgreSQL must have rested to be asked whether it is still there.
const RESTED: Duration = Duration::from_secs(1);

impl Store {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// [`Error`] if the URL is none, the database is away, or its schema is not ours.
    pub async fn open(url: &str, events: Arc<Events>) -> Result<Self, Error> {
        let engine = match url.split_once(':') {
            Some(("sqlite", _)) => open_sqlite(url).await?,
            Some(("postgres" | "postgresql", _)) => open_postgres(url).await?,
            _ => return Err(Error::UnknownEngine),
        };
        Ok(Self { engine, events })
    }

    /// Begins to read: several queries see one moment on SQLite, each its own on PostgreSQL.
    ///
    /// # Errors
    /// [`Error::Database`] if there is no connection to be had.
    pub async fn read(&self) -> Result<Session, Error> {
        let session = match &self.engine {
            Engine::Sqlite { readers, .. } => readers.begin().await.map(Session::Sqlite),
            Engine::Postgres(pool) => pool.acquire().await.map(Session::PostgresReads),
        };
        session.map_err(Error::Database)
    }

    /// Begins to write. On SQLite nobody else writes until the session ends: `IMMEDIATE`, because a
    /// transaction that reads first and asks for the write lock later fails when another was faster.
    ///
    /// # Errors
    /// [`Error::Database`] if there is no connection to be had.
    pub async fn write(&self) -> Result<Session, Error> {
        let session = match &self.engine {
            Engine::Sqlite { writer, .. } => writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map(Session::Sqlite),
            Engine::Postgres(pool) => pool.begin().await.map(Session::Postgres),
        };
        session.map_err(Error::Database)
    }

    /// Who is told of changes.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Asks the database for one answer.
    ///
    /// # Errors
    /// [`Error::Database`] if there is none.
    pub async fn check(&self) -> Result<(), Error> {
        let mut session = self.read().await?;
        sql!(&mut session, execute, "SELECT 1").map(drop)
    }

    /// What time it is by the database's own clock, with the moments of monotonic time between which it
    /// was read; `None` on SQLite, which has none.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub async fn time(&self) -> Result<Option<(Timestamp, Instant, Instant)>, Error> {
        if matches!(self.engine, Engine::Sqlite { .. }) {
            return Ok(None);
        }
        let mut session = self.read().await?;
        let asked = Instant::now();
        // Not `now()`, which is when the transaction began.
        let (micros,) = sql!(
            &mut session,
            fetch_one as (i64,),
            "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
        )?;
        let answered = Instant::now();
        let place = column::Row {
            table: "the database's clock",
            key: "now".to_owned(),
        };
        Ok(Some((place.time("now", micros)?, asked, answered)))
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }
}

impl Session {
    /// Makes everything that was written in this session durable, all or nothing.
    ///
    /// # Errors
    /// [`Error::Database`]; whether it was committed is then unknown if the connection broke.
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
            Self::PostgresReads(_) => Ok(()),
        }
        .map_err(Error::Database)
    }
}

/// Whether a statement may be run in a session that only reads.
fn only_reads(text: &str) -> bool {
    text.trim_start().starts_with("SELECT")
}

/// A statement was meant for one row: anything else is a mistake of ours, and must not be committed.
fn one_row(table: &'static str, row: impl std::fmt::Display, changed: u64) -> Result<(), Error> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::NotOne {
        table,
        row: row.to_string(),
        changed,
    })
}

async fn open_sqlite(url: &str) -> Result<Engine, Error> {
    let options = url
        .parse::<SqliteConnectOptions>()
        .map_err(Error::Database)?
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: in WAL mode, NORMAL may lose the last commits in a power failure, and accepted is durable.
        .synchronous(SqliteSynchronous::Full)
        // What is erased is overwritten, also on pages that nothing is on any more: the key that sealed secrets are
        // opened with is in the same file. In the log beside it they stay until that is written to anew.
        .pragma("secure_delete", "ON")
        .busy_timeout(ACQUIRE_TIMEOUT);
    keep_private(options.get_filename())?;
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
    };
    let writer = pool(1)
        .connect_with(options.clone())
        .await
        .map_err(Error::Database)?;
    sqlx::migrate!("./migrations/sqlite")
        .run(&writer)
        .await
        .map_err(Error::Migrate)?;
    let readers = pool(4)
        .connect_with(options)
        .await
        .map_err(Error::Database)?;
    Ok(Engine::Sqlite { writer, readers })
}

/// The file holds the key that signs orders, so it is its owner's alone. SQLite gives the files beside
/// it the same permissions.
fn keep_private(file: &std::path::Path) -> Result<(), Error> {
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::Database(error.into()))
        }
        _ => Ok(()),
    }
}

async fn open_postgres(url: &str) -> Result<Engine, Error> {
    let options: PgConnectOptions = url.parse().map_err(Error::Database)?;
    migrate_postgres(&options).await?;
    let options = match invoke_hooks::sabotaged("no-lock-timeout") {
        true => options,
        false => options.options([("lock_timeout", LOCK_TIMEOUT)]),
    };
    let pool = PgPoolOptions::new()
        .max_connections(20)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, known| Box::pin(still_there(connection, known)))
        .connect_with(options)
        .await
        .map_err(Error::Database)?;
    Ok(Engine::Postgres(pool))
}

/// On a connection of its own, without the limit of the others: another dispatcher that is bringing the
/// schema up to date at this moment holds the lock for as long as that takes.
async fn migrate_postgres(options: &PgConnectOptions) -> Result<(), Error> {
    let mut connection = PgConnection::connect_with(options)
        .await
        .map_err(Error::Database)?;
    sqlx::migrate!("./migrations/postgres")
        .run(&mut connection)
        .await
        .map_err(Error::Migrate)?;
    connection.close().await.map_err(Error::Database)
}

/// A connection that has rested may have died of it, and one question finds that out before it matters.
/// One that was used a moment ago need not be asked again for each query.
async fn still_there(
    connection: &mut PgConnection,
    known: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    if known.idle_for > RESTED {
        connection.ping().await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::is_passing_code;

    #[test]
    fn only_what_passes_is_passing() {
        for code in [
            "57P01", "08006", "40001", "53300", "55P03", "5", "6", "13", "261", "517",
        ] {
            assert!(is_passing_code(code), "{code}");
        }
        for code in ["23505", "42P01", "55006", "1", "19", "2067", ""] {
            assert!(!is_passing_code(code), "{code}");
        }
    }
}
