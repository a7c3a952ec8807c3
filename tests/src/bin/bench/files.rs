//! Attached files: how long it is to the command's start, the first time and again.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use invoke_tests::bed::Bed;
use jiff::Timestamp;

use crate::peers;
use crate::table::{Bound, Figure, milliseconds, percentile};

/// How much is attached at once.
const BYTES: u64 = 1 << 30;

/// How many small files.
const SMALL_FILES: usize = 10_000;

/// How often the same is attached again, and how often nothing is.
const AGAIN: usize = 3;

/// The most that files which are known already may add to the start, in milliseconds.
const MORE: f64 = 1000.0;

/// Measures.
///
/// # Panics
/// If a job does not end well, or the disk is full.
pub(crate) fn measure(bed: &Bed) -> Vec<Figure> {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let caches = folder.path().join("caches");
    let start = |files: Option<&Path>| until_start(bed, &caches, files);
    let mut without: Vec<_> = (0..AGAIN).map(|_| start(None)).collect();
    let without = percentile(&mut without, 50);
    let mut figures = Vec::new();
    let trees = [
        ("10,000 small files", small_files as fn(&Path)),
        ("1 GiB of text", text),
        ("1 GiB that does not compress", noise),
    ];
    for (number, (what, make)) in trees.into_iter().enumerate() {
        let tree = folder.path().join(format!("tree{number}"));
        std::fs::create_dir(&tree).expect("there is room for a folder");
        make(&tree);
        let first = start(Some(&tree));
        let mut again: Vec<_> = (0..AGAIN).map(|_| start(Some(&tree))).collect();
        let beside = format!(
            "the first time {first:.1?}; with no files {without:.1?}; `kubectl cp` into a pod that waits: {}",
            peers::kubectl_cp(bed, &tree)
        );
        std::fs::remove_dir_all(&tree).expect("it is ours");
        figures.push(Figure::time(
            what_again(what),
            Bound::AtMost(milliseconds(without) + MORE),
            percentile(&mut again, 50),
            beside,
        ));
    }
    figures
}

fn what_again(what: &str) -> String {
    format!("{what} attached again, from `invoke` to the command's start, p50")
}

/// From the start of `invoke` to the command's, which tells the time; both by this machine's clock.
fn until_start(bed: &Bed, caches: &Path, files: Option<&Path>) -> Duration {
    let mut command = bed.invoke();
    command.env("XDG_CACHE_HOME", caches);
    if let Some(files) = files {
        command.arg("-f").arg(files);
    }
    let begin = Timestamp::now();
    let ran = invoke_tests::process::run(command.arg("date +%s%N"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = ran.stdout_text();
    let started = text.trim().parse().ok();
    let started = started.and_then(|time| Timestamp::from_nanosecond(time).ok());
    let started = started.unwrap_or_else(|| panic!("no time: {ran:?}"));
    Duration::try_from(started.duration_since(begin)).unwrap_or_default()
}

fn small_files(folder: &Path) {
    for number in 0..SMALL_FILES {
        let folder = folder.join(format!("d{}", number % 100));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(format!("f{number}")), format!("{number}\n")))
            .expect("there is room for small files");
    }
}

fn text(folder: &Path) {
    let mut random = fastrand::Rng::with_seed(5);
    fill(folder, || {
        let line = format!("line {:08x} of {:016x}\n", random.u32(..), random.u64(..));
        line.repeat(8192 / line.len()).into_bytes()
    });
}

fn noise(folder: &Path) {
    let mut random = fastrand::Rng::with_seed(6);
    fill(folder, || {
        let mut block = vec![0; 8192];
        random.fill(&mut block);
        block
    });
}

/// One file of about [`BYTES`], block by block.
fn fill(folder: &Path, mut block: impl FnMut() -> Vec<u8>) {
    let file = File::create(folder.join("large")).expect("there is room for a file");
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut written = 0;
    // One block short of it: the folder's own entry counts too.
    while written + 8192 < BYTES {
        let block = block();
        file.write_all(&block).expect("the disk has room");
        written += block.len() as u64;
    }
    file.flush().expect("the disk has room");
}
