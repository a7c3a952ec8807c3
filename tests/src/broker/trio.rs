//! The bed's RabbitMQ, with two more nodes: a cluster in which a queue has a leader and a majority.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{as_broker, ask, close_connections, command_queue, control, delete_queue, wipe};
use crate::bed::{Bed, variable};
use crate::faults::Dead;
use crate::process::run;
use crate::wait;

/// Three nodes. At the end there is the one again, without its data.
pub struct Trio<'a> {
    bed: &'a Bed,
    others: Vec<Child>,
}

impl<'a> Trio<'a> {
    /// Starts the second and the third, which join the first; then the cluster's queue is made anew, with a
    /// member on each node.
    ///
    /// # Panics
    /// If they do not come up.
    #[must_use]
    pub fn new(bed: &'a Bed) -> Self {
        let mut trio = Self {
            bed,
            others: Vec::new(),
        };
        for number in [2, 3] {
            trio.others.push(start(bed, number));
            wait::until("another RabbitMQ node", Duration::from_secs(60), || {
                (running_nodes()? == trio.others.len() + 1).then_some(())
            });
        }
        delete_queue(bed);
        // A new session declares what there is to be declared.
        close_connections("dispatcher");
        wait::until("a queue of three members", Duration::from_secs(60), || {
            (queue(bed)?["members"].as_array()?.len() == 3).then_some(())
        });
        trio
    }

    /// Makes the second node the leader of the cluster's queue.
    ///
    /// # Panics
    /// If it does not become so.
    pub fn lead_from_second(&self) {
        let (queue_name, second) = (command_queue(self.bed), node(self.bed, 2));
        let member = |node: &str| format!("{{'%2F_{queue_name}', '{node}'}}");
        wait::until("another leader", Duration::from_secs(30), || {
            let leader = queue(self.bed)?["leader"].as_str()?.to_owned();
            if leader == second {
                return Some(());
            }
            let (from, to) = (member(&leader), member(&second));
            control(&["eval", &format!("ra:transfer_leadership({from}, {to}).")]);
            std::thread::sleep(Duration::from_secs(1));
            None
        });
    }

    /// Stops both others with SIGSTOP: the first is a minority.
    pub fn freeze_others(&self) {
        for other in &self.others {
            signal(other, "STOP");
        }
    }

    /// Kills the second node, and lets the third go on.
    ///
    /// # Panics
    /// If the second cannot be killed.
    pub fn kill_second_and_thaw_third(&mut self) {
        let second = &mut self.others[0];
        second.kill().expect("it runs");
        second.wait().expect("it was killed");
        signal(&self.others[1], "CONT");
    }
}

impl Drop for Trio<'_> {
    fn drop(&mut self) {
        for other in &mut self.others {
            // It may be dead already.
            let _ = other.kill();
            let _ = other.wait();
        }
        let dead = Dead::new(self.bed, "rabbitmq");
        wipe();
        drop(dead);
        for number in [2, 3] {
            let _ = std::fs::remove_dir_all(folder(number));
        }
    }
}

fn start(bed: &Bed, number: usize) -> Child {
    let (folder, home) = (folder(number), home());
    std::fs::create_dir_all(&folder).expect("the broker's folder can be written");
    std::fs::write(format!("{folder}/rabbitmq.conf"), configuration(bed))
        .expect("the broker's folder can be written");
    // Enough for the first node to know how queues that are led from here do.
    std::fs::write(
        format!("{folder}/plugins"),
        "[rabbitmq_management_agent].\n",
    )
    .expect("the broker's folder can be written");
    let ran = run(std::process::Command::new("chown").args(["-R", "rabbitmq:rabbitmq", &folder]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let log = std::fs::File::create(Path::new(&folder).join("log"))
        .expect("the broker's folder can be written");
    let errors = log.try_clone().expect("a file can be shared");
    let mut command = as_broker(&home, &node(bed, number));
    command
        .arg(format!("RABBITMQ_MNESIA_BASE={folder}/data"))
        .arg(format!("RABBITMQ_LOG_BASE={folder}/logs"))
        .arg(format!("RABBITMQ_CONFIG_FILE={folder}/rabbitmq.conf"))
        .arg(format!("RABBITMQ_ENABLED_PLUGINS_FILE={folder}/plugins"))
        .arg(format!("RABBITMQ_DIST_PORT={}", 25672 + 10 * (number - 1)))
        .arg(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} \
             +sbwt none +sbwtdcpu none +sbwtdio none",
        )
        // The script becomes the broker, so that the child is the broker.
        .arg("RUNNING_UNDER_SYSTEMD=true")
        .arg("/usr/lib/rabbitmq/bin/rabbitmq-server");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().expect("RabbitMQ can be started")
}

/// Nobody connects to these nodes but the others.
fn configuration(bed: &Bed) -> String {
    let mut lines = vec![
        "listeners.tcp = none".to_owned(),
        "vm_memory_high_watermark.absolute = 1GB".to_owned(),
        "disk_free_limit.absolute = 200MB".to_owned(),
        "cluster_formation.peer_discovery_backend = classic_config".to_owned(),
        "log.console = true".to_owned(),
        "log.file = false".to_owned(),
    ];
    for number in [1, 2, 3] {
        let node = node(bed, number);
        lines.push(format!(
            "cluster_formation.classic_config.nodes.{number} = {node}"
        ));
    }
    lines.join("\n") + "\n"
}

fn node(bed: &Bed, number: usize) -> String {
    match number {
        1 => format!("invoke-{}@localhost", bed.name),
        _ => format!("invoke-{}-{number}@localhost", bed.name),
    }
}

fn home() -> String {
    format!("{}/rabbitmq", variable("INVOKE_TESTBED_STATE"))
}

fn folder(number: usize) -> String {
    format!("{}/node-{number}", home())
}

fn queue(bed: &Bed) -> Option<serde_json::Value> {
    ask(&format!("/api/queues/%2f/{}", command_queue(bed)))
}

fn running_nodes() -> Option<usize> {
    let nodes = ask("/api/nodes")?;
    let running = |node: &&serde_json::Value| node["running"] == true;
    Some(nodes.as_array()?.iter().filter(running).count())
}

fn signal(process: &Child, name: &str) {
    let mut command = std::process::Command::new("kill");
    let ran = run(command.args(["-s", name, &process.id().to_string()]));
    assert_eq!(ran.code, 0, "{ran:?}");
}
