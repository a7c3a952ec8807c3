//! The one place that writes the state of a fan-out and of its clusters.
//!
//! ```text
//!   load fan-out, clusters, their jobs ──▶ draft what follows ──▶ UPDATE fanouts … WHERE version = loaded
//!     ▲                                                               │          │ 1 row: clusters, jobs,
//!     │ 0 rows: somebody was faster                                   │          ▼ story, audit; commit
//!     └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! **One compare-and-set for all of it.** Whatever is started, and whatever keeps more from being started, is
//! written under the fan-out's own version, so that of two dispatchers, or of a start and a cancel, exactly one
//! has seen what the other did.
//!
//! **The fan-out is read first, its clusters after it.** A cluster that is newer than its fan-out was written
//! under a later version, and then ours loses. The other way round a start could be decided on clusters that
//! have long since moved on. Jobs change without their fan-out, and only towards their end: one that has ended
//! since it was read is one that runs less than was thought.
//!
//! Jobs that are to be cancelled are cancelled in the same transaction: one that has not started when its
//! fan-out stops never does.

use std::time::Duration;

use invoke_protocol::fanout::{
    ChildEvent, ChildRefusesEvent, ChildState, FanOutEvent, FanOutRefusal, FanOutState, FanOutStep,
    FanOutStepName, JobEnd,
};
use invoke_protocol::id::{ClusterName, FanOutId, JobId};
use invoke_protocol::state::{Event, JobState};
use jiff::Timestamp;

use super::fanout_clusters::{self, StoredChild};
use super::fanouts::{self, StoredFanOut};
use super::jobs::{self, NewJob, StoredJob};
use super::transition::{self, Change, Outcome, Verdict};
use super::{Error, Session, Store, audit, fanout_story};

/// For how long a fan-out that has stopped, or has failed in part, can be made to go on. For as long its secrets
/// and its files are kept.
const RESUMABLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What follows for a fan-out and its clusters, until it is written.
#[derive(Debug)]
pub struct Draft {
    before: StoredFanOut,
    after: StoredFanOut,
    children: Vec<StoredChild>,
    /// Which of these are not as they were.
    changed: Vec<bool>,
    jobs: Vec<NewJob>,
    cancels: Vec<Cancel>,
    steps: Vec<FanOutStep>,
    /// What was done to the fan-out itself, by whom, and what came of it.
    acts: Vec<(&'static str, String, &'static str)>,
}

/// A job of a fan-out that is to be cancelled.
#[derive(Debug)]
struct Cancel {
    job: JobId,
    by: String,
    grace_seconds: Option<u64>,
}

/// What has become of a draft.
#[derive(Debug)]
pub enum Written {
    /// It is durable. The fan-out as it is now.
    Yes(Box<StoredFanOut>),
    /// Somebody was faster. Nothing of it was kept.
    Overtaken,
    /// The job of the cluster at this place was not taken. Nothing of it was kept.
    NotTaken(u32, NotTaken),
}

/// Why a job that was to be started was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Its submitter has used its key for another job.
    KeyUsed,
    /// Its files are gone.
    FilesGone,
}

/// What has become of a draft in a transaction that is not committed yet.
enum Attempt {
    Done { cancelled: Vec<StoredJob> },
    Overtaken,
    NotTaken(u32, NotTaken),
}

impl Store {
    /// Writes what follows for a fan-out, all or nothing, and then tells who waits for it.
    ///
    /// # Guarantees
    /// The session must be the one that the draft was loaded in. Nothing is told that is not durable.
    ///
    /// # Errors
    /// [`Error`]; then nothing of it was kept, unless the connection broke in the commit.
    pub async fn write_fanout(
        &self,
        mut session: Session,
        mut draft: Draft,
        now: Timestamp,
    ) -> Result<Written, Error> {
        let cancelled = match draft.write(&mut session, now).await? {
            Attempt::Done { cancelled } => cancelled,
            Attempt::Overtaken => return Ok(Written::Overtaken),
            Attempt::NotTaken(position, why) => return Ok(Written::NotTaken(position, why)),
        };
        session.commit().await?;
        let Draft { after: fanout, .. } = draft;
        for job in &cancelled {
            self.tell(job);
        }
        self.events().fanout_changed(fanout.id);
        Ok(Written::Yes(Box::new(fanout)))
    }
}

impl Draft {
    /// Begins with what is stored; `None` if there is no such fan-out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn load(session: &mut Session, id: FanOutId) -> Result<Option<Self>, Error> {
        let Some(fanout) = fanouts::find(session, id).await? else {
            return Ok(None);
        };
        let children = fanout_clusters::of_fanout(session, id).await?;
        Ok(Some(Self::of(fanout, children)))
    }

    /// Begins with what is given.
    #[must_use]
    pub fn of(fanout: StoredFanOut, children: Vec<StoredChild>) -> Self {
        Self {
            after: fanout.clone(),
            before: fanout,
            changed: vec![false; children.len()],
            children,
            jobs: Vec::new(),
            cancels: Vec::new(),
            steps: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// The fan-out, as it would be.
    #[must_use]
    pub const fn fanout(&self) -> &StoredFanOut {
        &self.after
    }

    /// Its clusters, as they would be, in their order.
    #[must_use]
    pub fn children(&self) -> &[StoredChild] {
        &self.children
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.cancels.is_empty() && !self.changed.contains(&true)
    }

    /// Applies an event to the fan-out.
    ///
    /// # Errors
    /// [`FanOutRefusal`]; then nothing has changed.
    pub fn apply(
        &mut self,
        event: &FanOutEvent,
        by: &str,
        now: Timestamp,
    ) -> Result<(), FanOutRefusal> {
        let next = self.after.state.clone().on(event.clone(), now)?;
        if next == self.after.state {
            return Ok(());
        }
        let (step, action, message) = words(event, &next);
        if matches!(event, FanOutEvent::Resume | FanOutEvent::Retry) {
            self.after.round += 1;
        }
        self.after.resumable_until = resumable_until(&next, now);
        self.acts
            .push((action, by.to_owned(), next.name().as_str()));
        self.after.state = next;
        self.tell(step, None, message, by, now);
        Ok(())
    }

    /// Applies an event to the cluster at a place in the order.
    ///
    /// # Errors
    /// [`ChildRefusesEvent`]; then nothing has changed.
    pub fn apply_to(
        &mut self,
        position: u32,
        event: &ChildEvent,
        by: &str,
        now: Timestamp,
    ) -> Result<(), ChildRefusesEvent> {
        let round = self.after.round;
        let Some((child, changed)) = self.child(position) else {
            return Ok(());
        };
        let next = child.state.clone().on(event.clone(), now)?;
        if next == child.state {
            return Ok(());
        }
        let never_ran = matches!(child.state, ChildState::NotStarted { job: None, .. });
        if *event == ChildEvent::Retry && !never_ran {
            child.attempt += 1;
        }
        let told = child_words(child, event, &next);
        let cluster = child.cluster_name.clone();
        child.job = child.job.take().filter(|_| next.job().is_some());
        (child.state, child.round, *changed) = (next, round, true);
        if let Some((step, message)) = told {
            self.tell(step, Some(cluster), message, by, now);
        }
        Ok(())
    }

    /// Starts the cluster at a place in the order.
    ///
    /// # Errors
    /// [`ChildRefusesEvent`]; then nothing has changed.
    pub fn start(
        &mut self,
        position: u32,
        job: NewJob,
        by: &str,
        now: Timestamp,
    ) -> Result<(), ChildRefusesEvent> {
        self.apply_to(position, &ChildEvent::Start { job: job.id }, by, now)?;
        self.jobs.push(job);
        Ok(())
    }

    /// Cancels a job of one of its clusters.
    pub fn cancel(&mut self, job: JobId, by: &str, grace_seconds: Option<u64>) {
        self.cancels.push(Cancel {
            job,
            by: by.to_owned(),
            grace_seconds,
        });
    }

    fn child(&mut self, position: u32) -> Option<(&mut StoredChild, &mut bool)> {
        let index = position as usize;
        self.children
            .get_mut(index)
            .zip(self.changed.get_mut(index))
    }

    fn tell(
        &mut self,
        step: FanOutStepName,
        cluster: Option<ClusterName>,
        message: String,
        by: &str,
        now: Timestamp,
    ) {
        self.after.version += 1;
        self.steps.push(FanOutStep {
            at: now,
            by: by.to_owned(),
            step,
            cluster,
            message,
        });
    }

    async fn write(&mut self, session: &mut Session, now: Timestamp) -> Result<Attempt, Error> {
        if self.steps.is_empty() {
            // Its story has nothing new, and yet its version must tell that something is.
            self.after.version += 1;
        }
        if !fanouts::update(session, &self.before, &self.after).await? {
            return Ok(Attempt::Overtaken);
        }
        for job in &self.jobs {
            if let Some(why) = take(session, job, now).await? {
                return Ok(Attempt::NotTaken(self.position_of(job.id), why));
            }
        }
        let cancelled = self.cancel_jobs(session, now).await?;
        for (child, changed) in self.children.iter().zip(&self.changed) {
            if *changed {
                fanout_clusters::update(session, self.after.id, child).await?;
            }
        }
        self.record(session, now).await?;
        Ok(Attempt::Done { cancelled })
    }

    fn position_of(&self, job: JobId) -> u32 {
        let mut children = self.children.iter();
        let child = children.find(|child| child.state.job() == Some(job));
        child.map_or(0, |child| child.position)
    }

    /// All of them are locked before the first is changed. What ends a job locks it and then its upload, which
    /// jobs share: to hold the upload and wait for the next job would be a deadlock.
    async fn cancel_jobs(
        &self,
        session: &mut Session,
        now: Timestamp,
    ) -> Result<Vec<StoredJob>, Error> {
        if self.cancels.is_empty() {
            return Ok(Vec::new());
        }
        jobs::lock_open_of_fanout(session, self.after.id).await?;
        let mut cancelled = Vec::new();
        for Cancel {
            job,
            by,
            grace_seconds,
        } in &self.cancels
        {
            let change = Change {
                job: *job,
                scope: None,
                by,
                now,
            };
            let event = Event::Cancel {
                by: by.clone(),
                grace_seconds: *grace_seconds,
            };
            // One that is over meanwhile refuses, and needs no cancel.
            let outcome = transition::change_in(session, change, event).await?;
            if let Some(Outcome {
                job,
                verdict: Ok(Verdict::Changed),
            }) = outcome
            {
                cancelled.push(job);
            }
        }
        Ok(cancelled)
    }

    async fn record(&self, session: &mut Session, now: Timestamp) -> Result<(), Error> {
        let first = self.before.version + 1;
        for (version, step) in (first..).zip(&self.steps) {
            fanout_story::add(session, self.after.id, version, step).await?;
        }
        let object = format!("fan-out {}", self.after.id);
        for (action, who, outcome) in &self.acts {
            let entry = audit::Entry {
                who,
                action,
                object: &object,
                outcome,
            };
            audit::add(session, entry, now).await?;
        }
        Ok(())
    }
}

/// Why the job was not taken, if it was not.
async fn take(
    session: &mut Session,
    job: &NewJob,
    now: Timestamp,
) -> Result<Option<NotTaken>, Error> {
    match jobs::add(session, job, now).await {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some(NotTaken::KeyUsed)),
        Err(Error::FilesGone(_)) => Ok(Some(NotTaken::FilesGone)),
        Err(error) => Err(error),
    }
}

/// What has succeeded, or was cancelled, is over for ever.
fn resumable_until(state: &FanOutState, now: Timestamp) -> Option<Timestamp> {
    match state {
        FanOutState::Stopped { .. } | FanOutState::Incomplete { .. } => {
            Some(now.saturating_add(RESUMABLE).unwrap_or(Timestamp::MAX))
        }
        _ => None,
    }
}

/// Which step a change of the fan-out is, what the audit log calls it, and its particulars.
fn words(event: &FanOutEvent, next: &FanOutState) -> (FanOutStepName, &'static str, String) {
    match (event, next) {
        (FanOutEvent::Stop { reason }, _) => (
            FanOutStepName::Stopping,
            "fanout.stop",
            reason.message.clone(),
        ),
        (FanOutEvent::Cancel { grace_seconds, .. }, _) => {
            let grace = grace_seconds.map_or_else(String::new, |seconds| {
                format!("the commands have {seconds} s to end by themselves")
            });
            (FanOutStepName::CancelRequested, "fanout.cancel", grace)
        }
        (FanOutEvent::Resume, _) => (FanOutStepName::Resumed, "fanout.resume", String::new()),
        (FanOutEvent::Retry, _) => (
            FanOutStepName::Retried,
            "fanout.retry_failed",
            String::new(),
        ),
        (FanOutEvent::Settle { .. }, FanOutState::Stopped { .. }) => {
            (FanOutStepName::Stopped, "fanout.settle", String::new())
        }
        (FanOutEvent::Settle { .. }, next) => (
            FanOutStepName::Ended,
            "fanout.settle",
            next.name().to_string(),
        ),
    }
}

/// Which step a change of a cluster is, and its particulars; none for one that the fan-out's own step tells of.
fn child_words(
    child: &StoredChild,
    event: &ChildEvent,
    next: &ChildState,
) -> Option<(FanOutStepName, String)> {
    let name = next.name();
    match event {
        ChildEvent::Wait => Some((
            FanOutStepName::ClusterWaiting,
            "its runner does not speak".to_owned(),
        )),
        ChildEvent::Start { job } => {
            let attempt = match child.attempt {
                1 => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            Some((
                FanOutStepName::ClusterStarted,
                format!("job {job}{attempt}"),
            ))
        }
        ChildEvent::End { end, .. } => {
            let state = child.job.as_ref().map(JobState::name);
            let message = match (end, state) {
                (JobEnd::Failed, Some(state)) => format!("{name}: its job is {state}"),
                _ => name.to_string(),
            };
            Some((FanOutStepName::ClusterEnded, message))
        }
        ChildEvent::Refuse { message, .. }
        | ChildEvent::GiveUp { message }
        | ChildEvent::Skip { message } => {
            Some((FanOutStepName::ClusterEnded, format!("{name}: {message}")))
        }
        ChildEvent::Leave | ChildEvent::Cancel | ChildEvent::Retry => None,
    }
}
