//! What a pod's state means for its job. Pure.

use std::time::Duration;

use invoke_protocol::output::ExitRecord;
use invoke_protocol::shim::{EXIT_REFUSED, StartRefusal};
use invoke_protocol::state::{Reason, ReasonCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, Pod, PodCondition, PodStatus,
};
use kube::ResourceExt as _;

/// What to tell the dispatcher about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// Nothing is wrong.
    Fine,
    /// It does not get on, but may yet.
    Waiting(Reason),
    /// Its node says nothing any more; the command may go on all the same.
    Unheard(Reason),
    /// It cannot start its command, or ended without a report.
    Failed(Reason),
    /// It ended without a report, and left its shim's word with Kubernetes.
    Ended(Box<ExitRecord>),
    /// It never started the command that it was permitted to start, and left its shim's word with
    /// Kubernetes.
    Unstarted(Reason),
}

impl Diagnosis {
    /// Whether nothing more is to be expected of the pod.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Ended(_) | Self::Unstarted(_))
    }
}

/// The kubelet tries an image again after ten seconds; when it still backs off after this long, it has
/// tried more than once.
const SECOND_PULL: Duration = Duration::from_secs(12);

/// A pod that is prepared for longer than this is worth a word.
const PREPARATION: Duration = Duration::from_secs(10);

/// What a shim said just before its end may still be on its way through another replica.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A shim that was told not to start has a job that is over, or whose start deadline has just passed:
/// the dispatcher says so itself by then, and the pod is deleted.
const REFUSED_WORDS: Duration = Duration::from_secs(20);

/// Judges a pod that exists.
pub(crate) fn diagnose(pod: &Pod, now: Timestamp) -> Diagnosis {
    let Some(status) = &pod.status else {
        return Diagnosis::Fine;
    };
    if let Some(reason) = unheard(pod, status) {
        if invoke_hooks::sabotaged("no-node-patience") {
            return Diagnosis::Failed(reason);
        }
        return Diagnosis::Unheard(reason);
    }
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") => ended(pod, status, now),
        _ if pod.metadata.deletion_timestamp.is_none() => waiting(pod, status, now),
        // On its way out: its end says more, unless it has none, because nothing in it ever began.
        _ if is_over(pod, status) => ended(pod, status, now),
        _ => Diagnosis::Fine,
    }
}

/// What to say of a pod that is gone.
pub(crate) fn gone(pod: &Pod) -> Diagnosis {
    let status = pod.status.clone().unwrap_or_default();
    if let Some(said) = last_words(&status) {
        return said;
    }
    let words = format!(
        "pod {} (on {}) was deleted before its command's end was reported, and nobody saw how",
        pod.name_any(),
        node(pod)
    );
    let reason = disruption(&status)
        .or_else(|| kubelets_reason(&status))
        .or_else(|| deleted(pod));
    Diagnosis::Failed(reason.unwrap_or_else(|| Reason::new(ReasonCode::PodGone, words)))
}

/// A node that the control plane does not hear of has its pods marked as not ready, and nothing else of
/// them changed: a kubelet that speaks would say the same of the containers.
fn unheard(pod: &Pod, status: &PodStatus) -> Option<Reason> {
    let is_running = container_state(status).is_some_and(|state| state.running.is_some());
    let not_ready = condition(status, "Ready").is_some_and(|ready| ready.status != "True");
    let was_ready = condition(status, "ContainersReady").is_some_and(|all| all.status == "True");
    (is_running && not_ready && was_ready).then(|| {
        let words = format!(
            "node {} has stopped speaking to its cluster; the command in pod {} may go on all the same",
            node(pod),
            pod.name_any()
        );
        Reason::new(ReasonCode::NodeLost, words)
    })
}

/// Whether nothing of a pod that is being deleted runs any more, or ever will.
fn is_over(pod: &Pod, status: &PodStatus) -> bool {
    match container_state(status) {
        Some(state) if state.terminated.is_some() => true,
        Some(state) if state.running.is_some() => false,
        // It never began. No node has it, or its node has agreed that it goes.
        _ => node_name(pod).is_none() || pod.metadata.deletion_grace_period_seconds == Some(0),
    }
}

fn node(pod: &Pod) -> &str {
    node_name(pod).unwrap_or("no node")
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn waiting(pod: &Pod, status: &PodStatus, now: Timestamp) -> Diagnosis {
    if let Some(words) = unschedulable(status) {
        return Diagnosis::Waiting(Reason::new(ReasonCode::PodUnschedulable, words));
    }
    let Some(waiting) = container_state(status).and_then(|state| state.waiting.as_ref()) else {
        return Diagnosis::Fine;
    };
    let since = status
        .start_time
        .as_ref()
        .or(pod.metadata.creation_timestamp.as_ref());
    let age = since.map_or(Duration::ZERO, |since| elapsed(since.0, now));
    container_waits(waiting, age)
}

fn unschedulable(status: &PodStatus) -> Option<&str> {
    let scheduled = condition(status, "PodScheduled")?;
    let refused =
        scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    refused.then(|| {
        scheduled
            .message
            .as_deref()
            .unwrap_or("the scheduler finds no node")
    })
}

fn container_waits(waiting: &ContainerStateWaiting, age: Duration) -> Diagnosis {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let said = waiting.message.as_deref().unwrap_or_default();
    let words = if said.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}: {said}")
    };
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" => {
            Diagnosis::Failed(Reason::new(ReasonCode::ImagePull, words))
        }
        "ImagePullBackOff" if age >= SECOND_PULL => {
            Diagnosis::Failed(Reason::new(ReasonCode::ImagePull, words))
        }
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
            Diagnosis::Waiting(Reason::new(ReasonCode::ImagePull, words))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Diagnosis::Failed(Reason::new(ReasonCode::ContainerCreate, words))
        }
        _ if age >= PREPARATION => Diagnosis::Waiting(Reason::new(ReasonCode::PodStarting, words)),
        _ => Diagnosis::Fine,
    }
}

fn ended(pod: &Pod, status: &PodStatus, now: Timestamp) -> Diagnosis {
    let (terminated, said) = (terminated(status), last_words(status));
    let patience = match terminated {
        // The shim leaves with 0 only after the end of its command is on record: there is no more to come.
        Some(end) if end.exit_code == 0 => Duration::ZERO,
        // Of a pod that is being deleted it is no riddle why it did not start.
        Some(end)
            if end.exit_code == i32::from(EXIT_REFUSED)
                && said.is_none()
                && pod.metadata.deletion_timestamp.is_none() =>
        {
            REFUSED_WORDS
        }
        _ => LAST_WORDS,
    };
    let finished = terminated.and_then(|end| end.finished_at.as_ref());
    if finished.is_some_and(|finished| elapsed(finished.0, now) < patience) {
        return Diagnosis::Fine;
    }
    said.unwrap_or_else(|| Diagnosis::Failed(why_ended(pod, status, terminated)))
}

/// How the command ended, or that it was never started, as the shim left it with Kubernetes for the case
/// that nobody else takes it. What is neither says nothing.
fn last_words(status: &PodStatus) -> Option<Diagnosis> {
    if invoke_hooks::sabotaged("no-termination-message") {
        return None;
    }
    let words = terminated(status)?.message.as_deref()?;
    if let Ok(exit) = serde_json::from_str(words) {
        return Some(Diagnosis::Ended(Box::new(exit)));
    }
    let refusal: StartRefusal = serde_json::from_str(words).ok()?;
    Some(Diagnosis::Unstarted(refusal.reason))
}

fn why_ended(
    pod: &Pod,
    status: &PodStatus,
    terminated: Option<&ContainerStateTerminated>,
) -> Reason {
    if let Some(end) = terminated.filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
        let words = format!(
            "the container was killed because it used more memory than its limit (exit code {})",
            end.exit_code
        );
        return Reason::new(ReasonCode::OutOfMemory, words);
    }
    disruption(status)
        .or_else(|| kubelets_reason(status))
        .or_else(|| deleted(pod))
        .unwrap_or_else(|| unexplained(terminated))
}

/// The control plane's word on a pod that it, or somebody through it, took away.
fn disruption(status: &PodStatus) -> Option<Reason> {
    let target =
        condition(status, "DisruptionTarget").filter(|condition| condition.status == "True")?;
    let by = target.reason.as_deref().unwrap_or_default();
    let code = match by {
        "PreemptionByScheduler" => ReasonCode::Preempted,
        "DeletionByPodGC" => ReasonCode::NodeLost,
        // EvictionByEvictionAPI, DeletionByTaintManager, TerminationByKubelet.
        _ => ReasonCode::Evicted,
    };
    let said = target.message.as_deref();
    let words = format!("{by}: {}", said.unwrap_or("Kubernetes says no more"));
    Some(Reason::new(code, words))
}

/// The kubelet's own word on the whole pod.
fn kubelets_reason(status: &PodStatus) -> Option<Reason> {
    let by = status.reason.as_deref()?;
    let code = match by {
        "Preempting" => ReasonCode::Preempted,
        "NodeLost" => ReasonCode::NodeLost,
        // A node that shuts down, or that had no room after all when the pod arrived.
        "Evicted" | "Shutdown" | "NodeShutdown" | "Terminated" | "NodeAffinity" => {
            ReasonCode::Evicted
        }
        _ if by.starts_with("OutOf") => ReasonCode::Evicted,
        _ => ReasonCode::PodFailed,
    };
    let said = status.message.as_deref();
    let words = format!("{by}: {}", said.unwrap_or("the kubelet says no more"));
    Some(Reason::new(code, words))
}

/// What is left to say of a pod that is being deleted and that nothing above has claimed.
fn deleted(pod: &Pod) -> Option<Reason> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let words = format!(
        "somebody deleted pod {} (on {}) before its command's end was reported; the cluster's audit \
         log knows by whom",
        pod.name_any(),
        node(pod)
    );
    Some(Reason::new(ReasonCode::PodDeleted, words))
}

fn unexplained(terminated: Option<&ContainerStateTerminated>) -> Reason {
    let words = match terminated {
        None => "the pod ended, and nobody reported how its command did".to_owned(),
        Some(end) if end.exit_code == i32::from(EXIT_REFUSED) => {
            "the pod ended without starting its command, or without anybody who wanted its end"
                .to_owned()
        }
        Some(end) => {
            let said = end
                .message
                .as_deref()
                .or(end.reason.as_deref())
                .unwrap_or("no reason given");
            format!(
                "the pod's shim ended with exit code {} before it reported the command's end: {said}",
                end.exit_code
            )
        }
    };
    Reason::new(ReasonCode::PodFailed, words)
}

fn container_state(status: &PodStatus) -> Option<&ContainerState> {
    status.container_statuses.as_ref()?.first()?.state.as_ref()
}

fn terminated(status: &PodStatus) -> Option<&ContainerStateTerminated> {
    container_state(status)?.terminated.as_ref()
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const START: &str = "2026-11-22T10:00:00Z";

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "invoke-x", "creationTimestamp": START},
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": status,
        }))
        .unwrap()
    }

    /// The same pod, on its way out.
    fn leaving(status: &Value) -> Pod {
        let mut pod = pod(status);
        pod.metadata.deletion_timestamp = serde_json::from_value(json!(START)).unwrap();
        pod.metadata.deletion_grace_period_seconds = Some(30);
        pod
    }

    fn after(status: &Value, seconds: i64) -> Diagnosis {
        diagnosed(&pod(status), seconds)
    }

    fn diagnosed(pod: &Pod, seconds: i64) -> Diagnosis {
        let start: Timestamp = START.parse().unwrap();
        diagnose(pod, start + jiff::SignedDuration::from_secs(seconds))
    }

    fn container(state: &Value) -> Value {
        let phase = if state.get("terminated").is_some() {
            "Failed"
        } else {
            "Pending"
        };
        let status = json!({"name": "command", "ready": false, "image": "", "imageID": "", "restartCount": 0, "state": state});
        json!({"phase": phase, "startTime": START, "containerStatuses": [status]})
    }

    fn waits(reason: &str) -> Value {
        container(&json!({"waiting": {"reason": reason, "message": "the kubelet's words"}}))
    }

    fn terminated(code: i32, reason: &str) -> Value {
        container(&json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": START}}))
    }

    fn code(diagnosis: Diagnosis) -> (&'static str, Option<ReasonCode>) {
        match diagnosis {
            Diagnosis::Fine => ("fine", None),
            Diagnosis::Waiting(reason) => ("waiting", Some(reason.code)),
            Diagnosis::Unheard(reason) => ("unheard", Some(reason.code)),
            Diagnosis::Failed(reason) => ("failed", Some(reason.code)),
            Diagnosis::Ended(_) => ("ended", None),
            Diagnosis::Unstarted(reason) => ("unstarted", Some(reason.code)),
        }
    }

    #[test]
    fn why_a_pod_does_not_start() {
        use ReasonCode::{ContainerCreate, ImagePull, PodStarting};
        let cases = [
            ("ContainerCreating", 1, "fine", None),
            ("ContainerCreating", 20, "waiting", Some(PodStarting)),
            ("ErrImagePull", 1, "waiting", Some(ImagePull)),
            ("ErrImagePull", 60, "waiting", Some(ImagePull)),
            ("ImagePullBackOff", 3, "waiting", Some(ImagePull)),
            ("ImagePullBackOff", 13, "failed", Some(ImagePull)),
            ("ErrImageNeverPull", 0, "failed", Some(ImagePull)),
            ("InvalidImageName", 0, "failed", Some(ImagePull)),
            (
                "CreateContainerConfigError",
                0,
                "failed",
                Some(ContainerCreate),
            ),
            ("CreateContainerError", 0, "failed", Some(ContainerCreate)),
            ("RunContainerError", 0, "failed", Some(ContainerCreate)),
        ];
        for (reason, seconds, kind, expected) in cases {
            assert_eq!(
                code(after(&waits(reason), seconds)),
                (kind, expected),
                "{reason} after {seconds} s"
            );
        }
    }

    #[test]
    fn the_components_own_words_are_passed_on() {
        let Diagnosis::Failed(reason) = after(&waits("ErrImageNeverPull"), 0) else {
            panic!()
        };
        assert_eq!(reason.message, "ErrImageNeverPull: the kubelet's words");
    }

    #[test]
    fn the_schedulers_sentence_comes_at_once() {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"});
        let diagnosis = after(&json!({"phase": "Pending", "conditions": [condition]}), 0);
        assert_eq!(
            diagnosis,
            Diagnosis::Waiting(Reason::new(
                ReasonCode::PodUnschedulable,
                "0/1 nodes are available"
            ))
        );
    }

    #[test]
    fn why_a_pod_ended() {
        use ReasonCode::{Evicted, OutOfMemory, PodFailed};
        let cases = [
            (terminated(137, "OOMKilled"), 5, "failed", Some(OutOfMemory)),
            (terminated(137, "Error"), 5, "failed", Some(PodFailed)),
            (terminated(137, "Error"), 1, "fine", None),
            (terminated(125, "Error"), 5, "fine", None),
            (terminated(125, "Error"), 25, "failed", Some(PodFailed)),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}),
                0,
                "failed",
                Some(Evicted),
            ),
            (json!({"phase": "Succeeded"}), 0, "failed", Some(PodFailed)),
            (json!({"phase": "Running"}), 60, "fine", None),
        ];
        for (status, seconds, kind, expected) in cases {
            assert_eq!(
                code(after(&status, seconds)),
                (kind, expected),
                "{status} after {seconds} s"
            );
        }
    }

    #[test]
    fn an_eviction_is_told_in_the_kubelets_words() {
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        let Diagnosis::Failed(reason) = after(&status, 0) else {
            panic!()
        };
        assert_eq!(
            reason.message,
            "Evicted: The node was low on resource: memory."
        );
    }

    /// What Kubernetes itself took away is told from what the command or a person did.
    #[test]
    fn who_took_a_pod_away() {
        use ReasonCode::{Evicted, NodeLost, PodFailed, Preempted};
        let disrupted = |reason: &str| {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "its words"});
            json!({"phase": "Failed", "conditions": [condition]})
        };
        let failed = |reason: &str| json!({"phase": "Failed", "reason": reason});
        let cases = [
            (disrupted("PreemptionByScheduler"), Preempted),
            (disrupted("EvictionByEvictionAPI"), Evicted),
            (disrupted("DeletionByTaintManager"), Evicted),
            (disrupted("TerminationByKubelet"), Evicted),
            (disrupted("DeletionByPodGC"), NodeLost),
            (failed("Preempting"), Preempted),
            (failed("NodeLost"), NodeLost),
            (failed("Shutdown"), Evicted),
            (failed("OutOfcpu"), Evicted),
            (failed("DeadlineExceeded"), PodFailed),
        ];
        for (status, expected) in cases {
            assert_eq!(
                code(after(&status, 0)),
                ("failed", Some(expected)),
                "{status}"
            );
            let Diagnosis::Failed(reason) = gone(&pod(&status)) else {
                panic!("{status}")
            };
            assert_eq!(reason.code, expected, "gone: {status}");
        }
    }

    /// What runs may still end by itself; what never began will not.
    #[test]
    fn a_pod_that_is_deleted_is_judged_by_its_end() {
        let running = container(&json!({"running": {}}));
        assert_eq!(diagnosed(&leaving(&running), 60), Diagnosis::Fine);
        let ended = terminated(143, "Error");
        assert_eq!(code(diagnosed(&leaving(&ended), 1)).0, "fine");
        let deleted = ("failed", Some(ReasonCode::PodDeleted));
        assert_eq!(code(diagnosed(&leaving(&ended), 5)), deleted);

        let refused = terminated(i32::from(EXIT_REFUSED), "Error");
        assert_eq!(code(diagnosed(&leaving(&refused), 5)), deleted);

        let mut unstarted = leaving(&waits("ContainerCreating"));
        assert_eq!(diagnosed(&unstarted, 60), Diagnosis::Fine);
        unstarted.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(code(diagnosed(&unstarted, 0)), deleted);
        let mut nowhere = leaving(&json!({"phase": "Pending"}));
        nowhere.spec.as_mut().unwrap().node_name = None;
        assert_eq!(code(diagnosed(&nowhere, 0)), deleted);
    }

    /// The node lifecycle controller changes this one condition and nothing else.
    #[test]
    fn a_node_that_says_nothing_is_no_end() {
        let status = |ready: &str, containers_ready: &str| {
            let mut status = container(&json!({"running": {}}));
            status["phase"] = json!("Running");
            status["conditions"] = json!([
                {"type": "Ready", "status": ready},
                {"type": "ContainersReady", "status": containers_ready},
            ]);
            status
        };
        let unheard = ("unheard", Some(ReasonCode::NodeLost));
        assert_eq!(code(after(&status("False", "True"), 0)), unheard);
        assert_eq!(code(after(&status("Unknown", "True"), 0)), unheard);
        let taken = leaving(&status("False", "True"));
        assert_eq!(
            code(diagnosed(&taken, 600)),
            unheard,
            "evicted, and nobody there to do it"
        );
        for heard in [status("True", "True"), status("False", "False")] {
            assert_eq!(after(&heard, 0), Diagnosis::Fine, "{heard}");
        }
    }

    /// A shim that could not report leaves its word with Kubernetes.
    #[test]
    fn the_shims_last_words_are_its_report() {
        let stream = json!({"bytes": 0, "sha256": ""});
        let record = json!({
            "status": {"exited": 3}, "cause": "itself", "log_bytes": 0, "stdout": stream, "stderr": stream,
            "started_at": START, "finished_at": START,
            "usage": {"user_micros": 0, "system_micros": 0, "max_rss_bytes": 0},
        });
        let left = |words: &str| {
            let mut status = terminated(1, "Error");
            status["containerStatuses"][0]["state"]["terminated"]["message"] = json!(words);
            status
        };
        let good = left(&record.to_string());
        assert_eq!(
            after(&good, 1),
            Diagnosis::Fine,
            "its report may be on its way"
        );
        let Diagnosis::Ended(exit) = after(&good, 5) else {
            panic!()
        };
        assert_eq!(exit.status.code(), 3);
        assert_eq!(gone(&pod(&good)), Diagnosis::Ended(exit));
        let words = &record.to_string()[..40];
        assert_eq!(
            code(after(&left(words), 5)),
            ("failed", Some(ReasonCode::PodFailed)),
            "what is cut off says nothing"
        );
    }

    /// Nobody needs to be waited for who would say it: the shim has said why.
    #[test]
    fn that_nothing_was_started_is_a_last_word_too() {
        let mut status = terminated(i32::from(EXIT_REFUSED), "Error");
        let reason = json!({"code": "files_refused", "message": "a link that leads out"});
        status["containerStatuses"][0]["state"]["terminated"]["message"] =
            json!(json!({"reason": reason}).to_string());
        assert_eq!(after(&status, 1), Diagnosis::Fine);
        let unstarted = after(&status, 5);
        assert_eq!(
            code(unstarted.clone()),
            ("unstarted", Some(ReasonCode::FilesRefused))
        );
        assert!(unstarted.is_end());
        assert_eq!(gone(&pod(&status)), unstarted);
    }
}
