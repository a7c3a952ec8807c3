//! What can be done to the parts of the test bed. Each fault that lasts is undone when its guard is
//! dropped, also by a test that panics.

use std::process::Command;
use std::time::Duration;

use crate::bed::{Bed, variable};
use crate::process::{Ran, run};
use crate::wait;

/// Kills a part as a crash would, and leaves it dead.
///
/// # Panics
/// If it did not run.
pub fn kill(bed: &Bed, part: &str) {
    succeed(bed, &["kill", part]);
}

/// Starts a part again, and waits until it is healthy.
///
/// # Panics
/// If it does not become so.
pub fn restart(bed: &Bed, part: &str) {
    succeed(bed, &["restart", part]);
}

/// A part that was killed, and is started again at the end.
pub struct Dead<'a> {
    bed: &'a Bed,
    part: &'static str,
}

impl<'a> Dead<'a> {
    /// Kills it.
    #[must_use]
    pub fn new(bed: &'a Bed, part: &'static str) -> Self {
        kill(bed, part);
        Self { bed, part }
    }
}

impl Drop for Dead<'_> {
    fn drop(&mut self) {
        restart(self.bed, self.part);
    }
}

/// A part that is stopped with SIGSTOP, it and all its processes, and goes on at the end.
pub struct Paused<'a> {
    bed: &'a Bed,
    part: &'static str,
}

impl<'a> Paused<'a> {
    /// Stops it.
    #[must_use]
    pub fn new(bed: &'a Bed, part: &'static str) -> Self {
        succeed(bed, &["pause", part]);
        Self { bed, part }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        succeed(self.bed, &["continue", self.part]);
    }
}

/// All processes of a pod, stopped with SIGSTOP: a zombie, until the end.
pub struct PausedPod(Vec<String>);

impl PausedPod {
    /// Stops the pod's processes, found by the cgroup of its uid.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn new(bed: &Bed, uid: &str) -> Self {
        Self::if_it_runs(bed, uid).unwrap_or_else(|| panic!("pod {uid} has no processes"))
    }

    /// Stops the pod's processes, if it has any.
    #[must_use]
    pub fn if_it_runs(bed: &Bed, uid: &str) -> Option<Self> {
        let processes = processes_of_pod(bed, uid);
        if processes.is_empty() {
            return None;
        }
        signal("STOP", &processes);
        Some(Self(processes))
    }
}

impl Drop for PausedPod {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

/// Kills all processes of a pod with SIGKILL, as a crash of its programs would.
///
/// # Panics
/// If it has none.
pub fn kill_processes_of_pod(bed: &Bed, uid: &str) {
    let processes = processes_of_pod(bed, uid);
    assert!(!processes.is_empty(), "pod {uid} has no processes");
    signal("KILL", &processes);
}

/// The ids of a pod's processes, the pause container's too.
#[must_use]
pub fn processes_of_pod(bed: &Bed, uid: &str) -> Vec<String> {
    let root = format!("/sys/fs/cgroup/pids/invoke-{}/kubepods", bed.name);
    let found = run(Command::new("find").args([
        &root,
        "-path",
        &format!("*/pod{uid}/*"),
        "-name",
        "cgroup.procs",
        "-exec",
        "cat",
        "{}",
        "+",
    ]));
    found
        .stdout_text()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn signal(name: &str, processes: &[String]) {
    let mut command = Command::new("kill");
    // One that has ended meanwhile has what was wanted for it.
    let _ = run(command.arg("-s").arg(name).args(processes));
}

/// What a partition keeps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// The cluster and the dispatcher.
    ClusterAndDispatcher,
    /// The cluster and RabbitMQ.
    ClusterAndBroker,
    /// The cluster and everything in the hub.
    ClusterAndHub,
    /// Only what the cluster sends to RabbitMQ is lost; what RabbitMQ sends arrives.
    ClusterToBroker,
    /// The CLI, in the hub, and the dispatcher; who comes from the cluster is not touched.
    ClientAndDispatcher,
}

/// Packets that vanish without a word (no RST), until the end.
pub struct Partition {
    namespace: String,
}

impl Partition {
    /// Begins to drop, in the cluster's network namespace or, between parts of the hub, in the hub's.
    ///
    /// # Panics
    /// If nftables does not take the rules, or the cluster is no part of the test bed.
    #[must_use]
    pub fn new(bed: &Bed, between: Between) -> Self {
        let (namespace, within) = match between {
            Between::ClientAndDispatcher => ("INVOKE_TEST_HUB_NETNS", "oifname lo"),
            _ => ("INVOKE_TEST_CLUSTER_NETNS", ""),
        };
        let namespace = variable(namespace);
        assert!(
            !namespace.is_empty(),
            "a partition needs a cluster of the test bed's own"
        );
        let hub = &bed.hub_ip;
        let (ports, both) = match between {
            Between::ClientAndDispatcher => ("8443", false),
            Between::ClusterAndDispatcher => ("8443", true),
            Between::ClusterAndBroker => ("5671", true),
            Between::ClusterToBroker => ("5671", false),
            Between::ClusterAndHub => ("1-65535", true),
        };
        let mut rules = format!(
            "table inet fault {{\n\
             chain out {{ type filter hook output priority -300; {within} ip daddr {hub} tcp dport {ports} drop; }}\n\
             chain through {{ type filter hook forward priority -300; ip daddr {hub} tcp dport {ports} drop;\n"
        );
        if both {
            rules += &format!(
                "ip saddr {hub} tcp sport {ports} drop; }}\n\
                 chain in {{ type filter hook input priority -300; ip saddr {hub} tcp sport {ports} drop; }}\n}}\n"
            );
        } else {
            rules += "}\n}\n";
        }
        let partition = Self { namespace };
        let ran = partition.nft(&rules);
        assert_eq!(ran.code, 0, "{ran:?}");
        partition
    }

    fn nft(&self, rules: &str) -> Ran {
        let mut file = tempfile::NamedTempFile::new().expect("there is room for a small file");
        std::io::Write::write_all(&mut file, rules.as_bytes())
            .expect("there is room for a small file");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        run(command.args(["--", "nft", "-f"]).arg(file.path()))
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let ran = self.nft("delete table inet fault\n");
        if ran.code != 0 && !std::thread::panicking() {
            panic!("the partition could not be healed: {ran:?}");
        }
    }
}

/// Cuts the TCP connections with the dispatcher that there are (RST to either end), once there are any. New
/// ones can be made at once. The caller is in the hub's network.
///
/// # Panics
/// If the kernel cannot, or there are none, or for what has nothing to do with the dispatcher.
pub fn cut(bed: &Bed, between: Between) {
    let hub = &bed.hub_ip;
    let who = match between {
        Between::ClientAndDispatcher => format!("dst = {hub}"),
        Between::ClusterAndDispatcher => format!("not dst = {hub}"),
        other => panic!("{other:?}: only the dispatcher's connections are cut"),
    };
    let what = format!("a connection to cut, {between:?}");
    wait::until(&what, Duration::from_secs(30), || {
        let mut command = Command::new("ss");
        command.args(["-K", "-H", "-t", "-n", "state", "established"]);
        let ran = run(command.arg(format!("sport = :8443 and {who}")));
        assert_eq!(ran.code, 0, "{ran:?}");
        (!ran.stdout.is_empty()).then_some(())
    });
}

/// A slow line between cluster and hub, until the end.
pub struct SlowLine;

const ENDS: [&str; 2] = ["INVOKE_TEST_CLUSTER_NETNS", "INVOKE_TEST_HUB_NETNS"];

impl SlowLine {
    /// At a rate as tc(8) writes it, such as `64kbit`, in either direction.
    ///
    /// # Panics
    /// If tc does not take it.
    #[must_use]
    pub fn new(rate: &str) -> Self {
        for end in ENDS {
            let ran = shape(
                end,
                &[
                    "add", "dev", "uplink", "root", "tbf", "rate", rate, "burst", "16kb",
                    "latency", "4s",
                ],
            );
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        Self
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        for end in ENDS {
            let _ = shape(end, &["del", "dev", "uplink", "root"]);
        }
    }
}

fn shape(end: &str, arguments: &[&str]) -> Ran {
    let namespace = variable(end);
    run(Command::new("tc")
        .args(["-n", &namespace, "qdisc"])
        .args(arguments))
}

/// Nodes that take no new pods, until the end: what has no pod's place yet waits.
pub struct Cordoned<'a>(&'a Bed);

impl<'a> Cordoned<'a> {
    /// Cordons all of them.
    #[must_use]
    pub fn new(bed: &'a Bed) -> Self {
        on_nodes(bed, "cordon");
        Self(bed)
    }
}

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        on_nodes(self.0, "uncordon");
    }
}

fn on_nodes(bed: &Bed, verb: &str) {
    for node in kubectl(bed, &["get", "nodes", "-o", "name"]).lines() {
        kubectl(bed, &[verb, node]);
    }
}

/// A cluster without a runner, until the end: its orders wait in the queue.
pub struct NoRunner<'a> {
    bed: &'a Bed,
    replicas: String,
}

const RUNNER: [&str; 3] = ["-n", "invoke-system", "deployment/invoke-runner"];

impl<'a> NoRunner<'a> {
    /// Scales the runner to nothing, and waits until its pods are gone.
    #[must_use]
    pub fn new(bed: &'a Bed) -> Self {
        let [namespace, system, deployment] = RUNNER;
        let count = ["-o", "jsonpath={.spec.replicas}"];
        let replicas = kubectl(
            bed,
            &[["get", namespace, system, deployment].as_slice(), &count].concat(),
        );
        scale(bed, "0");
        wait::until("the runner to be gone", Duration::from_secs(60), || {
            let pods = ["get", "pods", namespace, system, "-o", "name", "-l"];
            let selector = ["app.kubernetes.io/name=invoke-runner"];
            kubectl(bed, &[pods.as_slice(), &selector].concat())
                .is_empty()
                .then_some(())
        });
        Self { bed, replicas }
    }
}

impl Drop for NoRunner<'_> {
    fn drop(&mut self) {
        scale(self.bed, &self.replicas);
    }
}

fn scale(bed: &Bed, replicas: &str) {
    let replicas = format!("--replicas={replicas}");
    let arguments = [["scale", &replicas].as_slice(), &RUNNER].concat();
    kubectl(bed, &arguments);
}

/// What kubectl prints.
fn kubectl(bed: &Bed, arguments: &[&str]) -> String {
    let ran = bed.kubectl(arguments);
    if ran.code != 0 && !std::thread::panicking() {
        panic!("kubectl {arguments:?}: {ran:?}");
    }
    ran.stdout_text()
}

/// Changes the dispatcher's store by hand: what would take too long to come about by itself.
///
/// # Panics
/// If PostgreSQL does not take the statement.
pub fn sql(statement: &str) {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let mut command = Command::new("psql");
    let ran = run(command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, &url]));
    assert_eq!(ran.code, 0, "{statement}: {ran:?}");
}

impl Bed {
    /// The names of the runner's pods that are not on their way out; none while the API server is silent.
    #[must_use]
    pub fn runner_pods(&self) -> Vec<String> {
        self.runners(".metadata.name")
    }

    /// A field of each of the runner's pods that are not on their way out.
    fn runners(&self, field: &str) -> Vec<String> {
        // kubectl's JSONPath cannot say "not".
        let template = format!(
            "{{{{range .items}}}}{{{{if not .metadata.deletionTimestamp}}}}{{{{{field}}}}} {{{{end}}}}{{{{end}}}}"
        );
        let output = format!("go-template={template}");
        let selector = "app.kubernetes.io/name=invoke-runner";
        let ran = self.kubectl(&[
            "get",
            "pods",
            "-n",
            "invoke-system",
            "-l",
            selector,
            "-o",
            &output,
        ]);
        ran.stdout_text()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// The uid of a pod, once it exists.
    ///
    /// # Panics
    /// If it does not within a minute.
    #[must_use]
    pub fn uid(&self, namespace: &str, pod: &str) -> String {
        wait::until(&format!("pod {pod}"), Duration::from_secs(60), || {
            let ran = self.kubectl(&[
                "get",
                "pod",
                "-n",
                namespace,
                pod,
                "-o",
                "jsonpath={.metadata.uid}",
            ]);
            (ran.code == 0).then(|| ran.stdout_text())
        })
    }

    /// Kills every replica of the runner without a farewell; the Deployment makes new ones.
    ///
    /// # Panics
    /// If Kubernetes refuses.
    pub fn kill_runners(&self) {
        // First with a signal: a kubelet that finds a pod deleted asks its programs to stop, and gives them time.
        for uid in self.runners(".metadata.uid") {
            signal("KILL", &processes_of_pod(self, &uid));
        }
        let selector = "app.kubernetes.io/name=invoke-runner";
        let ran = self.kubectl(&[
            "delete",
            "pod",
            "-n",
            "invoke-system",
            "-l",
            selector,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Waits until a runner is connected to the dispatcher and reads its queue.
    ///
    /// # Panics
    /// If none is within a minute.
    pub fn await_connected(&self) {
        succeed(self, &["wait-connected"]);
    }
}

fn succeed(bed: &Bed, arguments: &[&str]) {
    let ran = bed.testbed(arguments);
    // A guard that is dropped by a panic must let the panic be told, and the other guards be dropped.
    if ran.code != 0 && !std::thread::panicking() {
        panic!("testbed {arguments:?}: {ran:?}");
    }
}
