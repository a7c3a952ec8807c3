//! One part is killed as a crash would: how long until a fresh command works again, and until the
//! output of a running one arrives again.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use invoke_tests::bed::Bed;
use invoke_tests::faults::{kill, restart};
use invoke_tests::wait;

use crate::table::{Bound, Figure, milliseconds, short};

/// The parts, in the order of the way of a job, and what the figure is called.
const PARTS: [(&str, &str); 5] = [
    ("dispatcher", "dispatcher killed: a fresh command works"),
    ("postgres", "PostgreSQL killed: a fresh command works"),
    ("rabbitmq", "RabbitMQ killed: a fresh command works"),
    ("apiserver", "API server killed: a fresh command works"),
    ("kubelet", "kubelet killed: a fresh command works"),
];

/// After any single kill, part's own start included.
const RECOVERED: Bound = Bound::Under(30_000.0);

/// Measures.
///
/// # Panics
/// If a part does not come back.
pub(crate) fn measure(bed: &Bed) -> Vec<Figure> {
    let mut figures: Vec<_> = PARTS
        .iter()
        .map(|(part, what)| part_killed(bed, part, what))
        .collect();
    figures.extend(runner_killed(bed));
    figures
}

fn part_killed(bed: &Bed, part: &str, what: &'static str) -> Figure {
    works(bed);
    let killed = Instant::now();
    kill(bed, part);
    restart(bed, part);
    let back = killed.elapsed();
    works(bed);
    let recovered = killed.elapsed();
    let beside = format!("healthy itself after {} ms", short(milliseconds(back)));
    Figure::time(what, RECOVERED, recovered, beside)
}

/// A fresh command, from its submission to its end.
fn works(bed: &Bed) {
    let ran = bed.ran(&["--retry-for", "60s", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A command prints ten lines a second while every replica of the runner is killed. What it printed
/// meanwhile comes when the new one has taken over.
fn runner_killed(bed: &Bed) -> Vec<Figure> {
    let mut watched = Watched::start(bed);
    let killed = Instant::now();
    let before = bed.runner_pods();
    bed.kill_runners();
    let ready = wait::until("the runner to be ready", Duration::from_secs(60), || {
        is_ready(bed, &before).then(Instant::now)
    });
    let flows = watched.flows_again(killed);
    let adopted = flows.saturating_duration_since(ready);
    let beside = format!("ready itself after {:.1?}", ready.duration_since(killed));
    works(bed);
    let fresh = killed.elapsed();
    drop(watched);
    vec![
        Figure::time(
            "runner killed: a fresh command works",
            RECOVERED,
            fresh,
            beside,
        ),
        Figure::time(
            "from the new runner's readiness to the output of a running command",
            Bound::Under(5000.0),
            adopted,
            format!("from the kill: {:.1?}", flows.duration_since(killed)),
        ),
    ]
}

/// Whether a runner's pod that is none of these is ready.
fn is_ready(bed: &Bed, before: &[String]) -> bool {
    let condition = r#"{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}"#;
    let ran = bed.kubectl(&[
        "get",
        "pods",
        "-n",
        "invoke-system",
        "-l",
        "app.kubernetes.io/name=invoke-runner",
        "-o",
        &format!("jsonpath={condition}"),
    ]);
    ran.stdout_text().split_whitespace().any(|pod| {
        pod.split_once('=')
            .is_some_and(|(name, ready)| ready == "True" && !before.iter().any(|old| old == name))
    })
}

/// A CLI that watches a command which prints ten lines a second.
struct Watched {
    cli: Child,
    lines: mpsc::Receiver<Instant>,
}

/// Two lines are further apart than this only while nobody takes them from the pod.
const GAP: Duration = Duration::from_secs(1);

impl Watched {
    /// Starts it, and waits for its first line.
    fn start(bed: &Bed) -> Self {
        let mut command = bed.invoke();
        command.args(["--retry-for", "60s"]);
        command.arg("for i in $(seq 1200); do echo $i; sleep 0.1; done");
        let command = command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut cli = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the CLI was built");
        let stdout = cli.stdout.take().expect("it is piped");
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for _line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if told.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
        let first = lines.recv_timeout(Duration::from_secs(60));
        first.expect("the command prints");
        Self { cli, lines }
    }

    /// When lines came again, after the first gap since the kill.
    fn flows_again(&mut self, killed: Instant) -> Instant {
        let mut last = killed;
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line = line.expect("the command goes on, and prints");
            if line > last + GAP {
                return line;
            }
            last = last.max(line);
        }
    }
}

impl Drop for Watched {
    /// The command itself ends within two minutes, in its pod.
    fn drop(&mut self) {
        let _gone = self.cli.kill();
        let _gone = self.cli.wait();
    }
}
