//! Tells the same files again, without reading them.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::tree::{Kind, Node, Stamp, Tree};
use crate::output::hex;

/// Changes with the archive's format, so that no archive of another format is found.
const FORMAT: &[u8] = b"invoke files 1";

/// How long a file must have been left alone. Time stamps of files are coarse: a change within the same
/// tick leaves no trace. Two seconds are the coarsest in use (FAT); git calls such files racily clean.
const SETTLED_AFTER_NANOSECONDS: i128 = 2_000_000_000;

/// SHA-256, in hexadecimal, over everything that the kernel says of the files of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fingerprint {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut digest = Context::new(&SHA256);
        add(&mut digest, FORMAT);
        for (path, node) in tree.iter() {
            add_node(&mut digest, path, node);
        }
        Self(hex(digest.finish().as_ref()))
    }
}

/// Whether the stamps of all files are old enough to be believed, if they were taken at this time or
/// later.
pub(super) fn is_settled(tree: &Tree, at: Timestamp) -> bool {
    let latest = at.as_nanosecond() - SETTLED_AFTER_NANOSECONDS;
    tree.iter().all(|(_, node)| match &node.kind {
        Kind::File { stamp, .. } => stamp.modified <= latest && stamp.changed <= latest,
        // What is sent of these is in the fingerprint itself.
        Kind::Folder { .. } | Kind::Link { .. } => true,
    })
}

fn add_node(digest: &mut Context, path: &Path, node: &Node) {
    add(digest, path.as_os_str().as_bytes());
    match &node.kind {
        Kind::Folder {
            mode,
            is_implied: _,
        } => {
            add(digest, b"folder");
            add(digest, &mode.to_be_bytes());
        }
        Kind::File { mode, stamp } => {
            let Stamp {
                device,
                inode,
                size,
                modified,
                changed,
            } = stamp;
            add(digest, b"file");
            add(digest, &mode.to_be_bytes());
            for number in [device, inode, size] {
                add(digest, &number.to_be_bytes());
            }
            add(digest, &modified.to_be_bytes());
            add(digest, &changed.to_be_bytes());
        }
        Kind::Link { target, top: _ } => {
            add(digest, b"link");
            add(digest, target.as_os_str().as_bytes());
        }
    }
}

/// With its length before it: no two lists of fields are the same bytes.
fn add(digest: &mut Context, field: &[u8]) {
    digest.update(&(field.len() as u64).to_be_bytes());
    digest.update(field);
}
