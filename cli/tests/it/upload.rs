//! `-f`: files reach the dispatcher before the job, once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use flate2::read::GzDecoder;
use insta::assert_snapshot;
use invoke_protocol::api::Limits;
use invoke_protocol::files::{
    DEFAULT_FILES_BYTES, DEFAULT_FILES_ENTRIES, Files, MAX_FILES_CHUNK_BYTES,
};
use invoke_protocol::problem::ProblemCode;
use serde_json::Value;

use crate::fixtures::{Printed, queued, route, whole_stream};
use crate::program::{Bed, run, signal, spawn, transcript};
use crate::pty::Terminal;
use crate::stub::{Answer, Piece, Seen};

const GET: &str = "GET /v1/files/*";
const PUT: &str = "PUT /v1/files/*";
const SUBMIT: &str = "POST /v1/jobs";

/// A dispatcher that takes files, and a job whose command prints nothing.
fn bed() -> Bed {
    let bed = Bed::new();
    limit(&bed, DEFAULT_FILES_BYTES, DEFAULT_FILES_ENTRIES);
    bed.stub
        .on(GET, vec![Answer::intake()])
        .on(PUT, vec![Answer::intake()])
        .on(SUBMIT, vec![Answer::json(202, &queued())])
        .on(
            &route("GET", "/events"),
            vec![Answer::events(whole_stream(0, &Printed::nothing()))],
        );
    std::fs::create_dir(here(&bed)).unwrap();
    bed
}

fn limit(bed: &Bed, files_bytes: u64, files_entries: u64) {
    let limits = Limits {
        files_bytes,
        files_entries,
        retention_seconds: 1,
    };
    bed.stub
        .on("GET /v1/limits", vec![Answer::json(200, &limits)]);
}

/// The folder in which the program runs.
fn here(bed: &Bed) -> PathBuf {
    bed.home.path().join("here")
}

fn write(bed: &Bed, name: &str, content: impl AsRef<[u8]>) {
    let path = here(bed).join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn invoke(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = bed.invoke(arguments);
    command.current_dir(here(bed));
    command
}

/// The same, patient.
fn patient(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = invoke(bed, arguments);
    command.env("INVOKE_RETRY_FOR", "30s");
    command
}

fn shown(bed: &Bed, arguments: &[&str]) -> String {
    bed.show(&run(invoke(bed, arguments)))
}

/// What the last job says of its files.
fn submitted(bed: &Bed) -> Files {
    let seen = bed.stub.seen(SUBMIT);
    let spec: Value = serde_json::from_slice(&seen.last().unwrap().body).unwrap();
    serde_json::from_value(spec["files"].clone()).unwrap()
}

/// The archive that it names, unpacked: each path with its content.
fn unpacked(bed: &Bed) -> BTreeMap<String, String> {
    let files = submitted(bed);
    let archive = bed
        .stub
        .intake(|intake| intake.archive(&files.sha256.to_string()).unwrap().to_vec());
    assert_eq!(archive.len() as u64, files.bytes);
    let mut archive = tar::Archive::new(GzDecoder::new(archive.as_slice()));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (path, content)
    });
    entries.collect()
}

/// What no packing makes shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(5);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

/// Where pieces began, and how long they were.
fn pieces(seen: &[Seen]) -> Vec<(usize, usize)> {
    let piece = |seen: &Seen| (seen.number("from"), seen.body.len());
    seen.iter().map(piece).collect()
}

#[test]
fn files_are_there_before_the_job_and_nothing_is_said() {
    let bed = bed();
    write(&bed, "values.yaml", "replicas: 2\n");
    write(&bed, "charts/web/Chart.yaml", "name: web\n");
    let line = "helm upgrade --install web charts/web -f values.yaml";
    let output = run(invoke(&bed, &["-f", "values.yaml", "-f", "charts/", line]));
    assert_eq!(bed.show(&output), "exit: 0\n");
    let expected = [
        ("charts/", ""),
        ("charts/web/", ""),
        ("charts/web/Chart.yaml", "name: web\n"),
        ("values.yaml", "replicas: 2\n"),
    ];
    let expected = expected.map(|(path, content)| (path.to_owned(), content.to_owned()));
    assert_eq!(unpacked(&bed), BTreeMap::from(expected));
    let files = submitted(&bed);
    assert_eq!((files.content_bytes, files.entries), (22, 4));
    let put = &bed.stub.seen(PUT)[0];
    assert_eq!(put.number("bytes") as u64, files.bytes);
}

/// A command that is given nothing asks for nothing, and its job is the same as ever.
#[test]
fn without_files_nothing_is_asked() {
    let bed = bed();
    assert_eq!(shown(&bed, &["ls"]), "exit: 0\n");
    let body: Value = serde_json::from_slice(&bed.stub.seen(SUBMIT)[0].body).unwrap();
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["command", "profile"]);
    assert!(bed.stub.seen("GET /v1/limits").is_empty());
}

#[test]
fn what_lands_elsewhere_is_told() {
    let bed = bed();
    write(&bed, "../up.yaml", "");
    write(&bed, "values.yaml", "");
    let arguments = ["-f", "../up.yaml", "-f", "values.yaml:conf/v.yaml", "ls"];
    assert_snapshot!(shown(&bed, &arguments), @"
    exit: 0
    --- stderr
    invoke: ../up.yaml is sent as up.yaml
    ");
    let paths: Vec<_> = unpacked(&bed).into_keys().collect();
    assert_eq!(paths, ["conf/", "conf/v.yaml", "up.yaml"]);
}

/// Nothing can be packed the second time: there is no place for an archive.
#[test]
fn the_same_files_are_neither_sent_nor_read_again() {
    let bed = bed();
    write(&bed, "large", noise(300_000));
    let again = |temporary: &str| {
        let mut command = invoke(&bed, &["-f", "large", "ls"]);
        command.env("TMPDIR", bed.home.path().join(temporary));
        bed.show(&run(command))
    };
    // What was changed a moment ago is not remembered: it could be changed again, unseen.
    while !bed.home.path().join(".cache/invoke/archives.json").exists() {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(again("."), "exit: 0\n");
    }
    let sent = bed.stub.seen(PUT).len();
    let first = submitted(&bed);
    assert_eq!(again("nowhere"), "exit: 0\n");
    assert_eq!(submitted(&bed), first);
    assert_eq!(bed.stub.seen(PUT).len(), sent);

    // Removed at the dispatcher meanwhile.
    let missing = Answer::problem(ProblemCode::FilesNotFound, "nothing of it is there");
    bed.stub.on(GET, vec![missing]);
    assert_eq!(again("."), "exit: 0\n");
    assert_eq!(submitted(&bed), first);
    assert!(bed.stub.seen(PUT).len() > sent);
}

/// Somebody else's run, a lost cache: the dispatcher knows best.
#[test]
fn what_is_there_already_is_not_sent() {
    let bed = bed();
    write(&bed, "a", "content");
    shown(&bed, &["-f", "a", "ls"]);
    let sent = bed.stub.seen(PUT).len();
    let mut elsewhere = invoke(&bed, &["-f", "a", "ls"]);
    elsewhere.env("HOME", bed.home.path().join("elsewhere"));
    assert_eq!(bed.show(&run(elsewhere)), "exit: 0\n");
    assert_eq!(bed.stub.seen(PUT).len(), sent);
}

/// The second piece never arrives, the answer to the fourth never comes back, and the dispatcher restarts.
#[test]
fn an_upload_goes_on_where_it_was_cut() {
    let bed = bed();
    write(&bed, "large", noise(3 << 20));
    bed.stub.on(
        PUT,
        vec![
            Answer::intake(),
            Answer::cut(),
            Answer::intake(),
            Answer::lost_intake(),
            Answer::problem(ProblemCode::Unavailable, "restarting").retry_after(1),
            Answer::intake(),
        ],
    );
    let output = run(patient(&bed, &["-f", "large", "ls"]));
    assert_snapshot!(bed.show(&output), @"
    exit: 0
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: the connection was cut; trying again
    ");
    assert_eq!(submitted(&bed).content_bytes, 3 << 20);
    let total = usize::try_from(submitted(&bed).bytes).unwrap();
    let pieces = pieces(&bed.stub.seen(PUT));
    let mut stored = 0;
    for (number, (from, length)) in pieces.into_iter().enumerate() {
        assert_eq!(
            from, stored,
            "piece {number} begins where the stored bytes end"
        );
        assert!(length <= MAX_FILES_CHUNK_BYTES);
        if ![1, 4].contains(&number) {
            stored += length;
        }
    }
    assert_eq!(stored, total);
}

#[test]
fn another_run_goes_on_where_one_gave_up() {
    let bed = bed();
    write(&bed, "large", noise(2 << 20));
    bed.stub
        .on(PUT, vec![Answer::intake(), Answer::intake(), Answer::cut()]);
    assert_snapshot!(shown(&bed, &["-f", "large", "ls"]), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: the connection was cut
    ");
    assert!(bed.stub.seen(SUBMIT).is_empty());
    let before = bed.stub.seen(PUT);
    bed.stub.on(PUT, vec![Answer::intake()]);
    assert_eq!(shown(&bed, &["-f", "large", "ls"]), "exit: 0\n");
    let after = pieces(&bed.stub.seen(PUT)[before.len()..]);
    let (lost, _) = pieces(&before)[2];
    assert!(lost > 0);
    assert_eq!(after[0].0, lost);
}

/// All is stored, but the dispatcher was stopped before it compared the digest.
#[test]
fn a_whole_archive_that_was_not_compared_is_completed() {
    let bed = bed();
    write(&bed, "a", noise(1000));
    let half = |stored_bytes: u64, sha256: &str| {
        serde_json::json!({
            "sha256": sha256, "bytes": stored_bytes, "stored_bytes": stored_bytes, "complete": false,
        })
    };
    shown(&bed, &["-f", "a", "ls"]);
    let files = submitted(&bed);
    let answer = Answer::json(200, &half(files.bytes, &files.sha256.to_string()));
    bed.stub.on(GET, vec![answer]);
    let sent = bed.stub.seen(PUT).len();
    assert_eq!(shown(&bed, &["-f", "a", "ls"]), "exit: 0\n");
    let last = pieces(&bed.stub.seen(PUT)[sent..]);
    assert_eq!(last, [(usize::try_from(files.bytes).unwrap(), 0)]);
}

/// Another program has begun the same upload with something else, which was removed.
#[test]
fn an_upload_that_was_removed_begins_again() {
    let bed = bed();
    write(&bed, "large", noise(1 << 20));
    let gap = Answer::problem(ProblemCode::UploadGap, "0 bytes are stored");
    bed.stub
        .on(PUT, vec![Answer::intake(), gap, Answer::intake()]);
    let missing = Answer::problem(ProblemCode::FilesNotFound, "nothing of it is there");
    bed.stub.on(GET, vec![missing]);
    assert_eq!(
        run(patient(&bed, &["-f", "large", "ls"])).status.code(),
        Some(0)
    );
    let starts: Vec<_> = pieces(&bed.stub.seen(PUT)).into_iter().collect();
    assert_eq!(starts[2].0, 0, "{starts:?}");
}

#[test]
fn damage_on_the_way_is_not_submitted() {
    let bed = bed();
    write(&bed, "a", "content");
    let detail = "the 130 bytes that were uploaded have SHA-256 0000, not 1111: they were removed";
    bed.stub.on(
        PUT,
        vec![Answer::problem(ProblemCode::DigestMismatch, detail)],
    );
    assert_snapshot!(shown(&bed, &["-f", "a", "ls"]), @"
    exit: 249
    --- stderr
    invoke: the files were damaged on their way to the dispatcher: the 130 bytes that were uploaded have SHA-256 0000, not 1111: they were removed
    invoke: hint: run it again: they are packed and uploaded anew
    ");
    assert!(bed.stub.seen(SUBMIT).is_empty());
}

/// The last piece is answered when gigabytes were read again, far away: longer than any other answer may
/// take.
#[test]
fn the_comparison_of_a_large_archive_takes_its_time() {
    let bed = bed();
    write(&bed, "a", "content");
    let complete = serde_json::json!({
        "sha256": "0".repeat(64), "bytes": 1, "stored_bytes": 1, "complete": true,
    });
    let slow = vec![
        Piece::Pause(Duration::from_secs(31)),
        Piece::Bytes(serde_json::to_vec(&complete).unwrap()),
    ];
    bed.stub.on(PUT, vec![Answer::pieces(200, slow)]);
    assert_eq!(shown(&bed, &["-f", "a", "ls"]), "exit: 0\n");
}

/// Files are kept for a time only, and it may end between the upload and the job.
#[test]
fn files_that_are_gone_when_the_job_comes_are_sent_once_more() {
    let bed = bed();
    write(&bed, "a", "content");
    let gone = Answer::problem(
        ProblemCode::FilesMissing,
        "you have uploaded nothing of the archive: upload it whole, then submit the job again",
    );
    let missing = Answer::problem(ProblemCode::FilesNotFound, "nothing of it is there");
    bed.stub.on(GET, vec![missing]);
    bed.stub
        .on(SUBMIT, vec![gone.clone(), Answer::json(202, &queued())]);
    assert_eq!(shown(&bed, &["-f", "a", "ls"]), "exit: 0\n");
    let submissions = bed.stub.seen(SUBMIT);
    assert_eq!((submissions.len(), bed.stub.seen(PUT).len()), (2, 2));
    assert_eq!(submissions[0].body, submissions[1].body);

    bed.stub.on(SUBMIT, vec![gone]);
    assert_snapshot!(shown(&bed, &["-f", "a", "ls"]), @"
    exit: 240
    --- stderr
    invoke: you have uploaded nothing of the archive: upload it whole, then submit the job again
    ");
    assert_eq!(bed.stub.seen(SUBMIT).len(), 4);
}

#[test]
fn too_much_is_refused_before_it_is_read_and_says_by_how_much() {
    let bed = bed();
    for name in ["a/1", "a/2", "b"] {
        write(&bed, name, name);
    }
    limit(&bed, 6, 100);
    assert_snapshot!(shown(&bed, &["-f", ".", "ls"]), @"
    exit: 240
    --- stderr
    invoke: the files come to 7 bytes; this dispatcher takes at most 6 bytes
    invoke: hint: name in .invokeignore what the command does not need; the largest: a/1 (3 bytes), a/2 (3 bytes), b (1 byte)
    ");
    limit(&bed, 1 << 20, 3);
    assert_snapshot!(shown(&bed, &["-f", ".", "ls"]), @"
    exit: 240
    --- stderr
    invoke: the files come to 4 files, folders and links; this dispatcher takes at most 3
    invoke: hint: name in .invokeignore what the command does not need; most are in: a (3), b (1)
    ");
    nothing_was_sent(&bed);
}

fn nothing_was_sent(bed: &Bed) {
    let sent = [GET, PUT, SUBMIT].map(|route| bed.stub.seen(route).len());
    assert_eq!(sent, [0, 0, 0]);
}

#[test]
fn what_cannot_be_sent_is_named_and_nothing_is_sent() {
    let bed = bed();
    write(&bed, "a", "");
    write(&bed, "b/a", "");
    std::fs::create_dir(here(&bed).join("links")).unwrap();
    symlink("../a", here(&bed).join("links/out")).unwrap();
    symlink("nowhere", here(&bed).join("dangling")).unwrap();
    let socket = here(&bed).join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let refused: String = [
        &["-f", "mising.yaml", "ls"][..],
        &["-f", "dangling", "ls"],
        &["-f", "socket", "ls"],
        &["-f", "links", "ls"],
        &["-f", "a", "-f", "b/a:a", "ls"],
        &["-f", "a", "-f", "b:a", "ls"],
        &["-f", "a:../a", "ls"],
    ]
    .map(|arguments| shown(&bed, arguments))
    .concat();
    assert_snapshot!(refused, @r#"
    exit: 240
    --- stderr
    invoke: -f names "mising.yaml", which does not exist
    exit: 240
    --- stderr
    invoke: -f names dangling, a symbolic link to nowhere, which does not exist
    exit: 240
    --- stderr
    invoke: socket is a socket, which cannot be sent
    invoke: hint: leave it out by naming it in .invokeignore, or attach less with -f
    exit: 240
    --- stderr
    invoke: links/out is a symbolic link to ../a, which leads out of the folder that is sent
    invoke: hint: attach the folder that holds both, put a copy in the link's place, or name the link in .invokeignore
    exit: 240
    --- stderr
    invoke: a and b/a would both be a in the work folder
    invoke: hint: rename one of them with -f SRC:DEST
    exit: 240
    --- stderr
    invoke: a would be a file at a in the work folder, where b needs a folder
    invoke: hint: rename one of them with -f SRC:DEST
    exit: 240
    --- stderr
    invoke: -f a:../a: its destination has `..` in it
    invoke: hint: write -f SRC:DEST, with DEST a path below the command's work folder
    "#);
    nothing_was_sent(&bed);
}

/// A dispatcher that is older has no files.
#[test]
fn a_dispatcher_without_files_says_so() {
    let bed = bed();
    write(&bed, "a", "");
    let answer = Answer::problem(ProblemCode::NoSuchRoute, "there is nothing at /v1/limits");
    bed.stub.on("GET /v1/limits", vec![answer]);
    assert_snapshot!(shown(&bed, &["-f", "a", "ls"]), @"
    exit: 249
    --- stderr
    invoke: there is nothing at /v1/limits
    ");
}

/// Each piece takes its time.
fn slow(bed: &Bed) {
    write(bed, "large", noise(500_000));
    let uploaded = |stored: u64, complete: bool| {
        let answer = serde_json::json!({
            "sha256": "0".repeat(64), "bytes": 502_000, "stored_bytes": stored, "complete": complete,
        });
        Answer::pieces(
            200,
            vec![
                Piece::Pause(Duration::from_millis(700)),
                Piece::Bytes(serde_json::to_vec(&answer).unwrap()),
            ],
        )
    };
    bed.stub
        .on(PUT, vec![uploaded(262_144, false), uploaded(502_000, true)]);
}

#[test]
fn on_a_terminal_progress_is_shown_and_taken_away() {
    let bed = bed();
    slow(&bed);
    let printed = Printed::nothing().out("done\n");
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(whole_stream(0, &printed))],
    );
    let line = format!("-f {}:large ls", here(&bed).join("large").display());
    let (code, screen) = Terminal::open(&bed, &line).end();
    assert_eq!(code, Some(0), "{screen}");
    let lines: Vec<_> = screen.split("\r\x1b[2K").collect();
    let begins = |with: &str| {
        let rest = lines.iter().find_map(|line| line.strip_prefix(with));
        rest.unwrap_or_else(|| panic!("{lines:?}"))
    };
    begins("invoke: uploading [----------] 0%, 0 bytes of 488.4 KiB");
    let half = begins("invoke: uploading [#####-----] 52%, 256 KiB of 488.4 KiB, ");
    assert!(
        half.contains(" KiB/s, ") && half.ends_with(" s left"),
        "{half}"
    );
    assert_eq!(lines.last(), Some(&"done\r\n"));
}

/// To read and pack takes its time, too. A hole takes up no room, and all of it is packed.
#[test]
fn on_a_terminal_packing_is_shown() {
    let bed = bed();
    write(&bed, "hole", "");
    let hole = File::options().write(true).open(here(&bed).join("hole"));
    hole.unwrap().set_len(96 << 20).unwrap();
    let line = format!("-f {}:hole ls", here(&bed).join("hole").display());
    let (code, screen) = Terminal::open(&bed, &line).end();
    assert_eq!(code, Some(0), "{screen}");
    let mut lines = screen.split("\r\x1b[2K");
    let packing = lines.find_map(|line| line.strip_prefix("invoke: packing ["));
    let packing = packing.unwrap_or_else(|| panic!("{screen:?}"));
    assert!(packing.contains(" of 96 MiB"), "{packing}");
    assert_eq!(
        screen.rsplit("\r\x1b[2K").next(),
        Some(""),
        "and taken away"
    );
}

#[test]
fn in_a_pipe_there_is_no_progress() {
    let bed = bed();
    slow(&bed);
    assert_eq!(shown(&bed, &["-f", "large", "ls"]), "exit: 0\n");
}

/// Whoever stops an upload has submitted nothing, and is told so.
#[test]
fn a_signal_ends_an_upload() {
    for name in ["INT", "TERM"] {
        let bed = bed();
        write(&bed, "a", "content");
        bed.stub
            .on(PUT, vec![Answer::pieces(200, vec![Piece::Silence])]);
        let child = spawn(invoke(&bed, &["-f", "a", "ls"]));
        while bed.stub.seen(PUT).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(&child, name);
        let output: Output = child.wait_with_output().unwrap();
        insta::allow_duplicates! {
            assert_snapshot!(transcript(&output), @"
            exit: 130
            --- stderr
            invoke: interrupted; nothing was submitted
            ");
        }
        assert!(bed.stub.seen(SUBMIT).is_empty());
    }
}
