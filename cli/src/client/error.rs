//! A call that brought no answer to use.

use std::time::Duration;

use invoke_protocol::problem::{Problem, ProblemCode};
use reqwest::StatusCode;

use super::Cause;

/// A call that brought no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot even try.
    #[error("cannot set up a connection")]
    Setup(#[source] reqwest::Error),
    /// Nothing came back.
    #[error("cannot reach the dispatcher at {url}: {cause}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// Who says that it should be there.
        origin: String,
        /// Why nothing came back.
        cause: Box<Cause>,
    },
    /// Somebody else answers there.
    #[error("{url} answered ({status}), but it is not an invoke dispatcher")]
    NotADispatcher {
        /// Where.
        url: String,
        /// Who says that one should be there.
        origin: String,
        /// With what.
        status: StatusCode,
    },
    /// The dispatcher said no.
    #[error("{}", problem.detail)]
    Refused {
        /// In its words.
        problem: Box<Problem>,
        /// Where the token came from.
        token_origin: String,
        /// After how long it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The dispatcher said something that makes no sense.
    #[error("the dispatcher at {url} gave an answer that makes no sense: {why}")]
    Nonsense {
        /// Where it is.
        url: String,
        /// What makes no sense.
        why: String,
    },
}

impl Error {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { cause, .. } => cause.is_passing(),
            // A load balancer whose dispatchers are being restarted.
            Self::NotADispatcher { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Refused { problem, .. } => problem.status >= 500 || problem.status == 429,
            Self::Setup(_) | Self::Nonsense { .. } => false,
        }
    }

    /// Whether the dispatcher may have done what it was asked to.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Unreachable { cause, .. } => cause.may_have_arrived(),
            Self::NotADispatcher { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Refused { problem, .. } => problem.code == ProblemCode::Internal,
            Self::Setup(_) => false,
            Self::Nonsense { .. } => true,
        }
    }

    /// Which problem the dispatcher named, if it said no.
    #[must_use]
    pub const fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            _ => None,
        }
    }

    /// Whether the dispatcher has no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => {
                problem.status == 404 && problem.code != ProblemCode::NoSuchRoute
            }
            _ => false,
        }
    }

    /// Whether nothing came back, whatever the cause.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// After how long the dispatcher wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a connection had come about and broke before there was an answer.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Unreachable { cause, .. } if cause.may_have_arrived())
    }

    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { cause, origin, .. } => cause.hint(origin),
            Self::NotADispatcher { origin, .. } => Some(format!(
                "the address came from {origin}: is it the right one?"
            )),
            Self::Refused {
                problem,
                token_origin,
                ..
            } => match problem.code {
                ProblemCode::Unauthenticated => Some(format!("the token came from {token_origin}")),
                ProblemCode::Internal => Some(format!(
                    "the dispatcher's log has more under request {}",
                    problem.request_id
                )),
                _ => None,
            },
            Self::Nonsense { .. } => {
                Some("are this program and the dispatcher of versions that fit?".to_owned())
            }
            Self::Setup(_) => None,
        }
    }
}
