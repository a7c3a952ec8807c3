//! Submits something once, however often it must be sent.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use invoke_protocol::files::Files;
use invoke_protocol::problem::ProblemCode;
use tokio::time::Instant;

use crate::client;
use crate::commands::Session;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::interrupt::{Interrupts, Left};
use crate::patience::Patience;
use crate::printer::Printer;
use crate::upload::Upload;

/// What is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One job.
    Job,
    /// One command for many clusters.
    FanOut,
    /// A schedule.
    Schedule,
}

/// Why there is nothing to follow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(transparent)]
    NotAccepted(client::Error),
    /// There may be one: a request was sent and its answer never came.
    #[error("it is not known whether {what} was accepted")]
    Unknown {
        /// What was sent.
        what: What,
        /// Why there is no answer.
        #[source]
        source: client::Error,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job => "the job",
            Self::FanOut => "the command",
            Self::Schedule => "the schedule",
        })
    }
}

impl What {
    /// The command that shows whether there is one.
    #[must_use]
    pub const fn listing(self) -> &'static str {
        match self {
            Self::Job => "invoke jobs",
            Self::FanOut => "invoke fanouts",
            Self::Schedule => "invoke schedule list",
        }
    }

    fn left_while_submitting(self) -> Failure {
        let message =
            format!("gave up while submitting; it is not known whether {self} was accepted");
        let hint = format!("`{}` shows whether it was", self.listing());
        Failure::new(Exit::DETACHED, message).with_hint(hint)
    }
}

impl Error {
    /// Whether the files, which were there, are not any more.
    #[must_use]
    pub fn lacks_files(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.code() == Some(ProblemCode::FilesMissing),
            Self::Unknown { .. } => false,
        }
    }
}

/// Submits something with its files, which are uploaded before. Should they be gone when it arrives, they
/// are uploaded once more.
///
/// # Errors
/// [`Failure`] if it is not submitted, or nobody knows.
pub async fn with_files<T>(
    what: What,
    files: Vec<OsString>,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
    submit: impl AsyncFn(Option<Files>) -> Result<T, Error>,
) -> Result<T, Failure> {
    let nothing = |Left| left_before_submitting();
    let mut upload = match files.is_empty() {
        true => None,
        false => {
            let plan = Upload::plan(files, &session.settings, session.printer, session.now);
            Some(interrupts.preparing(plan).await.map_err(nothing)??)
        }
    };
    let mut may_repeat = upload.is_some();
    loop {
        let files = match &mut upload {
            Some(upload) => {
                let files = interrupts.preparing(upload.complete()).await;
                Some(files.map_err(nothing)??)
            }
            None => None,
        };
        match interrupts.finishing(submit(files)).await {
            Ok(Err(error)) if may_repeat && error.lacks_files() => may_repeat = false,
            Ok(submitted) => return Ok(submitted?),
            Err(Left) => return Err(what.left_while_submitting()),
        }
    }
}

/// Makes a call with a key, again and again while the dispatcher cannot be reached. The key is what makes
/// that good: an answer that was lost on the way does not make a second job.
///
/// # Errors
/// See [`Error`].
pub async fn submit<T>(
    what: What,
    retry_for: Duration,
    printer: &Printer,
    call: impl AsyncFn() -> Result<T, client::Error>,
) -> Result<T, Error> {
    let mut patience = Patience::new(retry_for);
    let (mut in_doubt, mut announced) = (false, false);
    loop {
        let source = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !source.is_passing() {
            // The dispatcher's own refusal of this key proves that no earlier attempt made anything.
            let refused = matches!(source, client::Error::Refused { .. });
            return Err(if in_doubt && !refused || source.may_have_arrived() {
                Error::Unknown { what, source }
            } else {
                Error::NotAccepted(source)
            });
        }
        in_doubt |= source.may_have_arrived();
        if !patience.is_left(Instant::now()) {
            return Err(if in_doubt {
                Error::Unknown { what, source }
            } else {
                Error::NotAccepted(source)
            });
        }
        if !std::mem::replace(&mut announced, true) {
            printer.say(&format!("{}; trying again", chain(&source)));
        }
        patience.pause(source.retry_after()).await;
    }
}

/// The person left, and nothing was sent but files.
#[must_use]
pub fn left_before_submitting() -> Failure {
    Failure::new(Exit::INTERRUPTED, "interrupted; nothing was submitted")
}
