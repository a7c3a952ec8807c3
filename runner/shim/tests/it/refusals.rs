//! When nothing may be started.

use std::time::Duration;

use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

/// The kubelet may restart a container, however much the pod asks it not to.
#[tokio::test]
async fn a_second_start_in_the_same_pod_is_refused() {
    let door = Door::open(shell("echo ran >> ../ran")).await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    assert_eq!(pod.run(&door).await, 125);
    assert_eq!(std::fs::read_to_string(pod.path("ran")).unwrap(), "ran\n");
    assert_eq!(door.script().exits.len(), 1);
}

/// The dispatcher may have declared the job lost by then.
#[tokio::test]
async fn a_permit_that_comes_late_starts_nothing() {
    let script = shell("echo ran > ../ran");
    let assignment = script.assignment.map(|it| Assignment {
        start_within_seconds: 1,
        ..it
    });
    let script = Script {
        assignment,
        assignment_delay: Duration::from_millis(1200),
        ..Script::default()
    };
    let (door, pod) = (Door::open(script).await, Pod::new());
    assert_eq!(pod.run(&door).await, 125);
    assert!(!pod.path("ran").exists() && !pod.path("state/started").exists());
    assert!(door.script().exits.is_empty());
}

#[tokio::test]
async fn a_pod_without_a_job_ends() {
    let door = Door::open(Script::default()).await;
    assert_eq!(Pod::new().run(&door).await, 125);
}

/// Whoever answers under the runner's address without its certificate gets not even the token.
#[tokio::test]
async fn a_door_with_another_certificate_is_not_believed() {
    let mut door = Door::open(shell("echo ran > ../ran")).await;
    door.ca_pem = Door::open(Script::default()).await.ca_pem;
    let pod = Pod::new();
    let shim = pod.start(&door);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    shim.terminate();
    assert_eq!(shim.exit_code().await, 125);
    assert!(!pod.path("ran").exists());
}
