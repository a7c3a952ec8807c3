//! Every byte, once, in order.

use std::time::{Duration, Instant};

use invoke_protocol::output::{Discarded, ExitStatus, FRAME_HEADER_BYTES, Stream, frames};
use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

async fn printed(script: Script) -> Door {
    let door = Door::open(script).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert_is_what_was_said(&door);
    door
}

/// The record of the end says of the output what arrived.
pub(crate) fn assert_is_what_was_said(door: &Door) {
    let exit = door.exit();
    for (stream, summary) in [
        (Stream::Stdout, &exit.stdout),
        (Stream::Stderr, &exit.stderr),
    ] {
        let bytes = door.stream(stream);
        assert_eq!(summary.bytes, bytes.len() as u64);
        assert_eq!(summary.sha256, sha256(&bytes));
    }
    assert_eq!(exit.log_bytes, door.script().log.len() as u64);
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// 5 MiB that no text tool would leave alone, made the same way on both sides.
const NOISE: &str = "awk 'BEGIN { for (i = 0; i < 655360; i++) printf \"%c%c%07d%c\", i % 256, 0, i, 255 - i % 256 }'";

fn noise() -> Vec<u8> {
    let made = std::process::Command::new("/bin/sh")
        .args(["-c", NOISE])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(made.stdout.len() > 5 << 20);
    made.stdout
}

#[tokio::test]
async fn binary_output_arrives_byte_for_byte() {
    let door = printed(shell(&format!("export LC_ALL=C; {NOISE}"))).await;
    assert!(door.stream(Stream::Stdout) == noise());
}

/// Whatever part of an upload was stored before the line broke, nothing is doubled and nothing lost.
#[tokio::test]
async fn an_upload_goes_on_from_where_it_was_cut() {
    let script = Script {
        cuts: vec![1, 70_000, 333_333, 1, 1],
        ..shell(&format!("export LC_ALL=C; {NOISE}"))
    };
    let door = printed(script).await;
    assert!(door.script().cuts.is_empty());
    assert!(door.stream(Stream::Stdout) == noise());
}

#[tokio::test]
async fn an_upload_that_fails_is_repeated() {
    let door = printed(Script {
        failing_uploads: 3,
        ..shell("echo once")
    })
    .await;
    assert_eq!(door.stream(Stream::Stdout), b"once\n");
    assert_eq!(door.script().uploads, 4);
}

/// Each line waits for the one before to be there: so there is an order.
#[tokio::test]
async fn alternating_streams_keep_their_order() {
    let line = "mkdir ../seen; for i in $(seq 0 99); do echo $i >&$((i % 2 + 1)); until [ -e ../seen/$i ]; do sleep 0.01; done; done";
    let door = Door::open(shell(line)).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    for number in 0..100 {
        door.until("a line", |script| frames(&script.log).count() > number)
            .await;
        std::fs::write(pod.path("seen").join(number.to_string()), "").unwrap();
    }
    assert_eq!(shim.exit_code().await, 0);
    let script = door.script();
    for (number, frame) in frames(&script.log).map(Result::unwrap).enumerate() {
        let stream = [Stream::Stdout, Stream::Stderr][number % 2];
        let printed = format!("{number}\n");
        assert_eq!((frame.stream, frame.payload), (stream, printed.as_bytes()));
    }
}

/// Around what fits into a pipe, a frame, an upload.
#[tokio::test]
async fn output_of_any_size_arrives_whole() {
    for size in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
        let line = format!("yes 0123456 | head -c {size}; yes abc | head -c {size} >&2");
        let door = printed(shell(&line)).await;
        let repeated =
            |text: &[u8]| -> Vec<u8> { text.iter().copied().cycle().take(size).collect() };
        assert!(
            door.stream(Stream::Stdout) == repeated(b"0123456\n"),
            "{size}"
        );
        assert!(door.stream(Stream::Stderr) == repeated(b"abc\n"), "{size}");
    }
}

#[tokio::test]
async fn a_line_may_be_as_long_as_it_likes() {
    let door = printed(shell("head -c 50000000 /dev/zero | tr '\\0' x")).await;
    let stdout = door.stream(Stream::Stdout);
    assert_eq!(stdout.len(), 50_000_000);
    assert!(stdout.iter().all(|byte| *byte == b'x'));
}

/// A frame says when it was read, and no frame before the one before it.
#[tokio::test]
async fn output_says_when_it_was_read() {
    let begun = jiff::Timestamp::now();
    let door = printed(shell("echo one; sleep 0.5; echo two")).await;
    let script = door.script();
    let times: Vec<_> = frames(&script.log).map(|frame| frame.unwrap().at).collect();
    assert_eq!(times.len(), 2);
    let between = times[1].duration_since(times[0]);
    assert!(
        between >= jiff::SignedDuration::from_millis(400),
        "{times:?}"
    );
    assert!(
        begun <= times[0] && times[1] <= jiff::Timestamp::now(),
        "{times:?}"
    );
}

#[tokio::test]
async fn a_line_without_its_end_is_output_too() {
    let door = printed(shell("printf 'no newline'; printf 'here either' >&2")).await;
    assert_eq!(door.stream(Stream::Stdout), b"no newline");
    assert_eq!(door.stream(Stream::Stderr), b"here either");
}

#[tokio::test]
async fn a_command_may_close_its_output_and_go_on() {
    let door = printed(shell("echo before; exec >&- 2>&-; sleep 0.3; exit 5")).await;
    assert_eq!(door.exit().status.code(), 5);
    assert_eq!(door.stream(Stream::Stdout), b"before\n");
}

/// One stream may end long before the other.
#[tokio::test]
async fn a_command_may_close_one_stream_and_print_on_in_the_other() {
    let door = printed(shell(
        "echo before; exec >&-; sleep 0.3; echo after >&2; exit 6",
    ))
    .await;
    assert_eq!(door.exit().status.code(), 6);
    assert_eq!(door.stream(Stream::Stdout), b"before\n");
    assert_eq!(door.stream(Stream::Stderr), b"after\n");
}

#[tokio::test]
async fn silence_is_no_upload() {
    let door = printed(shell("true")).await;
    assert_eq!(door.script().uploads, 0);
}

/// Lines appear as they are printed, not when the command ends.
#[tokio::test]
async fn the_first_line_does_not_wait_for_the_second() {
    let door = Door::open(shell("echo first; read forever < <(sleep 50); echo never")).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    assert_eq!(door.stream(Stream::Stdout), b"first\n");
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
}

/// A runner that takes nothing must not fill the node's disk: the command waits in its write.
#[tokio::test]
async fn a_command_is_held_while_too_much_waits() {
    let limit = 2 << 20;
    let door = Door::open(Script {
        uploads_hang: true,
        ..shell("yes | head -c 30000000; echo done > finished")
    })
    .await;
    let pod = Pod::new().spool_limit(limit);
    let shim = pod.start(&door);
    door.until("an upload", |script| script.uploads > 0).await;
    let spooled = || std::fs::metadata(pod.path("state/spool")).map_or(0, |spool| spool.len());
    let deadline = Instant::now() + Duration::from_secs(20);
    while spooled() < limit && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let at_limit = spooled();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(spooled(), at_limit);
    assert!(at_limit < limit + 100_000, "{at_limit}");
    assert!(!pod.path("work/finished").exists());
    drop(shim);
}

/// And goes on as soon as it is taken: the limit is on what waits, not on what was printed.
#[tokio::test]
async fn far_more_than_the_spool_holds_can_be_printed() {
    let door = Door::open(shell("yes | head -c 30000000")).await;
    let pod = Pod::new().spool_limit(2 << 20);
    assert_eq!(pod.run(&door).await, 0);
    assert_eq!(door.exit().stdout.bytes, 30_000_000);
    assert_eq!(door.stream(Stream::Stdout).len(), 30_000_000);
    use std::os::unix::fs::MetadataExt as _;
    assert!(std::fs::metadata(pod.path("state/spool")).unwrap().blocks() * 512 < 4 << 20);
}

fn capped(line: &str, output_cap_bytes: u64) -> Script {
    let script = shell(line);
    let assignment = script.assignment.map(|it| Assignment {
        output_cap_bytes,
        ..it
    });
    Script {
        assignment,
        ..script
    }
}

/// The beginning is kept, to the byte; the rest is counted; the command's end is its own.
#[tokio::test]
async fn output_beyond_the_cap_is_counted_and_dropped() {
    let line = "export LC_ALL=C; head -c 300000 /dev/zero | tr '\\0' x; sleep 0.1; printf hello >&2; exit 7";
    for cap in [0, 13, 14, 100_000, 300_000] {
        let door = printed(capped(line, cap)).await;
        let exit = door.exit();
        assert_eq!(exit.status, ExitStatus::Exited(7));
        assert!(exit.log_bytes <= cap, "{} of {cap}", exit.log_bytes);
        let header = FRAME_HEADER_BYTES as u64;
        assert!(
            exit.log_bytes + header >= cap,
            "{} of {cap}",
            exit.log_bytes
        );
        let discarded = Discarded {
            stdout_bytes: 300_000 - exit.stdout.bytes,
            stderr_bytes: 5,
        };
        assert_eq!((exit.stderr.bytes, exit.discarded), (0, discarded), "{cap}");
    }
    let whole = printed(capped(line, 1 << 20)).await.exit();
    assert_eq!((whole.stdout.bytes, whole.stderr.bytes), (300_000, 5));
    assert!(whole.discarded.is_nothing());
}

/// Once nothing more is kept, nobody waits for room either.
#[tokio::test]
async fn a_command_is_not_held_for_what_is_dropped() {
    let door = Door::open(Script {
        uploads_hang: true,
        ..capped("yes | head -c 30000000; echo done > finished", 1 << 20)
    })
    .await;
    let pod = Pod::new().spool_limit((1 << 20) - 1);
    let shim = pod.start(&door);
    let finished = async {
        while !pod.path("work/finished").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), finished).await;
    assert!(waited.is_ok(), "the command is held");
    drop(shim);
}
