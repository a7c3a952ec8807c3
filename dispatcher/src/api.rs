//! People's doors, one file an endpoint. Who may come in is decided in [`crate::access`].

pub mod document;
pub mod public;
pub(crate) mod path;
mod range;
mod cluster_choice;
mod view;
pub mod turns;
mod limits;
mod submit;
mod list;
mod show;
mod events;
mod output;
mod stream;
mod cancel;
mod clusters;
mod invitation;

use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Locked;

/// The longest body of a submission: the longest command with every byte escaped, and the rest.
const MAX_SUBMISSION_BYTES: usize = 1024 * 1024;

/// The longest body of anything else here.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The table of routes.
pub fn routes() -> OpenApiRouter<Locked> {
    let submission = OpenApiRouter::new()
        .routes(routes!(submit::submit, list::list))
        .layer(DefaultBodyLimit::max(MAX_SUBMISSION_BYTES));
    let rest = OpenApiRouter::new()
        .routes(routes!(show::show))
        .routes(routes!(events::events))
        .routes(routes!(output::output))
        .routes(routes!(stream::stdout))
        .routes(routes!(stream::stderr))
        .routes(routes!(cancel::cancel))
        .routes(routes!(clusters::list, clusters::add))
        .routes(routes!(invitation::another))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    submission.merge(rest)
}
