//! Table `clusters`: what is known of each cluster, and when its runner spoke last.

use invoke_protocol::id::{ClusterId, ClusterName};
use invoke_protocol::runner::ProfileSummary;
use jiff::Timestamp;
use uuid::Uuid;

use super::column::{self, Row};
use super::{Error, Session};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
    /// The key that its runner signs with, Ed25519; `None` until one has enrolled.
    pub public_key: Option<Vec<u8>>,
    /// When a runner spoke last.
    pub last_contact: Option<Timestamp>,
    /// The version of the runner that did.
    pub runner_version: Option<String>,
    /// By how many seconds that runner's clock is ahead of ours, if it is wrong.
    pub clock_skew_seconds: Option<i64>,
    /// The profiles that it offers.
    pub profiles: Vec<ProfileSummary>,
    /// Jobs that are not over.
    pub open_jobs: u64,
}

#[derive(sqlx::FromRow)]
struct ClusterRow {
    id: Uuid,
    name: String,
    public_key: Option<Vec<u8>>,
    last_contact: Option<i64>,
    runner_version: Option<String>,
    clock_skew: Option<i64>,
    profiles: String,
    open_jobs: i64,
}

macro_rules! select_clusters {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.name, c.public_key, c.last_contact, c.runner_version, c.clock_skew, c.profiles, \
             (SELECT COUNT(*) FROM jobs j WHERE j.cluster_id = c.id AND j.state IN \
              ('queued', 'claimed', 'starting', 'running', 'contact_lost', 'cancelling')) AS open_jobs \
             FROM clusters c ",
            $rest
        )
    };
}

impl TryFrom<ClusterRow> for StoredCluster {
    type Error = Error;

    fn try_from(row: ClusterRow) -> Result<Self, Error> {
        let place = Row {
            table: "clusters",
            key: row.id.to_string(),
        };
        Ok(Self {
            id: ClusterId::from_uuid(row.id),
            name: place.parsed("name", &row.name)?,
            public_key: row.public_key,
            last_contact: place.optional_time("last_contact", row.last_contact)?,
            runner_version: row.runner_version,
            clock_skew_seconds: row.clock_skew,
            profiles: place.json("profiles", &row.profiles)?,
            open_jobs: place.count("open_jobs", row.open_jobs)?,
        })
    }
}

/// Adds a cluster; `false` if the name is taken.
///
/// # Errors
/// [`Error::Database`].
pub async fn add(
    session: &mut Session,
    id: ClusterId,
    name: &ClusterName,
    now: Timestamp,
) -> Result<bool, Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO clusters (id, name, created_at, profiles) VALUES ($1, $2, $3, '[]') \
         ON CONFLICT (name) DO NOTHING",
        *id.as_uuid(),
        name.as_str(),
        now.as_microsecond(),
    )?;
    Ok(added == 1)
}

/// All clusters, by name.
///
/// # Errors
/// [`Error`].
pub async fn all(session: &mut Session) -> Result<Vec<StoredCluster>, Error> {
    let rows = sql!(
        session,
        fetch_all as ClusterRow,
        select_clusters!("ORDER BY c.name")
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The cluster of this name.
///
/// # Errors
/// [`Error`].
pub async fn by_name(
    session: &mut Session,
    name: &ClusterName,
) -> Result<Option<StoredCluster>, Error> {
    let row = sql!(
        session,
        fetch_optional as ClusterRow,
        select_clusters!("WHERE c.name = $1"),
        name.as_str()
    )?;
    row.map(TryInto::try_into).transpose()
}

/// The cluster with this id.
///
/// # Errors
/// [`Error`].
pub async fn by_id(session: &mut Session, id: ClusterId) -> Result<Option<StoredCluster>, Error> {
    let row = sql!(
        session,
        fetch_optional as ClusterRow,
        select_clusters!("WHERE c.id = $1"),
        *id.as_uuid()
    )?;
    row.map(TryInto::try_into).transpose()
}

/// What a runner says of itself and its cluster.
#[derive(Debug, Clone, Copy)]
pub struct Contact<'a> {
    /// Its version.
    pub runner_version: &'a str,
    /// The profiles that it offers.
    pub profiles: &'a [ProfileSummary],
    /// By how many seconds its clock is ahead of ours, if it is wrong.
    pub clock_skew_seconds: Option<i64>,
}

/// Takes down that the cluster's runner has spoken, and what it said.
///
/// # Errors
/// [`Error`].
pub async fn record_contact(
    session: &mut Session,
    id: ClusterId,
    contact: Contact<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    sql!(
        session,
        execute,
        "UPDATE clusters SET last_contact = $2, runner_version = $3, profiles = $4, clock_skew = $5 WHERE id = $1",
        *id.as_uuid(),
        now.as_microsecond(),
        contact.runner_version,
        column::to_json(&contact.profiles)?,
        contact.clock_skew_seconds,
    )
    .map(drop)
}
