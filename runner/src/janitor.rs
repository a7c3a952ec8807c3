//! Looks at every job pod and every record of a start, asks the dispatcher about its job, and puts right
//! what does not fit: a pod whose job is over goes, and a start that the dispatcher has forgotten is
//! told.
//!
//! It trusts nothing that this process remembers: it is what puts right whatever a crash, a lost event
//! or a replica that is gone left behind.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use invoke_protocol::runner::Claim;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock;
use crate::job_pod::JobPod;
use crate::recovery::Recovery;
use crate::report::chain;
use crate::start_record::StartRecord;

const EVERY: Duration = Duration::from_secs(30);

/// Records outnumber pods by far, so they are looked at in every twentieth round only, and whenever the
/// dispatcher is there again: it may have been away to be restored. Nothing depends on it: a job that
/// was forgotten is recognised as soon as it is ordered again.
const RECORDS_EVERY: u64 = 20;

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// Cleans up at the start, whenever the dispatcher is there again, and every half minute, for ever.
pub(crate) async fn keep(recovery: Recovery, reconnected: Arc<Notify>) {
    let mut rounds = tokio::time::interval(EVERY);
    let mut round = 0_u64;
    loop {
        let is_again = tokio::select! {
            _ = rounds.tick() => false,
            () = reconnected.notified() => true,
        };
        tidy_pods(&recovery).await;
        if is_again || round.is_multiple_of(RECORDS_EVERY) {
            tidy_records(&recovery, clock::now()).await;
        }
        round += 1;
    }
}

async fn tidy_pods(recovery: &Recovery) {
    match recovery.pool.list().await {
        Ok(pods) => {
            let ours = pods.iter().filter_map(JobPod::read);
            stream::iter(ours)
                .for_each_concurrent(AT_ONCE, |pod| tidy_pod(pod, recovery))
                .await;
        }
        Err(error) => tracing::warn!("job pods cannot be listed now: {}", chain(&error)),
    }
}

async fn tidy_pod(pod: JobPod, recovery: &Recovery) {
    let JobPod { job, uid, .. } = pod;
    // Without an answer nothing is done: it may be the pod of a command that runs.
    match recovery.upstream.claim(job).await {
        Ok(Claim::Over) => {}
        Ok(Claim::Yours) => return remind(recovery, &pod).await,
        Ok(Claim::Started) | Err(_) => return,
    }
    match recovery.pool.remove(job, uid).await {
        Ok(()) => {
            tracing::info!(job.id = %job, pod.uid = %uid, "the pod of job {job}, which is over, is deleted");
        }
        Err(error) => {
            tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} was not deleted yet: {}", chain(&error));
        }
    }
}

/// Most pods whose job has not started are about to start it: only a record says otherwise.
async fn remind(recovery: &Recovery, pod: &JobPod) {
    match recovery.records.find(pod.job).await {
        Ok(Some(record)) => drop(recovery.remind(&record).await),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(job.id = %pod.job, "the record of the start of job {} cannot be read now: {}", pod.job, chain(&error));
        }
    }
}

async fn tidy_records(recovery: &Recovery, now: Timestamp) {
    match recovery.records.list().await {
        Ok(records) => {
            stream::iter(records)
                .for_each_concurrent(AT_ONCE, |record| tidy_record(record, recovery, now))
                .await;
        }
        Err(error) => tracing::warn!("records of starts cannot be listed now: {}", chain(&error)),
    }
}

async fn tidy_record(record: StartRecord, recovery: &Recovery, now: Timestamp) {
    if !record.is_outdated(now) {
        if let Ok(Claim::Yours) = recovery.upstream.claim(record.job).await {
            recovery.remind(&record).await;
        }
        return;
    }
    if let Err(error) = recovery.records.forget(&record).await {
        tracing::warn!(job.id = %record.job, "the record of the start of job {} was not deleted yet: {}", record.job, chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::runner::Report;

    use super::*;
    use crate::order::tests::{NOW, order};
    use crate::scripted::{Script, World};

    async fn tidied(script: Script, now: Timestamp) -> World {
        let world = World::new(script).await;
        let recovery = world.recovery();
        tidy_pods(&recovery).await;
        tidy_records(&recovery, now).await;
        world
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[tokio::test]
    async fn the_pod_of_a_job_that_is_over_goes_and_its_record_stays() {
        let script = Script {
            claim: Some(Claim::Over),
            ..Script::with_pod(1).with_record(1)
        };
        let world = tidied(script, now()).await;
        let script = world.script();
        assert!(script.pods.is_empty());
        assert_eq!(script.config_maps.len(), 1, "a backup may know less");
    }

    #[tokio::test]
    async fn what_was_started_or_not_answered_is_left_alone() {
        for claim in [Some(Claim::Started), None] {
            let script = Script {
                claim,
                no_answer: claim.is_none(),
                ..Script::with_pod(1).with_record(1)
            };
            let world = tidied(script, now()).await;
            let script = world.script();
            assert_eq!((script.pods.len(), script.reports.len()), (1, 0));
        }
    }

    /// The pod says so while it is there, and the record when it is not.
    #[tokio::test]
    async fn a_start_that_was_forgotten_is_told() {
        for script in [Script::with_pod(1), Script::default()] {
            let script = Script {
                claim: Some(Claim::Yours),
                forgotten: true,
                ..script.with_record(1)
            };
            let world = tidied(script, now()).await;
            let script = world.script();
            assert!(matches!(script.reports[0], Report::Recovered { .. }));
        }
    }

    #[tokio::test]
    async fn a_pod_that_has_yet_to_start_is_left_alone() {
        let script = Script {
            claim: Some(Claim::Yours),
            ..Script::with_pod(1)
        };
        let world = tidied(script, now()).await;
        let script = world.script();
        assert_eq!((script.pods.len(), script.reports.len()), (1, 0));
    }

    #[tokio::test]
    async fn a_record_goes_when_its_order_can_be_good_no_more() {
        let late = order().expires_at + jiff::SignedDuration::from_hours(2);
        let world = tidied(Script::default().with_record(1), late).await;
        assert!(world.script().config_maps.is_empty());
    }
}
