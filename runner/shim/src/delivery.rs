//! Brings what the command has left in its folder of artifacts to the runner, after its end.
//!
//! Nothing that happens here changes how the command ended: what is missing, and why, is in the summary.
//! A pod that Kubernetes ends has only so much time, and the record of the end is worth more than artifacts:
//! they are given up while there is still time for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::artifacts::{ArtifactsIncomplete, ArtifactsLimits, ArtifactsSummary};
use invoke_protocol::digest::Sha256;
use invoke_protocol::output::IncompleteReason;
use invoke_protocol::shim::Assignment;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::artifacts::{self, collect};
use crate::aside::aside;
use crate::config::Config;
use crate::door::{Door, Upload};
use crate::farewell::Farewell;
use crate::log;
use crate::spool::{Cut, Reader};
use crate::termination::Termination;
use crate::uploader::{UploadEnd, Uploader};

/// How long artifacts may still be brought from a pod that Kubernetes ends, after the drain and the grace:
/// half of what the pod has then.
const AFTER_GRACE: Duration = Duration::from_secs(5);

/// What there is to say of artifacts that nobody has looked at yet; `None` if there are none.
pub(crate) fn not_yet(artifacts_dir: &Path) -> Option<ArtifactsSummary> {
    let is_empty = artifacts_dir.read_dir().ok()?.next().is_none();
    (!is_empty).then(|| nothing(ArtifactsIncomplete::NotUploaded))
}

/// The way of the artifacts.
pub(crate) struct Delivery<'a> {
    pub(crate) config: &'a Config,
    pub(crate) door: &'a Door,
    pub(crate) assignment: &'a Assignment,
    pub(crate) termination: Termination,
}

/// Artifacts that are spooled and not uploaded.
pub(crate) struct Collected {
    /// What they come to.
    summary: ArtifactsSummary,
    spool: Option<File>,
}

impl Collected {
    /// What there is to say of them until they are uploaded.
    pub(crate) fn not_uploaded(&self) -> ArtifactsSummary {
        let incomplete = Some(ArtifactsIncomplete::NotUploaded);
        ArtifactsSummary {
            incomplete,
            ..self.summary.clone()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NotCollected {
    #[error(transparent)]
    Collect(#[from] artifacts::Error),
    #[error("artifacts cannot be spooled")]
    Spool(#[from] io::Error),
    #[error("Kubernetes ends the pod, and the time for artifacts is over")]
    TimeIsUp,
}

impl Delivery<'_> {
    /// Collects what there is; `None` if there is nothing.
    ///
    /// *Assumptions*: nothing of the command is alive any more.
    pub(crate) async fn collect(&self) -> Option<Collected> {
        let (folder, limits) = (&self.config.artifacts_dir, self.config.artifacts_limits);
        let spool = self.config.state_dir.join("artifacts");
        let collected = tokio::select! {
            collected = collect_aside(folder, limits, &spool) => collected,
            () = self.time_is_up() => Err(NotCollected::TimeIsUp),
        };
        let collected = collected.unwrap_or_else(|error| {
            log::chain("what the command has left does not come back", &error);
            Collected {
                summary: nothing(why_not(&error)),
                spool: None,
            }
        });
        let ArtifactsSummary {
            files,
            skipped,
            incomplete,
            ..
        } = collected.summary;
        (files > 0 || skipped > 0 || incomplete.is_some()).then_some(collected)
    }

    /// Uploads it, for as long as that makes sense. Says what came of it; `None` if nobody wants it, nor
    /// anything else from this pod.
    pub(crate) async fn upload(&self, collected: Collected) -> Option<ArtifactsSummary> {
        let Collected { summary, spool } = collected;
        let Some(spool) = spool else {
            return Some(summary);
        };
        let (uploader, farewell) = self.prepare(spool, summary.stream_bytes());
        let end = tokio::select! {
            end = uploader.upload() => end,
            reason = farewell.wait() => UploadEnd::Incomplete(reason),
            () = self.time_is_up() => UploadEnd::Incomplete(IncompleteReason::NotUploaded),
        };
        match end {
            UploadEnd::Finished => Some(summary),
            UploadEnd::Incomplete(reason) => Some(ArtifactsSummary {
                incomplete: Some(missing(reason)),
                ..summary
            }),
            UploadEnd::Unwanted => None,
        }
    }

    fn prepare(&self, spool: File, bytes: u64) -> (Uploader<'_>, Farewell) {
        // All of it is written: the other end is gone.
        let (_, written) = watch::channel(bytes);
        let (acknowledged, acknowledged_receiver) = watch::channel(0);
        let (storage_full, storage_full_receiver) = watch::channel(false);
        // And there is no command left to stop.
        let (stops, _) = mpsc::channel(1);
        let farewell = Farewell {
            written: written.clone(),
            acknowledged: acknowledged_receiver,
            storage_full: storage_full_receiver,
            storage_full_within: self.config.storage_full_within,
            within: self.config.farewell_within,
        };
        let uploader = Uploader {
            door: self.door,
            what: Upload::Artifacts,
            reader: Reader::new(spool, Cut::Anywhere),
            written,
            acknowledged,
            storage_full,
            stops,
        };
        (uploader, farewell)
    }

    /// Comes back only in a pod that Kubernetes ends.
    async fn time_is_up(&self) {
        let told = self.termination.clone().told().await;
        let seconds = self.assignment.drain_seconds + self.assignment.grace_seconds;
        sleep_until((told + Duration::from_secs(seconds) + AFTER_GRACE).into()).await;
    }
}

async fn collect_aside(
    folder: &Path,
    limits: ArtifactsLimits,
    spool: &Path,
) -> Result<Collected, NotCollected> {
    let spool = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(spool)?;
    let folder = folder.to_owned();
    let summary = aside(spool.try_clone()?, move |mut spool| {
        collect(&folder, limits, &mut spool)
    });
    Ok(Collected {
        summary: summary.await??,
        spool: Some(spool),
    })
}

/// Where there are artifacts, and none of them comes back.
fn nothing(incomplete: ArtifactsIncomplete) -> ArtifactsSummary {
    let digest = digest(&SHA256, b"");
    ArtifactsSummary {
        files: 0,
        content_bytes: 0,
        manifest_bytes: 0,
        // SHA-256 has 32 bytes.
        manifest_sha256: Sha256::from_bytes(digest.as_ref().try_into().unwrap_or_default()),
        skipped: 0,
        incomplete: Some(incomplete),
    }
}

fn why_not(error: &NotCollected) -> ArtifactsIncomplete {
    match error {
        NotCollected::Spool(error) | NotCollected::Collect(artifacts::Error::Spool(error))
            if error.kind() == io::ErrorKind::StorageFull =>
        {
            ArtifactsIncomplete::StorageFull
        }
        _ => ArtifactsIncomplete::NotUploaded,
    }
}

const fn missing(reason: IncompleteReason) -> ArtifactsIncomplete {
    match reason {
        IncompleteReason::StorageFull => ArtifactsIncomplete::StorageFull,
        _ => ArtifactsIncomplete::NotUploaded,
    }
}
