//! The one place that writes a job's state.
//!
//! ```text
//!   load ──▶ JobState::on(event, now) ──▶ UPDATE … WHERE version = loaded AND log_bytes = loaded
//!     ▲                                          │ 0 rows: somebody was faster
//!     └──────────────────────────────────────────┘
//! ```
//!
//! **A compare-and-set, not a lock**: permit and cancel, complete and give-up, two replicas, two
//! dispatchers may race, and exactly one wins; the loser loads again and is answered by the state that
//! the winner left. On PostgreSQL the versions decide; on SQLite the one writer does, and the versions
//! never differ.
//!
//! The length of the output log is compared too: a job that ends says whether its output is complete,
//! and an upload that lands between load and update would make that a lie.

use std::time::Duration;

use invoke_protocol::id::{ClusterId, JobId, PodUid, RunnerId};
use invoke_protocol::state::{Event, JobState, Refusal};
use jiff::Timestamp;

use super::audit;
use super::column;
use super::jobs::{self, StoredJob};
use super::{Error, Session, Store};

/// Something that happens to a job.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The job.
    pub job: JobId,
    /// The only cluster whose job it may be; `None` if who asks is not of one.
    pub scope: Option<ClusterId>,
    /// Who makes it happen, for the audit log.
    pub by: &'a str,
    /// When.
    pub now: Timestamp,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The job as it is now.
    pub job: StoredJob,
    /// What the state answered.
    pub verdict: Result<Verdict, Refusal>,
}

/// An event that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The state is another now.
    Changed,
    /// The event said what was known already.
    Repeated,
}

/// How often a change may lose its race before the caller is told to come back. Each loss means that
/// somebody else got on.
const MAX_RACES: u32 = 16;

/// After its run deadline, for how long a started job may stay without a word before it is given up:
/// the grace, the upload of what is spooled, and a restart of whatever needs one.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 60);

/// The run limit of a job whose profile is not known here: as long as a job may wait for its start.
const UNKNOWN_RUN_LIMIT_SECONDS: u64 = invoke_protocol::job::MAX_START_WITHIN_SECONDS;

impl Store {
    /// Applies the event that `event` makes of the job as it stands; `None` if there is no such job in
    /// the scope.
    ///
    /// # Guarantees
    /// Whoever waits for the job is told after the change is durable, never before.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Contended`] after many lost races.
    pub async fn change(
        &self,
        change: Change<'_>,
        event: impl Fn(&StoredJob) -> Event + Send,
    ) -> Result<Option<Outcome>, Error> {
        for _ in 0..MAX_RACES {
            let mut session = self.write().await?;
            let Some(job) = jobs::find(&mut session, change.job)
                .await?
                .filter(|job| is_in_scope(job, change.scope))
            else {
                return Ok(None);
            };
            let event = event(&job);
            let action = action(&event);
            let next = match job.state.clone().on(event, change.now) {
                Err(refusal) => {
                    return Ok(Some(Outcome {
                        job,
                        verdict: Err(refusal),
                    }));
                }
                Ok(next) if next == job.state => {
                    return Ok(Some(Outcome {
                        job,
                        verdict: Ok(Verdict::Repeated),
                    }));
                }
                Ok(next) => next,
            };
            if let Some(job) = write(&mut session, &job, next).await? {
                let object = format!("job {}", job.id);
                let outcome = job.state.name().as_str();
                audit::add(
                    &mut session,
                    audit::Entry {
                        who: change.by,
                        action,
                        object: &object,
                        outcome,
                    },
                    change.now,
                )
                .await?;
                session.commit().await?;
                self.tell(&job);
                return Ok(Some(Outcome {
                    job,
                    verdict: Ok(Verdict::Changed),
                }));
            }
        }
        Err(Error::Contended(change.job))
    }

    fn tell(&self, job: &StoredJob) {
        let state = job.state.name();
        tracing::info!(job.id = %job.id, job.state = %state, "job {} is {state}", job.id);
        self.events().job_changed(job.id);
        // The runner asks for the list of jobs to cancel; it is longer or shorter now.
        self.events().cluster_changed(job.cluster);
    }
}

fn is_in_scope(job: &StoredJob, scope: Option<ClusterId>) -> bool {
    scope.is_none_or(|cluster| job.cluster == cluster)
}

/// Writes the next state if nobody was faster.
async fn write(
    session: &mut Session,
    job: &StoredJob,
    next: JobState,
) -> Result<Option<StoredJob>, Error> {
    let mut after = StoredJob {
        state: next,
        version: job.version + 1,
        ..job.clone()
    };
    remember(&mut after);
    let give_up_at = after
        .permitted_at
        .map(|permitted| give_up_at(&after, permitted));
    let written = sql!(
        session,
        execute,
        "UPDATE jobs SET state = $4, state_detail = $5, version = $6, runner = $7, pod = $8, \
         permitted_at = $9, give_up_at = $10 WHERE id = $1 AND version = $2 AND log_bytes = $3",
        *job.id.as_uuid(),
        job.version,
        column::to_column(job.log_bytes),
        after.state.name().as_str(),
        column::to_json(&after.state)?,
        after.version,
        after.runner.as_ref().map(|runner| runner.0.as_str()),
        after.pod.map(|pod| *pod.as_uuid()),
        after.permitted_at.map(Timestamp::as_microsecond),
        give_up_at.map(Timestamp::as_microsecond),
    )?;
    Ok((written == 1).then_some(after))
}

/// Keeps what a later state will not say any more.
fn remember(job: &mut StoredJob) {
    if let Some(runner) = runner_of(&job.state) {
        job.runner = Some(runner.clone());
    }
    if let Some((pod, permitted)) = permit_of(&job.state) {
        job.pod = Some(pod);
        job.permitted_at = Some(permitted);
    }
}

fn runner_of(state: &JobState) -> Option<&RunnerId> {
    match state {
        JobState::Claimed { runner, .. } | JobState::Starting { runner, .. } => Some(runner),
        _ => None,
    }
}

fn permit_of(state: &JobState) -> Option<(PodUid, Timestamp)> {
    match state {
        JobState::Running {
            pod,
            since: permitted,
        } => Some((*pod, *permitted)),
        JobState::ContactLost {
            pod,
            started: permitted,
            ..
        } => Some((*pod, *permitted)),
        JobState::Cancelling {
            pod,
            started: permitted,
            ..
        } => Some((*pod, *permitted)),
        _ => None,
    }
}

fn give_up_at(job: &StoredJob, permitted: Timestamp) -> Timestamp {
    let limit = job.run_limit_seconds().unwrap_or(UNKNOWN_RUN_LIMIT_SECONDS);
    // A limit so long that the sum is no time is never over.
    permitted
        .saturating_add(Duration::from_secs(limit).saturating_add(GIVE_UP_AFTER))
        .unwrap_or(Timestamp::MAX)
}

const fn action(event: &Event) -> &'static str {
    match event {
        Event::Claim { .. } => "job.claim",
        Event::PodCreated { .. } => "job.pod_created",
        Event::Permit { .. } => "job.permit",
        Event::Recover { .. } => "job.recover",
        Event::Cancel { .. } => "job.cancel",
        Event::CancelDelivered { .. } => "job.cancel_delivered",
        Event::Exit { .. } => "job.complete",
        Event::Reject { .. } => "job.reject",
        Event::PodFailed { .. } => "job.pod_failed",
        Event::Postpone => "job.postpone",
        Event::StartDeadline { .. } => "job.expire",
        Event::Silence { .. } => "job.contact_lost",
        Event::Contact { .. } => "job.contact_back",
        Event::GiveUp { .. } => "job.give_up",
    }
}
