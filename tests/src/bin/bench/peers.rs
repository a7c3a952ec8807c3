//! What others need for the like on the same machine, in the same minute.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, variable};
use invoke_tests::process::run;
use invoke_tests::wait;

use crate::dispatcher::database_url;
use crate::output::{Received, piped, printing};

/// For how long each is measured.
const LASTS: Duration = Duration::from_secs(5);

/// pgbench, one row a transaction, on the same server with the same settings.
///
/// # Panics
/// If pgbench does not run.
pub(crate) fn postgres_inserts(connections: usize) -> String {
    let url = database_url();
    let table = "CREATE TABLE beside (id UUID PRIMARY KEY, body TEXT NOT NULL)";
    let ran = run(Command::new("psql").args(["-X", "-q", "-c", table, &url]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut script = tempfile::NamedTempFile::new().expect("there is room for a small file");
    let insert = "INSERT INTO beside VALUES (gen_random_uuid(), repeat('x', 500));\n";
    script
        .write_all(insert.as_bytes())
        .expect("there is room for a small file");
    let mut command = Command::new("pgbench");
    command.args(["--no-vacuum", "--jobs", "2"]);
    command.args(["--client", &connections.to_string()]);
    command.args(["--time", &LASTS.as_secs().to_string(), "--file"]);
    let ran = run(command.arg(script.path()).arg(url));
    let text = ran.stdout_text();
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split('.').next());
    let rate = rate.unwrap_or_else(|| panic!("pgbench: {ran:?}"));
    format!("{rate}/s")
}

/// One writer that waits for the disk each time, as SQLite's does.
///
/// # Panics
/// If the disk is full.
pub(crate) fn synced_appends() -> String {
    let file = tempfile::tempfile_in(variable("INVOKE_TESTBED_STATE"))
        .expect("the test bed's folder can be written");
    let block = [7; 4096];
    let begin = Instant::now();
    let mut count: u32 = 0;
    while begin.elapsed() < LASTS {
        file.write_all_at(&block, u64::from(count) * 4096)
            .and_then(|()| file.sync_data())
            .expect("the disk has room");
        count += 1;
    }
    format!("{:.0}/s", f64::from(count) / begin.elapsed().as_secs_f64())
}

/// `kubectl run`: a pod for one command, by the cluster's admin, who can reach it.
///
/// # Panics
/// If Kubernetes refuses.
pub(crate) fn kubectl_run(bed: &Bed, number: usize) -> Duration {
    let name = format!("bench-{number}");
    let begin = Instant::now();
    let ran = bed.kubectl(&[
        "run",
        &name,
        "--image=localhost/invoke-job:dev",
        "--image-pull-policy=Never",
        "--restart=Never",
        "--rm",
        "--attach",
        "--quiet",
        "--command",
        "--",
        "echo",
        "done",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    begin.elapsed()
}

/// The same output by `kubectl exec`, which needs a pod that is there already.
///
/// # Panics
/// If Kubernetes refuses.
pub(crate) fn kubectl_exec_output(bed: &Bed) -> Received {
    let pod = Peer::start(bed, "bench-exec", "sleep 600");
    let mut command = bed.kubectl_command();
    command.args(["exec", pod.name, "--", "sh", "-c", &printing()]);
    received(&mut command)
}

/// The same output by `kubectl logs`, which reads the container's log file.
///
/// # Panics
/// If Kubernetes refuses.
pub(crate) fn kubectl_logs_output(bed: &Bed) -> Received {
    let pod = Peer::start(bed, "bench-logs", &printing());
    let done = "--for=jsonpath={.status.phase}=Succeeded";
    let name = format!("pod/{}", pod.name);
    let ran = bed.kubectl(&["wait", done, &name, "--timeout=600s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    received(bed.kubectl_command().args(["logs", pod.name]))
}

/// How long the same files take by `kubectl cp`, which needs a pod that is there already, with tar in it.
///
/// # Panics
/// If Kubernetes refuses.
pub(crate) fn kubectl_cp(bed: &Bed, files: &Path) -> String {
    let pod = Peer::start(bed, "bench-cp", "sleep 600");
    let mut command = bed.kubectl_command();
    command.arg("cp").arg(files);
    let begin = Instant::now();
    let ran = run(command.arg(format!("{}:/tmp/", pod.name)));
    let taken = begin.elapsed();
    assert_eq!(ran.code, 0, "{ran:?}");
    format!("{taken:.1?}")
}

fn received(command: &mut Command) -> Received {
    let mut kubectl = piped(command);
    let stdout = kubectl.stdout.take().expect("it is piped");
    let received = Received::all_of(stdout);
    // Whether it is content with that does not matter: what came is counted.
    let _code = kubectl.wait();
    received
}

/// A pod of somebody else's, until the end.
struct Peer<'a> {
    bed: &'a Bed,
    name: &'static str,
}

impl<'a> Peer<'a> {
    /// Makes it, and waits until it is no longer being made.
    fn start(bed: &'a Bed, name: &'static str, command: &str) -> Self {
        let peer = Self { bed, name };
        let image = "--image=localhost/invoke-job:dev";
        let ran = bed.kubectl(&[
            "run",
            name,
            image,
            "--image-pull-policy=Never",
            "--restart=Never",
            "--command",
            "--",
            "sh",
            "-c",
            command,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        wait::until(name, Duration::from_secs(60), || {
            let phase = "jsonpath={.status.phase}";
            let ran = bed.kubectl(&["get", "pod", name, "-o", phase]);
            matches!(ran.stdout_text().as_str(), "Running" | "Succeeded").then_some(())
        });
        peer
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        let now = ["--grace-period=0", "--force", "--wait=false"];
        let _gone = self
            .bed
            .kubectl(&[&["delete", "pod", self.name][..], &now].concat());
    }
}

/// One plain question to the API server.
///
/// # Panics
/// If it has no answer.
pub(crate) fn kubectl_get(bed: &Bed) -> Duration {
    let begin = Instant::now();
    let ran = bed.kubectl(&["get", "nodes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    begin.elapsed()
}
