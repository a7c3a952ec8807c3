//! Table `jobs`: what was asked for and where it stands. Nothing here writes a state: see
//! [`super::transition`].

use invoke_protocol::command::Command;
use invoke_protocol::digest::Sha256;
use invoke_protocol::environment::Environment;
use invoke_protocol::files::Files;
use invoke_protocol::id::{
    ClusterId, ClusterName, FanOutId, JobId, PodUid, ProfileName, RunnerId, ScheduleId,
};
use invoke_protocol::job::{Step, StepName};
use invoke_protocol::runner::{Cancellation, ProfileSummary};
use invoke_protocol::schedule::TickReference;
use invoke_protocol::state::{JobState, Reason, Retries};
use jiff::Timestamp;
use uuid::Uuid;

use super::clusters::StoredCluster;
use super::column::{self, Row};
use super::{Error, Session, Store, audit, one_row, story, uploads};
use crate::sealing::SealedSecrets;

/// A job that is being accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Where it is to run.
    pub cluster: ClusterId,
    /// How.
    pub profile: ProfileName,
    /// What.
    pub command: Command,
    /// Who asks.
    pub submitted_by: String,
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// For how long it may run; the profile's maximum if silent.
    pub run_timeout_seconds: Option<u64>,
    /// The submitter's own key for it.
    pub idempotency_key: Uuid,
    /// Digest of what was asked: the same key for something else is a mistake of the submitter.
    pub request_digest: Vec<u8>,
    /// The files that its command finds.
    pub files: Option<NewFiles>,
    /// Environment that everybody may see.
    pub environment: Environment,
    /// Environment that nobody may see.
    pub secrets: Option<SealedSecrets>,
    /// Whether its command is given something to read.
    pub stdin: bool,
    /// The schedule that makes it, and at which of its ticks; `None` for a person's.
    pub tick: Option<TickKey>,
    /// The fan-out that it is a part of, if it is.
    pub fanout: Option<FanOutId>,
}

/// A tick of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickKey {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The moment.
    pub instant: Timestamp,
}

/// The files of a job that is being accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFiles {
    /// What they are said to be.
    pub files: Files,
    /// Which upload they are.
    pub upload: Uuid,
}

/// A job, with what must be known of its cluster to say how it stands.
#[derive(Debug, Clone)]
pub struct StoredJob {
    /// Its id.
    pub id: JobId,
    /// Where it runs.
    pub cluster: ClusterId,
    /// What people call that.
    pub cluster_name: ClusterName,
    /// When that cluster's runner spoke last.
    pub cluster_last_contact: Option<Timestamp>,
    /// By how many seconds that runner's clock is ahead of ours, if it is wrong.
    pub cluster_clock_skew: Option<i64>,
    /// The profiles that the cluster offers.
    pub cluster_profiles: Vec<ProfileSummary>,
    /// How it runs.
    pub profile: ProfileName,
    /// What runs.
    pub command: Command,
    /// Who submitted it.
    pub submitted_by: String,
    /// When.
    pub submitted_at: Timestamp,
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// For how long it may run; the profile's maximum if silent.
    pub run_timeout_seconds: Option<u64>,
    /// Digest of what was asked.
    pub request_digest: Vec<u8>,
    /// The files that its command finds.
    pub files: Option<Files>,
    /// Which upload they are; `None` when they are not kept any more.
    pub files_upload: Option<Uuid>,
    /// Environment that everybody may see.
    pub environment: Environment,
    /// The names of the variables that nobody may see.
    pub secret_names: Vec<String>,
    /// The digest of what is sealed of these.
    pub secrets_sha256: Option<Sha256>,
    /// Whether its command is given something to read.
    pub stdin: bool,
    /// The schedule that made it, and at which of its ticks; `None` for a person's.
    pub tick: Option<TickReference>,
    /// The fan-out that it is a part of, if it is.
    pub fanout: Option<FanOutId>,
    /// Where it stands.
    pub state: JobState,
    /// Grows with every change but of the output.
    pub version: i64,
    /// The replica that took it.
    pub runner: Option<RunnerId>,
    /// The pod that holds its permit.
    pub pod: Option<PodUid>,
    /// When that was granted.
    pub permitted_at: Option<Timestamp>,
    /// When it is given up if nothing is heard of it; `None` until it is permitted to start.
    pub give_up_at: Option<Timestamp>,
    /// How often it was queued again because its pod was lost before the start.
    pub retries: Retries,
    /// What the runner said last about why it is not getting on.
    pub reported_waiting: Option<Reason>,
    /// How much of its output is stored.
    pub log_bytes: u64,
    /// When that was given up.
    pub output_expired_at: Option<Timestamp>,
    /// When the broker confirmed it last.
    pub published_at: Option<Timestamp>,
    /// What went wrong when it was published last, while it is in the outbox.
    pub outbox_error: Option<String>,
}

impl StoredJob {
    /// A job as [`Store::accept`] has just stored it: it need not be read again to be shown.
    #[must_use]
    pub fn accepted(job: NewJob, cluster: StoredCluster, now: Timestamp) -> Self {
        Self {
            id: job.id,
            cluster: cluster.id,
            cluster_name: cluster.name,
            cluster_last_contact: cluster.last_contact,
            cluster_clock_skew: cluster.clock_skew_seconds,
            cluster_profiles: cluster.profiles,
            profile: job.profile,
            command: job.command,
            submitted_by: job.submitted_by,
            submitted_at: column::as_stored(now),
            start_deadline: column::as_stored(job.start_deadline),
            run_timeout_seconds: job.run_timeout_seconds,
            request_digest: job.request_digest,
            files: job.files.map(|files| files.files),
            files_upload: job.files.map(|files| files.upload),
            environment: job.environment,
            secrets_sha256: job.secrets.as_ref().map(|secrets| secrets.sha256),
            secret_names: job.secrets.map_or_else(Vec::new, |secrets| secrets.names),
            stdin: job.stdin,
            // Who submits a job is no schedule.
            tick: None,
            fanout: job.fanout,
            state: JobState::Queued,
            version: 1,
            runner: None,
            pod: None,
            permitted_at: None,
            give_up_at: None,
            retries: Retries::default(),
            reported_waiting: None,
            log_bytes: 0,
            output_expired_at: None,
            published_at: None,
            outbox_error: None,
        }
    }

    /// For how long the command may run at most, as far as it is known here.
    #[must_use]
    pub fn run_limit_seconds(&self) -> Option<u64> {
        let maximum = self
            .cluster_profiles
            .iter()
            .find(|profile| profile.name == self.profile);
        self.run_timeout_seconds
            .or(maximum.map(|profile| profile.max_run_seconds))
    }
}

/// The columns as both engines give them.
#[derive(sqlx::FromRow)]
struct JobRow {
    id: Uuid,
    cluster_id: Uuid,
    cluster_name: String,
    cluster_last_contact: Option<i64>,
    cluster_clock_skew: Option<i64>,
    cluster_profiles: String,
    profile: String,
    command: String,
    submitted_by: String,
    submitted_at: i64,
    start_deadline: i64,
    run_timeout_seconds: Option<i64>,
    request_digest: Vec<u8>,
    files: Option<String>,
    files_upload: Option<Uuid>,
    environment: String,
    secret_names: String,
    secrets_sha256: Option<Vec<u8>>,
    stdin: bool,
    tick: Option<i64>,
    schedule_name: Option<String>,
    fanout_id: Option<Uuid>,
    state_detail: String,
    version: i64,
    runner: Option<String>,
    pod: Option<Uuid>,
    permitted_at: Option<i64>,
    give_up_at: Option<i64>,
    retries: i64,
    retried_pod: Option<Uuid>,
    waiting: Option<String>,
    log_bytes: i64,
    output_expired_at: Option<i64>,
    published_at: Option<i64>,
    outbox_error: Option<String>,
}

macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT j.id, j.cluster_id, c.name AS cluster_name, c.last_contact AS cluster_last_contact, \
             c.clock_skew AS cluster_clock_skew, \
             c.profiles AS cluster_profiles, j.profile, j.command, j.submitted_by, j.submitted_at, \
             j.start_deadline, j.run_timeout_seconds, j.request_digest, j.files, j.files_upload, j.environment, \
             j.secret_names, j.secrets_sha256, j.stdin, j.tick, s.name AS schedule_name, j.fanout_id, \
             j.state_detail, j.version, j.runner, \
             j.pod, j.permitted_at, j.give_up_at, j.retries, j.retried_pod, j.waiting, j.log_bytes, \
             j.output_expired_at, j.published_at, o.last_error AS outbox_error \
             FROM jobs j JOIN clusters c ON c.id = j.cluster_id LEFT JOIN outbox o ON o.job_id = j.id \
             LEFT JOIN schedules s ON s.id = j.schedule_id ",
            $rest
        )
    };
}

impl TryFrom<JobRow> for StoredJob {
    type Error = Error;

    fn try_from(row: JobRow) -> Result<Self, Error> {
        let id = JobId::from_uuid(row.id);
        let place = Row::of_job(id);
        Ok(Self {
            id,
            cluster: ClusterId::from_uuid(row.cluster_id),
            cluster_name: place.parsed("cluster_id", &row.cluster_name)?,
            cluster_last_contact: place.optional_time("cluster_id", row.cluster_last_contact)?,
            cluster_clock_skew: row.cluster_clock_skew,
            cluster_profiles: place.json("cluster_id", &row.cluster_profiles)?,
            profile: place.parsed("profile", &row.profile)?,
            command: place.json("command", &row.command)?,
            submitted_by: row.submitted_by,
            submitted_at: place.time("submitted_at", row.submitted_at)?,
            start_deadline: place.time("start_deadline", row.start_deadline)?,
            run_timeout_seconds: row
                .run_timeout_seconds
                .map(|seconds| place.count("run_timeout_seconds", seconds))
                .transpose()?,
            request_digest: row.request_digest,
            files: row
                .files
                .map(|text| place.json("files", &text))
                .transpose()?,
            files_upload: row.files_upload,
            environment: place.json("environment", &row.environment)?,
            secret_names: place.json("secret_names", &row.secret_names)?,
            secrets_sha256: row
                .secrets_sha256
                .map(|bytes| place.digest("secrets_sha256", &bytes))
                .transpose()?,
            stdin: row.stdin,
            tick: tick(&place, row.schedule_name.as_deref(), row.tick)?,
            fanout: row.fanout_id.map(FanOutId::from_uuid),
            state: place.json("state_detail", &row.state_detail)?,
            version: row.version,
            runner: row.runner.map(RunnerId),
            pod: row.pod.map(PodUid::from_uuid),
            permitted_at: place.optional_time("permitted_at", row.permitted_at)?,
            give_up_at: place.optional_time("give_up_at", row.give_up_at)?,
            retries: Retries {
                count: u32::try_from(row.retries)
                    .map_err(|error| place.contradiction("retries", error))?,
                last: row.retried_pod.map(PodUid::from_uuid),
            },
            reported_waiting: row
                .waiting
                .map(|text| place.json("waiting", &text))
                .transpose()?,
            log_bytes: place.count("log_bytes", row.log_bytes)?,
            output_expired_at: place.optional_time("output_expired_at", row.output_expired_at)?,
            published_at: place.optional_time("published_at", row.published_at)?,
            outbox_error: row.outbox_error,
        })
    }
}

fn tick(
    place: &Row,
    schedule: Option<&str>,
    instant: Option<i64>,
) -> Result<Option<TickReference>, Error> {
    let (Some(schedule), Some(instant)) = (schedule, instant) else {
        return Ok(None);
    };
    Ok(Some(TickReference {
        schedule: place.parsed("schedule_id", schedule)?,
        instant: place.time("tick", instant)?,
    }))
}

impl Store {
    /// Accepts a job, as [`add`] does, in a transaction of its own. `false` if this submitter used the key
    /// before.
    ///
    /// # Errors
    /// As [`add`].
    pub async fn accept(&self, job: &NewJob, now: Timestamp) -> Result<bool, Error> {
        let mut session = self.write().await?;
        if !add(&mut session, job, now).await? {
            return Ok(false);
        }
        invoke_hooks::point("dispatcher.submit.before-commit");
        session.commit().await?;
        invoke_hooks::point("dispatcher.submit.after-commit");
        Ok(true)
    }

    /// Takes down why a job that has not started is not getting on. `false`, and nothing written, if
    /// it has started or is over.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn record_waiting(
        &self,
        job: JobId,
        by: &str,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut session = self.write().await?;
        let written = sql!(
            &mut session,
            fetch_optional as (i64,),
            "UPDATE jobs SET waiting = $2, version = version + 1 \
             WHERE id = $1 AND state IN ('queued', 'claimed', 'starting') RETURNING version",
            *job.as_uuid(),
            column::to_json(reason)?,
        )?;
        let Some((version,)) = written else {
            return Ok(false);
        };
        let step = Step {
            at: now,
            by: by.to_owned(),
            step: StepName::Waiting,
            message: reason.message.clone(),
        };
        story::add(&mut session, job, version, &step).await?;
        session.commit().await?;
        self.events().job_changed(job);
        Ok(true)
    }
}

/// Accepts a job: job, audit line and outbox entry in the caller's transaction, so that what was accepted is
/// always sent, and nothing is sent that was not accepted. `false` if this submitter used the key before.
///
/// Its files are touched in the same transaction, so that what removes idle files either sees the job or
/// was faster, and then the job is not accepted.
///
/// # Errors
/// [`Error`]; [`Error::FilesGone`] if its files were removed meanwhile.
pub async fn add(session: &mut Session, job: &NewJob, now: Timestamp) -> Result<bool, Error> {
    if let Some(files) = &job.files
        && !uploads::touch(session, files.upload, now).await?
    {
        return Err(Error::FilesGone(files.files.sha256));
    }
    if !insert(session, job, now).await? {
        return Ok(false);
    }
    // PostgreSQL has done this in the same statement.
    if matches!(session, Session::Sqlite(_)) {
        super::outbox::add(session, job.id, now).await?;
        let object = format!("job {}", job.id);
        let entry = audit::Entry {
            who: &job.submitted_by,
            action: "job.submit",
            object: &object,
            outcome: "queued",
        };
        audit::add(session, entry, now).await?;
    }
    Ok(true)
}

/// Makes a new version of a job whose state stays as it is.
///
/// # Errors
/// [`Error`].
pub(super) async fn next_version(session: &mut Session, job: JobId) -> Result<i64, Error> {
    let written = sql!(
        session,
        fetch_all as (i64,),
        "UPDATE jobs SET version = version + 1 WHERE id = $1 RETURNING version",
        *job.as_uuid(),
    )?;
    one_row("jobs", job, written.len() as u64)?;
    Ok(written.iter().map(|(version,)| *version).sum())
}

macro_rules! insert_job {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "INSERT INTO jobs (id, cluster_id, profile, command, submitted_by, submitted_at, start_deadline, \
             run_timeout_seconds, idempotency_key, request_digest, state, state_detail, files, files_upload, \
             environment, secret_names, secrets_sha256, sealed_secrets, stdin, schedule_id, tick, fanout_id, version, \
             retries, log_bytes, publications) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
             $15, $16, $17, $18, $19, $20, $21, $22, 1, 0, 0, 0) \
             ON CONFLICT (submitted_by, idempotency_key) DO NOTHING ",
            $after
        )
    };
}

/// The job, and on PostgreSQL with it, in one statement, its outbox entry and its audit line: each statement
/// more is a message to the server and back, and while it is under way others wait for their turn. SQLite,
/// for which a statement is a function call, cannot write to three tables in one.
const INSERT_ALL: &str = insert_job!(
    "WITH job AS (",
    "RETURNING id, submitted_at, submitted_by), \
     unsent AS (INSERT INTO outbox (job_id, created_at, leased_until, attempts) \
     SELECT id, submitted_at, 0, 0 FROM job) \
     INSERT INTO audit (id, at, who, action, object, outcome) \
     SELECT gen_random_uuid(), submitted_at, submitted_by, 'job.submit', 'job ' || id, 'queued' FROM job"
);

/// `false` if this submitter used the key before.
async fn insert(session: &mut Session, job: &NewJob, now: Timestamp) -> Result<bool, Error> {
    let text = match session {
        Session::Sqlite(_) => insert_job!("", ""),
        Session::Postgres(_) | Session::PostgresReads(_) => INSERT_ALL,
    };
    let idempotency_key = if invoke_hooks::sabotaged("no-idempotency") {
        Uuid::new_v4()
    } else {
        job.idempotency_key
    };
    let secrets = job.secrets.as_ref();
    let secret_names = secrets.map_or([].as_slice(), |secrets| &secrets.names);
    let inserted = sql!(
        session,
        execute,
        text,
        *job.id.as_uuid(),
        *job.cluster.as_uuid(),
        job.profile.as_str(),
        column::to_json(&job.command)?,
        job.submitted_by.as_str(),
        now.as_microsecond(),
        job.start_deadline.as_microsecond(),
        job.run_timeout_seconds.map(column::to_column),
        idempotency_key,
        job.request_digest.as_slice(),
        JobState::Queued.name().as_str(),
        column::to_json(&JobState::Queued)?,
        job.files
            .map(|files| column::to_json(&files.files))
            .transpose()?,
        job.files.map(|files| files.upload),
        column::to_json(&job.environment)?,
        column::to_json(&secret_names)?,
        secrets.map(|secrets| secrets.sha256.as_bytes().as_slice()),
        secrets.map(|secrets| secrets.sealed.as_slice()),
        job.stdin,
        job.tick.map(|tick| *tick.schedule.as_uuid()),
        job.tick.map(|tick| tick.instant.as_microsecond()),
        job.fanout.map(|fanout| *fanout.as_uuid()),
    )?;
    Ok(inserted == 1)
}

/// The job with this id.
///
/// # Errors
/// [`Error`].
pub async fn find(session: &mut Session, id: JobId) -> Result<Option<StoredJob>, Error> {
    let row = sql!(
        session,
        fetch_optional as JobRow,
        select_jobs!("WHERE j.id = $1"),
        *id.as_uuid()
    )?;
    row.map(TryInto::try_into).transpose()
}

/// The sealed secret variables of a job; `None` if it has none, or is over.
///
/// # Errors
/// [`Error::Database`].
pub async fn sealed_secrets(session: &mut Session, id: JobId) -> Result<Option<Vec<u8>>, Error> {
    let row = sql!(
        session,
        fetch_optional as (Option<Vec<u8>>,),
        "SELECT sealed_secrets FROM jobs WHERE id = $1",
        *id.as_uuid()
    )?;
    Ok(row.and_then(|(sealed,)| sealed))
}

/// The job that this submitter made with this key.
///
/// # Errors
/// [`Error`].
pub async fn by_idempotency_key(
    session: &mut Session,
    by: &str,
    key: Uuid,
) -> Result<Option<StoredJob>, Error> {
    let row = sql!(
        session,
        fetch_optional as JobRow,
        select_jobs!("WHERE j.submitted_by = $1 AND j.idempotency_key = $2"),
        by,
        key,
    )?;
    row.map(TryInto::try_into).transpose()
}

/// A page of jobs, the newest first: those before `before`, of one cluster or all.
///
/// # Errors
/// [`Error`].
pub async fn list(
    session: &mut Session,
    cluster: Option<ClusterId>,
    before: Option<JobId>,
    limit: u32,
) -> Result<Vec<StoredJob>, Error> {
    // The greatest UUID stands for "no bound": ids are UUIDv7, so they sort by time.
    let before = before.map_or(Uuid::max(), |id| *id.as_uuid());
    let rows = match cluster {
        Some(cluster) => sql!(
            session,
            fetch_all as JobRow,
            select_jobs!("WHERE j.cluster_id = $1 AND j.id < $2 ORDER BY j.id DESC LIMIT $3"),
            *cluster.as_uuid(),
            before,
            i64::from(limit),
        ),
        None => sql!(
            session,
            fetch_all as JobRow,
            select_jobs!("WHERE j.id < $1 ORDER BY j.id DESC LIMIT $2"),
            before,
            i64::from(limit),
        ),
    }?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The cluster's running jobs that are to be cancelled, sorted.
///
/// # Errors
/// [`Error`].
pub async fn cancelling(
    session: &mut Session,
    cluster: ClusterId,
) -> Result<Vec<Cancellation>, Error> {
    let rows = sql!(
        session,
        fetch_all as (Uuid, String),
        "SELECT id, state_detail FROM jobs WHERE cluster_id = $1 AND state = 'cancelling' ORDER BY id",
        *cluster.as_uuid(),
    )?;
    rows.into_iter()
        .map(|(id, state)| {
            let job = JobId::from_uuid(id);
            let grace_seconds = match Row::of_job(job).json("state_detail", &state)? {
                JobState::Cancelling { grace_seconds, .. } => grace_seconds,
                _ => None,
            };
            Ok(Cancellation { job, grace_seconds })
        })
        .collect()
}

/// Locks the jobs of a fan-out that are not over, in one order, until the session ends. On SQLite nobody else
/// writes anyway.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn lock_open_of_fanout(
    session: &mut Session,
    fanout: FanOutId,
) -> Result<(), Error> {
    if matches!(session, Session::Sqlite(_)) {
        return Ok(());
    }
    sql!(
        session,
        fetch_all as (Uuid,),
        "SELECT id FROM jobs WHERE fanout_id = $1 AND state IN \
         ('queued', 'claimed', 'starting', 'running', 'contact_lost', 'cancelling') ORDER BY id FOR UPDATE",
        *fanout.as_uuid(),
    )
    .map(drop)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job that was just accepted, for a cluster that never connected.
    pub(crate) fn queued_job() -> StoredJob {
        StoredJob {
            id: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
            cluster: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
            cluster_name: "edge-7".parse().unwrap(),
            cluster_last_contact: None,
            cluster_clock_skew: None,
            cluster_profiles: Vec::new(),
            profile: ProfileName::default_profile(),
            command: Command::shell("date").unwrap(),
            submitted_by: "local".to_owned(),
            submitted_at: Timestamp::UNIX_EPOCH,
            start_deadline: "2026-11-22T10:00:00Z".parse().unwrap(),
            run_timeout_seconds: None,
            request_digest: Vec::new(),
            files: None,
            files_upload: None,
            environment: Environment::default(),
            secret_names: Vec::new(),
            secrets_sha256: None,
            stdin: false,
            tick: None,
            fanout: None,
            state: JobState::Queued,
            version: 1,
            runner: None,
            pod: None,
            permitted_at: None,
            give_up_at: None,
            retries: Retries::default(),
            reported_waiting: None,
            log_bytes: 0,
            output_expired_at: None,
            published_at: None,
            outbox_error: None,
        }
    }

    #[test]
    fn what_was_asked_for_comes_before_the_profile() {
        let profile = ProfileSummary {
            name: ProfileName::default_profile(),
            max_run_seconds: 3600,
            max_start_within_seconds: None,
            output_cap_bytes: None,
        };
        let job = StoredJob {
            cluster_profiles: vec![profile],
            ..queued_job()
        };
        assert_eq!(job.run_limit_seconds(), Some(3600));
        assert_eq!(
            StoredJob {
                run_timeout_seconds: Some(5),
                ..job
            }
            .run_limit_seconds(),
            Some(5)
        );
        assert_eq!(queued_job().run_limit_seconds(), None);
    }
}
