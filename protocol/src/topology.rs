//! Names on AMQP and in Kubernetes. Each stands here once.

use crate::id::{ClusterName, JobId};

/// Exchange, direct and durable, that commands are published to; the routing key is the cluster's
/// queue name.
pub const COMMAND_EXCHANGE: &str = "invoke.commands";

/// Exchange, fanout and durable, that rejected and undeliverable commands are sent to by the broker.
pub const DEAD_LETTER_EXCHANGE: &str = "invoke.dead-letter";

/// Queue, durable, behind [`DEAD_LETTER_EXCHANGE`].
pub const DEAD_LETTER_QUEUE: &str = "invoke.dead-letter";

/// The durable queue of one cluster: `cmd.<cluster>`. Also its routing key.
#[must_use]
pub fn command_queue(cluster: &ClusterName) -> String {
    format!("cmd.{cluster}")
}

/// The broker's user for the runner of one cluster; it can read [`command_queue`] and nothing else.
#[must_use]
pub fn runner_user(cluster: &ClusterName) -> String {
    format!("invoke-runner.{cluster}")
}

/// The Kubernetes namespace of the runner.
pub const SYSTEM_NAMESPACE: &str = "invoke-system";

/// The Kubernetes namespace of job pods, unless the runner is configured with another.
pub const JOBS_NAMESPACE: &str = "invoke-jobs";

/// Label of a job pod: the id of its job.
pub const JOB_LABEL: &str = "invoke.dev/job";

/// Label of a job pod: the name of its profile.
pub const PROFILE_LABEL: &str = "invoke.dev/profile";

/// Annotation of a job pod: SHA-256 of the order's payload that the pod was made for. A pod under
/// our name that lacks it, or bears another, is not ours to adopt.
pub const ORDER_ANNOTATION: &str = "invoke.dev/order-sha256";

/// Finalizer of a job pod: what Kubernetes knows of its end stays until it is on record.
pub const RESULT_FINALIZER: &str = "invoke.dev/result";

/// Label of the cluster's own records of starts: see [`start_record_name`].
pub const START_RECORD_LABEL: &str = "invoke.dev/start-record";

/// Key in a record of a start: the uid of the pod that was permitted.
pub const START_RECORD_POD: &str = "pod";

/// Annotation of a record of a start: after this moment (RFC 3339) no order for the job can be good any
/// more, so nothing has to remember that it was started.
pub const START_RECORD_KEEP_UNTIL: &str = "invoke.dev/keep-until";

/// How often a message may come back to its queue without having been dealt with, before the broker
/// takes it for poison (RabbitMQ's `x-delivery-limit`; 20 is its own default from version 4.0 on).
pub const DELIVERY_LIMIT: u32 = 20;

/// Audience of the token by which a shim proves which pod it is.
pub const SHIM_TOKEN_AUDIENCE: &str = "invoke-runner";

/// The name in the certificate of the runner's door for shims: shims check it, whatever address they
/// dial.
pub const SHIM_DOOR_NAME: &str = "invoke-runner.invoke-system.svc";

/// The pod of a job: `invoke-<job id>`. One job has one name, so that two runners cannot make two.
#[must_use]
pub fn pod_name(job: JobId) -> String {
    format!("invoke-{job}")
}

/// The cluster's own record that a job was started: an immutable ConfigMap in the namespace of the pods.
/// A name exists once, so it is a second fence behind the permit, and one that a database restored from
/// a backup has not forgotten.
#[must_use]
pub fn start_record_name(job: JobId) -> String {
    format!("invoke-{job}")
}
