//! Things that break while a command runs, and people who try to start one without leave. Each test
//! breaks a part that all share, so they run one after another.

#![expect(clippy::unwrap_used, reason = "what a test does not expect ends it")]

use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invoke_tests::bed::{Bed, bed};
use invoke_tests::broker;
use invoke_tests::faults::NoRunner;
use invoke_tests::wait;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command that counts slowly, and breaks into view after its first line.
fn follow_while(bed: &Bed, fault: impl FnOnce()) {
    let mut child = bed
        .invoke()
        .args([
            "--start-within",
            "60s",
            "for i in $(seq 1 100); do echo line $i; sleep 0.1; done; exit 7",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0; b"line 1\n".len()];
    std::io::Read::read_exact(&mut stdout, &mut text).unwrap();
    fault();
    std::io::Read::read_to_end(&mut stdout, &mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected: String = (1..=100).map(|number| format!("line {number}\n")).collect();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        expected,
        "a byte was lost or doubled: {words}"
    );
    assert_eq!(output.status.code(), Some(7), "{words}");
}

/// The person who watches sees a pause, no more.
#[test]
fn a_dispatcher_that_is_killed_costs_a_pause() {
    let _alone = alone();
    let bed = bed();
    follow_while(&bed, || {
        for verb in ["kill", "restart"] {
            let ran = bed.testbed(&[verb, "dispatcher"]);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    });
}

#[test]
fn a_runner_that_is_killed_costs_a_pause() {
    let _alone = alone();
    let bed = bed();
    follow_while(&bed, || {
        bed.kill_runners();
    });
}

#[test]
fn a_broker_that_is_restarted_costs_nothing() {
    let _alone = alone();
    let bed = bed();
    follow_while(&bed, || {
        for verb in ["kill", "restart"] {
            let ran = bed.testbed(&[verb, "rabbitmq"]);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    });
    // What was submitted while nobody was connected arrives too.
    let ran = bed.ran(&["echo after"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "after\n"),
        "{ran:?}"
    );
}

/// Pods that take whatever room there is, until the test is over.
struct FullNode<'a>(&'a Bed);

impl<'a> FullNode<'a> {
    fn new(bed: &'a Bed) -> Self {
        let full = Self(bed);
        let manifest = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "filler", "namespace": "default"},
            "spec": {"replicas": 60, "selector": {"matchLabels": {"app": "filler"}}, "template": {
                "metadata": {"labels": {"app": "filler"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "filler",
                    "image": "localhost/pause:dev", "imagePullPolicy": "Never",
                    "resources": {"requests": {"cpu": "100m"}}}]}}}}"#;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, manifest.as_bytes()).unwrap();
        let ran = bed.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        wait::until("the node to be full", Duration::from_secs(90), || {
            let pods = bed.kubectl(&["get", "pods", "-n", "default", "-l", "app=filler"]);
            let text = pods.stdout_text();
            let settled = !text.contains("ContainerCreating") && text.contains("Running");
            (settled && text.contains("Pending")).then_some(())
        });
        full
    }
}

impl Drop for FullNode<'_> {
    fn drop(&mut self) {
        let _ = self
            .0
            .kubectl(&["delete", "deployment", "filler", "-n", "default"]);
    }
}

/// Pods of jobs wait for the runner: where they fill the nodes and it has lost its own pod, it must get
/// another one, or none of them would ever end.
#[test]
fn a_full_node_has_room_for_the_runner() {
    let _alone = alone();
    let bed = bed();
    let full = FullNode::new(&bed);
    bed.kill_runners();
    wait::until("the runner to be back", Duration::from_secs(90), || {
        let (namespace, deployment) = ("invoke-system", "deployment/invoke-runner");
        let output = "jsonpath={.status.availableReplicas}";
        let ran = bed.kubectl(&["get", "-n", namespace, deployment, "-o", output]);
        (ran.stdout_text() == "1").then_some(())
    });
    drop(full);
    bed.await_connected();
    let ran = bed.ran(&["echo room"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Promise 8: offline is normal. What waits says since when; what has expired never runs late.
#[test]
fn a_job_for_an_offline_cluster_waits_or_expires() {
    let _alone = alone();
    let bed = bed();
    let off = NoRunner::new(&bed);
    wait::until("the cluster to be offline", Duration::from_secs(90), || {
        let clusters = bed.json(&["-o", "json", "clusters"]);
        let clusters = clusters["clusters"].as_array().unwrap();
        clusters
            .iter()
            .any(|cluster| cluster["name"] == bed.name.as_str() && cluster["state"] == "offline")
            .then_some(())
    });
    let expired = bed.ran(&["--start-within", "2s", "echo late"]);
    assert_eq!(expired.code, 243, "{expired:?}");
    assert!(
        expired.stderr_text().contains("offline since"),
        "{expired:?}"
    );
    let waiting = bed.ran(&["--no-wait", "--start-within", "5m", "echo waited"]);
    let id = waiting.stdout_text().trim().to_owned();

    drop(off);
    let ran = bed.ran(&["logs", "-f", &id]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "waited\n"),
        "{ran:?}"
    );
    // The message of the job that expired was in the queue before the other one: it has been judged.
    let jobs = bed.json(&["-o", "json", "jobs", "--limit", "20"]);
    let jobs = jobs["jobs"].as_array().unwrap();
    let late = jobs
        .iter()
        .find(|job| job["command"]["shell"] == "echo late")
        .unwrap();
    assert_eq!(
        (late["state"].as_str(), late["started"].as_str()),
        (Some("expired"), Some("no")),
        "{late}"
    );
}

/// Promise 10: whoever owns the broker can send what they like, and starts nothing.
#[test]
fn a_forged_order_starts_nothing() {
    let _alone = alone();
    let bed = bed();
    let before = dead_letters();
    let forged =
        r#"{"key_id":"0000000000000000","payload":"eyJ2ZXJzaW9uIjoiMSJ9","signature":"AAAA"}"#;
    for body in [forged, "not even JSON"] {
        let message = serde_json::json!({
            "properties": {"delivery_mode": 2}, "routing_key": format!("cmd.{}", bed.name),
            "payload": body, "payload_encoding": "string"
        });
        let exchange = "/api/exchanges/%2f/invoke.commands/publish";
        let answer = broker::tell("POST", exchange, Some(&message)).stdout_text();
        assert!(
            answer.contains(r#""routed":true"#),
            "the forged order reached the queue: {answer}"
        );
    }
    wait::until(
        "the forged orders to be put aside, and the dispatcher to have taken note of them",
        Duration::from_secs(60),
        || (dead_letters() >= before + 2).then_some(()),
    );
    let ran = bed.ran(&["echo still here"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "still here\n"),
        "{ran:?}"
    );
}

/// The runner's credential opens its own queue and nothing else on the broker.
#[test]
fn the_runners_credential_reads_one_queue() {
    let bed = bed();
    let user = format!("/api/users/invoke-runner.{}", bed.name);
    let permissions = broker::ask(&format!("{user}/permissions")).unwrap();
    assert_eq!(
        permissions.as_array().map(Vec::len),
        Some(1),
        "{permissions}"
    );
    let only = &permissions[0];
    assert_eq!(
        (only["configure"].as_str(), only["write"].as_str()),
        (Some(""), Some("")),
        "{only}"
    );
    // Anchored, and the dot is a dot: else `cmd.a` would open `cmd.ab` or `cmdxa` too.
    assert_eq!(
        only["read"].as_str(),
        Some(format!("^cmd\\.{}$", bed.name).as_str()),
        "{only}"
    );
    let tags = &broker::ask(&user).unwrap()["tags"];
    assert_eq!(tags, &serde_json::json!([]), "no management rights");
}

/// How many dead letters the dispatcher has dealt with since the broker was started, by the broker's
/// count, which is some seconds old.
fn dead_letters() -> u64 {
    let queue = broker::ask("/api/queues/%2f/invoke.dead-letter").unwrap_or_default();
    queue["message_stats"]["ack"].as_u64().unwrap_or(0)
}
