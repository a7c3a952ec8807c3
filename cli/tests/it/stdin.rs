//! `--stdin` and `-f -`: the command reads what we do.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use insta::assert_snapshot;
use invoke_protocol::problem::ProblemCode;
use serde_json::Value;

use crate::fixtures::{ID, Printed, end_event, ended, job_event, queued, route, running};
use crate::program::{Bed, run, signal, spawn, transcript};
use crate::pty::Terminal;
use crate::stub::{Answer, Piece};

/// A job that runs on for this long, and takes what it is sent.
fn bed(events: Vec<Piece>) -> Bed {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())])
        .on(&route("GET", "/events"), vec![Answer::events(events)])
        .on(&put(), vec![Answer::intake()]);
    bed
}

fn put() -> String {
    route("PUT", "/stdin")
}

/// It ends after a while.
fn for_a_while() -> Vec<Piece> {
    let mut pieces = endless();
    pieces.pop();
    let end = end_event(ended(0, &Printed::nothing().out("begun\n")));
    pieces.extend([Piece::Pause(Duration::from_secs(1)), end]);
    pieces
}

fn endless() -> Vec<Piece> {
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("begun\n").events());
    pieces.push(Piece::Silence);
    pieces
}

/// Starts the program with a pipe that is open.
fn start(bed: &Bed, arguments: &[&str]) -> Child {
    let mut command = bed.invoke(arguments);
    command.env("INVOKE_RETRY_FOR", "30s").stdin(Stdio::piped());
    spawn(command)
}

/// Writes all of it, and closes the pipe.
fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.take().unwrap().write_all(bytes).unwrap();
}

fn await_stdin(bed: &Bed, expected: &[u8]) {
    while bed.stub.intake(|intake| intake.stdin != expected) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn taken(bed: &Bed) -> (Vec<u8>, bool) {
    bed.stub
        .intake(|intake| (intake.stdin.clone(), intake.stdin_ended))
}

#[test]
fn the_command_reads_what_we_do() {
    for option in [&["--stdin"][..], &["-f", "-"]] {
        for bytes in [&b""[..], b"one\n", &[0xff; 100_000]] {
            let bed = bed(for_a_while());
            let mut child = start(&bed, &[option, &["kubectl apply -f -"]].concat());
            feed(&mut child, bytes);
            let output = child.wait_with_output().unwrap();
            assert_eq!(transcript(&output), "exit: 0\n--- stdout\nbegun\n");
            assert_eq!(taken(&bed), (bytes.to_vec(), true));
            let spec: Value =
                serde_json::from_slice(&bed.stub.seen("POST /v1/jobs")[0].body).unwrap();
            assert_eq!(spec["stdin"], true);
            assert_eq!(spec.get("files"), None);
        }
    }
}

/// Our stdin is left to whoever else reads it: `while read …; do invoke …; done < list`.
#[test]
fn without_the_option_nothing_is_read() {
    let bed = bed(for_a_while());
    let list = bed.home.path().join("list");
    std::fs::write(&list, "one\ntwo\n").unwrap();
    let mut file = File::open(&list).unwrap();
    let mut command = bed.invoke(&["cat"]);
    command.stdin(file.try_clone().unwrap());
    assert_eq!(run(command).status.code(), Some(0));
    assert_eq!(std::io::Seek::stream_position(&mut file).unwrap(), 0);
    assert!(bed.stub.seen(&put()).is_empty());
}

/// A person types, a program thinks: what there is is sent when it is there.
#[test]
fn nothing_is_held_back_until_the_end() {
    let bed = bed(endless());
    let mut child = start(&bed, &["--stdin", "cat"]);
    let mut stdin = child.stdin.take().unwrap();
    for (line, all) in [("one\n", "one\n"), ("tw", "one\ntw")] {
        stdin.write_all(line.as_bytes()).unwrap();
        await_stdin(&bed, all.as_bytes());
    }
    assert!(!taken(&bed).1);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A piece is lost on the way, the answer to another on the way back, the command is slow to read, and the
/// dispatcher restarts.
#[test]
fn nothing_is_lost_or_doubled_by_cuts() {
    let bed = bed(for_a_while());
    let full = Answer::problem(ProblemCode::Unavailable, "much is left to read").retry_after(1);
    bed.stub.on(
        &put(),
        vec![
            Answer::intake(),
            Answer::cut(),
            Answer::lost_intake(),
            full,
            Answer::foreign(502, "bad gateway"),
            Answer::intake(),
        ],
    );
    let mut random = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(700_000)
        .collect();
    let mut child = start(&bed, &["--no-wait", "--stdin", "cat"]);
    feed(&mut child, &bytes);
    let output = child.wait_with_output().unwrap();
    assert_eq!(transcript(&output), format!("exit: 0\n--- stdout\n{ID}\n"));
    assert!(taken(&bed) == (bytes, true));
    let longest = bed
        .stub
        .seen(&put())
        .iter()
        .map(|seen| seen.body.len())
        .max();
    assert!(longest <= Some(512 * 1024), "{longest:?}");
}

/// The pipe is never closed. The command has ended, and so do we.
#[test]
fn a_pipe_that_never_ends_holds_nobody() {
    let bed = bed(for_a_while());
    let mut child = start(&bed, &["--stdin", "head -1"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(transcript(&output), "exit: 0\n--- stdout\nbegun\n");
    assert_eq!(taken(&bed), (b"one\n".to_vec(), false));
    drop(stdin);
}

/// `yes | invoke --stdin "head -1"`
#[test]
fn who_reads_no_more_is_sent_no_more() {
    for code in [ProblemCode::JobOver, ProblemCode::NoStdin] {
        let bed = bed(for_a_while());
        let over = Answer::problem(code, "the job is over");
        bed.stub.on(&put(), vec![Answer::intake(), over.clone()]);
        let mut child = start(&bed, &["--stdin", "head -1"]);
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || while stdin.write_all(&[b'y'; 65_536]).is_ok() {});
        let output = child.wait_with_output().unwrap();
        assert_eq!(transcript(&output), "exit: 0\n--- stdout\nbegun\n");
        assert_eq!(bed.stub.seen(&put()).len(), 2);
        writer.join().unwrap();

        bed.stub.on(&put(), vec![over]);
        let mut child = start(&bed, &["--no-wait", "--stdin", "true"]);
        feed(&mut child, b"one\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(transcript(&output), format!("exit: 0\n--- stdout\n{ID}\n"));
    }
}

/// The id is the last word: who has it can rely on the command having all that it reads.
#[test]
fn no_wait_waits_for_the_end_of_stdin() {
    let bed = bed(Vec::new());
    let mut child = start(&bed, &["--no-wait", "--stdin", "cat"]);
    await_stdin(&bed, b"");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    await_stdin(&bed, b"one\n");
    assert!(child.try_wait().unwrap().is_none());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(transcript(&output), format!("exit: 0\n--- stdout\n{ID}\n"));
    assert_eq!(taken(&bed), (b"one\n".to_vec(), true));
    assert!(bed.stub.seen(&route("GET", "/events")).is_empty());
}

#[test]
fn a_signal_leaves_a_job_that_waits_and_says_so() {
    for arguments in [&["--stdin", "cat"][..], &["--no-wait", "--stdin", "cat"]] {
        let bed = bed(endless());
        let mut child = start(&bed, arguments);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\n").unwrap();
        await_stdin(&bed, b"one\n");
        signal(&child, "INT");
        let output = child.wait_with_output().unwrap();
        let shown = transcript(&output)
            .replace(ID, "[ID]")
            .replace("--- stdout\nbegun\n", "");
        insta::allow_duplicates! {
            assert_snapshot!(shown, @"
            exit: 248
            --- stderr
            invoke: detached; job [ID] goes on, and waits for the rest of its stdin
            invoke: hint: `invoke cancel [ID]` stops it
            ");
        }
        assert!(!taken(&bed).1, "what was torn off must not look complete");
    }
}

/// A directory cannot be read. That is no end of input.
#[test]
fn what_cannot_be_read_is_no_end() {
    let bed = bed(for_a_while());
    let shown = |arguments: &[&str]| {
        let mut command = bed.invoke(arguments);
        command.stdin(File::open("/").unwrap());
        bed.show(&run(command))
    };
    assert_snapshot!(shown(&["--stdin", "cat"]), @"
    exit: 0
    --- stdout
    begun
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 waits for the rest of its stdin: cannot read stdin: Is a directory (os error 21)
    invoke: hint: `invoke cancel 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` stops it
    ");
    assert_snapshot!(shown(&["--no-wait", "--stdin", "cat"]), @"
    exit: 249
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 waits for the rest of its stdin: cannot read stdin: Is a directory (os error 21)
    invoke: hint: `invoke cancel 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` stops it
    ");
    assert_eq!(taken(&bed), (Vec::new(), false));
}

#[test]
fn a_dispatcher_that_takes_no_stdin_is_told() {
    let bed = bed(for_a_while());
    let forbidden = Answer::problem(ProblemCode::Forbidden, "only its submitter may");
    bed.stub.on(&put(), vec![forbidden]);
    let mut child = start(&bed, &["--stdin", "cat"]);
    feed(&mut child, b"one\n");
    assert_snapshot!(transcript(&child.wait_with_output().unwrap()), @"
    exit: 0
    --- stdout
    begun
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 waits for the rest of its stdin: cannot send on stdin: only its submitter may
    invoke: hint: `invoke cancel 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` stops it
    ");
}

/// What a person answers to our question is ours; what they type before and after is the command's.
#[test]
fn on_a_terminal_an_answer_is_not_sent_to_the_command() {
    let bed = bed(endless());
    let mut terminal = Terminal::open(&bed, "--stdin cat");
    terminal.await_text("begun");
    terminal.type_keys(b"one\n");
    await_stdin(&bed, b"one\n");
    terminal.type_keys(b"\x03");
    terminal.await_text("(Enter)?");
    terminal.type_keys(b"go on\n");
    terminal.await_text("going on");
    terminal.type_keys(b"two\n");
    await_stdin(&bed, b"one\ntwo\n");
    terminal.type_keys(b"\x03");
    terminal.await_text("(Enter)?");
    terminal.type_keys(b"d\n");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(248), "{rest}");
    assert_eq!(taken(&bed), (b"one\ntwo\n".to_vec(), false));
}

/// `kubectl apply -f -` by hand.
#[test]
fn on_a_terminal_the_end_of_input_is_sent() {
    let bed = bed(endless());
    let mut terminal = Terminal::open(&bed, "--no-wait --stdin cat");
    terminal.type_keys(b"one\n");
    await_stdin(&bed, b"one\n");
    terminal.type_keys(b"\x04");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(taken(&bed), (b"one\n".to_vec(), true));
}
