use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

const UNLIMITED: ArtifactsLimits = ArtifactsLimits {
    content_bytes: u64::MAX,
    entries: 100_000,
};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// What is found at the other end of the stream: every file's content is checked against its digest.
struct Arrived {
    summary: ArtifactsSummary,
    manifest: Manifest,
    contents: Vec<String>,
}

impl Arrived {
    fn files(&self) -> Vec<(&str, &str)> {
        let paths = self.manifest.files.iter().map(|file| &*file.path);
        paths
            .zip(self.contents.iter().map(|content| &**content))
            .collect()
    }

    fn skipped(&self) -> Vec<(&str, &str)> {
        let skipped = self.manifest.skipped.iter();
        skipped
            .map(|skipped| (&*skipped.path, &*skipped.reason))
            .collect()
    }
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hashed = Hashed::new(io::sink());
    hashed.write_all(bytes).unwrap();
    hashed.finish()
}

fn arrived(summary: ArtifactsSummary, stream: &[u8]) -> Arrived {
    let (content, rest) = stream.split_at(summary.content_bytes as usize);
    let manifest = &rest[..summary.manifest_bytes as usize];
    assert_eq!(sha256(manifest), summary.manifest_sha256);
    let manifest: Manifest = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest.files.len() as u64, summary.files);
    let contents = manifest.files.iter().map(|file| {
        let content = &content[file.offset as usize..][..file.bytes as usize];
        assert_eq!(sha256(content), file.sha256);
        String::from_utf8(content.to_vec()).unwrap()
    });
    let contents: Vec<_> = contents.collect();
    assert_eq!(
        contents.concat().len(),
        content.len(),
        "nothing lies between"
    );
    Arrived {
        contents,
        summary,
        manifest,
    }
}

fn collected(folder: &Path, limits: ArtifactsLimits) -> Arrived {
    // Something was spooled before.
    let mut spool = Cursor::new(vec![b'?'; 1000]);
    spool.set_position(500);
    let summary = collect(folder, limits, &mut spool).unwrap();
    arrived(summary, spool.get_ref())
}

#[test]
fn files_come_back_in_the_order_of_their_paths() {
    let folder = folder(&[
        ("b", "two"),
        ("a/x", "one"),
        ("a-b", "zero"),
        ("a/y/z", ""),
        ("é", "last"),
    ]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    for (path, mode) in [("b", 0o744), ("a-b", 0o655)] {
        fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let arrived = collected(folder.path(), UNLIMITED);
    let expected = [
        ("a-b", "zero"),
        ("a/x", "one"),
        ("a/y/z", ""),
        ("b", "two"),
        ("é", "last"),
    ];
    assert_eq!(arrived.files(), expected);
    let executable = arrived.manifest.files.iter().filter(|file| file.executable);
    assert_eq!(
        executable.map(|file| &*file.path).collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(
        (arrived.summary.skipped, arrived.summary.incomplete),
        (0, None)
    );
}

#[test]
fn a_folder_that_is_not_there_has_no_artifacts() {
    let folder = folder(&[]);
    let arrived = collected(&folder.path().join("none"), UNLIMITED);
    assert_eq!(arrived.summary.files, 0);
    assert!(collected(folder.path(), UNLIMITED).files().is_empty());
}

/// The command may put a link in place of the folder itself.
#[test]
fn a_folder_that_is_a_link_is_not_opened() {
    let folder = folder(&[("secret/token", "secret")]);
    let link = folder.path().join("artifacts");
    symlink("secret", &link).unwrap();
    let error = collect(&link, UNLIMITED, &mut Cursor::new(Vec::new())).unwrap_err();
    assert!(matches!(error, Error::Folder(_)));
}

#[test]
fn what_is_no_file_is_named_and_left_out() {
    let folder = folder(&[("file", "content"), ("folder/file", "more")]);
    let at = |path: &str| folder.path().join(path);
    symlink("file", at("link")).unwrap();
    symlink("/", at("link-to-a-folder")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::write(folder.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
    let arrived = collected(folder.path(), UNLIMITED);
    assert_eq!(
        arrived.files(),
        [("file", "content"), ("folder/file", "more")]
    );
    let expected = [
        ("fifo", "it is a FIFO"),
        ("link", "it is a symbolic link"),
        ("link-to-a-folder", "it is a symbolic link"),
        ("socket", "it is a socket"),
        ("\u{fffd}", "its path is no UTF-8"),
    ];
    assert_eq!(arrived.skipped(), expected);
    assert_eq!(arrived.summary.skipped, 5);
}

#[test]
fn a_device_is_left_out() {
    let root = Folder::open(Path::new("/dev")).unwrap();
    let mut spool = Cursor::new(Vec::new());
    let mut collection = collection(&mut spool);
    let finding = collection.visit(&root, b"zero").unwrap();
    assert!(matches!(finding, Finding::Skipped(reason) if reason == "it is a device"));
}

fn collection(spool: &mut Cursor<Vec<u8>>) -> Collection<'_, Cursor<Vec<u8>>> {
    Collection {
        spool,
        limits: UNLIMITED,
        pending: Pending::new(UNLIMITED.entries),
        manifest: Manifest::default(),
        content_bytes: 0,
        skipped: 0,
        incomplete: None,
    }
}

/// The kernel says 4096 of such a file, whatever is in it.
#[test]
fn what_is_shorter_than_it_says_is_left_out() {
    let root = Folder::open(Path::new("/sys/kernel")).unwrap();
    let mut spool = Cursor::new(Vec::new());
    let mut collection = collection(&mut spool);
    let finding = collection.visit(&root, b"uevent_seqnum").unwrap();
    assert!(matches!(finding, Finding::Skipped(_)));
    assert_eq!(spool.position(), 0);
}

/// Between the look at it and the opening, anything can come in a file's place.
#[test]
fn what_takes_a_files_place_is_neither_waited_for_nor_followed() {
    let folder = folder(&[("file", "content")]);
    mkfifo(&folder.path().join("fifo"), Mode::S_IRWXU).unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    let root = Folder::open(folder.path()).unwrap();
    let mut spool = Cursor::new(Vec::new());
    let mut collection = collection(&mut spool);
    for name in ["fifo", "link"] {
        let finding = collection.spool_file(&root, name.as_ref(), name).unwrap();
        assert!(matches!(finding, Finding::Skipped(_)), "{name}");
    }
    assert!(spool.get_ref().is_empty());
}

#[test]
fn what_cannot_be_read_is_named_and_left_out() {
    let folder = folder(&[
        ("a", "1"),
        ("closed/file", "2"),
        ("unreadable", "3"),
        ("z", "4"),
    ]);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["closed", "unreadable"] {
        fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let root = folder.path().to_owned();
    let arrived = std::thread::spawn(move || {
        // On this thread only: root's rights would read anything.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        collected(&root, UNLIMITED)
    });
    let arrived = arrived.join().unwrap();
    assert_eq!(arrived.files(), [("a", "1"), ("z", "4")]);
    let reason = "it cannot be read: Permission denied (os error 13)";
    assert_eq!(
        arrived.skipped(),
        [("closed", reason), ("unreadable", reason)]
    );
    fs::set_permissions(
        folder.path().join("closed"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
}

/// Changes a file as soon as something of it is spooled.
struct Meddler<F>(Cursor<Vec<u8>>, F);

impl<F: FnMut(&[u8])> Write for Meddler<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (self.1)(buffer);
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<F> Seek for Meddler<F> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_left_out_whole() {
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, "B".repeat(100_000)).unwrap(),
        |path| fs::write(path, "b".repeat(100_001)).unwrap(),
        |path| fs::write(path, "b".repeat(99_999)).unwrap(),
        // For ever: faster than it is read.
        |path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(&[b'b'; 100_000]).unwrap();
        },
    ];
    for change in changes {
        let folder = folder(&[("a", "first"), ("b", &"b".repeat(100_000)), ("c", "last")]);
        let past = fs::File::options()
            .write(true)
            .open(folder.path().join("b"))
            .unwrap();
        // Before anything that the clock's last tick may be.
        past.set_modified(std::time::UNIX_EPOCH).unwrap();
        let path = folder.path().join("b");
        let mut spool = Meddler(Cursor::new(Vec::new()), |written: &[u8]| {
            if written.first() == Some(&b'b') {
                change(&path);
            }
        });
        let summary = collect(folder.path(), UNLIMITED, &mut spool).unwrap();
        let arrived = arrived(summary, spool.0.get_ref());
        assert_eq!(arrived.files(), [("a", "first"), ("c", "last")]);
        assert_eq!(arrived.skipped(), [("b", "it changed while it was read")]);
    }
}

#[test]
fn at_the_limit_of_bytes_it_ends() {
    let folder = folder(&[("a", "123"), ("b", "4567"), ("c", "8")]);
    let limits = |content_bytes| ArtifactsLimits {
        content_bytes,
        ..UNLIMITED
    };
    let all = collected(folder.path(), limits(8));
    assert_eq!((all.summary.files, all.summary.incomplete), (3, None));
    let some = collected(folder.path(), limits(6));
    assert_eq!(
        some.files(),
        [("a", "123")],
        "c would fit, and comes after b"
    );
    assert_eq!(some.summary.incomplete, Some(ArtifactsIncomplete::TooLarge));
    let reason =
        "with it there would be more than 6 bytes: neither it nor anything after it is sent";
    assert_eq!(some.skipped(), [("b", reason)]);
}

#[test]
fn at_the_limit_of_entries_it_ends() {
    let folder = folder(&[("a", "1"), ("b/c", "2"), ("b/d", "3"), ("e", "4")]);
    symlink("a", folder.path().join("b/b")).unwrap();
    let limits = |entries| ArtifactsLimits {
        entries,
        ..UNLIMITED
    };
    let all = collected(folder.path(), limits(6));
    assert_eq!((all.summary.files, all.summary.incomplete), (4, None));
    let some = collected(folder.path(), limits(4));
    assert_eq!(some.files(), [("a", "1"), ("b/c", "2")]);
    assert_eq!(some.summary.incomplete, Some(ArtifactsIncomplete::TooMany));
    assert_eq!(some.skipped()[1].0, "b/d");
    assert_eq!(some.summary.skipped, 2);
}

/// A file of ten terabytes that takes up no room is not read to find out that it is too long.
#[test]
fn a_hole_costs_nothing() {
    let folder = folder(&[("a", "1")]);
    let hole = File::create(folder.path().join("b")).unwrap();
    hole.set_len(10 << 40).unwrap();
    let limits = ArtifactsLimits {
        content_bytes: 1 << 30,
        ..UNLIMITED
    };
    let arrived = collected(folder.path(), limits);
    assert_eq!(arrived.files(), [("a", "1")]);
    assert_eq!(
        arrived.summary.incomplete,
        Some(ArtifactsIncomplete::TooLarge)
    );
}

#[test]
fn a_path_that_nobody_could_use_is_left_out() {
    let folder = folder(&[]);
    let mut place = Folder::open(folder.path()).unwrap();
    let name = "d".repeat(255);
    for _ in 0..17 {
        nix::sys::stat::mkdirat(&place, &*name, Mode::S_IRWXU).unwrap();
        place = place.parent_of(format!("{name}/x").as_bytes()).unwrap().0;
    }
    let arrived = collected(folder.path(), UNLIMITED);
    let lengths: Vec<_> = arrived
        .skipped()
        .iter()
        .map(|(path, _)| path.len())
        .collect();
    assert_eq!(lengths, [16 * 256 - 1 + 256]);
    assert_eq!(arrived.skipped()[0].1, "its path is too long");
}

#[test]
fn of_many_skipped_things_some_are_named_and_all_are_counted() {
    let folder = folder(&[("z", "too long")]);
    for number in 0..1200 {
        symlink("a", folder.path().join(format!("{number:04}"))).unwrap();
    }
    let limits = ArtifactsLimits {
        content_bytes: 1,
        ..UNLIMITED
    };
    let arrived = collected(folder.path(), limits);
    assert_eq!(arrived.summary.skipped, 1201);
    assert_eq!(arrived.skipped().len(), MAX_SKIPPED);
    assert_eq!(
        arrived.skipped().last().unwrap().0,
        "z",
        "what came up against the limit is named"
    );
}

/// A disk with so much room.
struct Disk(Cursor<Vec<u8>>, u64);

impl Write for Disk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.1 - self.0.position()).unwrap();
        match &buffer[..buffer.len().min(room)] {
            [] => Err(io::ErrorKind::StorageFull.into()),
            fits => self.0.write(fits),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

#[test]
fn at_the_end_of_a_full_disk_it_ends() {
    let folder = folder(&[("a", "first"), ("b", &"b".repeat(100_000)), ("c", "last")]);
    let mut spool = Disk(Cursor::new(Vec::new()), 50_000);
    let summary = collect(folder.path(), UNLIMITED, &mut spool).unwrap();
    let arrived = arrived(summary, spool.0.get_ref());
    assert_eq!(arrived.files(), [("a", "first")]);
    let incomplete = arrived.summary.incomplete;
    assert_eq!(incomplete, Some(ArtifactsIncomplete::StorageFull));
    assert_eq!(arrived.skipped()[0].0, "b");

    let mut spool = Disk(Cursor::new(Vec::new()), 50);
    let error = collect(folder.path(), UNLIMITED, &mut spool).unwrap_err();
    assert!(
        matches!(error, Error::Spool(_)),
        "there is no room for the manifest"
    );
}
