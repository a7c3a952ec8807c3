//! Signals end the program, not the job.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::Duration;

use insta::assert_snapshot;
use invoke_protocol::job::Job;
use invoke_protocol::output::EndCause;
use invoke_protocol::state::StateName;

use crate::fixtures::{
    ID, Printed, end_event, ended, job_event, queued, route, running, whole_stream,
};
use crate::program::{Bed, signal, spawn, transcript};
use crate::pty::Terminal;
use crate::stub::{Answer, Piece};

/// A command that prints a line and then runs on.
fn endless() -> Bed {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("begun\n").events());
    pieces.push(Piece::Silence);
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    bed
}

fn await_line(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "begun\n");
}

/// A machine's SIGINT and SIGTERM leave the job to itself, and say how to get back to it.
#[test]
fn without_a_terminal_a_signal_detaches() {
    for name in ["INT", "TERM"] {
        let bed = endless();
        let mut child = spawn(bed.invoke(&["sleep"]));
        await_line(&mut child);
        signal(&child, name);
        let shown = transcript(&child.wait_with_output().unwrap()).replace(ID, "[ID]");
        insta::allow_duplicates! {
            assert_snapshot!(shown, @"
            exit: 248
            --- stderr
            invoke: detached; job [ID] goes on
            invoke: hint: `invoke logs -f [ID]` follows it again, `invoke cancel [ID]` stops it
            ");
        }
        assert!(bed.stub.seen(&route("POST", "/cancel")).is_empty());
    }
}

/// A submission on its way is finished first: then it is known whether there is a job.
#[test]
fn a_signal_while_submitting_waits_for_the_answer() {
    let bed = endless();
    let slow = [
        Piece::Pause(Duration::from_secs(1)),
        Piece::Bytes(serde_json::to_vec(&queued()).unwrap()),
    ];
    bed.stub
        .on("POST /v1/jobs", vec![Answer::pieces(202, slow.to_vec())]);
    let child = spawn(bed.invoke(&["sleep"]));
    while bed.stub.seen("POST /v1/jobs").is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "INT");
    let shown = transcript(&child.wait_with_output().unwrap()).replace(ID, "[ID]");
    assert_snapshot!(shown, @"
    exit: 248
    --- stderr
    invoke: finishing the submission first; once more to give up on it
    invoke: detached; job [ID] goes on
    invoke: hint: `invoke logs -f [ID]` follows it again, `invoke cancel [ID]` stops it
    ");
}

const CTRL_C: &[u8] = b"\x03";

/// A person sees what a job waits for after a second, on a line that is gone when output comes.
#[test]
fn on_a_terminal_a_wait_is_shown_and_taken_away() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let mut pieces = vec![
        job_event(0, queued()),
        Piece::Pause(Duration::from_millis(1500)),
    ];
    pieces.extend(whole_stream(0, &Printed::nothing().out("pods\n")));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let (code, screen) = Terminal::open(&bed, "sleep").end();
    assert_eq!(code, Some(0));
    assert_eq!(
        screen,
        "\r\x1b[2Kinvoke: waiting: it is on its way to the cluster\r\x1b[2Kpods\r\n"
    );
}

#[test]
fn on_a_terminal_ctrl_c_asks() {
    let bed = endless();
    let mut terminal = Terminal::open(&bed, "sleep");
    terminal.await_text("begun");
    terminal.type_keys(CTRL_C);
    terminal.await_text("detach (d), cancel the job (c) or go on (Enter)?");
    terminal.type_keys(b"\n");
    terminal.await_text("going on");
    terminal.type_keys(CTRL_C);
    terminal.await_text("detach (d), cancel the job (c) or go on (Enter)?");
    terminal.type_keys(b"d\n");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(248), "{rest}");
    assert!(rest.contains(&format!("job {ID} goes on")), "{rest}");
    assert!(bed.stub.seen(&route("POST", "/cancel")).is_empty());
}

#[test]
fn on_a_terminal_ctrl_c_twice_cancels() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let cancelled = Job {
        state: StateName::Cancelled,
        cause: Some(EndCause::Cancelled),
        cancelled_by: Some("local".into()),
        ..ended(143, &Printed::nothing().out("begun\n"))
    };
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("begun\n").events());
    pieces.extend([Piece::Pause(Duration::from_secs(2)), end_event(cancelled)]);
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    bed.stub.on(
        &route("POST", "/cancel"),
        vec![Answer::json(202, &running())],
    );
    let mut terminal = Terminal::open(&bed, "sleep");
    terminal.await_text("begun");
    terminal.type_keys(CTRL_C);
    terminal.await_text("(Enter)?");
    terminal.type_keys(CTRL_C);
    terminal.await_text("to be cancelled");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(245), "{rest}");
    assert_eq!(bed.stub.seen(&route("POST", "/cancel")).len(), 1);
}
