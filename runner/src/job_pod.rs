//! A job's pod as the API server shows it, with what of it is ours.

use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::topology::{JOB_LABEL, ORDER_ANNOTATION, pod_name};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Label that says who made a pod, and our value for it.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "invoke-runner");

/// The marks of a pod that a runner made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobPod {
    pub(crate) job: JobId,
    pub(crate) uid: PodUid,
    /// The digest of the order that it was made for.
    pub(crate) order: String,
}

impl JobPod {
    /// Reads the marks. `None` if one is missing or contradicts the pod's name: it is not ours.
    pub(crate) fn read(pod: &Pod) -> Option<Self> {
        let job: JobId = pod.labels().get(JOB_LABEL)?.parse().ok()?;
        let ours = pod.name_any() == pod_name(job)
            && pod.labels().get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1);
        ours.then_some(())?;
        Some(Self {
            job,
            uid: pod.uid()?.parse().ok()?,
            order: pod.annotations().get(ORDER_ANNOTATION)?.clone(),
        })
    }
}

/// Whether the pod may still run something.
pub(crate) fn is_live(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}
