//! Table `garbage`: blobs that nothing refers to any more, until they are deleted.
//!
//! What is given up is written here in the transaction that forgets it, so that a crash between the two
//! neither leaves a row without its blob nor a blob that nobody remembers.

use jiff::Timestamp;

use super::{Error, Session};

/// Gives up all blobs whose keys begin so. No such key may ever be used again.
///
/// # Errors
/// [`Error::Database`].
pub async fn add(session: &mut Session, prefix: &str, now: Timestamp) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "INSERT INTO garbage (prefix, since) VALUES ($1, $2) ON CONFLICT (prefix) DO NOTHING",
        prefix,
        now.as_microsecond(),
    )?;
    Ok(())
}

/// What is to be deleted, the oldest first, at most `limit`.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(session: &mut Session, limit: u32) -> Result<Vec<String>, Error> {
    let rows = sql!(
        session,
        fetch_all as (String,),
        "SELECT prefix FROM garbage ORDER BY since LIMIT $1",
        i64::from(limit),
    )?;
    Ok(rows.into_iter().map(|(prefix,)| prefix).collect())
}

/// It is deleted.
///
/// # Errors
/// [`Error::Database`].
pub async fn remove(session: &mut Session, prefix: &str) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "DELETE FROM garbage WHERE prefix = $1",
        prefix,
    )?;
    Ok(())
}
