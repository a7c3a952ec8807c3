//! Who may come in. The only way to the application leads through here.
//!
//! Routers are built over a [`Locked`] application, whose content no other module can reach. A handler
//! gets at it by asking for an extractor that opens it: [`Person`] at people's doors,
//! [`runner::Runner`] at runners' doors, [`Newcomer`] at the one door where the credential is in the
//! body. A route that forgets to ask has nothing to work with, so it cannot be written.

pub mod runner;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use invoke_protocol::id::ProfileName;

use crate::app::App;
use crate::problem::Refusal;
use crate::signing::sha256;
use crate::store::clusters::StoredCluster;
use crate::store::{self, Session, api_tokens};

/// The application, to which nobody has come in yet.
#[derive(Clone)]
pub struct Locked(Arc<App>);

/// A person, or their script, who has come in.
pub struct Person {
    /// Who they are.
    pub principal: Principal,
    /// The application.
    pub app: Arc<App>,
}

/// Somebody whose credential is good at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What the audit log calls them.
    pub name: String,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Run a command.
    Run {
        /// Where.
        cluster: &'a StoredCluster,
        /// How.
        profile: &'a ProfileName,
    },
}

/// Why somebody may not do it, in words for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denial(pub String);

impl Principal {
    /// Somebody who is not there and for whom something is done all the same, such as the owner of a
    /// schedule; `None` if no credential of theirs is good any more.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn absent(session: &mut Session, name: &str) -> Result<Option<Self>, store::Error> {
        let is_good = api_tokens::any_is_good(session, name).await?;
        Ok(is_good.then(|| Self {
            name: name.to_owned(),
        }))
    }

    /// Whether they may do it: the one decision for whatever is done, by whomever it is asked for. Today
    /// whoever has a good credential may do everything.
    ///
    /// # Errors
    /// [`Denial`].
    pub const fn may(&self, action: Action<'_>) -> Result<(), Denial> {
        match action {
            Action::Run { .. } => Ok(()),
        }
    }
}

/// Somebody with nothing but a join token in the request's body, which the handler must redeem before
/// anything else.
pub struct Newcomer {
    /// The application.
    pub app: Arc<App>,
}

impl Locked {
    /// Locks the application for the routers.
    #[must_use]
    pub const fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

/// Authenticates a person by an API token that is not revoked.
///
/// # Errors
/// A [`Refusal`] that does not say whether a token exists, was revoked, or never was.
async fn admit(app: &App, headers: &HeaderMap) -> Result<Principal, Refusal> {
    let token = bearer(headers)?;
    let mut session = app.store.read().await?;
    let holder = api_tokens::holder(&mut session, &sha256(token.as_bytes())).await?;
    holder
        .map(|name| Principal { name })
        .ok_or_else(|| Refusal::unauthenticated("the API token is not known here, or was revoked"))
}

impl FromRequestParts<Locked> for Person {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, Locked(app): &Locked) -> Result<Self, Refusal> {
        Ok(Self {
            principal: admit(app, &parts.headers).await?,
            app: Arc::clone(app),
        })
    }
}

impl FromRequestParts<Locked> for Newcomer {
    type Rejection = Infallible;

    async fn from_request_parts(
        _parts: &mut Parts,
        Locked(app): &Locked,
    ) -> Result<Self, Infallible> {
        Ok(Self {
            app: Arc::clone(app),
        })
    }
}

/// The credential of `Authorization: Bearer …` (RFC 6750; the scheme's case does not matter).
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let header = headers.get(AUTHORIZATION).ok_or_else(|| {
        Refusal::unauthenticated("the request has no credential: send Authorization: Bearer TOKEN")
    })?;
    let credential = header.to_str().ok().and_then(|text| text.split_once(' '));
    match credential {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
        {
            Ok(token.trim())
        }
        _ => Err(Refusal::unauthenticated(
            "the credential is not of the form Authorization: Bearer TOKEN",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_credential_is_one() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
            bearer(&headers).ok().map(str::to_owned)
        };
        assert_eq!(read("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(read("bearer  abc "), Some("abc".to_owned()));
        for other in ["Bearer", "Bearer ", "Basic abc", "abc", ""] {
            assert_eq!(read(other), None, "{other}");
        }
        assert!(bearer(&HeaderMap::new()).is_err());
    }
}
