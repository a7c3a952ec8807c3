//! One job at a time, each with a pod of its own: how long it takes, when its end is seen, and what it
//! costs the API server.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, variable};
use invoke_tests::wait;
use jiff::Timestamp;
use serde_json::Value;

use crate::peers;
use crate::table::{Bound, Figure, percentile};

/// How many jobs.
const JOBS: usize = 20;

/// How many pods of `kubectl run` beside them.
const BESIDE: usize = 5;

/// Measures.
///
/// # Panics
/// If a job does not end well.
pub(crate) fn measure(bed: &Bed) -> Vec<Figure> {
    let audit = Audit::begin();
    let mut taken = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..JOBS {
        let begin = Instant::now();
        let ran = bed.ran(&["echo $INVOKE_JOB_ID"]);
        let end = Timestamp::now();
        taken.push(begin.elapsed());
        assert_eq!(ran.code, 0, "{ran:?}");
        seen.push(since_finished(bed, ran.stdout_text().trim(), end));
    }
    wait::until("the pods to be gone", Duration::from_secs(60), || {
        bed.job_pods().is_empty().then_some(())
    });
    let writes = audit.writes_of_runner();
    let mut beside: Vec<_> = (0..BESIDE)
        .map(|number| peers::kubectl_run(bed, number))
        .collect();
    let mut direct: Vec<_> = (0..BESIDE).map(|_| peers::kubectl_get(bed)).collect();
    let beside_run = format!(
        "`kubectl run --attach --rm` by the cluster's admin: {:.0?}; `kubectl get nodes`: {:.0?}",
        percentile(&mut beside, 50),
        percentile(&mut direct, 50)
    );
    let median = format!("p50 {:.0?}", percentile(&mut seen, 50));
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let each = writes.len() as f64 / JOBS as f64;
    vec![
        Figure::time(
            "a cold job from `invoke` to its exit, p50",
            Bound::Told,
            percentile(&mut taken, 50),
            beside_run,
        ),
        Figure::time(
            "from the command's exit to the watching CLI's, p95",
            Bound::Under(150.0),
            percentile(&mut seen, 95),
            median,
        ),
        Figure::count(
            "writes to the API server by the runner",
            Bound::AtMost(6.0),
            each,
            "a cold job",
            summed_up(writes),
        ),
    ]
}

/// From the moment at which the shim saw the command end, by the same clock: the node is this machine.
fn since_finished(bed: &Bed, job: &str, end: Timestamp) -> Duration {
    let job = bed.json(&["-o", "json", "jobs", job]);
    let finished: Timestamp = job["times"]["finished"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("a job that ended says when: {job}"));
    Duration::try_from(end.duration_since(finished)).unwrap_or_default()
}

/// The API server's audit log, from some moment on.
struct Audit {
    path: PathBuf,
    from: u64,
}

impl Audit {
    fn begin() -> Self {
        let path = PathBuf::from(variable("INVOKE_TESTBED_STATE")).join("logs/audit.log");
        let from = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, from }
    }

    /// What the runner has written since then, as `verb resource`.
    fn writes_of_runner(&self) -> Vec<String> {
        let mut file = std::fs::File::open(&self.path).expect("the API server has an audit log");
        file.seek(SeekFrom::Start(self.from))
            .expect("the log can be read");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the log is text");
        text.lines().filter_map(write_of_runner).collect()
    }
}

fn write_of_runner(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let by_runner = entry["user"]["username"]
        .as_str()?
        .starts_with("system:serviceaccount:invoke-system:");
    let verb = entry["verb"].as_str()?;
    let writes = ["create", "update", "patch", "delete", "deletecollection"].contains(&verb);
    let object = &entry["objectRef"];
    let resource = object["resource"].as_str()?;
    let name = match object["subresource"].as_str() {
        Some(subresource) => format!("{verb} {resource}/{subresource}"),
        None => format!("{verb} {resource}"),
    };
    (by_runner && writes && entry["stage"] == "ResponseComplete").then_some(name)
}

/// How often each was written.
fn summed_up(mut writes: Vec<String>) -> String {
    writes.sort();
    let words: Vec<_> = writes
        .chunk_by(|one, other| one == other)
        .map(|same| format!("{} {}", same.len(), same[0]))
        .collect();
    format!("of {JOBS} jobs: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::write_of_runner;

    #[test]
    fn only_the_runners_finished_writes_count() {
        let line = |user: &str, verb: &str, stage: &str| {
            format!(
                r#"{{"user":{{"username":"{user}"}},"verb":"{verb}","stage":"{stage}",
                   "objectRef":{{"resource":"pods","subresource":"status"}}}}"#
            )
        };
        let runner = "system:serviceaccount:invoke-system:invoke-runner";
        let (done, begun) = ("ResponseComplete", "ResponseStarted");
        assert_eq!(
            write_of_runner(&line(runner, "patch", done)).as_deref(),
            Some("patch pods/status")
        );
        assert_eq!(write_of_runner(&line(runner, "patch", begun)), None);
        assert_eq!(write_of_runner(&line(runner, "list", done)), None);
        assert_eq!(write_of_runner(&line("admin", "patch", done)), None);
    }
}
