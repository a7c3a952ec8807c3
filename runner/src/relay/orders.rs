//! `GET /v1/shim/orders`: held back until there is something to do.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use invoke_protocol::shim::Orders;

use super::Relay;
use super::speaker::Speaker;

/// For how long an answer is held back: shorter than what cuts idle connections.
const HOLD: Duration = Duration::from_secs(20);

pub(super) async fn get(State(relay): State<Arc<Relay>>, Speaker(pod): Speaker) -> Json<Orders> {
    let mut cancelling = relay.cancelling.clone();
    let cancel = tokio::select! {
        // `wait_for` looks before it waits: a cancellation that is known already is answered at once.
        found = cancelling.wait_for(|jobs| jobs.contains(&pod.job)) => found.is_ok(),
        () = tokio::time::sleep(HOLD) => false,
        () = relay.stop.cancelled() => false,
    };
    Json(Orders {
        cancel,
        grace_seconds: None,
    })
}
