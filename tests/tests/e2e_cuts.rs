//! Connections that break at any byte of what comes in and what goes out: it is the same at both ends. The
//! test bed belongs to one of these tests at a time.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, bed};
use invoke_tests::database::rows;
use invoke_tests::faults::{Between, SlowLine, cut, processes_of_pod};
use invoke_tests::noise;
use invoke_tests::row::alone;

/// Where it is cut depends on nothing else.
const SEED: u64 = 5;

const MIB: u64 = 1 << 20;

/// Places of so many bytes, in order: none near the end, when there may be nothing left to cut.
#[expect(
    clippy::print_stdout,
    reason = "whoever looks into a failure must know where it was cut"
)]
fn places(random: &mut fastrand::Rng, count: usize, bytes: u64) -> Vec<u64> {
    let mut places: Vec<_> = std::iter::repeat_with(|| random.u64(1..bytes * 9 / 10))
        .take(count)
        .collect();
    places.sort_unstable();
    println!("seed {SEED}: cut at {places:?} of {bytes} bytes");
    places
}

/// Cuts whenever so much is there.
fn cut_at(bed: &Bed, places: &[u64], between: Between, there: impl Fn() -> u64) {
    let begun = Instant::now();
    for place in places {
        while there() < *place {
            assert!(begun.elapsed() < Duration::from_secs(120), "{place}");
            sleep(Duration::from_millis(1));
        }
        cut(bed, between);
    }
}

#[test]
fn output_is_the_same_through_cuts_at_any_byte() {
    let _alone = alone();
    let bed = bed();
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut places = places(&mut random, 12, 60 * MIB).into_iter().peekable();
    let ways = [Between::ClusterAndDispatcher, Between::ClientAndDispatcher];
    let mut ways = ways.into_iter().cycle();
    let said = noise::printed(&bed, 60, 50, |seen| {
        while places.next_if(|place| *place <= seen).is_some() {
            cut(&bed, ways.next().expect("it has no end"));
        }
    });
    assert!(places.peek().is_none(), "{said}");
}

#[test]
fn files_are_the_same_through_cuts_at_any_byte() {
    let _alone = alone();
    let bed = bed();
    let mut random = fastrand::Rng::with_seed(SEED);
    let folder = tempfile::tempdir().expect("there is room");
    // Under another name each time, or what was uploaded before would not be uploaded again.
    let name = uuid::Uuid::new_v4().to_string();
    let digest = noise::written(&folder.path().join(&name), 40);
    let mut command = bed.invoke();
    command.current_dir(folder.path());
    command.args(["--no-wait", "-f", &name, &format!("sha256sum {name}")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("invoke runs");
    let up = places(&mut random, 5, 40 * MIB);
    cut_at(&bed, &up, Between::ClientAndDispatcher, uploaded);
    // On a fast line all of it would be there before anybody could look.
    let slow = SlowLine::new("80mbit");
    let output = child.wait_with_output().expect("invoke ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let job = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let uid = bed.uid("invoke-jobs", &format!("invoke-{job}"));
    let fetched = || fetched(&bed, &uid);
    let down = places(&mut random, 5, 40 * MIB);
    cut_at(&bed, &down, Between::ClusterAndDispatcher, fetched);
    assert!(fetched() < 40 * MIB, "it was there before the last cut");
    drop(slow);
    let ran = bed.ran(&["logs", "-f", &job]);
    assert_eq!(
        (ran.code, noise::digest(&ran.stdout_text())),
        (0, digest),
        "{ran:?}"
    );
}

/// How much is stored of the archive that is being uploaded.
fn uploaded() -> u64 {
    let query = "SELECT stored_bytes FROM uploads WHERE NOT complete AND owner IS NOT NULL \
                 ORDER BY touched_at DESC LIMIT 1";
    let stored = rows(query).first().and_then(|row| row.parse().ok());
    stored.unwrap_or_default()
}

/// How much of the archive has come into a pod.
fn fetched(bed: &Bed, uid: &str) -> u64 {
    let processes = processes_of_pod(bed, uid);
    let archive = |process| format!("/proc/{process}/root/run/invoke/files.tar.gz");
    let there = processes
        .iter()
        .filter_map(|process| std::fs::metadata(archive(process)).ok());
    there.map(|file| file.len()).max().unwrap_or_default()
}
