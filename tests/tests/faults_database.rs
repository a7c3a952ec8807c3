//! Rows 10 to 14: faults of PostgreSQL.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use invoke_tests::bed::variable;
use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::faults::{self, Dead, NoRunner};
use invoke_tests::process::{Ran, run};
use invoke_tests::row::{Row, Without, World, prove};

const SOON: Duration = Duration::from_secs(90);

/// One of PostgreSQL's own programs, for the dispatcher's database.
fn client(program: &str, arguments: &[&str]) -> Ran {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let ran = run(Command::new(program).args(arguments).arg(&url));
    assert_eq!(ran.code, 0, "{program} {arguments:?}: {ran:?}");
    ran
}

/// The ids of all jobs.
fn all_jobs() -> BTreeSet<String> {
    let ran = client(
        "psql",
        &["-X", "-q", "-A", "-t", "-c", "SELECT id FROM jobs"],
    );
    ran.stdout_text().lines().map(str::to_owned).collect()
}

/// A copy of the dispatcher's database as it is now.
struct Backup(tempfile::NamedTempFile);

impl Backup {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().expect("there is room for a small file");
        let path = file.path().to_str().expect("its name is plain");
        client("pg_dump", &["--no-owner", "--file", path, "--dbname"]);
        Self(file)
    }

    /// Puts it in the place of what is there, while no dispatcher runs.
    fn restore(&self) {
        let path = self.0.path().to_str().expect("its name is plain");
        let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
        let options = ["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1"];
        let steps = ["-o", "/dev/null", "-c", empty, "-f", path];
        client("psql", &[options.as_slice(), &steps].concat());
    }
}

/// What a restored store has forgotten, the cluster remembers: a start is on record there.
#[test]
#[ignore = "long: make faults"]
fn row_14_the_database_is_restored_from_a_backup() {
    let row = Row {
        number: 14,
        fault: "PostgreSQL is restored from a backup in which finished and running jobs are still queued (the minute after which they are sent again is skipped in the store)",
        without: Without::Runner("no-start-record"),
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(200, 0), Canary::of(3, 0));
        let options = ["--start-within", "120s"];
        let none = NoRunner::new(&world.bed);
        let jobs = [(); 3].map(|()| world.submit(&short, &options));
        let running = world.submit(&long, &options);
        for job in jobs.iter().chain([&running]) {
            world.await_step(job, "published", Duration::from_secs(20));
        }
        let backup = Backup::new();
        drop(none);
        let mut found = Vec::new();
        for job in &jobs {
            found.extend(short.check(&world.bed, &world.collector, job, SOON));
        }
        world.await_start(&running, SOON);
        faults::kill(&world.bed, "dispatcher");
        backup.restore();
        faults::restart(&world.bed, "dispatcher");
        faults::sql("UPDATE jobs SET republish_at = 0 WHERE state = 'queued'");
        world.bed.await_connected();
        found.extend(world.settle_run(&short, &[world.submit(&short, &options)], SOON));
        found.extend(world.settle(&short, &jobs, SOON));
        found.extend(world.settle(&long, &[running], SOON));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// While the store is away nothing is accepted, and nothing that runs stops.
#[test]
#[ignore = "long: make faults"]
fn row_10_postgresql_dies_mid_transaction() {
    let row = Row {
        number: 10,
        fault: "PostgreSQL is killed (SIGKILL) while jobs are submitted and another prints; it is back 10 s later",
        without: Without::Runner("shim.no-resume"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(150, 7), Canary::of(3, 0));
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let before = all_jobs();
        let cluster = &world.bed.name;
        let body = format!(r#"{{"cluster": "{cluster}", "command": {{"shell": "true"}}}}"#);
        let mut found = thread::scope(|scope| {
            let submit = || world.submit(&short, &["--start-within", "90s", "--retry-for", "60s"]);
            let submissions = [(); 4].map(|()| scope.spawn(submit));
            thread::sleep(Duration::from_millis(200));
            let dead = Dead::new(&world.bed, "postgres");
            let refused = is_refused_for_now(world, "/v1/jobs", &body);
            thread::sleep(Duration::from_secs(10));
            drop(dead);
            for submission in submissions {
                submission.join().expect("it is accepted in the end");
            }
            Vec::from_iter(refused)
        });
        let made: Vec<String> = all_jobs().difference(&before).cloned().collect();
        if made.len() != 4 {
            let words = format!("four submissions made the jobs {made:?}");
            found.push(violation(Invariant::NoneRunTwice, "the submissions", words));
        }
        found.extend(world.settle_run(&short, &made, SOON));
        found.extend(world.settle_run(&long, std::slice::from_ref(&running), SOON));
        found.extend(has_all_output(world, &running));
        found
    });
}

/// A refusal that says when to try again, and does not take long.
fn is_refused_for_now(world: &World, path: &str, body: &str) -> Option<Violation> {
    let (ca, url) = (variable("INVOKE_CA_FILE"), variable("INVOKE_URL"));
    let token = std::fs::read_to_string(variable("INVOKE_TOKEN_FILE")).expect("there is a token");
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "-m", "15", "--cacert", &ca, "-d", body]);
    command.args(["-H", &format!("authorization: Bearer {}", token.trim())]);
    command.args(["-H", &format!("idempotency-key: {}", uuid::Uuid::new_v4())]);
    let answer = run(command.arg(format!("{url}{path}")));
    let text = answer.stdout_text().to_lowercase();
    let is_honest = text.contains(" 503") && text.contains("retry-after:");
    let words = format!("it does not say that it can be tried again in a moment: {answer:?}");
    (!is_honest).then(|| violation(Invariant::ClearState, &world.bed.name, words))
}

/// Not only an output that says that it is not complete.
fn has_all_output(world: &World, job: &str) -> Option<Violation> {
    let document = world.job(job).unwrap_or_default();
    let words = format!(
        "its output is not complete: {}",
        document["output_incomplete_reason"]
    );
    (document["output_complete"] != "yes").then(|| violation(Invariant::OutputComplete, job, words))
}

/// A lock that somebody holds in the database, until the end.
struct Locked(Child);

impl Locked {
    fn new(statement: &str) -> Self {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.arg(variable("INVOKE_TEST_POSTGRES_URL"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("psql runs");
        let script = format!("BEGIN;\n{statement};\n\\echo locked\n");
        let stdin = child.stdin.as_mut().expect("it is a pipe");
        stdin.write_all(script.as_bytes()).expect("psql reads");
        let stdout = child.stdout.as_mut().expect("it is a pipe");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "locked"), "{statement}");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What it had begun ends with its connection.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Who wants a row that is locked is told to come again; nobody else notices.
#[test]
#[ignore = "long: make faults"]
fn row_13_a_row_is_locked() {
    let row = Row {
        number: 13,
        fault: "somebody holds the row of a running job locked, for 40 s from before its end on",
        without: Without::Dispatcher("no-lock-timeout"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(100, 7), Canary::of(3, 0));
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let row = format!("SELECT 1 FROM jobs WHERE id = '{running}' FOR UPDATE");
        let (locked, began) = (Locked::new(&row), Instant::now());
        let beside = world.submit(&short, &["--start-within", "30s"]);
        let mut found = world.settle_run(&short, &[beside], Duration::from_secs(35));
        found.extend(is_refused_for_now(
            world,
            &format!("/v1/jobs/{running}/cancel"),
            "",
        ));
        thread::sleep(Duration::from_secs(40).saturating_sub(began.elapsed()));
        drop(locked);
        found.extend(world.settle_run(&long, std::slice::from_ref(&running), SOON));
        found.extend(has_all_output(world, &running));
        if world.steps(&running, "contact_lost") > 0 {
            let words = "it was called lost while only its row was locked";
            found.push(violation(Invariant::ClearState, &running, words));
        }
        found
    });
}

/// What was accepted is on disk before anybody is told so.
#[test]
#[ignore = "long: make faults"]
fn row_12_postgresql_dies_right_after_it_accepted() {
    let row = Row {
        number: 12,
        fault: "PostgreSQL is killed (SIGKILL) right after jobs were accepted: what it has not written by then is gone. A loss of power, in which the kernel forgets too, is not possible here",
        without: Without::Scenario("synchronous_commit = off"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let lazy = world.is_sabotaged().then(Lazy::new);
        let jobs = thread::scope(|scope| {
            let submit = || world.submit(&canary, &["--start-within", "60s"]);
            let submissions = [(); 6].map(|()| scope.spawn(submit));
            submissions.map(|submission| submission.join().expect("it is accepted"))
        });
        drop(Dead::new(&world.bed, "postgres"));
        drop(lazy);
        world.bed.await_connected();
        let limit = Duration::from_secs(if world.is_sabotaged() { 20 } else { 90 });
        world.settle_run(&canary, &jobs, limit)
    });
}

/// A PostgreSQL that says that something is committed some time before it writes it, until the end.
struct Lazy;

impl Lazy {
    fn new() -> Self {
        as_administrator("ALTER SYSTEM SET synchronous_commit = off");
        as_administrator("ALTER SYSTEM SET wal_writer_delay = '10s'");
        as_administrator("SELECT pg_reload_conf()");
        Self
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        as_administrator("ALTER SYSTEM RESET ALL");
        as_administrator("SELECT pg_reload_conf()");
    }
}

/// What PostgreSQL's own user may have it do. Answers what it prints.
fn as_administrator(statement: &str) -> String {
    let ran = try_as_administrator(statement);
    assert_eq!(ran.code, 0, "{statement}: {ran:?}");
    ran.stdout_text().trim().to_owned()
}

fn try_as_administrator(statement: &str) -> Ran {
    let socket = format!("{}/postgres/socket", variable("INVOKE_TESTBED_STATE"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres"]);
    command.args(["--init-groups", "psql", "-X", "-q", "-A", "-t"]);
    command.args(["-v", "ON_ERROR_STOP=1", "-h", &socket, "-d", "postgres"]);
    run(command.args(["-c", statement]))
}
