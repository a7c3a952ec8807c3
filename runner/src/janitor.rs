//! Looks at every job pod there is, asks the dispatcher about its job, and deletes what is over.
//!
//! It trusts nothing that this process remembers: it is what puts right whatever a crash, a lost event
//! or a replica that is gone left behind.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use invoke_protocol::runner::Claim;

use crate::job_pod::JobPod;
use crate::pool::Pool;
use crate::report::chain;
use crate::upstream::Upstream;

const EVERY: Duration = Duration::from_secs(30);

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// Cleans up at the start and then every half minute, for ever.
pub(crate) async fn keep(pool: Pool, upstream: Arc<Upstream>) {
    let mut rounds = tokio::time::interval(EVERY);
    loop {
        rounds.tick().await;
        match pool.list().await {
            Ok(pods) => {
                let ours = pods.iter().filter_map(JobPod::read);
                stream::iter(ours)
                    .for_each_concurrent(AT_ONCE, |pod| tidy(pod, &pool, &upstream))
                    .await;
            }
            Err(error) => tracing::warn!("job pods cannot be listed now: {}", chain(&error)),
        }
    }
}

async fn tidy(pod: JobPod, pool: &Pool, upstream: &Upstream) {
    let JobPod { job, uid, .. } = pod;
    // Without an answer nothing is deleted: it may be the pod of a command that runs.
    let Ok(Claim::Over) = upstream.claim(job).await else {
        return;
    };
    match pool.remove(job, uid).await {
        Ok(()) => {
            tracing::info!(job.id = %job, pod.uid = %uid, "the pod of job {job}, which is over, is deleted");
        }
        Err(error) => {
            tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} was not deleted yet: {}", chain(&error));
        }
    }
}
