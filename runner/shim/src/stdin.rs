//! Feeds the command what it is to read.
//!
//! What was sent is asked for at the position up to which it was written to the pipe, piece by piece: a line
//! that breaks in the middle costs nothing, and a command that reads slowly holds no connection. The pipe is
//! closed at the end of what was sent and never before: a command that takes the half for the whole does
//! the wrong thing.

use std::convert::Infallible;
use std::future::pending;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

use crate::door::{Answer, Door};
use crate::log;
use crate::patience::Patience;

/// An answer without anything in it that comes sooner was not held back.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Feeds for as long as it is polled. A command that closes its stdin has read enough.
pub(crate) async fn feed(door: &Door, pipe: Option<Sender>) -> Infallible {
    if let Some(mut pipe) = pipe {
        feed_whole(door, &mut pipe).await;
    }
    pending().await
}

async fn feed_whole(door: &Door, pipe: &mut Sender) {
    let mut patience = Patience::new();
    let mut position = 0;
    loop {
        let asked = Instant::now();
        match door.stdin(position).await {
            Ok(Answer::Is(piece)) => {
                if pipe.write_all(&piece.bytes).await.is_err() {
                    return;
                }
                position += piece.bytes.len() as u64;
                if piece.is_last {
                    return;
                }
                match piece.bytes.is_empty() && asked.elapsed() < HELD_BACK {
                    true => patience.wait().await,
                    false => patience.reset(),
                }
            }
            // Whether the command is still wanted is the uploader's to learn, with certainty.
            Ok(Answer::Gone) => patience.wait().await,
            Err(error) => {
                if patience.is_fresh() {
                    log::chain(
                        "the runner was asked in vain for what the command reads",
                        &error,
                    );
                }
                patience.wait().await;
            }
        }
    }
}
