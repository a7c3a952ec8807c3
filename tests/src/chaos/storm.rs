//! Carries out the schedule, while canaries are submitted.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::schedule::{Fault, Planned};
use crate::bed::{Bed, bed};
use crate::broker;
use crate::canary::Canary;
use crate::collector::Collector;
use crate::faults::{Between, Dead, Partition, Paused, PausedPod};

/// Between two submissions. What two cores can start is some two pods a second.
const SUBMIT_EVERY: Duration = Duration::from_millis(1500);

/// One canary that somebody tried to submit.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What it does.
    pub canary: Canary,
    /// Its id, if the CLI was told one.
    pub job: Option<String>,
    /// What a watching CLI printed and exited with, if one watched.
    pub watched: Option<(String, i32)>,
}

/// Everything that happened, as JSON lines, for whoever has to find out why.
pub struct Trace {
    begin: Instant,
    file: Mutex<std::fs::File>,
}

impl Trace {
    /// Begins a trace.
    ///
    /// # Panics
    /// If the file cannot be made.
    #[must_use]
    pub fn new(path: &std::path::Path) -> Self {
        let file = std::fs::File::create(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            begin: Instant::now(),
            file: Mutex::new(file),
        }
    }

    /// Adds a line.
    pub fn add(&self, what: &str, words: &str) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let line =
            json!({"seconds": (seconds * 1000.0).round() / 1000.0, "what": what, "words": words});
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(file, "{line}");
    }
}

/// Lets the storm rage, and answers every canary that was tried. When it returns, no fault is left.
#[must_use]
pub fn rage(
    planned: &[Planned],
    minutes: u64,
    seed: u64,
    collector: &Collector,
    trace: &Arc<Trace>,
) -> Vec<Attempt> {
    let over = Arc::new(AtomicBool::new(false));
    let submitting = {
        let (over, collector, trace) = (Arc::clone(&over), collector.clone(), Arc::clone(trace));
        std::thread::spawn(move || submit(seed, &collector, &over, &trace))
    };
    let bed = bed();
    let begin = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    for Planned { at, lasts, fault } in planned {
        std::thread::sleep(at.saturating_sub(begin.elapsed()));
        trace.add("fault", &format!("{fault} for {} ms", lasts.as_millis()));
        inflict(&bed, *fault, *lasts, &mut random);
        trace.add("healed", &fault.to_string());
    }
    std::thread::sleep(Duration::from_secs(minutes * 60).saturating_sub(begin.elapsed()));
    over.store(true, Ordering::Relaxed);
    submitting.join().unwrap_or_default()
}

fn inflict(bed: &Bed, fault: Fault, lasts: Duration, random: &mut fastrand::Rng) {
    let hold = || std::thread::sleep(lasts);
    match fault {
        Fault::Kill(part) => {
            let _dead = Dead::new(bed, part);
            hold();
        }
        Fault::Pause(part) => {
            let _paused = Paused::new(bed, part);
            hold();
        }
        Fault::KillRunners => bed.kill_runners(),
        Fault::PauseRunner => {
            let runners = runner_uids(bed);
            let chosen = random.choice(&runners);
            // One that has only just been made has no processes yet.
            if let Some(_paused) = chosen.and_then(|uid| PausedPod::if_it_runs(bed, uid)) {
                hold();
            }
        }
        Fault::CutDispatcher => {
            let _cut = Partition::new(bed, Between::ClusterAndDispatcher);
            hold();
        }
        Fault::CutBroker => {
            let _cut = Partition::new(bed, Between::ClusterAndBroker);
            hold();
        }
        Fault::CutHub => {
            let _cut = Partition::new(bed, Between::ClusterAndHub);
            hold();
        }
        Fault::DeleteQueue => {
            let queue = broker::command_queue(bed);
            let _ = broker::request("DELETE", &format!("/api/queues/%2f/{queue}"), None);
        }
        Fault::CloseConnections => close_connections(),
        Fault::WipeBroker => {
            let _dead = Dead::new(bed, "rabbitmq");
            broker::wipe();
            hold();
        }
        Fault::DeletePod => delete_pod(bed, random, &["--wait=false"]),
        Fault::ForceDeletePod => delete_pod(
            bed,
            random,
            &["--wait=false", "--grace-period=0", "--force"],
        ),
    }
}

fn runner_uids(bed: &Bed) -> Vec<String> {
    let selector = "app.kubernetes.io/name=invoke-runner";
    let output = "jsonpath={.items[*].metadata.uid}";
    let ran = bed.kubectl(&[
        "get",
        "pods",
        "-n",
        "invoke-system",
        "-l",
        selector,
        "-o",
        output,
    ]);
    ran.stdout_text()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn delete_pod(bed: &Bed, random: &mut fastrand::Rng, options: &[&str]) {
    let pods = bed.job_pods();
    if let Some(pod) = random.choice(&pods) {
        let mut arguments = vec!["delete", "-n", "invoke-jobs", pod.as_str()];
        arguments.extend(options);
        // It may be gone already.
        let _ = bed.kubectl(&arguments);
    }
}

fn close_connections() {
    let connections = broker::ask("/api/connections").unwrap_or_default();
    for connection in connections.as_array().into_iter().flatten() {
        if let Some(name) = connection["name"].as_str() {
            let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let _ = broker::request("DELETE", &format!("/api/connections/{name}"), None);
        }
    }
}

/// Submits canaries at a steady pace, each from a thread of its own: one that waits for a dispatcher
/// that is away holds no other back.
fn submit(seed: u64, collector: &Collector, over: &AtomicBool, trace: &Arc<Trace>) -> Vec<Attempt> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut under_way = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let canary = Canary {
            lines: random.u32(1..60),
            pause_ms: 100,
            code: random.u8(0..3),
        };
        let watch = random.u32(0..4) == 0;
        let (collector, trace) = (collector.clone(), Arc::clone(trace));
        under_way.push(std::thread::spawn(move || {
            attempt(canary, watch, &collector, &trace)
        }));
        std::thread::sleep(SUBMIT_EVERY);
    }
    under_way
        .into_iter()
        .filter_map(|attempt| attempt.join().ok())
        .collect()
}

fn attempt(canary: Canary, watch: bool, collector: &Collector, trace: &Trace) -> Attempt {
    let bed = bed();
    let options = [
        "--retry-for",
        "60s",
        "--start-within",
        "120s",
        "--run-timeout",
        "120s",
    ];
    let job = match canary.submit(&bed, collector, &options) {
        Ok(job) => job,
        Err(ran) => {
            trace.add("not accepted", &ran.stderr_text());
            return Attempt {
                canary,
                job: None,
                watched: None,
            };
        }
    };
    trace.add("accepted", &job);
    let watched = watch.then(|| {
        let output = bed
            .invoke()
            .args(["--retry-for", "60s", "logs", "-f", &job])
            .stdin(Stdio::null())
            .output();
        output.map_or_else(
            |error| (error.to_string(), -1),
            |output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (text, output.status.code().unwrap_or(-1))
            },
        )
    });
    Attempt {
        canary,
        job: Some(job),
        watched,
    }
}
