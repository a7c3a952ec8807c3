//! Bad input: each a clear message, the right exit code, and nothing left behind.

use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, bed};
use invoke_tests::process::Ran;
use invoke_tests::wait;

/// Runs what must be refused before a job exists: code, words on stderr, nothing on stdout.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) -> Ran {
    let ran = bed().ran(arguments);
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    assert_eq!(ran.stdout_text(), "", "{arguments:?}: {ran:?}");
    for word in words {
        assert!(
            ran.stderr_text().contains(word),
            "{arguments:?} should mention {word:?}: {ran:?}"
        );
    }
    ran
}

fn newest_job(bed: &Bed) -> String {
    bed.json(&["-o", "json", "jobs", "--limit", "1"])["jobs"][0]["id"].to_string()
}

#[test]
fn what_is_no_command_is_refused_before_anything_is_sent() {
    refused(&[""], 240, &["empty"]);
    refused(&["  \n "], 240, &["empty"]);
    refused(&["--", ""], 240, &["empty"]);
    // One argument of 128 KiB cannot be passed to any program, so it comes in two.
    let half = "x".repeat(100 * 1024);
    refused(&["--", "echo", &half, &half], 240, &["128 KiB"]);
    refused(&["kubectl", "get", "pods"], 240, &["--"]);
}

#[test]
fn unknown_names_are_answered_with_near_ones() {
    let bed = bed();
    let near = format!("{}x", bed.name);
    refused(&["-c", &near, "true"], 240, &[&near, &bed.name]);
    refused(&["-c", "Not A Name", "true"], 240, &["Not A Name"]);
    refused(
        &["--profile", "defualt", "true"],
        240,
        &["defualt", "default"],
    );
}

#[test]
fn an_id_that_is_none_and_one_that_names_nothing_differ() {
    refused(&["result", "42"], 240, &["42", "UUID"]);
    let nothing = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";
    for verb in ["result", "logs", "cancel"] {
        refused(&[verb, nothing], 240, &[nothing]);
    }
}

#[test]
fn a_dispatcher_that_cannot_be_trusted_is_not_talked_to() {
    let bed = bed();
    let with = |name: &str, value: &str| {
        let mut command = bed.invoke();
        invoke_tests::process::run(command.env(name, value).args(["-c", &bed.name, "true"]))
    };
    let nobody = with("INVOKE_URL", &format!("https://{}:1", bed.hub_ip));
    assert_eq!(nobody.code, 241, "{nobody:?}");
    assert!(
        nobody.stderr_text().contains(&format!("{}:1", bed.hub_ip)),
        "{nobody:?}"
    );

    let another_authority = invoke_tests::bed::variable("INVOKE_TEST_AMQP_CA");
    let untrusted = with("INVOKE_CA_FILE", &another_authority);
    assert_eq!(untrusted.code, 241, "{untrusted:?}");
    assert!(
        untrusted.stderr_text().contains("certificate"),
        "{untrusted:?}"
    );

    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "invoke_wrong").unwrap();
    let stranger = with("INVOKE_TOKEN_FILE", token.path().to_str().unwrap());
    assert_eq!(stranger.code, 242, "{stranger:?}");
    assert!(
        !stranger.stderr_text().contains("invoke_wrong"),
        "a token is never printed: {stranger:?}"
    );

    let broker = with("INVOKE_URL", &format!("https://{}:15671", bed.hub_ip));
    assert_eq!(
        broker.code, 241,
        "RabbitMQ's management page is no dispatcher: {broker:?}"
    );
}

/// A refused submission leaves no job, and no job leaves a pod.
#[test]
fn a_refusal_leaves_nothing_behind() {
    let bed = bed();
    let id = bed.ran(&["--no-wait", "true"]).stdout_text();
    assert_eq!(bed.ran(&["logs", "-f", id.trim()]).code, 0);
    let profile = "nosuchprofile";
    refused(&["--profile", profile, "true"], 240, &[profile]);
    let listed = bed.json(&["-o", "json", "jobs", "--limit", "500"]);
    assert!(
        !listed["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|job| job["profile"] == profile),
        "{}",
        newest_job(&bed)
    );
}

/// A cluster that never came: the job says so at once, and expires at its deadline, to the second.
#[test]
fn a_job_for_a_cluster_that_never_came_expires_on_time() {
    let bed = bed();
    let name = format!("never-{}", std::process::id());
    let invitation = bed.ran(&["clusters", "add", &name]);
    assert_eq!(invitation.code, 0, "{invitation:?}");
    assert!(
        invitation.stdout_text().contains("joinToken: "),
        "{invitation:?}"
    );
    refused(&["clusters", "add", &name], 240, &[&name]);

    let begin = Instant::now();
    let ran = bed.ran(&["-c", &name, "--start-within", "3s", "echo never"]);
    let took = begin.elapsed();
    assert_eq!(ran.code, 243, "{ran:?}");
    assert_eq!(ran.stdout_text(), "");
    assert!(ran.stderr_text().contains("never"), "why it waits: {ran:?}");
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(6),
        "expired after {took:?}"
    );
}

/// A pod that no node takes: the scheduler's own sentence within seconds, while it still waits.
#[test]
fn a_pod_that_cannot_be_scheduled_says_so_in_seconds() {
    let bed = bed();
    let id = bed
        .ran(&[
            "--profile",
            "unschedulable",
            "--no-wait",
            "--start-within",
            "20s",
            "true",
        ])
        .stdout_text();
    let id = id.trim();
    let waiting = wait::until("the scheduler's word", Duration::from_secs(15), || {
        let job = bed.json(&["-o", "json", "jobs", id]);
        (job["waiting"]["code"] == "pod_unschedulable")
            .then(|| job["waiting"]["message"].to_string())
    });
    assert!(waiting.contains("nodes are available"), "{waiting}");
    let ran = bed.ran(&["logs", "-f", id]);
    assert_eq!(ran.code, 243, "{ran:?}");
    assert!(
        ran.stderr_text().contains("nodes are available"),
        "also at the end: {ran:?}"
    );
    wait::until("its pod to be gone", Duration::from_secs(30), || {
        bed.job_pods()
            .iter()
            .all(|pod| !pod.contains(id))
            .then_some(())
    });
}

/// An image that cannot be had ends the job with the kubelet's own words, long before the deadline.
#[test]
fn an_image_that_cannot_be_pulled_ends_the_job_in_seconds() {
    let bed = bed();
    let begin = Instant::now();
    let ran = bed.ran(&["--profile", "no-such-image", "true"]);
    assert_eq!(ran.code, 244, "{ran:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        ran.stderr_text().contains("no-such-image"),
        "which image: {ran:?}"
    );
    let job = bed.json(&["-o", "json", "jobs", "--limit", "100"])["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["profile"] == "no-such-image")
        .cloned()
        .unwrap();
    assert_eq!(
        (job["state"].as_str(), job["started"].as_str()),
        (Some("infra_failed"), Some("no")),
        "{job}"
    );
    assert_eq!(job["reason"]["code"], "image_pull", "{job}");
}
