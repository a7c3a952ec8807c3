//! Table `secrets`: what all replicas share.

use super::{Error, Session};

/// The secret of this name; `fresh` becomes it if there is none yet.
///
/// # Guarantees
/// Replicas that start together get the same one: whoever is second reads what the first wrote.
///
/// # Errors
/// [`Error::Database`].
pub async fn get_or_set(session: &mut Session, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error> {
    sql!(
        &mut *session,
        execute,
        "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        name,
        fresh,
    )?;
    let (value,) = sql!(
        session,
        fetch_one as (Vec<u8>,),
        "SELECT value FROM secrets WHERE name = $1",
        name
    )?;
    Ok(value)
}
