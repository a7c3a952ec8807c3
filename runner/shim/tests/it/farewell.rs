//! What a shim does after its command has ended, and for how long.

use std::time::Duration;

use invoke_protocol::output::{EndCause, ExitRecord, ExitStatus, IncompleteReason};

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

const SOON: Duration = Duration::from_millis(500);
const NEVER: Duration = Duration::from_secs(3600);

/// The code is worth knowing even where there is no room for the output.
#[tokio::test]
async fn without_room_the_end_is_reported_as_incomplete() {
    let door = Door::open(Script {
        storage_full: true,
        ..shell("echo kept nowhere; exit 3")
    })
    .await;
    let pod = Pod::new().impatient(SOON, NEVER);
    assert_eq!(pod.run(&door).await, 0);
    let exit = door.exit();
    assert_eq!(exit.status, ExitStatus::Exited(3));
    assert_eq!(exit.incomplete, Some(IncompleteReason::StorageFull));
    assert!(exit.log_bytes > 0, "else it would look complete");
    assert_eq!(pod.last_words(), Some(exit));
}

/// Room that is made in time is room.
#[tokio::test]
async fn room_that_comes_late_is_used() {
    let door = Door::open(Script {
        storage_full: true,
        ..shell("echo kept")
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("an upload", |script| script.uploads > 1).await;
    door.change(|script| script.storage_full = false);
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(exit.incomplete, None);
    assert_eq!(exit.log_bytes, door.script().log.len() as u64);
}

#[tokio::test]
async fn without_an_answer_the_output_is_given_up_one_day() {
    let door = Door::open(Script {
        uploads_hang: true,
        ..shell("echo kept nowhere")
    })
    .await;
    let pod = Pod::new().impatient(NEVER, SOON);
    assert_eq!(pod.run(&door).await, 0);
    let exit = door.exit();
    assert_eq!(exit.incomplete, Some(IncompleteReason::NotUploaded));
    assert_eq!(pod.last_words(), Some(exit));
}

/// Should the pod go before anything gets through, its status still says how the command ended.
#[tokio::test]
async fn the_last_words_are_written_before_anybody_answers() {
    let door = Door::open(Script {
        uploads_hang: true,
        ..shell("echo hi; exit 4")
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    let written = async {
        loop {
            match pod.last_words::<ExitRecord>() {
                Some(record) => return record,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let record = tokio::time::timeout(Duration::from_secs(20), written).await;
    let record = record.expect("no last words");
    assert_eq!(record.status, ExitStatus::Exited(4));
    assert!(door.script().exits.is_empty());
    drop(shim);
}

/// A record that nobody takes does not keep a pod for ever.
#[tokio::test]
async fn a_report_in_vain_ends_with_the_record_in_the_pods_status() {
    let door = Door::open(Script {
        lost_exit_answers: u32::MAX,
        ..shell("exit 5")
    })
    .await;
    let pod = Pod::new().impatient(NEVER, SOON);
    assert_eq!(pod.run(&door).await, 125);
    let record: ExitRecord = pod.last_words().unwrap();
    assert_eq!(record.status, ExitStatus::Exited(5));
}

/// Held at the limit of the spool, with nobody who takes anything: the end is still an end.
#[tokio::test]
async fn a_command_that_is_held_can_be_cancelled() {
    let limit = 1 << 20;
    let door = Door::open(Script {
        uploads_hang: true,
        grace_seconds: Some(0),
        ..shell("yes")
    })
    .await;
    let pod = Pod::new().spool_limit(limit).impatient(NEVER, SOON);
    let shim = pod.start(&door);
    let spooled = || std::fs::metadata(pod.path("state/spool")).map_or(0, |spool| spool.len());
    let held = async {
        while spooled() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(20), held).await;
    assert!(held.is_ok(), "the spool is not full");
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(exit.cause, EndCause::Cancelled);
    assert_eq!(exit.incomplete, Some(IncompleteReason::NotUploaded));
    assert_eq!(exit.log_bytes, spooled());
}

/// The kernel counts what it kills; the code alone does not say who killed.
#[tokio::test]
async fn a_kill_for_memory_is_in_the_record() {
    for (count, expected) in [(1, true), (0, false)] {
        let line = format!("echo 'oom_kill {count}' > ../cgroup/memory.events; kill -9 $$");
        let door = Door::open(shell(&line)).await;
        let pod = Pod::new();
        std::fs::write(pod.path("cgroup/memory.events"), "oom_kill 0\n").unwrap();
        assert_eq!(pod.run(&door).await, 0);
        assert_eq!(door.exit().out_of_memory, expected);
    }
    let door = Door::open(shell("true")).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert!(!door.exit().out_of_memory, "no such file, no such kill");
}
