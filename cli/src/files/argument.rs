//! One value of `-f`: what it names, and where that lands.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Error;

/// A value that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Argument {
    /// A file or folder, as the person wrote it.
    pub source: PathBuf,
    /// Its path below the work folder; empty for the work folder itself.
    pub destination: PathBuf,
    /// Whether a file lands below the destination, under its own name.
    pub into: bool,
    /// What to say about it.
    pub notice: Option<String>,
}

impl Argument {
    /// Understands a value, seen from a folder.
    pub(super) fn understand(value: &OsStr, folder: &Path) -> Result<Self, Error> {
        let (source, destination) = split(value, folder)?;
        match destination {
            Some(destination) => Ok(Self {
                source: plain(source),
                into: is_folder(destination),
                destination: check_destination(value, destination)?,
                notice: None,
            }),
            None => Self::in_place(Path::new(source), folder),
        }
    }

    /// A value without a destination.
    fn in_place(source: &Path, folder: &Path) -> Result<Self, Error> {
        let (destination, notice) = match below(source) {
            Some(destination) => (destination, None),
            None => {
                let name = base_name(source, folder)?;
                let notice = format!(
                    "{} is sent as {}",
                    source.display(),
                    Path::new(&name).display()
                );
                (name.into(), Some(notice))
            }
        };
        Ok(Self {
            source: plain(source.as_os_str()),
            destination,
            into: false,
            notice,
        })
    }
}

/// Separates `SRC:DEST`.
fn split<'a>(value: &'a OsStr, folder: &Path) -> Result<(&'a OsStr, Option<&'a OsStr>), Error> {
    let is_there = |source: &OsStr| !source.is_empty() && is_there(&folder.join(source));
    if is_there(value) {
        return Ok((value, None));
    }
    let bytes = value.as_bytes();
    let pairs = || {
        let colons = (0..bytes.len()).rev().filter(|at| bytes[*at] == b':');
        colons.map(|at| {
            let (source, destination) = (&bytes[..at], &bytes[at + 1..]);
            (OsStr::from_bytes(source), OsStr::from_bytes(destination))
        })
    };
    if let Some((source, destination)) = pairs().find(|(source, _)| is_there(source)) {
        return Ok((source, Some(destination)));
    }
    let source = pairs().next().map_or(value, |(source, _)| source);
    Err(Error::Missing {
        path: source.into(),
    })
}

/// What cannot be looked at is there: reading it tells why not.
fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

fn is_folder(destination: &OsStr) -> bool {
    destination == "." || destination.as_bytes().ends_with(b"/")
}

fn check_destination(value: &OsStr, destination: &OsStr) -> Result<PathBuf, Error> {
    let refused = |why| Error::Destination {
        value: value.to_string_lossy().into_owned(),
        why,
    };
    if destination.is_empty() {
        return Err(refused("there is no destination behind the colon"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(destination).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(refused("its destination has `..` in it")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refused("its destination is absolute"));
            }
        }
    }
    Ok(path)
}

/// The path without `.`; as it is otherwise: behind a symbolic link, `..` is not a step back.
fn plain(path: &OsStr) -> PathBuf {
    let components = Path::new(path).components();
    components
        .filter(|component| *component != Component::CurDir)
        .collect()
}

/// The path below the current folder, if it says that it is below it.
fn below(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::CurDir => {}
            Component::ParentDir if below.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(below)
}

fn base_name(source: &Path, folder: &Path) -> Result<OsString, Error> {
    if let Some(name) = source.file_name() {
        return Ok(name.to_owned());
    }
    let unreadable = |error| Error::Unreadable {
        path: source.to_owned(),
        source: error,
    };
    let real = folder.join(source).canonicalize().map_err(unreadable)?;
    real.file_name()
        .map(OsStr::to_owned)
        .ok_or_else(|| Error::Nameless {
            path: source.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join("here").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn understand(files: &[&str], value: &str) -> Result<(String, String), String> {
        let folder = folder(files);
        let argument = Argument::understand(value.as_ref(), &folder.path().join("here"));
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        argument
            .map(|argument| (shown(argument.source), shown(argument.destination)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_keeps_its_folders() {
        let files = ["a/b/c.yaml"];
        for (value, source, destination) in [
            ("a/b/c.yaml", "a/b/c.yaml", "a/b/c.yaml"),
            ("./a//b/", "a/b", "a/b"),
            (".", "", ""),
            ("a/..", "a/..", ""),
            ("a/../a/b", "a/../a/b", "a/b"),
        ] {
            let expected = Ok((source.to_owned(), destination.to_owned()));
            assert_eq!(understand(&files, value), expected, "{value}");
        }
    }

    /// What lies outside of the current folder has no path below it.
    #[test]
    fn a_path_from_elsewhere_lands_under_its_base_name_and_says_so() {
        let folder = folder(&["x", "../y/z"]);
        let here = folder.path().join("here");
        let absolute = here.join("x");
        for (value, name) in [
            ("../y/z", "z"),
            ("../y", "y"),
            ("../here", "here"),
            ("..", folder.path().file_name().unwrap().to_str().unwrap()),
            (absolute.to_str().unwrap(), "x"),
        ] {
            let argument = Argument::understand(value.as_ref(), &here).unwrap();
            assert_eq!(argument.destination, Path::new(name), "{value}");
            assert_eq!(argument.notice, Some(format!("{value} is sent as {name}")));
        }
        let inside = Argument::understand("x".as_ref(), &here).unwrap();
        assert_eq!(inside.notice, None);
        let root = Argument::understand("/".as_ref(), &here);
        assert!(matches!(root, Err(Error::Nameless { .. })));
    }

    #[test]
    fn a_colon_renames_unless_it_is_part_of_a_name() {
        let renamed = |files: &[&str], value| understand(files, value).unwrap();
        let pair = |source: &str, destination: &str| (source.to_owned(), destination.to_owned());
        assert_eq!(renamed(&["a"], "a:b/./c"), pair("a", "b/c"));
        assert_eq!(renamed(&["a"], "a:."), pair("a", ""));
        assert_eq!(renamed(&["a:b"], "a:b"), pair("a:b", "a:b"), "it exists");
        assert_eq!(renamed(&["a:b"], "a:b:c"), pair("a:b", "c"));
        assert_eq!(renamed(&["a"], "a:b:c"), pair("a", "b:c"));
        assert_eq!(renamed(&["a:b", "a"], "a:b:c"), pair("a:b", "c"));
        assert_eq!(renamed(&["../up"], "../up:down"), pair("../up", "down"));
        let notice = |value: &str| {
            let folder = folder(&["../up"]);
            let here = folder.path().join("here");
            std::fs::create_dir_all(&here).unwrap();
            Argument::understand(value.as_ref(), &here).unwrap().notice
        };
        assert_eq!(notice("../up:down"), None, "it was asked for");
    }

    #[test]
    fn a_destination_stays_below_the_work_folder() {
        for value in ["a:/etc/a", "a:../a", "a:b/../../a", "a:"] {
            let argument = understand(&["a"], value);
            let error = argument.expect_err(value);
            assert!(error.starts_with(&format!("-f {value}: ")), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (value, named) in [("b", "b"), ("b:c", "b"), ("a/", "a/"), ("", "")] {
            let error = understand(&["a"], value).expect_err(value);
            assert_eq!(error, format!("-f names {named:?}, which does not exist"));
        }
    }
}
