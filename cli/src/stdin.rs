//! Sends a job's command what it is to read: our own stdin, as it comes, while the job is followed.
//!
//! The position that the dispatcher acknowledged is the only state, so a cut neither loses nor doubles a
//! byte. Only our own end of input ends the command's: input that was torn off must not look complete.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use invoke_protocol::api::StdinQuery;
use invoke_protocol::id::JobId;
use invoke_protocol::problem::ProblemCode;
use tokio::time::Instant;

use crate::client::{self, Client};
use crate::input::{Input, Piece};
use crate::patience::Patience;

/// What a command reads, on its way.
pub struct Stdin<'a> {
    client: &'a Client,
    job: JobId,
    input: Input,
    /// How long an outage may last.
    patience: Duration,
    is_sent: Cell<bool>,
}

/// Why the rest was not sent. The command waits for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to send.
    #[error("cannot read stdin")]
    Read(#[source] io::Error),
    /// The dispatcher does not take it.
    #[error("cannot send on stdin")]
    Send(#[source] client::Error),
}

/// Whether to go on.
enum Sent {
    Taken,
    /// The command reads no more.
    NotWanted,
}

impl<'a> Stdin<'a> {
    /// Prepares to send; nothing is read yet.
    #[must_use]
    pub const fn new(client: &'a Client, job: JobId, input: Input, patience: Duration) -> Self {
        Self {
            client,
            job,
            input,
            patience,
            is_sent: Cell::new(false),
        }
    }

    /// Whether everything was sent, or the rest is not wanted.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        self.is_sent.get()
    }

    /// Sends everything up to the end, or until the job is over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(&self) -> Result<(), Error> {
        let mut patience = Patience::new(self.patience);
        let mut from = 0;
        loop {
            let piece = self.input.next().await.map_err(Error::Read)?;
            let is_last = piece.is_last;
            let sent = self.send_piece(piece, &mut from, &mut patience).await;
            let sent = sent.map_err(Error::Send)?;
            if is_last || matches!(sent, Sent::NotWanted) {
                self.is_sent.set(true);
                return Ok(());
            }
        }
    }

    async fn send_piece(
        &self,
        piece: Piece,
        from: &mut u64,
        patience: &mut Patience,
    ) -> Result<Sent, client::Error> {
        let Piece { bytes, is_last } = piece;
        let end = *from + bytes.len() as u64;
        let place = StdinQuery {
            from: *from,
            end: is_last,
        };
        loop {
            let sent = self.client.send_stdin(self.job, &place, bytes.clone());
            let error = match sent.await {
                Ok(ack) if ack.bytes == end && ack.ended == is_last => {
                    patience.renew(true);
                    *from = end;
                    return Ok(Sent::Taken);
                }
                Ok(_) => {
                    let why = "it has more or less of what the command reads than was sent";
                    return Err(self.client.nonsense(why));
                }
                Err(error) => error,
            };
            match error.code() {
                Some(ProblemCode::JobOver | ProblemCode::NoStdin) => return Ok(Sent::NotWanted),
                // The command has much left to read, for as long as it likes: that is no outage.
                Some(ProblemCode::Unavailable) if error.retry_after().is_some() => {
                    patience.renew(false);
                }
                _ if !error.is_passing() && !error.is_unreachable() => return Err(error),
                _ if !patience.is_left(Instant::now()) => return Err(error),
                _ => {}
            }
            patience.pause(error.retry_after()).await;
        }
    }
}
