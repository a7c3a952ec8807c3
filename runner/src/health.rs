//! What the kubelet asks: is the process alive, and may shims be sent to it?

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Answers for ever. `ready` becomes true once the cluster is enrolled and the door for shims is open;
/// it does not depend on the dispatcher, because shims can wait here for its return.
pub(crate) async fn answer(listener: TcpListener, ready: watch::Receiver<bool>) {
    let routes = Router::new()
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(readiness))
        .with_state(ready);
    // `axum::serve` returns only with its listener, which never ends.
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!("health is not answered any more: {error}");
    }
}

async fn readiness(State(ready): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "this cluster is not enrolled yet: the log says why\n",
        )
    }
}
