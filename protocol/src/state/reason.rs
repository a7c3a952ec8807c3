//! Why a job waits, or what it died of: a closed list, each with a sentence.

use serde::{Deserialize, Serialize};

use crate::output::{ExitRecord, ExitStatus};

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

    /// How a command ended that nobody stopped.
    #[must_use]
    pub fn of_exit(exit: &ExitRecord) -> Self {
        if exit.out_of_memory {
            let message = format!(
                "the kernel killed a process of the command because the pod used all the memory that its \
                 profile allows; the command left with code {}",
                exit.status.code()
            );
            return Self::new(ReasonCode::OutOfMemory, message);
        }
        match exit.status {
            ExitStatus::Exited(code) => Self::new(
                ReasonCode::Exited,
                format!("the command exited with code {code}"),
            ),
            ExitStatus::Signalled(signal) => Self::new(
                ReasonCode::Signalled,
                format!("signal {signal} killed the command"),
            ),
        }
    }
}

/// Why a job waits, or what it died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The command exited by itself.
    Exited,
    /// A signal killed the command, and it was not us who sent it.
    Signalled,
    /// The command ran longer than it was allowed.
    RunTimeout,
    /// Somebody stopped it.
    Cancelled,
    /// No runner has ever connected for this cluster.
    ClusterNeverConnected,
    /// The cluster's runner has not spoken for a while.
    ClusterOffline,
    /// It is on its way: nothing is known to be wrong.
    OnItsWay,
    /// The dispatcher cannot send it: RabbitMQ is away, takes nothing, or has no queue for it.
    BrokerUnavailable,
    /// The runner has as many jobs as it takes at once.
    RunnerBusy,
    /// The clock of the cluster is so wrong that orders look expired there.
    ClockSkew,
    /// The API server of the cluster does not answer.
    ApiServerUnavailable,
    /// The scheduler finds no node.
    PodUnschedulable,
    /// The kubelet cannot get the image.
    ImagePull,
    /// The kubelet cannot make the container.
    ContainerCreate,
    /// The pod's image or sandbox is being prepared.
    PodStarting,
    /// A quota of the namespace is used up.
    Quota,
    /// Pod Security, a policy or a webhook refused the pod.
    AdmissionRefused,
    /// A webhook that must be asked about the pod does not answer.
    AdmissionUnavailable,
    /// Kubernetes refused the pod for another cause, in its own words.
    PodRefused,
    /// A pod under the job's name exists that was not made for this job.
    NameConflict,
    /// The cluster has no such profile.
    UnknownProfile,
    /// The order's signature is not of a key that this cluster trusts.
    Signature,
    /// The order is for another cluster.
    WrongCluster,
    /// The order's form is newer than the runner.
    UnsupportedVersion,
    /// Its message was delivered again and again and never dealt with.
    PoisonMessage,
    /// The attached files could not be fetched.
    FilesUnavailable,
    /// The attached files are not what was stated, or want to be where they must not.
    FilesRefused,
    /// The Secrets that the profile gives are more than can be masked in the output.
    SecretsTooLarge,
    /// The pod ended and no exit record came.
    PodFailed,
    /// Memory ran out.
    OutOfMemory,
    /// The pod was evicted: a drain, a taint, or a node that ran short of something.
    Evicted,
    /// The pod had to make room for a more important one.
    Preempted,
    /// The pod's node is gone, or has stopped speaking.
    NodeLost,
    /// Somebody deleted the pod.
    PodDeleted,
    /// The namespace of the pods is gone.
    NamespaceGone,
    /// The pod is gone, and nobody saw how.
    PodGone,
    /// Kubernetes told the pod to stop while the command ran.
    PodTerminated,
    /// The run deadline is long over and nobody in the cluster says anything.
    NoReport,
    /// The command was started before the store was restored from a backup that does not know it.
    StartedBefore,
    /// One that was made after this program; the message says it.
    #[serde(other)]
    Unknown,
}

impl ReasonCode {
    /// Whether it struck one pod and says nothing about the next: then a job that has not started gets
    /// another pod.
    #[must_use]
    pub const fn is_of_the_pod_alone(self) -> bool {
        matches!(
            self,
            Self::Evicted | Self::Preempted | Self::NodeLost | Self::PodDeleted | Self::PodGone
        )
    }
}
