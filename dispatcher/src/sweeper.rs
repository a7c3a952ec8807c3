//! Looks at the store every second and does what is due. It takes no input and trusts no hint; several
//! dispatchers may sweep one store, because every change is a compare-and-set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use invoke_protocol::api::OFFLINE_AFTER_SECONDS;
use invoke_protocol::id::{ClusterId, JobId};
use invoke_protocol::state::{Event, Reason, ReasonCode};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::clock;
use crate::problem::chain;
use crate::store::due::{self, Overdue, before};
use crate::store::jobs::StoredJob;
use crate::store::transition::Change;
use crate::store::{self, Store};
use crate::waiting;

/// How long to wait at most between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// Running jobs of a cluster that has been silent for so long are marked.
const SILENCE: Duration = Duration::from_secs(60);

/// What was stored before this dispatcher began to listen is not expired before its cluster has been
/// heard for so long: the store may have been restored from a backup that does not know that a job was
/// started, and the cluster's own record of it must have had the time to come in.
const SETTLED: Duration = Duration::from_secs(15);

/// For how long a cluster that says nothing can hold that up. For as long nothing is given up either: the
/// reports of a time in which nobody listened are still on their way.
const RECONCILIATION: Duration = Duration::from_secs(120);

/// The sweeper of one dispatcher.
pub struct Sweeper {
    store: Store,
    /// To say what an expired job was waiting for, and to be woken for what is published again.
    broker: Arc<Broker>,
    /// When this dispatcher began to listen: before that it could not have heard anybody.
    listening_since: Timestamp,
    /// Since when it has heard which cluster.
    heard: Mutex<HashMap<ClusterId, Timestamp>>,
}

impl Sweeper {
    /// A sweeper of a dispatcher that has been listening since then.
    #[must_use]
    pub fn new(store: Store, broker: Arc<Broker>, listening_since: Timestamp) -> Self {
        Self {
            store,
            broker,
            listening_since,
            heard: Mutex::default(),
        }
    }

    /// Sweeps until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.sweep(clock::now()).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!("a round of the sweeper failed: {}", chain(&error));
                    ROUND
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One round. Answers when the next is due.
    ///
    /// # Errors
    /// [`store::Error`]; what was not done is due in the next round.
    pub async fn sweep(&self, now: Timestamp) -> Result<Duration, store::Error> {
        self.expire(now).await?;
        self.mark_silent(now).await?;
        self.give_up(now).await?;
        let spoken_since = before(now, Duration::from_secs(OFFLINE_AFTER_SECONDS));
        if !invoke_hooks::sabotaged("no-sweeper-requeue")
            && self.store.requeue_forgotten(spoken_since, now).await? > 0
        {
            self.broker.wake();
        }
        self.pause(now).await
    }

    /// To the second: a start deadline within the next round ends the pause.
    async fn pause(&self, now: Timestamp) -> Result<Duration, store::Error> {
        let mut session = self.store.read().await?;
        let next = due::next_start_deadline(&mut session).await?;
        let until = next.and_then(|deadline| Duration::try_from(deadline.duration_since(now)).ok());
        // One millisecond later: at the deadline itself a job may still start.
        Ok(until.map_or(ROUND, |until| (until + Duration::from_millis(1)).min(ROUND)))
    }

    async fn expire(&self, now: Timestamp) -> Result<(), store::Error> {
        if invoke_hooks::sabotaged("no-start-deadline") {
            return Ok(());
        }
        let mut session = self.store.read().await?;
        let overdue = due::to_expire(&mut session, now, self.overdue_at_once(now)).await?;
        drop(session);
        let jobs = self.certainly_unstarted(overdue, now);
        let broker = self.broker.health();
        self.change_all(jobs, now, |job| {
            let unknown = || Reason::new(ReasonCode::OnItsWay, "it was not started in time");
            Event::StartDeadline {
                reason: waiting::reason(job, &broker, now).unwrap_or_else(unknown),
            }
        })
        .await
    }

    /// While overdue jobs are held back, those behind them must be seen too.
    fn overdue_at_once(&self, now: Timestamp) -> u32 {
        if self.is_reconciling(now) {
            u32::MAX
        } else {
            due::ROUND
        }
    }

    /// Whether what a restored store has forgotten may still be on its way.
    fn is_reconciling(&self, now: Timestamp) -> bool {
        before(now, RECONCILIATION) < self.listening_since
    }

    /// Those of which nobody can come any more and say that they were started.
    fn certainly_unstarted(&self, overdue: Vec<Overdue>, now: Timestamp) -> Vec<JobId> {
        let is_reconciling = self.is_reconciling(now);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let certain = overdue.into_iter().filter(|overdue| {
            let mut is_settled = || {
                let speaks = overdue.cluster_last_contact >= Some(self.listening_since);
                speaks && *heard.entry(overdue.cluster).or_insert(now) <= before(now, SETTLED)
            };
            !is_reconciling
                || !overdue.cluster_enrolled
                || overdue.submitted_at >= self.listening_since
                || is_settled()
        });
        certain.map(|overdue| overdue.job).collect()
    }

    async fn mark_silent(&self, now: Timestamp) -> Result<(), store::Error> {
        let silent_since = before(now, SILENCE);
        if self.listening_since > silent_since {
            return Ok(());
        }
        let mut session = self.store.read().await?;
        let jobs = due::gone_silent(&mut session, silent_since).await?;
        drop(session);
        self.change_all(jobs, now, |job| Event::Silence {
            reason: cluster_silent(job),
        })
        .await
    }

    async fn give_up(&self, now: Timestamp) -> Result<(), store::Error> {
        if self.is_reconciling(now) {
            return Ok(());
        }
        let mut session = self.store.read().await?;
        let jobs = due::to_give_up(&mut session, now).await?;
        drop(session);
        self.change_all(jobs, now, |job| Event::GiveUp {
            reason: no_report(job),
        })
        .await
    }

    async fn change_all(
        &self,
        jobs: Vec<JobId>,
        now: Timestamp,
        event: impl Fn(&StoredJob) -> Event + Send + Sync,
    ) -> Result<(), store::Error> {
        for job in jobs {
            // A refusal is an answer: somebody else was faster, and the job is not due any more.
            self.store
                .change(
                    Change {
                        job,
                        scope: None,
                        by: "dispatcher",
                        now,
                    },
                    &event,
                )
                .await?;
        }
        Ok(())
    }
}

fn cluster_silent(job: &StoredJob) -> Reason {
    let message = format!(
        "the runner of cluster {} does not speak; the command may go on all the same",
        job.cluster_name
    );
    Reason::new(ReasonCode::ClusterOffline, message)
}

fn no_report(job: &StoredJob) -> Reason {
    let limit = job
        .run_limit_seconds()
        .map_or_else(String::new, |seconds| format!(" of {seconds} s"));
    let message = format!(
        "the command was started, its run time{limit} is long over, and cluster {} has not said how it ended",
        job.cluster_name
    );
    Reason::new(ReasonCode::NoReport, message)
}
