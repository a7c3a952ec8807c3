//! The one place that reads the clock.

use jiff::Timestamp;

/// The time by this node's clock. Only coarse checks may depend on it: deadlines are the dispatcher's.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
