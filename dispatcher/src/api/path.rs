//! Ids and bodies, read with our own words for what is wrong with them.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use invoke_protocol::id::{CalendarName, ClusterName, FanOutId, JobId, ParseError, ScheduleName};
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

macro_rules! path_of_name {
    ($(#[$doc:meta])* $path:ident, $name:ident) => {
        $(#[$doc])*
        pub(crate) struct $path(pub(crate) $name);

        impl<S: Send + Sync> FromRequestParts<S> for $path {
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
    };
}

path_of_name! {
    /// The cluster of a path with `{name}` in it.
    ClusterPath, ClusterName
}
path_of_name! {
    /// The schedule of a path with `{name}` in it.
    SchedulePath, ScheduleName
}
path_of_name! {
    /// The calendar of a path with `{name}` in it.
    CalendarPath, CalendarName
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
