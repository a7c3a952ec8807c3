//! Many commands that print at once, each with somebody who watches.

use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

use invoke_tests::bed::Bed;
use jiff::Timestamp;

use crate::memory;
use crate::output::piped;
use crate::table::{Bound, Figure, milliseconds, short};

/// How many are asked for, of a profile of which the node takes so many at once.
const JOBS: usize = 100;

/// For how long each prints.
const SECONDS: u64 = 30;

/// When all of them begin: until then the pods are made.
const BEGIN_IN: Duration = Duration::from_secs(90);

/// Measures.
///
/// # Panics
/// If the dispatcher or the runner does not run.
pub(crate) fn measure(bed: &Bed) -> Vec<Figure> {
    let (dispatcher, runner) = (memory::dispatcher(), memory::runner(bed));
    for pid in [dispatcher, runner] {
        memory::forget_peak(pid);
    }
    let begin_at = (Timestamp::now() + BEGIN_IN).as_second();
    let begin = Instant::now() + BEGIN_IN;
    // Who could not begin with the others prints nothing, and makes place.
    let command = format!(
        "[ $(date +%s) -lt {begin_at} ] || exit 0; while [ $(date +%s) -lt {begin_at} ]; do sleep 0.5; done; \
         for i in $(seq {}); do yes 0123456789abcdef | head -c 250000; sleep 0.25; done",
        SECONDS * 4
    );
    let watched: Vec<_> = (0..JOBS)
        .map(|_| {
            let cli = piped(bed.invoke().args(["--profile", "light", &command]));
            std::thread::spawn(move || Watched::to_end(cli))
        })
        .collect();
    let half = Duration::from_secs(SECONDS / 2);
    std::thread::sleep((begin + half).saturating_duration_since(Instant::now()));
    let shims: Vec<_> = memory::shims(bed)
        .into_iter()
        .filter_map(memory::peak)
        .collect();
    let watched: Vec<_> = watched
        .into_iter()
        .filter_map(|watched| watched.join().ok())
        .collect();
    let printed: Vec<_> = watched.iter().filter(|watched| watched.bytes > 0).collect();
    let gap = printed.iter().map(|watched| watched.longest_gap).max();
    let whole = printed.iter().filter(|watched| watched.is_whole).count();
    let highest = |values: &[f64]| values.iter().copied().fold(f64::NAN, f64::max);
    let beside = format!(
        "{} of {JOBS} ran at once; {whole} of them were intact; the CLI at most {} MiB",
        printed.len(),
        short(highest(
            &watched
                .iter()
                .filter_map(|watched| watched.peak)
                .collect::<Vec<_>>()
        )),
    );
    let most = |what, limit, reached: f64| {
        Figure::count(what, Bound::Under(limit), reached, "MiB", "–".to_owned())
    };
    vec![
        Figure::count(
            "jobs that print 1 MB/s each, each with a watcher: the longest gap at any",
            Bound::Under(1000.0),
            gap.map_or(f64::NAN, milliseconds),
            "ms",
            beside,
        ),
        most(
            "meanwhile at most in memory: any shim",
            16.0,
            highest(&shims),
        ),
        most(
            "the runner of all these",
            128.0,
            memory::peak(runner).unwrap_or(f64::NAN),
        ),
        most(
            "the dispatcher of all these",
            256.0,
            memory::peak(dispatcher).unwrap_or(f64::NAN),
        ),
    ]
}

/// What one watcher saw.
struct Watched {
    bytes: u64,
    longest_gap: Duration,
    /// It is all there, and the CLI says so too.
    is_whole: bool,
    peak: Option<f64>,
}

impl Watched {
    fn to_end(mut cli: Child) -> Self {
        let mut stdout = cli.stdout.take().expect("it is piped");
        let mut buffer = vec![0; 64 * 1024];
        let mut last = None;
        let mut watched = Self {
            bytes: 0,
            longest_gap: Duration::ZERO,
            is_whole: false,
            peak: None,
        };
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            let now = Instant::now();
            let gap = last.replace(now).map(|last| now.duration_since(last));
            watched.longest_gap = watched.longest_gap.max(gap.unwrap_or_default());
            watched.bytes += length as u64;
            watched.peak = memory::peak(cli.id()).or(watched.peak);
        }
        let status = cli.wait().expect("it is our child");
        watched.is_whole = status.success() && watched.bytes == SECONDS * 1_000_000;
        watched
    }
}
