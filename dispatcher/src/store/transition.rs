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

use invoke_protocol::files::FILES_WITHIN_SECONDS;
use invoke_protocol::id::{ClusterId, JobId, PodUid, RunnerId};
use invoke_protocol::job::{Step, StepName};
use invoke_protocol::state::{Event, JobState, ReasonCode, Refusal, Retries};
use jiff::Timestamp;

use super::jobs::{self, StoredJob};
use super::uploads::{self, Key};
use super::{Error, Session, Store, audit, column, contradiction, outbox, story};

/// Something that happens to a job.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The job.
    pub job: JobId,
    /// The only cluster whose job it may be; `None` if who asks is not of one.
    pub scope: Option<ClusterId>,
    /// Who makes it happen, for the story and the audit log.
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
    /// Whoever waits for the job is told after the change is durable, never before. A job that goes back
    /// to the queue is in the outbox again, in the same transaction. A report that is refused because it
    /// contradicts the record is in the job's story and in the audit log, and raises an alarm.
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
            let next = match state_for(&job, &event).on(event.clone(), change.now) {
                Err(refusal) => {
                    if let Some(words) = contradiction::words(&job, &event, refusal) {
                        self.refuse(session, &job, change, action(&event), &words)
                            .await?;
                    }
                    return Ok(Some(Outcome {
                        job,
                        verdict: Err(refusal),
                    }));
                }
                Ok(next) if next == job.state && !is_retry(&job, &event, &next) => {
                    return Ok(Some(Outcome {
                        job,
                        verdict: Ok(Verdict::Repeated),
                    }));
                }
                Ok(next) => next,
            };
            let after = following(&job, &event, next, change.now);
            if write(&mut session, &job, &after, &event, change).await? {
                session.commit().await?;
                self.tell(&after);
                return Ok(Some(Outcome {
                    job: after,
                    verdict: Ok(Verdict::Changed),
                }));
            }
        }
        Err(Error::Contended(change.job))
    }

    /// Takes down that an upload was refused because it comes after the end and says more than is on
    /// record. Repeated, it is taken down once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn refuse_output(&self, job: &StoredJob, change: Change<'_>) -> Result<(), Error> {
        let session = self.write().await?;
        let words = contradiction::output_after_end(job);
        self.refuse(session, job, change, "job.output", &words)
            .await
    }

    /// A report that contradicts the record: the record stands, and people are told.
    async fn refuse(
        &self,
        mut session: Session,
        job: &StoredJob,
        change: Change<'_>,
        action: &str,
        words: &str,
    ) -> Result<(), Error> {
        let step = StepName::ReportRefused;
        // Said again, it is nothing new: whoever repeats it fills neither the store nor the log.
        if story::has(&mut session, job.id, step, words).await? {
            return Ok(());
        }
        let version = jobs::next_version(&mut session, job.id).await?;
        let step = Step {
            at: change.now,
            by: change.by.to_owned(),
            step,
            message: words.to_owned(),
        };
        story::add(&mut session, job.id, version, &step).await?;
        record(&mut session, job.id, change, action, "refused").await?;
        session.commit().await?;
        tracing::error!(
            alarm = true,
            job.id = %job.id,
            "job {}: a report by {} was refused: {words}",
            job.id,
            change.by
        );
        self.events().job_changed(job.id);
        Ok(())
    }

    /// To be called when the job's change is durable, not before.
    pub(super) fn tell(&self, job: &StoredJob) {
        let state = job.state.name();
        tracing::info!(job.id = %job.id, job.state = %state, "job {} is {state}", job.id);
        self.events().job_changed(job.id);
        if let Some(fanout) = job.fanout.filter(|_| job.state.is_terminal()) {
            self.events().fanout_changed(fanout);
        }
        // The runner asks for the list of jobs to cancel; it is longer or shorter now.
        self.events().cluster_changed(job.cluster);
    }
}

/// Applies an event to a job in the caller's transaction, which has locked it; `None` if there is no such job. The
/// caller tells of it when that is durable.
///
/// # Errors
/// [`Error`]; [`Error::Contended`] if the job was not locked, and somebody else changed it.
pub(super) async fn change_in(
    session: &mut Session,
    change: Change<'_>,
    event: Event,
) -> Result<Option<Outcome>, Error> {
    let Some(job) = jobs::find(session, change.job).await? else {
        return Ok(None);
    };
    let (job, verdict) = match job.state.clone().on(event.clone(), change.now) {
        Err(refusal) => (job, Err(refusal)),
        Ok(next) if next == job.state => (job, Ok(Verdict::Repeated)),
        Ok(next) => {
            let after = following(&job, &event, next, change.now);
            if !write(session, &job, &after, &event, change).await? {
                return Err(Error::Contended(change.job));
            }
            (after, Ok(Verdict::Changed))
        }
    };
    Ok(Some(Outcome { job, verdict }))
}

fn is_in_scope(job: &StoredJob, scope: Option<ClusterId>) -> bool {
    scope.is_none_or(|cluster| job.cluster == cluster)
}

/// The state that an event meets: the job's own. Only where a test has turned that protection off, an
/// end that is on record can be written over.
fn state_for(job: &StoredJob, event: &Event) -> JobState {
    match (event, job.permitted_at) {
        (Event::Exit { pod, .. }, Some(since))
            if job.state.is_terminal() && invoke_hooks::sabotaged("no-end-once") =>
        {
            JobState::Running { pod: *pod, since }
        }
        _ => job.state.clone(),
    }
}

/// Whether the event put the job back into the queue because a pod was lost: a change even where it was
/// in the queue before, unless it is the same pod's loss again.
fn is_retry(job: &StoredJob, event: &Event, next: &JobState) -> bool {
    let Event::PodFailed { pod, .. } = event else {
        return false;
    };
    let is_told_again = pod.is_none() || *pod == job.retries.last;
    *next == JobState::Queued && !(job.state == JobState::Queued && is_told_again)
}

/// The job as it is after the event.
fn following(job: &StoredJob, event: &Event, next: JobState, now: Timestamp) -> StoredJob {
    let mut after = StoredJob {
        version: job.version + 1,
        ..job.clone()
    };
    if is_retry(job, event, &next) {
        let last = match event {
            Event::PodFailed { pod: Some(pod), .. } => Some(*pod),
            _ => job.retries.last,
        };
        after.retries = Retries {
            count: job.retries.count.saturating_add(1),
            last,
        };
    }
    if next == JobState::Queued {
        // The broker has not confirmed the message that is to come.
        after.published_at = None;
    }
    after.reported_waiting = after
        .reported_waiting
        .filter(|reason| is_still_true(reason.code, &job.state, event, &next));
    after.state = next;
    remember(&mut after);
    after.give_up_at = job
        .give_up_at
        .or_else(|| after.permitted_at.map(|at| give_up_at(&after, at, now)));
    after
}

/// Whether what the runner said last about why the job is not getting on may still be why.
fn is_still_true(code: ReasonCode, before: &JobState, event: &Event, next: &JobState) -> bool {
    match (before, next) {
        // Put off: what it was put off for is the best that is known. Lost: that pod is gone.
        (_, JobState::Queued) => matches!(event, Event::Postpone),
        // A new attempt begins.
        (JobState::Queued, _) => false,
        (_, JobState::Claimed { .. }) => true,
        (_, JobState::Starting { .. }) => !is_before_the_pod(code),
        // It has started, or is over.
        _ => false,
    }
}

/// Whether a reason says that there is no pod yet.
const fn is_before_the_pod(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::RunnerBusy
            | ReasonCode::ClockSkew
            | ReasonCode::ApiServerUnavailable
            | ReasonCode::Quota
            | ReasonCode::AdmissionUnavailable
    )
}

/// Writes what follows, and tells of it, if nobody was faster.
async fn write(
    session: &mut Session,
    job: &StoredJob,
    after: &StoredJob,
    event: &Event,
    change: Change<'_>,
) -> Result<bool, Error> {
    if !update(session, job, after).await? {
        return Ok(false);
    }
    if after.state == JobState::Queued {
        outbox::add(session, job.id, change.now).await?;
    }
    if after.state.is_terminal() {
        let_go(session, after, change.now).await?;
    }
    let (step, message) = story::of_change(event, &after.state, after.retries);
    let step = Step {
        at: change.now,
        by: change.by.to_owned(),
        step,
        message,
    };
    story::add(session, job.id, after.version, &step).await?;
    let outcome = after.state.name().as_str();
    record(session, job.id, change, action(event), outcome).await?;
    Ok(true)
}

/// A job that is over reads nothing any more, and its files are kept from now on for as long as its output.
async fn let_go(session: &mut Session, job: &StoredJob, now: Timestamp) -> Result<(), Error> {
    if job.stdin {
        uploads::remove(session, &Key::Stdin(job.id), now).await?;
    }
    if let Some(files) = job.files_upload {
        // Removed already: then nobody needs it.
        uploads::touch(session, files, now).await?;
    }
    Ok(())
}

/// The compare-and-set; `false` if somebody was faster.
async fn update(session: &mut Session, job: &StoredJob, after: &StoredJob) -> Result<bool, Error> {
    let written = sql!(
        session,
        execute,
        "UPDATE jobs SET state = $4, state_detail = $5, version = $6, runner = $7, pod = $8, \
         permitted_at = $9, give_up_at = $10, retries = $11, retried_pod = $12, waiting = $13, \
         published_at = $14, ended_at = $15, \
         sealed_secrets = CASE WHEN $16 THEN NULL ELSE sealed_secrets END \
         WHERE id = $1 AND version = $2 AND log_bytes = $3",
        *job.id.as_uuid(),
        job.version,
        column::to_column(job.log_bytes),
        after.state.name().as_str(),
        column::to_json(&after.state)?,
        after.version,
        after.runner.as_ref().map(|runner| runner.0.as_str()),
        after.pod.map(|pod| *pod.as_uuid()),
        after.permitted_at.map(Timestamp::as_microsecond),
        after.give_up_at.map(Timestamp::as_microsecond),
        i64::from(after.retries.count),
        after.retries.last.map(|pod| *pod.as_uuid()),
        after
            .reported_waiting
            .as_ref()
            .map(column::to_json)
            .transpose()?,
        after.published_at.map(Timestamp::as_microsecond),
        after.state.ended_at().map(Timestamp::as_microsecond),
        after.state.is_terminal(),
    )?;
    Ok(written == 1)
}

/// A line of the audit log about a job.
async fn record(
    session: &mut Session,
    job: JobId,
    change: Change<'_>,
    action: &str,
    outcome: &str,
) -> Result<(), Error> {
    let object = format!("job {job}");
    let entry = audit::Entry {
        who: change.by,
        action,
        object: &object,
        outcome,
    };
    audit::add(session, entry, change.now).await
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

/// When a job that was permitted to start at `permitted`, as this store knows since `now`, is given up if
/// nothing is heard. A start of which only the cluster's own record tells may be long ago: its report gets
/// its time all the same.
fn give_up_at(job: &StoredJob, permitted: Timestamp, now: Timestamp) -> Timestamp {
    let limit = job.run_limit_seconds().unwrap_or(UNKNOWN_RUN_LIMIT_SECONDS);
    // A limit so long that the sum is no time is never over.
    let later = |from: Timestamp, by: Duration| from.saturating_add(by).unwrap_or(Timestamp::MAX);
    // Its run time begins when its files are there.
    let files = job.files.map_or(0, |_| FILES_WITHIN_SECONDS);
    let limit = limit.saturating_add(files);
    later(
        later(permitted, Duration::from_secs(limit)).max(now),
        GIVE_UP_AFTER,
    )
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
        Event::StartRefused { .. } => "job.start_refused",
        Event::Reject { .. } => "job.reject",
        Event::PodFailed { .. } => "job.pod_failed",
        Event::Postpone => "job.postpone",
        Event::StartDeadline { .. } => "job.expire",
        Event::Silence { .. } => "job.contact_lost",
        Event::Contact { .. } => "job.contact_back",
        Event::GiveUp { .. } => "job.give_up",
    }
}
