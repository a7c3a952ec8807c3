//! The door for shims ([`invoke_protocol::shim`]): inside the cluster only, TLS with the runner's own
//! certificate. Whoever knocks proves which pod it is, and is told what concerns that pod's job.
//!
//! Nothing is kept here. A shim may ask any replica at any time, and what it is told to be stored, is.

mod speaker;
mod assignment;
mod output;
mod orders;
mod exit;
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use invoke_protocol::id::{ClusterName, JobId};
use invoke_protocol::output::MAX_CHUNK_BYTES;
use invoke_protocol::shim::{ASSIGNMENT, EXIT, ORDERS, OUTPUT};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::order::Trust;
use crate::pool::Pool;
use crate::report::chain;
use crate::upstream::{self, Upstream};

pub(crate) use server::{serve, tls};
pub(crate) use speaker::Porter;

/// What the handlers need.
pub(crate) struct Relay {
    pub(crate) porter: Porter,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) trust: Trust,
    pub(crate) config: Arc<Config>,
    pub(crate) cluster: ClusterName,
    pub(crate) pool: Pool,
    /// Where a handed-on permit is announced.
    pub(crate) granted: broadcast::Sender<JobId>,
    /// The jobs that are to be cancelled.
    pub(crate) cancelling: watch::Receiver<BTreeSet<JobId>>,
    /// Long polls end with it.
    pub(crate) stop: CancellationToken,
}

/// Why a shim is not given what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not prove that it is a job's pod.
    Unauthenticated,
    /// It asks for what cannot be.
    Invalid,
    /// Nobody wants anything of this pod any more.
    Gone,
    /// Not now; ask again.
    Later,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED.into_response(),
            Self::Invalid => StatusCode::BAD_REQUEST.into_response(),
            Self::Gone => StatusCode::GONE.into_response(),
            Self::Later => {
                let soon = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
                (StatusCode::SERVICE_UNAVAILABLE, soon).into_response()
            }
        }
    }
}

/// All that a shim can ask for.
pub(crate) fn routes(relay: Arc<Relay>) -> Router {
    Router::new()
        .route(ASSIGNMENT, post(assignment::post))
        .route(OUTPUT, put(output::put))
        .route(ORDERS, get(orders::get))
        .route(EXIT, post(exit::post))
        .layer(DefaultBodyLimit::max(MAX_CHUNK_BYTES))
        .with_state(relay)
}

/// A dispatcher that cannot answer is waited for; one that refuses for good is believed.
fn refusal(job: JobId, what: &str, error: &upstream::Error) -> Refusal {
    if error.is_final() {
        tracing::info!(job.id = %job, "{what} of job {job} is not wanted: {}", chain(error));
        Refusal::Gone
    } else {
        tracing::warn!(job.id = %job, "{what} of job {job} must wait: {}", chain(error));
        Refusal::Later
    }
}
