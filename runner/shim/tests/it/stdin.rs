//! What a command reads.

use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitStatus, Stream};
use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

/// A door that hands out a shell line with something to read.
pub(crate) fn reading(line: &str, stdin: &[u8], stdin_ended: bool) -> Script {
    let script = shell(line);
    Script {
        assignment: script.assignment.map(|it| Assignment { stdin: true, ..it }),
        stdin: stdin.to_vec(),
        stdin_ended,
        ..Script::default()
    }
}

/// Bytes that repeat nowhere nearby.
fn noise(length: usize) -> Vec<u8> {
    let numbers =
        (0_u64..).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    numbers.take(length).collect()
}

/// Wherever a line breaks, also one that has promised the end: nothing is doubled, nothing is lost, and the
/// command sees the end at the end.
#[tokio::test]
async fn a_command_reads_what_was_sent_byte_for_byte() {
    for length in [0, 1, 65_535, 65_536, 65_537, 1 << 20, 3_000_000] {
        let stdin = noise(length);
        let door = Door::open(Script {
            stdin_cuts: vec![17, 0, 299_999, 65_536, 1],
            ..reading("cat", &stdin, true)
        })
        .await;
        assert_eq!(Pod::new().run(&door).await, 0);
        assert_eq!(door.exit().status, ExitStatus::Exited(0));
        assert!(door.stream(Stream::Stdout) == stdin, "{length}");
        let asked = door.script().stdin_asked.clone();
        assert!(asked.is_sorted(), "{asked:?}");
    }
}

/// A person types, and sees what the command makes of it, before the next line.
#[tokio::test]
async fn each_line_arrives_when_it_is_sent() {
    let line = "while read word; do echo got $word; done; echo end";
    let door = Door::open(reading(line, b"one\n", false)).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    for (seen, next) in [
        ("got one\n", &b"two\n"[..]),
        ("got one\ngot two\n", b"three"),
    ] {
        door.until(seen, |script| !script.log.is_empty()).await;
        let arrives = async {
            while door.stream(Stream::Stdout) != seen.as_bytes() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(20), arrives).await;
        assert!(arrived.is_ok(), "{:?}", door.stream(Stream::Stdout));
        door.change(|script| script.stdin.extend_from_slice(next));
    }
    door.change(|script| script.stdin_ended = true);
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.stream(Stream::Stdout), b"got one\ngot two\nend\n");
}

/// Nobody may take the half for the whole: `kubectl apply -f -` would apply it.
#[tokio::test]
async fn a_runner_that_has_nothing_is_no_end_of_input() {
    let door = Door::open(Script {
        stdin_gone: true,
        ..reading("echo up; cat; echo eof", b"", false)
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("two questions", |script| script.stdin_asked.len() > 1)
        .await;
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.exit().cause, EndCause::Cancelled);
    assert_eq!(door.stream(Stream::Stdout), b"up\n");
}

#[tokio::test]
async fn a_command_may_close_what_it_reads_from_and_go_on() {
    let line = "head -c 5; exec <&-; sleep 0.3; echo on; exit 3";
    let door = Door::open(reading(line, &[b'x'; 2 << 20], false)).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert_eq!(door.exit().status, ExitStatus::Exited(3));
    assert_eq!(door.stream(Stream::Stdout), b"xxxxxon\n");
}

/// Neither its end nor a cancellation waits for it to read on.
#[tokio::test]
async fn a_command_that_does_not_read_is_not_held() {
    let door = Door::open(reading("exit 4", &[b'x'; 2 << 20], false)).await;
    let started = Instant::now();
    assert_eq!(Pod::new().run(&door).await, 0);
    assert_eq!(door.exit().status, ExitStatus::Exited(4));

    let line = "echo up; exec sleep 99";
    let door = Door::open(reading(line, &[b'x'; 2 << 20], false)).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.exit().cause, EndCause::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(20));
    // What was taken from the door was given to the pipe, and a pipe holds little.
    let furthest = door.script().stdin_asked.iter().max().copied();
    assert_eq!(furthest, Some(0));
}
