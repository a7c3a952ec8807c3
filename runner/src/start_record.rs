//! The cluster's own record that a job was started: an immutable ConfigMap, made after the permit and
//! before the command is handed over.
//!
//! ```text
//!  permit ──▶ record made, or there already and of this very pod ──▶ hand over
//!                 └─ there already, and of another pod ──▶ the command was started before: never again
//! ```
//!
//! The permit alone is enough as long as the dispatcher remembers it. A store that was restored from a
//! backup does not; a name in the API server exists once all the same. The record stays until no order
//! for its job can be good any more.

use std::collections::BTreeMap;

use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::topology::{
    START_RECORD_KEEP_UNTIL, START_RECORD_LABEL, START_RECORD_POD, start_record_name,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};

use crate::job_pod::MANAGED_BY;
use crate::pool::{is_absent, status};

/// For how long a record outlives its order: the clocks of dispatcher and cluster may differ.
const KEEP_AFTER_EXPIRY: SignedDuration = SignedDuration::from_hours(1);

/// How many records are listed with one question.
const PAGE: u32 = 500;

/// What the cluster remembers of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartRecord {
    pub(crate) job: JobId,
    /// The pod that was permitted.
    pub(crate) pod: PodUid,
    /// When the record was made, by the API server's clock.
    pub(crate) started: Timestamp,
    keep_until: Timestamp,
    uid: Option<String>,
}

/// Whether a command may be handed to a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The record is this pod's.
    Open,
    /// The command was handed to another pod before.
    StartedBefore(StartRecord),
    /// The name is taken by something that is no record. Nothing can be known.
    Foreign,
}

/// The records, in the namespace of the pods.
#[derive(Clone)]
pub(crate) struct StartRecords(Api<ConfigMap>);

impl StartRecords {
    pub(crate) fn new(api: Api<ConfigMap>) -> Self {
        Self(api)
    }

    /// Puts on record that this pod is permitted to start a job's command.
    ///
    /// # Guarantees
    /// For one job the fence opens for one pod, whichever replica asks and however often.
    ///
    /// # Errors
    /// The API server does not say: the record may have been made. Ask again.
    pub(crate) async fn put(
        &self,
        job: JobId,
        pod: PodUid,
        expires_at: Timestamp,
    ) -> Result<Fence, kube::Error> {
        let record = manifest(job, pod, expires_at);
        match self.0.create(&PostParams::default(), &record).await {
            Ok(_) => return Ok(Fence::Open),
            Err(error) if status(&error) == Some(409) => {}
            Err(error) => return Err(error),
        }
        // Not `get_opt`: a record that vanished just now is a reason to ask again, not to go on.
        let found = self.0.get(&start_record_name(job)).await?;
        Ok(match StartRecord::read(&found) {
            Some(record) if record.job == job && record.pod == pod => Fence::Open,
            Some(record) if record.job == job => Fence::StartedBefore(record),
            _ => Fence::Foreign,
        })
    }

    /// The record of a job's start, if there is one.
    pub(crate) async fn find(&self, job: JobId) -> Result<Option<StartRecord>, kube::Error> {
        let found = self.0.get_opt(&start_record_name(job)).await?;
        Ok(found.as_ref().and_then(StartRecord::read))
    }

    /// All records.
    pub(crate) async fn list(&self) -> Result<Vec<StartRecord>, kube::Error> {
        let mut question = ListParams::default().labels(START_RECORD_LABEL).limit(PAGE);
        let mut records = Vec::new();
        loop {
            let page = self.0.list(&question).await?;
            records.extend(page.items.iter().filter_map(StartRecord::read));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => question = question.continue_token(&token),
                None => return Ok(records),
            }
        }
    }

    /// Deletes a record that nothing depends on any more.
    pub(crate) async fn forget(&self, record: &StartRecord) -> Result<(), kube::Error> {
        let only_this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: record.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self
            .0
            .delete(&start_record_name(record.job), &only_this)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl StartRecord {
    /// Whether no order for the job can be good any more.
    pub(crate) fn is_outdated(&self, now: Timestamp) -> bool {
        now > self.keep_until
    }

    /// `None` if it is none of ours.
    fn read(found: &ConfigMap) -> Option<Self> {
        let job: JobId = found.labels().get(START_RECORD_LABEL)?.parse().ok()?;
        (found.name_any() == start_record_name(job)).then_some(())?;
        let keep_until = found.annotations().get(START_RECORD_KEEP_UNTIL)?;
        Some(Self {
            job,
            pod: found.data.as_ref()?.get(START_RECORD_POD)?.parse().ok()?,
            started: found.metadata.creation_timestamp.as_ref()?.0,
            keep_until: keep_until.parse().ok()?,
            uid: found.uid(),
        })
    }
}

fn manifest(job: JobId, pod: PodUid, expires_at: Timestamp) -> ConfigMap {
    let text = |key: &str, value: String| (key.to_owned(), value);
    let keep_until = expires_at
        .saturating_add(KEEP_AFTER_EXPIRY)
        .unwrap_or(Timestamp::MAX);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(start_record_name(job)),
            labels: Some(BTreeMap::from([
                text(MANAGED_BY.0, MANAGED_BY.1.to_owned()),
                text(START_RECORD_LABEL, job.to_string()),
            ])),
            annotations: Some(BTreeMap::from([text(
                START_RECORD_KEEP_UNTIL,
                keep_until.to_string(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([text(START_RECORD_POD, pod.to_string())])),
        // What is on record cannot be changed, not even by whoever may write ConfigMaps here.
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::order;
    use crate::scripted::{Script, World, job, uid};

    fn pod(n: usize) -> PodUid {
        uid(n).parse().unwrap()
    }

    #[test]
    fn this_is_what_a_cluster_remembers() {
        let record = manifest(job(), pod(1), order().expires_at);
        insta::assert_json_snapshot!(record, @r#"
        {
          "apiVersion": "v1",
          "kind": "ConfigMap",
          "data": {
            "pod": "0197c1f0-1111-4c22-9d1b-000000000001"
          },
          "immutable": true,
          "metadata": {
            "annotations": {
              "invoke.dev/keep-until": "2026-11-22T11:15:00Z"
            },
            "labels": {
              "app.kubernetes.io/managed-by": "invoke-runner",
              "invoke.dev/start-record": "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"
            },
            "name": "invoke-0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"
          }
        }
        "#);
    }

    /// Two permits for two pods can only come from a store that has forgotten the first.
    #[tokio::test]
    async fn the_fence_opens_for_one_pod_however_often_it_asks() {
        let world = World::new(Script::default()).await;
        let put = |n| world.records.put(job(), pod(n), order().expires_at);
        assert_eq!(put(1).await.unwrap(), Fence::Open);
        assert_eq!(put(1).await.unwrap(), Fence::Open);
        let Fence::StartedBefore(record) = put(2).await.unwrap() else {
            panic!("the second pod passed");
        };
        assert_eq!((record.job, record.pod), (job(), pod(1)));
        assert_eq!(world.records.find(job()).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn what_is_no_record_opens_nothing() {
        let world = World::new(Script::default()).await;
        let foreign = ConfigMap {
            metadata: ObjectMeta {
                name: Some(start_record_name(job())),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        world
            .script()
            .config_maps
            .insert(start_record_name(job()), foreign);
        let put = world.records.put(job(), pod(1), order().expires_at).await;
        assert_eq!(put.unwrap(), Fence::Foreign);
    }

    #[tokio::test]
    async fn a_record_is_kept_for_an_hour_after_its_order() {
        let world = World::new(Script::default()).await;
        let put = world.records.put(job(), pod(1), order().expires_at).await;
        assert_eq!(put.unwrap(), Fence::Open);
        let records = world.records.list().await.unwrap();
        let last = order().expires_at + SignedDuration::from_hours(1);
        assert!(!records[0].is_outdated(last));
        assert!(records[0].is_outdated(last + SignedDuration::from_secs(1)));
        world.records.forget(&records[0]).await.unwrap();
        assert_eq!(world.records.find(job()).await.unwrap(), None);
        world.records.forget(&records[0]).await.unwrap();
    }
}
