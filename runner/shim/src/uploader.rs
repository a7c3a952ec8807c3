//! Sends the output log, and later the artifacts, to the runner until all of it is acknowledged.

use std::io;

use bytes::Bytes;
use invoke_protocol::output::IncompleteReason;
use tokio::sync::{mpsc, watch};

use crate::course::{Stop, StopCause};
use crate::door::{self, Answer, Door, Upload};
use crate::log;
use crate::patience::Patience;
use crate::spool::Reader;

/// Why uploading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    /// All of it was acknowledged.
    Finished,
    /// The rest was given up.
    Incomplete(IncompleteReason),
    /// Nobody wants it any more.
    Unwanted,
}

/// One upload at a time, with everything that is new.
pub(crate) struct Uploader<'a> {
    pub(crate) door: &'a Door,
    pub(crate) what: Upload,
    pub(crate) reader: Reader,
    /// How far it is written; closed when it is complete.
    pub(crate) written: watch::Receiver<u64>,
    /// How far it is acknowledged.
    pub(crate) acknowledged: watch::Sender<u64>,
    /// Whether the last attempt was refused for want of room.
    pub(crate) storage_full: watch::Sender<bool>,
    /// Where to say that the command need not run on.
    pub(crate) stops: mpsc::Sender<Stop>,
}

/// A piece that was not acknowledged. It may be offered again.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the spool cannot be read")]
    Spool(#[from] io::Error),
    #[error(transparent)]
    Door(#[from] door::Error),
}

impl Uploader<'_> {
    /// Uploads until it is complete and acknowledged, for as long as the pod lives.
    pub(crate) async fn upload(mut self) -> UploadEnd {
        let mut patience = Patience::new();
        let mut position = 0;
        while let Some(end) = self.more_than(position).await {
            let (sent, answer) = self.offer(position, end).await;
            self.storage_full.send_replace(is_storage_full(&answer));
            match answer {
                Ok(Answer::Is(stored)) if self.can_continue_at(stored, end) => {
                    let is_progress = stored > position;
                    position = stored;
                    self.acknowledge(position);
                    match is_progress {
                        true => patience.reset(),
                        false => patience.wait().await,
                    }
                }
                Ok(Answer::Is(stored)) => {
                    log::line(&format!(
                        "the dispatcher has {stored} bytes of {} and does not go on from there: the rest is lost",
                        self.what
                    ));
                    self.discard().await;
                    return UploadEnd::Incomplete(IncompleteReason::NotUploaded);
                }
                Ok(Answer::Gone) => {
                    // The receiver is gone only when everything is over anyway.
                    let _ = self.stops.send(Stop::at_once(StopCause::Unwanted)).await;
                    self.discard().await;
                    return UploadEnd::Unwanted;
                }
                Err(error) => {
                    if patience.is_fresh() {
                        let what = self.what;
                        log::chain(
                            &format!("{what}: a piece was not acknowledged and will be sent again"),
                            &error,
                        );
                    }
                    patience.wait().await;
                }
            }
            if invoke_hooks::sabotaged("shim.no-resume") {
                position = position.max(sent);
                // Or the end of a long output would be awaited for a quarter of an hour.
                patience.reset();
            }
        }
        UploadEnd::Finished
    }

    /// Waits for what is written to pass `position`, and says how far it goes; `None` if it never will.
    async fn more_than(&mut self, position: u64) -> Option<u64> {
        // A closed channel still has its last value, which `wait_for` looks at first.
        self.written
            .wait_for(|end| *end > position)
            .await
            .ok()
            .map(|end| *end)
    }

    /// Sends what fits into one upload. Up to where, and what was said to it.
    async fn offer(&self, from: u64, end: u64) -> (u64, Result<Answer<u64>, NotTaken>) {
        let chunk: Bytes = match self.reader.chunk(from, end) {
            Ok(chunk) => chunk,
            Err(error) => return (from, Err(error.into())),
        };
        let sent = from + chunk.len() as u64;
        let answer = self.door.upload(self.what, from, chunk).await;
        (sent, answer.map_err(NotTaken::from))
    }

    fn can_continue_at(&self, stored: u64, end: u64) -> bool {
        stored <= end && self.reader.holds(stored)
    }

    fn acknowledge(&mut self, position: u64) {
        if let Err(error) = self.release(position) {
            let what = self.what;
            log::chain(
                &format!("{what}: what is stored still takes up room"),
                &error,
            );
        }
        self.acknowledged.send_replace(position);
    }

    fn release(&mut self, position: u64) -> io::Result<()> {
        self.reader.release(position)
    }

    /// Lets the command print on without keeping what it prints: waiting for room that never comes
    /// would hold it for ever.
    async fn discard(&mut self) {
        let mut position = 0;
        while let Some(end) = self.more_than(position).await {
            position = end;
            self.acknowledge(end);
        }
    }
}

fn is_storage_full<T>(answer: &Result<T, NotTaken>) -> bool {
    matches!(answer, Err(NotTaken::Door(error)) if error.is_storage_full())
}
