//! How many jobs may have a pod at once. What is above waits in the queue.
//!
//! The count is of pods that are there, whoever made them, so it survives a restart and holds for all
//! replicas together; on top of that come the pods that this replica is about to make.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use invoke_protocol::id::JobId;
use tokio::sync::{Notify, watch};

/// The limit, and what counts against it.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// Jobs that have a live pod, as the watch sees it.
    live: watch::Receiver<BTreeSet<JobId>>,
    /// Jobs that are about to get one.
    taken: Mutex<BTreeSet<JobId>>,
    released: Notify,
}

/// The right to make one job's pod. Kept until the pod counts by itself.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    job: JobId,
}

impl Slots {
    pub(crate) fn new(limit: usize, live: watch::Receiver<BTreeSet<JobId>>) -> Self {
        Self(Arc::new(Shared {
            limit,
            live,
            taken: Mutex::default(),
            released: Notify::new(),
        }))
    }

    /// A slot, if there is one now.
    pub(crate) fn try_take(&self, job: JobId) -> Option<Slot> {
        let mut taken = self.0.taken();
        let live = self.0.live.borrow();
        let has_pod = live.contains(&job);
        // A job that has its pod already is not one more.
        if !has_pod && live.union(&taken).count() >= self.0.limit {
            return None;
        }
        taken.insert(job);
        Some(Slot {
            shared: Arc::clone(&self.0),
            job,
        })
    }

    /// A slot, when there is one.
    pub(crate) async fn take(&self, job: JobId) -> Slot {
        let mut live = self.0.live.clone();
        loop {
            // Both before the look: a slot that is freed in between must wake us, not be missed.
            let released = self.0.released.notified();
            live.mark_unchanged();
            if let Some(slot) = self.try_take(job) {
                return slot;
            }
            tokio::select! {
                () = released => {}
                // The watch is gone only when the program is: then nobody waits here for long.
                changed = live.changed() => if changed.is_err() { std::future::pending().await },
            }
        }
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.taken().remove(&self.job);
        self.shared.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u8) -> JobId {
        format!("0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b{number:02x}")
            .parse()
            .unwrap()
    }

    #[test]
    fn pods_and_pods_to_be_count_once_each() {
        let (live, receiver) = watch::channel(BTreeSet::from([job(1)]));
        let slots = Slots::new(3, receiver);
        let second = slots.try_take(job(2)).unwrap();
        live.send_replace(BTreeSet::from([job(1), job(2)]));
        let third = slots.try_take(job(3));
        assert!(third.is_some(), "job 2 is not two");
        assert!(slots.try_take(job(4)).is_none());
        assert!(
            slots.try_take(job(1)).is_some(),
            "a job that has its pod may adopt it"
        );
        drop((second, third));
        assert!(slots.try_take(job(4)).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_either() {
        let (live, receiver) = watch::channel(BTreeSet::new());
        let slots = Slots::new(1, receiver);
        let first = slots.take(job(1)).await;
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(job(2)).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.unwrap();
        live.send_replace(BTreeSet::from([job(2)]));
        drop(second);
        let waiting = tokio::spawn(async move { slots.take(job(3)).await });
        tokio::task::yield_now().await;
        live.send_replace(BTreeSet::new());
        waiting.await.unwrap();
    }
}
