//! Rows 1 to 9: faults of the dispatcher.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use invoke_tests::bed::variable;
use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::faults::{self, NoRunner, Paused};
use invoke_tests::hooks::{self, Program};
use invoke_tests::process::{Ran, run};
use invoke_tests::row::{Row, Without, World, arm_once, prove};
use invoke_tests::wait;

const SOON: Duration = Duration::from_secs(90);

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

/// What a query answers, one row a line.
fn rows(query: &str) -> Vec<String> {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let ran = run(Command::new("psql").args(["-X", "-q", "-A", "-t", "-c", query, &url]));
    assert_eq!(ran.code, 0, "{query}: {ran:?}");
    ran.stdout_text().lines().map(str::to_owned).collect()
}

/// The ids of all jobs.
fn all_jobs() -> BTreeSet<String> {
    rows("SELECT id FROM jobs").into_iter().collect()
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
        fault: "the dispatcher dies after RabbitMQ has confirmed a message and before it is marked as sent: it is sent twice",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let none = NoRunner::new(&world.bed);
        arm_once(
            world,
            Program::Dispatcher,
            "dispatcher.outbox.after-publish",
        );
        let job = world.submit(&SILENT, &["--start-within", "90s"]);
        await_death();
        faults::restart(&world.bed, "dispatcher");
        break_the_permit(world);
        // The lease of who died lasts half a minute.
        faults::sql("UPDATE outbox SET leased_until = 0");
        world.await_step(&job, "published", Duration::from_secs(20));
        await_messages(world, 2);
        drop(none);
        world.bed.await_connected();
        let mut found = world.settle_run(&SILENT, std::slice::from_ref(&job), SOON);
        found.extend(broker::left_over(&world.bed));
        // A second start would come with the second message.
        found.extend(world.settle_run(&SILENT, &[job], SOON));
        found
    });
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
        fault: "of two dispatchers, one is frozen while it waits for a confirm, until its lease is over (skipped in the store) and the other has sent the same; then it goes on",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        break_the_permit(world);
        let options = ["--start-within", "100s"];
        let broker_frozen = Paused::new(&world.bed, "rabbitmq");
        let mut jobs = vec![
            world.submit(&SILENT, &options),
            world.submit(&SILENT, &options),
        ];
        await_rows("SELECT 1 FROM outbox WHERE attempts = 0", 0);
        let frozen = Paused::new(&world.bed, "dispatcher");
        drop(broker_frozen);
        let second = Second::start(world);
        jobs.push(second.submit(world, &SILENT, &options));
        faults::sql("UPDATE outbox SET leased_until = 0");
        await_rows("SELECT 1 FROM outbox", 0);
        drop(frozen);
        world.bed.await_connected();
        let mut found = world.settle_run(&SILENT, &jobs, SOON);
        found.extend(broker::left_over(&world.bed));
        drop(second);
        found.extend(world.settle_run(&SILENT, &jobs, SOON));
        found
    });
}

/// Until a query answers so many rows.
fn await_rows(query: &str, count: usize) {
    let what = format!("{count} rows of {query}");
    wait::until(&what, Duration::from_secs(30), || {
        (rows(query).len() == count).then_some(())
    });
}

/// A small file system over the folder of the dispatcher's blobs, until the end. What was there before is
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

    /// `ro`: as the kernel does to a file system in which it found damage; or `rw`.
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
        let mut found = world.settle_run(&canary, std::slice::from_ref(&job), SOON);
        found.extend(has_all_output(world, &canary, &job));
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
        found.extend(world.settle_run(&canary, std::slice::from_ref(&job), SOON));
        found.extend(has_all_output(world, &canary, &job));
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

/// Not only an output that says that it is not complete.
fn has_all_output(world: &World, canary: &Canary, job: &str) -> Option<Violation> {
    let document = world.job(job).unwrap_or_default();
    let printed = world.bed.ran(&["logs", job]);
    if document["output_complete"] == "yes" && printed.stdout_text() == canary.stdout() {
        return None;
    }
    let words = format!(
        "not all of its output is there, complete: {}: {printed:?}",
        document["output_complete"]
    );
    Some(violation(Invariant::OutputComplete, job, words))
}
