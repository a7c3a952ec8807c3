//! `invoke COMMAND`, when all goes well.

use std::time::{Duration, Instant};

use invoke_protocol::output::Stream;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{Reason, ReasonCode};
use serde_json::Value;

use crate::fixtures::{ID, Printed, ended, job_event, queued, route, running, whole_stream};
use crate::program::{Bed, run, spawn, transcript};
use crate::stub::{Answer, Piece};

/// A bed whose next job prints this and exits with a code.
fn bed(code: u8, printed: &Printed) -> Bed {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(whole_stream(code, printed))],
    );
    bed
}

/// Every byte of both streams, in any mixture, and nothing of ours between.
#[test]
fn both_streams_arrive_byte_for_byte() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let printed = Printed::nothing()
        .out(&all_bytes)
        .err(b"\xff\r\n\x1b[31m")
        .out(b"no newline at the end")
        .err(b"\0")
        .out(vec![b'x'; 64 * 1024]);
    let output = run(bed(0, &printed).invoke(&["cat"]));
    assert_eq!(output.stdout, printed.of(Stream::Stdout));
    assert_eq!(output.stderr, printed.of(Stream::Stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_exit_code_is_the_commands_own() {
    for code in [0, 1, 37, 137, 239, 240, 255] {
        let output = run(bed(code, &Printed::nothing()).invoke(&["exit"]));
        assert_eq!(transcript(&output), format!("exit: {code}\n"));
    }
}

/// A shell line and an argv are different things, and options reach the dispatcher.
#[test]
fn what_was_asked_for_is_sent() {
    let bed = bed(0, &Printed::nothing());
    run(bed.invoke(&[
        "echo  \"ä\" | wc",
        "--start-within",
        "1h30m",
        "--run-timeout",
        "90s",
    ]));
    run(bed.invoke(&[
        "-c",
        "demo",
        "--profile",
        "deploy",
        "--",
        "kubectl",
        "get",
        "",
        "-o",
        "wide",
    ]));
    let seen = bed.stub.seen("POST /v1/jobs");
    let bodies: Vec<Value> = seen
        .iter()
        .map(|seen| serde_json::from_slice(&seen.body).unwrap())
        .collect();
    insta::assert_json_snapshot!(bodies, @r#"
    [
      {
        "command": {
          "shell": "echo  \"ä\" | wc"
        },
        "profile": "default",
        "run_timeout_seconds": 90,
        "start_within_seconds": 5400
      },
      {
        "cluster": "demo",
        "command": {
          "argv": [
            "kubectl",
            "get",
            "",
            "-o",
            "wide"
          ]
        },
        "profile": "deploy"
      }
    ]
    "#);
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert!(
        keys.iter().all(|key| key.len() == 36) && keys[0] != keys[1],
        "{keys:?}"
    );
}

/// What is printed appears when it is printed, not at the end, and not only when its line is complete.
#[test]
fn output_is_not_held_back() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("password: ").events());
    pieces.push(Piece::Silence);
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let mut child = spawn(bed.invoke(&["sleep"]));
    let mut first = [0; 10];
    let stdout = child.stdout.as_mut().unwrap();
    std::io::Read::read_exact(stdout, &mut first).unwrap();
    assert_eq!(&first, b"password: ");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_document_has_everything() {
    let printed = Printed::nothing().out("pods\n").err(b"\xff");
    let output = run(bed(3, &printed).invoke(&["-o", "json", "kubectl get pods"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stderr.is_empty());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn no_wait_prints_the_id_alone() {
    let bed = bed(0, &Printed::nothing());
    let shown = bed.transcript(&["--no-wait", "sleep 20"]);
    assert_eq!(shown, format!("exit: 0\n--- stdout\n{ID}\n"));
    assert!(bed.stub.seen(&route("GET", "/events")).is_empty());
}

/// The cluster's absence is said at once, in the dispatcher's words, which say until when.
#[test]
fn an_offline_cluster_is_said_at_once_and_once() {
    let bed = Bed::new();
    let offline = "cluster demo has been offline for 3 min; waiting until 14:00 UTC";
    let mut job = queued();
    job.waiting = Some(Reason::new(ReasonCode::ClusterOffline, offline));
    bed.stub.on("POST /v1/jobs", vec![Answer::json(202, &job)]);
    let mut pieces = vec![job_event(0, job.clone()), job_event(0, job)];
    pieces.extend(whole_stream(0, &Printed::nothing()));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    insta::assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 0
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 on cluster demo: waiting: cluster demo has been offline for 3 min; waiting until 14:00 UTC
    ");
    insta::assert_snapshot!(bed.transcript(&["--no-wait", "ls"]), @"
    exit: 0
    --- stdout
    0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 on cluster demo: waiting: cluster demo has been offline for 3 min; waiting until 14:00 UTC
    ");
}

/// While all is well and quick, there is silence; after two seconds, a log shows what is going on.
#[test]
fn an_ordinary_wait_is_told_only_when_it_is_long() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let mut pieces = vec![
        job_event(0, queued()),
        Piece::Pause(Duration::from_millis(2500)),
    ];
    pieces.extend(whole_stream(0, &Printed::nothing().out("done\n")));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    insta::assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 0
    --- stdout
    done
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 on cluster demo: waiting: it is on its way to the cluster
    ");
}

/// An answer that is lost on the way must not make a second job.
#[test]
fn a_submission_is_repeated_with_the_same_key() {
    let bed = bed(0, &Printed::nothing().out("once\n"));
    let answers = vec![
        Answer::cut(),
        Answer::problem(ProblemCode::Unavailable, "restarting"),
        Answer::foreign(502, "bad gateway"),
        Answer::json(200, &queued()),
    ];
    bed.stub.on("POST /v1/jobs", answers);
    let mut command = bed.invoke(&["ls"]);
    command.env("INVOKE_RETRY_FOR", "30s");
    insta::assert_snapshot!(bed.show(&run(command)), @"
    exit: 0
    --- stdout
    once
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: the connection was cut; trying again
    ");
    let seen = bed.stub.seen("POST /v1/jobs");
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|again| {
        again.header("idempotency-key") == seen[0].header("idempotency-key")
            && again.body == seen[0].body
    }));
}

/// A dispatcher with too much to do says when to come back. Who comes earlier is refused again.
#[test]
fn a_submission_comes_back_when_it_is_asked_to() {
    let bed = bed(0, &Printed::nothing().out("once\n"));
    let busy = ProblemCode::TooManyRequests;
    bed.stub.on(
        "POST /v1/jobs",
        vec![
            Answer::problem(busy, "200 requests are under way").retry_after(2),
            Answer::json(202, &queued()),
        ],
    );
    let mut command = bed.invoke(&["ls"]);
    command.env("INVOKE_RETRY_FOR", "30s");
    let begun = Instant::now();
    insta::assert_snapshot!(bed.show(&run(command)), @"
    exit: 0
    --- stdout
    once
    --- stderr
    invoke: 200 requests are under way; trying again
    ");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// `--if-offline fail` is for those who would rather know at once.
#[test]
fn an_offline_cluster_may_be_a_refusal() {
    let bed = Bed::new();
    let detail = "cluster demo has been offline for 3 min, and the job is not to wait for it";
    bed.stub.on(
        "POST /v1/jobs",
        vec![Answer::problem(ProblemCode::ClusterOffline, detail)],
    );
    insta::assert_snapshot!(bed.transcript(&["--if-offline", "fail", "ls"]), @"
    exit: 244
    --- stderr
    invoke: cluster demo has been offline for 3 min, and the job is not to wait for it
    ");
    let body: Value = serde_json::from_slice(&bed.stub.seen("POST /v1/jobs")[0].body).unwrap();
    assert_eq!(body["if_offline"], "fail");
}

/// When nobody can say whether there is a job, that is what is said.
#[test]
fn an_unknown_submission_is_not_called_a_failure() {
    let bed = Bed::new();
    bed.stub.on("POST /v1/jobs", vec![Answer::cut()]);
    insta::assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 241
    --- stderr
    invoke: it is not known whether the job was accepted: cannot reach the dispatcher at [URL]: the connection was cut
    invoke: hint: `invoke jobs` shows whether it was; running it again may run it twice
    ");
}

/// Somebody who waits for nothing must not wait for the patience of a submission.
#[test]
fn patience_ends() {
    let bed = Bed::new();
    let mut command = bed.invoke(&["--url", "https://127.0.0.1:1", "ls"]);
    command.env("INVOKE_RETRY_FOR", "1s");
    let begun = Instant::now();
    insta::assert_snapshot!(bed.show(&run(command)), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at https://127.0.0.1:1: connection refused; trying again
    invoke: cannot reach the dispatcher at https://127.0.0.1:1: connection refused
    invoke: hint: is it running? The address came from --url
    ");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// `invoke … | head -1`: quietly, and with the code that shells give every program in that place.
#[test]
fn a_reader_who_leaves_ends_it_quietly() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let lines = (0..20).fold(Printed::nothing(), |printed, _| {
        printed.out(vec![b'x'; 8192])
    });
    let mut pieces = whole_stream(0, &lines);
    pieces.insert(3, Piece::Pause(Duration::from_millis(300)));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let mut child = spawn(bed.invoke(&["yes"]));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(transcript(&output), "exit: 141\n");
}

/// A full disk is not a reader who leaves.
#[test]
fn a_full_disk_is_loud() {
    let bed = bed(0, &Printed::nothing().out("too much"));
    let mut command = bed.invoke(&["ls"]);
    command.stdout(
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap(),
    );
    let output = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    insta::assert_snapshot!(transcript(&output.wait_with_output().unwrap()), @"
    exit: 249
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10: cannot write to stdout: No space left on device (os error 28)
    invoke: hint: `invoke logs -f 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` prints its output again
    ");
}

/// The token is sent as a header, and is in nothing that anybody can read.
#[test]
fn the_token_is_never_printed() {
    let bed = bed(0, &Printed::nothing());
    let output = run(bed.invoke(&["ls"]));
    let sent = bed.stub.seen("POST /v1/jobs");
    assert_eq!(sent[0].header("authorization"), "Bearer a-token-for-tests");
    assert!(!transcript(&output).contains("a-token-for-tests"));
    let job = serde_json::to_string(&ended(0, &Printed::nothing())).unwrap();
    assert!(!job.contains("a-token-for-tests"));
}
