//! Rows 1 to 9: faults of the dispatcher.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use invoke_tests::bed::variable;
use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::database::{Locked, all_jobs, rows};
use invoke_tests::faults::{self, NoRunner, Paused};
use invoke_tests::hooks::{self, Program};
use invoke_tests::noise::{self, Sha256};
use invoke_tests::process::{Ran, run};
use invoke_tests::row::{Row, Without, World, arm_once, prove};
use invoke_tests::wait;

const SOON: Duration = Duration::from_secs(90);

/// For what never comes without the protection: no longer than it takes with it.
fn soon(world: &World) -> Duration {
    if world.is_sabotaged() {
        Duration::from_secs(20)
    } else {
        SOON
    }
}

/// No fence of the runner is left between a message and a pod; [`break_the_permit`] takes the last one.
const NO_CLAIM: Without = Without::Runner("no-claim=return;no-start-record");

/// Prints nothing: a second start in another pod is refused as well if there is output of the first.
const SILENT: Canary = Canary::of(0, 0);

/// Together with [`NO_CLAIM`]: every message makes a pod, and every pod is permitted to start.
fn break_the_permit(world: &World) {
    if world.is_sabotaged() {
        hooks::set(&world.bed, Program::Dispatcher, "no-permit-cas", "return");
    }
}

/// Submits a canary to a dispatcher that dies at `point`, and starts the dispatcher again. Answers what
/// the CLI said, and which jobs there are now that there were not before.
fn submit_into_a_crash(
    world: &World,
    canary: &Canary,
    point: &str,
    retry_for: &str,
) -> (Ran, Vec<String>) {
    let before = all_jobs();
    arm_once(world, Program::Dispatcher, point);
    let command = canary.command(&world.collector);
    let patience = [
        "--no-wait",
        "--start-within",
        "90s",
        "--retry-for",
        retry_for,
    ];
    let ran = thread::scope(|scope| {
        let arguments = [patience.as_slice(), &[&command]].concat();
        let cli = scope.spawn(move || world.bed.ran(&arguments));
        await_death();
        faults::restart(&world.bed, "dispatcher");
        cli.join().expect("the CLI ends")
    });
    let made = all_jobs().difference(&before).cloned().collect();
    (ran, made)
}

/// Until nobody listens for hooks any more.
fn await_death() {
    wait::until("the dispatcher to die", Duration::from_secs(30), || {
        TcpStream::connect("127.0.0.1:9999").err().map(drop)
    });
}

/// The answer is lost, not the job; and to ask again with the same key is to ask for the same job.
#[test]
#[ignore = "long: make faults"]
fn row_01_killed_after_the_commit() {
    let row = Row {
        number: 1,
        fault: "the dispatcher dies after a submission is committed and before it is answered; the CLI tries again",
        without: Without::Dispatcher("no-idempotency"),
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let point = "dispatcher.submit.after-commit";
        let (ran, made) = submit_into_a_crash(world, &canary, point, "60s");
        let job = ran.stdout_text().trim().to_owned();
        let mut found = world.settle_run(&canary, &made, SOON);
        if ran.code != 0 || made != [job.as_str()] {
            let words = format!("the jobs {made:?} were made of one submission: {ran:?}");
            found.push(violation(Invariant::NoneRunTwice, &job, words));
        }
        found
    });
}

/// All of a submission or nothing: what was not committed leaves neither a job nor a message.
#[test]
#[ignore = "long: make faults"]
fn row_02_killed_before_the_commit() {
    let row = Row {
        number: 2,
        fault: "the dispatcher dies before a submission is committed; the CLI is told not to try again",
        without: Without::Scenario(
            "the dispatcher dies after the commit, as if each statement were committed by itself",
        ),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let point = match world.is_sabotaged() {
            true => "dispatcher.submit.after-commit",
            false => "dispatcher.submit.before-commit",
        };
        let (ran, made) = submit_into_a_crash(world, &canary, point, "0s");
        let mut found = world.settle_run(&canary, &made, SOON);
        if ran.code == 0 || !ran.stdout.is_empty() {
            let words = format!("what was not stored is called accepted: {ran:?}");
            found.push(violation(Invariant::ClearState, "the submission", words));
        }
        for job in &made {
            let words = "it is there, and nobody was told of it";
            found.push(violation(Invariant::ClearState, job, words));
        }
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// Confirm before mark: a message may go out twice, and that must not matter.
#[test]
#[ignore = "long: make faults"]
fn row_03_killed_between_publication_and_mark() {
    let row = Row {
        number: 3,
        fault: "the dispatcher dies after RabbitMQ has confirmed a message and before it is marked as sent: it is sent twice, and comes a third time after the job's end",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let none = NoRunner::new(&world.bed);
        let acknowledged = broker::acknowledged(&world.bed);
        let point = "dispatcher.outbox.after-publish";
        arm_once(world, Program::Dispatcher, point);
        let job = world.submit(&SILENT, &["--start-within", "90s"]);
        await_death();
        faults::restart(&world.bed, "dispatcher");
        break_the_permit(world);
        // The lease of who died lasts half a minute.
        faults::sql("UPDATE outbox SET leased_until = 0");
        world.await_step(&job, "published", Duration::from_secs(20));
        await_messages(world, 2);
        let message = broker::peek(&world.bed);
        drop(none);
        world.bed.await_connected();
        settle_again(world, &[job], &[message], acknowledged + 3)
    });
}

/// Waits for the ends of jobs, sends these messages once more, and judges the jobs again when the broker
/// counts so many acknowledgements: a second start would come with the last of them.
fn settle_again(world: &World, jobs: &[String], messages: &[String], all: u64) -> Vec<Violation> {
    let mut found = world.settle_run(&SILENT, jobs, SOON);
    for message in messages {
        broker::publish_copies(&world.bed, message, 1);
    }
    let what = format!("{all} acknowledgements");
    wait::until(&what, Duration::from_secs(60), || {
        (broker::acknowledged(&world.bed) >= all).then_some(())
    });
    found.extend(world.settle_run(&SILENT, jobs, SOON));
    found.extend(broker::left_over(&world.bed));
    found
}

/// Until the cluster's queue holds so many messages.
fn await_messages(world: &World, count: u64) {
    let queue = broker::command_queue(&world.bed);
    let what = format!("{count} messages in {queue}");
    wait::until(&what, Duration::from_secs(30), || {
        (broker::messages(&queue)? == count).then_some(())
    });
}

/// Another dispatcher on the same database and blobs, with a folder and a port of its own, until the end.
struct Second {
    child: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Second {
    fn start(world: &World) -> Self {
        let state = PathBuf::from(variable("INVOKE_TESTBED_STATE"));
        let folder = tempfile::tempdir().expect("there is room for a folder");
        own_by_dispatcher(folder.path());
        let (hub, plain) = (&world.bed.hub_ip, |path: &Path| path.display().to_string());
        let url = format!("https://{hub}:8444");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", DISPATCHER_USER, "--regid", DISPATCHER_USER]);
        command.args(["--clear-groups", "--no-new-privs"]);
        command
            .arg(state.join("bin/invoke-dispatcher"))
            .arg("serve");
        command.env_clear();
        let blobs = format!("file://{}", plain(&state.join("dispatcher/blobs")));
        for (name, value) in [
            ("INVOKE_LISTEN", format!("{hub}:8444")),
            ("INVOKE_PUBLIC_URL", url.clone()),
            ("INVOKE_DATA_DIR", plain(folder.path())),
            ("INVOKE_DATABASE_URL", variable("INVOKE_TEST_POSTGRES_URL")),
            ("INVOKE_BLOB_URL", blobs),
            ("INVOKE_AMQP_URL", variable("INVOKE_TEST_AMQP_URL")),
            (
                "INVOKE_AMQP_MANAGEMENT_URL",
                variable("INVOKE_TEST_AMQP_MANAGEMENT_URL"),
            ),
            (
                "INVOKE_AMQP_CA",
                plain(&state.join("dispatcher/broker-ca.pem")),
            ),
        ] {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        let second = Self {
            child: child.expect("setpriv runs"),
            folder,
            url,
        };
        second.await_ready();
        second
    }

    fn await_ready(&self) {
        let (ca, url) = (self.folder.path().join("ca.pem"), &self.url);
        wait::until("the second dispatcher", Duration::from_secs(40), || {
            let mut command = Command::new("curl");
            command.args(["-fsS", "-m", "5", "-o", "/dev/null", "--cacert"]);
            let ran = run(command.arg(&ca).arg(format!("{url}/readyz")));
            (ran.code == 0).then_some(())
        });
    }

    /// Submits a canary to this dispatcher.
    fn submit(&self, world: &World, canary: &Canary, options: &[&str]) -> String {
        let mut command = world.bed.invoke();
        command.env("INVOKE_URL", &self.url);
        command.env("INVOKE_CA_FILE", self.folder.path().join("ca.pem"));
        command.env("INVOKE_TOKEN_FILE", self.folder.path().join("local-token"));
        command.arg("--no-wait").args(options);
        let ran = run(command.arg(canary.command(&world.collector)));
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout_text().trim().to_owned()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It keeps nothing that a crash could spoil.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The user that the test bed's dispatcher runs as.
const DISPATCHER_USER: &str = "65532";

fn own_by_dispatcher(path: &Path) {
    let owner = format!("{DISPATCHER_USER}:{DISPATCHER_USER}");
    let ran = run(Command::new("chown").arg(owner).arg(path));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Two relays may both hold what one of them has lost its lease of.
#[test]
#[ignore = "long: make faults"]
fn row_05_a_dispatcher_is_frozen_and_another_takes_over() {
    let row = Row {
        number: 5,
        fault: "of two dispatchers, one is frozen while it waits for a confirm, until its lease is over (skipped in the store) and the other has sent the same; then it goes on, and the message comes a third time after the job's end",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let options = ["--start-within", "100s"];
        let none = NoRunner::new(&world.bed);
        let acknowledged = broker::acknowledged(&world.bed);
        break_the_permit(world);
        let broker_frozen = Paused::new(&world.bed, "rabbitmq");
        let job = world.submit(&SILENT, &options);
        await_rows("SELECT 1 FROM outbox WHERE attempts = 0", 0);
        let frozen = Paused::new(&world.bed, "dispatcher");
        drop(broker_frozen);
        let second = Second::start(world);
        faults::sql("UPDATE outbox SET leased_until = 0");
        await_rows("SELECT 1 FROM outbox", 0);
        await_messages(world, 2);
        let message = broker::peek(&world.bed);
        let other = second.submit(world, &SILENT, &options);
        drop((frozen, none));
        world.bed.await_connected();
        settle_again(world, &[job, other], &[message], acknowledged + 4)
    });
}

/// Until a query answers so many rows.
fn await_rows(query: &str, count: usize) {
    let what = format!("{count} rows of {query}");
    wait::until(&what, Duration::from_secs(30), || {
        (rows(query).len() == count).then_some(())
    });
}

/// A file system of 1 MiB over the folder of the dispatcher's blobs, until the end. What was there before is
/// there again then.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new() -> Self {
        let folder = PathBuf::from(variable("INVOKE_TESTBED_STATE")).join("dispatcher/blobs");
        let owner = format!("size=1m,mode=700,uid={DISPATCHER_USER},gid={DISPATCHER_USER}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &owner, "tmpfs"]);
        let ran = run(command.arg(&folder));
        assert_eq!(ran.code, 0, "{ran:?}");
        Self(folder)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("there is room for a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// `ro`: as the kernel does to a file system in which it found damage; or `rw`; or `size=…`.
    fn remount(&self, how: &str) {
        let mut command = Command::new("mount");
        let ran = run(command.args(["-o", &format!("remount,{how}")]).arg(&self.0));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ran = run(Command::new("umount").arg(&self.0));
        if ran.code != 0 && !thread::panicking() {
            panic!("the small disk is still there: {ran:?}");
        }
    }
}

/// How often the dispatcher has logged something.
fn logged(words: &str) -> usize {
    let log = PathBuf::from(variable("INVOKE_TESTBED_STATE")).join("logs/dispatcher.log");
    let log = std::fs::read_to_string(log).expect("the dispatcher has a log");
    log.matches(words).count()
}

/// Until the dispatcher has logged something once more than `before`; or, without the protection that it
/// would tell of, for as long as that takes otherwise.
fn await_logged(world: &World, words: &str, before: usize) {
    if world.is_sabotaged() {
        thread::sleep(Duration::from_secs(3));
        return;
    }
    wait::until(words, Duration::from_secs(30), || {
        (logged(words) > before).then_some(())
    });
}

/// A full disk is a reason to wait, and none to lose output or to stop the command.
#[test]
#[ignore = "long: make faults"]
fn row_06_the_blob_disk_is_full() {
    let row = Row {
        number: 6,
        fault: "the disk of the dispatcher's blobs is full from the middle of an output until after its command has ended",
        without: Without::Dispatcher("no-storage-full"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let canary = Canary::of(60, 7);
        let disk = SmallDisk::new();
        let job = world.submit(&canary, &["--start-within", "60s"]);
        await_output(world, &job);
        let (alarm, before) = (
            "there is no room for output",
            logged("there is no room for output"),
        );
        disk.fill();
        await_logged(world, alarm, before);
        // The command goes on, and is over before there is room.
        thread::sleep(Duration::from_secs(8));
        disk.make_room();
        let mut found = world.settle_run(&canary, std::slice::from_ref(&job), soon(world));
        found.extend(world.has_all_output(&canary, &job));
        found
    });
}

/// Whoever gives up is told why, and what to do; whoever does not is through when there is room.
#[test]
#[ignore = "long: make faults"]
fn row_06_the_blob_disk_is_full_of_an_archive() {
    let row = Row {
        number: 6,
        fault: "the disk of the dispatcher's blobs is full from the middle of an upload of attached files on: one CLI gives up, another one tries until there is room",
        without: Without::Dispatcher("no-storage-full"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let disk = SmallDisk::new();
        let folder = tempfile::tempdir().expect("there is room");
        let digest = noise::written(&folder.path().join("noise"), 3);
        let upload = |retry_for| {
            let mut command = world.bed.invoke();
            command.current_dir(folder.path());
            command.args(["--retry-for", retry_for, "-f", "noise", "sha256sum noise"]);
            command
        };
        let mut found = Vec::new();
        let refused = run(&mut upload("1s"));
        if refused.code == 0 || !refused.stderr_text().contains("no room") {
            let words = format!("who gives up is told {refused:?}");
            found.push(violation(Invariant::ClearState, "the upload", words));
        }
        let ran = run_after_a_pause(upload("60s"), || disk.remount("size=8m"));
        if (ran.code, noise::digest(&ran.stdout_text())) != (0, digest) {
            let words = format!("with room again, the command found {ran:?}");
            found.push(violation(Invariant::ClearState, "the files", words));
        }
        found.extend(world.left_over());
        found
    });
}

/// Runs the CLI, and does something once it has said that it tries again.
fn run_after_a_pause(mut command: Command, act: impl FnOnce()) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("invoke runs");
    let mut said = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let mut stderr = Vec::new();
    while !String::from_utf8_lossy(&stderr).contains("trying again")
        && said.read_until(b'\n', &mut stderr).expect("it is a pipe") > 0
    {}
    act();
    said.read_to_end(&mut stderr).expect("it is a pipe");
    let output = child.wait_with_output().expect("it ends");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr,
    }
}

/// What a command leaves waits in its pod until there is room.
#[test]
#[ignore = "long: make faults"]
fn row_06_the_blob_disk_is_full_of_artifacts() {
    let row = Row {
        number: 6,
        fault: "the disk of the dispatcher's blobs is full from the middle of an upload of artifacts on, for some seconds after the command has ended",
        without: Without::Dispatcher("no-storage-full"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let disk = SmallDisk::new();
        let alarm = "there is no room for output and files";
        let before = logged(alarm);
        let leave =
            "head -c 3M /dev/urandom > $INVOKE_ARTIFACTS/noise; sha256sum $INVOKE_ARTIFACTS/noise";
        let submitted = world.bed.ran(&["--no-wait", leave]);
        assert_eq!(submitted.code, 0, "{submitted:?}");
        let job = submitted.stdout_text().trim().to_owned();
        await_logged(world, alarm, before);
        disk.remount("size=8m");
        let ran = world.bed.ran(&["logs", "-f", &job]);
        let folder = tempfile::tempdir().expect("there is room");
        let into = folder.path().to_str().expect("its name is plain");
        let got = world.bed.ran(&[
            "--retry-for",
            "5s",
            "artifacts",
            &job,
            "get",
            "--all",
            "-d",
            into,
        ]);
        let arrived = std::fs::read(folder.path().join("noise")).unwrap_or_default();
        let mut sum = Sha256::begin();
        sum.write_all(&arrived).expect("sha256sum reads");
        let mut found = Vec::from_iter(world.left_over());
        if (ran.code, got.code, noise::digest(&ran.stdout_text())) != (0, 0, sum.finish()) {
            let words = format!(
                "{} bytes of artifacts are there: {ran:?}; {got:?}",
                arrived.len()
            );
            found.push(violation(Invariant::OutputComplete, &job, words));
        }
        found
    });
}

/// After a disk has failed once, nothing it says is believed; what it has not acknowledged comes again.
#[test]
#[ignore = "long: make faults"]
fn row_07_the_blob_disk_fails() {
    let row = Row {
        number: 7,
        fault: "the file system of the dispatcher's blobs becomes read-only in the middle of an output, as the kernel makes one that it cannot write; it is mended, and the dispatcher is started again",
        without: Without::Dispatcher("no-blob-fsync-check"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let canary = Canary::of(60, 7);
        let disk = SmallDisk::new();
        let job = world.submit(&canary, &["--start-within", "60s"]);
        await_output(world, &job);
        let alarm = "the disk that output is kept on has failed";
        let before = logged(alarm);
        disk.remount("ro");
        await_logged(world, alarm, before);
        disk.remount("rw");
        thread::sleep(Duration::from_secs(2));
        let mut found = Vec::new();
        if !world.is_sabotaged() && is_ready(world) {
            let words = "it is called ready, and its disk has failed";
            found.push(violation(Invariant::ClearState, "the dispatcher", words));
        }
        faults::kill(&world.bed, "dispatcher");
        faults::restart(&world.bed, "dispatcher");
        found.extend(world.settle_run(&canary, std::slice::from_ref(&job), soon(world)));
        found.extend(world.has_all_output(&canary, &job));
        found
    });
}

fn is_ready(world: &World) -> bool {
    let url = format!("https://{}:8443/readyz", world.bed.hub_ip);
    let mut command = Command::new("curl");
    command.args([
        "-fsS",
        "-m",
        "5",
        "--cacert",
        &variable("INVOKE_CA_FILE"),
        &url,
    ]);
    run(&mut command).code == 0
}

/// Until some of the output of a job is stored.
fn await_output(world: &World, job: &str) {
    let what = format!("output of job {job}");
    wait::until(&what, Duration::from_secs(60), || {
        let ran = world.bed.ran(&["logs", job]);
        (!ran.stdout.is_empty()).then_some(())
    });
}

/// Who asks again gets through: to whoever submits and watches, a dispatcher that crashes is a slow one.
#[test]
#[ignore = "long: make faults"]
fn row_04_a_restart_loop_under_load() {
    let row = Row {
        number: 4,
        fault: "the dispatcher is killed (SIGKILL) and started again six times, some seconds apart, while jobs are submitted without a pause and one is followed",
        without: Without::Scenario("the CLI is told not to try again (--retry-for 0s)"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let patience = if world.is_sabotaged() { "0s" } else { "60s" };
        let options = ["--start-within", "120s", "--retry-for", patience];
        let (long, short) = (Canary::of(200, 7), Canary::of(3, 0));
        let is_over = AtomicBool::new(false);
        let (followed, submitted) = thread::scope(|scope| {
            let follow = scope.spawn(|| follow(world, &long, &options));
            let submit = scope.spawn(|| {
                let mut submitted = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    submitted.push(short.submit(&world.bed, &world.collector, &options));
                }
                submitted
            });
            for _ in 0..6 {
                thread::sleep(Duration::from_secs(2));
                faults::kill(&world.bed, "dispatcher");
                faults::restart(&world.bed, "dispatcher");
            }
            is_over.store(true, Ordering::SeqCst);
            (
                follow.join().expect("it ends"),
                submit.join().expect("it ends"),
            )
        });
        world.bed.await_connected();
        let (jobs, refused): (Vec<_>, Vec<_>) = submitted.into_iter().partition(Result::is_ok);
        let jobs: Vec<String> = jobs.into_iter().flatten().collect();
        let mut found = world.settle_run(&short, &jobs, Duration::from_secs(150));
        found.extend(followed);
        if let Some(Err(ran)) = refused.first() {
            let words = format!("{} jobs were not accepted: {ran:?}", refused.len());
            found.push(violation(Invariant::NoJobLost, "the submissions", words));
        }
        found
    });
}

/// Submits a canary and follows it, and says what is wrong with what was seen.
fn follow(world: &World, canary: &Canary, options: &[&str]) -> Option<Violation> {
    let mut command = world.bed.invoke();
    command.args(options).arg(canary.command(&world.collector));
    let ran = run(&mut command);
    if (ran.code, ran.stdout_text()) == (i32::from(canary.code), canary.stdout()) {
        return None;
    }
    let words = format!("who followed it saw {ran:?}");
    Some(violation(
        Invariant::OutputComplete,
        "the followed job",
        words,
    ))
}

/// A dispatcher that is stopped finishes what it has begun; what has not begun comes to the next one.
#[test]
#[ignore = "long: make faults"]
fn row_09_terminated_during_uploads() {
    let row = Row {
        number: 9,
        fault: "the dispatcher gets SIGTERM and is started again, three times, while output is uploaded and followed",
        without: Without::Runner("shim.no-resume"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        // A line each 10 ms: there is always an upload.
        let canary = Canary {
            lines: 1500,
            pause_ms: 10,
            code: 7,
        };
        let followed = thread::scope(|scope| {
            let follow = scope.spawn(|| follow(world, &canary, &["--start-within", "60s"]));
            thread::sleep(Duration::from_secs(5));
            for _ in 0..3 {
                thread::sleep(Duration::from_secs(2));
                faults::restart(&world.bed, "dispatcher");
            }
            follow.join().expect("it ends")
        });
        followed.into_iter().chain(world.left_over()).collect()
    });
}

/// So many submissions at once, in one go; what was answered to each: a status, and when to try again.
fn burst(world: &World, canary: &Canary, count: usize) -> Vec<(String, String)> {
    let token = std::fs::read_to_string(variable("INVOKE_TOKEN_FILE")).expect("there is a token");
    let body = serde_json::json!({
        "cluster": world.bed.name,
        "command": {"shell": canary.command(&world.collector)},
        "start_within_seconds": 60,
    });
    let mut command = Command::new("curl");
    command.args(["-sS", "-Z", "--parallel-immediate", "--parallel-max", "200"]);
    for number in 0..count {
        if number > 0 {
            command.arg("--next");
        }
        command.args(["-m", "30", "--cacert", &variable("INVOKE_CA_FILE")]);
        command.args(["-H", &format!("authorization: Bearer {}", token.trim())]);
        command.args(["-H", &format!("idempotency-key: {}", uuid::Uuid::new_v4())]);
        command.args(["-d", &body.to_string(), "-o", "/dev/null"]);
        command.args(["-w", "%{http_code} %header{retry-after}\\n"]);
        command.arg(format!("{}/v1/jobs", variable("INVOKE_URL")));
    }
    let answers = run(&mut command).stdout_text();
    let pair = |line: &str| {
        let (status, after) = line.split_once(' ').unwrap_or((line, ""));
        (status.to_owned(), after.to_owned())
    };
    answers.lines().map(pair).collect()
}

/// Who submits more than can be stored is told so at once, and nobody else has to wait for it.
#[test]
#[ignore = "long: make faults"]
fn row_08_more_is_submitted_than_can_be_stored() {
    let row = Row {
        number: 8,
        fault: "150 jobs are submitted at once while the database stores none, for 4 s",
        without: Without::Dispatcher("no-overload-limit"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let canary = Canary::of(100, 7);
        let running = world.submit(&canary, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let before = all_jobs();
        let (answers, mut found) = thread::scope(|scope| {
            let locked = Locked::new("LOCK TABLE outbox IN SHARE MODE");
            let burst = scope.spawn(|| burst(world, &SILENT, 150));
            await_rows(WAITING, 8);
            let found = Vec::from_iter(polls_quickly(world, &running));
            drop(locked);
            (burst.join().expect("it ends"), found)
        });
        let made: Vec<String> = all_jobs().difference(&before).cloned().collect();
        let mut counts = BTreeMap::new();
        for answer in answers {
            *counts.entry(answer).or_insert(0) += 1;
        }
        if !are_honest(&counts, made.len()) {
            let words = format!("{} jobs were made; it answered {counts:?}", made.len());
            found.push(violation(Invariant::ClearState, "the API", words));
        }
        found.extend(world.settle_run(&SILENT, &made, SOON));
        found.extend(world.settle_run(&canary, &[running], SOON));
        found
    });
}

/// What is not accepted is refused for now, some of it at once; and nothing is made of it.
fn are_honest(counts: &BTreeMap<(String, String), usize>, made: usize) -> bool {
    let told = |wanted: &str| -> usize {
        let such = counts.iter();
        let such = such.filter(|((status, after), _)| {
            status == wanted && (status == "202" || !after.is_empty())
        });
        such.map(|(_, count)| count).sum()
    };
    let (taken, at_once, later) = (told("202"), told("429"), told("503"));
    taken == made && at_once > 0 && taken + at_once + later == counts.values().sum::<usize>()
}

/// Those who wait for a lock in the database.
const WAITING: &str = "SELECT 1 FROM pg_locks WHERE NOT granted";

/// A poll takes no longer than usual.
fn polls_quickly(world: &World, job: &str) -> Option<Violation> {
    let began = Instant::now();
    let is_answered = world.job(job).is_some();
    let took = began.elapsed();
    let words = format!("a poll took {took:?}, answered: {is_answered}");
    (!is_answered || took > Duration::from_secs(2))
        .then(|| violation(Invariant::ClearState, job, words))
}
