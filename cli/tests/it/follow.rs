//! Cuts, proxies and lies on the way of the output.

use std::time::Duration;

use invoke_protocol::api::JobEvent;
use invoke_protocol::job::Completeness;
use invoke_protocol::output::{IncompleteReason, Stream, StreamSummary};
use invoke_protocol::problem::ProblemCode;

use crate::fixtures::{
    ID, Printed, end_event, ended, job_event, queued, route, running, whole_stream,
};
use crate::front::Front;
use crate::program::{Bed, Certificates, run, spawn};
use crate::stub::{Answer, Piece, event};

fn submitted() -> Bed {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    bed
}

fn patient(bed: &Bed) -> std::process::Command {
    let mut command = bed.invoke(&["cat"]);
    command.env("INVOKE_RETRY_FOR", "5s");
    command
}

fn printed() -> Printed {
    (0..40_u8).fold(Printed::nothing(), |printed, byte| match byte % 3 {
        0 => printed.err([byte; 7]),
        _ => printed.out([byte; 1000]),
    })
}

/// The stream breaks between events, in the middle of one, and after one that was sent twice. Every
/// byte arrives once.
#[test]
fn a_cut_stream_goes_on_where_it_was() {
    const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
    for protocol in [&PROTOCOLS[..1], &PROTOCOLS[1..]] {
        let bed = Bed::with_certificates(&Certificates::good().speaking(protocol));
        bed.stub
            .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
        let printed = printed();
        bed.stub.on(&route("GET", "/events"), thrice_cut(&printed));

        let output = run(patient(&bed));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, printed.of(Stream::Stdout));
        let reconnecting =
            "invoke: reconnecting to the dispatcher…\ninvoke: reconnected\n".as_bytes();
        let begin = output.stderr.windows(reconnecting.len());
        let begin = begin
            .enumerate()
            .filter(|(_, bytes)| *bytes == reconnecting);
        let begins: Vec<_> = begin.map(|(begin, _)| begin).collect();
        assert_eq!(begins.len(), 1, "once for all of the cuts");
        let mut of_command = output.stderr.clone();
        of_command.drain(begins[0]..begins[0] + reconnecting.len());
        assert_eq!(of_command, printed.of(Stream::Stderr));
        assert_eq!(bed.stub.seen(&route("GET", "/events")).len(), 4);
    }
}

fn thrice_cut(printed: &Printed) -> Vec<Answer> {
    let events = whole_stream(0, printed);
    let Piece::Output(_, torn) = events[10].clone() else {
        unreachable!()
    };
    let half = Piece::Bytes(torn[..torn.len() / 2].to_vec());
    let again = Piece::Bytes(torn);
    let until = |count: usize, last: Option<Piece>| {
        let mut pieces = events[..count].to_vec();
        pieces.extend(last);
        pieces.extend([Piece::Pause(PAUSE), Piece::Cut]);
        Answer::events(pieces)
    };
    vec![
        until(10, Some(half)),
        until(25, None),
        until(30, Some(again)),
        Answer::events(events.clone()),
    ]
}

const PAUSE: Duration = Duration::from_millis(50);

/// However a dispatcher is away, nothing is lost, and the person is told once that it is away and once
/// that it is back.
#[test]
fn an_outage_is_told_once_and_survived() {
    let bed = submitted();
    let printed = printed();
    let events = whole_stream(0, &printed);
    let mut first = events[..12].to_vec();
    first.extend([Piece::Pause(PAUSE), Piece::Cut]);
    let away = || Answer::problem(ProblemCode::Unavailable, "the store is away");
    bed.stub.on(
        &route("GET", "/events"),
        vec![
            Answer::events(first),
            Answer::foreign(502, "bad gateway"),
            away(),
            Answer::cut(),
            away(),
            Answer::foreign(503, "no dispatcher"),
            Answer::events(events),
        ],
    );
    let output = run(patient(&bed));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, printed.of(Stream::Stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("reconnecting to the dispatcher…").count(), 1);
    assert_eq!(said.matches("invoke: reconnected\n").count(), 1);
}

/// A blob that is gone: the dispatcher knows the job, each time, and never hands out its output.
#[test]
fn output_that_cannot_be_read_is_given_up() {
    let bed = Bed::new();
    let printed = printed();
    bed.stub.on(
        &route("GET", ""),
        vec![Answer::json(200, &ended(0, &printed))],
    );
    bed.stub.on(&route("GET", "/output"), vec![Answer::cut()]);
    let mut command = bed.invoke(&["result", ID]);
    command.env("INVOKE_RETRY_FOR", "1s");
    let output = run(command);
    assert_ne!(output.status.code(), Some(0));
    let asked = bed.stub.seen(&route("GET", "/output")).len();
    assert!((2..60).contains(&asked), "{asked} times");
}

/// A front that restarts may show anything. Whoever was the dispatcher a moment ago will be it again.
#[test]
fn a_stranger_in_the_dispatchers_place_is_outwaited() {
    let bed = submitted();
    let printed = Printed::nothing().out("one\n").out("two\n");
    let events = whole_stream(3, &printed);
    let mut first = events[..2].to_vec();
    first.push(Piece::Silence);
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(first), Answer::events(events)],
    );
    let front = Front::before(bed.stub.address);
    let mut command = patient(&bed);
    command.env("INVOKE_URL", format!("https://localhost:{}", front.port));
    let mut child = spawn(command);
    let mut line = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    front.break_for(3);
    let output = child.wait_with_output().unwrap();
    assert_eq!(front.strangers(), 0, "else nothing is shown");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        (&line[..], &output.stdout[..]),
        (&b"one\n"[..], &b"two\n"[..])
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "invoke: reconnecting to the dispatcher…\ninvoke: reconnected\n"
    );
}

/// A proxy that does not know event streams: the rest of the way is long-polled.
#[test]
fn without_event_streams_it_polls() {
    let printed = printed();
    let mut half = running();
    half.log_bytes = 12 + 1005;
    for streams in [
        vec![Answer::json(
            200,
            &serde_json::json!({"a proxy": "says this"}),
        )],
        vec![Answer::events(vec![Piece::Cut])],
    ] {
        let bed = submitted();
        bed.stub.on(&route("GET", "/events"), streams);
        bed.stub.on(
            &route("GET", ""),
            vec![
                Answer::json(200, &half),
                Answer::json(200, &ended(7, &printed)),
            ],
        );
        bed.stub
            .with_log(printed.log())
            .on(&route("GET", "/output"), vec![Answer::log()]);
        let output = run(patient(&bed));
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(output.stdout, printed.of(Stream::Stdout));
        let polls = bed.stub.seen(&route("GET", ""));
        assert_eq!(polls[0].query, "");
        assert!(
            polls[1]
                .query
                .starts_with("wait_seconds=20&version=4&log_bytes=")
        );
    }
}

/// Much output is not sent but announced, and read as it is stored, also by who comes back after a cut in the middle of
/// it. What is announced or sent of what was read already is passed over.
#[test]
fn announced_output_is_read_as_it_is_stored() {
    let bed = submitted();
    let printed = printed();
    let log_bytes = printed.log().len() as u64;
    let stored = |from, log_bytes| event(from, &JobEvent::Stored { log_bytes });
    let sent = printed.events();
    let first = |last| {
        Answer::events(vec![
            job_event(0, running()),
            sent[0].clone(),
            stored(7 + 13, 2000),
            Piece::Pause(Duration::from_millis(200)),
            last,
        ])
    };
    bed.stub.on(
        &route("GET", "/events"),
        vec![
            first(Piece::Cut),
            Answer::events(vec![
                stored(7 + 13, log_bytes),
                stored(2000, log_bytes),
                sent[39].clone(),
                end_event(ended(0, &printed)),
            ]),
        ],
    );
    bed.stub
        .with_log(printed.log())
        .on(&route("GET", "/output"), vec![Answer::cut(), Answer::log()]);
    let output = run(patient(&bed));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, printed.of(Stream::Stdout));
    let asked = bed.stub.seen(&route("GET", "/events"));
    assert_eq!(asked[0].query, "from=0&announce=true");
}

/// What is missing in the middle is not printed over: at once where the positions show it, and at the
/// end where a gap looks like the headers of frames that were put together.
#[test]
fn a_gap_is_refused() {
    for (missing, words) in [
        (
            "seven b",
            "a piece of output does not continue the one before",
        ),
        ("thirteen byte", "OUTPUT IS WRONG: stdout came to 100 bytes"),
    ] {
        let bed = submitted();
        let printed = Printed::nothing().out(missing).out([b'x'; 100]);
        let mut pieces = whole_stream(0, &printed);
        pieces.remove(1);
        bed.stub
            .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
        let output = run(bed.invoke(&["cat"]));
        assert_eq!(output.status.code(), Some(249));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words), "{said}");
    }
}

/// What arrived is compared with what the shim read from the pipes.
#[test]
fn altered_output_is_never_a_success() {
    let bed = submitted();
    let mut job = ended(0, &Printed::nothing().out("right\n"));
    job.stdout = Some(StreamSummary {
        bytes: 6,
        ..Printed::nothing().out("wrong\n").summary(Stream::Stdout)
    });
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("right\n").events());
    pieces.push(end_event(job));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    insta::assert_snapshot!(bed.transcript(&["cat"]), @"
    exit: 249
    --- stdout
    right
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10: OUTPUT IS WRONG: stdout came to 6 bytes (sha256 55c97802b397ef4da0d8e2ecf4a8fa33c1f4755da0eacec54c62cacbbcfd9713), but the command wrote 6 (sha256 543df89fec85b1c280e5be7bc6a33e31203503cd6edb3084312de4db5a9b436c): do not trust what was printed
    invoke: hint: `invoke logs -f 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` prints its output again
    ");
}

/// The code is still the command's; what is missing is said loudly.
#[test]
fn incomplete_output_is_loud() {
    let bed = submitted();
    let whole = Printed::nothing().out("one\n").out("two\n");
    let mut job = ended(3, &whole);
    job.output_complete = Some(Completeness::No);
    job.output_incomplete_reason = Some(IncompleteReason::NotUploaded);
    let mut pieces = vec![job_event(0, running())];
    pieces.extend_from_slice(&whole.events()[..1]);
    pieces.push(end_event(job));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    insta::assert_snapshot!(bed.transcript(&["cat"]), @"
    exit: 3
    --- stdout
    one
    --- stderr
    invoke: OUTPUT IS INCOMPLETE: this is 4 of 8 bytes; the rest was never uploaded
    ");
}

/// A dispatcher that is gone for good: the job is not, and that is what is said.
#[test]
fn a_job_that_cannot_be_followed_goes_on() {
    let bed = submitted();
    let pieces = vec![job_event(0, running()), Piece::Pause(PAUSE), Piece::Cut];
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(pieces), Answer::foreign(502, "")],
    );
    let shown = bed.transcript(&["cat"]).replace(ID, "[ID]");
    insta::assert_snapshot!(shown, @"
    exit: 248
    --- stderr
    invoke: job [ID] goes on without us: cannot reach the dispatcher at [URL]: the connection was cut
    invoke: hint: `invoke logs -f [ID]` follows it again
    ");
}
