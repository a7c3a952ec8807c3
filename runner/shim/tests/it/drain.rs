//! When Kubernetes stops the pod: a drain, an eviction, a deletion.

use std::time::Duration;

use invoke_protocol::output::{EndCause, ExitStatus, Stream};
use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, Shim, shell};

fn draining(line: &str, drain_seconds: u64) -> Script {
    let script = shell(line);
    let assignment = script.assignment.map(|it| Assignment {
        drain_seconds,
        ..it
    });
    Script {
        assignment,
        ..Script::default()
    }
}

/// A pod whose command has begun and that Kubernetes has told to stop.
async fn told(door: &Door, pod: &Pod) -> Shim {
    let shim = pod.start(door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    shim.terminate();
    shim
}

const UNTIL_GO: &str = "echo up; until [ -e ../go ]; do sleep 0.05; done; echo done";

/// Row 41 of the matrix: whatever comes to its end while Kubernetes waits has done its work.
#[tokio::test]
async fn who_ends_while_kubernetes_waits_has_its_own_end() {
    for (code, line) in [(0, UNTIL_GO), (7, &format!("{UNTIL_GO}; exit 7"))] {
        let door = Door::open(draining(line, 50)).await;
        let pod = Pod::new();
        let shim = told(&door, &pod).await;
        // Time for the shim to do what it must not.
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(pod.path("go"), "").unwrap();
        assert_eq!(shim.exit_code().await, 0);
        let exit = door.exit();
        assert_eq!(
            (exit.cause, exit.status),
            (EndCause::Itself, ExitStatus::Exited(code))
        );
        assert_eq!(door.stream(Stream::Stdout), b"up\ndone\n");
    }
}

/// Who does not is asked, and what it says then is not believed.
#[tokio::test]
async fn who_outlasts_kubernetes_patience_is_terminated() {
    let line = "trap 'echo bye; exit 0' TERM; echo up; sleep 99 & wait";
    let door = Door::open(draining(line, 1)).await;
    let pod = Pod::new();
    assert_eq!(told(&door, &pod).await.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::PodTerminated, ExitStatus::Exited(0))
    );
    assert_eq!(door.stream(Stream::Stdout), b"up\nbye\n");
}

#[tokio::test]
async fn a_cancellation_does_not_wait_for_the_drain() {
    let door = Door::open(draining("echo up; exec sleep 99", 50)).await;
    let pod = Pod::new();
    let shim = told(&door, &pod).await;
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.exit().cause, EndCause::Cancelled);
}
