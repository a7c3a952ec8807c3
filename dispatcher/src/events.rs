//! Who waits for news of what, in this process.
//!
//! News is a hint to look at the store, and carries nothing. Another replica may have made the change,
//! so every wait ends after [`POLL`] too: a hint that never comes costs a second, not a hang.
//!
//! **Subscribe, then read, then wait.** A change between the read and the subscription would be news to
//! nobody, and its reader would sleep on what is no longer true until the next poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invoke_protocol::id::{ClusterId, FanOutId, JobId};
use tokio::sync::watch;

/// How long a wait lasts without news: how old an answer can be when another replica made the change.
pub const POLL: Duration = Duration::from_secs(1);

/// What news can be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Job(JobId),
    Cluster(ClusterId),
    FanOut(FanOutId),
    /// Any fan-out at all.
    FanOuts,
}

/// Everybody who waits. An entry lives as long as somebody does.
#[derive(Debug, Default)]
pub struct Events {
    waiting: Mutex<HashMap<Subject, watch::Sender<()>>>,
}

/// A wish to hear of one subject, from the moment that it was made.
#[derive(Debug)]
pub struct Subscription {
    events: Arc<Events>,
    subject: Subject,
    receiver: watch::Receiver<()>,
}

impl Events {
    /// To hear of a job.
    #[must_use]
    pub fn of_job(self: &Arc<Self>, job: JobId) -> Subscription {
        self.subscribe(Subject::Job(job))
    }

    /// To hear that the list of a cluster's jobs to cancel may have changed.
    #[must_use]
    pub fn of_cluster(self: &Arc<Self>, cluster: ClusterId) -> Subscription {
        self.subscribe(Subject::Cluster(cluster))
    }

    /// To hear of a fan-out.
    #[must_use]
    pub fn of_fanout(self: &Arc<Self>, fanout: FanOutId) -> Subscription {
        self.subscribe(Subject::FanOut(fanout))
    }

    /// To hear that some fan-out, or a job of one, is not as it was.
    #[must_use]
    pub fn of_fanouts(self: &Arc<Self>) -> Subscription {
        self.subscribe(Subject::FanOuts)
    }

    /// The job is not as it was. To be called when that is durable, not before.
    pub fn job_changed(&self, job: JobId) {
        self.tell(Subject::Job(job));
    }

    /// The cluster's list of jobs to cancel may not be as it was.
    pub fn cluster_changed(&self, cluster: ClusterId) {
        self.tell(Subject::Cluster(cluster));
    }

    /// The fan-out, or a job of it, is not as it was.
    pub fn fanout_changed(&self, fanout: FanOutId) {
        self.tell(Subject::FanOut(fanout));
        self.tell(Subject::FanOuts);
    }

    fn subscribe(self: &Arc<Self>, subject: Subject) -> Subscription {
        let receiver = self
            .waiting()
            .entry(subject)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Subscription {
            events: Arc::clone(self),
            subject,
            receiver,
        }
    }

    fn tell(&self, subject: Subject) {
        if let Some(sender) = self.waiting().get(&subject) {
            sender.send_replace(());
        }
    }

    /// A panic while the map was locked cannot have left it half changed: no call here is two steps.
    fn waiting(&self) -> MutexGuard<'_, HashMap<Subject, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Returns when there was news since the last call, or [`POLL`] is over.
    pub async fn news_or_poll(&mut self) {
        // It cannot be closed while it is subscribed to: the map holds the sender.
        let _elapsed = tokio::time::timeout(POLL, self.receiver.changed()).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = self.events.waiting();
        // Ours is still counted here; nobody subscribes meanwhile, as that takes the same lock.
        if waiting
            .get(&self.subject)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waiting.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn job() -> JobId {
        "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap()
    }

    /// The order that every reader relies on: what happens after the subscription is not missed, even
    /// if the reader is not waiting yet.
    #[tokio::test]
    async fn news_before_the_wait_ends_the_wait() {
        let events = Arc::new(Events::default());
        let mut subscription = events.of_job(job());
        events.job_changed(job());
        assert!(subscription.news_or_poll().now_or_never().is_some());
        assert!(subscription.news_or_poll().now_or_never().is_none());
    }

    #[tokio::test]
    async fn nobody_waiting_costs_nothing() {
        let events = Arc::new(Events::default());
        let (first, second) = (events.of_job(job()), events.of_job(job()));
        drop(first);
        assert_eq!(events.waiting().len(), 1);
        drop(second);
        assert!(events.waiting().is_empty());
    }
}
