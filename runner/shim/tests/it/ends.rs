//! How commands end, and what is said of it.

use std::collections::BTreeMap;

use invoke_protocol::command::Command;
use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::output::{EndCause, ExitStatus, Stream};
use invoke_protocol::shim::Assignment;

use crate::door::{Door, Script};
use crate::pod::{Pod, assignment, shell};

async fn ended(script: Script) -> (Door, ExitStatus) {
    let door = Door::open(script).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    let exit = door.exit();
    assert_eq!(exit.cause, EndCause::Itself);
    assert_eq!(exit.log_bytes, door.script().log.len() as u64);
    (door, exit.status)
}

fn argv(parts: &[&str]) -> Script {
    let command = Command::argv(parts.iter().map(|&part| part.to_owned()).collect()).unwrap();
    Script {
        assignment: Some(assignment(command)),
        ..Script::default()
    }
}

#[tokio::test]
async fn the_exit_code_is_the_commands_own() {
    for (line, status) in [
        ("true", ExitStatus::Exited(0)),
        ("exit 37", ExitStatus::Exited(37)),
        ("exit 255", ExitStatus::Exited(255)),
        ("kill -9 $$", ExitStatus::Signalled(9)),
        ("kill -15 $$", ExitStatus::Signalled(15)),
    ] {
        assert_eq!(ended(shell(line)).await.1, status, "{line}");
    }
}

#[tokio::test]
async fn an_argv_passes_no_shell() {
    let (door, status) = ended(argv(&["printf", "%s|", "a  b", "$HOME", "", "*"])).await;
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(door.stream(Stream::Stdout), b"a  b|$HOME||*|");
}

#[tokio::test]
async fn what_is_not_there_is_said_on_stderr() {
    let (door, status) = ended(argv(&["no-such-program", "x"])).await;
    assert_eq!(status, ExitStatus::Exited(127));
    assert_eq!(
        door.stream(Stream::Stderr),
        b"invoke: no-such-program: command not found\n"
    );
    assert_eq!(door.exit().stderr.bytes, 43);
}

/// The command may know its job. What opens the runner's door is not put into its hands.
#[tokio::test]
async fn the_environment_is_the_pods_and_the_jobs() {
    let (door, _) = ended(shell(
        "echo $INVOKE_JOB_ID; env | grep -c INVOKE_RUNNER; pwd; cat",
    ))
    .await;
    let text = String::from_utf8(door.stream(Stream::Stdout)).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("the-job"));
    assert_eq!(lines.next(), Some("0"));
    assert!(lines.next().unwrap().ends_with("/work"));
}

/// Everything that a submitter gave, and where to leave what is to come back.
#[tokio::test]
async fn the_environment_has_secrets_and_a_place_for_artifacts() {
    let script = shell("printf '%s|' \"$INVOKE_JOB_ID\" \"$TOKEN\" \"$INVOKE_ARTIFACTS\"");
    let secrets = BTreeMap::from([("TOKEN".to_owned(), "short".to_owned())]);
    let secrets = SecretEnvironment::new(secrets.try_into().unwrap());
    let door = Door::open(Script {
        assignment: script.assignment.map(|it| Assignment { secrets, ..it }),
        ..Script::default()
    })
    .await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    let artifacts = pod.path("artifacts");
    let expected = format!("the-job|short|{}|", artifacts.display());
    assert_eq!(door.stream(Stream::Stdout), expected.as_bytes());
}

/// SIGPIPE is ignored in the shim; a command that inherited that would never end.
#[tokio::test]
async fn a_pipeline_ends_when_its_reader_does() {
    let (door, status) = ended(shell("yes | head -1; echo ${PIPESTATUS[0]}")).await;
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(door.stream(Stream::Stdout), b"y\n141\n");
}

#[tokio::test]
async fn what_it_cost_is_measured() {
    let (door, _) = ended(shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")).await;
    let exit = door.exit();
    assert!(exit.usage.user_micros > 10_000, "{:?}", exit.usage);
    assert!(exit.usage.max_rss_bytes > 500_000, "{:?}", exit.usage);
    assert!(exit.finished_at > exit.started_at);
}

/// The record is made when everything is dead, not when it was told to die: what runs on in the background
/// has cost something too.
#[tokio::test]
async fn what_is_killed_at_the_end_is_gone_and_counted() {
    let line = "(setsid sh -c 'while :; do :; done' > /dev/null 2>&1 &); sleep 1";
    let door = Door::open(shell(line)).await;
    assert_eq!(Pod::new().own_process_namespace().run(&door).await, 0);
    let usage = door.exit().usage;
    assert!(usage.user_micros > 50_000, "{usage:?}");
}

/// The answer to the exit record may be lost: it is sent again, the same.
#[tokio::test]
async fn the_end_is_reported_until_it_is_acknowledged() {
    let (door, _) = ended(Script {
        lost_exit_answers: 3,
        ..shell("exit 3")
    })
    .await;
    assert_eq!(door.script().exits.len(), 4);
    assert_eq!(door.exit().status, ExitStatus::Exited(3));
}
