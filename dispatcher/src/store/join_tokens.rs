//! Table `join_tokens`: how a cluster's first key gets in. Only hashes are kept.

use invoke_protocol::id::ClusterId;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Session};

/// Adds a token for a cluster. The earlier ones of that cluster are void from now on.
///
/// # Errors
/// [`Error::Database`].
pub async fn replace(
    session: &mut Session,
    cluster: ClusterId,
    sha256: &[u8],
    expires_at: Timestamp,
) -> Result<(), Error> {
    sql!(
        &mut *session,
        execute,
        "DELETE FROM join_tokens WHERE cluster_id = $1",
        *cluster.as_uuid()
    )?;
    sql!(
        session,
        execute,
        "INSERT INTO join_tokens (sha256, cluster_id, expires_at) VALUES ($1, $2, $3)",
        sha256,
        *cluster.as_uuid(),
        expires_at.as_microsecond(),
    )
    .map(drop)
}

/// Binds the token to a key, and the key to the token's cluster: from now on it is what the cluster's
/// runner signs with. `None` if the token is unknown, void, expired, or bound to another key.
///
/// # Guarantees
/// Of two keys that present one token at the same moment, exactly one gets the cluster. The same key
/// may come again: its answer may have been lost.
///
/// # Errors
/// [`Error::Database`].
pub async fn redeem(
    session: &mut Session,
    sha256: &[u8],
    public_key: &[u8],
    now: Timestamp,
) -> Result<Option<ClusterId>, Error> {
    let cluster = sql!(
        &mut *session,
        fetch_optional as (Uuid,),
        "UPDATE join_tokens SET used_by_key = $2 \
         WHERE sha256 = $1 AND expires_at > $3 AND (used_by_key IS NULL OR used_by_key = $2) \
         RETURNING cluster_id",
        sha256,
        public_key,
        now.as_microsecond(),
    )?;
    let Some((cluster,)) = cluster else {
        return Ok(None);
    };
    sql!(
        session,
        execute,
        "UPDATE clusters SET public_key = $2 WHERE id = $1",
        cluster,
        public_key
    )?;
    Ok(Some(ClusterId::from_uuid(cluster)))
}
