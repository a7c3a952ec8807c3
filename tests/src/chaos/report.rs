//! What is left when the storm is over: every canary judged, and what lies about.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::storm::Attempt;
use crate::bed::{Bed, variable, workspace};
use crate::broker;
use crate::canary::{Invariant, Violation, over, violation};
use crate::collector::Collector;
use crate::process::run;
use crate::wait;

/// What came of a storm.
#[derive(Debug, Default)]
pub struct Report {
    /// Canaries that somebody tried to submit.
    pub attempted: usize,
    /// Those that the dispatcher said were accepted.
    pub accepted: usize,
    /// How many of the accepted ended in which state.
    pub states: BTreeMap<String, usize>,
    /// How many commands have started.
    pub started: usize,
    /// Every promise that was broken.
    pub violations: Vec<Violation>,
}

/// Waits for everything to be over, and judges it. Nothing may take longer than its start deadline, its
/// run deadline and two minutes.
#[must_use]
pub fn judge(bed: &Bed, attempts: &[Attempt], collector: &Collector, limit: Duration) -> Report {
    let begin = Instant::now();
    let mut report = Report {
        attempted: attempts.len(),
        ..Report::default()
    };
    for attempt in attempts {
        let Some(job) = &attempt.job else { continue };
        report.accepted += 1;
        report.started += usize::from(collector.starts(job) > 0);
        let left = limit.saturating_sub(begin.elapsed());
        let Some(document) = over(bed, job, left) else {
            let words = "it was accepted, and is not over";
            report
                .violations
                .push(violation(Invariant::NoJobLost, job, words));
            continue;
        };
        let state = document["state"].as_str().unwrap_or("?").to_owned();
        *report.states.entry(state).or_default() += 1;
        report
            .violations
            .extend(attempt.canary.judge(&document, collector.starts(job)));
        report
            .violations
            .extend(judge_watcher(attempt, job, &document));
    }
    report.violations.extend(left_over(bed));
    report
}

/// Who watched sees all of it, once, and leaves with the command's own code.
fn judge_watcher(attempt: &Attempt, job: &str, document: &Value) -> Option<Violation> {
    let (printed, code) = attempt.watched.as_ref()?;
    if document["output_complete"] != "yes" || document["exit_code"].is_null() {
        return None;
    }
    let whole = printed == &attempt.canary.stdout() && *code == i32::from(attempt.canary.code);
    (!whole).then(|| {
        let words = format!(
            "its watcher printed {} bytes and left with {code}",
            printed.len()
        );
        violation(Invariant::OutputComplete, job, words)
    })
}

/// I5: messages, pods, records of the relay.
fn left_over(bed: &Bed) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |object: &str, count: &dyn Fn() -> Option<u64>| {
        let clean = wait::within(Duration::from_secs(90), || (count()? == 0).then_some(()));
        if clean.is_none() {
            found.push(violation(
                Invariant::Clean,
                object,
                format!("{:?} are left over", count()),
            ));
        }
    };
    check("pods", &|| Some(bed.job_pods().len() as u64));
    check("messages", &messages);
    check("outbox entries", &outbox);
    found
}

fn messages() -> Option<u64> {
    let queues = broker::ask("/api/queues")?;
    queues
        .as_array()?
        .iter()
        .map(|queue| queue["messages"].as_u64())
        .sum()
}

fn outbox() -> Option<u64> {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let query = "SELECT COUNT(*) FROM outbox";
    let ran = run(std::process::Command::new("psql").args(["-X", "-A", "-t", "-c", query, &url]));
    ran.stdout_text().trim().parse().ok()
}

/// The reports that were kept, by seed.
#[must_use]
pub fn summaries() -> Vec<(u64, String)> {
    let seed = |path: &Path| {
        path.file_stem()?
            .to_str()?
            .strip_prefix("seed-")?
            .parse()
            .ok()
    };
    let entries = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .filter_map(|path| Some((seed(&path)?, std::fs::read_to_string(&path).ok()?)))
        .collect();
    found.sort();
    found
}

/// Where reports and traces are kept.
#[must_use]
pub fn folder() -> PathBuf {
    workspace().join("target/chaos")
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn count(&self, invariant: Invariant, words: &str) -> usize {
        let matching = |violation: &&Violation| {
            violation.invariant == invariant && violation.words.contains(words)
        };
        self.violations.iter().filter(matching).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: Vec<_> = self
            .states
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let lines = [
            ("attempted", self.attempted.to_string()),
            (
                "accepted",
                format!("{} ({})", self.accepted, states.join(", ")),
            ),
            ("started", self.started.to_string()),
            ("lost", self.count(Invariant::NoJobLost, "").to_string()),
            (
                "started twice",
                self.count(Invariant::NoneRunTwice, "").to_string(),
            ),
            (
                "false successes",
                self.count(Invariant::ClearState, "success").to_string(),
            ),
            (
                "output mismatches",
                self.count(Invariant::OutputComplete, "").to_string(),
            ),
            (
                "unexplained states",
                self.count(Invariant::ClearState, "").to_string(),
            ),
            ("left over", self.count(Invariant::Clean, "").to_string()),
        ];
        for (name, value) in lines {
            writeln!(f, "{name:<20}{value}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
