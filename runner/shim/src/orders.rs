//! Listens for what the runner wants of a running command.

use invoke_protocol::shim::Orders;
use tokio::sync::mpsc;

use crate::course::StopCause;
use crate::door::{Answer, Door};
use crate::log;
use crate::patience::Patience;

/// Asks until there is a cancellation, and passes it on.
pub(crate) async fn listen(door: &Door, stops: mpsc::Sender<StopCause>) {
    let mut patience = Patience::new();
    loop {
        match door.orders().await {
            Ok(Answer::Is(Orders { cancel: true, .. })) => break,
            Ok(Answer::Is(Orders { cancel: false, .. })) => patience.reset(),
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
    // The receiver is gone only when the command is over.
    let _ = stops.send(StopCause::Cancelled).await;
}
