//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double, from 100 ms to 5 s: a runner that restarts is met again at once, one that is
/// away for an hour is not asked ten times a second by every pod.
#[derive(Debug)]
pub(crate) struct Patience(Duration);

impl Patience {
    const SHORTEST: Duration = Duration::from_millis(100);
    pub(crate) const LONGEST: Duration = Duration::from_secs(5);

    pub(crate) const fn new() -> Self {
        Self(Self::SHORTEST)
    }

    /// Whether nothing has failed since the start or the last success: what is worth a log line.
    pub(crate) fn is_fresh(&self) -> bool {
        self.0 == Self::SHORTEST
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}
