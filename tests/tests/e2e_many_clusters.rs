//! One command on two real clusters, and schedules, which run by themselves. Both clusters are one Kubernetes,
//! each with a runner and namespaces of its own.

use std::io::Write as _;
use std::time::Duration;

use invoke_tests::bed::{Bed, bed, workspace};
use invoke_tests::process::Ran;
use invoke_tests::wait;
use serde_json::Value;

/// The namespace of the second runner, and its release.
const SECOND: &str = "invoke-system-b";

/// A second cluster, until the end of the test.
struct Second<'a> {
    bed: &'a Bed,
    name: String,
}

impl<'a> Second<'a> {
    fn install(bed: &'a Bed) -> Self {
        let second = Self {
            bed,
            name: format!("{}-b", bed.name),
        };
        let invited = ["add", "token"]
            .into_iter()
            .map(|verb| bed.ran(&["clusters", verb, &second.name]))
            .find(|ran| ran.code == 0)
            .expect("the cluster is there, or can be added");
        let mut values = tempfile::NamedTempFile::new().expect("there is room for a small file");
        values
            .write_all(&invited.stdout)
            .expect("there is room for a small file");
        let testbed = workspace().join("tests/testbed/config/values-testbed.yaml");
        let ran = bed.testbed(&[
            "helm",
            "upgrade",
            "--install",
            SECOND,
            &workspace().join("deploy/charts/runner").to_string_lossy(),
            "--namespace",
            SECOND,
            "--create-namespace",
            "--values",
            &values.path().to_string_lossy(),
            "--values",
            &testbed.to_string_lossy(),
            "--set",
            "jobsNamespace=invoke-jobs-b,priorityClassName=invoke-runner",
            "--wait",
            "--timeout",
            "120s",
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        wait::until("the second runner", Duration::from_secs(60), || {
            let clusters = bed.json(&["-o", "json", "clusters"]);
            let mut all = clusters["clusters"].as_array()?.iter();
            let cluster = all.find(|cluster| cluster["name"] == second.name.as_str())?;
            (cluster["state"] == "connected").then_some(())
        });
        second
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        let _gone = self
            .bed
            .testbed(&["helm", "uninstall", SECOND, "--namespace", SECOND]);
        let namespaces = [
            "delete",
            "namespace",
            SECOND,
            "invoke-jobs-b",
            "--ignore-not-found",
        ];
        let _gone = self.bed.kubectl(&namespaces);
    }
}

/// What a user of many clusters does; without a cluster of their own choice.
fn many(bed: &Bed, arguments: &[&str]) -> Ran {
    let mut command = bed.invoke();
    command.env_remove("INVOKE_CLUSTER");
    invoke_tests::process::run(command.args(arguments))
}

#[test]
fn one_command_runs_on_both_clusters_under_its_brakes() {
    let bed = bed();
    let second = Second::install(&bed);
    let (first, second) = (bed.name.as_str(), second.name.as_str());
    for name in [first, second] {
        let ran = bed.ran(&["clusters", "label", name, "e2e=many"]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    let ran = many(
        &bed,
        &["-l", "e2e=many", "kubectl get nodes -o name | wc -l"],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut lines: Vec<String> = ran.stdout_text().lines().map(squeezed).collect();
    lines.sort();
    assert_eq!(lines, [format!("{first} | 1"), format!("{second} | 1")]);

    let writes = "kubectl get configmap nothing-of-this-name";
    let ran = many(&bed, &["-l", "e2e=many", "touch x"]);
    assert_eq!(ran.code, 240, "nobody is there to be asked: {ran:?}");
    let canary = [
        "-l", "e2e=many", "--canary", second, "--yes", "-o", "json", writes,
    ];
    let ran = many(&bed, &canary);
    assert_eq!(ran.code, 1, "{ran:?}");
    let document: Value = serde_json::from_slice(&ran.stdout).expect("it is one document");
    let state_of = |name: &str| {
        let mut clusters = document["clusters"].as_array().into_iter().flatten();
        let cluster = clusters.find(|cluster| cluster["cluster"] == name);
        cluster
            .map(|cluster| cluster["state"].clone())
            .unwrap_or_default()
    };
    assert_eq!(
        (state_of(second), state_of(first)),
        ("failed".into(), "not_started".into())
    );

    scheduled(&bed);
}

/// Of both clusters by hand, and of one by the clock.
fn scheduled(bed: &Bed) {
    let _earlier = bed.ran(&["schedule", "delete", "e2e-both"]);
    let _earlier = bed.ran(&["schedule", "delete", "e2e-once"]);
    let both = [
        "schedule", "create", "e2e-both", "-l", "e2e=many", "--every", "6h", "date",
    ];
    assert_eq!(many(bed, &both).code, 0);
    let ran = bed.ran(&["schedule", "run-now", "--wait", "e2e-both"]);
    assert_eq!(ran.code, 0, "{ran:?}");

    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let soon = soon.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let once = [
        "schedule",
        "create",
        "e2e-once",
        "--at",
        &soon,
        "kubectl get nodes -o name",
    ];
    let ran = bed.ran(&once);
    assert_eq!(ran.code, 0, "{ran:?}");
    let tick = wait::until("its run is over", Duration::from_secs(60), || {
        let history = bed.json(&["-o", "json", "schedule", "history", "e2e-once"]);
        let tick = history["ticks"].as_array()?.first()?.clone();
        (tick["result"] == "succeeded").then_some(tick)
    });
    assert_eq!(
        (&tick["outcome"], &tick["attempts"]),
        (&"fired".into(), &1.into())
    );
    let job = tick["job"].as_str().expect("it made a job");
    assert_eq!(bed.ran(&["result", job]).stdout_text().lines().count(), 1);
    assert_eq!(
        bed.json(&["-o", "json", "jobs", job])["tick"]["schedule"],
        "e2e-once"
    );
    for name in ["e2e-both", "e2e-once"] {
        assert_eq!(bed.ran(&["schedule", "delete", name]).code, 0);
    }
}

/// With one space for many.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
