//! Table `fanout_clusters`: where each cluster of a fan-out stands, with the job that it has there.

use std::collections::HashMap;

use invoke_protocol::fanout::{ChildState, ChildStateName};
use invoke_protocol::id::{ClusterId, ClusterName, FanOutId};
use invoke_protocol::state::JobState;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use uuid::Uuid;

use super::column::{self, Row};
use super::{Error, Session, one_row};

/// One cluster of a fan-out, with what must be known to say what it does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChild {
    /// Its place in the order in which they start, from 0.
    pub position: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// What people call that.
    pub cluster_name: ClusterName,
    /// When that cluster's runner spoke last.
    pub cluster_last_contact: Option<Timestamp>,
    /// Whether it comes first.
    pub canary: bool,
    /// Where it stands.
    pub state: ChildState,
    /// In which round it came there.
    pub round: u32,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Where the job of its state stands, if that has one.
    pub job: Option<JobState>,
}

#[derive(sqlx::FromRow)]
struct ChildRow {
    position: i64,
    cluster_id: Uuid,
    cluster_name: String,
    cluster_last_contact: Option<i64>,
    canary: bool,
    state_detail: String,
    round: i64,
    attempt: i64,
    job: Option<String>,
}

impl ChildRow {
    fn read(self, fanout: FanOutId) -> Result<StoredChild, Error> {
        let place = place(fanout, self.position);
        Ok(StoredChild {
            position: place.number("position", self.position)?,
            cluster: ClusterId::from_uuid(self.cluster_id),
            cluster_name: place.parsed("cluster_id", &self.cluster_name)?,
            cluster_last_contact: place.optional_time("cluster_id", self.cluster_last_contact)?,
            canary: self.canary,
            state: place.json("state_detail", &self.state_detail)?,
            round: place.number("round", self.round)?,
            attempt: place.number("attempt", self.attempt)?,
            job: self
                .job
                .map(|text| place.json("job_id", &text))
                .transpose()?,
        })
    }
}

/// Adds a cluster that waits for its turn.
///
/// # Errors
/// [`Error`].
pub(super) async fn add(
    session: &mut Session,
    fanout: FanOutId,
    position: i64,
    cluster: ClusterId,
    is_canary: bool,
) -> Result<(), Error> {
    let state = ChildState::new();
    let added = sql!(
        session,
        execute,
        "INSERT INTO fanout_clusters (fanout_id, position, cluster_id, canary, state, state_detail, round, attempt) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, 1)",
        *fanout.as_uuid(),
        position,
        *cluster.as_uuid(),
        is_canary,
        state.name().as_str(),
        column::to_json(&state)?,
    )?;
    one_row("fanout_clusters", fanout, added)
}

/// The clusters of a fan-out, in the order in which they start.
///
/// # Errors
/// [`Error`].
pub async fn of_fanout(session: &mut Session, fanout: FanOutId) -> Result<Vec<StoredChild>, Error> {
    let rows = sql!(
        session,
        fetch_all as ChildRow,
        "SELECT f.position, f.cluster_id, c.name AS cluster_name, c.last_contact AS cluster_last_contact, \
         f.canary, f.state_detail, f.round, f.attempt, j.state_detail AS job \
         FROM fanout_clusters f JOIN clusters c ON c.id = f.cluster_id LEFT JOIN jobs j ON j.id = f.job_id \
         WHERE f.fanout_id = $1 ORDER BY f.position",
        *fanout.as_uuid(),
    )?;
    rows.into_iter().map(|row| row.read(fanout)).collect()
}

/// So many clusters of a fan-out are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Where they stand.
    pub state: ChildStateName,
    /// Whether they come first.
    pub canary: bool,
    /// In which round they came there.
    pub round: u32,
    /// How many they are.
    pub count: u32,
}

impl StoredChild {
    /// It alone.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        Tally {
            state: self.state.name(),
            canary: self.canary,
            round: self.round,
            count: 1,
        }
    }
}

/// How the clusters of the fan-outs from one to another stand.
///
/// # Errors
/// [`Error`].
pub async fn tallies(
    session: &mut Session,
    from: FanOutId,
    to: FanOutId,
) -> Result<HashMap<FanOutId, Vec<Tally>>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, String, bool, i64, i64),
        "SELECT fanout_id, state, canary, round, COUNT(*) FROM fanout_clusters \
         WHERE fanout_id >= $1 AND fanout_id <= $2 GROUP BY fanout_id, state, canary, round",
        *from.as_uuid(),
        *to.as_uuid(),
    )?;
    let mut tallies: HashMap<FanOutId, Vec<Tally>> = HashMap::new();
    for (fanout, state, canary, round, count) in rows {
        let fanout = FanOutId::from_uuid(fanout);
        let place = Row {
            table: "fanout_clusters",
            key: format!("of {fanout}"),
        };
        let state: StrDeserializer<'_, serde::de::value::Error> =
            state.as_str().into_deserializer();
        tallies.entry(fanout).or_default().push(Tally {
            state: ChildStateName::deserialize(state)
                .map_err(|error| place.contradiction("state", error))?,
            canary,
            round: place.number("round", round)?,
            count: place.number("position", count)?,
        });
    }
    Ok(tallies)
}

/// Writes where a cluster stands. Only in the transaction of the fan-out's own compare-and-set.
///
/// # Errors
/// [`Error`].
pub(super) async fn update(
    session: &mut Session,
    fanout: FanOutId,
    child: &StoredChild,
) -> Result<(), Error> {
    let written = sql!(
        session,
        execute,
        "UPDATE fanout_clusters SET state = $3, state_detail = $4, round = $5, attempt = $6, job_id = $7 \
         WHERE fanout_id = $1 AND position = $2",
        *fanout.as_uuid(),
        i64::from(child.position),
        child.state.name().as_str(),
        column::to_json(&child.state)?,
        i64::from(child.round),
        i64::from(child.attempt),
        child.state.job().map(|job| *job.as_uuid()),
    )?;
    one_row("fanout_clusters", fanout, written)
}

fn place(fanout: FanOutId, position: i64) -> Row {
    Row {
        table: "fanout_clusters",
        key: format!("{fanout} at {position}"),
    }
}
