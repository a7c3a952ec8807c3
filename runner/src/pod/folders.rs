//! The pod's own folders, each with room for what the order and the dispatcher's limits say.

use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::files::Files;
use invoke_protocol::shim::{ARTIFACTS_DIR, HOME_DIR, STATE_DIR, WORK_DIR};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::mount;

/// For what a command writes that has nowhere else to write.
pub(crate) const TMP_DIR: &str = "/tmp";

const MIB: u64 = 1 << 20;

/// The shim's spool (256 MiB) and a little.
const SPOOL_BYTES: u64 = 320 * MIB;

/// What a command has in its current folder besides the attached files.
const WORK_BYTES: u64 = 1024 * MIB;

/// The list of what comes back.
const MANIFEST_BYTES: u64 = 64 * MIB;

/// A file takes up whole blocks, a folder and a link at least one.
const BLOCK_BYTES: u64 = 4096;

/// An `emptyDir`.
pub(super) struct Folder {
    name: &'static str,
    path: &'static str,
    bytes: u64,
}

impl Folder {
    pub(super) fn mount(&self) -> VolumeMount {
        mount(self.name, self.path, false)
    }

    /// Who writes more is evicted by the kubelet: one command must not fill its node.
    pub(super) fn volume(&self) -> Volume {
        Volume {
            name: self.name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: None,
                size_limit: Some(Quantity(format!("{}Mi", self.bytes.div_ceil(MIB)))),
            }),
            ..Volume::default()
        }
    }
}

/// What a command is given and may leave must fit beside what it writes by itself.
pub(super) fn folders(files: Option<&Files>, artifacts: &ArtifactsLimits) -> [Folder; 5] {
    let archive = files.map_or(0, |files| files.bytes);
    let content = files.map_or(0, |files| on_disk(files.content_bytes, files.entries));
    let folder = |name, path, bytes| Folder { name, path, bytes };
    [
        folder("work", WORK_DIR, WORK_BYTES.saturating_add(content)),
        folder(
            "artifacts",
            ARTIFACTS_DIR,
            on_disk(artifacts.content_bytes, artifacts.entries),
        ),
        folder("home", HOME_DIR, 256 * MIB),
        folder("tmp", TMP_DIR, 256 * MIB),
        folder(
            "state",
            STATE_DIR,
            (SPOOL_BYTES + MANIFEST_BYTES)
                .saturating_add(artifacts.content_bytes)
                .saturating_add(archive),
        ),
    ]
}

const fn on_disk(content_bytes: u64, entries: u64) -> u64 {
    content_bytes.saturating_add(entries.saturating_mul(BLOCK_BYTES))
}
