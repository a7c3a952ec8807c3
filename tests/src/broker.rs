//! RabbitMQ as its owner sees it, and may break it: the management API, its own command line, its data.
//! What lasts is undone when its guard is dropped.

pub mod trio;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{Bed, variable};
use crate::canary::{Invariant, Violation, violation};
use crate::process::{Ran, run};
use crate::wait;

/// The exchange that commands are published to.
pub const COMMANDS: &str = "invoke.commands";

/// The queue of what was put aside.
pub const DEAD_LETTERS: &str = "invoke.dead-letter";

/// The broker's own limit of free disk space, of the test bed's configuration.
const DISK_LIMIT: &str = "200MB";

/// The queue of the bed's cluster.
#[must_use]
pub fn command_queue(bed: &Bed) -> String {
    format!("cmd.{}", bed.name)
}

/// What the management API says; `None` while it does not answer, or if there is no such thing.
#[must_use]
pub fn ask(path: &str) -> Option<Value> {
    let ran = request("GET", path, None);
    serde_json::from_slice(&ran.stdout)
        .ok()
        .filter(|_| ran.code == 0)
}

/// Has the management API do something.
///
/// # Panics
/// If it refuses.
pub fn tell(method: &str, path: &str, body: Option<&Value>) -> Ran {
    let ran = request(method, path, body);
    assert_eq!(ran.code, 0, "{method} {path}: {ran:?}");
    ran
}

/// Asks the management API, and takes whatever comes of it.
#[must_use]
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Ran {
    let amqp = variable("INVOKE_TEST_AMQP_URL");
    let authority = amqp.trim_start_matches("amqps://").split('@').next();
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "20", "--fail-with-body", "-X", method]);
    command.args(["--cacert", &variable("INVOKE_TEST_AMQP_CA")]);
    command.args(["-u", authority.unwrap_or_default()]);
    command.args(["-H", "content-type: application/json"]);
    if let Some(body) = body {
        command.args(["-d", &body.to_string()]);
    }
    run(command.arg(format!(
        "{}{path}",
        variable("INVOKE_TEST_AMQP_MANAGEMENT_URL")
    )))
}

/// How many messages a queue holds, those that are held by its consumers included. The broker's own
/// figures are some seconds old.
#[must_use]
pub fn messages(queue: &str) -> Option<u64> {
    ask(&format!("/api/queues/%2f/{queue}"))?["messages"].as_u64()
}

/// How many messages of the cluster's queue have been acknowledged ever since it was declared. The figure
/// is some seconds old.
#[must_use]
pub fn acknowledged(bed: &Bed) -> u64 {
    let queue = ask(&format!("/api/queues/%2f/{}", command_queue(bed)));
    queue.map_or(0, |queue| {
        queue["message_stats"]["ack"].as_u64().unwrap_or(0)
    })
}

/// I5: nothing waits in the queues any more.
#[must_use]
pub fn left_over(bed: &Bed) -> Vec<Violation> {
    let queues = [command_queue(bed), DEAD_LETTERS.to_owned()];
    let mut found = Vec::new();
    for queue in queues {
        let clean = wait::within(Duration::from_secs(60), || {
            (messages(&queue)? == 0).then_some(())
        });
        if clean.is_none() {
            let words = format!("it holds {:?} messages", messages(&queue));
            found.push(violation(Invariant::Clean, &queue, words));
        }
    }
    found
}

/// Removes every message of the cluster's queue that no consumer holds.
///
/// # Panics
/// If RabbitMQ refuses.
pub fn purge(bed: &Bed) {
    let path = format!("/api/queues/%2f/{}/contents", command_queue(bed));
    tell("DELETE", &path, None);
}

/// Deletes the cluster's queue with what is in it.
///
/// # Panics
/// If RabbitMQ refuses.
pub fn delete_queue(bed: &Bed) {
    let path = format!("/api/queues/%2f/{}", command_queue(bed));
    tell("DELETE", &path, None);
}

/// Takes the cluster's queue from its exchange: what is published is confirmed, and reaches nobody.
///
/// # Panics
/// If RabbitMQ refuses.
pub fn unbind(bed: &Bed) {
    let queue = command_queue(bed);
    let path = format!("/api/bindings/%2f/e/{COMMANDS}/q/{queue}/{queue}");
    wait::until("the queue to be bound", Duration::from_secs(40), || {
        ask(&path).map(drop)
    });
    tell("DELETE", &path, None);
}

/// Deletes the exchange of commands: the next publication closes its channel.
///
/// # Panics
/// If RabbitMQ refuses.
pub fn delete_exchange() {
    tell("DELETE", &format!("/api/exchanges/%2f/{COMMANDS}"), None);
}

/// Closes every connection of users whose names begin with `user`, and says how many there were.
///
/// # Panics
/// If RabbitMQ does not say which there are.
pub fn close_connections(user: &str) -> usize {
    let connections = ask("/api/connections").expect("RabbitMQ says which connections it has");
    let names: Vec<String> = connections
        .as_array()
        .into_iter()
        .flatten()
        .filter(|connection| {
            connection["user"]
                .as_str()
                .is_some_and(|name| name.starts_with(user))
        })
        .filter_map(|connection| connection["name"].as_str())
        .map(|name| name.bytes().map(|byte| format!("%{byte:02X}")).collect())
        .collect();
    for name in &names {
        // It may have gone by itself.
        let _ = request("DELETE", &format!("/api/connections/{name}"), None);
    }
    names.len()
}

/// The first message that waits in the cluster's queue, which stays there.
///
/// # Panics
/// If none comes within half a minute.
#[must_use]
pub fn peek(bed: &Bed) -> String {
    let path = format!("/api/queues/%2f/{}/get", command_queue(bed));
    let one = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    wait::until("a message in the queue", Duration::from_secs(30), || {
        let ran = request("POST", &path, Some(&one));
        let messages: Value = serde_json::from_slice(&ran.stdout).ok()?;
        messages[0]["payload"].as_str().map(str::to_owned)
    })
}

/// Publishes the same message to the cluster's queue, so many times, from inside the broker.
///
/// # Panics
/// If RabbitMQ refuses.
pub fn publish_copies(bed: &Bed, payload: &str, times: u32) {
    let (bytes, queue) = (payload.as_bytes(), command_queue(bed));
    let body: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let expression = format!(
        "Exchange = rabbit_misc:r(<<\"/\">>, exchange, <<\"{COMMANDS}\">>), Body = <<{}>>, \
         [rabbit_basic:publish(Exchange, <<\"{queue}\">>, [{{delivery_mode, 2}}], Body) || _ <- lists:seq(1, {times})], ok.",
        body.join(",")
    );
    control(&["eval", &expression]);
}

/// RabbitMQ's own command line, on its first node.
///
/// # Panics
/// If it fails.
pub fn control(arguments: &[&str]) -> String {
    let folder = format!("{}/rabbitmq", variable("INVOKE_TESTBED_STATE"));
    let node = format!("invoke-{}@localhost", variable("INVOKE_TESTBED"));
    let ran = run(as_broker(&folder, &node)
        .arg("/usr/lib/rabbitmq/bin/rabbitmqctl")
        .args(arguments));
    assert_eq!(ran.code, 0, "rabbitmqctl {arguments:?}: {ran:?}");
    ran.stdout_text()
}

/// A program as RabbitMQ's own user, who has the cookie of its nodes in `home`.
pub(crate) fn as_broker(home: &str, node: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "rabbitmq",
        "--regid",
        "rabbitmq",
        "--init-groups",
    ]);
    command.args(["env", "--ignore-environment", "LANG=C.UTF-8"]);
    command.args([
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "RABBITMQ_CONF_ENV_FILE=/dev/null",
    ]);
    command.arg(format!("HOME={home}"));
    command.arg(format!("RABBITMQ_NODENAME={node}"));
    command
}

/// Deletes all that a RabbitMQ that does not run has on disk.
///
/// # Panics
/// If the folder cannot be emptied.
pub fn wipe() {
    let data = format!("{}/rabbitmq/data", variable("INVOKE_TESTBED_STATE"));
    let entries = std::fs::read_dir(&data).expect("the broker has a data folder");
    for entry in entries.map(|entry| entry.expect("it can be listed")) {
        let path = entry.path();
        let gone = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        gone.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// RabbitMQ says that its disk is full, and takes no message, until the end.
pub struct DiskAlarm(());

impl DiskAlarm {
    /// Raises it.
    #[must_use]
    pub fn new() -> Self {
        // A petabyte must be free.
        control(&["set_disk_free_limit", "1000000000000000"]);
        Self(())
    }
}

impl Default for DiskAlarm {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DiskAlarm {
    fn drop(&mut self) {
        control(&["set_disk_free_limit", DISK_LIMIT]);
    }
}

/// How often a message of a cluster may be delivered, lowered by an operator's policy, until the end.
pub struct DeliveryLimit(());

/// The policy's address.
const POLICY: &str = "/api/policies/%2f/lowered-by-a-test";

impl DeliveryLimit {
    /// Lowers it.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let policy = json!({
            "pattern": "^cmd\\.", "definition": {"delivery-limit": limit}, "apply-to": "queues",
            // Over the dispatcher's own.
            "priority": 10,
        });
        tell("PUT", POLICY, Some(&policy));
        Self(())
    }
}

impl Drop for DeliveryLimit {
    fn drop(&mut self) {
        tell("DELETE", POLICY, None);
    }
}

/// For how long a consumer may hold a message, shortened until the end; for channels that are opened
/// from now on.
pub struct ConsumerTimeout(());

impl ConsumerTimeout {
    /// Shortens it.
    #[must_use]
    pub fn new(seconds: u32) -> Self {
        set_consumer_timeout(seconds, 1);
        Self(())
    }
}

impl Drop for ConsumerTimeout {
    fn drop(&mut self) {
        set_consumer_timeout(30 * 60, 60);
    }
}

/// And how often a channel looks at the time.
fn set_consumer_timeout(seconds: u32, look_every: u32) {
    control(&[
        "eval",
        &format!(
            "application:set_env(rabbit, consumer_timeout, {}), \
             application:set_env(rabbit, channel_tick_interval, {}).",
            seconds * 1000,
            look_every * 1000
        ),
    ]);
}

/// How often a sentence is in the broker's log by now.
///
/// # Panics
/// If there is no log.
#[must_use]
pub fn logged(words: &str) -> usize {
    let path = format!("{}/logs/rabbitmq.log", variable("INVOKE_TESTBED_STATE"));
    let log = std::fs::read(path).expect("the broker has a log");
    String::from_utf8_lossy(&log).matches(words).count()
}
