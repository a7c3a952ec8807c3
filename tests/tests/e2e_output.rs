//! Output out: any size, byte for byte, each stream by itself, and loud where something is missing.

use std::io::{BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use invoke_tests::bed::{Bed, bed};
use invoke_tests::noise::Sha256;
use invoke_tests::process::run;
use invoke_tests::wait;

/// A job, submitted and left.
fn submitted(bed: &Bed, arguments: &[&str]) -> String {
    let ran = bed.ran(&[&["--no-wait"], arguments].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout_text().trim().to_owned()
}

/// Around every limit on the way: nothing, a byte, a frame, an upload.
#[test]
fn bytes_of_every_size_arrive() {
    let bed = bed();
    for size in [0, 1, 65_535, 65_536, 65_537, 1_048_576, 3_000_000] {
        let line = format!("head -c {size} /dev/urandom | tee f; sha256sum < f >&2");
        let ran = bed.ran(&[&line]);
        assert_eq!(
            (ran.code, ran.stdout.len()),
            (0, size),
            "{}",
            ran.stderr_text()
        );
        let stated = ran.stderr_of_command();
        assert_eq!(
            stated.split(' ').next(),
            Some(sha256(&ran.stdout).as_str()),
            "{size}"
        );
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut sum = Sha256::begin();
    sum.write_all(bytes).expect("sha256sum reads");
    sum.finish()
}

#[test]
fn a_line_of_fifty_megabytes_is_a_line() {
    let ran = bed().ran(&["head -c 50000000 /dev/zero | tr '\\0' x; echo; printf end"]);
    assert_eq!(
        (ran.code, ran.stdout.len()),
        (0, 50_000_004),
        "{}",
        ran.stderr_text()
    );
    assert!(ran.stdout[..50_000_000].iter().all(|byte| *byte == b'x'));
    assert!(ran.stdout.ends_with(b"x\nend"), "no newline is added");
}

/// The next line of a command's stream that is no word of the CLI's.
fn next_line(stream: &mut dyn BufRead) -> String {
    let mut line = String::new();
    loop {
        stream.read_line(&mut line).expect("invoke runs");
        if !line.starts_with("invoke: ") {
            return line.trim_end().to_owned();
        }
        line.clear();
    }
}

/// One sequence for both streams: what the shim read first comes first, also where somebody has both of them
/// written into one file. Each line waits for the one before to be seen, so no two can be read together.
#[test]
fn lines_of_both_streams_keep_their_order() {
    let bed = bed();
    let line = "echo $INVOKE_JOB_ID; \
                for i in {1..50}; do read go; echo out $i; read go; echo err $i >&2; done";
    let mut command = bed.invoke();
    command.args(["--stdin", line]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("invoke runs");
    let mut go = child.stdin.take().expect("it is a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let job = next_line(&mut stdout);
    let mut expected = vec![job.clone()];
    for number in 1..=50 {
        for (name, stream) in [
            ("out", &mut stdout as &mut dyn BufRead),
            ("err", &mut stderr),
        ] {
            go.write_all(b"go\n").expect("invoke reads");
            expected.push(format!("{name} {number}"));
            assert_eq!(next_line(stream), expected[expected.len() - 1]);
        }
    }
    drop(go);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let mut both = tempfile::tempfile().expect("there is room");
    let mut logs = bed.invoke();
    logs.args(["logs", "--timestamps", &job]);
    let file = || both.try_clone().expect("it is open");
    let logs = logs.stdout(file()).stderr(file()).status();
    assert_eq!(logs.expect("invoke runs").code(), Some(0));
    both.rewind().expect("it is a file");
    let mut text = String::new();
    both.read_to_string(&mut text).expect("it is text");
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_once(' ').expect("a time and a line"))
        .collect();
    let (times, seen): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    assert_eq!(seen, expected);
    assert!(times.is_sorted(), "{text}");
}

/// Neither end of the pipe decides when a command is over: its own process does.
#[test]
fn a_stream_that_is_closed_or_kept_open_is_no_end() {
    let bed = bed();
    let ran = bed.ran(&["echo before; exec 1>&-; sleep 1; echo still here >&2; exit 3"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (3, "before\n"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr_of_command(), "still here\n");
    let began = Instant::now();
    let ran = bed.ran(&["(trap '' HUP; sleep 300) & echo done"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "done\n"),
        "{ran:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "a daemon held it up"
    );
}

/// What is not kept is counted and said, and does not change what the command did.
#[test]
fn output_beyond_the_cap_is_missed_loudly() {
    let bed = bed();
    let ran = bed.ran(&[
        "--profile",
        "capped",
        "head -c 300000 /dev/zero; echo x >&2; exit 5",
    ]);
    assert_eq!(ran.code, 5, "{}", ran.stderr_text());
    let kept = ran.stdout.len();
    assert!((90_000..100_000).contains(&kept), "{kept}");
    let said = ran.stderr_text();
    assert!(
        said.contains("OUTPUT IS INCOMPLETE") && said.contains(" of 300002 bytes"),
        "{said}"
    );
    assert!(said.contains("cap"), "{said}");
}

/// Who reads slowly holds up neither the command nor another reader; and who comes late sees all of it.
#[test]
fn a_slow_reader_is_alone() {
    let bed = bed();
    let job = submitted(
        &bed,
        &["head -c 30000000 /dev/zero | tr '\\0' x; echo; sleep 2"],
    );
    let mut slow = bed.invoke();
    slow.args(["logs", "-f", &job])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut slow = slow.spawn().expect("invoke runs");
    let mut pipe = slow.stdout.take().expect("it is a pipe");
    let mut first = [0; 10];
    pipe.read_exact(&mut first).expect("there is output");
    let quick = bed.ran(&["logs", "-f", &job]);
    assert_eq!(
        (quick.code, quick.stdout.len()),
        (0, 30_000_001),
        "{}",
        quick.stderr_text()
    );
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).expect("the rest comes");
    assert_eq!(rest.len() + first.len(), 30_000_001);
    assert_eq!(slow.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_part_of_the_output_is_to_be_had() {
    let bed = bed();
    let job = submitted(&bed, &["seq 1 100000; echo warning >&2"]);
    assert_eq!(bed.ran(&["logs", "-f", &job]).code, 0);
    let tail = bed.ran(&["logs", "--stdout", "--tail", "3", &job]);
    assert_eq!(tail.stdout_text(), "99998\n99999\n100000\n", "{tail:?}");
    let since = bed.ran(&["logs", "--stdout", "--since-line", "99999", &job]);
    assert_eq!(since.stdout_text(), "99999\n100000\n", "{since:?}");
    let times = bed.ran(&["logs", "--stderr", "--timestamps", &job]);
    let line = times.stderr_of_command();
    assert!(
        line.starts_with("20") && line.ends_with("Z warning\n"),
        "{line}"
    );
    let path = format!("/v1/jobs/{job}/stdout");
    let range = bed.api(&["--range", "2-7"], &path);
    assert_eq!(range.stdout_text(), "2\n3\n4\n", "{range:?}");
    let last = bed.api(&["--range", "-7"], &path);
    assert_eq!(last.stdout_text(), "100000\n", "{last:?}");
    let whole = bed.api(&[], &format!("/v1/jobs/{job}/stderr"));
    assert_eq!(whole.stdout_text(), "warning\n", "{whole:?}");
}

/// What a command leaves comes back as it was: bytes, folders, what can be executed; and nothing else does.
#[test]
fn artifacts_come_back() {
    let bed = bed();
    let line = "cd $INVOKE_ARTIFACTS && mkdir -p deep/er && head -c 3000000 /dev/urandom > deep/er/blob \
                && printf '#!/bin/sh\\necho hi\\n' > tool && chmod +x tool && : > empty \
                && ln -s /var/run/secrets/invoke.dev/runner/token stolen && mkfifo pipe && sha256sum deep/er/blob; exit 4";
    let job = submitted(&bed, &[line]);
    let ran = bed.ran(&["logs", "-f", &job]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let listed = bed.ran(&["artifacts", &job]);
    let names: Vec<_> = listed
        .stdout_text()
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(names, ["deep/er/blob", "empty", "tool"], "{listed:?}");
    let said = listed.stderr_text();
    assert!(said.contains("stolen") && said.contains("pipe"), "{said}");
    let place = tempfile::tempdir().expect("there is room");
    let folder = place.path().to_str().expect("it is text");
    let got = bed.ran(&["artifacts", &job, "get", "--all", "-d", folder]);
    assert_eq!(got.code, 0, "{got:?}");
    let blob = std::fs::read(place.path().join("deep/er/blob")).expect("it is there");
    assert!(ran.stdout_text().starts_with(&sha256(&blob)), "{ran:?}");
    let tool = run(&mut Command::new(place.path().join("tool")));
    assert_eq!(tool.stdout_text(), "hi\n");
    assert!(!place.path().join("stolen").exists());
    let none = bed.ran(&["artifacts", &submitted_and_over(&bed, "true")]);
    assert_eq!(none.code, 240, "{none:?}");
}

fn submitted_and_over(bed: &Bed, line: &str) -> String {
    let job = submitted(bed, &[line]);
    let over = wait::within(Duration::from_secs(60), || {
        (bed.ran(&["result", &job]).code != 248).then_some(())
    });
    assert!(over.is_some(), "job {job} does not end");
    job
}
