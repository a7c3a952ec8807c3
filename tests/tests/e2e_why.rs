//! What a job waits for, what it died of, and its story: what the person on call asks first.

use std::time::Duration;

use invoke_tests::bed::{Bed, bed};
use invoke_tests::wait;
use serde_json::Value;

fn submit(bed: &Bed, arguments: &[&str]) -> String {
    let mut line = vec!["--no-wait"];
    line.extend(arguments);
    let ran = bed.ran(&line);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout_text().trim().to_owned()
}

fn steps(job: &Value) -> Vec<&str> {
    let story = job["story"]
        .as_array()
        .expect("a job that is shown alone has a story");
    story
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect()
}

/// Whether these steps come in this order; others may lie between.
fn tells(job: &Value, expected: &[&str]) -> bool {
    let mut expected = expected.iter().peekable();
    for step in steps(job) {
        expected.next_if(|next| **next == step);
    }
    expected.next().is_none()
}

#[test]
fn a_job_that_succeeded_tells_every_step_and_who_took_it() {
    let bed = bed();
    let id = submit(&bed, &["echo told"]);
    assert_eq!(bed.ran(&["logs", "-f", &id]).code, 0);
    let job = bed.json(&["-o", "json", "jobs", &id]);
    let expected = [
        "submitted",
        "published",
        "claimed",
        "pod_created",
        "permitted",
        "ended",
    ];
    assert!(tells(&job, &expected), "{:?}", steps(&job));
    assert_eq!(
        job["reason"]["code"], "exited",
        "every end has a reason: {job}"
    );
    let story = job["story"].as_array().expect("checked above");
    assert!(
        story
            .iter()
            .all(|step| step["at"].is_string() && step["by"].is_string())
    );
    assert_eq!(story[0]["by"], job["submitted_by"]);
    let claimed = story.iter().find(|step| step["step"] == "claimed");
    let by = claimed
        .and_then(|step| step["by"].as_str())
        .unwrap_or_default();
    assert!(by.starts_with(&format!("runner {}/", bed.name)), "{by}");

    let text = bed.ran(&["jobs", &id]).stdout_text();
    assert!(text.contains("permitted to start"), "{text}");
    let why = bed.ran(&["why", &id]);
    assert_eq!(why.code, 0, "{why:?}");
    assert!(why.stdout_text().contains("succeeded"), "{why:?}");
}

/// The scheduler's own sentence; and the deadline is kept to the second.
#[test]
fn what_no_node_takes_says_so_and_expires_to_the_second() {
    let bed = bed();
    let id = submit(
        &bed,
        &[
            "--profile",
            "unschedulable",
            "--start-within",
            "8s",
            "echo late",
        ],
    );
    let why = wait::until("the scheduler's sentence", Duration::from_secs(8), || {
        let why = bed.json(&["-o", "json", "why", &id]);
        (why["code"] == "pod_unschedulable").then_some(why)
    });
    let message = why["message"].as_str().unwrap_or_default();
    assert!(message.contains("nodes are available"), "{why}");

    let ran = bed.ran(&["logs", "-f", &id]);
    assert_eq!(ran.code, 243, "{ran:?}");
    let job = bed.json(&["-o", "json", "jobs", &id]);
    assert_eq!(
        (job["started"].as_str(), job["reason"]["code"].as_str()),
        (Some("no"), Some("pod_unschedulable")),
        "{job}"
    );
    let (ended, deadline) = (&job["times"]["ended"], &job["times"]["start_deadline"]);
    // Also over midnight.
    let late = (microseconds(ended) - microseconds(deadline)).rem_euclid(86_400_000_000);
    assert!(
        (0..1_000_000).contains(&late),
        "{late} µs after its deadline: {job}"
    );
}

/// The kubelet's own words, and where to look.
#[test]
fn an_image_that_is_not_there_is_named() {
    let bed = bed();
    let id = submit(&bed, &["--profile", "no-such-image", "echo never"]);
    assert_eq!(bed.ran(&["logs", "-f", &id]).code, 244);
    let why = bed.ran(&["why", &id]).stdout_text();
    assert!(why.contains("localhost/no-such-image:1"), "{why}");
}

/// Requested, delivered, dead: and SIGKILL comes when the grace is over, not when the command likes.
#[test]
fn a_cancel_shows_its_three_stages_and_keeps_its_grace() {
    let bed = bed();
    let id = submit(
        &bed,
        &["trap '' TERM; echo up; while :; do sleep 0.2; done"],
    );
    wait::until("the first line", Duration::from_secs(60), || {
        bed.ran(&["logs", &id])
            .stdout_text()
            .contains("up")
            .then_some(())
    });
    let ran = bed.ran(&["cancel", "--grace", "2s", &id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let words = ran.stderr_text();
    let stages = ["cancel requested", "delivered", "dead"];
    let places: Vec<_> = stages.iter().map(|stage| words.find(stage)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{words}"
    );
    let job = bed.json(&["-o", "json", "jobs", &id]);
    assert!(
        tells(
            &job,
            &["permitted", "cancel_requested", "cancel_delivered", "ended"]
        ),
        "{:?}",
        steps(&job)
    );
    let stopped = bed.json(&["-o", "json", "why", &id]);
    assert_eq!(stopped["code"], "cancelled", "{stopped}");
}

/// More than the profile allows is refused in words, not quietly made less.
#[test]
fn a_run_timeout_over_the_profiles_maximum_is_refused() {
    let ran = bed().ran(&["--run-timeout", "720h", "true"]);
    assert_eq!(ran.code, 240, "{ran:?}");
    assert!(
        ran.stderr_text().contains("default"),
        "the profile is named: {ran:?}"
    );
}

/// The dispatcher's RFC 3339 in UTC, as microseconds of its day: enough to subtract two.
fn microseconds(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let clock = text.split(['T', 'Z']).nth(1).expect("a time of day");
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let whole = seconds
        .split(':')
        .fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap_or(0));
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole * 1_000_000 + micros.parse::<i64>().unwrap_or(0)
}
