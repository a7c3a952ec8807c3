//! Reminds a dispatcher whose store was restored from a backup of the starts that it has forgotten.
//!
//! Such a dispatcher takes a job that has run, or runs, for one that never started. It would order it
//! again, and refuse the output of the command. The cluster knows better: it has a record of the start.

use std::sync::Arc;

use invoke_protocol::id::JobId;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{Claim, CompleteRequest, Report};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::pod_name;
use kube::ResourceExt as _;

use crate::job_pod::JobPod;
use crate::pool::Pool;
use crate::report::chain;
use crate::start_record::{StartRecord, StartRecords};
use crate::upstream::{self, Upstream};

/// What it takes to remind a dispatcher.
#[derive(Clone)]
pub(crate) struct Recovery {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) records: StartRecords,
    pub(crate) pool: Pool,
}

/// Why a call had no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// See there.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The dispatcher does not know of the start, and the cluster cannot say now.
    #[error("the cluster's record of the start can neither be read nor made now")]
    Record(#[source] kube::Error),
}

impl Error {
    /// Whether the same call can never succeed.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Upstream(error) if error.is_final())
    }

    /// Why the dispatcher refuses, if it was the dispatcher who did.
    pub(crate) fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Upstream(error) => error.code(),
            Self::Record(_) => None,
        }
    }
}

impl Recovery {
    /// Puts the end of a command on the dispatcher's record.
    pub(crate) async fn complete(
        &self,
        pod: &JobPod,
        request: &CompleteRequest,
    ) -> Result<(), Error> {
        self.reminding(pod, || self.upstream.complete(pod.job, request))
            .await
    }

    /// Puts on the dispatcher's record that the command of a pod was never started, although it might have.
    pub(crate) async fn refuse_start(&self, pod: &JobPod, reason: Reason) -> Result<(), Error> {
        let report = Report::StartRefused {
            pod: pod.uid,
            reason,
        };
        self.reminding(pod, || self.upstream.report(pod.job, &report))
            .await
    }

    /// Makes a call about a pod whose command was started. If the dispatcher does not know of the start,
    /// it is reminded, and the call is made again.
    pub(crate) async fn reminding<T, F: Future<Output = Result<T, upstream::Error>>>(
        &self,
        pod: &JobPod,
        call: impl Fn() -> F,
    ) -> Result<T, Error> {
        let refused = match call().await {
            Err(error) if error.code() == Some(ProblemCode::NotStarted) => error,
            answer => return Ok(answer?),
        };
        let record = self.records.find(pod.job).await.map_err(Error::Record)?;
        match record.filter(|record| record.pod == pod.uid) {
            // There is no such start: whoever speaks was never handed a command.
            None => Err(refused.into()),
            Some(record) => {
                self.tell_start(&record).await?;
                Ok(call().await?)
            }
        }
    }

    /// What the dispatcher takes a job for, once it is reminded of its start, should it have forgotten it.
    pub(crate) async fn standing(&self, job: JobId) -> Result<Claim, Error> {
        let claim = self.upstream.claim(job).await?;
        if claim == Claim::Yours
            && let Some(record) = self.records.find(job).await.map_err(Error::Record)?
        {
            self.tell_start(&record).await?;
            return Ok(Claim::Started);
        }
        Ok(claim)
    }

    /// Ends a job that was permitted to start in `pod` although the cluster has a record of another pod.
    /// Whichever of the two the dispatcher believes in: nobody will say how it ended.
    pub(crate) async fn end_started_before(
        &self,
        pod: &JobPod,
        record: &StartRecord,
    ) -> Result<(), upstream::Error> {
        let recovered = self.tell_start(record).await;
        let reason = started_before(record);
        let ended = |pod| Report::PodFailed {
            pod: Some(pod),
            reason: reason.clone(),
        };
        final_is_fine(recovered)?;
        final_is_fine(self.upstream.report(pod.job, &ended(record.pod)).await)?;
        final_is_fine(self.upstream.report(pod.job, &ended(pod.uid)).await)
    }

    /// Tells a dispatcher that takes a job for not started that it was; and, if its pod is gone, that
    /// nobody will ever say how it ended. Answers whether that is on record.
    pub(crate) async fn remind(&self, record: &StartRecord) -> bool {
        match self.try_to_remind(record).await {
            Ok(()) => true,
            // It knows better: the job is over.
            Err(error) if error.is_final() => true,
            Err(error) => {
                tracing::warn!(job.id = %record.job, "the dispatcher was not reminded of the start of job {}: {}", record.job, chain(&error));
                false
            }
        }
    }

    async fn try_to_remind(&self, record: &StartRecord) -> Result<(), Error> {
        self.tell_start(record).await?;
        let pod = self.pool.find(&pod_name(record.job)).await;
        let uid = pod.map_err(Error::Record)?.and_then(|pod| pod.uid());
        if uid == Some(record.pod.to_string()) {
            // The watch says what becomes of it.
            return Ok(());
        }
        let reason = started_before(record);
        let report = Report::PodFailed {
            pod: Some(record.pod),
            reason,
        };
        Ok(self.upstream.report(record.job, &report).await?)
    }

    async fn tell_start(&self, record: &StartRecord) -> Result<(), upstream::Error> {
        let StartRecord {
            job, pod, started, ..
        } = record;
        tracing::warn!(job.id = %job, pod.uid = %pod, "the dispatcher does not know that job {job} was started at {started}: it is reminded");
        let report = Report::Recovered {
            pod: *pod,
            started: *started,
        };
        self.upstream.report(*job, &report).await
    }
}

/// The dispatcher knows better.
fn final_is_fine(answer: Result<(), upstream::Error>) -> Result<(), upstream::Error> {
    match answer {
        Err(error) if !error.is_final() => Err(error),
        _ => Ok(()),
    }
}

/// Why a job is lost whose start only the cluster remembers.
fn started_before(record: &StartRecord) -> Reason {
    let words = format!(
        "the command was started in pod {} at {}, which the dispatcher has forgotten, as a store does \
         that was restored from a backup; that pod is gone, and the command is not started again",
        record.pod, record.started
    );
    Reason::new(ReasonCode::StartedBefore, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Script, World, job, uid};

    fn forgetful(script: Script) -> Script {
        Script {
            claim: Some(Claim::Yours),
            forgotten: true,
            ..script
        }
    }

    async fn reminded(script: Script) -> Vec<Report> {
        let world = World::new(forgetful(script)).await;
        let recovery = world.recovery();
        let record = recovery.records.find(job()).await.unwrap().unwrap();
        assert!(recovery.remind(&record).await);
        world.script().reports.clone()
    }

    /// The command may still run: how it ends is its own word.
    #[tokio::test]
    async fn a_start_that_was_forgotten_is_told() {
        let reports = reminded(Script::with_pod(1).with_record(1)).await;
        let [Report::Recovered { pod, started }] = &reports[..] else {
            panic!("{reports:?}")
        };
        assert_eq!(pod.to_string(), uid(1));
        assert_eq!(started.to_string(), "2026-11-22T10:00:00Z");
    }

    /// The job ends as lost, with the reason; it is never started again.
    #[tokio::test]
    async fn a_start_whose_pod_is_gone_ends_the_job() {
        for script in [Script::default(), Script::with_pod(2)] {
            let reports = reminded(script.with_record(1)).await;
            let [
                Report::Recovered { .. },
                Report::PodFailed {
                    pod: Some(pod),
                    reason,
                },
            ] = &reports[..]
            else {
                panic!("{reports:?}")
            };
            assert_eq!(pod.to_string(), uid(1));
            assert_eq!(reason.code, ReasonCode::StartedBefore);
        }
    }
}
