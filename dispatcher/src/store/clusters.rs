//! Table `clusters`: what is known of each cluster, and when its runner spoke last.

use std::collections::HashMap;

use invoke_protocol::id::{ClusterId, ClusterName};
use invoke_protocol::labels::Labels;
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
    /// What it can be chosen by, besides its name.
    pub labels: Labels,
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
    labels: String,
}

macro_rules! select_clusters {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.name, c.public_key, c.last_contact, c.runner_version, c.clock_skew, c.profiles, \
             c.labels FROM clusters c ",
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
            labels: place.json("labels", &row.labels)?,
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
    labels: &Labels,
    now: Timestamp,
) -> Result<bool, Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO clusters (id, name, created_at, profiles, labels) VALUES ($1, $2, $3, '[]', $4) \
         ON CONFLICT (name) DO NOTHING",
        *id.as_uuid(),
        name.as_str(),
        now.as_microsecond(),
        column::to_json(labels)?,
    )?;
    Ok(added == 1)
}

/// Writes the labels of a cluster, if they are still as they were seen; `false` if somebody was faster.
///
/// # Errors
/// [`Error`].
pub async fn relabel(
    session: &mut Session,
    cluster: &StoredCluster,
    labels: &Labels,
) -> Result<bool, Error> {
    let written = sql!(
        session,
        execute,
        "UPDATE clusters SET labels = $3 WHERE id = $1 AND labels = $2",
        *cluster.id.as_uuid(),
        column::to_json(&cluster.labels)?,
        column::to_json(labels)?,
    )?;
    Ok(written == 1)
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

/// How many jobs of each cluster are not over; clusters without any are left out. Counted only for who
/// asks: a cluster is looked up for every submission and for every word of its runner, and a long queue
/// would make each of them slower.
///
/// # Errors
/// [`Error`].
pub async fn open_jobs(session: &mut Session) -> Result<HashMap<ClusterId, u64>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, i64),
        "SELECT cluster_id, COUNT(*) FROM jobs WHERE state IN \
         ('queued', 'claimed', 'starting', 'running', 'contact_lost', 'cancelling') GROUP BY cluster_id",
    )?;
    rows.into_iter()
        .map(|(cluster, count)| {
            let place = Row {
                table: "jobs",
                key: format!("of cluster {cluster}"),
            };
            let count = place.count("cluster_id", count)?;
            Ok((ClusterId::from_uuid(cluster), count))
        })
        .collect()
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
