//! Watches job pods, tells the dispatcher what is wrong with them, and removes those that are done.

mod known_pods;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::runner::{Claim, CompleteRequest, Report};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::JOB_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::diagnosis::Diagnosis;
use crate::job_pod::JobPod;
use crate::recovery::{self, Recovery};
use crate::report::chain;
use crate::starter::Decision;
use known_pods::{KnownPods, News};

/// Some diagnoses come with time, and what the dispatcher did not take is offered again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What the watch tells to whom.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) recovery: Recovery,
    /// To whoever holds the message of a job whose pod was lost.
    pub(crate) decided: broadcast::Sender<Decision>,
}

/// Watches for ever. `live` is kept to the jobs that have a live pod.
pub(crate) async fn keep(pods: Api<Pod>, watch: Watch, live: watch::Sender<BTreeSet<JobId>>) {
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
            let watch = watch.clone();
            telling.spawn(async move { watch.attend(news).await });
        }
    }
}

fn replace(before: &mut BTreeSet<JobId>, now: BTreeSet<JobId>) -> bool {
    let changed = *before != now;
    *before = now;
    changed
}

impl Watch {
    /// Tells the dispatcher, and removes a pod that is of no use once that is known. Answers what is done
    /// with.
    async fn attend(&self, news: News) -> (PodUid, Option<Diagnosis>) {
        let News { marks, diagnosis } = news;
        let mut done = self.tell(&marks, &diagnosis).await;
        if done && diagnosis.is_end() {
            // Its end is on record: nobody needs to hold the message that it was made for.
            let _ = self.decided.send(Decision::Lost(marks.uid));
            done = self.remove(&marks).await;
        }
        if !done {
            // Whoever cannot answer now is not asked again at once.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        (marks.uid, done.then_some(diagnosis))
    }

    async fn tell(&self, marks: &JobPod, diagnosis: &Diagnosis) -> bool {
        let job = marks.job;
        match self.try_to_tell(marks, diagnosis.clone()).await {
            Ok(()) => true,
            // The dispatcher knows better: the job is over, or it runs in another pod.
            Err(error) if error.is_final() => true,
            Err(error) => {
                tracing::debug!(job.id = %job, "the dispatcher was not told about job {job}: {}", chain(&error));
                false
            }
        }
    }

    async fn try_to_tell(
        &self,
        marks: &JobPod,
        diagnosis: Diagnosis,
    ) -> Result<(), recovery::Error> {
        let JobPod { job, uid: pod, .. } = *marks;
        let report = match diagnosis {
            Diagnosis::Fine => Report::ContactBack { pod },
            Diagnosis::Waiting(reason) => Report::Waiting { reason },
            Diagnosis::Unheard(reason) => Report::ContactLost { pod, reason },
            Diagnosis::Failed(reason) => {
                // A restored store would take the job for one that never started, and say so. One that has
                // the end already needs no other.
                if self.recovery.standing(job).await? == Claim::Over {
                    return Ok(());
                }
                let reason = self.with_namespace(reason).await;
                let words = reason.message.clone();
                let report = Report::PodFailed {
                    pod: Some(pod),
                    reason,
                };
                self.recovery.upstream.report(job, &report).await?;
                tracing::warn!(job.id = %job, pod.uid = %pod, "the pod of job {job} failed: {words}");
                return Ok(());
            }
            Diagnosis::Unstarted(reason) => return self.recovery.refuse_start(marks, reason).await,
            Diagnosis::Ended(exit) => {
                let request = CompleteRequest { pod, exit: *exit };
                return self.recovery.complete(marks, &request).await;
            }
        };
        Ok(self.recovery.upstream.report(job, &report).await?)
    }

    /// A pod that was deleted along with everything around it was not deleted by itself.
    async fn with_namespace(&self, reason: Reason) -> Reason {
        let is_deleted = matches!(reason.code, ReasonCode::PodDeleted | ReasonCode::PodGone);
        let is_leaving = || self.recovery.pool.is_namespace_leaving();
        if is_deleted && matches!(is_leaving().await, Ok(true)) {
            let words = format!("the namespace of the pods is deleted: {}", reason.message);
            return Reason::new(ReasonCode::NamespaceGone, words);
        }
        reason
    }

    async fn remove(&self, JobPod { job, uid, .. }: &JobPod) -> bool {
        match self.recovery.pool.remove(*job, *uid).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(job.id = %job, pod.uid = %uid, "the pod of job {job} was not deleted yet: {}", chain(&error));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::output::ExitRecord;
    use invoke_protocol::problem::ProblemCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::scripted::{Script, World, job, uid};

    fn marks() -> JobPod {
        JobPod {
            job: job(),
            uid: uid(1).parse().unwrap(),
            order: "x".to_owned(),
        }
    }

    fn reason(code: ReasonCode) -> Reason {
        Reason::new(code, "its words")
    }

    async fn attended(
        script: Script,
        diagnosis: Diagnosis,
    ) -> (World, Option<Diagnosis>, Option<Decision>) {
        let world = World::new(script).await;
        let (decided, mut decisions) = broadcast::channel(4);
        let watch = Watch {
            recovery: world.recovery(),
            decided,
        };
        let news = News {
            marks: marks(),
            diagnosis,
        };
        let (_, told) = watch.attend(news).await;
        (world, told, decisions.try_recv().ok())
    }

    fn with_pod() -> Script {
        Script {
            claim: Some(Claim::Started),
            ..Script::with_pod(1)
        }
    }

    /// Kubernetes would keep it for ever: the finalizer is ours to take.
    #[tokio::test]
    async fn a_pod_is_let_go_of_once_its_end_is_on_record() {
        let diagnosis = Diagnosis::Failed(reason(ReasonCode::PodDeleted));
        let (world, told, decided) = attended(with_pod(), diagnosis.clone()).await;
        assert_eq!(told, Some(diagnosis));
        assert_eq!(decided, Some(Decision::Lost(marks().uid)));
        let script = world.script();
        assert!(script.pods.is_empty());
        assert_eq!(
            script.reports,
            [Report::PodFailed {
                pod: Some(marks().uid),
                reason: reason(ReasonCode::PodDeleted)
            }]
        );
    }

    /// Most pods end like this: the shim has reported, and the end of its pod is no news.
    #[tokio::test]
    async fn what_is_over_is_not_told_again() {
        let script = Script {
            claim: Some(Claim::Over),
            ..with_pod()
        };
        let diagnosis = Diagnosis::Failed(reason(ReasonCode::PodFailed));
        let (world, told, _) = attended(script, diagnosis.clone()).await;
        assert_eq!(told, Some(diagnosis));
        let script = world.script();
        assert!(script.reports.is_empty() && script.pods.is_empty());
    }

    #[tokio::test]
    async fn until_then_it_stays() {
        let script = Script {
            refuse_reports: Some(|_| Some(ProblemCode::Unavailable)),
            ..with_pod()
        };
        let diagnosis = Diagnosis::Failed(reason(ReasonCode::Evicted));
        let (world, told, decided) = attended(script, diagnosis).await;
        assert_eq!((told, decided), (None, None));
        assert_eq!(world.script().pods.len(), 1);
    }

    #[tokio::test]
    async fn a_pod_that_went_with_its_namespace_says_so() {
        let script = Script {
            namespace_leaves: true,
            ..with_pod()
        };
        let diagnosis = Diagnosis::Failed(reason(ReasonCode::PodDeleted));
        let (world, ..) = attended(script, diagnosis).await;
        let script = world.script();
        let [Report::PodFailed { reason, .. }] = &script.reports[..] else {
            panic!("{:?}", script.reports)
        };
        assert_eq!(reason.code, ReasonCode::NamespaceGone);
        assert!(
            script.pods.is_empty(),
            "a namespace that waits for its pods gets on"
        );
    }

    fn exit() -> Value {
        let stream = json!({"bytes": 0, "sha256": ""});
        json!({
            "status": {"exited": 3}, "cause": "itself", "log_bytes": 0, "stdout": stream, "stderr": stream,
            "started_at": "2026-11-22T10:00:00Z", "finished_at": "2026-11-22T10:00:01Z",
            "usage": {"user_micros": 0, "system_micros": 0, "max_rss_bytes": 0},
        })
    }

    #[tokio::test]
    async fn the_shims_last_words_are_passed_on_as_its_report() {
        let exit: Box<ExitRecord> = serde_json::from_value(exit()).unwrap();
        let (world, told, _) = attended(with_pod(), Diagnosis::Ended(exit.clone())).await;
        assert_eq!(told, Some(Diagnosis::Ended(exit.clone())));
        let script = world.script();
        assert_eq!((&script.exits[..], script.reports.len()), (&[*exit][..], 0));
        assert!(script.pods.is_empty());
    }

    #[tokio::test]
    async fn that_nothing_was_started_is_passed_on_too() {
        let why = reason(ReasonCode::FilesUnavailable);
        let (world, ..) = attended(with_pod(), Diagnosis::Unstarted(why.clone())).await;
        let script = world.script();
        let pod = marks().uid;
        assert_eq!(script.reports, [Report::StartRefused { pod, reason: why }]);
        assert!(script.pods.is_empty());
    }

    /// Else a job that ran would be taken for one that never started.
    #[tokio::test]
    async fn a_restored_store_is_reminded_before_it_is_told_of_the_end() {
        let script = Script {
            claim: Some(Claim::Yours),
            forgotten: true,
            ..Script::with_pod(1).with_record(1)
        };
        let (world, ..) =
            attended(script, Diagnosis::Failed(reason(ReasonCode::OutOfMemory))).await;
        let script = world.script();
        assert!(
            matches!(
                &script.reports[..],
                [Report::Recovered { .. }, Report::PodFailed { .. }]
            ),
            "{:?}",
            script.reports
        );
    }

    #[tokio::test]
    async fn a_node_that_is_silent_and_then_is_not() {
        let silent = Diagnosis::Unheard(reason(ReasonCode::NodeLost));
        for (diagnosis, expected) in [
            (
                silent,
                Report::ContactLost {
                    pod: marks().uid,
                    reason: reason(ReasonCode::NodeLost),
                },
            ),
            (Diagnosis::Fine, Report::ContactBack { pod: marks().uid }),
        ] {
            let (world, told, decided) = attended(with_pod(), diagnosis.clone()).await;
            assert_eq!((told, decided), (Some(diagnosis), None));
            let script = world.script();
            assert_eq!(script.reports, [expected]);
            assert_eq!(script.pods.len(), 1, "the command may go on");
        }
    }
}
