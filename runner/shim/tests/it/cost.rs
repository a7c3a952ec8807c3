//! What the shim itself takes up, however much goes through it: it shares its memory with the command.

use std::time::Duration;

use flate2::Compression;
use invoke_protocol::output::Stream;

use crate::door::{Door, Script};
use crate::files::{attached, compressed, stated};
use crate::mask::{giving, secret, with_secret};
use crate::pod::{Pod, shell};
use crate::stdin::reading;

/// Half of the 16 MiB that a shim may have; the rest is its program.
const MOST_KIB: usize = 8 * 1024;

const MUCH: usize = 64 << 20;

/// Runs a pod's shim to its end, and says how much memory it had at most that is not its program's. A peak
/// may fall between two looks; what grows with what goes through does not.
async fn peak_kib(pod: &Pod, door: &Door) -> usize {
    let shim = pod.start(door);
    let status = format!("/proc/{}/status", shim.pid());
    let mut peak = 0;
    let watch = async {
        loop {
            peak = peak.max(anonymous_kib(&status));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        code = shim.exit_code() => assert_eq!(code, 0),
        () = watch => {}
    }
    assert!(peak > 0, "nobody has looked");
    peak
}

fn anonymous_kib(status: &str) -> usize {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or_default()
}

#[tokio::test]
async fn much_output_takes_no_memory() {
    let door = Door::open(Script {
        forgets: true,
        ..shell(&format!("head -c {MUCH} /dev/zero"))
    })
    .await;
    let peak = peak_kib(&Pod::new(), &door).await;
    assert_eq!(door.exit().stdout.bytes, MUCH as u64);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn large_artifacts_take_no_memory() {
    let door = Door::open(Script {
        forgets: true,
        ..shell(&format!("head -c {MUCH} /dev/zero > $INVOKE_ARTIFACTS/a"))
    })
    .await;
    let peak = peak_kib(&Pod::new(), &door).await;
    let summary = door.exit().artifacts.unwrap();
    assert_eq!(summary.content_bytes, MUCH as u64);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn large_files_take_no_memory() {
    let archive = compressed(&[("a", 0o644, &vec![0; MUCH])], Compression::none());
    let files = stated(&archive, 1, MUCH as u64);
    let door = Door::open(attached("wc -c < a", archive, files)).await;
    let peak = peak_kib(&Pod::new(), &door).await;
    let stdout = door.stream(Stream::Stdout);
    assert_eq!(stdout, format!("{MUCH}\n").as_bytes());
    assert!(peak < MOST_KIB, "{peak} KiB");
}

/// As many as there may be: of the job, and of its profile.
#[tokio::test]
async fn many_secrets_take_little_memory() {
    let of_job = format!("job{}", secret(127 * 1024));
    let script = with_secret(shell("cat ../secret/ca.pem"), "TOKEN", &of_job);
    let door = Door::open(script).await;
    let peak = peak_kib(&giving(64 * 1024), &door).await;
    assert_eq!(door.stream(Stream::Stdout), b"***");
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn much_to_read_takes_no_memory() {
    let door = Door::open(reading("wc -c", &vec![0; MUCH], true)).await;
    let peak = peak_kib(&Pod::new(), &door).await;
    let stdout = door.stream(Stream::Stdout);
    assert_eq!(stdout, format!("{MUCH}\n").as_bytes());
    assert!(peak < MOST_KIB, "{peak} KiB");
}
