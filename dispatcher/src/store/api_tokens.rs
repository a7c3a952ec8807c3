//! Table `api_tokens`: who may come in by a person's door. Only hashes are kept.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Session};

/// The name behind a token that is known and not revoked.
///
/// The lookup by hash takes as long as the index wants, and need not be constant-time: who measures
/// it learns about the SHA-256 of a guess, and a 256-bit token is not found by its hash's prefix.
///
/// # Errors
/// [`Error::Database`].
pub async fn holder(session: &mut Session, sha256: &[u8]) -> Result<Option<String>, Error> {
    let row = sql!(
        session,
        fetch_optional as (String,),
        "SELECT name FROM api_tokens WHERE sha256 = $1 AND revoked_at IS NULL",
        sha256,
    )?;
    Ok(row.map(|(name,)| name))
}

/// Whether any token of this name is not revoked.
///
/// # Errors
/// [`Error::Database`].
pub async fn any_is_good(session: &mut Session, name: &str) -> Result<bool, Error> {
    let row = sql!(
        session,
        fetch_optional as (i64,),
        "SELECT created_at FROM api_tokens WHERE name = $1 AND revoked_at IS NULL LIMIT 1",
        name,
    )?;
    Ok(row.is_some())
}

/// Makes this the one good token of its owner, under a name that others may have too; the owner's earlier
/// one is good no more.
///
/// # Errors
/// [`Error::Database`].
pub async fn replace(
    session: &mut Session,
    owner: Uuid,
    name: &str,
    sha256: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "INSERT INTO api_tokens (id, name, sha256, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET sha256 = excluded.sha256, created_at = excluded.created_at, \
         revoked_at = NULL",
        owner,
        name,
        sha256,
        now.as_microsecond(),
    )
    .map(drop)
}
