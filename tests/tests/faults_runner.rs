//! Rows 27 to 35: faults of the runner, and of what it stands on.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use invoke_tests::bed::variable;
use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, is_over, violation};
use invoke_tests::faults::{self, Between, Cordoned, NoRunner, Partition, PausedPod, SlowLine};
use invoke_tests::hooks::{self, Program};
use invoke_tests::process::{Ran, run};
use invoke_tests::row::{Row, Without, World, arm_once, prove, set_on_deployment};
use invoke_tests::wait;

/// No fence of the runner is left between a message and a start; [`break_the_permit`] takes the last one.
const NO_FENCE: Without = Without::Runner("no-claim=return;no-start-record");

/// Prints nothing: a second start in another pod is refused as well if there is output of the first.
const SILENT: Canary = Canary::of(0, 0);

const SOON: Duration = Duration::from_secs(90);

const RUNNER: &str = "deployment/invoke-runner";
const SELECTOR: &str = "app.kubernetes.io/name=invoke-runner";

/// kubectl in the runner's namespace.
fn kubectl(world: &World, arguments: &[&str]) -> Ran {
    world
        .bed
        .kubectl(&[&["-n", "invoke-system"], arguments].concat())
}

/// Together with [`NO_FENCE`]: every message makes a pod, and every pod is permitted to start.
fn break_the_permit(world: &World) {
    let actions = match world.is_sabotaged() {
        true => "return",
        false => "off",
    };
    hooks::set(&world.bed, Program::Dispatcher, "no-permit-cas", actions);
}

/// A runner that has not crashed yet: Kubernetes lets one that has wait, longer each time.
fn renew_runner(world: &World) {
    let before = world.bed.runner_pods();
    world.bed.kill_runners();
    wait::until("another runner", Duration::from_secs(60), || {
        let now = world.bed.runner_pods();
        let is_new = !now.is_empty() && now.iter().all(|pod| !before.contains(pod));
        is_new.then_some(())
    });
    await_rollout(world);
}

/// Waits until every replica of the runner is ready, and one is connected.
fn await_rollout(world: &World) {
    let ran = kubectl(world, &["rollout", "status", RUNNER, "--timeout=90s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    world.bed.await_connected();
}

/// Waits until a replica of the runner has been started again in its pod.
fn await_crash(world: &World) {
    let counts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    wait::until("the runner to crash", Duration::from_secs(60), || {
        let counts = kubectl(world, &["get", "pods", "-l", SELECTOR, "-o", counts]).stdout_text();
        let mut counts = counts.split_whitespace();
        counts.any(|count| count != "0").then_some(())
    });
}

/// A job whose runner dies at a fail point, once, and is started again in its pod.
fn die_at(world: &World, point: &str, canary: &Canary) -> Vec<Violation> {
    renew_runner(world);
    arm_once(world, Program::Runner, point);
    let job = world.submit(canary, &["--start-within", "60s"]);
    await_crash(world);
    world.settle_run(canary, &[job], SOON)
}

/// Nothing has started: the order comes again, and what the dead runner has begun is gone on with.
#[test]
#[ignore = "long: make faults"]
fn row_27_the_runner_dies_before_the_start() {
    let row = Row {
        number: 27,
        fault: "the runner is killed after it got an order, after the claim, and after it made the pod",
        without: Without::Scenario(
            "the order is not in the queue any more when the runner is back, as if it had been acknowledged at once",
        ),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        if world.is_sabotaged() {
            return lose_the_order(world, &canary);
        }
        let points = [
            "runner.after-receive",
            "runner.after-claim",
            "runner.after-pod",
        ];
        let mut found: Vec<_> = points
            .iter()
            .flat_map(|point| die_at(world, point, &canary))
            .collect();
        found.extend(broker::left_over(&world.bed));
        found
    });
}

fn lose_the_order(world: &World, canary: &Canary) -> Vec<Violation> {
    set_on_deployment(&world.bed, "INVOKE_HOOKS=runner.after-receive=return");
    let job = world.submit(canary, &["--start-within", "30s"]);
    await_crash(world);
    broker::purge(&world.bed);
    set_on_deployment(&world.bed, "INVOKE_HOOKS-");
    world.settle_run(canary, &[job], SOON)
}

/// The permit is given for good, and an order that comes again after the end is told from a new one.
#[test]
#[ignore = "long: make faults"]
fn row_27_the_runner_dies_at_the_start() {
    let row = Row {
        number: 27,
        fault: "the runner is killed after the permit, after the cluster's record of the start, and before the acknowledgement, of which RabbitMQ hears when the job is over",
        without: NO_FENCE,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        break_the_permit(world);
        let points: &[&str] = match world.is_sabotaged() {
            true => &[],
            false => &["runner.after-permit", "runner.after-start-record"],
        };
        let mut found: Vec<_> = points
            .iter()
            .flat_map(|point| die_at(world, point, &SILENT))
            .collect();
        found.extend(die_before_the_acknowledgement(world));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

fn die_before_the_acknowledgement(world: &World) -> Vec<Violation> {
    renew_runner(world);
    arm_once(world, Program::Runner, "runner.before-ack");
    let cordoned = Cordoned::new(&world.bed);
    let job = world.submit(&SILENT, &["--start-within", "120s"]);
    world.await_step(&job, "pod_created", SOON);
    let partition = Partition::new(&world.bed, Between::ClusterAndBroker);
    drop(cordoned);
    await_crash(world);
    let mut found = SILENT.check(&world.bed, &world.collector, &job, SOON);
    found.extend(world.left_over());
    wait::until("RabbitMQ to miss the runner", SOON, || {
        (consumers(world)? == 0).then_some(())
    });
    drop(partition);
    // The order comes again.
    world.bed.await_connected();
    found.extend(broker::left_over(&world.bed));
    found.extend(world.settle_run(&SILENT, &[job], SOON));
    found
}

/// How many replicas of the runner read its queue; `None` if RabbitMQ does not say.
fn consumers(world: &World) -> Option<u64> {
    let queue = format!("/api/queues/%2f/{}", broker::command_queue(&world.bed));
    broker::ask(&queue)?["consumers"].as_u64()
}

/// What is stored is not stored twice, and nothing is left out; the end is what it was.
#[test]
#[ignore = "long: make faults"]
fn row_27_the_runner_dies_after_the_start() {
    let row = Row {
        number: 27,
        fault: "the runner is killed in the middle of the output, and after the end is on record but the pod does not know it",
        without: Without::Runner("shim.no-resume"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let points: &[&str] = match world.is_sabotaged() {
            true => &["runner.mid-output"],
            false => &["runner.mid-output", "runner.after-complete"],
        };
        points
            .iter()
            .flat_map(|point| {
                renew_runner(world);
                arm_once(world, Program::Runner, point);
                let canary = Canary::of(60, 3);
                let job = world.submit(&canary, &["--start-within", "60s"]);
                await_crash(world);
                let mut found = world.settle_run(&canary, std::slice::from_ref(&job), SOON);
                found.extend(world.has_all_output(&canary, &job));
                found
            })
            .collect()
    });
}

/// Two replicas of the runner, until the end.
struct TwoReplicas<'a>(&'a World);

impl<'a> TwoReplicas<'a> {
    fn new(world: &'a World) -> Self {
        scale(world, "2");
        await_rollout(world);
        wait::until("both replicas to read the queue", SOON, || {
            (consumers(world)? == 2).then_some(())
        });
        Self(world)
    }
}

impl Drop for TwoReplicas<'_> {
    fn drop(&mut self) {
        scale(self.0, "1");
    }
}

fn scale(world: &World, replicas: &str) {
    let ran = kubectl(world, &["scale", RUNNER, &format!("--replicas={replicas}")]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A quota of the jobs' namespace that leaves nothing of a kind, until the end.
struct NoMore<'a>(&'a World);

impl<'a> NoMore<'a> {
    fn new(world: &'a World, hard: &str) -> Self {
        let hard = format!("--hard={hard}=0");
        quota(world, &["create", "quota", "no-more", &hard]);
        // It counts only once the quota controller has seen it.
        wait::until("the quota to be known", Duration::from_secs(30), || {
            let used = [
                "get",
                "quota",
                "no-more",
                "-n",
                "invoke-jobs",
                "-o",
                "jsonpath={.status.used}",
            ];
            (!world.bed.kubectl(&used).stdout_text().is_empty()).then_some(())
        });
        Self(world)
    }
}

impl Drop for NoMore<'_> {
    fn drop(&mut self) {
        quota(
            self.0,
            &["delete", "quota", "no-more", "--ignore-not-found"],
        );
    }
}

fn quota(world: &World, arguments: &[&str]) {
    let ran = world
        .bed
        .kubectl(&[arguments, &["-n", "invoke-jobs"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// The replica that has claimed a job.
fn holder(world: &World, job: &str) -> String {
    world.await_step(job, "claimed", SOON);
    let document = world.job(job).unwrap_or_default();
    let mut story = document["story"].as_array().into_iter().flatten().rev();
    let claimed = story.find(|told| told["step"] == "claimed");
    let by = claimed
        .and_then(|told| told["by"].as_str())
        .unwrap_or_default();
    by.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A replica that comes back from the dead goes on where it was: with a pod for a job that is over. The
/// quota is where it waits; a second message is what makes the other replica do the job.
#[test]
#[ignore = "long: make faults"]
fn row_28_a_zombie_between_claim_and_pod() {
    let row = Row {
        number: 28,
        fault: "of two replicas, one is paused (SIGSTOP, 10 to 30 s) between claim and pod; the other one runs the job to its end, and its pod is gone; then the first goes on",
        without: NO_FENCE,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        break_the_permit(world);
        let two = TwoReplicas::new(world);
        let quota = NoMore::new(world, "pods");
        let job = world.submit(&SILENT, &["--start-within", "120s"]);
        world.await_state(&job, &["claimed"], SOON);
        let zombie = world.bed.uid("invoke-system", &holder(world, &job));
        let zombie = PausedPod::new(&world.bed, &zombie);
        drop(quota);
        order_again(world, &job);
        let mut found = SILENT.check(&world.bed, &world.collector, &job, SOON);
        found.extend(world.left_over());
        drop(zombie);
        found.extend(broker::left_over(&world.bed));
        // Whatever the zombie makes is of no use, and goes.
        let _ = wait::within(Duration::from_secs(20), || {
            (world.collector.starts(&job) > 1).then_some(())
        });
        found.extend(world.settle_run(&SILENT, &[job], SOON));
        drop(two);
        found
    });
}

/// Until it starts: RabbitMQ gives every other message to the zombie.
fn order_again(world: &World, job: &str) {
    wait::until("the other replica to start the job", SOON, || {
        faults::sql("UPDATE jobs SET republish_at = 0 WHERE state = 'claimed'");
        wait::within(Duration::from_secs(5), || {
            (world.collector.starts(job) > 0).then_some(())
        })
    });
}

/// A permit that is not handed over in its minute is worth nothing: by then somebody may have been told
/// that the command never ran.
#[test]
#[ignore = "long: make faults"]
fn row_28b_a_zombie_between_permit_and_hand_over() {
    let row = Row {
        number: 28,
        fault: "the runner is paused (SIGSTOP) between the permit and the hand-over, for five seconds longer than the minute that a permit is good for",
        without: Without::Dispatcher("no-permit-timebox"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        // The permit is given, and the record of the start, without which nothing is handed over, refused.
        let quota = NoMore::new(world, "count/configmaps");
        let job = world.submit(&SILENT, &["--start-within", "30s"]);
        world.await_step(&job, "permitted", Duration::from_secs(60));
        let permitted = Instant::now();
        let [runner] = &world.bed.runner_pods()[..] else {
            panic!("one runner");
        };
        let zombie = PausedPod::new(&world.bed, &world.bed.uid("invoke-system", runner));
        drop(quota);
        wait::until("the permit to be over", SOON, || {
            (permitted.elapsed() > Duration::from_secs(65)).then_some(())
        });
        drop(zombie);
        let mut found = world.settle(&SILENT, std::slice::from_ref(&job), SOON);
        if world.collector.starts(&job) > 0 {
            let words = "its command has started after its permit was over";
            found.push(violation(Invariant::ClearState, &job, words));
        }
        found
    });
}

/// Running jobs go on without the dispatcher, and what they have said and done is told later; what has
/// no permit yet never starts.
#[test]
#[ignore = "long: make faults"]
fn row_32_the_dispatcher_cannot_be_reached() {
    let row = Row {
        number: 32,
        fault: "packets between cluster and dispatcher vanish for 75 s while one job runs and another one waits for its start",
        without: Without::Dispatcher("no-start-deadline"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(100, 3), Canary::of(3, 0));
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let cut = Instant::now();
        let partition = Partition::new(&world.bed, Between::ClusterAndDispatcher);
        // The order arrives: RabbitMQ is not cut off.
        let waiting = world.submit(&short, &["--start-within", "30s"]);
        world.await_state(&running, &["contact_lost"], SOON);
        wait::until("the cut to last", SOON, || {
            (cut.elapsed() > Duration::from_secs(75)).then_some(())
        });
        drop(partition);
        let mut found = world.settle_run(&long, std::slice::from_ref(&running), SOON);
        found.extend(world.has_all_output(&long, &running));
        found.extend(world.settle(&short, std::slice::from_ref(&waiting), SOON));
        if world.collector.starts(&waiting) > 0 {
            let words = "its command has started after its start deadline";
            found.push(violation(Invariant::ClearState, &waiting, words));
        }
        found
    });
}

/// Whoever watches a command's output does not notice that the runner is replaced, replica by replica,
/// again and again.
#[test]
#[ignore = "long: make faults"]
fn row_29_rolling_updates() {
    let row = Row {
        number: 29,
        fault: "two replicas of the runner are replaced one after the other, four times in a row, while output is followed and jobs are submitted",
        without: Without::Scenario(
            "all replicas are taken away at once, and new ones come 35 s later",
        ),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(900, 3), Canary::of(3, 0));
        let two = TwoReplicas::new(world);
        let running = world.submit(&long, &["--start-within", "60s"]);
        let follower = Follower::start(world, &running);
        world.await_start(&running, SOON);
        let during = match world.is_sabotaged() {
            true => replace_at_once(world),
            false => (0..4).map(|_| replace_one_by_one(world, &short)).collect(),
        };
        let mut found = world.settle_run(&long, std::slice::from_ref(&running), SOON * 2);
        found.extend(world.settle_run(&short, &during, SOON));
        found.extend(world.has_all_output(&long, &running));
        found.extend(follower.judge(&running));
        drop(two);
        found
    });
}

/// Answers a job that was submitted while it went on.
fn replace_one_by_one(world: &World, canary: &Canary) -> String {
    let ran = kubectl(world, &["rollout", "restart", RUNNER]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let job = world.submit(canary, &["--start-within", "60s"]);
    await_rollout(world);
    job
}

fn replace_at_once(world: &World) -> Vec<String> {
    let none = NoRunner::new(&world.bed);
    let gone = Instant::now();
    wait::until("the time without a runner to pass", SOON, || {
        (gone.elapsed() > Duration::from_secs(35)).then_some(())
    });
    drop(none);
    Vec::new()
}

/// Somebody who reads a job's output as it comes.
struct Follower(JoinHandle<Duration>);

impl Follower {
    fn start(world: &World, job: &str) -> Self {
        let mut command = world.bed.invoke();
        command.args(["logs", "-f", job]).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("invoke runs");
        let stdout = child.stdout.take().expect("it is a pipe");
        Self(thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            // The time until the first line is the start's, not the stream's.
            let _ = lines.next();
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while let Some(Ok(_)) = lines.next() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            let _ = child.wait();
            longest
        }))
    }

    fn judge(self, job: &str) -> Option<Violation> {
        let longest = self.0.join().expect("it reads to the end");
        (longest > Duration::from_secs(30)).then(|| {
            let words = format!("whoever followed it saw nothing for {longest:?}");
            violation(Invariant::OutputComplete, job, words)
        })
    }
}

/// What cannot be uploaded is kept in the pod, up to a limit; then the command waits.
#[test]
#[ignore = "long: make faults"]
fn row_30_the_spool_is_full() {
    let row = Row {
        number: 30,
        fault: "packets between cluster and dispatcher vanish while a command prints 300 MB, until its spool of 256 MiB, which is in the pod and not in the runner, is full",
        without: Without::Scenario("the cut outlasts the command's run time of 45 s"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let run_timeout = if world.is_sabotaged() { "45s" } else { "400s" };
        let numbers = Numbers::print(world, 35_000_000, run_timeout);
        let partition = Partition::new(&world.bed, Between::ClusterAndDispatcher);
        let uid = world
            .bed
            .uid("invoke-jobs", &format!("invoke-{}", numbers.job));
        wait::until("the spool to be full", SOON, || {
            (spooled(world, &uid)? > 255 << 20).then_some(())
        });
        if world.is_sabotaged() {
            wait::until("the command to be ended", SOON, || {
                (faults::processes_of_pod(&world.bed, &uid).len() <= 2).then_some(())
            });
        }
        drop(partition);
        let patience = Duration::from_secs(300);
        let mut found: Vec<_> = numbers.judge(world, patience).into_iter().collect();
        found.extend(world.left_over());
        found
    });
}

/// How many bytes the spool of a job's pod takes up on the node.
fn spooled(world: &World, uid: &str) -> Option<u64> {
    let shim = faults::processes_of_pod(&world.bed, uid);
    let spools = shim.iter().filter_map(|process| {
        std::fs::metadata(format!("/proc/{process}/root/run/invoke/spool")).ok()
    });
    spools.map(|spool| spool.blocks() * 512).max()
}

/// What passes through the runner is not kept in it; and if it is killed for its memory all the same, it
/// goes on where it was.
#[test]
#[ignore = "long: make faults"]
fn row_31_the_runner_is_out_of_memory() {
    let row = Row {
        number: 31,
        fault: "a runner with a limit of 64 MiB passes 70 MB of output on, and is killed by the kernel for its memory on the way, because the limit is lowered to what it uses",
        without: Without::Runner("shim.no-resume"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        let small = SmallRunner::new(world);
        renew_runner(world);
        let numbers = Numbers::print(world, 9_000_000, "300s");
        choke_runner(world);
        await_crash(world);
        let mut found: Vec<_> = numbers.judge(world, SOON).into_iter().collect();
        let counts = "jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount} {.lastState.terminated.reason}{end}";
        let killed = kubectl(world, &["get", "pods", "-l", SELECTOR, "-o", counts]).stdout_text();
        if killed != "1 OOMKilled" {
            let words = format!("it was to be killed once for its memory, by the kernel: {killed}");
            found.push(violation(Invariant::Clean, "runner", words));
        }
        drop(small);
        found
    });
}

/// A command that prints numbers as fast as it can, and whoever watches it.
struct Numbers {
    job: String,
    count: u32,
    watcher: JoinHandle<Ran>,
}

impl Numbers {
    /// Starts it, and waits until the command has started.
    fn print(world: &World, count: u32, run_timeout: &str) -> Self {
        let command = format!("{}; seq 1 {count}", world.collector.mark());
        let options = ["--start-within", "60s", "--run-timeout", run_timeout];
        let ran = world
            .bed
            .ran(&[&["--no-wait"], &options[..], &[&command]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        let job = ran.stdout_text().trim().to_owned();
        let mut watching = world.bed.invoke();
        watching.args(["logs", "-f", &job]);
        let watcher = thread::spawn(move || run(&mut watching));
        world.await_start(&job, SOON);
        Self {
            job,
            count,
            watcher,
        }
    }

    /// What is not over within `limit` is ended by force.
    fn judge(self, world: &World, limit: Duration) -> Option<Violation> {
        let over = wait::within(limit, || self.watcher.is_finished().then_some(()));
        if over.is_none() {
            let pod = format!("invoke-{}", self.job);
            let delete = [
                "delete",
                "pod",
                "-n",
                "invoke-jobs",
                &pod,
                "--grace-period=0",
                "--force",
                "--wait=false",
            ];
            let ran = world.bed.kubectl(&delete);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        let ran = self.watcher.join().expect("it ends");
        let lines = (1..=self.count).map(|number| format!("{number}\n"));
        let whole: Vec<u8> = lines.flat_map(String::into_bytes).collect();
        if ran.code == 0 && ran.stdout == whole {
            return None;
        }
        let words = format!(
            "{} of {} bytes were seen, exit code {}: {}",
            ran.stdout.len(),
            whole.len(),
            ran.code,
            ran.stderr_text()
        );
        Some(violation(Invariant::OutputComplete, &self.job, words))
    }
}

/// A runner with a limit of 64 MiB, until the end.
struct SmallRunner<'a>(&'a World);

impl<'a> SmallRunner<'a> {
    fn new(world: &'a World) -> Self {
        limit_memory(world, "64Mi");
        Self(world)
    }
}

impl Drop for SmallRunner<'_> {
    fn drop(&mut self) {
        limit_memory(self.0, "256Mi");
    }
}

fn limit_memory(world: &World, limit: &str) {
    let limit = format!("--limits=memory={limit}");
    let ran = kubectl(world, &["set", "resources", RUNNER, &limit]);
    assert_eq!(ran.code, 0, "{ran:?}");
    await_rollout(world);
}

/// Leaves the runner no more memory than it uses.
fn choke_runner(world: &World) {
    let pods = world.bed.runner_pods();
    let uid = world.bed.uid("invoke-system", &pods[0]);
    let processes = faults::processes_of_pod(&world.bed, &uid);
    let is_runner = |process: &&String| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
        name.is_ok_and(|name| name.trim() == "invoke-runner")
    };
    let runner = processes.iter().find(is_runner).expect("it runs");
    let cgroups = std::fs::read_to_string(format!("/proc/{runner}/cgroup")).expect("it runs");
    let memory = cgroups.lines().find_map(|line| line.split_once(":memory:"));
    let (_, path) = memory.expect("memory is a cgroup hierarchy of its own");
    let folder = format!("/sys/fs/cgroup/memory{path}");
    let limit = format!("{folder}/memory.limit_in_bytes");
    wait::until("the runner to be choked", Duration::from_secs(20), || {
        let used = std::fs::read_to_string(format!("{folder}/memory.usage_in_bytes")).ok()?;
        std::fs::write(&limit, used.trim()).ok()
    });
}

/// Slow is not gone.
#[test]
#[ignore = "long: make faults"]
fn row_33_the_line_is_slow() {
    let row = Row {
        number: 33,
        fault: "64 kbit/s in either direction between cluster and hub (token bucket filter) while a job prints 100 kB and another one starts",
        without: Without::Scenario("0.2 kbit/s, which is as good as nothing"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let (long, short) = (
            Canary {
                lines: 10_000,
                pause_ms: 0,
                code: 3,
            },
            Canary::of(3, 0),
        );
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let rate = if world.is_sabotaged() {
            "200bit"
        } else {
            "64kbit"
        };
        let slow = SlowLine::new(rate);
        let second = world.submit(&short, &["--start-within", "120s"]);
        let mut found = Vec::new();
        if world.is_sabotaged() {
            world.await_state(&running, &["contact_lost"], Duration::from_secs(120));
        } else {
            let patience = Duration::from_secs(200);
            found.extend(world.settle_run(&long, std::slice::from_ref(&running), patience));
            found.extend(world.settle_run(&short, std::slice::from_ref(&second), patience));
            found.extend(world.has_all_output(&long, &running));
        }
        if world.steps(&running, "contact_lost") > 0 {
            let words = "a slow line was taken for none";
            found.push(violation(Invariant::ClearState, &running, words));
        }
        drop(slow);
        if world.is_sabotaged() {
            drop(world.bed.ran(&["cancel", "--grace", "0s", &running]));
        }
        found.extend(world.settle(&long, &[running], SOON));
        found.extend(world.settle(&short, &[second], SOON));
        found
    });
}

/// Deadlines are the store's. What looks out of time to a runner is not run, and says why.
#[test]
#[ignore = "long: make faults"]
fn row_34_the_runners_clock_is_wrong() {
    let row = Row {
        number: 34,
        fault: "the runner's clock is two hours ahead, and then one day behind: the clock that decides, the database's, is moved instead, as seen by the dispatcher",
        without: Without::Scenario("the clocks agree: nothing is there to be refused"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let mut found = Vec::new();
        let ahead = (!world.is_sabotaged()).then(|| Shifted::new(world, "- interval '2 hours'"));
        let job = world.submit(&canary, &["--start-within", "20s"]);
        found.extend(world.settle(&canary, std::slice::from_ref(&job), SOON));
        drop(ahead);
        let document = world.job(&job).unwrap_or_default();
        let end = (
            document["state"].as_str(),
            document["reason"]["code"].as_str(),
        );
        if end != (Some("expired"), Some("clock_skew")) {
            let words = format!("it is not called a matter of clocks: {end:?}");
            found.push(violation(Invariant::ClearState, &job, words));
        }
        if world.is_sabotaged() {
            return found;
        }
        let behind = Shifted::new(world, "+ interval '1 day'");
        let job = world.submit(&canary, &["--start-within", "60s"]);
        found.extend(world.settle_run(&canary, std::slice::from_ref(&job), SOON));
        drop(behind);
        forget(&job);
        found
    });
}

/// A job from tomorrow would be the newest until then, to other tests too.
fn forget(job: &str) {
    for table in ["job_story", "outbox", "job_output"] {
        faults::sql(&format!("DELETE FROM {table} WHERE job_id = '{job}'"));
    }
    faults::sql(&format!("DELETE FROM jobs WHERE id = '{job}'"));
}

/// The database tells the dispatcher another time, until the end.
struct Shifted<'a>(&'a World);

impl<'a> Shifted<'a> {
    fn new(world: &'a World, by: &str) -> Self {
        faults::kill(&world.bed, "dispatcher");
        for statement in [
            "CREATE SCHEMA shifted",
            &format!(
                "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
                 AS $$SELECT pg_catalog.clock_timestamp() {by}$$"
            ),
            "ALTER ROLE CURRENT_USER SET search_path = public, shifted, pg_catalog",
        ] {
            faults::sql(statement);
        }
        let shifted = Self(world);
        shifted.start();
        shifted
    }

    fn start(&self) {
        faults::restart(&self.0.bed, "dispatcher");
        self.0.bed.await_connected();
    }
}

impl Drop for Shifted<'_> {
    fn drop(&mut self) {
        faults::kill(&self.0.bed, "dispatcher");
        faults::sql("ALTER ROLE CURRENT_USER RESET search_path");
        faults::sql("DROP SCHEMA shifted CASCADE");
        self.start();
    }
}

/// A token that the API server does not take any more is read again from its file; nothing is restarted,
/// and what runs does not notice.
#[test]
#[ignore = "long: make faults"]
fn row_35_the_service_accounts_token_is_renewed() {
    let row = Row {
        number: 35,
        fault: "the runner's ServiceAccount token becomes invalid while a job runs and another one is submitted; a new one is put in its place (certificate authorities are not rotated)",
        without: Without::Scenario("the new token does not come"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        renew_runner(world);
        let (long, short) = (Canary::of(900, 3), Canary::of(3, 0));
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, SOON);
        let token = Token::of_runner(world);
        // The runner reads it once a minute.
        let waiting = wait::until("the API server to refuse the runner", SOON * 2, || {
            token.write("not-a-token");
            let job = world.submit(&short, &["--start-within", "75s"]);
            wait::within(Duration::from_secs(10), || {
                let document = world.job(&job)?;
                (document["waiting"]["code"] == "api_server_unavailable").then_some(())
            })?;
            Some(job)
        });
        if world.is_sabotaged() {
            wait::until("the job to be over", SOON, || {
                token.write("not-a-token");
                world.job(&waiting).filter(is_over).map(drop)
            });
        }
        token.renew(world);
        let mut found = world.settle_run(&long, std::slice::from_ref(&running), SOON * 2);
        found.extend(world.has_all_output(&long, &running));
        found.extend(world.settle_run(&short, &[waiting], SOON));
        found
    });
}

/// The file that the runner has its token for the API server in, as it is on the node.
struct Token {
    pod: String,
    file: PathBuf,
}

impl Token {
    fn of_runner(world: &World) -> Self {
        let pod = world.bed.runner_pods().remove(0);
        let uid = world.bed.uid("invoke-system", &pod);
        let state = variable("INVOKE_TESTBED_STATE");
        let volumes = format!("{state}/kubelet/pods/{uid}/volumes/kubernetes.io~projected");
        let volumes = std::fs::read_dir(volumes).expect("the runner's pod has volumes");
        let mut volumes = volumes.filter_map(|volume| Some(volume.ok()?.path().join("token")));
        let file = volumes.find(|file| file.exists());
        Self {
            pod,
            file: file.expect("one of them has the token"),
        }
    }

    fn write(&self, token: &str) {
        std::fs::write(&self.file, token).expect("the node is this machine");
    }

    fn renew(&self, world: &World) {
        let bound = format!("--bound-object-name={}", self.pod);
        let create = [
            "create",
            "token",
            "invoke-runner",
            "--bound-object-kind=Pod",
            &bound,
        ];
        let ran = kubectl(world, &create);
        assert_eq!(ran.code, 0, "{ran:?}");
        self.write(ran.stdout_text().trim());
    }
}
