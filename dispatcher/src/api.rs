//! People's doors, one file an endpoint. Who may come in is decided in [`crate::access`].

pub mod document;
pub mod public;
pub(crate) mod path;
mod range;
pub(crate) mod cluster_choice;
mod view;
pub mod turns;
mod files;
pub(crate) mod limits;
mod secret_body;
pub(crate) mod submit;
mod list;
mod show;
mod events;
mod output;
mod stream;
mod stdin;
pub(crate) mod artifacts;
mod cancel;
mod fanout;
mod clusters;
mod labels;
mod invitation;
mod schedules;
mod calendars;

use axum::extract::DefaultBodyLimit;
use invoke_protocol::api::MAX_STDIN_CHUNK_BYTES;
use invoke_protocol::files::MAX_FILES_CHUNK_BYTES;
use invoke_protocol::schedule::MAX_CALENDAR_BYTES;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Locked;

/// The longest body of a submission: the longest command and the longest environment with every byte
/// escaped, and the rest.
const MAX_SUBMISSION_BYTES: usize = 2 * 1024 * 1024;

/// The longest body with a calendar: each byte of the longest one escaped, and the rest.
const MAX_CALENDAR_BODY_BYTES: usize = 2 * MAX_CALENDAR_BYTES + 4096;

/// The longest body of anything else here.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The table of routes.
pub fn routes() -> OpenApiRouter<Locked> {
    let submission = OpenApiRouter::new()
        .routes(routes!(submit::submit, list::list))
        .layer(DefaultBodyLimit::max(MAX_SUBMISSION_BYTES));
    let files = OpenApiRouter::new()
        .routes(routes!(files::uploaded, files::upload))
        .layer(DefaultBodyLimit::max(MAX_FILES_CHUNK_BYTES));
    let stdin = OpenApiRouter::new()
        .routes(routes!(stdin::stdin))
        .layer(DefaultBodyLimit::max(MAX_STDIN_CHUNK_BYTES));
    let schedules = OpenApiRouter::new()
        .routes(routes!(
            schedules::show::show,
            schedules::put::put,
            schedules::delete::delete
        ))
        .layer(DefaultBodyLimit::max(MAX_SUBMISSION_BYTES));
    let calendars = OpenApiRouter::new()
        .routes(routes!(calendars::show, calendars::put, calendars::delete))
        .layer(DefaultBodyLimit::max(MAX_CALENDAR_BODY_BYTES));
    let rest = OpenApiRouter::new()
        .routes(routes!(schedules::list::list))
        .routes(routes!(schedules::next::next))
        .routes(routes!(schedules::ticks::ticks))
        .routes(routes!(schedules::pause::pause))
        .routes(routes!(schedules::resume::resume))
        .routes(routes!(schedules::skip::skip))
        .routes(routes!(schedules::run::run))
        .routes(routes!(schedules::take_over::take_over))
        .routes(routes!(schedules::webhook_key::webhook_key))
        .routes(routes!(calendars::list))
        .routes(routes!(limits::limits))
        .routes(routes!(show::show))
        .routes(routes!(events::events))
        .routes(routes!(output::output))
        .routes(routes!(stream::stdout))
        .routes(routes!(stream::stderr))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::content))
        .routes(routes!(cancel::cancel))
        .routes(routes!(clusters::list, clusters::add))
        .routes(routes!(labels::patch))
        .routes(routes!(invitation::another))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    let large = submission.merge(files).merge(stdin);
    let others = fanout::routes().merge(schedules).merge(calendars);
    large.merge(others).merge(rest)
}
