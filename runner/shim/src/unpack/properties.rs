//! What is true of every archive.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::tests::{mode_of, stated};
use super::*;
use crate::archive::handmade::{Tar, gz};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>, u32),
    Folder(u32),
    Link(Vec<u8>),
}

/// Names of any bytes that a file system takes, short ones and such as need GNU's record.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("in a name", |byte| !matches!(byte, 0 | b'/'));
    let name = prop_oneof![
        3 => prop::collection::vec(byte, 1..12),
        1 => "[a-zé]{90,120}".prop_map(String::into_bytes),
    ];
    name.prop_filter("is a name", |name| name != b"." && name != b"..")
}

/// A folder and what is in it, parents before children.
fn tree() -> impl Strategy<Value = BTreeMap<Vec<u8>, Node>> {
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..1500), 0_u32..0o1000)
            .prop_map(|(content, mode)| BTreeMap::from([(vec![], Node::File(content, mode))])),
        name().prop_map(|target| BTreeMap::from([(vec![], Node::Link(target))])),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let children = prop::collection::btree_map(name(), inner, 0..4);
        (children, 0_u32..0o1000).prop_map(|(children, mode)| {
            let mut folder = BTreeMap::from([(vec![], Node::Folder(mode))]);
            for (name, inner) in children {
                for (path, node) in inner {
                    let path = [&name[..], b"/", &path].concat();
                    folder.insert(path.strip_suffix(b"/").unwrap_or(&path).to_vec(), node);
                }
            }
            folder
        })
    })
}

/// The tree under a name, packed with the writer that the CLI uses; and what to find of it.
fn packed(tree: BTreeMap<Vec<u8>, Node>, top: &[u8]) -> (Vec<u8>, Stated, BTreeMap<Vec<u8>, Node>) {
    let named = tree.into_iter().map(|(path, node)| {
        let path = [top, b"/", &path].concat();
        (path.strip_suffix(b"/").unwrap_or(&path).to_vec(), node)
    });
    let tree: BTreeMap<_, _> = named.collect();
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut content_bytes = 0;
    for (path, node) in &tree {
        let path = PathBuf::from(OsString::from_vec(path.clone()));
        let mut header = Header::new_gnu();
        match node {
            Node::File(content, mode) => {
                content_bytes += content.len() as u64;
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                builder
                    .append_data(&mut header, path, &content[..])
                    .unwrap();
            }
            Node::Folder(mode) => {
                header.set_mode(*mode);
                header.set_size(0);
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, io::empty()).unwrap();
            }
            Node::Link(target) => {
                header.set_mode(0o777);
                header.set_size(0);
                header.set_entry_type(EntryType::Symlink);
                let target = OsString::from_vec(target.clone());
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    let archive = builder.into_inner().unwrap().finish().unwrap();
    (archive, stated(tree.len() as u64, content_bytes), tree)
}

/// What is beneath a folder, by relative path. The tests' user must be able to read all of it.
fn on_disk(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let mode = mode_of(&path);
            let node = if kind.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap().into_os_string().into_vec())
            } else if kind.is_dir() {
                folders.push(path.clone());
                Node::Folder(mode)
            } else {
                Node::File(fs::read(&path).unwrap(), mode)
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            found.insert(name.to_vec(), node);
        }
    }
    found
}

/// A work folder in a folder of its own: whatever else appears there got out.
struct Cage(TempDir);

impl Cage {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("work")).unwrap();
        for name in ["a", "b"] {
            fs::write(outer.path().join(name), "outside").unwrap();
        }
        Self(outer)
    }

    fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn is_unbroken(&self) -> bool {
        let outside = fs::read_dir(self.0.path()).unwrap().count() == 3
            && ["a", "b"]
                .iter()
                .all(|name| fs::read(self.0.path().join(name)).unwrap() == b"outside");
        let work = self.work().canonicalize().unwrap();
        let inside = on_disk(&work).into_iter().all(|(path, node)| match node {
            Node::Link(_) => work
                .join(OsString::from_vec(path))
                .canonicalize()
                .map_or(true, |target| target.starts_with(&work)),
            Node::File(..) | Node::Folder(_) => true,
        });
        outside && inside
    }
}

/// Entries that are each well-formed, with every name and target that could be used to climb out.
fn hostile_tar() -> impl Strategy<Value = Tar> {
    // Mostly taken: what is refused ends the archive.
    let path = |hostile: u32| {
        let part = prop_oneof![
            20 => prop::sample::select(vec!["a", "b"]),
            hostile => prop::sample::select(vec!["..", ".", "", "work"]),
        ];
        prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    };
    let kind = prop_oneof![
        20 => prop::sample::select(b"02225".to_vec()),
        1 => prop::sample::select(b"LK1xgS".to_vec()),
    ];
    let entry = (kind, path(1), path(20));
    prop::collection::vec(entry, 1..12).prop_map(|entries| {
        entries
            .into_iter()
            .fold(Tar::default(), |tar, (kind, name, target)| match kind {
                b'2' => tar.link(&name, &target),
                b'5' => tar.folder(&name, 0o755),
                b'L' | b'K' => tar.entry(kind, b"", target.as_bytes(), |_| {}),
                _ => tar.entry(kind, name.as_bytes(), b"hostile", |_| {}),
            })
    })
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(tree in tree(), name in name()) {
        // The tar crate writes no long path that does not begin in UTF-8.
        let (archive, stated, tree) = packed(tree, &[b"some ", &name[..]].concat());
        let folder = tempfile::tempdir().unwrap();
        unpack(&*archive, folder.path(), stated).unwrap();
        prop_assert_eq!(on_disk(folder.path()), tree);
    }

    #[test]
    fn a_hostile_archive_does_not_get_out(tar in hostile_tar()) {
        let cage = Cage::new();
        let _ = unpack(&*tar.gz(), &cage.work(), stated(12, 100));
        prop_assert!(cage.is_unbroken());
    }

    #[test]
    fn a_mutated_archive_does_not_get_out(
        tree in tree(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        is_compressed in any::<bool>(),
    ) {
        let (mut archive, stated, _) = packed(tree, b"a");
        if !is_compressed {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&*archive).read_to_end(&mut tar).unwrap();
            archive = tar;
        }
        for (index, byte) in changes {
            let position = index.index(archive.len());
            archive[position] = byte;
        }
        let archive = if is_compressed { archive } else { gz(&archive) };
        let cage = Cage::new();
        let _ = unpack(&*archive, &cage.work(), stated);
        prop_assert!(cage.is_unbroken());
    }

    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000), is_compressed in any::<bool>()) {
        let cage = Cage::new();
        let archive = if is_compressed { gz(&bytes) } else { bytes };
        prop_assert!(unpack(&*archive, &cage.work(), stated(10, 10_000)).is_err());
        prop_assert!(cage.is_unbroken());
    }
}
