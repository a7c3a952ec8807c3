//! The attached files, before the command starts.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use invoke_protocol::digest::Sha256;
use invoke_protocol::files::Files;
use invoke_protocol::output::{ExitRecord, ExitStatus, Stream};
use invoke_protocol::shim::{Assignment, StartRefusal};
use invoke_protocol::state::ReasonCode;
use tar::{EntryType, Header};

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

/// Entries of one archive, in the form that `invoke` packs.
fn packed(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    compressed(entries, Compression::fast())
}

pub(crate) fn compressed(entries: &[(&str, u32, &[u8])], level: Compression) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), level));
    for (path, mode, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(match path.ends_with('/') {
            true => EntryType::Directory,
            false => EntryType::Regular,
        });
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        // By hand: the crate itself refuses names that a test needs.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

pub(crate) fn stated(archive: &[u8], entries: u64, content_bytes: u64) -> Files {
    let digest = digest(&SHA256, archive);
    Files {
        sha256: Sha256::from_bytes(digest.as_ref().try_into().unwrap()),
        bytes: archive.len() as u64,
        content_bytes,
        entries,
    }
}

/// A door that hands out a shell line with an archive.
pub(crate) fn attached(line: &str, archive: Vec<u8>, files: Files) -> Script {
    let script = shell(line);
    Script {
        assignment: script.assignment.map(|it| Assignment {
            files: Some(files),
            ..it
        }),
        files: Some(archive),
        ..Script::default()
    }
}

/// What no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let blocks = (0_u64..).flat_map(|number| {
        let block = digest(&SHA256, &number.to_le_bytes());
        block.as_ref().to_vec()
    });
    blocks.take(length).collect()
}

pub(crate) const RAN: &str = "echo ran > ../ran";

/// The one refusal of a pod that has started nothing, and never will.
pub(crate) async fn refused(pod: &Pod, door: &Door) -> StartRefusal {
    assert_eq!(pod.run(door).await, 125);
    never_started(pod, door)
}

fn never_started(pod: &Pod, door: &Door) -> StartRefusal {
    assert!(!pod.path("ran").exists());
    assert!(pod.path("state/started").exists(), "it could start later");
    assert!(!pod.path("state/files.tar.gz").exists());
    assert!(door.script().exits.is_empty());
    let refusal = door.script().refusals.last().unwrap().clone();
    assert_eq!(pod.last_words(), Some(refusal.clone()));
    assert_eq!(pod.last_words::<ExitRecord>(), None);
    refusal
}

#[tokio::test]
async fn the_command_finds_them_in_its_folder() {
    let archive = packed(&[
        ("bin/", 0o755, b""),
        ("bin/run.sh", 0o755, b"#!/bin/sh\ncat ../values.yaml\n"),
        ("values.yaml", 0o644, b"replicas: 3\n"),
    ]);
    let files = stated(&archive, 3, 41);
    let door = Door::open(attached("cd bin && ./run.sh", archive, files)).await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    assert_eq!(door.exit().status, ExitStatus::Exited(0));
    assert_eq!(door.stream(Stream::Stdout), b"replicas: 3\n");
    assert!(!pod.path("state/files.tar.gz").exists());
}

#[tokio::test]
async fn a_download_goes_on_from_where_it_was_cut() {
    let content = noise(1_000_000);
    let archive = packed(&[("noise", 0o644, &content)]);
    let files = stated(&archive, 1, 1_000_000);
    let door = Door::open(Script {
        failing_files: 2,
        file_cuts: vec![200_000, 1, 0, 333_333, 65_537],
        ..attached("cat noise", archive, files)
    })
    .await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert!(door.stream(Stream::Stdout) == content);
    let asked = door.script().files_asked.clone();
    assert_eq!(asked.len(), 8);
    assert!(asked.is_sorted() && asked[7] > 300_000, "{asked:?}");
}

/// How long a pod prepares is not how long it may wait for its permit.
#[tokio::test]
async fn a_long_download_is_not_a_late_start() {
    let archive = packed(&[("a", 0o644, b"content")]);
    let files = stated(&archive, 1, 7);
    let script = Script {
        failing_files: 4,
        ..attached("cat a", archive, files)
    };
    let door = Door::open(Script {
        assignment: script.assignment.map(|it| Assignment {
            start_within_seconds: 1,
            ..it
        }),
        ..script
    })
    .await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert_eq!(door.stream(Stream::Stdout), b"content");
}

/// Whatever is wrong is said of the entry that is wrong, and the command never runs.
#[tokio::test]
async fn files_that_are_not_what_was_stated_start_nothing() {
    let good = || packed(&[("a", 0o644, b"content")]);
    let of_good = stated(&good(), 1, 7);
    let hostile = packed(&[("../ran", 0o644, b"content")]);
    let of_hostile = stated(&hostile, 1, 7);
    let other = packed(&[("a", 0o644, b"Content")]);
    let no_gzip = b"PK\x03\x04 a zip file".to_vec();
    let of_no_gzip = stated(&no_gzip, 1, 7);
    let longer = Files {
        bytes: of_good.bytes - 1,
        ..of_good
    };
    let cases = [
        (hostile, of_hostile, r#""../ran" in the archive has "..""#),
        (other, of_good, "has the digest"),
        (good(), longer, "is longer than the"),
        (
            good(),
            stated(&good(), 1, 6),
            r#"6 bytes of content that were stated: "a""#,
        ),
        (good(), stated(&good(), 2, 7), "less than was stated"),
        (no_gzip, of_no_gzip, "is no gzip, or damaged"),
    ];
    for (archive, files, words) in cases {
        let door = Door::open(attached(RAN, archive, files)).await;
        let reason = refused(&Pod::new(), &door).await.reason;
        assert_eq!(reason.code, ReasonCode::FilesRefused, "{reason:?}");
        assert!(reason.message.contains(words), "{reason:?}");
    }
}

#[tokio::test]
async fn files_that_are_not_to_be_had_start_nothing() {
    let archive = packed(&[("a", 0o644, b"content")]);
    let files = stated(&archive, 1, 7);
    let script = || attached(RAN, archive.clone(), files);
    let gone = Script {
        files: None,
        ..script()
    };
    let failing = Script {
        failing_files: u32::MAX,
        ..script()
    };
    let hanging = Script {
        files_hang_at: Some(20),
        ..script()
    };
    let second = Duration::from_secs(1);
    for (script, within, words) in [
        (gone, second * 3600, "not to be had any more"),
        (failing, second, "the runner answered 503"),
        (hanging, second, "within 1 seconds; 20 of"),
    ] {
        let door = Door::open(script).await;
        let pod = Pod::new().files_within(within);
        let reason = refused(&pod, &door).await.reason;
        assert_eq!(reason.code, ReasonCode::FilesUnavailable, "{reason:?}");
        assert!(reason.message.contains(words), "{reason:?}");
    }
}

/// A pod that waits for files hears all the same.
#[tokio::test]
async fn who_does_not_want_the_command_any_more_does_not_wait_for_its_files() {
    let archive = packed(&[("a", 0o644, b"content")]);
    let files = stated(&archive, 1, 7);
    for (code, is_cancelled) in [
        (ReasonCode::Cancelled, true),
        (ReasonCode::PodTerminated, false),
    ] {
        let door = Door::open(Script {
            files_hang_at: Some(20),
            ..attached(RAN, archive.clone(), files)
        })
        .await;
        let pod = Pod::new();
        let shim = pod.start(&door);
        door.until("a question", |script| !script.files_asked.is_empty())
            .await;
        match is_cancelled {
            true => door.change(|script| script.cancel = true),
            false => shim.terminate(),
        }
        assert_eq!(shim.exit_code().await, 125);
        assert_eq!(never_started(&pod, &door).reason.code, code);
    }
}

/// The answer to a refusal may be lost like any other, and who is never heard leaves a note.
#[tokio::test]
async fn a_refusal_is_said_until_it_is_acknowledged() {
    let archive = packed(&[("../a", 0o644, b"content")]);
    let files = stated(&archive, 1, 7);
    for (lost, said) in [(3, Some(4)), (u32::MAX, None)] {
        let door = Door::open(Script {
            lost_exit_answers: lost,
            ..attached(RAN, archive.clone(), files)
        })
        .await;
        let soon = Duration::from_secs(2);
        let pod = Pod::new().impatient(soon, soon);
        refused(&pod, &door).await;
        let refusals = door.script().refusals.clone();
        assert!(said.is_none_or(|said| said == refusals.len()));
        assert!(refusals.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
