//! Why files are not sent.

use std::io;
use std::path::{Path, PathBuf};

use crate::amount::{count, exact_size, size};

/// What is wrong with what `-f` names. The person corrects it; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there.
    #[error("-f names {path:?}, which does not exist")]
    Missing {
        /// What was named.
        path: PathBuf,
    },
    /// A symbolic link to nothing.
    #[error("-f names {}, a symbolic link to {}, which does not exist", path.display(), target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// The root of the file system.
    #[error("-f names {}, which has no name to be sent under", path.display())]
    Nameless {
        /// What was named.
        path: PathBuf,
    },
    /// A destination that is none.
    #[error("-f {value}: {why}")]
    Destination {
        /// The whole value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or folder that is there and cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor a folder nor a symbolic link.
    #[error("{} is a {kind}, which cannot be sent", path.display())]
    Special {
        /// Which.
        path: PathBuf,
        /// `socket`, for example.
        kind: &'static str,
    },
    /// A symbolic link that would point somewhere else in the pod.
    #[error(
        "{} is a symbolic link to {}, which leads out of the folder that is sent",
        path.display(),
        target.display()
    )]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// A symbolic link that the pod does not take.
    #[error(
        "{} is a symbolic link to {}, which goes down and up again on its way",
        path.display(),
        target.display()
    )]
    Winding {
        /// The link.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Two files for one path.
    #[error(
        "{} and {} would both be {} in the work folder",
        first.display(),
        second.display(),
        path.display()
    )]
    TwoFiles {
        /// Below the work folder.
        path: PathBuf,
        /// One source.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A file where a folder must be.
    #[error(
        "{} would be a file at {} in the work folder, where {} needs a folder",
        file.display(),
        path.display(),
        folder.display()
    )]
    FileAndFolder {
        /// Below the work folder.
        path: PathBuf,
        /// The source that is no folder.
        file: PathBuf,
        /// The source that is a folder, or is below one.
        folder: PathBuf,
    },
    /// Over the limit on bytes.
    #[error(
        "the files come to {}; this dispatcher takes at most {}",
        exact_size(*bytes),
        exact_size(*at_most)
    )]
    TooLarge {
        /// How much it is.
        bytes: u64,
        /// How much it may be.
        at_most: u64,
        /// The largest files and their sizes.
        largest: Vec<(PathBuf, u64)>,
    },
    /// Over the limit on entries.
    #[error(
        "the files come to {}{} files, folders and links; this dispatcher takes at most {}",
        if *is_all { "" } else { "more than " },
        count(*entries),
        count(*at_most)
    )]
    TooManyEntries {
        /// How many were counted.
        entries: u64,
        /// Whether the counting came to an end.
        is_all: bool,
        /// How many there may be.
        at_most: u64,
        /// What has the most of them, and how many.
        largest: Vec<(PathBuf, u64)>,
    },
    /// A pattern that means nothing.
    #[error("{}, line {line}: {why}", path.display())]
    Pattern {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A file that somebody writes to.
    #[error("{} was changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The archive, not a file.
    #[error("the archive cannot be written to {}", std::env::temp_dir().display())]
    Archive(#[source] io::Error),
}

impl Error {
    pub(super) fn pattern(path: &Path, line: usize, error: &ignore::Error) -> Self {
        Self::Pattern {
            path: path.to_owned(),
            line,
            why: error.to_string(),
        }
    }

    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } | Self::Dangling { .. } | Self::Pattern { .. } => return None,
            Self::Nameless { path } => {
                format!("name the folder to be sent to: -f {}:NAME", path.display())
            }
            Self::Destination { .. } => {
                "write -f SRC:DEST, with DEST a path below the command's work folder".to_owned()
            }
            Self::Unreadable { .. } | Self::Special { .. } => {
                "leave it out by naming it in .invokeignore, or attach less with -f".to_owned()
            }
            Self::LeadsOut { .. } => "attach the folder that holds both, put a copy in the link's \
                                      place, or name the link in .invokeignore"
                .to_owned(),
            Self::Winding { .. } => {
                "point it straight to what it leads to, or name it in .invokeignore".to_owned()
            }
            Self::TwoFiles { .. } | Self::FileAndFolder { .. } => {
                "rename one of them with -f SRC:DEST".to_owned()
            }
            Self::TooLarge { largest, .. } => too_much("the largest", largest, size),
            Self::TooManyEntries { largest, .. } => too_much("most are in", largest, count),
            Self::Changed { .. } => {
                "run it again when nothing writes to it, or name it in .invokeignore".to_owned()
            }
            Self::Archive(_) => "TMPDIR says where temporary files go".to_owned(),
        };
        Some(hint)
    }
}

fn too_much(which: &str, largest: &[(PathBuf, u64)], amount: fn(u64) -> String) -> String {
    let largest = largest
        .iter()
        .map(|(path, value)| format!("{} ({})", path.display(), amount(*value)));
    let largest: Vec<_> = largest.collect();
    format!(
        "name in .invokeignore what the command does not need; {which}: {}",
        largest.join(", ")
    )
}
