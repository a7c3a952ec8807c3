//! What comes to a terminal: text and colours, whoever wrote it.

use invoke_protocol::api::{Cluster, ClusterList, ClusterState, JobList, JoinInvitation};
use invoke_protocol::command::Command;
use invoke_protocol::id::RunnerId;
use invoke_protocol::job::{Job, Step, StepName};
use invoke_protocol::labels::Labels;
use invoke_protocol::output::Stream;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{Reason, ReasonCode, Started, StateName};
use jiff::Timestamp;

use crate::fixtures::{
    ID, Printed, end_event, ended, job_event, over, queued, route, running, whole_stream,
};
use crate::program::{Bed, run};
use crate::pty::{Screen, Terminal};
use crate::stub::{Answer, Piece};

/// One of each that acts, in text that shows whether it did: the clipboard, the title, the screen, the
/// cursor, a question, a reset, two ways to overwrite, an 8-bit CSI, a turned direction, and what
/// nobody sees.
const HOSTILE: &str = "one\x1b]52;c;cm0=\x07\x1b]0;title\x07two\x1b[2J\x1b[1A\x1bP$qm\x1b\\\x1bc\x08\r\
                       \u{9b}2J\u{202e}three\u{200b}\nforged line";
/// How that is shown as output.
const SHOWN: &str = "one^[]52;c;cm0=^G^[]0;title^Gtwo^[[2J^[[1A^[P$qm^[\\^[c^H^M\n\
                     <U+009B>2J<U+202E>three<U+200B>\nforged line";
/// How it is shown in a line of ours.
const SHOWN_IN_A_LINE: &str = "one^[]52;c;cm0=^G^[]0;title^Gtwo^[[2J^[[1A^[P$qm^[\\^[c^H^M\
                               <U+009B>2J<U+202E>three<U+200B>\\nforged line";

fn bed(printed: &Printed) -> Bed {
    let bed = with_job(&ended(0, printed));
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())])
        .on(&route("GET", "/output"), vec![Answer::log()])
        .on(
            &route("GET", "/events"),
            vec![Answer::events(whole_stream(0, printed))],
        )
        .with_log(printed.log());
    bed
}

fn with_job(job: &Job) -> Bed {
    let bed = Bed::new();
    bed.stub
        .on(&route("GET", ""), vec![Answer::json(200, job)])
        .on(&route("POST", "/cancel"), vec![Answer::json(202, job)]);
    bed
}

/// Each way to print the output of a command.
fn ways_to_print() -> [String; 4] {
    [
        "ls".to_owned(),
        format!("result {ID}"),
        format!("logs {ID}"),
        format!("logs -f {ID}"),
    ]
}

/// What came to the screen of a terminal that was told to do nothing else.
fn inert_screen(bed: &Bed, line: &str) -> Screen {
    let (_, shown) = Terminal::open(bed, line).end();
    let screen = Screen::after(&shown);
    assert!(
        screen.actions.is_empty(),
        "{line}: {:?}\n{shown:?}",
        screen.actions
    );
    screen
}

/// Also a sequence that comes in two pieces, and bytes that are none of UTF-8; and although the screen
/// has other bytes, the digests are those of the command's own.
#[test]
fn on_a_terminal_escape_codes_are_shown() {
    let printed = Printed::nothing()
        .out(HOSTILE)
        .out("\n\x1b")
        .out("[2J")
        .err(HOSTILE)
        .out(b"\x9b2J\xff \xe2")
        .out(b"\x82\xac \xe2");
    for line in ways_to_print() {
        let screen = inert_screen(&bed(&printed), &line);
        let expected = format!("{SHOWN}\n^[[2J{SHOWN}\\x9b2J\\xff € \\xe2");
        assert_eq!(screen.text, expected, "{line}");
    }
    let (code, _) = Terminal::open(&bed(&printed), "ls").end();
    assert_eq!(code, Some(0));
}

#[test]
fn with_raw_a_terminal_obeys() {
    let printed = Printed::nothing().out(HOSTILE).err("\x1b[H");
    for line in ways_to_print() {
        let (code, shown) = Terminal::open(&bed(&printed), &format!("{line} --raw")).end();
        assert_eq!(code, Some(0));
        // The line discipline of the terminal adds the returns.
        assert_eq!(shown, format!("{HOSTILE}\x1b[H").replace('\n', "\r\n"));
        let actions = Screen::after(&shown).actions;
        assert_eq!(
            actions,
            [
                "OSC 52",
                "OSC 0",
                "CSI J",
                "CSI A",
                "DCS q",
                "ESC \\",
                "ESC c",
                "control 0x08",
                "carriage return",
                "control 0x9b",
                "turn '\\u{202e}'",
                "CSI H"
            ],
            "{line}"
        );
    }
}

/// Each stream for itself: what goes to a file is the command's bytes, while the other is on a screen.
#[test]
fn beside_a_terminal_a_file_has_every_byte() {
    let every: Vec<u8> = (0..=255).collect();
    let printed = Printed::nothing().out(&every).err(HOSTILE);
    let bed = bed(&printed);
    let file = bed.home.path().join("file");
    for (line, stream) in [
        ("ls >", Stream::Stdout),
        ("ls --raw >", Stream::Stdout),
        ("ls 2>", Stream::Stderr),
    ] {
        let (code, shown) = Terminal::open(&bed, &format!("{line}{}", file.display())).end();
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(std::fs::read(&file).unwrap(), printed.of(stream), "{line}");
    }
    let text = inert_screen(&bed, "ls >/dev/null").text;
    assert_eq!(text, SHOWN);
}

#[test]
fn colours_pass_and_are_ended() {
    let bed = bed(&Printed::nothing()
        .out("\x1b[01;3")
        .out("1mred\x1b[m ")
        .err("\x1b[38;5;9mred"));
    for line in ways_to_print() {
        let (_, shown) = Terminal::open(&bed, &line).end();
        assert_eq!(
            shown, "\x1b[01;31mred\x1b[m \x1b[38;5;9mred\x1b[0m",
            "{line}"
        );
    }
}

/// A command that hides text must not hide ours.
#[test]
fn our_words_are_not_in_the_commands_colours() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let printed = Printed::nothing().out("\x1b[30;40mdark\n");
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(printed.events());
    pieces.push(job_event(
        printed.log().len() as u64,
        Job {
            state: StateName::ContactLost,
            ..running()
        },
    ));
    pieces.push(end_event(ended(0, &printed)));
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let (_, shown) = Terminal::open(&bed, "ls").end();
    let begin = "\x1b[30;40mdark\r\n\x1b[0minvoke: job ";
    assert!(shown.starts_with(begin), "{shown:?}");
}

/// Whoever leaves early gets the shell's prompt in its own colours, too.
#[test]
fn colours_are_ended_for_those_who_leave() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(Printed::nothing().out("\x1b[31mred").events());
    pieces.push(Piece::Silence);
    bed.stub
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let mut terminal = Terminal::open(&bed, "ls 2>/dev/null");
    terminal.await_text("red");
    terminal.type_keys(b"\x03");
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(248));
    assert!(rest.ends_with("\x1b[0m"), "{rest:?}");
}

/// A job of which every text that a dispatcher, a runner or a stranger can choose acts.
fn hostile(job: Job) -> Job {
    let step = |step| Step {
        at: Timestamp::UNIX_EPOCH,
        by: HOSTILE.into(),
        step,
        message: HOSTILE.into(),
    };
    Job {
        command: Command::shell(HOSTILE).unwrap(),
        submitted_by: HOSTILE.into(),
        cancelled_by: Some(HOSTILE.into()),
        waiting: Some(Reason::new(ReasonCode::ClusterOffline, HOSTILE)),
        reason: Some(Reason::new(ReasonCode::PodTerminated, HOSTILE)),
        runner: Some(RunnerId(HOSTILE.into())),
        story: vec![step(StepName::Submitted), step(StepName::Ended)],
        ..job
    }
}

fn hostile_in(state: StateName) -> Job {
    hostile(Job { state, ..running() })
}

fn hostile_ends() -> [Job; 5] {
    [
        (StateName::Expired, Started::No),
        (StateName::Rejected, Started::No),
        (StateName::InfraFailed, Started::No),
        (StateName::Lost, Started::Unknown),
        (StateName::Cancelled, Started::Yes),
    ]
    .map(|(state, started)| hostile(over(state, started, None)))
}

/// What is asked about a job is answered in its dispatcher's words, which may be anybody's.
#[test]
fn what_is_told_of_a_job_does_nothing() {
    let open = [
        StateName::Queued,
        StateName::ContactLost,
        StateName::Cancelling,
    ]
    .map(hostile_in);
    for job in open.into_iter().chain(hostile_ends()) {
        let bed = with_job(&job);
        let list = JobList {
            jobs: vec![job.clone()],
            next: None,
        };
        bed.stub.on("GET /v1/jobs", vec![Answer::json(200, &list)]);
        for line in [format!("jobs {ID}"), format!("why {ID}")] {
            let screen = inert_screen(&bed, &line);
            let told = screen.text.contains(SHOWN_IN_A_LINE);
            assert!(told, "{} {line}: {}", job.state, screen.text);
            let forged = screen.text.contains("\nforged line");
            assert!(!forged, "{} {line}: {}", job.state, screen.text);
        }
        let rows = inert_screen(&bed, "jobs").text;
        assert_eq!(rows.lines().count(), 2, "{rows}");
    }
}

#[test]
fn what_is_said_while_a_job_is_followed_does_nothing() {
    for job in hostile_ends() {
        let bed = with_job(&job);
        let pieces = vec![
            job_event(0, hostile_in(StateName::Queued)),
            job_event(0, hostile_in(StateName::ContactLost)),
            job_event(0, hostile_in(StateName::Cancelling)),
            end_event(job.clone()),
        ];
        bed.stub
            .on("POST /v1/jobs", vec![Answer::json(202, &queued())])
            .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
        let text = inert_screen(&bed, "ls").text;
        assert_eq!(text.matches(SHOWN_IN_A_LINE).count(), 4, "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        for line in [format!("result {ID}"), format!("cancel {ID}")] {
            let text = inert_screen(&bed, &line).text;
            assert_eq!(text.matches(SHOWN_IN_A_LINE).count(), 1, "{line}: {text}");
        }
    }
}

/// It has escape codes of our own around it, and must have no others.
#[test]
fn the_line_that_comes_and_goes_does_nothing_else() {
    let bed = Bed::new();
    let waiting = Job {
        waiting: Some(Reason::new(ReasonCode::OnItsWay, HOSTILE)),
        ..queued()
    };
    let mut pieces = vec![Piece::Pause(std::time::Duration::from_millis(1500))];
    pieces.extend(whole_stream(0, &Printed::nothing()));
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &waiting)])
        .on(&route("GET", "/events"), vec![Answer::events(pieces)]);
    let (_, shown) = Terminal::open(&bed, "ls").end();
    let line: String = format!("invoke: waiting: {SHOWN_IN_A_LINE}")
        .chars()
        .take(79)
        .collect();
    assert_eq!(shown, format!("\r\x1b[2K{line}\r\x1b[2K"));
}

#[test]
fn a_refusal_does_nothing() {
    let bed = Bed::new();
    let problem = Answer::problem(ProblemCode::Forbidden, HOSTILE);
    bed.stub
        .on("POST /v1/jobs", vec![problem])
        .on("GET /v1/jobs", vec![Answer::foreign(500, HOSTILE)]);
    let text = inert_screen(&bed, "ls").text;
    assert!(text.contains(SHOWN_IN_A_LINE), "{text}");
    inert_screen(&bed, "jobs");
}

#[test]
fn what_is_told_of_a_cluster_does_nothing() {
    let bed = Bed::new();
    let cluster = Cluster {
        clock_skew_seconds: None,
        id: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
        name: "demo".parse().unwrap(),
        labels: Labels::default(),
        state: ClusterState::Connected,
        runner_version: Some(HOSTILE.into()),
        last_contact: None,
        last_contact_seconds: None,
        profiles: vec![],
        open_jobs: 0,
    };
    let invitation = JoinInvitation {
        cluster: cluster.id,
        name: cluster.name.clone(),
        join_token: HOSTILE.into(),
        expires_at: Timestamp::UNIX_EPOCH,
        dispatcher_url: HOSTILE.into(),
        dispatcher_ca_pem: Some(format!("{HOSTILE}\n{HOSTILE}\n")),
    };
    let clusters = ClusterList {
        clusters: vec![cluster],
    };
    bed.stub
        .on("GET /v1/clusters", vec![Answer::json(200, &clusters)])
        .on("POST /v1/clusters", vec![Answer::json(201, &invitation)]);
    let text = inert_screen(&bed, "clusters").text;
    assert_eq!(text.lines().count(), 2, "{text}");
    inert_screen(&bed, "clusters add demo");
}

/// A document on a screen is the document that a program gets, to the last byte of its strings.
#[test]
fn a_document_does_nothing_and_means_the_same() {
    let printed = Printed::nothing().out(HOSTILE).err("\u{7f}\u{e0041}");
    let job = hostile(ended(0, &printed));
    let bed = with_job(&job);
    bed.stub
        .on(&route("GET", "/output"), vec![Answer::log()])
        .with_log(printed.log());
    for verb in ["result", "jobs", "why"] {
        let text = inert_screen(&bed, &format!("{verb} -o json {ID}")).text;
        let piped = run(bed.invoke(&[verb, "-o", "json", ID])).stdout;
        let on_screen: serde_json::Value = serde_json::from_str(&text).unwrap();
        let in_pipe: serde_json::Value = serde_json::from_slice(&piped).unwrap();
        assert_eq!(on_screen, in_pipe);
        if verb == "result" {
            assert_eq!(in_pipe["stdout"], HOSTILE);
            assert_eq!(in_pipe["stderr"], "\u{7f}\u{e0041}");
        }
    }
}
