//! Runners' doors, one file an endpoint, in the order in which a job meets them. Who may come in is
//! decided in [`crate::access::runner`]; whatever a runner asks for, only its own cluster's jobs exist.

mod enrol;
mod amqp_credential;
mod contact;
mod claim;
mod permit;
mod holder;
mod files;
mod stdin;
mod report;
mod output;
mod artifacts;
mod complete;

use axum::extract::DefaultBodyLimit;
use invoke_protocol::files::MAX_FILES_CHUNK_BYTES;
use invoke_protocol::output::MAX_CHUNK_BYTES;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Locked;

/// The longest JSON body here: a hundred profiles and a few thousand cancellations.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The table of routes.
pub fn routes() -> OpenApiRouter<Locked> {
    let uploads = OpenApiRouter::new()
        .routes(routes!(output::output))
        // Whole frames do not fill a chunk to the byte; a runner that counts payload only is not cut off.
        .layer(DefaultBodyLimit::max(MAX_CHUNK_BYTES + MAX_CHUNK_BYTES / 8));
    let artifacts = OpenApiRouter::new()
        .routes(routes!(artifacts::artifacts))
        .layer(DefaultBodyLimit::max(MAX_FILES_CHUNK_BYTES));
    let rest = OpenApiRouter::new()
        .routes(routes!(enrol::enrol))
        .routes(routes!(amqp_credential::amqp_credential))
        .routes(routes!(contact::contact))
        .routes(routes!(claim::claim))
        .routes(routes!(permit::permit))
        .routes(routes!(files::files))
        .routes(routes!(stdin::stdin))
        .routes(routes!(report::report))
        .routes(routes!(complete::complete))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    uploads.merge(artifacts).merge(rest)
}
