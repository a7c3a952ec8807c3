//! The files that a command finds in its work folder: one archive, named by its digest.
//!
//! The archive is a tar in gzip form (RFC 1952), made by the submitter and read by exactly one program,
//! the shim, in the pod. Whatever lies between carries bytes, and compares digests.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// An archive of attached files. What it says is what the submitter stated: the shim holds the archive
/// to it before anything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Files {
    /// SHA-256 of the archive.
    pub sha256: Sha256,
    /// How long the archive is, in bytes.
    pub bytes: u64,
    /// What its files come to unpacked, in bytes.
    pub content_bytes: u64,
    /// How many entries it has: files, folders, and symbolic links.
    pub entries: u64,
}

/// The most that the files of one job may come to unpacked, in bytes, unless the operator says otherwise.
pub const DEFAULT_FILES_BYTES: u64 = 1 << 30;

/// The most entries that the files of one job may have, unless the operator says otherwise.
pub const DEFAULT_FILES_ENTRIES: u64 = 100_000;

/// How long an archive may be whose content comes to this: what cannot be compressed grows a little, and
/// each entry has headers.
#[must_use]
pub const fn longest_archive(content_bytes: u64, entries: u64) -> u64 {
    // A header block, padding, and the blocks of a long name; gzip's stored blocks add 5 bytes to 64 KiB.
    let tar = content_bytes
        .saturating_add(entries.saturating_mul(8 * 512))
        .saturating_add(1 << 20);
    tar.saturating_add(tar / 1000)
}

/// The longest piece of an archive in one upload, in bytes.
pub const MAX_FILES_CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// For how long, in seconds, a shim may take to fetch and unpack the files before it gives up.
pub const FILES_WITHIN_SECONDS: u64 = 3600;
