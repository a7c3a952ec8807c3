//! Watches job pods, tells the dispatcher what is wrong with them, and removes those that are done.
//!
//! What was told is remembered only to not say it again. It is lost with the process, and then said
//! again: every report may be repeated.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::runner::Report;
use invoke_protocol::topology::JOB_LABEL;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::WatchStreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::diagnosis::{Diagnosis, diagnose, gone};
use crate::job_pod::{JobPod, is_live};
use crate::pool::Pool;
use crate::report::chain;
use crate::upstream::Upstream;

/// Some diagnoses come with time, and what the dispatcher did not take is offered again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Watches for ever. `live` is kept to the jobs that have a live pod.
pub(crate) async fn keep(pods: Api<Pod>, pool: Pool, upstream: Arc<Upstream>, live: watch::Sender<BTreeSet<JobId>>) {
    let mut events = pin!(watcher(pods, watcher::Config::default().labels(JOB_LABEL)).default_backoff());
    let mut look = tokio::time::interval(LOOK_AGAIN);
    let mut ward = Ward::default();
    let mut errands = JoinSet::new();
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(event) => {
                    ward.see(event);
                    live.send_if_modified(|known| replace(known, ward.live()));
                }
                Err(error) => tracing::warn!("job pods cannot be watched now: {}", chain(&error)),
            },
            Some(Ok((uid, told))) = errands.join_next() => ward.learn(uid, told),
            _ = look.tick() => {}
        }
        for errand in ward.errands(clock::now()) {
            errands.spawn(run(errand, pool.clone(), Arc::clone(&upstream)));
        }
    }
}

/// Something to do about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Errand {
    marks: JobPod,
    news: News,
}

/// What there is to say, or to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Tell(Diagnosis),
    /// The end is on record: the pod is of no use any more.
    Remove,
}

#[derive(Debug)]
struct Patient {
    marks: JobPod,
    /// As it was seen last.
    pod: Pod,
    gone: bool,
    /// What was done about it already.
    done: Option<News>,
    under_way: bool,
}

/// All job pods that are known.
#[derive(Debug, Default)]
struct Ward {
    patients: HashMap<PodUid, Patient>,
    /// Those met in the list that a watch begins with; `None` outside of one.
    listed: Option<HashSet<PodUid>>,
}

impl Ward {
    fn see(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let Some(uid) = self.admit(pod)
                    && let Some(listed) = &mut self.listed
                {
                    listed.insert(uid);
                }
            }
            // What vanished while nobody watched has no event of its own.
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let vanished = self.patients.iter_mut().filter(|(uid, _)| !listed.contains(uid));
                vanished.for_each(|(_, patient)| patient.gone = true);
            }
            Event::Apply(pod) => drop(self.admit(pod)),
            Event::Delete(pod) => {
                if let Some(uid) = self.admit(pod)
                    && let Some(patient) = self.patients.get_mut(&uid)
                {
                    patient.gone = true;
                }
            }
        }
    }

    fn admit(&mut self, pod: Pod) -> Option<PodUid> {
        let marks = JobPod::read(&pod)?;
        let uid = marks.uid;
        match self.patients.get_mut(&uid) {
            Some(patient) => patient.pod = pod,
            None => {
                let patient = Patient { marks, pod, gone: false, done: None, under_way: false };
                self.patients.insert(uid, patient);
            }
        }
        Some(uid)
    }

    fn live(&self) -> BTreeSet<JobId> {
        let live = self.patients.values().filter(|patient| !patient.gone && is_live(&patient.pod));
        live.map(|patient| patient.marks.job).collect()
    }

    /// What is to be done now and was not done yet.
    fn errands(&mut self, now: Timestamp) -> Vec<Errand> {
        self.patients.retain(|_, patient| !patient.is_settled());
        let waiting = self.patients.values_mut().filter(|patient| !patient.under_way);
        let errands = waiting.filter_map(|patient| {
            let news = patient.news(now).filter(|news| patient.done.as_ref() != Some(news))?;
            patient.under_way = true;
            Some(Errand { marks: patient.marks.clone(), news })
        });
        errands.collect()
    }

    /// `done` is what an errand got done, if it did.
    fn learn(&mut self, uid: PodUid, done: Option<News>) {
        if let Some(patient) = self.patients.get_mut(&uid) {
            patient.under_way = false;
            patient.done = done.or(patient.done.take());
        }
    }
}

impl Patient {
    fn news(&self, now: Timestamp) -> Option<News> {
        if self.gone {
            return Some(News::Tell(Diagnosis::Failed(gone(&self.pod))));
        }
        if succeeded(&self.pod) {
            return Some(News::Remove);
        }
        match diagnose(&self.pod, now) {
            Diagnosis::Fine => None,
            diagnosis => Some(News::Tell(diagnosis)),
        }
    }

    /// Nothing more can happen: it is gone, and its end was on record or has been told.
    fn is_settled(&self) -> bool {
        let told = matches!(self.done, Some(News::Tell(Diagnosis::Failed(_))));
        self.gone && !self.under_way && (told || succeeded(&self.pod))
    }
}

fn succeeded(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
}

fn replace(known: &mut BTreeSet<JobId>, now: BTreeSet<JobId>) -> bool {
    let changed = *known != now;
    *known = now;
    changed
}

async fn run(errand: Errand, pool: Pool, upstream: Arc<Upstream>) -> (PodUid, Option<News>) {
    let JobPod { job, uid, .. } = errand.marks;
    let done = match &errand.news {
        News::Tell(diagnosis) => tell(job, uid, diagnosis, &upstream).await,
        News::Remove => true,
    };
    // A pod that failed is of no use once that is known.
    let useless = !matches!(errand.news, News::Tell(Diagnosis::Waiting(_)));
    let done = done && (!useless || remove(job, uid, &pool).await);
    (uid, done.then_some(errand.news))
}

async fn tell(job: JobId, uid: PodUid, diagnosis: &Diagnosis, upstream: &Upstream) -> bool {
    let report = match diagnosis {
        Diagnosis::Fine => return true,
        Diagnosis::Waiting(reason) => Report::Waiting { reason: reason.clone() },
        Diagnosis::Failed(reason) => Report::PodFailed { pod: Some(uid), reason: reason.clone() },
    };
    match upstream.report(job, &report).await {
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

async fn remove(job: JobId, uid: PodUid, pool: &Pool) -> bool {
    match pool.remove(job, uid).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} was not deleted yet: {}", chain(&error));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::state::ReasonCode;
    use serde_json::{Value, json};

    use super::*;

    const JOB: &str = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("invoke-{JOB}"),
                "uid": "0197c1f0-1111-4c22-9d1b-3f2a9c8e4b10",
                "labels": {"invoke.dev/job": JOB, "app.kubernetes.io/managed-by": "invoke-runner"},
                "annotations": {"invoke.dev/order-sha256": "x"},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn evicted() -> Pod {
        pod(json!({"phase": "Failed", "reason": "Evicted", "message": "memory"}))
    }

    fn running() -> Pod {
        pod(json!({"phase": "Running"}))
    }

    fn code(errands: &[Errand]) -> Option<ReasonCode> {
        match &errands.first()?.news {
            News::Tell(Diagnosis::Failed(reason) | Diagnosis::Waiting(reason)) => Some(reason.code),
            other => panic!("{other:?}"),
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_failure_is_told_until_it_is_taken_and_then_no_more() {
        let mut ward = Ward::default();
        ward.see(Event::Apply(evicted()));
        let first = ward.errands(now());
        assert_eq!(code(&first), Some(ReasonCode::PodFailed));
        assert!(ward.errands(now()).is_empty(), "it is under way");
        ward.learn(first[0].marks.uid, None);
        let second = ward.errands(now());
        assert_eq!(first, second);
        ward.learn(second[0].marks.uid, Some(second[0].news.clone()));
        assert!(ward.errands(now()).is_empty());
        ward.see(Event::Delete(evicted()));
        assert!(ward.errands(now()).is_empty() && ward.patients.is_empty());
    }

    #[test]
    fn a_pod_that_vanishes_while_its_command_runs_is_a_failure() {
        let mut ward = Ward::default();
        ward.see(Event::Apply(running()));
        assert!(ward.errands(now()).is_empty());
        ward.see(Event::Delete(running()));
        assert_eq!(code(&ward.errands(now())), Some(ReasonCode::PodGone));
    }

    /// A watch that was broken begins with a list, and a list has no deletions.
    #[test]
    fn a_pod_that_vanished_unseen_is_missed() {
        let mut ward = Ward::default();
        ward.see(Event::Apply(running()));
        ward.see(Event::Init);
        ward.see(Event::InitDone);
        assert_eq!(code(&ward.errands(now())), Some(ReasonCode::PodGone));
        let mut ward = Ward::default();
        ward.see(Event::Apply(running()));
        ward.see(Event::Init);
        ward.see(Event::InitApply(running()));
        ward.see(Event::InitDone);
        assert!(ward.errands(now()).is_empty());
    }

    /// The shim leaves with 0 only after the end is on record.
    #[test]
    fn a_pod_that_succeeded_is_removed_without_a_word() {
        let mut ward = Ward::default();
        ward.see(Event::Apply(pod(json!({"phase": "Succeeded"}))));
        assert!(ward.live().is_empty());
        let errands = ward.errands(now());
        assert_eq!(errands[0].news, News::Remove);
        ward.learn(errands[0].marks.uid, Some(News::Remove));
        ward.see(Event::Delete(pod(json!({"phase": "Succeeded"}))));
        assert!(ward.errands(now()).is_empty() && ward.patients.is_empty());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let mut foreign = evicted();
        foreign.metadata.annotations = None;
        let mut ward = Ward::default();
        ward.see(Event::Apply(foreign));
        assert!(ward.errands(now()).is_empty());
    }
}
