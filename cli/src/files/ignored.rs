//! `.invokeignore`: what is not sent, in gitignore's syntax.
//!
//! Each file counts for what lies below its folder, and the nearest one that speaks of a path decides.
//! Those above an argument count too, up to the current folder, as they do for git up to its work tree.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Error;
use super::walk::special;

const NAME: &str = ".invokeignore";

/// The patterns that count in one folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// From the outermost folder to the innermost.
    levels: Vec<Arc<Level>>,
}

#[derive(Debug)]
struct Level {
    folder: PathBuf,
    patterns: Gitignore,
}

impl Rules {
    /// What counts around an argument. One from elsewhere stands for itself.
    pub(super) fn around(source: &Path, folder: &Path) -> Result<Self, Error> {
        let is_below = |component| matches!(component, Component::Normal(_));
        let mut rules = Self::default();
        if source.components().all(is_below) {
            let mut above: Vec<_> = source.ancestors().skip(1).collect();
            above.reverse();
            for path in above {
                rules = rules.inside(path, folder)?;
            }
        }
        Ok(rules)
    }

    /// What counts inside of a folder that is in this one.
    pub(super) fn inside(&self, source: &Path, folder: &Path) -> Result<Self, Error> {
        let mut rules = self.clone();
        if let Some(level) = Level::read(source, folder)? {
            rules.levels.push(Arc::new(level));
        }
        Ok(rules)
    }

    /// Whether something is not to be sent.
    pub(super) fn exclude(&self, source: &Path, is_folder: bool) -> bool {
        if source.file_name() == Some(OsStr::new(NAME)) && !is_folder {
            return true;
        }
        for level in self.levels.iter().rev() {
            let path = source.strip_prefix(&level.folder).unwrap_or(source);
            match level.patterns.matched(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

impl Level {
    fn read(source: &Path, folder: &Path) -> Result<Option<Self>, Error> {
        let path = source.join(NAME);
        let Some(text) = read(&path, folder)? else {
            return Ok(None);
        };
        // Paths are matched as seen from the file's own folder.
        let mut patterns = GitignoreBuilder::new(".");
        for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
            let added = patterns.add_line(None, line);
            added.map_err(|error| Error::pattern(&path, number, &error))?;
        }
        let patterns = patterns
            .build()
            .map_err(|error| Error::pattern(&path, 1, &error))?;
        Ok(Some(Self {
            folder: source.to_owned(),
            patterns,
        }))
    }
}

/// Anything that might be meant to leave something out is read, or an error.
fn read(path: &Path, folder: &Path) -> Result<Option<String>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let real = folder.join(path);
    match real.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_dir() => return Ok(None),
        _ => {}
    }
    let metadata = real.metadata().map_err(unreadable)?;
    // A named pipe would wait for a writer.
    if let Some(kind) = special(metadata.file_type()) {
        let path = path.to_owned();
        return Err(Error::Special { path, kind });
    }
    std::fs::read_to_string(real).map(Some).map_err(unreadable)
}
