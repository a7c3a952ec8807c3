//! The one place that reads the clock. Everything else is told what time it is.

use jiff::Timestamp;

/// Now, to the microsecond: as the store keeps it, so that what was written equals what is read.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
