//! Programs that were run to their end, and what they said.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

/// What a program did.
pub struct Ran {
    /// Its exit code; 128 and the signal's number if it was killed.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// Runs a program to its end, with nothing on its stdin.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ran {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{:?} cannot be started: {error}", command.get_program()));
    let status = output.status;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ran {
        code,
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

impl Ran {
    /// Stdout as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Stderr without the lines that are the CLI's own words.
    #[must_use]
    pub fn stderr_of_command(&self) -> String {
        let text = self.stderr_text();
        text.split_inclusive('\n')
            .filter(|line| !line.starts_with("invoke: "))
            .collect()
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout_text(),
            self.stderr_text()
        )
    }
}
