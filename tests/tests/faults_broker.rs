//! Rows 15 to 26: faults of RabbitMQ and of the way to it.

use std::time::Duration;

use invoke_tests::broker::trio::Trio;
use invoke_tests::broker::{self, ConsumerTimeout, DeliveryLimit, DiskAlarm};
use invoke_tests::canary::{Canary, Invariant, Violation, is_over, violation};
use invoke_tests::faults::{self, Between, Cordoned, Dead, NoRunner, Partition, Paused};
use invoke_tests::hooks::{self, Program};
use invoke_tests::row::{Row, Without, World, prove, set_on_deployment};
use invoke_tests::wait;

/// Confirms that did not come are taken for confirms, and nothing is ever sent again.
const NO_CONFIRM: Without = Without::Dispatcher("no-confirm=return;no-sweeper-requeue");

/// No fence of the runner is left between a message and a pod; [`break_the_permit`] takes the last one.
const NO_CLAIM: Without = Without::Runner("no-claim=return;no-start-record");

/// Prints nothing: a second start in another pod is refused as well if there is output of the first.
const SILENT: Canary = Canary::of(0, 0);

const SOON: Duration = Duration::from_secs(90);

/// Together with [`NO_CLAIM`]: every message makes a pod, and every pod is permitted to start.
fn break_the_permit(world: &World) {
    let actions = if world.is_sabotaged() {
        "return"
    } else {
        "off"
    };
    hooks::set(&world.bed, Program::Dispatcher, "no-permit-cas", actions);
}

/// What is accepted while the broker is frozen, dead, and back again reaches its cluster.
#[test]
#[ignore = "long: make faults"]
fn row_15_the_broker_is_killed_under_load() {
    let row = Row {
        number: 15,
        fault: "RabbitMQ stops answering and is then killed (SIGKILL) while jobs are submitted; it is back some seconds later",
        without: NO_CONFIRM,
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let submit = || world.submit(&canary, &["--start-within", "45s"]);
        let mut jobs = vec![submit()];
        let frozen = Paused::new(&world.bed, "rabbitmq");
        // These are on their way when it dies.
        jobs.extend((0..3).map(|_| submit()));
        let dead = Dead::new(&world.bed, "rabbitmq");
        jobs.extend((0..3).map(|_| submit()));
        drop((dead, frozen));
        jobs.push(submit());
        let mut found = world.settle_run(&canary, &jobs, SOON);
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// The store is the truth: a broker that comes back without its memory costs a pause.
#[test]
#[ignore = "long: make faults"]
fn row_16_the_brokers_data_is_wiped() {
    let row = Row {
        number: 16,
        fault: "RabbitMQ is killed with confirmed messages in the queue, and comes back without its data",
        without: Without::Dispatcher("no-sweeper-requeue"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let submit = || world.submit(&canary, &["--start-within", "50s"]);
        let none = NoRunner::new(&world.bed);
        let jobs = [submit(), submit(), submit()];
        await_published(world, &jobs);
        let dead = Dead::new(&world.bed, "rabbitmq");
        broker::wipe();
        drop((dead, none));
        world.bed.await_connected();
        let mut found = world.settle_run(&canary, &jobs, SOON);
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// What an operator throws away is sent again, into a queue that is declared again.
#[test]
#[ignore = "long: make faults"]
fn row_17_the_queue_is_purged_and_deleted() {
    let row = Row {
        number: 17,
        fault: "the queue is purged, and then deleted, with confirmed messages in it (the minute after which they are sent again is skipped in the store)",
        without: Without::Dispatcher("no-sweeper-requeue"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let submit = || world.submit(&canary, &["--start-within", "45s"]);
        let none = NoRunner::new(&world.bed);
        let purged = submit();
        await_published(world, std::slice::from_ref(&purged));
        broker::purge(&world.bed);
        let deleted = submit();
        await_published(world, std::slice::from_ref(&deleted));
        broker::delete_queue(&world.bed);
        drop(none);
        world.bed.await_connected();
        faults::sql("UPDATE jobs SET republish_at = 0 WHERE state = 'queued'");
        let jobs = [purged, deleted, submit()];
        let mut found = world.settle_run(&canary, &jobs, SOON);
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// The broker confirms what no queue takes; the dispatcher does not believe it.
#[test]
fn row_18_the_binding_is_missing() {
    let row = Row {
        number: 18,
        fault: "the queue is unbound from its exchange: RabbitMQ confirms what is published, and forgets it",
        without: Without::Dispatcher("no-mandatory"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        broker::unbind(&world.bed);
        let jobs = [world.submit(&canary, &["--start-within", "15s"])];
        let mut found = world.settle_run(&canary, &jobs, SOON);
        // It was marked as sent when it was, and not before.
        let times = world.steps(&jobs[0], "published");
        if times != 1 {
            let words = format!("it is called published {times} times");
            found.push(violation(Invariant::ClearState, &jobs[0], words));
        }
        found
    });
}

/// A broker that takes nothing is told from a broken one; what it does not take is kept, but not for
/// ever.
#[test]
#[ignore = "long: make faults"]
fn row_19_the_broker_blocks_publishers() {
    let row = Row {
        number: 19,
        fault: "RabbitMQ's disk alarm: publishers are blocked for 15 s (the ten minutes after which nothing more is accepted are skipped in the store)",
        without: Without::Scenario(
            "what is not sent is deleted from the outbox, as by a dispatcher that does not keep it",
        ),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(100, 0), Canary::of(3, 0));
        let running = world.submit(&long, &["--start-within", "30s"]);
        world.await_start(&running, Duration::from_secs(30));
        let alarm = DiskAlarm::new();
        let options = ["--start-within", "50s"];
        let jobs = [
            world.submit(&short, &options),
            world.submit(&short, &options),
        ];
        // The upload goes on, and so does the end.
        let mut found = long.check(&world.bed, &world.collector, &running, SOON);
        found.extend(
            jobs.iter()
                .filter_map(|job| waits_for_the_broker(world, job)),
        );
        if world.is_sabotaged() {
            faults::sql("DELETE FROM outbox");
        } else {
            found.extend(refuses_when_the_outbox_is_old(world, &short));
        }
        drop(alarm);
        found.extend(world.settle_run(&short, &jobs, SOON));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

fn waits_for_the_broker(world: &World, job: &str) -> Option<Violation> {
    let says_so = wait::within(Duration::from_secs(15), || {
        let document = world.job(job)?;
        (document["waiting"]["code"] == "broker_unavailable").then_some(())
    });
    match says_so {
        Some(()) => None,
        None => {
            let document = world.job(job).unwrap_or_default();
            let words = format!("it does not wait for RabbitMQ: {}", document["waiting"]);
            Some(violation(Invariant::ClearState, job, words))
        }
    }
}

fn refuses_when_the_outbox_is_old(world: &World, canary: &Canary) -> Option<Violation> {
    let aged = "UPDATE outbox SET created_at = created_at - 11 * 60 * 1000000::bigint";
    let restored = "UPDATE outbox SET created_at = created_at + 11 * 60 * 1000000::bigint";
    faults::sql(aged);
    let submitted = canary.submit(&world.bed, &world.collector, &["--retry-for", "1s"]);
    faults::sql(restored);
    let Ok(job) = submitted else { return None };
    let words = "it was accepted although nothing has been sent for eleven minutes";
    Some(violation(Invariant::NoJobLost, &job, words))
}

/// Whatever ends a connection or a channel, both sides begin anew, and what was in doubt is sent again.
#[test]
#[ignore = "long: make faults"]
fn row_20_connections_and_channels_are_closed() {
    let row = Row {
        number: 20,
        fault: "RabbitMQ closes all connections; then the exchange is deleted, so that a publication closes its channel (404)",
        without: NO_CONFIRM,
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let submit = || world.submit(&canary, &["--start-within", "30s"]);
        let mut jobs = vec![submit()];
        for user in ["dispatcher", "invoke-runner."] {
            close_connections(user);
        }
        jobs.push(submit());
        // Everybody is back, or the next fault would meet nobody.
        let mut found = world.settle_run(&canary, &jobs, SOON);
        broker::delete_exchange();
        let jobs = [submit(), submit()];
        found.extend(world.settle_run(&canary, &jobs, SOON));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// Nobody hears of the other, and there is no RST that would say so.
#[test]
#[ignore = "long: make faults"]
fn row_21_nothing_passes_between_runner_and_broker() {
    let row = Row {
        number: 21,
        fault: "packets between the runner and RabbitMQ vanish both ways, for 45 s from before a start on",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        acknowledgement_is_lost(world, Between::ClusterAndBroker)
    });
}

/// The acknowledgement is lost, and the message comes again after the command is over.
#[test]
#[ignore = "long: make faults"]
fn row_22_acknowledgements_are_lost() {
    let row = Row {
        number: 22,
        fault: "what the runner sends to RabbitMQ vanishes, for 45 s from before a start on",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        acknowledgement_is_lost(world, Between::ClusterToBroker)
    });
}

fn acknowledgement_is_lost(world: &World, between: Between) -> Vec<Violation> {
    break_the_permit(world);
    let options = ["--start-within", "120s"];
    let cordoned = Cordoned::new(&world.bed);
    let first = world.submit(&SILENT, &options);
    world.await_step(&first, "pod_created", Duration::from_secs(30));
    let partition = Partition::new(&world.bed, between);
    drop(cordoned);
    // It starts by the permit, which needs no broker, and is over before the broker hears of it.
    let mut found = SILENT.check(&world.bed, &world.collector, &first, SOON);
    let second = world.submit(&SILENT, &options);
    await_published(world, std::slice::from_ref(&second));
    // Twice the heartbeat, on either side.
    wait::until(
        "RabbitMQ to miss the runner",
        Duration::from_secs(60),
        || {
            let queue = broker::ask(&format!(
                "/api/queues/%2f/{}",
                broker::command_queue(&world.bed)
            ))?;
            (queue["consumers"] == 0).then_some(())
        },
    );
    drop(partition);
    found.extend(world.settle_run(&SILENT, &[second], SOON));
    found.extend(broker::left_over(&world.bed));
    // A second start would come with the message.
    found.extend(world.settle_run(&SILENT, &[first], SOON));
    found
}

/// A message is held for as long as its pod takes to start. The broker takes back what is held too long,
/// and closes the channel.
#[test]
#[ignore = "long: make faults"]
fn row_23_the_consumer_timeout_fires() {
    let row = Row {
        number: 23,
        fault: "RabbitMQ's consumer timeout, set to 8 s, fires while a message is held for a pod that cannot be scheduled; another job runs for longer than that",
        without: Without::Scenario(
            "the runner is taken away once its channel was closed, as if it did not subscribe again",
        ),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(150, 0), Canary::of(3, 0));
        let timeout = ConsumerTimeout::new(8);
        close_connections("invoke-runner.");
        let running = world.submit(&long, &["--start-within", "60s"]);
        world.await_start(&running, Duration::from_secs(60));
        let cordoned = Cordoned::new(&world.bed);
        let before = broker::logged(TIMED_OUT);
        let held = world.submit(&short, &["--start-within", "60s"]);
        wait::until(
            "the consumer timeout to fire",
            Duration::from_secs(40),
            || (broker::logged(TIMED_OUT) > before).then_some(()),
        );
        let without = world.is_sabotaged().then(|| NoRunner::new(&world.bed));
        drop((timeout, cordoned));
        let mut found = world.settle_run(&short, &[held], SOON);
        drop(without);
        found.extend(world.settle_run(&long, &[running], SOON));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// RabbitMQ's own words.
const TIMED_OUT: &str = "has timed out waiting for";

/// One order that kills its runner again and again is put aside and told of; the others go on.
#[test]
#[ignore = "long: make faults"]
fn row_24_one_message_kills_its_runner() {
    let row = Row {
        number: 24,
        fault: "the runner aborts whenever it gets a message, until the delivery limit, lowered to 2, is reached",
        without: Without::Dispatcher("no-dead-letter-consumer"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let _limit = DeliveryLimit::new(2);
        let canary = Canary::of(3, 0);
        let crashing = Crashing::new(world);
        let poison = world.submit(&canary, &["--start-within", "120s"]);
        crashing.await_crash();
        let beside = world.submit(&canary, &["--start-within", "120s"]);
        let over = wait::within(Duration::from_secs(75), || {
            world.job(&poison).filter(is_over)
        });
        drop(crashing);
        let mut found = world.settle_run(&canary, &[beside], SOON);
        let end = over.unwrap_or_default();
        if (end["state"].as_str(), end["reason"]["code"].as_str())
            != (Some("infra_failed"), Some("poison_message"))
        {
            let words = format!("its message is dead, and it is {end}");
            found.push(violation(Invariant::ClearState, &poison, words));
        }
        // The control leaves it waiting.
        drop(world.bed.ran(&["cancel", &poison]));
        found
    });
}

/// A runner that aborts at each message, until the end.
struct Crashing<'a>(&'a World);

impl<'a> Crashing<'a> {
    fn new(world: &'a World) -> Self {
        set_on_deployment(&world.bed, "INVOKE_HOOKS=runner.after-receive=return");
        Self(world)
    }

    fn await_crash(&self) {
        let crashes = [
            "get",
            "pods",
            "-n",
            "invoke-system",
            "-l",
            "app.kubernetes.io/name=invoke-runner",
            "-o",
            "jsonpath={.items[*].status.containerStatuses[0].restartCount}",
        ];
        wait::until("the runner to crash", Duration::from_secs(30), || {
            let counts = self.0.bed.kubectl(&crashes).stdout_text();
            counts
                .split_whitespace()
                .any(|count| count != "0")
                .then_some(())
        });
    }
}

impl Drop for Crashing<'_> {
    fn drop(&mut self) {
        set_on_deployment(&self.0.bed, "INVOKE_HOOKS-");
    }
}

/// Three nodes: without a majority there is no confirm, and what was on its way to a leader that dies is
/// sent again.
#[test]
#[ignore = "long: make faults"]
fn row_25_the_leader_dies_and_there_is_no_majority() {
    let row = Row {
        number: 25,
        fault: "three RabbitMQ nodes: two, the queue's leader among them, freeze until the dispatcher gives up its session; then dispatcher and leader are killed, and the other node goes on",
        without: NO_CONFIRM,
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let submit = || world.submit(&canary, &["--start-within", "75s"]);
        let mut trio = Trio::new(&world.bed);
        trio.lead_from_second();
        let before = submit();
        let mut found = world.settle_run(&canary, &[before], SOON);
        trio.freeze_others();
        let jobs = [submit(), submit()];
        found.extend(waits_for_the_broker(world, &jobs[0]));
        // With its connection goes what the broker's nearest node still knew of the messages.
        faults::kill(&world.bed, "dispatcher");
        faults::restart(&world.bed, "dispatcher");
        trio.kill_second_and_thaw_third();
        found.extend(world.settle_run(&canary, &jobs, SOON));
        drop(trio);
        world.bed.await_connected();
        found
    });
}

/// The same order a thousand times is one start.
#[test]
#[ignore = "long: make faults"]
fn row_26_a_storm_of_duplicates() {
    let row = Row {
        number: 26,
        fault: "the same signed message is published 500 times before the start, and 500 times after the end",
        without: NO_CLAIM,
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        break_the_permit(world);
        let none = NoRunner::new(&world.bed);
        let job = world.submit(&SILENT, &["--start-within", "60s"]);
        let message = broker::peek(&world.bed);
        let copies = if world.is_sabotaged() { 10 } else { 500 };
        let before = broker::acknowledged(&world.bed);
        broker::publish_copies(&world.bed, &message, copies);
        drop(none);
        let mut found = world.settle_run(&SILENT, std::slice::from_ref(&job), SOON);
        broker::publish_copies(&world.bed, &message, copies);
        let all = before + 1 + u64::from(2 * copies);
        wait::until("all acknowledgements", Duration::from_secs(60), || {
            (broker::acknowledged(&world.bed) >= all).then_some(())
        });
        found.extend(world.settle_run(&SILENT, &[job], SOON));
        found.extend(broker::left_over(&world.bed));
        found
    });
}

/// RabbitMQ's list of connections is some seconds old.
fn close_connections(user: &str) {
    wait::until("connections to close", Duration::from_secs(20), || {
        (broker::close_connections(user) > 0).then_some(())
    });
}

fn await_published(world: &World, jobs: &[String]) {
    for job in jobs {
        world.await_step(job, "published", Duration::from_secs(20));
    }
}
