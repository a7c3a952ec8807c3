//! A long output, from the pod to the CLI; and how soon a line is there.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use invoke_tests::bed::Bed;
use invoke_tests::wait;
use jiff::Timestamp;

use crate::memory;
use crate::peers;
use crate::table::{Bound, Figure, percentile, short};

/// How much is printed.
const BYTES: u64 = 1 << 30;

/// What is printed, again and again.
const LINE: &[u8] = b"0123456789abcdef\n";

/// How many lines are timed.
const LINES: usize = 200;

/// Measures.
///
/// # Panics
/// If a command does not end well.
pub(crate) fn measure(bed: &Bed) -> Vec<Figure> {
    let mut figures = first_byte(bed);
    figures.extend(long_output(bed));
    figures
}

/// The command, for a shell.
pub(crate) fn printing() -> String {
    format!("yes 0123456789abcdef | head -c {BYTES}")
}

fn long_output(bed: &Bed) -> Vec<Figure> {
    let (dispatcher, runner) = (memory::dispatcher(), memory::runner(bed));
    for pid in [dispatcher, runner] {
        memory::forget_peak(pid);
    }
    let mut command = bed.invoke();
    command.arg(printing());
    let begin = Instant::now();
    let mut cli = piped(&mut command);
    let cli_pid = cli.id();
    let stdout = cli.stdout.take().expect("it is piped");
    let receiving = std::thread::spawn(move || Received::all_of(stdout));
    let shim = wait::until("the job's shim", Duration::from_secs(60), || {
        memory::shims(bed).first().copied()
    });
    let (mut of_shim, mut of_cli) = (f64::NAN, f64::NAN);
    while !receiving.is_finished() {
        // The last word of a process on this is the one shortly before its end.
        of_shim = of_shim.max(memory::peak(shim).unwrap_or(f64::NAN));
        of_cli = of_cli.max(memory::peak(cli_pid).unwrap_or(f64::NAN));
        std::thread::sleep(Duration::from_millis(20));
    }
    let received = receiving.join().expect("the pipe can be read");
    let status = cli.wait().expect("it is our child");
    let whole = begin.elapsed();
    let ended_well = status.success() && received.is_intact();
    let beside = format!(
        "{}; {:.1?} with the start of the pod. {}; {}",
        received.words(),
        whole,
        peers::kubectl_exec_output(bed).words_of("kubectl exec"),
        peers::kubectl_logs_output(bed).words_of("kubectl logs"),
    );
    // What is not intact has no rate.
    let rate = if ended_well {
        received.rate()
    } else {
        f64::NAN
    };
    let most = |what, limit, reached: Option<f64>| {
        let reached = reached.unwrap_or(f64::NAN);
        Figure::count(what, Bound::Under(limit), reached, "MiB", "–".to_owned())
    };
    vec![
        Figure::count(
            "1 GiB to stdout, from its first byte at the CLI to its last",
            Bound::AtLeast(50.0),
            rate,
            "MB/s",
            beside,
        ),
        most("meanwhile at most in memory: the shim", 16.0, Some(of_shim)),
        most("the runner", 128.0, memory::peak(runner)),
        most("the dispatcher", 256.0, memory::peak(dispatcher)),
        most("the CLI", 64.0, Some(of_cli)),
    ]
}

/// What came out of a pipe.
pub(crate) struct Received {
    bytes: u64,
    is_right: bool,
    lasted: Duration,
}

impl Received {
    /// Reads to the end, and compares each byte.
    pub(crate) fn all_of(mut from: impl Read) -> Self {
        let expected = LINE.repeat((1 << 20) / LINE.len() + 2);
        let mut buffer = vec![0; 1 << 20];
        let mut received = Self {
            bytes: 0,
            is_right: true,
            lasted: Duration::ZERO,
        };
        let mut first = None;
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let first = first.get_or_insert_with(Instant::now);
            let phase = usize::try_from(received.bytes % LINE.len() as u64).unwrap_or_default();
            received.is_right &= buffer[..length] == expected[phase..phase + length];
            received.bytes += length as u64;
            received.lasted = first.elapsed();
        }
        received
    }

    fn is_intact(&self) -> bool {
        self.is_right && self.bytes == BYTES
    }

    /// In MB/s.
    #[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.lasted.as_secs_f64()
    }

    fn words(&self) -> String {
        match self.is_intact() {
            true => "intact".to_owned(),
            false => format!("NOT intact: {} bytes of {BYTES}", self.bytes),
        }
    }

    /// For comparison.
    pub(crate) fn words_of(&self, name: &str) -> String {
        format!("`{name}`: {} MB/s, {}", short(self.rate()), self.words())
    }
}

/// A command in the pod writes the time, line by line; pod and CLI have one clock, that of this machine.
fn first_byte(bed: &Bed) -> Vec<Figure> {
    let mut command = bed.invoke();
    command.arg(format!(
        "for i in $(seq {LINES}); do date +%s%N; sleep 0.05; done"
    ));
    let mut cli = piped(&mut command);
    let stdout = cli.stdout.take().expect("it is piped");
    let mut taken: Vec<_> = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .map(|line| since(&line))
        .collect();
    let status = cli.wait().expect("it is our child");
    assert!(status.success() && taken.len() == LINES, "{taken:?}");
    let median = format!("p50 {:.0?}", percentile(&mut taken, 50));
    vec![Figure::time(
        "from a line's write in the pod to its arrival at the CLI, p95",
        Bound::Under(100.0),
        percentile(&mut taken, 95),
        median,
    )]
}

/// How long ago a line was written that is the time in nanoseconds.
fn since(line: &str) -> Duration {
    let written = line.trim().parse().ok();
    let written = written.and_then(|time| Timestamp::from_nanosecond(time).ok());
    let written = written.unwrap_or_else(|| panic!("no time: {line}"));
    Duration::try_from(Timestamp::now().duration_since(written)).unwrap_or_default()
}

/// Starts a program whose stdout is read here.
pub(crate) fn piped(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stderr(Stdio::null());
    let started = command.stdout(Stdio::piped()).spawn();
    started.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}
