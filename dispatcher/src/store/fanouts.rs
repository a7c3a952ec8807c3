//! Table `fanouts`: one command on many clusters, as it was asked for and where it stands. Nothing here writes a
//! state: see [`super::fanout_transition`].

use std::time::Duration;

use invoke_protocol::fanout::{
    FanOutLimits, FanOutSpec, FanOutState, FanOutStep, FanOutStepName, StopReason,
};
use invoke_protocol::id::{ClusterId, FanOutId};
use invoke_protocol::job::DEFAULT_START_WITHIN_SECONDS;
use jiff::Timestamp;
use uuid::Uuid;

use super::column::{self, Row};
use super::{Error, Session, audit, fanout_clusters, fanout_story, uploads};
use crate::sealing::SealedSecrets;

/// A fan-out that is being accepted.
#[derive(Debug, Clone)]
pub struct NewFanOut {
    /// Its id.
    pub id: FanOutId,
    /// What is asked for, without secrets.
    pub spec: FanOutSpec,
    /// Environment that nobody may see.
    pub secrets: Option<SealedSecrets>,
    /// Which upload the files of its jobs are.
    pub files_upload: Option<Uuid>,
    /// The limits, in numbers.
    pub limits: FanOutLimits,
    /// The clusters, in the order in which they start, and whether each comes first.
    pub clusters: Vec<(ClusterId, bool)>,
    /// Who asks.
    pub submitted_by: String,
    /// The submitter's own key for it.
    pub idempotency_key: Uuid,
    /// Digest of what was asked: the same key for something else is a mistake of the submitter.
    pub request_digest: Vec<u8>,
}

/// A fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFanOut {
    /// Its id.
    pub id: FanOutId,
    /// What was asked for, without secrets.
    pub spec: FanOutSpec,
    /// The names of the variables that nobody may see.
    pub secret_names: Vec<String>,
    /// Which upload the files of its jobs are; `None` when they are not kept for it any more.
    pub files_upload: Option<Uuid>,
    /// The limits, in numbers.
    pub limits: FanOutLimits,
    /// Who submitted it.
    pub submitted_by: String,
    /// When.
    pub submitted_at: Timestamp,
    /// Digest of what was asked.
    pub request_digest: Vec<u8>,
    /// Where it stands.
    pub state: FanOutState,
    /// How often it was made to go on.
    pub round: u32,
    /// Grows with every step of its story.
    pub version: i64,
    /// Until when it can be made to go on, once it has stopped; `None` if it cannot, or has not.
    pub resumable_until: Option<Timestamp>,
}

impl StoredFanOut {
    /// For how long a cluster whose turn has come may keep it waiting.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let seconds = self.spec.job.start_within_seconds;
        Duration::from_secs(seconds.unwrap_or(DEFAULT_START_WITHIN_SECONDS))
    }

    /// Why it stops or has stopped.
    #[must_use]
    pub const fn reason(&self) -> Option<&StopReason> {
        self.state.reason()
    }
}

#[derive(sqlx::FromRow)]
struct FanOutRow {
    id: Uuid,
    spec: String,
    secret_names: String,
    files_upload: Option<Uuid>,
    limits: String,
    submitted_by: String,
    submitted_at: i64,
    request_digest: Vec<u8>,
    state_detail: String,
    round: i64,
    version: i64,
    resumable_until: Option<i64>,
}

macro_rules! select_fanouts {
    ($rest:literal) => {
        concat!(
            "SELECT id, spec, secret_names, files_upload, limits, submitted_by, submitted_at, request_digest, \
             state_detail, round, version, resumable_until FROM fanouts ",
            $rest
        )
    };
}

impl TryFrom<FanOutRow> for StoredFanOut {
    type Error = Error;

    fn try_from(row: FanOutRow) -> Result<Self, Error> {
        let id = FanOutId::from_uuid(row.id);
        let place = place(id);
        Ok(Self {
            id,
            spec: place.json("spec", &row.spec)?,
            secret_names: place.json("secret_names", &row.secret_names)?,
            files_upload: row.files_upload,
            limits: place.json("limits", &row.limits)?,
            submitted_by: row.submitted_by,
            submitted_at: place.time("submitted_at", row.submitted_at)?,
            request_digest: row.request_digest,
            state: place.json("state_detail", &row.state_detail)?,
            round: place.number("round", row.round)?,
            version: row.version,
            resumable_until: place.optional_time("resumable_until", row.resumable_until)?,
        })
    }
}

/// Accepts a fan-out, with its clusters, its first step and its audit line, in the caller's transaction. `false`
/// if this submitter used the key before.
///
/// Its files are touched in the same transaction, so that what removes idle files either sees the fan-out or was
/// faster, and then it is not accepted.
///
/// # Errors
/// [`Error`]; [`Error::FilesGone`] if its files were removed meanwhile.
pub async fn add(session: &mut Session, fanout: &NewFanOut, now: Timestamp) -> Result<bool, Error> {
    if let (Some(upload), Some(files)) = (fanout.files_upload, &fanout.spec.job.files)
        && !uploads::touch(session, upload, now).await?
    {
        return Err(Error::FilesGone(files.sha256));
    }
    if !insert(session, fanout, now).await? {
        return Ok(false);
    }
    for (position, (cluster, is_canary)) in (0..).zip(&fanout.clusters) {
        fanout_clusters::add(session, fanout.id, position, *cluster, *is_canary).await?;
    }
    let submitted = FanOutStep {
        at: now,
        by: fanout.submitted_by.clone(),
        step: FanOutStepName::Submitted,
        cluster: None,
        message: match fanout.clusters.len() {
            1 => "1 cluster".to_owned(),
            many => format!("{many} clusters"),
        },
    };
    fanout_story::add(session, fanout.id, FIRST_VERSION, &submitted).await?;
    let object = format!("fan-out {}", fanout.id);
    let entry = audit::Entry {
        who: &fanout.submitted_by,
        action: "fanout.submit",
        object: &object,
        outcome: "running",
    };
    audit::add(session, entry, now).await?;
    Ok(true)
}

/// The version of a fan-out whose story has one step.
const FIRST_VERSION: i64 = 1;

async fn insert(session: &mut Session, fanout: &NewFanOut, now: Timestamp) -> Result<bool, Error> {
    let secrets = fanout.secrets.as_ref();
    let secret_names = secrets.map_or([].as_slice(), |secrets| &secrets.names);
    let inserted = sql!(
        session,
        execute,
        "INSERT INTO fanouts (id, spec, secret_names, sealed_secrets, files_upload, limits, submitted_by, \
         submitted_at, idempotency_key, request_digest, state, state_detail, round, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13) \
         ON CONFLICT (submitted_by, idempotency_key) DO NOTHING",
        *fanout.id.as_uuid(),
        column::to_json(&fanout.spec)?,
        column::to_json(&secret_names)?,
        secrets.map(|secrets| secrets.sealed.as_slice()),
        fanout.files_upload,
        column::to_json(&fanout.limits)?,
        fanout.submitted_by.as_str(),
        now.as_microsecond(),
        fanout.idempotency_key,
        fanout.request_digest.as_slice(),
        FanOutState::Running.name().as_str(),
        column::to_json(&FanOutState::Running)?,
        FIRST_VERSION,
    )?;
    Ok(inserted == 1)
}

/// The fan-out with this id.
///
/// # Errors
/// [`Error`].
pub async fn find(session: &mut Session, id: FanOutId) -> Result<Option<StoredFanOut>, Error> {
    let row = sql!(
        session,
        fetch_optional as FanOutRow,
        select_fanouts!("WHERE id = $1"),
        *id.as_uuid()
    )?;
    row.map(TryInto::try_into).transpose()
}

/// The fan-out that this submitter made with this key.
///
/// # Errors
/// [`Error`].
pub async fn by_idempotency_key(
    session: &mut Session,
    by: &str,
    key: Uuid,
) -> Result<Option<StoredFanOut>, Error> {
    let row = sql!(
        session,
        fetch_optional as FanOutRow,
        select_fanouts!("WHERE submitted_by = $1 AND idempotency_key = $2"),
        by,
        key,
    )?;
    row.map(TryInto::try_into).transpose()
}

/// A page of fan-outs, the newest first: those before `before`.
///
/// # Errors
/// [`Error`].
pub async fn list(
    session: &mut Session,
    before: Option<FanOutId>,
    limit: u32,
) -> Result<Vec<StoredFanOut>, Error> {
    // The greatest UUID stands for "no bound": ids are UUIDv7, so they sort by time.
    let before = before.map_or(Uuid::max(), |id| *id.as_uuid());
    let rows = sql!(
        session,
        fetch_all as FanOutRow,
        select_fanouts!("WHERE id < $1 ORDER BY id DESC LIMIT $2"),
        before,
        i64::from(limit),
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The fan-outs that are not over, the oldest first.
///
/// # Errors
/// [`Error::Database`].
pub async fn open(session: &mut Session) -> Result<Vec<FanOutId>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT id FROM fanouts WHERE state IN ('running', 'stopping', 'cancelling') ORDER BY id",
    )?;
    Ok(rows
        .into_iter()
        .map(|(id,)| FanOutId::from_uuid(id))
        .collect())
}

/// The sealed secret variables of a fan-out; `None` if it has none, or cannot go on any more.
///
/// # Errors
/// [`Error::Database`].
pub async fn sealed_secrets(session: &mut Session, id: FanOutId) -> Result<Option<Vec<u8>>, Error> {
    let row = sql!(
        session,
        fetch_optional as (Option<Vec<u8>>,),
        "SELECT sealed_secrets FROM fanouts WHERE id = $1",
        *id.as_uuid()
    )?;
    Ok(row.and_then(|(sealed,)| sealed))
}

/// Gives up what is kept of fan-outs so that they can go on: those that stopped and were not made to go on in
/// time. How many it were.
///
/// # Errors
/// [`Error::Database`].
pub async fn forget_overdue(session: &mut Session, now: Timestamp) -> Result<u64, Error> {
    sql!(
        session,
        execute,
        "UPDATE fanouts SET sealed_secrets = NULL, files_upload = NULL, resumable_until = NULL \
         WHERE resumable_until < $1",
        now.as_microsecond(),
    )
}

/// The compare-and-set; `false` if somebody was faster. What is kept for a fan-out so that it can go on goes with
/// the last moment at which it can.
///
/// # Errors
/// [`Error`].
pub(super) async fn update(
    session: &mut Session,
    before: &StoredFanOut,
    after: &StoredFanOut,
) -> Result<bool, Error> {
    let is_for_ever = after.state.is_over() && after.resumable_until.is_none();
    let written = sql!(
        session,
        execute,
        "UPDATE fanouts SET state = $3, state_detail = $4, round = $5, version = $6, resumable_until = $7, \
         sealed_secrets = CASE WHEN $8 THEN NULL ELSE sealed_secrets END, \
         files_upload = CASE WHEN $8 THEN NULL ELSE files_upload END \
         WHERE id = $1 AND version = $2",
        *before.id.as_uuid(),
        before.version,
        after.state.name().as_str(),
        column::to_json(&after.state)?,
        i64::from(after.round),
        after.version,
        after.resumable_until.map(Timestamp::as_microsecond),
        is_for_ever,
    )?;
    Ok(written == 1)
}

pub(super) fn place(id: FanOutId) -> Row {
    Row {
        table: "fanouts",
        key: id.to_string(),
    }
}
