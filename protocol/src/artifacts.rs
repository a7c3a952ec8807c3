//! What a command leaves in the folder `$INVOKE_ARTIFACTS`, and how it comes back.
//!
//! A job has **one stream of artifacts**: the contents of its files one after another, in the order of
//! the manifest, then the manifest itself as JSON. So a file is a range of the stream, and nobody has to
//! take an archive apart that a command has made.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::files::DEFAULT_FILES_BYTES;

/// How much a command may leave: as much as may be attached, by the operator's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactsLimits {
    /// What all files may come to together, in bytes.
    pub content_bytes: u64,
    /// How many entries the folder may have: files, folders, and what is no file. Never more
    /// than 100,000, whatever may be attached.
    pub entries: u64,
}

/// The most entries that are ever looked at, whatever the operator says: the list of them is in memory at
/// either end.
pub const MAX_ENTRIES: u64 = 100_000;

impl Default for ArtifactsLimits {
    fn default() -> Self {
        Self {
            content_bytes: DEFAULT_FILES_BYTES,
            entries: MAX_ENTRIES,
        }
    }
}

/// What came back, and what did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Manifest {
    /// The files, sorted by path.
    pub files: Vec<Artifact>,
    /// What was there and is no file that can be sent, at most [`MAX_SKIPPED`] of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// The most things that a manifest names as skipped; the summary counts all.
pub const MAX_SKIPPED: usize = 1000;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// Its path below the folder, with `/` between names. The command chose it: whoever writes to this
    /// path looks first where that would be.
    pub path: String,
    /// How long it is.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Where in the stream its content begins.
    pub offset: u64,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// Something that was there and did not come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Skipped {
    /// Its path below the folder.
    pub path: String,
    /// Why, for people.
    pub reason: String,
}

/// What a job's artifacts came to: part of the record of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactsSummary {
    /// How many files.
    pub files: u64,
    /// How long they are together: the manifest begins there in the stream.
    pub content_bytes: u64,
    /// How long the manifest is.
    pub manifest_bytes: u64,
    /// SHA-256 of the manifest.
    pub manifest_sha256: Sha256,
    /// How much was there and is no file that can be sent.
    #[serde(default)]
    pub skipped: u64,
    /// Why files that could have been sent are missing, if some are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<ArtifactsIncomplete>,
}

impl ArtifactsSummary {
    /// The whole length of the stream.
    #[must_use]
    pub const fn stream_bytes(&self) -> u64 {
        self.content_bytes.saturating_add(self.manifest_bytes)
    }
}

/// Why artifacts are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ArtifactsIncomplete {
    /// They come to more than is allowed: those after the limit were left out.
    TooLarge,
    /// They are more than are allowed: those after the limit were left out.
    TooMany,
    /// There was no room for them.
    StorageFull,
    /// They could not be uploaded.
    NotUploaded,
    /// One that was made after this program.
    #[serde(other)]
    Unknown,
}
