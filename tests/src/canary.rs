//! Commands whose every effect is known beforehand, and what is wrong if it is not as it was to be.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::bed::Bed;
use crate::collector::Collector;
use crate::process::Ran;
use crate::wait;

/// A command that marks its start, prints numbered lines and exits with a known code.
#[derive(Debug, Clone, Copy)]
pub struct Canary {
    /// How many lines it prints.
    pub lines: u32,
    /// How long it waits after each, in milliseconds.
    pub pause_ms: u32,
    /// What it exits with.
    pub code: u8,
}

/// What is promised of every job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I1: every accepted job reaches exactly one terminal state, in time.
    NoJobLost,
    /// I2: no command starts twice, and one that ended by itself has started once.
    NoneRunTwice,
    /// I3: the output is complete, or says that it is not.
    OutputComplete,
    /// I4: the state says what is known, and no success is false.
    ClearState,
    /// I5: nothing is left over.
    Clean,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Of which job, or of what else.
    pub object: String,
    /// How.
    pub words: String,
}

/// A violation.
#[must_use]
pub fn violation(invariant: Invariant, object: &str, words: impl Into<String>) -> Violation {
    Violation {
        invariant,
        object: object.to_owned(),
        words: words.into(),
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.invariant, self.object, self.words)
    }
}

impl Canary {
    /// Prints `lines` lines, one each 100 ms.
    #[must_use]
    pub const fn of(lines: u32, code: u8) -> Self {
        Self {
            lines,
            pause_ms: 100,
            code,
        }
    }

    /// The shell line.
    #[must_use]
    pub fn command(&self, collector: &Collector) -> String {
        let Self {
            lines,
            pause_ms,
            code,
        } = self;
        format!(
            "{}; for i in $(seq 1 {lines}); do echo line $i; sleep {}; done; exit {code}",
            collector.mark(),
            f64::from(*pause_ms) / 1000.0
        )
    }

    /// What it prints.
    #[must_use]
    pub fn stdout(&self) -> String {
        (1..=self.lines)
            .map(|number| format!("line {number}\n"))
            .collect()
    }

    /// Submits it and answers its id; the CLI's word if it was not accepted.
    ///
    /// # Errors
    /// What the CLI said, if there is no job that anyone was told of.
    pub fn submit(
        &self,
        bed: &Bed,
        collector: &Collector,
        options: &[&str],
    ) -> Result<String, Ran> {
        let command = self.command(collector);
        let mut arguments = vec!["--no-wait"];
        arguments.extend(options);
        arguments.push(&command);
        let ran = bed.ran(&arguments);
        if ran.code == 0 {
            Ok(ran.stdout_text().trim().to_owned())
        } else {
            Err(ran)
        }
    }

    /// Waits until the job is over, and compares everything that is known of it with what was to be.
    #[must_use]
    pub fn check(
        &self,
        bed: &Bed,
        collector: &Collector,
        job: &str,
        limit: Duration,
    ) -> Vec<Violation> {
        match over(bed, job, limit) {
            Some(document) => self.judge(&document, collector.starts(job)),
            None => vec![violation(
                Invariant::NoJobLost,
                job,
                format!(
                    "it is not over after {limit:?}: {}",
                    bed.ran(&["jobs", job]).stdout_text()
                ),
            )],
        }
    }

    /// What is wrong with a job that is over and whose command has started `starts` times.
    #[must_use]
    pub fn judge(&self, job: &Value, starts: usize) -> Vec<Violation> {
        let id = job["id"].as_str().unwrap_or("?");
        let state = job["state"].as_str().unwrap_or("?");
        let mut found = Vec::new();
        let mut broken = |invariant, words: String| found.push(violation(invariant, id, words));

        let ended_by_itself = matches!(state, "succeeded" | "failed");
        if starts > 1 {
            broken(
                Invariant::NoneRunTwice,
                format!("its command has started {starts} times"),
            );
        }
        if ended_by_itself && starts == 0 {
            broken(
                Invariant::ClearState,
                format!("it is {state}, and its command never started"),
            );
        }
        let never = matches!(state, "expired" | "rejected" | "infra_failed");
        if never && starts > 0 {
            broken(
                Invariant::ClearState,
                format!("it is {state}, and its command has started"),
            );
        }
        let said = job["started"].as_str().unwrap_or("?");
        if said == "no" && starts > 0 || said == "yes" && starts == 0 {
            broken(
                Invariant::ClearState,
                format!("started: {said}, and it has started {starts} times"),
            );
        }
        if job["reason"]["code"]
            .as_str()
            .is_none_or(|code| code == "unknown")
        {
            broken(
                Invariant::ClearState,
                format!("it is {state} without a reason"),
            );
        }
        if ended_by_itself && job["exit_code"] != self.code {
            broken(
                Invariant::ClearState,
                format!("its exit code is {}, not {}", job["exit_code"], self.code),
            );
        }
        if state == "succeeded" && self.code != 0 {
            broken(
                Invariant::ClearState,
                format!("it is called a success and left with {}", self.code),
            );
        }
        let stdout = job["stdout"].as_str().unwrap_or_default();
        let whole = self.stdout();
        match job["output_complete"].as_str() {
            Some("yes") if starts > 0 && ended_by_itself && stdout != whole => broken(
                Invariant::OutputComplete,
                format!(
                    "its output is called complete and is not: {} of {} bytes",
                    stdout.len(),
                    whole.len()
                ),
            ),
            Some("no") if job["output_incomplete_reason"].is_null() => {
                broken(
                    Invariant::OutputComplete,
                    "its output is incomplete for no reason".to_owned(),
                );
            }
            Some("yes" | "no") => {}
            other => broken(
                Invariant::OutputComplete,
                format!("output_complete is {other:?}"),
            ),
        }
        if !whole.starts_with(stdout) && starts <= 1 {
            broken(
                Invariant::OutputComplete,
                "its output is not what the command printed".to_owned(),
            );
        }
        found
    }
}

/// The document of a job as soon as it is over; `None` if it is not within `limit`.
#[must_use]
pub fn over(bed: &Bed, job: &str, limit: Duration) -> Option<Value> {
    wait::within(limit, || {
        let ran = bed.ran(&["--retry-for", "2s", "-o", "json", "jobs", job]);
        let document: Value = serde_json::from_slice(&ran.stdout).ok()?;
        is_over(&document).then_some(document)
    })
}

/// Whether a job, as JSON, is over.
#[must_use]
pub fn is_over(job: &Value) -> bool {
    !matches!(
        job["state"].as_str(),
        None | Some("queued" | "claimed" | "starting" | "running" | "contact_lost" | "cancelling")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job() -> Value {
        json!({
            "id": "a", "state": "failed", "started": "yes", "exit_code": 3, "reason": {"code": "exited"},
            "output_complete": "yes", "output_incomplete_reason": null, "stdout": "line 1\nline 2\n",
        })
    }

    fn broken(change: &Value, starts: usize) -> Vec<Invariant> {
        let mut job = job();
        for (name, value) in change.as_object().unwrap() {
            job[name] = value.clone();
        }
        let found = Canary::of(2, 3).judge(&job, starts);
        found
            .into_iter()
            .map(|violation| violation.invariant)
            .collect()
    }

    /// The checker itself: what it lets pass, no test would find.
    #[test]
    fn each_broken_promise_is_found() {
        use Invariant::{ClearState, NoneRunTwice, OutputComplete};
        assert_eq!(broken(&json!({}), 1), []);
        assert_eq!(broken(&json!({}), 2), [NoneRunTwice]);
        assert_eq!(broken(&json!({}), 0), [ClearState, ClearState]);
        assert_eq!(broken(&json!({"reason": null}), 1), [ClearState]);
        assert_eq!(broken(&json!({"exit_code": 0}), 1), [ClearState]);
        assert_eq!(
            broken(&json!({"state": "succeeded", "exit_code": 3}), 1),
            [ClearState]
        );
        assert_eq!(broken(&json!({"stdout": "line 1\n"}), 1), [OutputComplete]);
        assert_eq!(
            broken(&json!({"stdout": "line 1\nline 1\nline 2\n"}), 1),
            [OutputComplete, OutputComplete]
        );
        let cut = json!({"stdout": "line 1\n", "output_complete": "no"});
        assert_eq!(broken(&cut, 1), [OutputComplete]);
        let flagged = json!({"stdout": "line 1\n", "output_complete": "no", "output_incomplete_reason": "pod_gone"});
        assert_eq!(broken(&flagged, 1), []);
        let late = json!({"state": "expired", "started": "no", "exit_code": null, "stdout": ""});
        assert_eq!(broken(&late, 0), []);
        assert_eq!(broken(&late, 1), [ClearState, ClearState]);
    }
}
