//! Queues that the broker would not declare.
//!
//! A declaration that is refused closes its channel (406: a queue of another type under our name), and
//! some close the connection (541: a quorum queue whose members cannot form a cluster). Tried again at
//! once each time, one such queue would keep the orders of every other cluster from being sent. So it
//! is left alone for a while, which grows with each failure.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invoke_protocol::id::ClusterName;
use tokio::time::Instant;

/// The rest after a first failure; it doubles with each, up to [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest: how long a queue that was put right stays unused at most.
const MAX_REST: Duration = Duration::from_secs(60);

/// The clusters whose queues are left alone, and until when. It outlives the connection.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<HashMap<ClusterName, Rest>>);

#[derive(Debug)]
struct Rest {
    failures: u32,
    until: Instant,
    why: String,
}

impl Quarantine {
    /// Why the cluster's queue is to be left alone now, in the broker's words; `None` if it is not.
    pub(super) fn reason(&self, cluster: &ClusterName, now: Instant) -> Option<String> {
        self.resting()
            .get(cluster)
            .filter(|rest| now < rest.until)
            .map(|rest| rest.why.clone())
    }

    /// The broker refused to declare it.
    pub(super) fn failed(&self, cluster: &ClusterName, why: String, now: Instant) {
        let mut resting = self.resting();
        let failures = resting.get(cluster).map_or(0, |rest| rest.failures);
        let rest = FIRST_REST
            .saturating_mul(1 << failures.min(10))
            .min(MAX_REST);
        let rest = Rest {
            failures: failures.saturating_add(1),
            until: now + rest,
            why,
        };
        resting.insert(cluster.clone(), rest);
    }

    /// It was declared.
    pub(super) fn healed(&self, cluster: &ClusterName) {
        self.resting().remove(cluster);
    }

    fn resting(&self) -> MutexGuard<'_, HashMap<ClusterName, Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_and_ends() {
        let (quarantine, cluster, now) = (
            Quarantine::default(),
            "edge-7".parse().unwrap(),
            Instant::now(),
        );
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(quarantine.reason(&cluster, now), None);
        quarantine.failed(&cluster, "once".to_owned(), now);
        assert_eq!(quarantine.reason(&cluster, at(0)).as_deref(), Some("once"));
        assert_eq!(quarantine.reason(&cluster, at(1)), None);
        for _ in 0..20 {
            quarantine.failed(&cluster, "again".to_owned(), now);
        }
        assert!(quarantine.reason(&cluster, at(59)).is_some());
        assert_eq!(quarantine.reason(&cluster, at(60)), None, "never for ever");
        assert_eq!(quarantine.reason(&"other".parse().unwrap(), now), None);
        quarantine.healed(&cluster);
        assert_eq!(quarantine.reason(&cluster, now), None);
    }
}
