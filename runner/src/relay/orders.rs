//! `GET /v1/shim/orders`: held back until there is something new to do.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use invoke_protocol::id::JobId;
use invoke_protocol::shim::{Orders, OrdersQuery};

use super::speaker::Speaker;
use super::{HOLD, Refusal, Relay};
use crate::contact::Cancellations;

pub(super) async fn get(
    State(relay): State<Arc<Relay>>,
    Speaker(pod): Speaker,
    known: Result<Query<OrdersQuery>, QueryRejection>,
) -> Result<Json<Orders>, Refusal> {
    let Query(known) = known.map_err(|_| Refusal::Invalid)?;
    let known = Orders {
        cancel: known.cancel,
        grace_seconds: known.grace_seconds,
    };
    let mut cancelling = relay.cancelling.clone();
    tokio::select! {
        // `wait_for` looks before it waits: a cancellation that is known already is answered at once.
        _ = cancelling.wait_for(|jobs| orders(jobs, pod.job, known) != known) => {}
        () = tokio::time::sleep(HOLD) => {}
        () = relay.stop.cancelled() => {}
    }
    let now = orders(&cancelling.borrow(), pod.job, known);
    Ok(Json(now))
}

/// What a shim is to follow that follows `known`. No order is ever taken back: that this replica does
/// not know of one only means that it is new here.
fn orders(jobs: &Cancellations, job: JobId, known: Orders) -> Orders {
    match jobs.get(&job) {
        None => known,
        Some(grace_seconds) => Orders {
            cancel: true,
            grace_seconds: *grace_seconds,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::job;

    const fn stop(grace_seconds: Option<u64>) -> Orders {
        Orders {
            cancel: true,
            grace_seconds,
        }
    }

    /// Else a replica that has just started would be asked by every shim without a pause.
    #[test]
    fn what_a_shim_follows_already_is_no_news() {
        let nothing = Orders {
            cancel: false,
            grace_seconds: None,
        };
        let cancelled = |grace| Cancellations::from([(job(), grace)]);
        let cases = [
            (Cancellations::new(), nothing, nothing),
            (Cancellations::new(), stop(Some(30)), stop(Some(30))),
            (cancelled(None), nothing, stop(None)),
            (cancelled(Some(30)), stop(Some(30)), stop(Some(30))),
            (cancelled(Some(0)), stop(Some(30)), stop(Some(0))),
        ];
        for (jobs, known, expected) in cases {
            assert_eq!(orders(&jobs, job(), known), expected, "{jobs:?}, {known:?}");
        }
    }
}
