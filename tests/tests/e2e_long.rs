//! What takes many minutes: `make test-long`. One after another: what moves a gibibyte is no company for what
//! waits for a connection to be forgotten.

use std::time::{Duration, Instant};

use invoke_tests::bed::bed;
use invoke_tests::noise;
use invoke_tests::process::run;
use invoke_tests::row::alone;

/// Load balancers and firewalls forget connections that say nothing. Ours say something.
#[test]
#[ignore = "takes ten minutes: make test-long"]
fn a_command_that_is_silent_for_ten_minutes_is_heard_at_the_end() {
    let _alone = alone();
    let begin = Instant::now();
    let ran = bed().ran(&["echo begin; sleep 600; echo end; exit 5"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (5, "begin\nend\n"),
        "{ran:?}"
    );
    assert!(begin.elapsed() >= Duration::from_secs(600));
}

/// The runner's connection to the broker idles as long: the next order arrives all the same.
#[test]
#[ignore = "takes ten minutes: make test-long"]
fn an_order_after_ten_idle_minutes_arrives_at_once() {
    let _alone = alone();
    let waited = Instant::now();
    // Nothing may be submitted for ten minutes: here the passing of time is what is tested.
    std::thread::sleep(Duration::from_secs(600));
    let begin = Instant::now();
    let ran = bed().ran(&["echo awake"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "awake\n"),
        "after {:?}: {ran:?}",
        waited.elapsed()
    );
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
}

const GIB_IN_MIB: u32 = 1024;

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_gibibyte_of_output_arrives() {
    let _alone = alone();
    let said = noise::printed(&bed(), GIB_IN_MIB, 0, |_| {});
    assert_eq!(said, "", "and there is nothing to say of it");
}

/// What was not acknowledged is in the pod, and goes on through another runner.
#[test]
#[ignore = "takes minutes: make test-long"]
fn a_gibibyte_of_output_survives_the_runner() {
    let _alone = alone();
    let bed = bed();
    let mut is_killed = false;
    let said = noise::printed(&bed, GIB_IN_MIB, 0, |seen| {
        if seen >= 1 << 29 && !std::mem::replace(&mut is_killed, true) {
            bed.kill_runners();
        }
    });
    assert!(is_killed && !said.contains("INCOMPLETE"), "{said}");
    bed.await_connected();
}

/// As much as may be attached, to the byte.
#[test]
#[ignore = "takes minutes: make test-long"]
fn a_gibibyte_that_is_attached_is_there() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("there is room");
    let digest = noise::written(&folder.path().join("noise"), GIB_IN_MIB);
    let mut command = bed().invoke();
    command.current_dir(folder.path());
    let ran = run(command.args(["-f", "noise", "sha256sum noise"]));
    assert_eq!(
        (ran.code, noise::digest(&ran.stdout_text())),
        (0, digest),
        "{ran:?}"
    );
}
