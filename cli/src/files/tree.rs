//! What the work folder will hold: each path once, whoever brings it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Error, Limits};

/// The mode of a folder that nobody named, around a file that somebody did.
const IMPLIED_MODE: u32 = 0o755;
/// The walk goes on past the limit to tell how much there is, but not for ever, nor into all memory.
const COUNTED_BEYOND_LIMIT: u64 = 10;
/// How many of the largest are named.
const SHOWN: usize = 3;

/// Paths below the work folder, every folder before what is in it.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    content_bytes: u64,
    limits: Limits,
}

/// What is at one path.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it comes from, as the person would write it.
    pub source: PathBuf,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Folder {
        mode: u32,
        /// Whether it is there only for what is below it.
        is_implied: bool,
    },
    File {
        mode: u32,
        stamp: Stamp,
    },
    Link {
        target: PathBuf,
        /// The folder that it must not lead out of.
        top: PathBuf,
    },
}

/// By what a file is known to be the same and unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    /// The same for the change time, which no program can set.
    pub changed: i128,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Kind {
    pub(super) const fn folder(mode: u32) -> Self {
        Self::Folder {
            mode,
            is_implied: false,
        }
    }

    const fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }
}

impl Node {
    pub(super) fn new(source: &Path, kind: Kind) -> Self {
        Self {
            source: source.to_owned(),
            kind,
        }
    }
}

impl Tree {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            nodes: BTreeMap::new(),
            content_bytes: 0,
            limits,
        }
    }

    pub(super) fn entries(&self) -> u64 {
        self.nodes.len() as u64
    }

    pub(super) const fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Adds what is at a path, and the folders around it. Folders merge; the first one's mode stays.
    ///
    /// # Errors
    /// [`Error::TwoFiles`] or [`Error::FileAndFolder`] if something else is there, and
    /// [`Error::TooManyEntries`] far beyond the limit.
    pub(super) fn insert(&mut self, path: PathBuf, node: Node) -> Result<(), Error> {
        self.insert_around(&path, &node)?;
        let size = match &node.kind {
            Kind::File { stamp, .. } => stamp.size,
            _ => 0,
        };
        match self.nodes.get_mut(&path) {
            Some(there) => return merge(&path, there, node),
            None => self.nodes.insert(path, node),
        };
        self.content_bytes = self.content_bytes.saturating_add(size);
        if self.entries() > self.limits.entries.saturating_mul(COUNTED_BEYOND_LIMIT) {
            return Err(self.too_many_entries(false));
        }
        Ok(())
    }

    /// Whether everything together is within the limits.
    ///
    /// # Errors
    /// [`Error::TooManyEntries`] or [`Error::TooLarge`].
    pub(super) fn check_limits(&self) -> Result<(), Error> {
        if self.entries() > self.limits.entries {
            return Err(self.too_many_entries(true));
        }
        if self.content_bytes > self.limits.content_bytes {
            return Err(Error::TooLarge {
                bytes: self.content_bytes,
                at_most: self.limits.content_bytes,
                largest: self.largest_files(),
            });
        }
        Ok(())
    }

    fn insert_around(&mut self, path: &Path, node: &Node) -> Result<(), Error> {
        for around in path.ancestors().skip(1) {
            match self.nodes.get(around) {
                None if around == Path::new("") => break,
                None => {
                    let kind = Kind::Folder {
                        mode: IMPLIED_MODE,
                        is_implied: true,
                    };
                    let implied = Node::new(&node.source, kind);
                    self.nodes.insert(around.to_owned(), implied);
                }
                // What is around a folder is there already.
                Some(there) if there.kind.is_folder() => break,
                Some(there) => return Err(file_and_folder(around, there, node)),
            }
        }
        Ok(())
    }

    fn too_many_entries(&self, is_all: bool) -> Error {
        let mut folders: BTreeMap<&Path, u64> = BTreeMap::new();
        for path in self.nodes.keys() {
            let top = path.iter().next().map_or(Path::new(""), Path::new);
            *folders.entry(top).or_default() += 1;
        }
        let folders = folders.into_iter();
        Error::TooManyEntries {
            entries: self.entries(),
            is_all,
            at_most: self.limits.entries,
            largest: largest(folders.map(|(path, count)| (path.to_owned(), count))),
        }
    }

    fn largest_files(&self) -> Vec<(PathBuf, u64)> {
        largest(self.nodes.values().filter_map(|node| match node.kind {
            Kind::File { stamp, .. } => Some((node.source.clone(), stamp.size)),
            _ => None,
        }))
    }
}

/// Makes one of two nodes at one path.
fn merge(path: &Path, there: &mut Node, new: Node) -> Result<(), Error> {
    match (&mut there.kind, &new.kind) {
        (Kind::Folder { is_implied, .. }, Kind::Folder { .. }) => {
            if *is_implied {
                *there = new;
            }
            Ok(())
        }
        (Kind::Folder { .. }, _) => Err(file_and_folder(path, &new, there)),
        (_, Kind::Folder { .. }) => Err(file_and_folder(path, there, &new)),
        (Kind::File { stamp: one, .. }, Kind::File { stamp: other, .. })
            if one.is_same_file(other) =>
        {
            Ok(())
        }
        (
            Kind::Link { target, top },
            Kind::Link {
                target: other,
                top: wider,
            },
        ) if target == other => {
            // Brought by two arguments, it is at home in both.
            if top.starts_with(wider) {
                top.clone_from(wider);
            }
            Ok(())
        }
        _ => Err(Error::TwoFiles {
            path: path.to_owned(),
            first: there.source.clone(),
            second: new.source,
        }),
    }
}

fn file_and_folder(path: &Path, file: &Node, folder: &Node) -> Error {
    Error::FileAndFolder {
        path: path.to_owned(),
        file: file.source.clone(),
        folder: folder.source.clone(),
    }
}

fn largest(all: impl Iterator<Item = (PathBuf, u64)>) -> Vec<(PathBuf, u64)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, amount)| std::cmp::Reverse(*amount));
    all.truncate(SHOWN);
    all
}
