//! `artifacts`: listed, fetched through cuts, and never written where they must not be.

use aws_lc_rs::digest::{SHA256, digest};
use insta::assert_snapshot;
use invoke_protocol::api::ArtifactList;
use invoke_protocol::artifacts::{
    Artifact, ArtifactsIncomplete, ArtifactsSummary, Manifest, Skipped,
};
use invoke_protocol::digest::Sha256;
use invoke_protocol::problem::ProblemCode;

use crate::fixtures::{ID, route};
use crate::program::Bed;
use crate::stub::Answer;

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

/// A list of these files, and the stream of their contents.
fn left(files: &[(&str, &[u8])]) -> (ArtifactList, Vec<u8>) {
    let (mut content, mut artifacts) = (Vec::new(), Vec::new());
    for (path, bytes) in files {
        artifacts.push(Artifact {
            path: (*path).to_owned(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
            offset: content.len() as u64,
            executable: false,
        });
        content.extend_from_slice(bytes);
    }
    let list = ArtifactList {
        summary: ArtifactsSummary {
            files: artifacts.len() as u64,
            content_bytes: content.len() as u64,
            manifest_bytes: 1,
            manifest_sha256: sha256(b""),
            skipped: 0,
            incomplete: None,
        },
        manifest: Manifest {
            files: artifacts,
            skipped: Vec::new(),
        },
    };
    (list, content)
}

fn bed(list: &ArtifactList, content: Vec<Answer>) -> Bed {
    let bed = Bed::new();
    bed.stub
        .on(&route("GET", "/artifacts"), vec![Answer::json(200, list)])
        .on(&route("GET", "/artifacts/content"), content);
    bed
}

#[test]
fn they_are_listed_with_what_is_missing() {
    let (mut list, _) = left(&[("report.html", b"fine"), ("a\u{1b}[2J/b", b"")]);
    list.manifest.skipped.push(Skipped {
        path: "socket".to_owned(),
        reason: "it is a socket".to_owned(),
    });
    list.summary.incomplete = Some(ArtifactsIncomplete::TooLarge);
    let bed = bed(&list, vec![]);
    assert_snapshot!(bed.transcript(&["artifacts", ID]), @"
    exit: 0
    --- stdout
    NAME          BYTES   SHA-256
    report.html   4       d14a58bae804a2b80b5b76a010239c88ffca1fc7951a90f8e9131beda1e23c1b
    a^[[2J/b      0       e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    --- stderr
    invoke: socket did not come back: it is a socket
    invoke: ARTIFACTS ARE MISSING: they come to more bytes than are allowed
    ");
    let json = bed.transcript(&["-o", "json", "artifacts", ID]);
    assert!(json.contains(r#""path": "report.html""#), "{json}");
}

/// What was cut off is asked for from there on, and every byte is compared.
#[test]
fn a_fetch_goes_on_where_it_was_cut() {
    let report: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    let (list, content) = left(&[("first", b"1"), ("a/report", &report), ("last", b"3")]);
    let answers = vec![
        Answer::range(&content, 7000),
        Answer::range(&content, 1),
        Answer::range(&content, usize::MAX),
    ];
    let bed = bed(&list, answers);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_str().unwrap();
    let shown = bed.transcript(&[
        "--retry-for",
        "5s",
        "artifacts",
        ID,
        "get",
        "a/report",
        "-d",
        folder,
    ]);
    assert_eq!(shown, "exit: 0\n");
    assert_eq!(
        std::fs::read(place.path().join("a/report")).unwrap(),
        report
    );
    let ranges: Vec<_> = bed
        .stub
        .seen(&route("GET", "/artifacts/content"))
        .iter()
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert_eq!(
        ranges,
        ["bytes=1-20000", "bytes=7001-20000", "bytes=7002-20000"]
    );
    assert_eq!(
        bed.transcript(&[
            "artifacts",
            ID,
            "get",
            "--all",
            "-d",
            &format!("{folder}/all")
        ]),
        "exit: 0\n"
    );
    assert_eq!(std::fs::read(place.path().join("all/last")).unwrap(), b"3");
}

#[test]
fn what_is_not_there_or_not_right_is_refused() {
    let (list, _) = left(&[("report", b"fine"), ("../outside", b"evil")]);
    let bed = bed(&list, vec![Answer::range(b"FINEevil", usize::MAX)]);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("in");
    let folder = folder.to_str().unwrap();
    let get = |name: &str| {
        bed.transcript(&["artifacts", ID, "get", name, "-d", folder])
            .replace(folder, "IN")
    };
    assert_snapshot!(get("other"), @"
    exit: 240
    --- stderr
    invoke: job 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 has no artifact named other
    invoke: hint: `invoke artifacts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10` lists what it has
    ");
    assert_snapshot!(get("report"), @"
    exit: 249
    --- stderr
    invoke: IN/report is not written: what came does not have the digest that the pod stated; it was changed on the way
    ");
    assert_snapshot!(get("../outside"), @r#"
    exit: 249
    --- stderr
    invoke: the artifact "../outside" is not written: its name is no path below a folder, and whoever chose it may mean harm
    "#);
    assert!(!place.path().join("outside").exists());
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    let none = Answer::problem(ProblemCode::ArtifactsNotFound, "job X left no artifacts");
    bed.stub.on(&route("GET", "/artifacts"), vec![none]);
    assert_snapshot!(bed.transcript(&["artifacts", ID]), @"
    exit: 240
    --- stderr
    invoke: job X left no artifacts
    ");
}

#[test]
fn something_must_be_asked_for() {
    let (list, _) = left(&[]);
    let bed = bed(&list, vec![]);
    for line in [
        ["artifacts", ID, "get"].as_slice(),
        &["artifacts", ID, "get", "--all", "report"],
        &["artifacts"],
    ] {
        assert!(bed.transcript(line).starts_with("exit: 240\n"), "{line:?}");
    }
}
