//! How long to try again, and how often.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// The first pause; each further one is about twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: how long people wait in vain after the dispatcher is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Pauses that grow, with jitter so that many programs do not come back at the same moment, until an
/// outage has lasted too long.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    /// Set by the first failure after an answer: hours of silence in between are no outage.
    deadline: Option<Instant>,
    pauses: ExponentialBackoff,
}

impl Patience {
    /// Patience with an outage of this length.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
            pauses: pauses(),
        }
    }

    /// There was an answer: the outage is over. The pauses begin anew only after `progress`, so that a
    /// server that answers and cuts at once is not called all the time.
    pub fn renew(&mut self, progress: bool) {
        self.deadline = None;
        if progress {
            self.pauses = pauses();
        }
    }

    /// There was a failure: whether there is time for another attempt.
    #[must_use]
    pub fn is_left(&mut self, now: Instant) -> bool {
        now < *self.deadline.get_or_insert(now + self.limit)
    }

    /// Waits before another attempt, and no less than what was asked for, but never beyond the end of
    /// the patience: the last attempt is made then.
    pub async fn pause(&mut self, asked: Option<Duration>) {
        let now = Instant::now();
        tokio::time::sleep_until(self.resumption(asked, now)).await;
    }

    /// Besides what was asked for, the usual pause: everybody was asked for the same, and the jitter is in
    /// there.
    fn resumption(&mut self, asked: Option<Duration>, now: Instant) -> Instant {
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
        let resumption = now + asked.unwrap_or_default().min(self.limit) + pause;
        match self.deadline {
            Some(deadline) if asked.is_some() => resumption.min(deadline),
            _ => resumption,
        }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command may be silent for hours before the first failure; that must not count as an outage.
    #[test]
    fn an_outage_begins_with_its_first_failure() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut patience = Patience::new(Duration::from_secs(30));
        assert!(patience.is_left(after(3600)));
        assert!(patience.is_left(after(3629)));
        assert!(!patience.is_left(after(3630)));
        patience.renew(true);
        assert!(patience.is_left(after(3631)));
        assert!(!Patience::new(Duration::ZERO).is_left(begin));
    }

    /// A server that says when to come back knows; one that says "in a year" is asked once more in time.
    #[test]
    fn a_pause_that_is_asked_for_is_kept_within_the_patience() {
        let now = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(30));
        assert!(patience.is_left(now));
        let asked = |seconds| Some(Duration::from_secs(seconds));
        let resumption = patience.resumption(asked(2), now) - now;
        assert!(
            (Duration::from_secs(2)..Duration::from_secs(3)).contains(&resumption),
            "{resumption:?}"
        );
        let year = patience.resumption(asked(365 * 86_400), now);
        assert_eq!(year, now + Duration::from_secs(30));
    }
}
