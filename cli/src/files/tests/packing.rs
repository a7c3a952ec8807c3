//! What the archive holds, and that it is never torn.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::files::longest_archive;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::output::hex;

/// More than is read at once.
const LARGE: usize = 300 * 1024;

#[test]
fn the_archive_is_what_it_says() {
    let here = Here::with(&["a/x", "a/y", "z"]);
    let mut told = Vec::new();
    let plan = here.plan(&["."]).unwrap();
    let mut packed = plan.pack(|bytes| told.push(bytes)).unwrap();
    let mut bytes = Vec::new();
    packed.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(packed.bytes, bytes.len() as u64);
    let expected = hex(digest(&SHA256, &bytes).as_ref());
    assert_eq!(packed.sha256.to_string(), expected);
    assert_eq!((packed.content_bytes, packed.entries), (7, 4));
    assert_eq!((plan.content_bytes(), plan.entries()), (7, 4));
    assert_eq!(told, [3, 6, 7]);
    assert_eq!(
        bytes[..10],
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        "gzip without a time and a name"
    );
}

/// Who takes archives has room for no more, whatever is in them. What every code of a fixed table makes
/// longer must be stored as it is.
#[test]
fn an_archive_is_no_longer_than_the_contract_says() {
    let here = Here::with(&[]);
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(144..))
        .take(12 << 20)
        .collect();
    here.write("noise", noise);
    let packed = here.plan(&["noise"]).unwrap().pack(|_| {}).unwrap();
    let longest = longest_archive(packed.content_bytes, packed.entries);
    assert!(packed.bytes <= longest, "{} > {longest}", packed.bytes);
}

#[test]
fn permissions_are_kept_and_nothing_more_of_the_mode() {
    let here = Here::with(&["run.sh", "secret", "folder/", "set"]);
    for (path, mode) in [
        ("run.sh", 0o755),
        ("secret", 0o600),
        ("folder", 0o1770),
        ("set", 0o6711),
    ] {
        here.set_mode(path, mode);
    }
    let packed = here.plan(&["."]).unwrap().pack(|_| {}).unwrap();
    let modes: Vec<_> = unpack(&packed)
        .into_iter()
        .map(|entry| (entry.name, entry.mode))
        .collect();
    let expected = [
        ("folder/", 0o770),
        ("run.sh", 0o755),
        ("secret", 0o600),
        ("set", 0o711),
    ];
    assert_eq!(modes, expected.map(|(name, mode)| (name.to_owned(), mode)));
}

/// Names in an archive's header have room for 100 bytes; the text around that is not text in all of them.
#[test]
fn names_are_bytes_of_any_length() {
    for length in [1, 99, 100, 101, 102, 250] {
        for byte in [b'a', 0xff] {
            let name = vec![byte; length];
            let name = OsStr::from_bytes(&name);
            let here = Here::with(&["x"]);
            fs::write(here.folder().join(name), "content").unwrap();
            symlink(name, here.at("zlink")).unwrap();
            let folder = here.folder().join("folder").join(name);
            fs::create_dir_all(&folder).unwrap();
            let packed = here.plan(&["."]).unwrap().pack(|_| {}).unwrap();
            let entries = unpack_raw(&packed);
            let found = |name: &OsStr| {
                let found = entries.iter().find(|(known, _)| known == name);
                &found.unwrap_or_else(|| panic!("{name:?}")).1
            };
            assert_eq!(found(name).content, b"content");
            assert_eq!(
                found("zlink".as_ref()).target.as_deref(),
                Some(Path::new(name))
            );
            let mut folder = OsString::from("folder/");
            folder.push(name);
            folder.push("/");
            assert_eq!(found(&folder).kind, tar::EntryType::Directory);
            assert_eq!(entries.len(), 5);
        }
    }
}

/// Where and when a tree was made is not part of it.
#[test]
fn the_same_tree_elsewhere_is_the_same_archive() {
    let mut paths = ["b/x", "a", "c/empty/"];
    let archives = [1, 2].map(|seconds| {
        paths.reverse();
        let here = Here::with(&paths);
        for path in ["b/x", "a", "b", "c", "c/empty"] {
            here.set_mode(path, 0o755);
            let file = fs::File::open(here.at(path)).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        }
        let packed = here.plan(&["."]).unwrap().pack(|_| {}).unwrap();
        (packed.sha256, packed.bytes)
    });
    assert_eq!(archives[0], archives[1]);
}

fn is_changed(result: Result<Packed, Error>) -> bool {
    match result {
        Err(Error::Changed { path }) => path == Path::new("large"),
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

/// Writes the same number of bytes in place, until the kernel's clock has seen it, and makes it look old.
fn rewrite(path: &Path) {
    let before = fs::metadata(path).unwrap();
    loop {
        let mut file = fs::File::options().write(true).open(path).unwrap();
        file.write_all(b"other").unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        let now = fs::metadata(path).unwrap();
        if (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
            break;
        }
    }
}

fn append(path: &Path) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(b"more").unwrap();
}

fn truncate(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(LARGE as u64 - 1).unwrap();
}

fn replace(path: &Path) {
    let new = path.with_extension("new");
    fs::write(&new, vec![1; LARGE]).unwrap();
    fs::rename(new, path).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn replace_by_a_pipe(path: &Path) {
    remove(path);
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

fn replace_by_a_link(path: &Path) {
    let moved = path.with_extension("moved");
    fs::copy(path, &moved).unwrap();
    remove(path);
    symlink(moved, path).unwrap();
}

const CHANGES: [fn(&Path); 7] = [
    rewrite,
    append,
    truncate,
    replace,
    remove,
    replace_by_a_pipe,
    replace_by_a_link,
];

#[test]
fn a_file_that_changed_since_it_was_planned_is_an_error() {
    for (number, change) in CHANGES.iter().enumerate() {
        let here = Here::with(&["a"]);
        here.write("large", vec![0; LARGE]);
        let plan = here.plan(&["."]).unwrap();
        change(&here.at("large"));
        assert!(is_changed(plan.pack(|_| {})), "change {number}");
    }
}

/// Half of one state and half of another is no file that ever was.
#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    for (number, change) in CHANGES.iter().enumerate() {
        let here = Here::with(&[]);
        here.write("large", vec![0; LARGE]);
        let plan = here.plan(&["."]).unwrap();
        let mut change = Some(change);
        let packed = plan.pack(|done| {
            assert!(done <= LARGE as u64, "no more than was planned is read");
            if let Some(change) = change.take() {
                change(&here.at("large"));
            }
        });
        assert!(is_changed(packed), "change {number}");
    }
}
