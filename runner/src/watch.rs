//! Watches job pods, tells the dispatcher what is wrong with them, and removes those that are done.

mod known_pods;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::runner::Report;
use invoke_protocol::topology::JOB_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::diagnosis::Diagnosis;
use crate::job_pod::JobPod;
use crate::pool::Pool;
use crate::report::chain;
use crate::upstream::Upstream;
use known_pods::{KnownPods, News};

/// Some diagnoses come with time, and what the dispatcher did not take is offered again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Watches for ever. `live` is kept to the jobs that have a live pod.
pub(crate) async fn keep(
    pods: Api<Pod>,
    pool: Pool,
    upstream: Arc<Upstream>,
    live: watch::Sender<BTreeSet<JobId>>,
) {
    let config = watcher::Config::default().labels(JOB_LABEL);
    let mut events = pin!(watcher(pods, config).default_backoff());
    let mut look = tokio::time::interval(LOOK_AGAIN);
    let mut known = KnownPods::default();
    let mut telling = JoinSet::new();
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(event) => {
                    known.see(event);
                    live.send_if_modified(|before| replace(before, known.live()));
                }
                Err(error) => tracing::warn!("job pods cannot be watched now: {}", chain(&error)),
            },
            Some(Ok((uid, told))) = telling.join_next() => known.learn(uid, told),
            _ = look.tick() => {}
        }
        for news in known.news(clock::now()) {
            telling.spawn(attend(news, pool.clone(), Arc::clone(&upstream)));
        }
    }
}

fn replace(before: &mut BTreeSet<JobId>, now: BTreeSet<JobId>) -> bool {
    let changed = *before != now;
    *before = now;
    changed
}

/// Tells the dispatcher, and removes a pod that is of no use once that is known. Answers what is done
/// with.
async fn attend(news: News, pool: Pool, upstream: Arc<Upstream>) -> (PodUid, Option<Diagnosis>) {
    let News { marks, diagnosis } = news;
    let useless = matches!(diagnosis, Diagnosis::Failed(_));
    let done =
        tell(&marks, &diagnosis, &upstream).await && (!useless || remove(&marks, &pool).await);
    if !done {
        // Whoever cannot answer now is not asked again at once.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    (marks.uid, done.then_some(diagnosis))
}

async fn tell(marks: &JobPod, diagnosis: &Diagnosis, upstream: &Upstream) -> bool {
    let JobPod { job, uid, .. } = marks;
    let report = match diagnosis.clone() {
        Diagnosis::Fine => return true,
        Diagnosis::Waiting(reason) => Report::Waiting { reason },
        Diagnosis::Failed(reason) => Report::PodFailed {
            pod: Some(*uid),
            reason,
        },
    };
    match upstream.report(*job, &report).await {
        Ok(()) => {
            if let Diagnosis::Failed(reason) = diagnosis {
                tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} failed: {}", reason.message);
            }
            true
        }
        // The dispatcher knows better: the job is over, or it runs in another pod.
        Err(error) if error.is_final() => true,
        Err(error) => {
            tracing::debug!(job.id = %job, "the dispatcher was not told about job {job}: {}", chain(&error));
            false
        }
    }
}

async fn remove(JobPod { job, uid, .. }: &JobPod, pool: &Pool) -> bool {
    match pool.remove(*job, *uid).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} was not deleted yet: {}", chain(&error));
            false
        }
    }
}
