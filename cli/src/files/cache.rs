//! Remembers which archive was made of which files, so that the same files are not read again.
//!
//! It is a hint. What cannot be read or makes no sense is not there, and what cannot be written is not
//! remembered: the files are read again then.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use invoke_protocol::digest::Sha256;
use serde::{Deserialize, Serialize};

use super::fingerprint::is_settled;
use super::{Fingerprint, Packed, Plan};

/// How many archives are remembered, the newest.
const REMEMBERED: usize = 100;
/// No longer file is read: ours is far shorter.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The archives that are remembered.
#[derive(Debug, Clone)]
pub struct Cache {
    file: Option<PathBuf>,
}

/// An archive that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Of the archive.
    pub sha256: Sha256,
    /// The archive's length.
    pub bytes: u64,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// The oldest first.
    archives: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    fingerprint: Fingerprint,
    archive: Known,
}

impl Cache {
    /// The cache of this user. A machine without a home has none.
    #[must_use]
    pub fn of_user() -> Self {
        let folders = etcetera::choose_base_strategy().ok();
        Self {
            file: folders.map(|xdg| xdg.cache_dir().join("invoke/archives.json")),
        }
    }

    /// The cache in a file.
    #[must_use]
    pub const fn at(file: PathBuf) -> Self {
        Self { file: Some(file) }
    }

    /// The archive that was made of the same files.
    #[must_use]
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<Known> {
        let mut archives = read(self.file.as_deref()?).archives.into_iter();
        let found = archives.find(|entry| entry.fingerprint == *fingerprint)?;
        Some(found.archive)
    }

    /// Remembers the archive of a plan, unless a file of it was changed so shortly before that another
    /// change could have gone unnoticed.
    pub fn remember(&self, plan: &Plan, packed: &Packed) {
        if let Some(file) = self
            .file
            .as_deref()
            .filter(|_| is_settled(&plan.tree, plan.at))
        {
            let mut content = read(file);
            content.add(Entry {
                fingerprint: plan.fingerprint(),
                archive: Known {
                    sha256: packed.sha256,
                    bytes: packed.bytes,
                },
            });
            // Of two programs that write at once, one is forgotten; neither is torn.
            let _ = write(file, &content);
        }
    }
}

impl Content {
    fn add(&mut self, entry: Entry) {
        self.archives
            .retain(|known| known.fingerprint != entry.fingerprint);
        self.archives.push(entry);
        let too_many = self.archives.len().saturating_sub(REMEMBERED);
        self.archives.drain(..too_many);
    }
}

fn read(file: &Path) -> Content {
    let content = File::open(file).and_then(|file| {
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    });
    content.unwrap_or_default()
}

fn write(file: &Path, content: &Content) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec(content)?)?;
    new.persist(file)?;
    Ok(())
}
