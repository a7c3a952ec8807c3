//! Job pods in Kubernetes: made, adopted, removed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::{JOB_LABEL, RESULT_FINALIZER, pod_name};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::job_pod::{JobPod, is_live};
use crate::order::Accepted;
use crate::pod::{ShimDoor, manifest};
use crate::report::chain;

/// Job pods, and what it takes to make one.
#[derive(Clone)]
pub(crate) struct Pool {
    pods: Api<Pod>,
    namespaces: Api<Namespace>,
    config: Arc<Config>,
    door: Arc<DoorName>,
    /// How much a command may leave, as the dispatcher said last.
    artifacts: watch::Receiver<ArtifactsLimits>,
}

/// The door for shims as the runner knows it: by the name of its Service.
#[derive(Debug)]
pub(crate) struct DoorName {
    /// `host:port`.
    pub(crate) service: String,
    /// The door's certificate, PEM.
    pub(crate) ca: String,
}

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Kubernetes says no, and will say it again: nothing was made.
    #[error("{}", .0.message)]
    Refused(Reason),
    /// Kubernetes says no for now: nothing was made.
    #[error("{}", .0.message)]
    Waits(Reason),
    /// Kubernetes cannot say now. The pod may have been made all the same: asking again adopts it.
    #[error("the pod cannot be made now")]
    Later(#[source] kube::Error),
    /// A pod under the job's name has ended, or is on its way out.
    #[error("an earlier pod of this job is still there")]
    Leaving,
    /// The runner's own Service has no address.
    #[error("{service} has no address")]
    Door {
        service: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Why a job waits whose pod may be asked for again.
    pub(crate) fn reason(&self) -> Reason {
        let code = match self {
            Self::Refused(reason) | Self::Waits(reason) => return reason.clone(),
            Self::Later(_) => ReasonCode::ApiServerUnavailable,
            Self::Leaving => ReasonCode::PodStarting,
            Self::Door { .. } => ReasonCode::PodRefused,
        };
        Reason::new(code, chain(self))
    }
}

impl Pool {
    pub(crate) fn new(
        client: Client,
        config: Arc<Config>,
        door: DoorName,
        artifacts: watch::Receiver<ArtifactsLimits>,
    ) -> Self {
        Self {
            pods: Api::namespaced(client.clone(), &config.jobs_namespace),
            namespaces: Api::all(client),
            config,
            door: Arc::new(door),
            artifacts,
        }
    }

    /// The pod of an order: made, or adopted if it was made for this very order before.
    ///
    /// # Errors
    /// See [`Error`]; all but `Refused` may be tried again.
    pub(crate) async fn provide(&self, accepted: &Accepted) -> Result<PodUid, Error> {
        let order = &accepted.order;
        let Some(profile) = self.config.profiles.get(&order.profile) else {
            let words = format!(
                "the runner of this cluster has no profile named {}",
                order.profile
            );
            return Err(Error::Refused(Reason::new(
                ReasonCode::UnknownProfile,
                words,
            )));
        };
        let door = self.shim_door().await?;
        let artifacts = *self.artifacts.borrow();
        let pod = manifest(accepted, profile, &door, &artifacts, clock::now());
        match self.pods.create(&PostParams::default(), &pod).await {
            Ok(made) => adopt(&made, accepted),
            Err(error) if status(&error) == Some(409) => self.adopt_existing(accepted).await,
            Err(error) => Err(sort(error)),
        }
    }

    /// The pod of a job, if there is one.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Pod>, kube::Error> {
        self.pods.get_opt(name).await
    }

    /// All pods that bear a job's label.
    pub(crate) async fn list(&self) -> Result<Vec<Pod>, kube::Error> {
        Ok(self
            .pods
            .list(&ListParams::default().labels(JOB_LABEL))
            .await?
            .items)
    }

    /// Deletes a job's pod, and lets go of what it was kept for; this very one, not another that has its
    /// name by then. For a pod of whose end everything is on record, or of no interest.
    pub(crate) async fn remove(&self, job: JobId, uid: PodUid) -> Result<(), kube::Error> {
        let name = pod_name(job);
        // In this order: whoever finds the pod between the two finds it on its way out, and finishes this.
        match self.pods.delete(&name, &only_this(uid)).await {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        let release = Patch::Strategic(release(uid));
        let parameters = PatchParams::default();
        match self.pods.patch(&name, &parameters, &release).await {
            Err(error) if !is_absent_or_another(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the namespace of the pods is being deleted.
    pub(crate) async fn is_namespace_leaving(&self) -> Result<bool, kube::Error> {
        let found = self.namespaces.get_opt(&self.config.jobs_namespace).await?;
        Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
    }

    async fn adopt_existing(&self, accepted: &Accepted) -> Result<PodUid, Error> {
        let name = pod_name(accepted.order.job);
        if invoke_hooks::sabotaged("no-adoption") {
            let words = format!("a pod named {name} exists");
            return Err(Error::Refused(Reason::new(ReasonCode::NameConflict, words)));
        }
        match self.find(&name).await {
            Ok(Some(pod)) => adopt(&pod, accepted),
            // It went away between the two questions.
            Ok(None) => Err(Error::Leaving),
            Err(error) => Err(sort(error)),
        }
    }

    /// Resolved each time: a Service that is made anew has another address.
    async fn shim_door(&self) -> Result<ShimDoor, Error> {
        let service = &self.door.service;
        let failed = |source| Error::Door {
            service: service.clone(),
            source,
        };
        let mut addresses = tokio::net::lookup_host(service.as_str())
            .await
            .map_err(failed)?;
        let address: SocketAddr = addresses
            .next()
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(ShimDoor {
            address,
            ca: self.door.ca.clone(),
        })
    }
}

/// Takes a pod for this order's, if it was made for it.
fn adopt(pod: &Pod, accepted: &Accepted) -> Result<PodUid, Error> {
    if invoke_hooks::sabotaged("no-adoption-check")
        && let Some(uid) = pod.uid().and_then(|uid| uid.parse().ok())
    {
        return Ok(uid);
    }
    let is_this_orders = |marks: &JobPod| {
        marks.job == accepted.order.job && marks.order == accepted.digest.to_string()
    };
    match JobPod::read(pod).filter(is_this_orders) {
        // It can run nothing any more. Another one is made when this one's end is on record.
        Some(_) if pod.metadata.deletion_timestamp.is_some() || !is_live(pod) => {
            Err(Error::Leaving)
        }
        Some(marks) => Ok(marks.uid),
        None => {
            let words = format!(
                "a pod named {} exists that was not made for this order",
                pod.name_any()
            );
            Err(Error::Refused(Reason::new(ReasonCode::NameConflict, words)))
        }
    }
}

/// Tells a refusal, in Kubernetes' own words, from what may pass.
fn sort(error: kube::Error) -> Error {
    let kube::Error::Api(said) = &error else {
        return Error::Later(error);
    };
    if invoke_hooks::sabotaged("no-refusal-reason") {
        return Error::Later(error);
    }
    let words = said.message.as_str();
    let reason = |code| Reason::new(code, words);
    let is_refusal = (400..500).contains(&said.code) && !matches!(said.code, 401 | 408 | 409 | 429);
    if words.contains("exceeded quota") {
        Error::Waits(reason(ReasonCode::Quota))
    } else if words.contains("failed calling webhook") {
        Error::Waits(reason(ReasonCode::AdmissionUnavailable))
    } else if !is_refusal {
        Error::Later(error)
    } else if says_namespace_is_gone(words) {
        Error::Refused(reason(ReasonCode::NamespaceGone))
    } else if says_admission(words) {
        Error::Refused(reason(ReasonCode::AdmissionRefused))
    } else {
        Error::Refused(reason(ReasonCode::PodRefused))
    }
}

fn says_namespace_is_gone(words: &str) -> bool {
    words.contains("because it is being terminated")
        || (words.starts_with("namespaces ") && words.ends_with("not found"))
}

/// Pod Security, a webhook, or a policy of the API server's own.
fn says_admission(words: &str) -> bool {
    let signs = [
        "violates PodSecurity",
        "admission webhook",
        "ValidatingAdmissionPolicy",
    ];
    signs.iter().any(|sign| words.contains(sign))
}

/// What a deletion must be told, so that it does not strike another pod of the same name.
fn only_this(uid: PodUid) -> DeleteParams {
    if invoke_hooks::sabotaged("no-uid-precondition") {
        return DeleteParams::default();
    }
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_string()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

/// Takes our finalizer from a pod, and nothing else: other people's stay. The uid is a condition: the
/// API server refuses to change it, so another pod of the same name is not touched.
fn release(uid: PodUid) -> Value {
    let finalizers = "$deleteFromPrimitiveList/finalizers";
    if invoke_hooks::sabotaged("no-uid-precondition") {
        return json!({"metadata": {finalizers: [RESULT_FINALIZER]}});
    }
    json!({"metadata": {"uid": uid, finalizers: [RESULT_FINALIZER]}})
}

/// Whether the object that was meant is not there any more, in answer to a deletion: 409 is what the
/// API server says to a precondition that does not hold.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(status(error), Some(404 | 409))
}

/// The same in answer to a patch. Here 409 only means that others were writing too, and a uid that is
/// not the object's is taken for an attempt to change it.
fn is_absent_or_another(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(said) if said.code == 422 => said.message.contains("metadata.uid"),
        _ => status(error) == Some(404),
    }
}

/// The HTTP status of the API server's refusal.
pub(crate) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(said) => Some(said.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::order::tests::accepted;
    use crate::scripted::{Script, World, job, uid};

    fn pod(digest: &str) -> Pod {
        let job = accepted().order.job;
        serde_json::from_value(json!({"metadata": {
            "name": pod_name(job),
            "uid": "0197c1f0-1111-4c22-9d1b-3f2a9c8e4b10",
            "labels": {"invoke.dev/job": job.to_string(), "app.kubernetes.io/managed-by": "invoke-runner"},
            "annotations": {"invoke.dev/order-sha256": digest},
        }}))
        .unwrap()
    }

    #[test]
    fn only_this_orders_pod_is_adopted() {
        let accepted = accepted();
        assert!(adopt(&pod(&accepted.digest.to_string()), &accepted).is_ok());
        assert!(matches!(
            adopt(&pod("another order"), &accepted),
            Err(Error::Refused(_))
        ));
        let mut foreign = pod(&accepted.digest.to_string());
        foreign.labels_mut().remove("app.kubernetes.io/managed-by");
        assert!(matches!(adopt(&foreign, &accepted), Err(Error::Refused(_))));
        let mut leaving = pod(&accepted.digest.to_string());
        leaving.metadata.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH.into());
        assert!(matches!(adopt(&leaving, &accepted), Err(Error::Leaving)));
    }

    /// A pod that has ended starts nothing: whoever adopted it would wait for nothing.
    #[test]
    fn a_pod_that_has_ended_is_not_adopted() {
        let accepted = accepted();
        let mut ended = pod(&accepted.digest.to_string());
        ended.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
        assert!(matches!(adopt(&ended, &accepted), Err(Error::Leaving)));
    }

    fn sorted(code: u16, message: &str) -> Error {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        sort(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_refusal_is_told_from_what_may_pass() {
        for code in [400, 403, 404, 422] {
            let Error::Refused(reason) = sorted(code, "its words") else {
                panic!("{code}")
            };
            assert_eq!(
                (reason.code, reason.message.as_str()),
                (ReasonCode::PodRefused, "its words")
            );
        }
        for code in [401, 408, 429, 500, 503, 504] {
            let error = sorted(code, "its words");
            assert!(matches!(error, Error::Later(_)), "{code}");
            assert_eq!(error.reason().code, ReasonCode::ApiServerUnavailable);
        }
    }

    /// The API server's own sentences, from Kubernetes 1.33.
    #[test]
    fn who_refuses_is_named() {
        use ReasonCode::{AdmissionRefused, NamespaceGone};
        let refusals = [
            (
                403,
                r#"pods "invoke-x" is forbidden: violates PodSecurity "restricted:latest": privileged"#,
                AdmissionRefused,
            ),
            (
                403,
                r#"admission webhook "pods.example.com" denied the request: no"#,
                AdmissionRefused,
            ),
            (
                422,
                "pods \"invoke-x\" is forbidden: ValidatingAdmissionPolicy 'pinned' with binding 'all' denied request: pin",
                AdmissionRefused,
            ),
            (
                403,
                r#"pods "invoke-x" is forbidden: unable to create new content in namespace invoke-jobs because it is being terminated"#,
                NamespaceGone,
            ),
            (404, r#"namespaces "invoke-jobs" not found"#, NamespaceGone),
        ];
        for (code, words, expected) in refusals {
            let Error::Refused(reason) = sorted(code, words) else {
                panic!("{words}")
            };
            assert_eq!((reason.code, reason.message.as_str()), (expected, words));
        }
    }

    #[test]
    fn what_may_pass_is_waited_for_and_named() {
        use ReasonCode::{AdmissionUnavailable, Quota};
        let waits = [
            (
                403,
                r#"pods "invoke-x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"#,
                Quota,
            ),
            (
                500,
                r#"Internal error occurred: failed calling webhook "pods.example.com": context deadline exceeded"#,
                AdmissionUnavailable,
            ),
        ];
        for (code, words, expected) in waits {
            let Error::Waits(reason) = sorted(code, words) else {
                panic!("{words}")
            };
            assert_eq!((reason.code, reason.message.as_str()), (expected, words));
        }
    }

    /// The API server's own answers, from Kubernetes 1.34.
    #[test]
    fn a_pod_that_is_not_there_any_more_is_told_from_one_that_is_not_let_go_of() {
        let api = |code, message: &str| {
            let status = Status {
                code,
                message: message.to_owned(),
                ..Status::default()
            };
            is_absent_or_another(&kube::Error::Api(status.boxed()))
        };
        assert!(api(404, r#"pods "p" not found"#));
        assert!(api(
            422,
            r#"Pod "p" is invalid: metadata.uid: Invalid value: "0197c1f0-1111-4c22-9d1b-000000000001": field is immutable"#
        ));
        assert!(!api(422, r#"Pod "p" is invalid: spec: Forbidden"#));
        assert!(!api(409, "the object has been modified"));
        assert!(!api(403, "pods is forbidden"));
    }

    /// Another pod of the same name by now: nothing of it is touched, and there is nothing left to do.
    #[tokio::test]
    async fn another_pod_of_the_same_name_is_left_alone() {
        let world = World::new(Script::with_pod(2)).await;
        let first = uid(1).parse().unwrap();
        world.pool.remove(job(), first).await.unwrap();
        let script = world.script();
        let pod = &script.pods[&pod_name(job())];
        assert_eq!(pod.metadata.deletion_timestamp, None);
        assert_eq!(pod.finalizers(), [RESULT_FINALIZER]);
    }

    /// Other people's finalizers, and a pod that has the name by then, are not ours to touch.
    #[test]
    fn only_our_finalizer_is_taken_and_only_from_this_pod() {
        let uid: PodUid = "0197c1f0-1111-4c22-9d1b-3f2a9c8e4b10".parse().unwrap();
        let patch = json!({"metadata": {
            "uid": uid,
            "$deleteFromPrimitiveList/finalizers": ["invoke.dev/result"],
        }});
        assert_eq!(release(uid), patch);
    }
}
