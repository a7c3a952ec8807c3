//! When a command is told to stop, and what it leaves behind.

use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitStatus, Stream};
use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, shell};

fn impatient(line: &str, run: u64, grace: u64) -> Script {
    let script = shell(line);
    let assignment = script.assignment.map(|it| Assignment {
        run_timeout_seconds: run,
        grace_seconds: grace,
        ..it
    });
    Script {
        assignment,
        ..Script::default()
    }
}

fn pids(door: &Door) -> Vec<i32> {
    let text = String::from_utf8(door.stream(Stream::Stdout)).unwrap();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// A process that was killed takes a moment to die, and a zombie is dead.
async fn all_gone(pids: Vec<i32>) {
    assert!(!pids.is_empty(), "else nothing is shown");
    let lives = |pid: &i32| stat(*pid).is_some_and(|(state, _)| state != "Z");
    let gone = async {
        while pids.iter().any(lives) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(5), gone).await;
    assert!(waited.is_ok(), "still there: {pids:?}");
}

/// Each process of the group is asked, and may clean up: helm in a script must not be killed outright.
#[tokio::test]
async fn a_cancellation_reaches_the_whole_group() {
    let child = r#"sh -c 'trap "echo stopped; exit" TERM; sleep 99 & echo $$ $!; wait'"#;
    let door = Door::open(shell(&format!("{child} & wait"))).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the process ids", |script| !script.log.is_empty())
        .await;
    let pids = pids(&door);
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::Cancelled, ExitStatus::Signalled(15))
    );
    assert!(door.stream(Stream::Stdout).ends_with(b"stopped\n"));
    all_gone(pids).await;
}

#[tokio::test]
async fn who_ignores_the_request_is_killed_after_the_grace() {
    let door = Door::open(impatient(
        "trap '' TERM; echo $$; while :; do sleep 1; done",
        60,
        1,
    ))
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the process id", |script| !script.log.is_empty())
        .await;
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::Cancelled, ExitStatus::Signalled(9))
    );
}

/// A person sees when the pod has the order, and may lose patience: what is left of the grace shrinks.
#[tokio::test]
async fn a_cancellation_is_confirmed_and_can_be_hurried() {
    let line = "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done";
    let door = Door::open(Script {
        grace_seconds: Some(600),
        failing_cancellings: 2,
        ..shell(line)
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    assert_eq!(door.script().cancellings, 0);
    door.change(|script| script.cancel = true);
    door.until("that it was told", |script| script.cancellings == 1)
        .await;
    assert!(door.script().exits.is_empty(), "its grace is ten minutes");
    door.change(|script| script.grace_seconds = Some(0));
    assert_eq!(shim.exit_code().await, 0);
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::Cancelled, ExitStatus::Signalled(9))
    );
    assert_eq!(door.script().cancellings, 2);
}

/// The dead need no time to hear of it: the word is sent even if SIGTERM ended the command at once.
#[tokio::test]
async fn a_quick_death_is_confirmed_too() {
    let door = Door::open(Script {
        failing_cancellings: 1,
        ..shell("echo up; exec sleep 99")
    })
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    door.change(|script| script.cancel = true);
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.script().cancellings, 1);
    assert_eq!(door.exit().cause, EndCause::Cancelled);
}

/// A command may clean up, and its last words and its code are kept; its success is not believed.
#[tokio::test]
async fn the_run_deadline_stops_a_command_in_order() {
    let door = Door::open(impatient(
        "trap 'echo bye; exit 0' TERM; echo hi; sleep 99 & wait",
        1,
        10,
    ))
    .await;
    assert_eq!(Pod::new().run(&door).await, 0);
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::RunTimeout, ExitStatus::Exited(0))
    );
    assert_eq!(door.stream(Stream::Stdout), b"hi\nbye\n");
}

#[tokio::test]
async fn kubernetes_word_reaches_the_command() {
    let door = Door::open(shell("echo up; sleep 99")).await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the first line", |script| !script.log.is_empty())
        .await;
    shim.terminate();
    assert_eq!(shim.exit_code().await, 0);
    assert_eq!(door.exit().cause, EndCause::PodTerminated);
}

#[tokio::test]
async fn a_job_that_nobody_wants_is_stopped() {
    let door = Door::open(Script {
        gone: true,
        ..shell("echo $$ > ../pid; echo hi; sleep 99")
    })
    .await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 125);
    let pid: i32 = std::fs::read_to_string(pod.path("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    all_gone(vec![pid]).await;
    assert!(door.script().exits.is_empty());
}

/// `sh -c 'daemon & echo done'` is done when it says so, not when the daemon is.
#[tokio::test]
async fn a_daemon_that_holds_the_pipe_does_not_hold_the_job() {
    let door = Door::open(shell("sleep 99 & echo $!; echo done")).await;
    let started = Instant::now();
    assert_eq!(Pod::new().run(&door).await, 0);
    assert!(started.elapsed() < Duration::from_secs(20));
    let exit = door.exit();
    assert_eq!(
        (exit.cause, exit.status),
        (EndCause::Itself, ExitStatus::Exited(0))
    );
    all_gone(pids(&door)).await;
}

/// What a child prints within two seconds after its parent has ended still belongs to the job.
#[tokio::test]
async fn late_output_is_waited_for() {
    let door = Door::open(shell("(sleep 0.5; echo late) & echo early")).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    assert_eq!(door.stream(Stream::Stdout), b"early\nlate\n");
}

/// Only PID 1 can reach a process that has left the group, and PID 1 is what a shim is.
#[tokio::test]
async fn as_pid_1_even_a_daemon_in_its_own_session_is_killed() {
    let line = "setsid sleep 98.7654 & echo $$; sleep 0.2; echo done";
    let door = Door::open(shell(line)).await;
    let started = Instant::now();
    assert_eq!(Pod::new().own_process_namespace().run(&door).await, 0);
    assert!(started.elapsed() < Duration::from_secs(20));
    // The shim is PID 1, so its command is one of the next few.
    assert!((2..20).contains(&pids(&door)[0]), "{:?}", pids(&door));
    assert_eq!(door.exit().status, ExitStatus::Exited(0));
}

/// PID 1 inherits every orphan. Unreaped, they fill the pod's process limit.
#[tokio::test]
async fn orphans_are_reaped_while_the_command_runs() {
    let door = Door::open(shell(
        "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.6; echo now; sleep 99",
    ))
    .await;
    let pod = Pod::new();
    let shim = pod.start(&door);
    door.until("the line", |script| !script.log.is_empty())
        .await;
    let children = children(shim.pid());
    assert!(!children.is_empty(), "else nothing is shown");
    assert!(!children.iter().any(|pid| is_zombie(*pid)));
    door.change(|script| script.cancel = true);
    shim.exit_code().await;
}

fn children(parent: i32) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == "Z")
}

fn stat(pid: i32) -> Option<(String, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
