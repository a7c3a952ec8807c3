//! What a command leaves to be sent back.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::artifacts::{ArtifactsIncomplete, Manifest};
use invoke_protocol::output::{EndCause, ExitRecord, ExitStatus};
use invoke_protocol::shim::{Assignment, ENV_ARTIFACTS_BYTES, ENV_ARTIFACTS_ENTRIES};

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

/// The files in a stream of artifacts, each compared with its digest; and what was skipped.
fn arrived(door: &Door) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let summary = door.exit().artifacts.expect("no artifacts");
    let stream = door.script().artifacts.clone();
    assert_eq!(stream.len() as u64, summary.stream_bytes());
    let (content, manifest) = stream.split_at(summary.content_bytes as usize);
    assert_eq!(
        digest(&SHA256, manifest).as_ref(),
        summary.manifest_sha256.as_bytes()
    );
    let manifest: Manifest = serde_json::from_slice(manifest).unwrap();
    let files = manifest.files.into_iter().map(|file| {
        let content = &content[file.offset as usize..][..file.bytes as usize];
        assert_eq!(digest(&SHA256, content).as_ref(), file.sha256.as_bytes());
        (file.path, content.to_vec())
    });
    let skipped = manifest.skipped.into_iter().map(|skipped| skipped.path);
    (files.collect(), skipped.collect())
}

fn names(door: &Door) -> Vec<String> {
    let (files, _) = arrived(door);
    files.into_iter().map(|(path, _)| path).collect()
}

const SOON: Duration = Duration::from_millis(500);
const NEVER: Duration = Duration::from_secs(3600);

/// 3 MiB and more that no text tool would leave alone.
const LEAVES: &str = "cd $INVOKE_ARTIFACTS; head -c 3333333 /dev/urandom > noise; mkdir -p a/b; echo hi > a/b/c; : > empty";

#[tokio::test]
async fn what_is_left_comes_back() {
    let door = Door::open(shell(LEAVES)).await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    let (files, skipped) = arrived(&door);
    assert!(skipped.is_empty());
    for (path, content) in &files {
        let left = std::fs::read(pod.path("artifacts").join(path)).unwrap();
        assert!(&left == content, "{path}");
    }
    assert_eq!(names(&door), ["a/b/c", "empty", "noise"]);
    assert_eq!(door.exit().artifacts.unwrap().incomplete, None);
    assert_eq!(pod.last_words(), Some(door.exit()));
}

/// Whatever part of an upload was stored before the line broke, nothing is doubled and nothing lost.
#[tokio::test]
async fn an_upload_of_artifacts_goes_on_from_where_it_was_cut() {
    let door = Door::open(Script {
        artifact_cuts: vec![1_000_000, 0, 77, 1_048_575, 1],
        ..shell(LEAVES)
    })
    .await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    assert!(door.script().artifact_cuts.is_empty());
    let noise = std::fs::read(pod.path("artifacts/noise")).unwrap();
    assert!(arrived(&door).0[2].1 == noise);
}

/// The runner that made the pod says how much it has room for.
#[tokio::test]
async fn no_more_comes_back_than_the_pod_has_room_for() {
    let line = "cd $INVOKE_ARTIFACTS; for i in a b c; do printf 12345 > $i; done";
    for (name, limit, incomplete) in [
        (ENV_ARTIFACTS_BYTES, "10", ArtifactsIncomplete::TooLarge),
        (ENV_ARTIFACTS_ENTRIES, "2", ArtifactsIncomplete::TooMany),
    ] {
        let door = Door::open(shell(line)).await;
        let pod = Pod::new().variable(name, limit);
        assert_eq!(pod.run(&door).await, 0);
        assert_eq!(names(&door), ["a", "b"], "{name}");
        let summary = door.exit().artifacts.unwrap();
        assert_eq!(summary.incomplete, Some(incomplete));
    }
}

#[tokio::test]
async fn who_leaves_nothing_sends_nothing() {
    for line in [
        "true",
        "mkdir $INVOKE_ARTIFACTS/empty",
        "rmdir $INVOKE_ARTIFACTS",
    ] {
        let door = Door::open(shell(line)).await;
        let pod = Pod::new();
        assert_eq!(pod.run(&door).await, 0);
        assert_eq!(door.exit().artifacts, None, "{line}");
        assert_eq!(door.script().artifact_uploads, 0);
        assert_eq!(pod.last_words(), Some(door.exit()));
    }
}

/// A report of what went wrong is worth the most when something did.
#[tokio::test]
async fn whoever_ended_a_command_its_artifacts_come_back() {
    let line = "echo 1 > $INVOKE_ARTIFACTS/report; echo up; ";
    let failing = Door::open(shell(&format!("{line} exit 3"))).await;
    assert_eq!(Pod::new().run(&failing).await, 0);
    assert_eq!(failing.exit().status, ExitStatus::Exited(3));
    assert_eq!(names(&failing), ["report"]);

    let waiting = format!("{line} exec sleep 99");
    let late = shell(&waiting);
    let late = Door::open(Script {
        assignment: late.assignment.map(|it| Assignment {
            run_timeout_seconds: 1,
            ..it
        }),
        ..Script::default()
    })
    .await;
    assert_eq!(Pod::new().run(&late).await, 0);
    assert_eq!(late.exit().cause, EndCause::RunTimeout);
    assert_eq!(names(&late), ["report"]);

    for cause in [EndCause::Cancelled, EndCause::PodTerminated] {
        let door = Door::open(shell(&waiting)).await;
        let pod = Pod::new();
        let shim = pod.start(&door);
        door.until("the first line", |script| !script.log.is_empty())
            .await;
        match cause {
            EndCause::Cancelled => door.change(|script| script.cancel = true),
            _ => shim.terminate(),
        }
        assert_eq!(shim.exit_code().await, 0);
        assert_eq!(door.exit().cause, cause);
        assert_eq!(names(&door), ["report"]);
    }
}

/// What runs on when the command has ended is dead before anybody looks at what it writes.
#[tokio::test]
async fn nothing_writes_any_more_when_artifacts_are_collected() {
    let writer = "setsid sh -c 'while :; do echo more; done' > $i 2> /dev/null &";
    let line = format!(
        "cd $INVOKE_ARTIFACTS; for i in $(seq 50); do {writer} done; until [ -s 50 ]; do :; done"
    );
    let door = Door::open(shell(&line)).await;
    let pod = Pod::new().own_process_namespace();
    assert_eq!(pod.run(&door).await, 0);
    let (files, skipped) = arrived(&door);
    assert_eq!((files.len(), skipped), (50, Vec::new()));
    for (path, content) in files {
        let left = std::fs::read(pod.path("artifacts").join(&path)).unwrap();
        assert!(left == content, "{path}");
    }
}

/// The end is the command's own, and the record says what is missing and why.
#[tokio::test]
async fn a_problem_with_artifacts_is_not_the_commands() {
    let line = "echo 1 > $INVOKE_ARTIFACTS/report; exit 3";
    let full = |script: &mut Script| script.artifacts_full = true;
    let hanging = |script: &mut Script| script.artifacts_hang = true;
    let cases: [(fn(&mut Script), _, _, _); 2] = [
        (full, SOON, NEVER, ArtifactsIncomplete::StorageFull),
        (hanging, NEVER, SOON, ArtifactsIncomplete::NotUploaded),
    ];
    for (change, storage_full, farewell, incomplete) in cases {
        let mut script = shell(line);
        change(&mut script);
        let door = Door::open(script).await;
        let pod = Pod::new().impatient(storage_full, farewell);
        assert_eq!(pod.run(&door).await, 0);
        let exit = door.exit();
        assert_eq!(exit.status, ExitStatus::Exited(3));
        let summary = exit.artifacts.clone().unwrap();
        assert_eq!((summary.files, summary.content_bytes), (1, 2));
        assert_eq!(summary.incomplete, Some(incomplete));
        assert_eq!(pod.last_words(), Some(exit));
    }
}

/// The folder itself may be something that nobody should follow.
#[tokio::test]
async fn a_folder_that_was_replaced_is_not_followed() {
    let line = "rmdir $INVOKE_ARTIFACTS; ln -s /etc $INVOKE_ARTIFACTS";
    let door = Door::open(shell(line)).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    let summary = door.exit().artifacts.unwrap();
    assert_eq!(summary.files, 0);
    assert_eq!(summary.incomplete, Some(ArtifactsIncomplete::NotUploaded));
    assert_eq!(door.script().artifact_uploads, 0);
}

/// Nobody wants the end of such a command either.
#[tokio::test]
async fn artifacts_that_nobody_wants_are_not_brought() {
    let door = Door::open(Script {
        artifacts_gone: true,
        ..shell("echo 1 > $INVOKE_ARTIFACTS/report")
    })
    .await;
    assert_eq!(Pod::new().run(&door).await, 125);
    assert!(door.script().exits.is_empty());
}

/// Should the pod go meanwhile, its status does not say that nothing was left.
#[tokio::test]
async fn the_last_words_do_not_promise_artifacts() {
    for (uploads_hang, artifacts_hang, files) in [(true, false, 0), (false, true, 1)] {
        let door = Door::open(Script {
            uploads_hang,
            artifacts_hang,
            ..shell("echo 1 > $INVOKE_ARTIFACTS/report; echo hi")
        })
        .await;
        let pod = Pod::new();
        let shim = pod.start(&door);
        let written = async {
            loop {
                let record: Option<ExitRecord> = pod.last_words();
                match record.and_then(|record| record.artifacts) {
                    Some(summary) if summary.files == files => return summary,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let summary = tokio::time::timeout(Duration::from_secs(20), written).await;
        let summary = summary.expect("no last words");
        assert_eq!(summary.incomplete, Some(ArtifactsIncomplete::NotUploaded));
        assert!(door.script().exits.is_empty());
        drop(shim);
    }
}

/// A pod that is evicted has so much time and no more: the record of the end goes first then.
#[tokio::test]
async fn an_eviction_does_not_wait_for_artifacts() {
    let script = shell("echo 1 > $INVOKE_ARTIFACTS/report; exit 3");
    let door = Door::open(Script {
        assignment: script.assignment.map(|it| Assignment {
            grace_seconds: 1,
            ..it
        }),
        artifacts_hang: true,
        ..Script::default()
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("an upload", |script| script.artifact_uploads > 0)
        .await;
    shim.terminate();
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(exit.status, ExitStatus::Exited(3));
    let incomplete = exit.artifacts.unwrap().incomplete;
    assert_eq!(incomplete, Some(ArtifactsIncomplete::NotUploaded));
}
