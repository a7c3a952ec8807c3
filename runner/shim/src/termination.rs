//! Kubernetes' word that the pod is to end.

use std::future::pending;
use std::io;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Listens for SIGTERM, and remembers when the first came: the kubelet counts from then. Each copy hears
/// of it.
#[derive(Debug, Clone)]
pub(crate) struct Termination(watch::Receiver<Option<Instant>>);

impl Termination {
    /// Listens from now on. PID 1 has no default actions: before this, a SIGTERM is nothing.
    ///
    /// # Errors
    /// Where the signal cannot be listened to.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signal = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                sender.send_replace(Some(Instant::now()));
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the word, and says when it came.
    pub(crate) async fn told(&mut self) -> Instant {
        let told = self.0.wait_for(Option::is_some).await;
        match told.ok().and_then(|at| *at) {
            Some(at) => at,
            None => pending().await,
        }
    }
}
