//! Rows 27 to 35: faults of the runner, and of what it stands on.

use std::time::{Duration, Instant};

use invoke_tests::broker;
use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::faults::{self, Between, Cordoned, Partition, PausedPod};
use invoke_tests::hooks::{self, Program};
use invoke_tests::process::Ran;
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
                found.extend(incomplete(world, &job));
                found
            })
            .collect()
    });
}

/// Nothing was lost that would excuse a gap, not even one that is flagged.
fn incomplete(world: &World, job: &str) -> Option<Violation> {
    let document = world.job(job).unwrap_or_default();
    let words = match document["output_complete"].as_str() {
        Some("yes") => return None,
        _ => format!(
            "its output is not complete: {}",
            document["output_incomplete_reason"]
        ),
    };
    Some(violation(Invariant::OutputComplete, job, words))
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
        fault: "the runner is paused (SIGSTOP) between the permit and the hand-over, until 65 s after the permit",
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
        found.extend(incomplete(world, &running));
        found.extend(world.settle(&short, std::slice::from_ref(&waiting), SOON));
        if world.collector.starts(&waiting) > 0 {
            let words = "its command has started after its start deadline";
            found.push(violation(Invariant::ClearState, &waiting, words));
        }
        found
    });
}
