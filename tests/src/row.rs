//! One row of the matrix of faults: a scenario that holds, and the same scenario that does not, once
//! the protection that the row is about is turned off.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::{Bed, bed, workspace};
use crate::canary::{Canary, Invariant, Violation, violation};
use crate::collector::Collector;
use crate::hooks::{Program, set};
use crate::wait;

/// A row of the matrix.
pub struct Row {
    /// Its number in the matrix.
    pub number: u8,
    /// What is done to which part.
    pub fault: &'static str,
    /// How the negative control is made.
    pub without: Without,
    /// The promise that the negative control breaks.
    pub breaks: Invariant,
}

/// How a protection is turned off.
#[derive(Debug, Clone, Copy)]
pub enum Without {
    /// By a sabotage switch of the dispatcher, which also lasts through its restarts.
    Dispatcher(&'static str),
    /// By a sabotage switch of the runner, or with the prefix `shim.` of the shims of the pods that it
    /// makes; which also lasts through its restarts.
    Runner(&'static str),
    /// By what the scenario does itself when [`World::is_sabotaged`]; these words say what.
    Scenario(&'static str),
}

/// What a scenario works with.
pub struct World {
    /// The test bed.
    pub bed: Bed,
    /// Counts starts.
    pub collector: Collector,
    sabotaged: bool,
}

/// The test bed is one: rows run one after another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// For a test that is no row and needs the test bed for itself.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a scenario twice: as the product is, and without the protection.
///
/// # Panics
/// If the first finds a violation, or the second does not find one of the row's promise.
pub fn prove(row: &Row, scenario: impl Fn(&World) -> Vec<Violation>) {
    let _alone = alone();
    let began = Instant::now();
    let record =
        |positive: &str, control: &str| write_record(row, positive, control, began.elapsed());
    record("failed", "not run");
    let mut world = World::new();
    let found = scenario(&world);
    assert!(found.is_empty(), "row {}: {}", row.number, words(&found));
    record("passed", "failed");
    world.sabotaged = true;
    let sabotage = Sabotage::new(&world.bed, row.without);
    let found = scenario(&world);
    drop(sabotage);
    world.bed.await_connected();
    assert!(
        found
            .iter()
            .any(|violation| violation.invariant == row.breaks),
        "row {}: the test did not see that {:?} was off: {}",
        row.number,
        row.without,
        words(&found)
    );
    record("passed", "red, as it must be");
}

impl World {
    /// The test bed, whole and connected.
    #[must_use]
    pub fn new() -> Self {
        let bed = bed();
        bed.await_connected();
        let collector = Collector::start(&bed.hub_ip);
        Self {
            bed,
            collector,
            sabotaged: false,
        }
    }

    /// Whether this is the negative control.
    #[must_use]
    pub const fn is_sabotaged(&self) -> bool {
        self.sabotaged
    }

    /// Submits a canary that must be accepted.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn submit(&self, canary: &Canary, options: &[&str]) -> String {
        canary
            .submit(&self.bed, &self.collector, options)
            .unwrap_or_else(|ran| panic!("the canary was not accepted: {ran:?}"))
    }

    /// Waits until these canaries are over, and judges each; then looks for what is left over.
    #[must_use]
    pub fn settle(&self, canary: &Canary, jobs: &[String], limit: Duration) -> Vec<Violation> {
        let begin = Instant::now();
        let mut found = Vec::new();
        for job in jobs {
            let left = limit.saturating_sub(begin.elapsed());
            found.extend(canary.check(&self.bed, &self.collector, job, left));
        }
        found.extend(self.left_over());
        found
    }

    /// As [`Self::settle`]; and each has run, as if nothing had happened: an end that is clear and says
    /// that it never started is a loss too.
    #[must_use]
    pub fn settle_run(&self, canary: &Canary, jobs: &[String], limit: Duration) -> Vec<Violation> {
        let mut found = self.settle(canary, jobs, limit);
        for job in jobs {
            let document = self.job(job).unwrap_or_default();
            if document["exit_code"] != canary.code {
                let words = format!("it has not run: it is {}", document["state"]);
                found.push(violation(Invariant::NoJobLost, job, words));
            }
        }
        found
    }

    /// All of its output is there, and not only an output that says that it is not complete.
    #[must_use]
    pub fn has_all_output(&self, canary: &Canary, job: &str) -> Option<Violation> {
        let document = self.job(job).unwrap_or_default();
        let printed = self.bed.ran(&["--retry-for", "1s", "logs", job]);
        if document["output_complete"] == "yes" && printed.stdout_text() == canary.stdout() {
            return None;
        }
        let why = &document["output_incomplete_reason"];
        let words = format!("not all of its output is there ({why}): {printed:?}");
        Some(violation(Invariant::OutputComplete, job, words))
    }

    /// How often a step is in the story of a job.
    #[must_use]
    pub fn steps(&self, job: &str, step: &str) -> usize {
        let document = self.job(job).unwrap_or_default();
        let story = document["story"].as_array().into_iter().flatten();
        story.filter(|told| told["step"] == step).count()
    }

    /// Waits until a step is in the story of a job.
    ///
    /// # Panics
    /// If it is not within `limit`.
    pub fn await_step(&self, job: &str, step: &str, limit: Duration) {
        wait::until(&format!("{step} in the story of job {job}"), limit, || {
            (self.steps(job, step) > 0).then_some(())
        });
    }

    /// Waits until a job is in one of these states.
    ///
    /// # Panics
    /// If it is not within `limit`.
    pub fn await_state(&self, job: &str, states: &[&str], limit: Duration) {
        wait::until(&format!("job {job} to be {states:?}"), limit, || {
            let document = self.job(job)?;
            states.contains(&document["state"].as_str()?).then_some(())
        });
    }

    /// Waits until the command of a job has started.
    ///
    /// # Panics
    /// If it has not within `limit`.
    pub fn await_start(&self, job: &str, limit: Duration) {
        wait::until(&format!("the command of job {job} to start"), limit, || {
            (self.collector.starts(job) > 0).then_some(())
        });
    }

    /// A job as it is; `None` while the dispatcher does not answer.
    #[must_use]
    pub fn job(&self, job: &str) -> Option<serde_json::Value> {
        let ran = self
            .bed
            .ran(&["--retry-for", "1s", "-o", "json", "jobs", job]);
        serde_json::from_slice(&ran.stdout).ok()
    }

    /// I5: 45 seconds after everything is over, at the latest, there are no pods of jobs.
    #[must_use]
    pub fn left_over(&self) -> Option<Violation> {
        let clean = wait::within(Duration::from_secs(45), || {
            self.bed.job_pods().is_empty().then_some(())
        });
        match clean {
            Some(()) => None,
            None => Some(violation(
                Invariant::Clean,
                "pods",
                format!("left over: {}", self.bed.job_pods().join(" ")),
            )),
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A protection that is off until the end.
struct Sabotage<'a> {
    bed: &'a Bed,
    without: Without,
}

impl<'a> Sabotage<'a> {
    fn new(bed: &'a Bed, without: Without) -> Self {
        match without {
            Without::Dispatcher(name) => restart_dispatcher(bed, Some(name)),
            Without::Runner(name) => set_on_deployment(bed, &format!("INVOKE_HOOKS={name}=return")),
            Without::Scenario(_) => {}
        }
        Self { bed, without }
    }
}

impl Drop for Sabotage<'_> {
    fn drop(&mut self) {
        match self.without {
            Without::Dispatcher(_) => restart_dispatcher(self.bed, None),
            Without::Runner(_) => set_on_deployment(self.bed, "INVOKE_HOOKS-"),
            Without::Scenario(_) => {}
        }
    }
}

/// With `INVOKE_HOOKS` in the part's remembered environment, so that a restart by the scenario keeps it.
fn restart_dispatcher(bed: &Bed, sabotage: Option<&str>) {
    let hooks = sabotage.map_or_else(String::new, |name| format!("{name}=return"));
    let ran = bed.testbed(&["hooks", &hooks]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = bed.testbed(&["restart", "dispatcher"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    bed.await_connected();
}

/// Sets a variable of the runner's environment (`NAME=value`), or removes it (`NAME-`), and waits until
/// every replica has it so.
///
/// # Panics
/// If Kubernetes refuses, or the runner does not come back.
pub fn set_on_deployment(bed: &Bed, assignment: &str) {
    let deployment = ["-n", "invoke-system", "deployment/invoke-runner"];
    for (verb, words) in [
        (["set", "env"], assignment),
        (["rollout", "status"], "--timeout=90s"),
    ] {
        // The order is kubectl's: an assignment comes after the object.
        let arguments = [verb.as_slice(), &deployment, &[words]].concat();
        let ran = bed.kubectl(&arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    bed.await_connected();
}

/// Arms a fail point once, in a program that runs now.
pub fn arm_once(world: &World, program: Program, point: &str) {
    set(&world.bed, program, point, "1*return");
}

/// The violations as text.
#[must_use]
pub fn words(found: &[Violation]) -> String {
    if found.is_empty() {
        return "no violation".to_owned();
    }
    found
        .iter()
        .map(|violation| format!("\n  {violation}"))
        .collect()
}

/// For the page in the docs: one file a row, made anew by each run.
fn write_record(row: &Row, positive: &str, control: &str, took: Duration) {
    let without = match row.without {
        Without::Dispatcher(name) | Without::Runner(name) => name,
        Without::Scenario(words) => words,
    };
    let record = json!({
        "row": row.number,
        "fault": row.fault,
        "test": test(),
        "without": without,
        "breaks": format!("{:?}", row.breaks),
        "positive": positive,
        "control": control,
        "seconds": took.as_secs(),
    });
    let folder = records();
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let file = folder.join(format!("{}.json", test().replace("::", "-")));
    std::fs::write(file, record.to_string()).expect("the target folder can be written");
}

/// The name of the test that runs in this thread.
fn test() -> String {
    std::thread::current().name().unwrap_or("row").to_owned()
}

/// Where the records of the rows are.
#[must_use]
pub fn records() -> PathBuf {
    workspace().join("target/faults")
}
