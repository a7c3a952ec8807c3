//! How much memory programs have needed at most, by the kernel's own count.

use invoke_tests::bed::{Bed, variable};
use invoke_tests::faults::processes_of_pod;

/// The dispatcher of the test bed.
///
/// # Panics
/// If it does not run.
pub(crate) fn dispatcher() -> u32 {
    let file = format!("{}/pids/dispatcher", variable("INVOKE_TESTBED_STATE"));
    let text = std::fs::read_to_string(&file).expect("the dispatcher runs");
    let pid = text.split_whitespace().next();
    pid.and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("{file} has no process id: {text}"))
}

/// The runner: the test bed has one replica.
///
/// # Panics
/// If none runs.
pub(crate) fn runner(bed: &Bed) -> u32 {
    let pods = bed.runner_pods();
    let pod = pods.first().expect("a runner runs");
    let uid = bed.uid("invoke-system", pod);
    of_pod(bed, &uid, "invoke-runner").expect("the runner's pod has its process")
}

/// The shims of all job pods.
pub(crate) fn shims(bed: &Bed) -> Vec<u32> {
    let ran = bed.kubectl(&[
        "get",
        "pods",
        "-n",
        "invoke-jobs",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ]);
    let uids = ran.stdout_text();
    uids.split_whitespace()
        .filter_map(|uid| of_pod(bed, uid, "invoke-shim"))
        .collect()
}

/// The first process of a pod's that has this name.
fn of_pod(bed: &Bed, uid: &str, name: &str) -> Option<u32> {
    let pids = processes_of_pod(bed, uid);
    let mut named = pids.iter().filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    });
    named.next()?.parse().ok()
}

/// Forgets the most that a process has needed until now.
pub(crate) fn forget_peak(pid: u32) {
    // Where it cannot be forgotten, what is told is too much, never too little.
    let _more = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most that a process has needed, in MiB; `None` if it is gone.
pub(crate) fn peak(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024.0)
}
