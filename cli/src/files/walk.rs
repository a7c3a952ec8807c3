//! Walks what one argument names into the tree.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::argument::Argument;
use super::ignored::Rules;
use super::tree::{Kind, Node, Stamp, Tree};

/// A folder that is to be read.
struct Pending {
    source: PathBuf,
    destination: PathBuf,
    /// What counts around it.
    rules: Rules,
}

/// Adds what an argument names to the tree.
pub(super) fn walk(argument: &Argument, folder: &Path, tree: &mut Tree) -> Result<(), Error> {
    let Argument {
        source,
        destination,
        into,
        notice: _,
    } = argument;
    let metadata = follow(source, folder)?;
    if !metadata.is_dir() {
        let destination = match (source.file_name(), into) {
            (Some(name), true) => destination.join(name),
            _ => destination.clone(),
        };
        let kind = file(source, folder, &metadata)?;
        return tree.insert(destination, Node::new(source, kind));
    }
    let mode = mode(&metadata);
    if *destination != Path::new("") {
        tree.insert(destination.clone(), Node::new(source, Kind::folder(mode)))?;
    }
    let mut pending = vec![Pending {
        source: source.clone(),
        destination: destination.clone(),
        rules: Rules::around(source, folder)?,
    }];
    while let Some(next) = pending.pop() {
        read_folder(&next, destination, folder, tree, &mut pending)?;
    }
    Ok(())
}

/// Looks at an argument. A symbolic link that somebody names stands for what it points to.
fn follow(source: &Path, folder: &Path) -> Result<Metadata, Error> {
    let real = folder.join(source);
    real.metadata().map_err(|error| match fs::read_link(&real) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => Error::Dangling {
            path: source.to_owned(),
            target,
        },
        _ => unreadable(source, error),
    })
}

fn read_folder(
    this: &Pending,
    top: &Path,
    folder: &Path,
    tree: &mut Tree,
    pending: &mut Vec<Pending>,
) -> Result<(), Error> {
    let names = names(&this.source, folder)?;
    let rules = this.rules.inside(&this.source, folder)?;
    for name in names {
        let source = this.source.join(&name);
        let metadata = folder.join(&source).symlink_metadata();
        let metadata = metadata.map_err(|error| unreadable(&source, error))?;
        // `.git` is a folder, and a file in a submodule and in a second work tree.
        if name == ".git" || rules.exclude(&source, metadata.is_dir()) {
            continue;
        }
        let destination = this.destination.join(&name);
        let kind = if metadata.is_dir() {
            pending.push(Pending {
                source: source.clone(),
                destination: destination.clone(),
                rules: rules.clone(),
            });
            Kind::folder(mode(&metadata))
        } else if metadata.is_symlink() {
            let target = fs::read_link(folder.join(&source));
            Kind::Link {
                target: target.map_err(|error| unreadable(&source, error))?,
                top: top.to_owned(),
            }
        } else {
            file(&source, folder, &metadata)?
        };
        tree.insert(destination, Node::new(&source, kind))?;
    }
    Ok(())
}

/// Sorted, so that of several errors the same one is told each time.
fn names(source: &Path, folder: &Path) -> Result<Vec<OsString>, Error> {
    let names = fs::read_dir(folder.join(source)).and_then(|entries| {
        let names = entries.map(|entry| Ok(entry?.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    });
    let mut names = names.map_err(|error| unreadable(source, error))?;
    names.sort_unstable();
    Ok(names)
}

/// A regular file that can be read. Opening is the only sure way to know: access lists, security
/// modules and network file systems are not told by mode bits.
fn file(source: &Path, folder: &Path, metadata: &Metadata) -> Result<Kind, Error> {
    if let Some(kind) = special(metadata.file_type()) {
        let path = shown(source);
        return Err(Error::Special { path, kind });
    }
    File::open(folder.join(source)).map_err(|error| unreadable(source, error))?;
    Ok(Kind::File {
        mode: mode(metadata),
        stamp: Stamp::of(metadata),
    })
}

/// What is neither a file nor a folder.
pub(super) fn special(kind: FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() {
        None
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("named pipe")
    } else {
        Some("device")
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o777
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Unreadable {
        path: shown(path),
        source,
    }
}

/// A path as it is shown: the current folder has one too.
fn shown(path: &Path) -> PathBuf {
    if path == Path::new("") {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}
