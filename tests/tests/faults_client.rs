//! Row 48, the client's part: the CLI is killed, cut off and asleep; a cancel races the end. Schedules are
//! not built yet, so nothing is said here of clocks that jump and of fire times that are missed.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::faults::{self, Between, Partition};
use invoke_tests::hooks::Program;
use invoke_tests::process::run;
use invoke_tests::row::{Row, Without, World, arm_once, prove};
use invoke_tests::wait;

const SOON: Duration = Duration::from_secs(90);

/// A CLI that runs a canary and prints what it prints.
struct Watcher {
    child: Child,
    stdout: ChildStdout,
    seen: Vec<u8>,
}

impl Watcher {
    /// Starts it, and waits for the first line.
    fn start(world: &World, canary: &Canary, options: &[&str]) -> Self {
        let mut command = world.bed.invoke();
        command.args(["--start-within", "60s"]).args(options);
        command.arg(canary.command(&world.collector));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("invoke runs");
        let mut stdout = child.stdout.take().expect("it is a pipe");
        let mut seen = vec![0; b"line 1\n".len()];
        stdout.read_exact(&mut seen).expect("the first line comes");
        Self {
            child,
            stdout,
            seen,
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let ran = run(std::process::Command::new("kill").args(["-s", name, &pid]));
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Reads the rest, and says what is wrong with what it printed and with its exit code.
    fn judge(mut self, canary: &Canary, job: &str) -> Option<Violation> {
        let read = self.stdout.read_to_end(&mut self.seen);
        let output = self.child.wait_with_output().expect("it ends");
        let printed = String::from_utf8_lossy(&self.seen).into_owned();
        let code = output.status.code();
        if read.is_ok() && printed == canary.stdout() && code == Some(i32::from(canary.code)) {
            return None;
        }
        let words = format!(
            "who watched saw {} of {} bytes and left with {code:?}: {}",
            printed.len(),
            canary.stdout().len(),
            String::from_utf8_lossy(&output.stderr)
        );
        Some(violation(Invariant::OutputComplete, job, words))
    }
}

/// The newest job.
fn newest(world: &World) -> String {
    let jobs = world.bed.json(&["-o", "json", "jobs", "--limit", "1"]);
    let id = jobs["jobs"][0]["id"].as_str();
    id.expect("a job was submitted").to_owned()
}

/// A job outlives who asked for it; its id is enough to have all of it.
#[test]
fn row_48_the_cli_is_killed() {
    let row = Row {
        number: 48,
        fault: "the CLI is killed (SIGKILL) in the middle of the output; then the job is followed by its id, from another CLI (what the row says of schedules waits until there are schedules)",
        without: Without::Scenario("the command is submitted again, as without an id"),
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let canary = Canary::of(50, 7);
        let mut watcher = Watcher::start(world, &canary, &[]);
        let job = newest(world);
        watcher.child.kill().expect("it runs");
        watcher.child.wait().expect("it was killed");
        let command = canary.command(&world.collector);
        let followed = match world.is_sabotaged() {
            true => world.bed.ran(&["--start-within", "60s", &command]),
            false => world.bed.ran(&["logs", "-f", &job]),
        };
        let mut found = world.settle_run(&canary, std::slice::from_ref(&job), SOON);
        if (followed.code, followed.stdout_text()) != (7, canary.stdout()) {
            let words = format!("who followed it by its id saw {followed:?}");
            found.push(violation(Invariant::OutputComplete, &job, words));
        }
        let jobs = BTreeSet::from([job.clone(), newest(world)]);
        let starts: usize = jobs.iter().map(|job| world.collector.starts(job)).sum();
        if starts != 1 {
            let words = format!("what was wanted once has started {starts} times");
            found.push(violation(Invariant::NoneRunTwice, &job, words));
        }
        found
    });
}

/// A network that comes and goes, and a laptop that sleeps, cost a pause.
#[test]
#[ignore = "long: make faults"]
fn row_48_the_network_flaps_and_the_laptop_sleeps() {
    let row = Row {
        number: 48,
        fault: "packets between CLI and dispatcher vanish for 2 s, 2 s and 30 s while output is followed; then the CLI sleeps (SIGSTOP) for 5 s",
        without: Without::Scenario("the CLI is told not to try again (--retry-for 0s)"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let canary = Canary::of(450, 7);
        let patience: &[&str] = match world.is_sabotaged() {
            true => &["--retry-for", "0s"],
            false => &[],
        };
        let watcher = Watcher::start(world, &canary, patience);
        let job = newest(world);
        for seconds in [2, 2, 30] {
            let cut = Partition::new(&world.bed, Between::ClientAndDispatcher);
            std::thread::sleep(Duration::from_secs(seconds));
            drop(cut);
            std::thread::sleep(Duration::from_secs(1));
        }
        if !world.is_sabotaged() {
            watcher.signal("STOP");
            std::thread::sleep(Duration::from_secs(5));
            watcher.signal("CONT");
        }
        let mut found: Vec<_> = watcher.judge(&canary, &job).into_iter().collect();
        found.extend(world.settle_run(&canary, &[job], SOON));
        found
    });
}

/// Cancelled or over by itself: one of them, once, and for good.
#[test]
#[ignore = "long: make faults"]
fn row_48_a_cancel_races_the_end() {
    let row = Row {
        number: 48,
        fault: "jobs are cancelled around the moment of their end; one is cancelled while the dispatcher is killed between its end and the answer to who told it",
        without: Without::Dispatcher("no-end-once"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let mut found = told_twice(world);
        let (canary, options) = (Canary::of(5, 0), ["--start-within", "60s"]);
        for after in [0, 300, 500, 600, 700, 900] {
            let job = world.submit(&canary, &options);
            world.await_start(&job, Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(after));
            drop(world.bed.ran(&["cancel", "--grace", "1s", &job]));
            found.extend(ended_once(world, &canary, &job));
        }
        found
    });
}

/// The end of a cancelled job is reported a second time, because the answer to the first was lost.
fn told_twice(world: &World) -> Vec<Violation> {
    let canary = Canary::of(600, 0);
    let job = world.submit(&canary, &["--start-within", "60s"]);
    world.await_start(&job, Duration::from_secs(60));
    arm_once(
        world,
        Program::Dispatcher,
        "dispatcher.complete.after-commit",
    );
    let mut cancel = world.bed.invoke();
    cancel.args(["cancel", "--grace", "1s", &job]);
    cancel
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut cancel = cancel.spawn().expect("invoke runs");
    wait::until(
        "the dispatcher to be killed",
        Duration::from_secs(30),
        || {
            std::net::TcpStream::connect("127.0.0.1:9999")
                .err()
                .map(drop)
        },
    );
    faults::restart(&world.bed, "dispatcher");
    cancel.wait().expect("it ends");
    ended_once(world, &canary, &job)
}

/// Exactly one of cancelled, succeeded and failed, and no other a little later.
fn ended_once(world: &World, canary: &Canary, job: &str) -> Vec<Violation> {
    let jobs = [job.to_owned()];
    let mut found = world.settle(canary, &jobs, SOON);
    let state = || world.job(job).unwrap_or_default()["state"].to_string();
    let first = state();
    // By now a report that was not answered has come again.
    std::thread::sleep(Duration::from_secs(2));
    let (last, ends) = (state(), world.steps(job, "ended"));
    let is_one = ["\"cancelled\"", "\"succeeded\""].contains(&last.as_str());
    if first != last || ends != 1 || !is_one {
        let words = format!("it was {first}, is {last}, and has ended {ends} times");
        found.push(violation(Invariant::ClearState, job, words));
    }
    found
}
