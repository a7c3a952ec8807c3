//! Why a job waits, or what it died of: a closed list, each with a sentence.

use serde::{Deserialize, Serialize};

/// A reason from a closed list, with a sentence for people that carries the component's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Which.
    pub code: ReasonCode,
    /// What happened, to which object, and the component's own words for it. At most
    /// [`Reason::MAX_MESSAGE_CHARS`] characters.
    pub message: String,
}

impl Reason {
    /// The longest message, in characters: an event of Kubernetes has at most 1,024.
    pub const MAX_MESSAGE_CHARS: usize = 2048;

    /// A reason with its words, cut to [`Reason::MAX_MESSAGE_CHARS`].
    #[must_use]
    pub fn new(code: ReasonCode, message: impl AsRef<str>) -> Self {
        Self {
            code,
            message: message
                .as_ref()
                .chars()
                .take(Self::MAX_MESSAGE_CHARS)
                .collect(),
        }
    }
}

/// Why a job waits, or what it died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No runner has ever connected for this cluster.
    ClusterNeverConnected,
    /// The cluster's runner has not spoken for a while.
    ClusterOffline,
    /// It is on its way: nothing is known to be wrong.
    OnItsWay,
    /// The runner has as many jobs as it takes at once.
    RunnerBusy,
    /// The scheduler finds no node.
    PodUnschedulable,
    /// The kubelet cannot get the image.
    ImagePull,
    /// The kubelet cannot make the container.
    ContainerCreate,
    /// The pod's image or sandbox is being prepared.
    PodStarting,
    /// Kubernetes refused the pod: a quota, Pod Security, a policy or a webhook, in its own words.
    PodRefused,
    /// The cluster has no such profile.
    UnknownProfile,
    /// The order's signature is not of a key that this cluster trusts.
    Signature,
    /// The order is for another cluster.
    WrongCluster,
    /// The order's form is newer than the runner.
    UnsupportedVersion,
    /// The pod ended and no exit record came.
    PodFailed,
    /// A container of the pod was killed for its memory.
    OutOfMemory,
    /// The pod is gone: deleted by hand, or with its node.
    PodGone,
    /// Kubernetes told the pod to stop while the command ran.
    PodTerminated,
    /// The run deadline is long over and nobody in the cluster says anything.
    NoReport,
    /// One that was made after this program; the message says it.
    #[serde(other)]
    Unknown,
}
