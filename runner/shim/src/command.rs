//! Starting the command.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use invoke_protocol::command::{Command, Unchecked};
use invoke_protocol::shim::Assignment;

/// The shells that a shell line is given to: the first that the image has.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// The pod's environment that is the shim's own business.
const OWN_PREFIX: &str = "INVOKE_RUNNER_";

/// Where the command leaves what is to come back.
const ARTIFACTS_VARIABLE: &str = "INVOKE_ARTIFACTS";

/// A command that could not be executed, told as a shell would tell it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotExecuted {
    /// 127: not found. 126: found, but not executable.
    pub(crate) code: u8,
    /// One line for the command's stderr.
    pub(crate) message: String,
}

/// Starts a command in its own process group, with two pipes to write to, and one to read from or nothing.
///
/// # Errors
/// [`NotExecuted`], when there is no process.
pub(crate) fn spawn(
    assignment: &Assignment,
    work_dir: &Path,
    artifacts_dir: &Path,
) -> Result<Child, NotExecuted> {
    let (program, arguments) = program_and_arguments(&assignment.command);
    let inherited = std::env::vars_os().filter(|(name, _)| !is_own(name));
    let given = &assignment.environment;
    Process::new(program)
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(given.iter().map(|(name, value)| (name, value)))
        .envs(assignment.secrets.expose())
        .env(ARTIFACTS_VARIABLE, artifacts_dir)
        .current_dir(work_dir)
        .stdin(match assignment.stdin {
            true => Stdio::piped(),
            false => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| not_executed(program, &error))
}

fn program_and_arguments(command: &Command) -> (&str, Vec<&str>) {
    match command.as_unchecked() {
        Unchecked::Shell(line) => {
            let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists());
            (shell.unwrap_or(SHELLS[1]), vec!["-c", line])
        }
        Unchecked::Argv(argv) => {
            let mut parts = argv.iter().map(String::as_str);
            // A command that exists has a program.
            (parts.next().unwrap_or_default(), parts.collect())
        }
    }
}

fn is_own(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with(OWN_PREFIX))
}

fn not_executed(program: &str, error: &io::Error) -> NotExecuted {
    let (code, words) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => (127, "No such file or directory"),
        io::ErrorKind::NotFound => (127, "command not found"),
        io::ErrorKind::PermissionDenied => (126, "Permission denied"),
        io::ErrorKind::ArgumentListTooLong => (126, "Argument list too long"),
        _ => (126, "cannot be executed"),
    };
    let detail = if words == "cannot be executed" {
        format!(": {error}")
    } else {
        String::new()
    };
    NotExecuted {
        code,
        message: format!("invoke: {program}: {words}{detail}\n"),
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::environment::SecretEnvironment;

    use super::*;

    fn assignment(command: Command) -> Assignment {
        Assignment {
            job: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
            command,
            environment: Vec::new(),
            start_within_seconds: 60,
            run_timeout_seconds: 60,
            grace_seconds: 10,
            drain_seconds: 0,
            files: None,
            secrets: SecretEnvironment::default(),
            stdin: false,
            output_cap_bytes: 1 << 20,
        }
    }

    #[test]
    fn what_cannot_be_executed_ends_like_in_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let cases = [
            (
                "no-such-program".to_owned(),
                127,
                "invoke: no-such-program: command not found\n".to_owned(),
            ),
            (
                format!("{path}/none"),
                127,
                format!("invoke: {path}/none: No such file or directory\n"),
            ),
            (
                path.to_owned(),
                126,
                format!("invoke: {path}: Permission denied\n"),
            ),
        ];
        for (program, code, message) in cases {
            let assignment = assignment(Command::argv(vec![program]).unwrap());
            let error = spawn(&assignment, folder.path(), folder.path()).unwrap_err();
            assert_eq!(error, NotExecuted { code, message });
        }
    }

    #[test]
    fn the_shims_own_environment_stays_with_it() {
        assert!(is_own("INVOKE_RUNNER_CA".as_ref()));
        assert!(!is_own("INVOKE_JOB_ID".as_ref()) && !is_own("HOME".as_ref()));
    }

    #[test]
    fn a_shell_line_is_one_argument_of_a_shell() {
        let command = Command::shell("echo 'a  b' | wc").unwrap();
        let (shell, arguments) = program_and_arguments(&command);
        assert!(SHELLS.contains(&shell));
        assert_eq!(arguments, ["-c", "echo 'a  b' | wc"]);
    }
}
