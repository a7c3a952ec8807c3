//! Listens for what the runner wants of a running command, and says when that was done.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use invoke_protocol::shim::{Orders, OrdersQuery};
use tokio::sync::{mpsc, watch};

use crate::course::{Stop, StopCause};
use crate::door::{Answer, Door};
use crate::log;
use crate::patience::Patience;

/// An answer without news that comes sooner was not held back.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Asks for as long as it is polled, and passes on each order that is new.
pub(crate) async fn listen(door: &Door, stops: mpsc::Sender<Stop>) -> Infallible {
    let mut patience = Patience::new();
    let mut followed = OrdersQuery::default();
    loop {
        let asked = Instant::now();
        match door.orders(followed).await {
            Ok(Answer::Is(orders)) => match news(followed, orders) {
                Some(stop) => {
                    followed = query(orders);
                    patience.reset();
                    // The receiver is gone only when the command is over.
                    let _ = stops.send(stop).await;
                }
                None if asked.elapsed() < HELD_BACK => patience.wait().await,
                None => patience.reset(),
            },
            // Whether the command is still wanted is the uploader's to learn, with certainty.
            Ok(Answer::Gone) => patience.wait().await,
            Err(error) => {
                if patience.is_fresh() {
                    log::chain("the runner was asked for orders in vain", &error);
                }
                patience.wait().await;
            }
        }
    }
}

/// What is to be done that was not done before. A cancellation is never taken back.
fn news(followed: OrdersQuery, orders: Orders) -> Option<Stop> {
    (orders.cancel && query(orders) != followed).then(|| Stop {
        cause: StopCause::Cancelled,
        grace: orders.grace_seconds.map(Duration::from_secs),
    })
}

const fn query(orders: Orders) -> OrdersQuery {
    OrdersQuery {
        cancel: orders.cancel,
        grace_seconds: orders.grace_seconds,
    }
}

/// Tells the runner of each order that was carried out, until `carried_out` is closed and the last was
/// told. A person waits for this word, the job does not: `within` a while it is left at that.
pub(crate) async fn confirm(door: &Door, mut carried_out: watch::Receiver<u32>, within: Duration) {
    while carried_out.changed().await.is_ok() {
        let told = tokio::time::timeout(within, tell(door)).await;
        if told.is_err() {
            log::line("nobody has taken the word that the command was told to stop");
        }
    }
}

async fn tell(door: &Door) {
    let mut patience = Patience::new();
    while let Err(error) = door.cancelling().await {
        if error.is_final() {
            return;
        }
        patience.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_passed_on() {
        let orders = |cancel, grace_seconds| Orders {
            cancel,
            grace_seconds,
        };
        let followed = |cancel, grace_seconds| query(orders(cancel, grace_seconds));
        let stop = |grace: Option<u64>| {
            Some(Stop {
                cause: StopCause::Cancelled,
                grace: grace.map(Duration::from_secs),
            })
        };
        for (before, now, expected) in [
            (followed(false, None), orders(false, None), None),
            (followed(false, None), orders(true, None), stop(None)),
            (followed(true, None), orders(true, None), None),
            (followed(true, None), orders(true, Some(0)), stop(Some(0))),
            (followed(true, Some(0)), orders(false, None), None),
        ] {
            assert_eq!(news(before, now), expected, "{before:?} {now:?}");
        }
    }
}
