//! What takes many minutes: `make test-long`.

use std::time::{Duration, Instant};

use invoke_tests::bed::bed;

/// Load balancers and firewalls forget connections that say nothing. Ours say something.
#[test]
#[ignore = "takes ten minutes: make test-long"]
fn a_command_that_is_silent_for_ten_minutes_is_heard_at_the_end() {
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
