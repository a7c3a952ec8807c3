//! Rows 10 to 14: faults of PostgreSQL.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use invoke_tests::bed::variable;
use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::database::{Backup, FullWal, Lazy, Locked, OwnDisk, Unsynced, all_jobs};
use invoke_tests::faults::{self, Dead, NoRunner};
use invoke_tests::process::run;
use invoke_tests::row::{Row, Without, World, prove};

const SOON: Duration = Duration::from_secs(90);

/// For what never comes without the protection: no longer than it takes with it.
fn soon(world: &World) -> Duration {
    if world.is_sabotaged() {
        Duration::from_secs(20)
    } else {
        SOON
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
        let backup = Backup::take();
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
        found.extend(world.has_all_output(&long, &running));
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
        let (bed, collector) = (&world.bed, &world.collector);
        let mut found = short.check(bed, collector, &beside, Duration::from_secs(35));
        found.extend(is_refused_for_now(
            world,
            &format!("/v1/jobs/{running}/cancel"),
            "",
        ));
        thread::sleep(Duration::from_secs(40).saturating_sub(began.elapsed()));
        drop(locked);
        found.extend(world.settle_run(&long, std::slice::from_ref(&running), SOON));
        found.extend(world.has_all_output(&long, &running));
        if world.steps(&running, "contact_lost") > 0 {
            let words = "it was called lost while only its row was locked";
            found.push(violation(Invariant::ClearState, &running, words));
        }
        found
    });
}

/// What was accepted outlives the power: it is on the disk, and not only with the kernel.
#[test]
#[ignore = "long: make faults"]
fn row_12_the_power_fails() {
    let row = Row {
        number: 12,
        fault: "the power fails right after jobs were accepted: PostgreSQL's file system (ext4 on a loop device) is shut down without a flush, so that what was written and not synced is gone",
        without: Without::Scenario("fsync = off"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let disk = OwnDisk::new(&world.bed);
        world.bed.await_connected();
        let unsynced = world.is_sabotaged().then(Unsynced::begin);
        let jobs = accepted_at_once(world, &canary);
        disk.lose_power();
        faults::restart(&world.bed, "postgres");
        world.bed.await_connected();
        let found = world.settle_run(&canary, &jobs, soon(world));
        drop((unsynced, disk));
        found
    });
}

/// Some jobs, submitted together.
fn accepted_at_once(world: &World, canary: &Canary) -> [String; 6] {
    thread::scope(|scope| {
        let submit = || world.submit(canary, &["--start-within", "60s"]);
        let submissions = [(); 6].map(|()| scope.spawn(submit));
        submissions.map(|submission| submission.join().expect("it is accepted"))
    })
}

/// What was accepted is on disk before anybody is told so.
#[test]
#[ignore = "long: make faults"]
fn row_12_postgresql_dies_right_after_it_accepted() {
    let row = Row {
        number: 12,
        fault: "PostgreSQL is killed (SIGKILL) right after jobs were accepted: what it has not written by then is gone",
        without: Without::Scenario("synchronous_commit = off"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let mut lazy = world.is_sabotaged().then(Lazy::begin);
        if let Some(lazy) = &mut lazy {
            lazy.freeze_writer();
        }
        let jobs = accepted_at_once(world, &canary);
        let dead = Dead::new(&world.bed, "postgres");
        if let Some(lazy) = &mut lazy {
            lazy.kill_writer();
        }
        drop((dead, lazy));
        world.bed.await_connected();
        world.settle_run(&canary, &jobs, soon(world))
    });
}

/// A database that cannot write does not accept, and forgets nothing that it did accept.
#[test]
#[ignore = "long: make faults"]
fn row_11_there_is_no_room_for_the_wal() {
    let row = Row {
        number: 11,
        fault: "the disk of PostgreSQL's WAL is full (PANIC) while jobs are submitted; then there is room again, and it is started again",
        without: Without::Scenario("synchronous_commit = off"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let options = ["--start-within", "100s", "--retry-for", "90s"];
        let lazy = world.is_sabotaged().then(Lazy::begin);
        let mut jobs = vec![world.submit(&canary, &options)];
        let full = FullWal::new(&world.bed);
        jobs.extend(thread::scope(|scope| {
            let submit = || world.submit(&canary, &options);
            let submissions = [(); 3].map(|()| scope.spawn(submit));
            thread::sleep(Duration::from_secs(4));
            // It may have died of it already.
            let _ = world.bed.testbed(&["kill", "postgres"]);
            full.make_room();
            faults::restart(&world.bed, "postgres");
            submissions.map(|submission| submission.join().expect("it is accepted"))
        }));
        drop(lazy);
        world.bed.await_connected();
        let found = world.settle_run(&canary, &jobs, soon(world));
        drop(full);
        found
    });
}
