//! What the person reads when something went wrong: what happened, to which object, why, and what to
//! do now. Which error has which words and which exit code is decided here.

use invoke_protocol::problem::{Problem, ProblemCode};

use crate::exit::Exit;
use crate::{
    client, command_line, environment, fanout, files, follow, output, printer, settings, stdin,
    submission, upload,
};

/// The end of the program, with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to exit with.
    pub exit: Exit,
    /// One sentence; `None` where silence is the right answer.
    pub message: Option<String>,
    /// What to do now.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its sentence.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: Some(message.into()),
            hint: None,
        }
    }

    /// An end without words.
    #[must_use]
    pub const fn silent(exit: Exit) -> Self {
        Self {
            exit,
            message: None,
            hint: None,
        }
    }

    /// The same with a next step.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl From<command_line::Error> for Failure {
    fn from(error: command_line::Error) -> Self {
        let hint = error.hint();
        Self {
            exit: Exit::BAD_INPUT,
            message: Some(error.to_string()),
            hint,
        }
    }
}

impl From<environment::Error> for Failure {
    fn from(error: environment::Error) -> Self {
        Self {
            exit: Exit::BAD_INPUT,
            message: Some(chain(&error)),
            hint: error.hint(),
        }
    }
}

impl From<files::Error> for Failure {
    fn from(error: files::Error) -> Self {
        let exit = match error {
            files::Error::Archive(_) => Exit::INTERNAL,
            _ => Exit::BAD_INPUT,
        };
        Self {
            exit,
            message: Some(chain(&error)),
            hint: error.hint(),
        }
    }
}

impl From<upload::Error> for Failure {
    fn from(error: upload::Error) -> Self {
        match error {
            upload::Error::Files(source) => source.into(),
            upload::Error::Client(source) => source.into(),
            damaged @ upload::Error::Damaged(_) => Self::new(Exit::INTERNAL, chain(&damaged))
                .with_hint("run it again: they are packed and uploaded anew"),
            upload::Error::Archive(_) | upload::Error::Task(_) => {
                Self::new(Exit::INTERNAL, chain(&error))
            }
        }
    }
}

impl From<settings::Error> for Failure {
    fn from(error: settings::Error) -> Self {
        let exit = match error {
            settings::Error::NoToken { .. } => Exit::NOT_ALLOWED,
            _ => Exit::BAD_INPUT,
        };
        Self {
            exit,
            message: Some(chain(&error)),
            hint: error.hint(),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = match &error {
            client::Error::Unreachable { .. } | client::Error::NotADispatcher { .. } => {
                Exit::UNREACHABLE
            }
            client::Error::Refused { problem, .. } => of_problem(problem),
            client::Error::Setup(_) | client::Error::Nonsense { .. } => Exit::INTERNAL,
        };
        Self {
            exit,
            message: Some(chain(&error)),
            hint: error.hint(),
        }
    }
}

impl From<submission::Error> for Failure {
    fn from(error: submission::Error) -> Self {
        match error {
            submission::Error::NotAccepted(source) => source.into(),
            submission::Error::Unknown { what, source } => {
                let failure = Self::from(source);
                let known = failure.message.unwrap_or_default();
                let message = format!("it is not known whether {what} was accepted: {known}");
                let hint = match what {
                    // It has one name, and there is one of that name at most.
                    submission::What::Schedule => {
                        format!("`{}` shows whether it was", what.listing())
                    }
                    submission::What::Job | submission::What::FanOut => format!(
                        "`{}` shows whether it was; running it again may run it twice",
                        what.listing()
                    ),
                };
                Self {
                    message: Some(message),
                    ..failure
                }
                .with_hint(hint)
            }
        }
    }
}

impl From<follow::Error> for Failure {
    fn from(error: follow::Error) -> Self {
        match error {
            follow::Error::Client(source) => source.into(),
            follow::Error::Output(source) => source.into(),
            follow::Error::GaveUp { job, source } => {
                let why = chain(&source);
                Self::new(
                    Exit::DETACHED,
                    format!("job {job} goes on without us: {why}"),
                )
                .with_hint(format!("`invoke logs -f {job}` follows it again"))
            }
        }
    }
}

impl From<fanout::Error> for Failure {
    fn from(error: fanout::Error) -> Self {
        match error {
            fanout::Error::Client(source) => source.into(),
            fanout::Error::Output(source) => source.into(),
            fanout::Error::GaveUp { fanout, ref source } => {
                let why = chain(source);
                let message = format!("fan-out {fanout} goes on without us: {why}");
                Self::new(Exit::DETACHED, message)
                    .with_hint(format!("`invoke fanouts {fanout} follow` follows it again"))
            }
        }
    }
}

impl From<stdin::Error> for Failure {
    fn from(error: stdin::Error) -> Self {
        let message = chain(&error);
        match error {
            stdin::Error::Read(_) => Self::new(Exit::INTERNAL, message),
            stdin::Error::Send(source) => Self {
                message: Some(message),
                ..source.into()
            },
        }
    }
}

impl From<output::Error> for Failure {
    fn from(error: output::Error) -> Self {
        match error {
            output::Error::Print(source) => source.into(),
            output::Error::Spool(_) => Self::new(Exit::INTERNAL, chain(&error))
                .with_hint("TMPDIR says where there is more room"),
            mismatch @ output::Error::Mismatch { .. } => {
                Self::new(Exit::INTERNAL, mismatch.to_string())
            }
        }
    }
}

impl From<printer::Error> for Failure {
    fn from(error: printer::Error) -> Self {
        match error {
            printer::Error::ReaderGone => Self::silent(Exit::READER_GONE),
            printer::Error::Write { .. } => Self::new(Exit::INTERNAL, chain(&error)),
        }
    }
}

/// An error and its sources, each of which says its own part only.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn of_problem(problem: &Problem) -> Exit {
    match problem.code {
        ProblemCode::Unauthenticated | ProblemCode::Forbidden => Exit::NOT_ALLOWED,
        ProblemCode::Unavailable => Exit::UNREACHABLE,
        ProblemCode::ClusterOffline | ProblemCode::NotRun => Exit::NEVER_STARTED,
        ProblemCode::NoSuchRoute | ProblemCode::MethodNotAllowed | ProblemCode::Internal => {
            Exit::INTERNAL
        }
        // A code that was made after this program: its status still says whose fault it is.
        _ => match problem.status {
            401 | 403 => Exit::NOT_ALLOWED,
            400..=499 => Exit::BAD_INPUT,
            _ => Exit::INTERNAL,
        },
    }
}
