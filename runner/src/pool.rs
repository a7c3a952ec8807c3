//! Job pods in Kubernetes: made, adopted, removed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::{JOB_LABEL, pod_name};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};

use crate::clock;
use crate::config::Config;
use crate::job_pod::JobPod;
use crate::order::Accepted;
use crate::pod::{ShimDoor, manifest};

/// Job pods, and what it takes to make one.
#[derive(Clone)]
pub(crate) struct Pool {
    pods: Api<Pod>,
    config: Arc<Config>,
    door: Arc<DoorName>,
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
    /// Kubernetes cannot say now. The pod may have been made all the same: asking again adopts it.
    #[error("the pod cannot be made now")]
    Later(#[source] kube::Error),
    /// A pod under the job's name is on its way out.
    #[error("a pod of this job is being deleted")]
    Leaving,
    /// The runner's own Service has no address.
    #[error("{service} has no address")]
    Door {
        service: String,
        #[source]
        source: io::Error,
    },
}

impl Pool {
    pub(crate) fn new(pods: Api<Pod>, config: Arc<Config>, door: DoorName) -> Self {
        Self {
            pods,
            config,
            door: Arc::new(door),
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
        let pod = manifest(accepted, profile, &self.shim_door().await?, clock::now());
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

    /// Asks Kubernetes to delete a job's pod; this very one, not another that has its name by then.
    pub(crate) async fn remove(&self, job: JobId, uid: PodUid) -> Result<(), kube::Error> {
        let only_this = Preconditions {
            uid: Some(uid.to_string()),
            resource_version: None,
        };
        let parameters = DeleteParams {
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        match self.pods.delete(&pod_name(job), &parameters).await {
            Ok(_) => Ok(()),
            // Gone, or another one: what was to be deleted is not there.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn adopt_existing(&self, accepted: &Accepted) -> Result<PodUid, Error> {
        let name = pod_name(accepted.order.job);
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
    match JobPod::read(pod) {
        Some(marks)
            if marks.job == accepted.order.job && marks.order == accepted.digest.to_string() =>
        {
            if pod.metadata.deletion_timestamp.is_some() {
                Err(Error::Leaving)
            } else {
                Ok(marks.uid)
            }
        }
        _ => {
            let words = format!(
                "a pod named {} exists that was not made for this order",
                pod.name_any()
            );
            Err(Error::Refused(Reason::new(ReasonCode::PodRefused, words)))
        }
    }
}

/// Tells a refusal (a quota, Pod Security, a policy, a webhook, a missing ServiceAccount, all in
/// Kubernetes' own words) from what may pass.
fn sort(error: kube::Error) -> Error {
    match &error {
        kube::Error::Api(said)
            if (400..500).contains(&said.code) && !matches!(said.code, 401 | 408 | 409 | 429) =>
        {
            Error::Refused(Reason::new(ReasonCode::PodRefused, &said.message))
        }
        _ => Error::Later(error),
    }
}

fn status(error: &kube::Error) -> Option<u16> {
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

    #[test]
    fn a_refusal_is_told_from_what_may_pass() {
        let api = |code| {
            sort(kube::Error::Api(
                Status {
                    code,
                    message: "its words".to_owned(),
                    ..Status::default()
                }
                .boxed(),
            ))
        };
        for code in [400, 403, 404, 422] {
            let Error::Refused(reason) = api(code) else {
                panic!("{code}")
            };
            assert_eq!(
                (reason.code, reason.message.as_str()),
                (ReasonCode::PodRefused, "its words")
            );
        }
        for code in [401, 408, 429, 500, 503, 504] {
            assert!(matches!(api(code), Error::Later(_)), "{code}");
        }
    }
}
