//! Rows 36 to 47: faults of Kubernetes, and what people do to pods.

use std::time::Duration;

use invoke_tests::canary::{Canary, Invariant, Violation, violation};
use invoke_tests::faults::{self, Cordoned, NoRunner, Paused};
use invoke_tests::process::Ran;
use invoke_tests::row::{Row, Without, World, prove};
use invoke_tests::wait;
use serde_json::json;

const SOON: Duration = Duration::from_secs(90);

/// Goes on for longer than any of these tests lets it.
const ENDLESS: Canary = Canary::of(3000, 0);

/// Where job pods are.
const JOBS: [&str; 2] = ["-n", "invoke-jobs"];

/// The name of a job's pod.
fn pod_of(job: &str) -> String {
    format!("invoke-{job}")
}

/// kubectl, about job pods.
fn kubectl(world: &World, arguments: &[&str]) -> Ran {
    let ran = world.bed.kubectl(&[&JOBS, arguments].concat());
    assert_eq!(ran.code, 0, "kubectl {arguments:?}: {ran:?}");
    ran
}

/// A job of a canary whose command runs.
fn running(world: &World, canary: &Canary, options: &[&str]) -> String {
    let options = [&["--start-within", "60s"], options].concat();
    let job = world.submit(canary, &options);
    world.await_start(&job, SOON);
    job
}

/// A violation, unless the job is over in this state and for this reason.
fn ended_otherwise(world: &World, job: &str, state: &str, code: &str) -> Option<Violation> {
    let document = world.job(job).unwrap_or_default();
    let (is, why) = (&document["state"], &document["reason"]);
    (*is != state || why["code"] != code).then(|| {
        let words = format!("it is {is} because of {why}, not {state} because of {code}");
        violation(Invariant::ClearState, job, words)
    })
}

/// How often a job's pod was replaced.
fn retries(world: &World, job: &str) -> u64 {
    let document = world.job(job).unwrap_or_default();
    document["retries"].as_u64().unwrap_or(0)
}

/// What `kubectl drain` asks of Kubernetes for each pod.
fn evict(world: &World, pod: &str) {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "invoke-jobs"},
    });
    let path = format!("/api/v1/namespaces/invoke-jobs/pods/{pod}/eviction");
    post(world, &path, &eviction);
}

fn post(world: &World, path: &str, document: &serde_json::Value) {
    let file = written(document);
    let name = file.path().display().to_string();
    kubectl(world, &["create", "--raw", path, "-f", &name]);
}

fn written(document: &serde_json::Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("there is room for a small file");
    std::fs::write(file.path(), document.to_string()).expect("there is room for a small file");
    file
}

/// Kubernetes keeps what it knows of a pod's end until it is on record, whoever deletes the pod.
#[test]
#[ignore = "long: make faults"]
fn row_39_pods_are_deleted_by_hand() {
    let row = Row {
        number: 39,
        fault: "the pods of two running commands are deleted by hand: one as usual, one with --force --grace-period=0 while there is no runner",
        without: Without::Runner("no-finalizer"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let asked = running(world, &ENDLESS, &["--profile", "no-drain"]);
        // Without the protection nobody says anything of it until its time is over.
        let forced = running(world, &ENDLESS, &["--run-timeout", "60s"]);
        kubectl(world, &["delete", "pod", "--wait=false", &pod_of(&asked)]);
        let mut found = ENDLESS.check(&world.bed, &world.collector, &asked, SOON);
        found.extend(ended_otherwise(world, &asked, "lost", "pod_terminated"));

        let none = NoRunner::new(&world.bed);
        let uid = world.bed.uid("invoke-jobs", &pod_of(&forced));
        let force = ["--force", "--grace-period=0", "--wait=false"];
        let delete = ["delete", "pod", &pod_of(&forced)];
        kubectl(world, &[delete.as_slice(), &force].concat());
        wait::until("the forced pod to be dead", SOON, || {
            faults::processes_of_pod(&world.bed, &uid)
                .is_empty()
                .then_some(())
        });
        drop(none);
        world.bed.await_connected();
        let limit = Duration::from_secs(30);
        found.extend(world.settle(&ENDLESS, std::slice::from_ref(&forced), limit));
        found.extend(ended_otherwise(world, &forced, "lost", "pod_deleted"));
        found
    });
}

/// A pod that only has the right name is neither taken for the job's nor touched.
#[test]
#[ignore = "long: make faults"]
fn row_38_a_foreign_pod_has_our_name() {
    let row = Row {
        number: 38,
        fault: "a pod with the name of a job's pod exists before the runner makes it",
        without: Without::Runner("no-adoption-check"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let none = NoRunner::new(&world.bed);
        let job = world.submit(&canary, &["--start-within", "40s"]);
        let foreign = pod_of(&job);
        post(
            world,
            "/api/v1/namespaces/invoke-jobs/pods",
            &foreign_pod(&foreign),
        );
        let uid = world.bed.uid("invoke-jobs", &foreign);
        drop(none);
        world.bed.await_connected();
        let mut found = canary.check(&world.bed, &world.collector, &job, SOON);
        found.extend(ended_otherwise(
            world,
            &job,
            "infra_failed",
            "name_conflict",
        ));
        let output = "jsonpath={.metadata.uid} {.metadata.deletionTimestamp}";
        let left = kubectl(world, &["get", "pod", &foreign, "-o", output]).stdout_text();
        if left.trim() != uid {
            let words = format!("the foreign pod {uid} was touched: {left}");
            found.push(violation(Invariant::Clean, &job, words));
        }
        kubectl(world, &["delete", "pod", &foreign, "--now"]);
        found.extend(world.left_over());
        found
    });
}

/// It fits Pod Security `restricted`, waits for a node that there is not, and bears no mark of ours.
fn foreign_pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"invoke.dev/no-such-node": "true"},
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "foreign", "image": "localhost/invoke-job:dev", "command": ["sleep", "3600"],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// What Kubernetes takes away before the command started is made again, and nobody need ask for it.
#[test]
#[ignore = "long: make faults"]
fn row_40_pods_are_taken_away_before_the_start() {
    let row = Row {
        number: 40,
        fault: "a job's pod is evicted before it has a node, then deleted by hand, and one that has a node whose kubelet is stopped is evicted",
        without: Without::Dispatcher("no-retry"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        let cordoned = Cordoned::new(&world.bed);
        let job = world.submit(&canary, &["--start-within", "80s"]);
        take_away(world, &job, |pod| evict(world, pod));
        take_away(world, &job, |pod| {
            drop(kubectl(world, &["delete", "pod", "--wait=false", pod]));
        });
        let paused = Paused::new(&world.bed, "kubelet");
        drop(cordoned);
        if has_node(world, &job) {
            evict(world, &pod_of(&job));
        }
        drop(paused);
        let jobs = [job];
        let mut found = world.settle_run(&canary, &jobs, SOON);
        let times = retries(world, &jobs[0]);
        if times != 3 {
            let words = format!("its pod was replaced {times} times");
            found.push(violation(Invariant::ClearState, &jobs[0], words));
        }
        found
    });
}

/// Has the pod of a job taken away, and waits until it is another one, or there is no more to come.
fn take_away(world: &World, job: &str, take: impl Fn(&str)) {
    let pod = pod_of(job);
    let limit = Duration::from_secs(20);
    let uid = || {
        let output = ["-o", "jsonpath={.metadata.uid}", "--ignore-not-found"];
        kubectl(world, &[["get", "pod", &pod].as_slice(), &output].concat()).stdout_text()
    };
    let Some(before) = wait::within(limit, || Some(uid()).filter(|uid| !uid.is_empty())) else {
        return;
    };
    take(&pod);
    let _ = wait::within(limit, || {
        let now = uid();
        (!now.is_empty() && now != before).then_some(())
    });
}

/// Waits until a job's pod has a node; answers whether there is such a pod.
fn has_node(world: &World, job: &str) -> bool {
    let output = ["-o", "jsonpath={.spec.nodeName}", "--ignore-not-found"];
    let get = ["get", "pod", &pod_of(job)];
    let node = wait::within(Duration::from_secs(20), || {
        let node = kubectl(world, &[get.as_slice(), &output].concat()).stdout_text();
        (!node.is_empty()).then_some(())
    });
    node.is_some()
}

/// A drain lets a command that ends by itself end by itself, and waits for it.
#[test]
fn row_41_a_node_is_drained_while_a_command_runs() {
    let row = Row {
        number: 41,
        fault: "the node is drained of a job's pod (`kubectl drain`) while the command runs; it ends some seconds later",
        without: Without::Runner("shim.no-drain"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(60, 0);
        let job = running(world, &canary, &[]);
        let node = kubectl(world, &["get", "nodes", "-o", "name"]).stdout_text();
        let cordoned = Cordoned::new(&world.bed);
        let selector = format!("--pod-selector=invoke.dev/job={job}");
        let drain = ["drain", node.trim(), "--force", "--timeout=60s", &selector];
        kubectl(world, &drain);
        drop(cordoned);
        world.settle_run(&canary, &[job], SOON)
    });
}
