//! What a job runs. A [`Command`] that exists is valid.

use serde::{Deserialize, Serialize};

/// The longest command, in bytes: Linux passes no single argument of 128 KiB or more
/// (`MAX_ARG_STRLEN`, execve(2)), and a shell line is one argument.
pub const MAX_COMMAND_BYTES: usize = 128 * 1024 - 1;

/// A command, checked: not empty, no NUL byte, at most [`MAX_COMMAND_BYTES`] in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "Unchecked", into = "Unchecked")]
#[cfg_attr(feature = "openapi", schema(as = Command, value_type = Unchecked))]
pub struct Command(Unchecked);

/// How a command is written in JSON: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unchecked {
    /// A line for the pod's shell: `bash -c`, or `sh -c` where the image has no bash.
    Shell(String),
    /// A program and its arguments, with no shell between.
    Argv(Vec<String>),
}

/// Why something is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// No command at all, or only white space.
    #[error("the command is empty: say what to run, for example \"kubectl get pods\"")]
    Empty,
    /// No operating system can pass it on.
    #[error("the command contains a NUL byte, which no program can be given")]
    Nul,
    /// Over [`MAX_COMMAND_BYTES`].
    #[error(
        "the command has {bytes} bytes; at most {MAX_COMMAND_BYTES} (128 KiB) fit: put it into a file"
    )]
    TooLong {
        /// How many there were, arguments and the separators between them.
        bytes: usize,
    },
}

impl Command {
    /// A shell line.
    ///
    /// # Errors
    /// See [`InvalidCommand`].
    pub fn shell(line: impl Into<String>) -> Result<Self, InvalidCommand> {
        Unchecked::Shell(line.into()).try_into()
    }

    /// A program and its arguments.
    ///
    /// # Errors
    /// See [`InvalidCommand`]. Empty arguments are fine, an empty program is not.
    pub fn argv(argv: Vec<String>) -> Result<Self, InvalidCommand> {
        Unchecked::Argv(argv).try_into()
    }

    /// The two shapes, to match on.
    #[must_use]
    pub fn as_unchecked(&self) -> &Unchecked {
        &self.0
    }
}

impl std::fmt::Display for Command {
    /// For people, on one line of a table: not for a shell.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Unchecked::Shell(line) => f.write_str(line),
            Unchecked::Argv(argv) => f.write_str(&argv.join(" ")),
        }
    }
}

impl TryFrom<Unchecked> for Command {
    type Error = InvalidCommand;

    fn try_from(unchecked: Unchecked) -> Result<Self, InvalidCommand> {
        let (parts, first) = match &unchecked {
            Unchecked::Shell(line) => (std::slice::from_ref(line), line.trim()),
            Unchecked::Argv(argv) => (
                argv.as_slice(),
                argv.first().map_or("", |program| program.trim()),
            ),
        };
        let bytes = parts
            .iter()
            .map(|part| part.len() + 1)
            .sum::<usize>()
            .saturating_sub(1);
        if first.is_empty() {
            Err(InvalidCommand::Empty)
        } else if parts.iter().any(|part| part.contains('\0')) {
            Err(InvalidCommand::Nul)
        } else if bytes > MAX_COMMAND_BYTES {
            Err(InvalidCommand::TooLong { bytes })
        } else {
            Ok(Self(unchecked))
        }
    }
}

impl From<Command> for Unchecked {
    fn from(command: Command) -> Self {
        command.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_run_is_a_command() {
        assert!(Command::shell("kubectl get pods | grep 'ä'").is_ok());
        assert!(Command::argv(vec!["printf".into(), String::new()]).is_ok());
        assert!(Command::shell("x".repeat(MAX_COMMAND_BYTES)).is_ok());
        assert_eq!(Command::shell(" \n\t"), Err(InvalidCommand::Empty));
        assert_eq!(Command::argv(vec![]), Err(InvalidCommand::Empty));
        assert_eq!(
            Command::argv(vec![String::new(), "a".into()]),
            Err(InvalidCommand::Empty)
        );
        assert_eq!(Command::shell("echo a\0b"), Err(InvalidCommand::Nul));
        assert_eq!(
            Command::shell("x".repeat(MAX_COMMAND_BYTES + 1)),
            Err(InvalidCommand::TooLong {
                bytes: MAX_COMMAND_BYTES + 1
            })
        );
    }

    #[test]
    fn json_cannot_go_around_the_checks() {
        assert!(serde_json::from_str::<Command>(r#"{"shell":""}"#).is_err());
        assert!(serde_json::from_str::<Command>(r#"{"argv":["a\u0000"]}"#).is_err());
        assert!(serde_json::from_str::<Command>(r#"{"shell":"a","argv":["b"]}"#).is_err());
        let command: Command = serde_json::from_str(r#"{"argv":["a",""]}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&command).unwrap(),
            r#"{"argv":["a",""]}"#
        );
    }
}
