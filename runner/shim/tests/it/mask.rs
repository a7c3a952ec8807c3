//! Secrets that a command prints.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use invoke_protocol::command::Command;
use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::output::Stream;
use invoke_protocol::shim::{Assignment, ENV_SECRET_FOLDERS, ENV_SECRET_VARIABLES};
use invoke_protocol::state::ReasonCode;

use crate::door::{Door, Script};
use crate::files::{RAN, refused};
use crate::output::assert_is_what_was_said;
use crate::pod::{Pod, assignment, shell};

pub(crate) fn with_secret(script: Script, name: &str, value: &str) -> Script {
    let secrets = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let secrets = SecretEnvironment::new(secrets.try_into().unwrap());
    Script {
        assignment: script.assignment.map(|it| Assignment { secrets, ..it }),
        ..script
    }
}

/// However it is cut, in both streams, and not on the node's disk either. What only begins like one is
/// printed when it can be none any more.
#[tokio::test]
async fn a_secret_of_the_job_is_masked() {
    let line = r#"printf 'a hunter2'; sleep 0.2; printf 'hunter b\n'; echo "$TOKEN" >&2; printf hunter2hunt"#;
    let door = Door::open(with_secret(shell(line), "TOKEN", "hunter2hunter")).await;
    let pod = Pod::new();
    assert_eq!(pod.run(&door).await, 0);
    assert_eq!(door.stream(Stream::Stdout), b"a *** b\nhunter2hunt");
    assert_eq!(door.stream(Stream::Stderr), b"***\n");
    assert_is_what_was_said(&door);
    let spool = std::fs::read(pod.path("state/spool")).unwrap();
    assert!(!spool.windows(13).any(|bytes| bytes == b"hunter2hunter"));
}

/// Names and files as a profile mounts them, files as the kubelet writes them.
#[tokio::test]
async fn secrets_of_the_pod_are_masked() {
    let pod = Pod::new();
    let day = pod.path("secret/..2026_11_25");
    std::fs::create_dir_all(day.join("folder")).unwrap();
    std::fs::write(day.join("password"), "correct horse\n").unwrap();
    std::fs::write(day.join("folder/key"), "battery staple").unwrap();
    std::fs::write(pod.path("outside"), "no secret").unwrap();
    symlink("..2026_11_25", pod.path("secret/..data")).unwrap();
    for name in ["password", "folder", "none"] {
        symlink(format!("..data/{name}"), pod.path("secret").join(name)).unwrap();
    }
    symlink("../outside", pod.path("secret/outside")).unwrap();
    let folders = format!("{}:/no/such/folder", pod.path("secret").display());
    let pod = pod
        .variable("API_KEY", "a key of the pod")
        .variable(ENV_SECRET_VARIABLES, "API_KEY,NO_SUCH_VARIABLE")
        .variable(ENV_SECRET_FOLDERS, folders);
    let line = "cd ../secret; echo $API_KEY; cat password folder/key; echo; cat outside";
    let door = Door::open(shell(line)).await;
    assert_eq!(pod.run(&door).await, 0);
    assert_eq!(door.stream(Stream::Stdout), b"***\n***\n***\nno secret");
    assert_is_what_was_said(&door);
}

/// A pod whose profile gives a variable and a folder, which come to so many bytes.
pub(crate) fn giving(bytes: usize) -> Pod {
    let pod = Pod::new();
    std::fs::create_dir(pod.path("secret")).unwrap();
    std::fs::write(pod.path("secret/ca.pem"), secret(bytes - 100)).unwrap();
    let folder = pod.path("secret").display().to_string();
    pod.variable("API_KEY", "k".repeat(100))
        .variable(ENV_SECRET_VARIABLES, "API_KEY")
        .variable(ENV_SECRET_FOLDERS, folder)
}

/// A text of which no piece comes twice.
pub(crate) fn secret(bytes: usize) -> String {
    let numbers = (0..).map(|number: u32| format!("{:x}.", number.wrapping_mul(2_654_435_761)));
    let mut text: String = numbers.take(bytes / 2).collect();
    text.truncate(bytes);
    text
}

/// What is masked in part only would be trusted to be masked.
#[tokio::test]
async fn more_than_can_be_masked_starts_nothing() {
    let just = Door::open(shell("cat ../secret/ca.pem")).await;
    assert_eq!(giving(64 * 1024).run(&just).await, 0);
    assert_eq!(just.stream(Stream::Stdout), b"***");
    let door = Door::open(shell(RAN)).await;
    let pod = giving(64 * 1024 + 1);
    let reason = refused(&pod, &door).await.reason;
    assert_eq!(reason.code, ReasonCode::SecretsTooLarge);
    let folder = pod.path("secret").display().to_string();
    let named = format!("with the file ca.pem in {folder} the Secrets");
    assert!(reason.message.starts_with(&named), "{reason:?}");
    assert!(reason.message.contains("65536 bytes"), "{reason:?}");
}

/// What the shim itself prints for a command that is none is output like any other.
#[tokio::test]
async fn a_program_that_is_a_secret_is_masked() {
    let command = Command::argv(vec!["hunter2hunter".to_owned()]).unwrap();
    let script = Script {
        assignment: Some(assignment(command)),
        ..Script::default()
    };
    let door = Door::open(with_secret(script, "TOKEN", "hunter2hunter")).await;
    assert_eq!(Pod::new().run(&door).await, 0);
    let expected = b"invoke: ***: command not found\n";
    assert_eq!(door.stream(Stream::Stderr), expected);
    assert_is_what_was_said(&door);
}
