//! The doors without a lock: whether the dispatcher lives, whether it can work, and what it offers.
//! They say nothing of any job, cluster or person.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use invoke_protocol::api::{HEALTHZ, OPENAPI, READYZ, Readiness};
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::broker::Health;

/// The table of routes.
pub fn routes(app: &Arc<App>, document: &OpenApi) -> Router {
    let document = Json(document.clone());
    Router::new()
        .route(READYZ, get(readyz))
        .with_state(Arc::clone(app))
        .route(HEALTHZ, get(async || "ok\n"))
        .route(OPENAPI, get(async move || document))
}

/// Ready while jobs can be taken and their output kept: without a broker they wait in the store, without
/// a store they cannot be taken, and on a disk that has failed nothing is kept.
async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let store = app.store.check().await.is_ok() && !app.stopping.is_cancelled();
    let readiness = Readiness {
        store,
        broker: app.broker.health() == Health::Connected,
        blobs: app.blobs.is_sound(),
    };
    (
        if readiness.store && readiness.blobs {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(readiness),
    )
}
