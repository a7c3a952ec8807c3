//! People's doors to fan-outs: one command on many clusters.

mod body;
mod view;
mod submit;
mod plan;
mod list;
mod show;
mod cancel;
mod resume;
mod retry_failed;

use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{MAX_BODY_BYTES, MAX_SUBMISSION_BYTES};
use crate::access::Locked;

/// The table of routes.
pub(super) fn routes() -> OpenApiRouter<Locked> {
    let submission = OpenApiRouter::new()
        .routes(routes!(submit::submit, list::list))
        .routes(routes!(plan::plan))
        .layer(DefaultBodyLimit::max(MAX_SUBMISSION_BYTES));
    let rest = OpenApiRouter::new()
        .routes(routes!(show::show))
        .routes(routes!(cancel::cancel))
        .routes(routes!(resume::resume))
        .routes(routes!(retry_failed::retry_failed))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    submission.merge(rest)
}
