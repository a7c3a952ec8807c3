//! Rows 36 to 47: faults of Kubernetes, and what people do to pods.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use invoke_tests::bed::{variable, workspace};
use invoke_tests::canary::{Canary, Invariant, Violation, is_over, violation};
use invoke_tests::faults::{self, Cordoned, Dead, NoRunner, Paused};
use invoke_tests::process::{Ran, run};
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
        // The pod is nobody's, and its folders go with it.
        let options = ["--force", "--delete-emptydir-data", "--timeout=60s"];
        let drain = ["drain", node.trim(), &selector];
        kubectl(world, &[drain.as_slice(), &options].concat());
        drop(cordoned);
        world.settle_run(&canary, &[job], SOON)
    });
}

/// What the cluster refuses, and what it has no room for, is said as it is.
#[test]
#[ignore = "long: make faults"]
fn row_44_pods_cannot_be_made_or_started() {
    let row = Row {
        number: 44,
        fault: "an image that there is not, a node that there is not, a quota of no pods, a policy that denies all pods, a webhook that is not there",
        without: Without::Runner("no-refusal-reason"),
        breaks: Invariant::ClearState,
    };
    prove(&row, |world| {
        let canary = Canary::of(1, 0);
        let submit = |profile| {
            let options = ["--start-within", "25s", "--profile", profile];
            world.submit(&canary, &options)
        };
        let [image, node] = ["no-such-image", "unschedulable"].map(submit);
        for job in [&image, &node] {
            world.await_step(job, "pod_created", SOON);
        }
        let mut found = Vec::new();
        let mut refused = |by: &serde_json::Value, state, code| {
            let refusal = Refusal::new(world, by);
            let job = world.submit(&canary, &["--start-within", "15s"]);
            found.extend(canary.check(&world.bed, &world.collector, &job, SOON));
            found.extend(ended_otherwise(world, &job, state, code));
            drop(refusal);
        };
        refused(&quota(), "expired", "quota");
        refused(&policy(), "infra_failed", "admission_refused");
        refused(&webhook(world), "expired", "admission_unavailable");
        found.extend(world.settle(&canary, &[image.clone(), node.clone()], SOON));
        found.extend(ended_otherwise(world, &image, "infra_failed", "image_pull"));
        found.extend(ended_otherwise(
            world,
            &node,
            "expired",
            "pod_unschedulable",
        ));
        found
    });
}

/// Something in the cluster by which no pod can be made in the namespace of the jobs, until the end.
struct Refusal<'a> {
    world: &'a World,
    file: tempfile::NamedTempFile,
}

impl<'a> Refusal<'a> {
    /// Makes it, and waits until it works.
    fn new(world: &'a World, document: &serde_json::Value) -> Self {
        let file = written(document);
        let refusal = Self { world, file };
        drop(refusal.kubectl("apply"));
        wait::until("no pod to be admitted", SOON, || {
            (!admits(world)).then_some(())
        });
        refusal
    }

    fn kubectl(&self, verb: &str) -> Ran {
        let name = self.file.path().display().to_string();
        kubectl(self.world, &[verb, "-f", &name])
    }
}

impl Drop for Refusal<'_> {
    fn drop(&mut self) {
        drop(self.kubectl("delete"));
        // It is at work for some moments more.
        let _ = wait::within(SOON, || admits(self.world).then_some(()));
    }
}

/// Whether a pod could be made where jobs run.
fn admits(world: &World) -> bool {
    let pod = written(&foreign_pod("asked"));
    let name = pod.path().display().to_string();
    let create = ["create", "--dry-run=server", "-f", &name];
    world.bed.kubectl(&[&JOBS, create.as_slice()].concat()).code == 0
}

fn quota() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": "invoke-jobs"}, "spec": {"hard": {"pods": "0"}},
    })
}

fn policy() -> serde_json::Value {
    let api = "admissionregistration.k8s.io/v1";
    let jobs = json!({"matchLabels": {"kubernetes.io/metadata.name": "invoke-jobs"}});
    let rules = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
    }]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-pods"},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"namespaceSelector": jobs, "resourceRules": rules},
                "validations": [{"expression": "false", "message": "no pods today"}],
            },
        },
        {
            "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-pods"},
            "spec": {"policyName": "no-pods", "validationActions": ["Deny"]},
        },
    ]})
}

fn webhook(world: &World) -> serde_json::Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "not-there"},
        "webhooks": [{
            "name": "not-there.invoke.dev", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 2,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{}:1/", world.bed.cluster_ip)},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "invoke-jobs"}},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
            }],
        }],
    })
}

/// What runs goes on, and what was to start waits.
#[test]
#[ignore = "long: make faults"]
fn row_36_the_api_server_is_away() {
    let row = Row {
        number: 36,
        fault: "the API server is killed (SIGKILL) while one command runs and another is to start, and is back after 20 s",
        without: Without::Scenario("it is not back before the start deadline"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let (long, short) = (Canary::of(150, 3), Canary::of(3, 0));
        let runs = running(world, &long, &[]);
        let dead = Dead::new(&world.bed, "apiserver");
        let limit = if world.is_sabotaged() { "15s" } else { "3m" };
        let waits = world.submit(&short, &["--start-within", limit]);
        let mut found = waits_for(world, &waits, "api_server_unavailable");
        away_for(Duration::from_secs(20));
        drop(dead);
        // In this order: what waits is the last to be over. The scheduler takes a minute to come back.
        found.extend(world.settle_run(&short, &[waits], Duration::from_secs(180)));
        found.extend(world.settle_run(&long, &[runs], SOON));
        found
    });
}

/// A fault of a certain length.
fn away_for(length: Duration) {
    let _ = wait::within(length, || None::<()>);
}

/// A violation, unless the job says within some seconds that it waits for this.
fn waits_for(world: &World, job: &str, code: &str) -> Vec<Violation> {
    let says_so = wait::within(Duration::from_secs(15), || {
        (world.job(job)?["waiting"]["code"] == code).then_some(())
    });
    if says_so.is_some() {
        return Vec::new();
    }
    let waiting = &world.job(job).unwrap_or_default()["waiting"];
    let words = format!("it waits for {waiting}, not for {code}");
    vec![violation(Invariant::ClearState, job, words)]
}

/// A node's own programs may die: what runs, runs; what ran is not started again, whoever tries.
#[test]
#[ignore = "long: make faults"]
fn row_42_the_nodes_programs_are_killed() {
    let row = Row {
        number: 42,
        fault: "kubelet and containerd are killed (SIGKILL) and back; then the shim is started again in its container, as by a runtime that has lost count; another pod's pause container is killed",
        without: Without::Runner("shim.no-marker"),
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let canary = Canary::of(1, 0);
        let job = quiet(world, &canary, 40);
        let dead = ["kubelet", "containerd"].map(|part| Dead::new(&world.bed, part));
        let [kubelet, containerd] = dead;
        drop((containerd, kubelet));
        let again = second_shim(world, &job);
        let mut found = world.settle_run(&canary, &[job], SOON);
        let is_refused = again.stderr_text().contains("is not started again");
        assert!(
            is_refused || world.is_sabotaged(),
            "a second shim: {again:?}"
        );

        let short = Canary::of(50, 0);
        let broken = running(world, &short, &[]);
        kill_pause(world, &broken);
        found.extend(world.settle(&short, &[broken], SOON));
        found
    });
}

/// Starts the shim of a job's pod again, once the kubelet lets anybody into the pod.
fn second_shim(world: &World, job: &str) -> Ran {
    let exec = |program| {
        let exec = ["exec", &pod_of(job), "--", program];
        world.bed.kubectl(&[&JOBS, exec.as_slice()].concat())
    };
    wait::until("a way into the pod", Duration::from_secs(30), || {
        (exec("true").code == 0).then_some(())
    });
    exec("/usr/local/bin/invoke-shim")
}

/// A job whose command runs and prints nothing for so many seconds: what has printed something, is refused a
/// second command for that alone. Less than the minute that its permit is good for.
fn quiet(world: &World, canary: &Canary, seconds: u32) -> String {
    let command = canary.command(&world.collector);
    let command = command.replacen("; for", &format!("; sleep {seconds}; for"), 1);
    let ran = world
        .bed
        .ran(&["--no-wait", "--start-within", "60s", &command]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let job = ran.stdout_text().trim().to_owned();
    world.await_start(&job, SOON);
    job
}

/// Kills the container that holds a pod's network.
fn kill_pause(world: &World, job: &str) {
    let uid = world.bed.uid("invoke-jobs", &pod_of(job));
    let processes = faults::processes_of_pod(&world.bed, &uid);
    let is_pause = |id: &&String| {
        let name = std::fs::read_to_string(format!("/proc/{id}/comm"));
        name.is_ok_and(|name| name.trim() == "pause")
    };
    let pause = processes.iter().find(is_pause);
    let pause = pause.expect("a pod has a pause container");
    let ran = run(Command::new("kill").args(["-s", "KILL", pause]));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A node that is silent is not dead: nobody gives its command up, or starts it elsewhere.
#[test]
#[ignore = "long: make faults"]
fn row_43_a_node_is_silent_for_a_while() {
    let row = Row {
        number: 43,
        fault: "the kubelet is stopped (SIGSTOP) until its node counts as not ready, and goes on",
        without: Without::Runner("no-node-patience"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(900, 0);
        let job = running(world, &canary, &[]);
        // What a kubelet has never said, its silence cannot take back.
        let pod = format!("pod/{}", pod_of(&job));
        let _ = kubectl(
            world,
            &["wait", "--for=condition=Ready", "--timeout=60s", &pod],
        );
        let silent = Paused::new(&world.bed, "kubelet");
        let over = if world.is_sabotaged() {
            "lost"
        } else {
            "contact_lost"
        };
        world.await_state(&job, &[over], Duration::from_secs(120));
        drop(silent);
        world.settle_run(&canary, &[job], Duration::from_secs(180))
    });
}

/// One order makes one pod, even if nobody is told that it was made.
#[test]
#[ignore = "long: make faults"]
fn row_37_a_pod_is_made_and_the_answer_is_lost() {
    let row = Row {
        number: 37,
        fault: "the API server's long answers to the runner (over 1,000 bytes) are dropped while it makes a pod, and then its connections are cut; the pod's kubelet is stopped meanwhile",
        without: Without::Runner("no-adoption"),
        breaks: Invariant::NoJobLost,
    };
    prove(&row, |world| {
        let canary = Canary::of(3, 0);
        // The connection that it made the last pod through is used again for the next.
        let warm = world.submit(&canary, &["--start-within", "60s"]);
        let mut found = world.settle_run(&canary, &[warm], SOON);
        let stopped = Paused::new(&world.bed, "kubelet");
        let deaf = Deaf::new(world);
        let job = world.submit(&canary, &["--start-within", "80s"]);
        let uid = world.bed.uid("invoke-jobs", &pod_of(&job));
        deaf.cut(world);
        // Its next try has met the pod that is there.
        let _ = wait::within(Duration::from_secs(20), || {
            (world.steps(&job, "pod_created") > 0 || is_ended(world, &job)).then_some(())
        });
        drop(stopped);
        found.extend(world.settle_run(&canary, std::slice::from_ref(&job), SOON));
        // The cluster's own record of the start names the pod.
        let selector = format!("-linvoke.dev/start-record={job}");
        let output = ["-o", "jsonpath={.items[*].data.pod}"];
        let get = [["get", "configmaps", &selector].as_slice(), &output].concat();
        let started = kubectl(world, &get).stdout_text();
        if started != uid {
            let words = format!("it was started in pod {started}, not in {uid}");
            found.push(violation(Invariant::ClearState, &job, words));
        }
        found
    });
}

fn is_ended(world: &World, job: &str) -> bool {
    world.job(job).is_some_and(|document| is_over(&document))
}

/// A runner that the API server hears, and that gets nothing long from it, until it is cut off. That there is
/// no record of a start is a short answer, which it needs before it makes a pod; the pod is a long one.
struct Deaf {
    pod: String,
}

impl Deaf {
    fn new(world: &World) -> Self {
        let pods = world.bed.runner_pods();
        let pod = pods.first().expect("there is a runner").clone();
        let get = ["-n", "invoke-system", "get", "pod", &pod];
        let output = ["-o", "jsonpath={.status.podIP}"];
        let ran = world.bed.kubectl(&[get.as_slice(), &output].concat());
        let address = ran.stdout_text();
        let deaf = Self { pod };
        nft(&format!(
            "table inet deaf {{ chain out {{ type filter hook output priority -300; \
             ip daddr {address} tcp sport {{ 443, 6443 }} meta length > 1000 drop; }}\n}}"
        ));
        deaf
    }

    /// Breaks its connections, and only then lets it hear again: it learns that its request failed, and not
    /// that it had succeeded.
    fn cut(self, world: &World) {
        let uid = world.bed.uid("invoke-system", &self.pod);
        let processes = faults::processes_of_pod(&world.bed, &uid);
        let process = processes.first().expect("the runner runs");
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{process}/ns/net"), "--", "ss"]);
        let ran = run(command.args(["--tcp", "--kill", "dport = :443 or dport = :6443"]));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.stdout_text().lines().count() > 1,
            "none was broken: {ran:?}"
        );
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        nft("delete table inet deaf\n");
    }
}

/// Changes the rules in the network of the cluster's node.
fn nft(rules: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("there is room for a small file");
    std::io::Write::write_all(&mut file, rules.as_bytes()).expect("there is room");
    let namespace = variable("INVOKE_TEST_CLUSTER_NETNS");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    let ran = run(command.args(["--", "nft", "-f"]).arg(file.path()));
    if ran.code != 0 && !std::thread::panicking() {
        panic!("{rules}: {ran:?}");
    }
}

/// 200 MB, each line its own number: nothing of it is Kubernetes' log, so nothing of it is rotated away.
#[test]
#[ignore = "long: make faults"]
fn row_46_output_is_larger_than_any_log() {
    let row = Row {
        number: 46,
        fault: "a command prints 200 MB, and the runner is killed when a tenth of it is there",
        without: Without::Runner("shim.no-resume"),
        breaks: Invariant::OutputComplete,
    };
    prove(&row, |world| {
        const LINES: u64 = 2_000_000;
        let print = format!("seq -f %099.0f 1 {LINES}");
        let mut command = world.bed.invoke();
        command.args(["--start-within", "60s", "--run-timeout", "240s", &print]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("invoke runs");
        let mut printed = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let wrong = (1..=LINES).find(|number| {
            if *number == LINES / 10 {
                world.bed.kill_runners();
            }
            let mut line = String::new();
            let read = printed.read_line(&mut line);
            read.is_err() || line != format!("{number:099}\n")
        });
        let mut rest = Vec::new();
        let left = printed.read_to_end(&mut rest).unwrap_or(0);
        let code = child.wait().expect("invoke ends").code();
        world.bed.await_connected();
        let mut found = Vec::from_iter(world.left_over());
        if wrong.is_some() || left > 0 || code != Some(0) {
            let words =
                format!("line {wrong:?} is wrong, {left} bytes are left, exit code {code:?}");
            found.push(violation(Invariant::OutputComplete, "200 MB", words));
        }
        found
    });
}

/// The end of what ran in a namespace that is deleted is on record, nothing keeps it from going, and the
/// chart makes it again.
#[test]
#[ignore = "long: make faults"]
fn row_45_the_namespace_is_deleted() {
    let row = Row {
        number: 45,
        fault: "the namespace of the job pods is deleted while a command runs, and made again by `helm upgrade`",
        without: Without::Scenario("the pod bears a finalizer that nobody takes away"),
        breaks: Invariant::Clean,
    };
    prove(&row, |world| {
        let job = running(world, &ENDLESS, &["--profile", "no-drain"]);
        if world.is_sabotaged() {
            hold(
                world,
                &job,
                &json!(["invoke.dev/result", "invoke.dev/held"]),
            );
        }
        kubectl(
            world,
            &["delete", "namespace", "invoke-jobs", "--wait=false"],
        );
        let mut found = ENDLESS.check(&world.bed, &world.collector, &job, SOON);
        found.extend(ended_otherwise(world, &job, "lost", "pod_terminated"));
        if !is_gone(world, Duration::from_secs(45)) {
            let words = "it is still there, on its way out";
            found.push(violation(Invariant::Clean, "namespace", words));
            hold(world, &job, &json!([]));
            assert!(is_gone(world, SOON), "the namespace does not go");
        }
        upgrade(world);
        let canary = Canary::of(3, 0);
        let after = world.submit(&canary, &["--start-within", "60s"]);
        found.extend(world.settle_run(&canary, &[after], SOON));
        found
    });
}

/// Sets the finalizers of a job's pod, if it is there.
fn hold(world: &World, job: &str, finalizers: &serde_json::Value) {
    let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
    let (pod, kind) = (pod_of(job), ["--type=merge", "-p", &patch]);
    let arguments = [&JOBS, ["patch", "pod", &pod].as_slice(), &kind].concat();
    let _ = world.bed.kubectl(&arguments);
}

/// Whether the namespace of the jobs is gone within this time.
fn is_gone(world: &World, limit: Duration) -> bool {
    let get = ["get", "namespace", "invoke-jobs"];
    let gone = || (world.bed.kubectl(&get).code != 0).then_some(());
    wait::within(limit, gone).is_some()
}

/// What an operator does who has lost a part of the chart.
fn upgrade(world: &World) {
    let chart = workspace().join("deploy/charts/runner");
    let chart = chart.display().to_string();
    let release = ["helm", "upgrade", "invoke-runner", &chart];
    let options = ["-n", "invoke-system", "--reuse-values", "--wait"];
    let ran = world.bed.testbed(&[release.as_slice(), &options].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    world.bed.await_connected();
}

/// The cluster forgets that a pod has ended, and makes it again; the dispatcher does not.
#[test]
#[ignore = "long: make faults"]
fn row_47_etcd_is_restored_from_a_backup() {
    let row = Row {
        number: 47,
        fault: "etcd's data of when a command ran is put back after its pod is gone (etcd stopped and its folder copied; the control plane and the kubelet are started anew), and the node has removed what is left of the pod's containers, so that it starts them",
        without: Without::Dispatcher("no-permit-cas"),
        breaks: Invariant::NoneRunTwice,
    };
    prove(&row, |world| {
        let canary = Canary::of(0, 0);
        let job = quiet(world, &canary, 10);
        let uid = world.bed.uid("invoke-jobs", &pod_of(&job));
        let backup = Backup::new(world);
        let mut found = world.settle_run(&canary, std::slice::from_ref(&job), SOON);
        backup.restore(world, &uid);
        let pod = pod_of(&job);
        let is_back = || world.bed.job_pods().contains(&format!("pod/{pod}"));
        assert!(is_back(), "the finished pod was not resurrected");
        // Whoever is asked about it first, the shim or the runner: it goes.
        let _ = wait::within(SOON, || (!is_back()).then_some(()));
        found.extend(world.settle(&canary, &[job], SOON));
        found
    });
}

/// A copy of etcd's data.
struct Backup(tempfile::TempDir);

impl Backup {
    /// What a running etcd writes cannot be copied.
    fn new(world: &World) -> Self {
        let folder = tempfile::tempdir_in(variable("INVOKE_TESTBED_STATE"));
        let backup = Self(folder.expect("there is room for a copy"));
        let stopped = Dead::new(&world.bed, "etcd");
        copy(&etcd(), &backup.copied());
        drop(stopped);
        backup
    }

    /// What watches has seen more than there is by then: it is all started anew, as Kubernetes' manual
    /// says.
    fn restore(&self, world: &World, pod: &str) {
        let kubelet = Dead::new(&world.bed, "kubelet");
        remove_containers(pod);
        let parts = [
            "containerd",
            "scheduler",
            "controller-manager",
            "apiserver",
            "etcd",
        ];
        let mut dead = Vec::from(parts.map(|part| Dead::new(&world.bed, part)));
        std::fs::remove_dir_all(etcd()).expect("it is the test bed's");
        copy(&self.copied(), &etcd());
        while dead.pop().is_some() {}
        drop(kubelet);
    }

    fn copied(&self) -> String {
        self.0.path().join("etcd").display().to_string()
    }
}

/// What the kubelet's garbage collection does some minutes after the end of a pod: until then it would know
/// that its containers have run.
fn remove_containers(pod: &str) {
    let socket = format!(
        "{}/containerd/containerd.sock",
        variable("INVOKE_TESTBED_STATE")
    );
    let containers = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command.args(["--address", &socket, "--namespace", "k8s.io", "containers"]);
        let ran = run(command.args(arguments));
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.stdout_text()
    };
    let of_pod = format!(r#"labels."io.kubernetes.pod.uid"=="{pod}""#);
    let left = containers(&["ls", "--quiet", &of_pod]);
    for container in left.split_whitespace() {
        containers(&["rm", container]);
    }
}

fn etcd() -> String {
    format!("{}/etcd", variable("INVOKE_TESTBED_STATE"))
}

fn copy(from: &str, to: &str) {
    let ran = run(Command::new("cp").args(["--archive", from, to]));
    assert_eq!(ran.code, 0, "{ran:?}");
}
