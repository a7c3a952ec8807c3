//! Ids and bodies, read with our own words for what is wrong with them.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use invoke_protocol::id::{ClusterName, FanOutId, JobId, ParseError};
use serde::de::DeserializeOwned;

use crate::problem::Refusal;

/// The job of a path with `{id}` in it.
pub(crate) struct JobPath(pub(crate) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error| Refusal::invalid_id(&error))
    }
}

/// The fan-out of a path with `{id}` in it.
pub(crate) struct FanOutPath(pub(crate) FanOutId);

impl<S: Send + Sync> FromRequestParts<S> for FanOutPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error| Refusal::invalid_id(&error))
    }
}

/// The cluster of a path with `{name}` in it.
pub(crate) struct ClusterPath(pub(crate) ClusterName);

impl<S: Send + Sync> FromRequestParts<S> for ClusterPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error: ParseError| Refusal::invalid(error.to_string()))
    }
}

/// A JSON body.
///
/// # Errors
/// A [`Refusal`] that says what is wrong and where.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::invalid(format!("the body is not what is expected here: {error}"))
    })
}
