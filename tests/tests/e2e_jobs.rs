//! Jobs as objects: ids, results, logs, lists, cancel, JSON.

use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, bed};
use invoke_tests::wait;
use serde_json::Value;

fn submit(bed: &Bed, line: &str) -> String {
    let ran = bed.ran(&["--no-wait", line]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = ran.stdout_text();
    let id = text.strip_suffix('\n').expect("the id and a newline");
    assert_eq!(id.len(), 36, "the id, alone, on stdout: {ran:?}");
    id.to_owned()
}

fn await_state(bed: &Bed, id: &str, state: &str) -> Value {
    wait::until(
        &format!("job {id} to be {state}"),
        Duration::from_secs(60),
        || {
            let job = bed.json(&["-o", "json", "jobs", id]);
            (job["state"] == state).then_some(job)
        },
    )
}

/// The job outlives the CLI that submitted it, and its result is there later.
#[test]
fn no_wait_prints_the_id_and_the_result_is_there_later() {
    let bed = bed();
    let id = submit(&bed, "sleep 1; echo done; echo problem >&2; exit 4");
    let early = bed.ran(&["result", &id]);
    assert!(
        (240..=249).contains(&early.code),
        "there is no result yet: {early:?}"
    );

    let followed = bed.ran(&["logs", "-f", &id]);
    assert_eq!(
        (followed.code, followed.stdout_text().as_str()),
        (4, "done\n"),
        "{followed:?}"
    );
    let result = bed.ran(&["result", &id]);
    assert_eq!(
        (result.code, result.stdout_text().as_str()),
        (4, "done\n"),
        "{result:?}"
    );
    assert_eq!(result.stderr_of_command(), "problem\n");

    let listed = bed.ran(&["jobs"]);
    let line = listed
        .stdout_text()
        .lines()
        .find(|line| line.contains(&id))
        .map(str::to_owned);
    assert!(
        line.is_some_and(|line| line.contains("failed") && line.contains('4')),
        "{listed:?}"
    );
}

#[test]
fn cancel_stops_the_whole_process_group() {
    let bed = bed();
    let id = submit(&bed, "trap '' TERM & sleep 600 & echo up; sleep 600");
    await_state(&bed, &id, "running");
    wait::until("the first line", Duration::from_secs(30), || {
        bed.ran(&["logs", &id])
            .stdout_text()
            .contains("up")
            .then_some(())
    });
    let begin = Instant::now();
    let cancelled = bed.ran(&["cancel", &id]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "SIGTERM ends a sleep at once: {:?}",
        begin.elapsed()
    );

    let job = await_state(&bed, &id, "cancelled");
    assert_eq!(
        (job["started"].as_str(), job["output_complete"].as_str()),
        (Some("yes"), Some("yes")),
        "{job}"
    );
    let again = bed.ran(&["cancel", &id]);
    assert!(
        again.code == 0 || again.code == 240,
        "cancelling what is cancelled harms nothing: {again:?}"
    );
    assert_eq!(bed.ran(&["result", &id]).code, 245);
}

/// What a program reads: one document, with everything in it.
#[test]
fn json_is_one_document_with_everything() {
    let bed = bed();
    let job = bed.json(&["-o", "json", "kubectl version; echo warn >&2; exit 3"]);
    assert_eq!(job["cluster"], bed.name.as_str());
    assert_eq!(job["profile"], "default");
    assert_eq!(job["state"], "failed");
    assert_eq!(job["exit_code"], 3);
    assert_eq!(job["started"], "yes");
    assert_eq!(job["output_complete"], "yes");
    assert_eq!(job["stderr"], "warn\n");
    assert_eq!(job["stdout_encoding"], "utf-8");
    assert!(
        job["stdout"].as_str().unwrap().contains("Server Version"),
        "{job}"
    );
    for time in ["submitted", "permitted", "started", "finished", "ended"] {
        assert!(
            job["times"][time]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{time}: {job}"
        );
    }
    let binary = bed.json(&["-o", "json", "printf '\\377\\0'"]);
    assert_eq!(
        (
            binary["stdout_encoding"].as_str(),
            binary["stdout"].as_str()
        ),
        (Some("base64"), Some("/wA="))
    );
}

#[test]
fn clusters_say_whether_they_are_there() {
    let bed = bed();
    let clusters = bed.json(&["-o", "json", "clusters"]);
    let clusters = clusters["clusters"].as_array().unwrap();
    let own = clusters
        .iter()
        .find(|cluster| cluster["name"] == bed.name.as_str())
        .unwrap();
    assert_eq!(own["state"], "connected");
    assert_eq!(own["runner_version"], env!("CARGO_PKG_VERSION"));
    assert!(own["last_contact_seconds"].as_u64().unwrap() < 30, "{own}");
    let text = bed.ran(&["clusters"]).stdout_text();
    assert!(
        text.lines()
            .any(|line| line.contains(&bed.name) && line.contains("connected")),
        "{text}"
    );
}

/// What runs is what was asked for, once each, however many ask at once; and nothing is left behind.
#[test]
fn fifty_at_once_and_nothing_is_left() {
    let bed = bed();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|number| {
                scope.spawn(move || {
                    (
                        number,
                        self::bed().ran(&[
                            "-c",
                            &self::bed().name,
                            &format!("echo {number}; exit {number}"),
                        ]),
                    )
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (number, ran) in results {
        assert_eq!(
            (ran.code, ran.stdout_text()),
            (number, format!("{number}\n")),
            "{ran:?}"
        );
    }
    let jobs = bed.json(&["-o", "json", "jobs", "--limit", "500"]);
    let over = |pod: &String| {
        let id = pod.trim_start_matches("pod/invoke-");
        jobs["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|job| job["id"] == id && job["times"]["ended"].is_string())
    };
    wait::until(
        "the pods of jobs that are over to be gone",
        Duration::from_secs(60),
        || bed.job_pods().iter().all(|pod| !over(pod)).then_some(()),
    );
}

/// Two people at once see each their own.
#[test]
fn two_at_once_do_not_mix() {
    let run = |text: &'static str| {
        move || {
            bed().ran(&[&format!(
                "for i in 1 2 3; do echo {text}; echo {text} >&2; sleep 0.2; done"
            )])
        }
    };
    let (first, second) = std::thread::scope(|scope| {
        let (first, second) = (scope.spawn(run("first")), scope.spawn(run("second")));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (ran, text) in [(first, "first\n"), (second, "second\n")] {
        assert_eq!(
            (ran.code, ran.stdout_text()),
            (0, text.repeat(3)),
            "{ran:?}"
        );
        assert_eq!(ran.stderr_of_command(), text.repeat(3));
    }
}

/// Ctrl-C in a script lets go of the job; it does not lose it.
#[test]
fn an_interrupted_cli_does_not_lose_the_job() {
    let bed = bed();
    let mut child = bed
        .invoke()
        .arg("echo begun; sleep 4; echo finished")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"begun\n");
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(248), "{said}");
    let id = said
        .split_whitespace()
        .find(|word| word.trim_matches(['`', '\'', '"', '.', ',']).len() == 36)
        .expect(&said);
    let id = id.trim_matches(['`', '\'', '"', '.', ',']);
    let ran = bed.ran(&["logs", "-f", id]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "begun\nfinished\n"),
        "{ran:?}"
    );
}
