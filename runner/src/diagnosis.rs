//! What a pod's state means for its job. Pure.

use std::time::Duration;

use invoke_protocol::shim::EXIT_REFUSED;
use invoke_protocol::state::{Reason, ReasonCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, Pod, PodStatus,
};
use kube::ResourceExt as _;

/// What to tell the dispatcher about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// Nothing.
    Fine,
    /// It does not get on, but may yet.
    Waiting(Reason),
    /// It cannot start its command, or ended without a report.
    Failed(Reason),
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
    // It is on its way out: its end, or its disappearance, will say more.
    if pod.metadata.deletion_timestamp.is_some() {
        return Diagnosis::Fine;
    }
    match status.phase.as_deref() {
        // The shim leaves with 0 only after the end of its command is on record: then the dispatcher knows
        // better than this. If it does not, there is no success.
        Some("Succeeded") => Diagnosis::Failed(why_ended(status, None)),
        Some("Failed") => ended(status, now),
        _ => waiting(pod, status, now),
    }
}

/// What to say of a pod that is gone.
pub(crate) fn gone(pod: &Pod) -> Reason {
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("no node");
    let words = format!(
        "pod {} (on {node}) was deleted before its command's end was reported",
        pod.name_any()
    );
    Reason::new(ReasonCode::PodGone, words)
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
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let scheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")?;
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

fn ended(status: &PodStatus, now: Timestamp) -> Diagnosis {
    let terminated = container_state(status).and_then(|state| state.terminated.as_ref());
    let patience = match terminated {
        Some(end) if end.exit_code == i32::from(EXIT_REFUSED) => REFUSED_WORDS,
        _ => LAST_WORDS,
    };
    let finished = terminated.and_then(|end| end.finished_at.as_ref());
    if finished.is_some_and(|finished| elapsed(finished.0, now) < patience) {
        return Diagnosis::Fine;
    }
    Diagnosis::Failed(why_ended(status, terminated))
}

fn why_ended(status: &PodStatus, terminated: Option<&ContainerStateTerminated>) -> Reason {
    if let Some(end) = terminated.filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
        let words = format!(
            "the container was killed because it used more memory than its limit (exit code {})",
            end.exit_code
        );
        return Reason::new(ReasonCode::OutOfMemory, words);
    }
    if let Some(reason) = status.reason.as_deref() {
        // Evicted, DeadlineExceeded, Shutdown, Preempting …: the kubelet's own words.
        let words = format!(
            "{reason}: {}",
            status
                .message
                .as_deref()
                .unwrap_or("the kubelet says no more")
        );
        return Reason::new(ReasonCode::PodFailed, words);
    }
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

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const START: &str = "2026-11-22T10:00:00Z";

    fn after(status: &Value, seconds: i64) -> Diagnosis {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "invoke-x", "creationTimestamp": START},
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": status,
        }))
        .unwrap();
        let start: Timestamp = START.parse().unwrap();
        diagnose(&pod, start + jiff::SignedDuration::from_secs(seconds))
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
            Diagnosis::Failed(reason) => ("failed", Some(reason.code)),
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
        use ReasonCode::{OutOfMemory, PodFailed};
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
                Some(PodFailed),
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
}
