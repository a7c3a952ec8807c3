use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tempfile::TempDir;

use super::*;
use crate::archive::handmade::{Tar, gz};

pub(super) const fn stated(entries: u64, content_bytes: u64) -> Stated {
    Stated {
        content_bytes,
        entries,
    }
}

fn unpacked(tar: Tar, stated: Stated) -> (TempDir, Result<(), Error>) {
    let folder = tempfile::tempdir().unwrap();
    let result = unpack(&*tar.gz(), folder.path(), stated);
    (folder, result)
}

pub(super) fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_tree_is_as_it_was() {
    let tar = Tar::default()
        .file("values.yaml", b"replicas: 3\n")
        .folder("charts/", 0o755)
        .folder("charts/empty", 0o700)
        .entry(b'0', b"charts/run.sh", b"#!/bin/sh\n", |header| {
            header.set_mode(0o755);
        })
        .link("charts/values.yaml", "../values.yaml");
    let (folder, result) = unpacked(tar, stated(5, 22));
    result.unwrap();
    let at = |path: &str| folder.path().join(path);
    assert_eq!(
        fs::read(at("charts/values.yaml")).unwrap(),
        b"replicas: 3\n"
    );
    assert_eq!(fs::read_dir(at("charts/empty")).unwrap().count(), 0);
    let modes =
        ["values.yaml", "charts", "charts/empty", "charts/run.sh"].map(|path| mode_of(&at(path)));
    assert_eq!(modes, [0o644, 0o755, 0o700, 0o755]);
}

/// Neither what the umask takes away nor what a folder's set-group-ID bit adds.
#[test]
fn modes_are_the_archives_and_have_nine_bits() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o2777)).unwrap();
    let tar = Tar::default()
        .folder("folder", 0o7777)
        .entry(b'0', b"file", b"", |header| header.set_mode(0o6777));
    unpack(&*tar.gz(), folder.path(), stated(2, 0)).unwrap();
    assert_eq!(mode_of(&folder.path().join("folder")), 0o777);
    assert_eq!(mode_of(&folder.path().join("file")), 0o777);
}

/// As a user whom modes do bind. A folder that nobody may write to can have things in it.
#[test]
fn a_closed_folder_is_closed_when_all_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let tar = Tar::default()
        .folder("a", 0o000)
        .folder("a/b", 0o500)
        .folder("c", 0o500)
        .file("a/b/file", b"")
        .file("c/file", b"");
    let root = folder.path().to_owned();
    as_somebody(move || unpack(&*tar.gz(), &root, stated(5, 0)).unwrap());
    let at = |path: &str| folder.path().join(path);
    if nix::unistd::geteuid().is_root() {
        assert!(at("a/b/file").exists());
    }
    assert_eq!((mode_of(&at("a")), mode_of(&at("c"))), (0o000, 0o500));
    fs::set_permissions(at("a"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(mode_of(&at("a/b")), 0o500);
    for path in ["a/b", "c"] {
        fs::set_permissions(at(path), Permissions::from_mode(0o700)).unwrap();
    }
}

/// On a thread of its own, with the rights of nobody where the test has root's.
fn as_somebody(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        work();
    });
    thread.join().unwrap();
}

#[test]
fn what_remembers_closed_folders_is_bounded() {
    let mut tar = Tar::default();
    let mut deep = String::new();
    for _ in 0..15 {
        deep.push_str(&"d".repeat(250));
        tar = tar.long(&deep).folder("", 0o755);
        deep.push('/');
    }
    for number in 0..300 {
        tar = tar.long(&format!("{deep}{number}")).folder("", 0o500);
    }
    let (_folder, result) = unpacked(tar, stated(315, 0));
    assert!(matches!(result, Err(Error::TooManyClosedFolders(_))));
}

#[test]
fn nothing_comes_twice() {
    let first = [
        Tar::default().file("a", b""),
        Tar::default().folder("a", 0o755),
        Tar::default().link("a", "b"),
    ];
    for before in first {
        let again = [
            before.clone().file("a", b""),
            before.clone().folder("a", 0o755),
            before.clone().folder("a/", 0o755),
            before.clone().link("a", "c"),
        ];
        for tar in again {
            let (_folder, result) = unpacked(tar, stated(2, 0));
            let error = result.unwrap_err();
            assert!(
                matches!(&error, Error::Exists(name) if name.as_bytes() == b"a"),
                "{error}"
            );
        }
    }
}

#[test]
fn what_was_there_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "before").unwrap();
    let tar = Tar::default().file("a", b"after");
    let result = unpack(&*tar.gz(), folder.path(), stated(1, 5));
    assert!(matches!(result, Err(Error::Exists(_))));
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"before");
}

#[test]
fn a_folder_comes_before_what_is_in_it() {
    let tar = Tar::default().file("a/b", b"").folder("a", 0o755);
    let (folder, result) = unpacked(tar, stated(2, 0));
    assert!(matches!(result, Err(Error::NoFolder(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A link is never a folder, wherever it leads, whether it was there before or came in the archive.
#[test]
fn nothing_is_written_through_a_link_or_a_file() {
    let beneath = [
        Tar::default().folder("real", 0o755).link("a", "real"),
        Tar::default().file("real", b"").link("a", "real"),
        Tar::default().link("real", "a").link("a", "real"),
        Tar::default().folder("real", 0o755).file("a", b""),
    ];
    for tar in beneath {
        let entries = [
            tar.clone().file("a/b", b""),
            tar.clone().folder("a/b", 0o755),
            tar.link("a/b", "c"),
        ];
        for tar in entries {
            let (folder, result) = unpacked(tar, stated(3, 0));
            assert!(matches!(result, Err(Error::NotInFolder(_))));
            assert!(!folder.path().join("real/b").exists());
        }
    }
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), inside.path().join("planted")).unwrap();
    let tar = Tar::default().file("planted/b", b"");
    let result = unpack(&*tar.gz(), inside.path(), stated(1, 0));
    assert!(matches!(result, Err(Error::NotInFolder(_))));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn the_archive_holds_what_was_stated_neither_more_nor_less() {
    let tar = Tar::default().file("a", b"12345").file("b", b"678");
    assert!(unpacked(tar.clone(), stated(2, 8)).1.is_ok());
    let less = |found: Result<(), Error>| matches!(found, Err(Error::LessThanStated { .. }));
    assert!(less(unpacked(tar.clone(), stated(3, 8)).1));
    assert!(less(unpacked(tar.clone(), stated(2, 9)).1));
    let (folder, result) = unpacked(tar.clone(), stated(1, 8));
    assert!(matches!(result, Err(Error::TooManyEntries(1, name)) if name.as_bytes() == b"b"));
    assert!(!folder.path().join("b").exists());
    let (folder, result) = unpacked(tar, stated(2, 7));
    assert!(matches!(result, Err(Error::TooMuchContent(7, name)) if name.as_bytes() == b"b"));
    assert!(!folder.path().join("b").exists());
}

/// Ten megabytes that mean ten gigabytes end where the statement does, whichever way they lie.
#[test]
fn a_bomb_costs_no_more_than_was_stated() {
    const TEN_GIB: u64 = 10 << 30;
    let bomb = |size: u64| {
        let header = Tar::default().entry(b'0', b"bomb", b"", |header| header.set_size(size));
        // So many that the end is never reached, so few that the test is quick.
        gz(&header.zeros(8192).0)
    };
    let cases = [
        (bomb(TEN_GIB), stated(1, 1 << 20)),
        (bomb(u64::MAX), stated(1, u64::MAX - 1)),
        (bomb(1 << 20), stated(1, 1 << 20)),
    ];
    for (archive, stated) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut compressed = Counted(&archive, 0);
        let result = unpack(&mut compressed, folder.path(), stated);
        assert!(matches!(
            result,
            Err(Error::TooMuchContent(..) | Error::Archive(archive::Error::NotAtEnd))
        ));
        assert!(compressed.1 <= archive.len() / 2, "it read on");
        let written = fs::metadata(folder.path().join("bomb")).map_or(0, |bomb| bomb.len());
        assert!(written <= 1 << 20);
    }
}

struct Counted<'a>(&'a [u8], usize);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read(buffer)?;
        self.1 += length;
        Ok(length)
    }
}

#[test]
fn a_full_disk_has_its_own_word() {
    for (errno, is_full) in [
        (Errno::ENOSPC, true),
        (Errno::EDQUOT, true),
        (Errno::EIO, false),
    ] {
        let tar = Tar::default().file("some", b"").gz();
        let entry = Archive::new(&*tar).next_entry().unwrap().unwrap();
        let error = not_made(&entry.name, errno.into());
        assert_eq!(matches!(error, Error::Full(..)), is_full);
    }
}

#[test]
fn without_a_work_folder_there_is_nothing_to_unpack_into() {
    let folder = tempfile::tempdir().unwrap();
    let result = unpack(
        &*Tar::default().gz(),
        &folder.path().join("none"),
        stated(0, 0),
    );
    assert!(matches!(result, Err(Error::WorkFolder(_))));
    unpack(&*Tar::default().gz(), folder.path(), stated(0, 0)).unwrap();
}
