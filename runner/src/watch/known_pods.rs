//! The job pods that the watch has seen, and what was told about them already.
//!
//! What was told is remembered only to not say it again. It is lost with the process, and then said
//! again: every report may be repeated.

use std::collections::{BTreeSet, HashMap, HashSet};

use invoke_protocol::id::{JobId, PodUid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;

use crate::diagnosis::{Diagnosis, diagnose, gone};
use crate::job_pod::{JobPod, is_live};

/// Something about a pod that the dispatcher does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) marks: JobPod,
    pub(super) diagnosis: Diagnosis,
}

/// All job pods.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    pods: HashMap<PodUid, KnownPod>,
    /// Those met in the list that a watch begins with; `None` outside of one.
    listed: Option<HashSet<PodUid>>,
}

#[derive(Debug)]
struct KnownPod {
    marks: JobPod,
    /// As it was seen last.
    pod: Pod,
    gone: bool,
    /// What the dispatcher was told last.
    told: Option<Diagnosis>,
    being_told: bool,
}

impl KnownPods {
    /// Takes an event of the watch into account.
    pub(super) fn see(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                let uid = self.admit(pod);
                if let (Some(uid), Some(listed)) = (uid, &mut self.listed) {
                    listed.insert(uid);
                }
            }
            // What vanished while nobody watched has no event of its own.
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let vanished = self
                    .pods
                    .iter_mut()
                    .filter(|(uid, _)| !listed.contains(uid));
                vanished.for_each(|(_, known)| known.gone = true);
            }
            Event::Apply(pod) => drop(self.admit(pod)),
            Event::Delete(pod) => {
                let uid = self.admit(pod);
                if let Some(known) = uid.and_then(|uid| self.pods.get_mut(&uid)) {
                    known.gone = true;
                }
            }
        }
    }

    /// The jobs that have a live pod.
    pub(super) fn live(&self) -> BTreeSet<JobId> {
        let live = self
            .pods
            .values()
            .filter(|known| !known.gone && is_live(&known.pod));
        live.map(|known| known.marks.job).collect()
    }

    /// What is to be told now and was not told yet. Whoever takes it must say how it went.
    pub(super) fn news(&mut self, now: Timestamp) -> Vec<News> {
        self.pods.retain(|_, known| !known.is_settled());
        self.pods
            .values_mut()
            .filter_map(|known| known.news(now))
            .collect()
    }

    /// How the telling went: what was told, or nothing.
    pub(super) fn learn(&mut self, uid: PodUid, told: Option<Diagnosis>) {
        if let Some(known) = self.pods.get_mut(&uid) {
            known.being_told = false;
            known.told = told.or(known.told.take());
        }
    }

    fn admit(&mut self, pod: Pod) -> Option<PodUid> {
        let marks = JobPod::read(&pod)?;
        let uid = marks.uid;
        match self.pods.get_mut(&uid) {
            Some(known) => known.pod = pod,
            None => {
                let known = KnownPod {
                    marks,
                    pod,
                    gone: false,
                    told: None,
                    being_told: false,
                };
                self.pods.insert(uid, known);
            }
        }
        Some(uid)
    }
}

impl KnownPod {
    fn news(&mut self, now: Timestamp) -> Option<News> {
        if self.being_told {
            return None;
        }
        let diagnosis = if self.gone {
            gone(&self.pod)
        } else {
            diagnose(&self.pod, now)
        };
        // That nothing is wrong is news only after somebody was told that nothing is heard.
        let is_expected = diagnosis == Diagnosis::Fine && !self.was_unheard();
        if is_expected || self.told.as_ref() == Some(&diagnosis) {
            return None;
        }
        self.being_told = true;
        Some(News {
            marks: self.marks.clone(),
            diagnosis,
        })
    }

    fn was_unheard(&self) -> bool {
        matches!(self.told, Some(Diagnosis::Unheard(_)))
    }

    /// It is gone, and how it ended was told: nothing more can happen.
    fn is_settled(&self) -> bool {
        self.gone && !self.being_told && self.told.as_ref().is_some_and(Diagnosis::is_end)
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::state::ReasonCode;
    use serde_json::{Value, json};

    use super::*;

    const JOB: &str = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";

    fn pod(status: &Value) -> Pod {
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
        pod(&json!({"phase": "Failed", "reason": "Evicted", "message": "memory"}))
    }

    fn running() -> Pod {
        pod(&json!({"phase": "Running"}))
    }

    fn code(news: &[News]) -> Option<ReasonCode> {
        match &news.first()?.diagnosis {
            Diagnosis::Failed(reason)
            | Diagnosis::Waiting(reason)
            | Diagnosis::Unheard(reason)
            | Diagnosis::Unstarted(reason) => Some(reason.code),
            Diagnosis::Fine | Diagnosis::Ended(_) => None,
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_failure_is_told_until_it_is_taken_and_then_no_more() {
        let mut known = KnownPods::default();
        known.see(Event::Apply(evicted()));
        let first = known.news(now());
        assert_eq!(code(&first), Some(ReasonCode::Evicted));
        assert!(known.news(now()).is_empty(), "it is under way");
        known.learn(first[0].marks.uid, None);
        let second = known.news(now());
        assert_eq!(first, second);
        known.learn(second[0].marks.uid, Some(second[0].diagnosis.clone()));
        assert!(known.news(now()).is_empty());
        known.see(Event::Delete(evicted()));
        assert!(known.news(now()).is_empty() && known.pods.is_empty());
    }

    #[test]
    fn a_pod_that_vanishes_while_its_command_runs_is_a_failure() {
        let mut known = KnownPods::default();
        known.see(Event::Apply(running()));
        assert!(known.news(now()).is_empty());
        known.see(Event::Delete(running()));
        assert_eq!(code(&known.news(now())), Some(ReasonCode::PodGone));
    }

    /// A watch that was broken begins with a list, and a list has no deletions.
    #[test]
    fn a_pod_that_vanished_unseen_is_missed() {
        let mut known = KnownPods::default();
        known.see(Event::Apply(running()));
        known.see(Event::Init);
        known.see(Event::InitDone);
        assert_eq!(code(&known.news(now())), Some(ReasonCode::PodGone));
        let mut known = KnownPods::default();
        known.see(Event::Apply(running()));
        known.see(Event::Init);
        known.see(Event::InitApply(running()));
        known.see(Event::InitDone);
        assert!(known.news(now()).is_empty());
    }

    /// The dispatcher answers "I know" where the end is on record; only then the pod is removed.
    #[test]
    fn a_pod_that_succeeded_is_told_of_too() {
        let mut known = KnownPods::default();
        known.see(Event::Apply(pod(&json!({"phase": "Succeeded"}))));
        assert!(known.live().is_empty());
        let news = known.news(now());
        assert_eq!(code(&news), Some(ReasonCode::PodFailed));
        known.learn(news[0].marks.uid, Some(news[0].diagnosis.clone()));
        known.see(Event::Delete(pod(&json!({"phase": "Succeeded"}))));
        assert!(known.news(now()).is_empty() && known.pods.is_empty());
    }

    /// Else a job would count as out of contact until its end.
    #[test]
    fn a_node_that_speaks_again_is_news() {
        let status = |ready: &str| {
            pod(&json!({
                "phase": "Running",
                "conditions": [
                    {"type": "Ready", "status": ready},
                    {"type": "ContainersReady", "status": "True"},
                ],
                "containerStatuses": [{
                    "name": "command", "ready": true, "image": "", "imageID": "", "restartCount": 0,
                    "state": {"running": {}},
                }],
            }))
        };
        let mut known = KnownPods::default();
        known.see(Event::Apply(status("True")));
        assert!(known.news(now()).is_empty());
        for (ready, expected) in [("False", Some(ReasonCode::NodeLost)), ("True", None)] {
            known.see(Event::Apply(status(ready)));
            let news = known.news(now());
            assert_eq!(news.len(), 1, "{ready}");
            assert_eq!(code(&news), expected);
            known.learn(news[0].marks.uid, Some(news[0].diagnosis.clone()));
        }
        assert!(known.news(now()).is_empty());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let mut foreign = evicted();
        foreign.metadata.annotations = None;
        let mut known = KnownPods::default();
        known.see(Event::Apply(foreign));
        assert!(known.news(now()).is_empty());
    }
}
