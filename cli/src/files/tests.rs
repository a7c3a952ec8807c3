use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use flate2::read::GzDecoder;

use super::*;

mod planning;
mod packing;
mod remembering;
mod round_trip;

/// Long after every file of a test was made.
fn later() -> Timestamp {
    Timestamp::MAX
}

/// A current folder, in a folder of its own.
struct Here {
    outside: tempfile::TempDir,
}

impl Here {
    /// With these files, each of which has its path as content, and the folders around them. A path that
    /// ends in `/` is an empty folder.
    fn with(paths: &[&str]) -> Self {
        let here = Self {
            outside: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(here.folder()).unwrap();
        for path in paths {
            if path.ends_with('/') {
                fs::create_dir_all(here.at(path)).unwrap();
            } else {
                here.write(path, path);
            }
        }
        here
    }

    fn folder(&self) -> PathBuf {
        self.outside.path().join("here")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    fn plan(&self, values: &[&str]) -> Result<Plan, Error> {
        self.plan_within(&Limits::default(), values)
    }

    fn plan_within(&self, limits: &Limits, values: &[&str]) -> Result<Plan, Error> {
        let values: Vec<_> = values.iter().map(OsString::from).collect();
        Plan::make(&values, &self.folder(), limits, later())
    }

    /// The names in the archive.
    fn names(&self, values: &[&str]) -> Vec<String> {
        let packed = self.plan(values).unwrap().pack(|_| {}).unwrap();
        unpack(&packed)
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    }

    /// Why something is refused.
    fn refusal(&self, values: &[&str]) -> String {
        self.plan(values).unwrap_err().to_string()
    }
}

/// An entry of an archive.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    kind: tar::EntryType,
    mode: u32,
    content: Vec<u8>,
    target: Option<PathBuf>,
}

fn unpack(packed: &Packed) -> Vec<Entry> {
    unpack_raw(packed)
        .into_iter()
        .map(|(name, entry)| Entry {
            name: name.to_string_lossy().into_owned(),
            ..entry
        })
        .collect()
}

/// The same with names as bytes.
fn unpack_raw(packed: &Packed) -> Vec<(OsString, Entry)> {
    let mut file = packed.file.try_clone().unwrap();
    file.rewind().unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let mut entries = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = OsStr::from_bytes(&entry.path_bytes()).to_owned();
        let header = entry.header();
        assert_eq!(
            (header.uid().unwrap(), header.gid().unwrap()),
            (0, 0),
            "whoever made it"
        );
        assert_eq!(header.username_bytes(), Some(&b""[..]));
        assert_eq!(header.mtime().unwrap(), 946_684_800, "whenever it was made");
        let entry = Entry {
            name: String::new(),
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            content,
            target: entry
                .link_name_bytes()
                .map(|target| OsStr::from_bytes(&target).into()),
        };
        entries.push((name, entry));
    }
    entries
}
