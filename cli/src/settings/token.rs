//! A secret that is never shown.

use std::fmt;
use std::path::PathBuf;

use super::{Error, Sourced};

/// An API token. It can be sent, and nothing else: `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    secret: String,
    origin: String,
}

impl Token {
    pub(super) fn checked(text: &str, origin: String) -> Result<Self, Error> {
        let secret = text.trim();
        if secret.is_empty() {
            Err(Error::BadToken {
                origin,
                why: "it is empty",
            })
        } else if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            // RFC 6750 allows less; anything else could end the header and begin another.
            Err(Error::BadToken {
                origin,
                why: "it has white space or other characters in it",
            })
        } else {
            Ok(Self {
                secret: secret.to_owned(),
                origin,
            })
        }
    }

    pub(super) fn read(file: &Sourced<PathBuf>) -> Result<Self, Error> {
        let Sourced {
            value: path,
            origin,
        } = file;
        let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
            origin: origin.clone(),
            path: path.clone(),
            source,
        })?;
        Self::checked(&text, format!("{} ({origin})", path.display()))
    }

    /// The secret, for the one header that it is sent in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// Where it came from, in words.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}
