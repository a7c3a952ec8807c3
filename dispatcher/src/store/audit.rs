//! Table `audit`: who did what to which object, and what came of it. Rows are only ever added, in the
//! transaction of what they tell of.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Session, one_row};

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// A person's name, `runner <cluster>/<replica>`, or `dispatcher`.
    pub who: &'a str,
    /// What they did, such as `job.cancel`.
    pub action: &'a str,
    /// What they did it to, such as `job <id>`.
    pub object: &'a str,
    /// What came of it: the new state, or the refusal.
    pub outcome: &'a str,
}

/// Adds a line.
///
/// # Errors
/// [`Error::Database`].
pub async fn add(session: &mut Session, entry: Entry<'_>, now: Timestamp) -> Result<(), Error> {
    let Entry {
        who,
        action,
        object,
        outcome,
    } = entry;
    let added = sql!(
        session,
        execute,
        "INSERT INTO audit (id, at, who, action, object, outcome) VALUES ($1, $2, $3, $4, $5, $6)",
        Uuid::new_v4(),
        now.as_microsecond(),
        who,
        action,
        object,
        outcome,
    )?;
    one_row("audit", object, added)
}

/// What was done to an object, oldest first, as (who, action, outcome).
///
/// # Errors
/// [`Error::Database`].
pub async fn of_object(
    session: &mut Session,
    object: &str,
) -> Result<Vec<(String, String, String)>, Error> {
    sql!(
        session,
        fetch_all as (String, String, String),
        "SELECT who, action, outcome FROM audit WHERE object = $1 ORDER BY at",
        object,
    )
}
