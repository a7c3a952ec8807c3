//! For how long a command that has ended keeps its pod, when its output does not get away.

use std::time::Duration;

use invoke_protocol::output::IncompleteReason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What the uploader says while it works, and how long it may take.
pub(crate) struct Farewell {
    /// How far the log is written; closed when it is complete, which is when the command has ended.
    pub(crate) written: watch::Receiver<u64>,
    /// How far it is acknowledged.
    pub(crate) acknowledged: watch::Receiver<u64>,
    /// Whether the last upload was refused because there is no room.
    pub(crate) storage_full: watch::Receiver<bool>,
    /// How long there may be no room.
    pub(crate) storage_full_within: Duration,
    /// How long there may be no progress, for whatever cause.
    pub(crate) within: Duration,
}

impl Farewell {
    /// Comes back when the output is to be given up, with the reason. Never while the command runs: it
    /// is held at the spool's limit instead. Every byte of progress begins the time anew.
    pub(crate) async fn wait(mut self) -> IncompleteReason {
        while self.written.changed().await.is_ok() {}
        loop {
            let stored = *self.acknowledged.borrow_and_update();
            let since = Instant::now();
            tokio::select! {
                // An uploader that is gone makes no progress, and whoever waits for both knows of it.
                Ok(_) = self.acknowledged.wait_for(|now| *now > stored) => {}
                () = full_since(since + self.storage_full_within, &mut self.storage_full) => {
                    return IncompleteReason::StorageFull;
                }
                () = sleep_until(since + self.within) => return IncompleteReason::NotUploaded,
            }
        }
    }
}

async fn full_since(deadline: Instant, storage_full: &mut watch::Receiver<bool>) {
    sleep_until(deadline).await;
    if storage_full.wait_for(|full| *full).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Upload {
        written: watch::Sender<u64>,
        acknowledged: watch::Sender<u64>,
        storage_full: watch::Sender<bool>,
    }

    fn uploading() -> (Upload, Farewell) {
        let (written, written_receiver) = watch::channel(9);
        let (acknowledged, acknowledged_receiver) = watch::channel(3);
        let (storage_full, storage_full_receiver) = watch::channel(false);
        let farewell = Farewell {
            written: written_receiver,
            acknowledged: acknowledged_receiver,
            storage_full: storage_full_receiver,
            storage_full_within: Duration::from_secs(60),
            within: Duration::from_secs(3600),
        };
        let upload = Upload {
            written,
            acknowledged,
            storage_full,
        };
        (upload, farewell)
    }

    async fn seconds(from: Instant, farewell: Farewell) -> (u64, IncompleteReason) {
        let reason = farewell.wait().await;
        (from.elapsed().as_secs(), reason)
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_it_is_over_soon_and_without_a_word_late() {
        for (full, expected) in [
            (true, (60, IncompleteReason::StorageFull)),
            (false, (3600, IncompleteReason::NotUploaded)),
        ] {
            let (upload, farewell) = uploading();
            upload.storage_full.send_replace(full);
            drop(upload.written);
            assert_eq!(seconds(Instant::now(), farewell).await, expected);
        }
    }

    /// A slow line is no reason to give up, however slow it is.
    #[tokio::test(start_paused = true)]
    async fn progress_begins_the_time_anew() {
        let (upload, farewell) = uploading();
        drop(upload.written);
        let begun = Instant::now();
        let progress = async {
            tokio::time::sleep(Duration::from_secs(3000)).await;
            upload.acknowledged.send_replace(4);
            tokio::time::sleep(Duration::from_secs(100)).await;
            upload.acknowledged.send_replace(4);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            over = seconds(begun, farewell) => {
                assert_eq!(over, (6600, IncompleteReason::NotUploaded));
            }
            () = progress => {}
        }
    }

    /// A command that runs waits for room for as long as it may run.
    #[tokio::test(start_paused = true)]
    async fn a_running_command_is_not_given_up() {
        let (upload, farewell) = uploading();
        upload.storage_full.send_replace(true);
        let waited = tokio::time::timeout(Duration::from_secs(86_400), farewell.wait()).await;
        assert!(waited.is_err());
        drop(upload.written);
    }
}
