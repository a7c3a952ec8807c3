//! The one place that reads the clock. Everything else asks [`now`], or is told what time it is.
//!
//! ```text
//!   database's clock ── measured at the start and every 10 s ──▶ reading ── + monotonic time since ──▶ now()
//! ```
//!
//! Deadlines, leases and permits are moments in the store, so the store's clock decides about them. On
//! **PostgreSQL** that is the server's: however wrong a dispatcher's own clock is, and however much two
//! of them differ, they grant and expire the same. Every measurement is adopted, because the others
//! adopt it too.
//!
//! On **SQLite** there is one dispatcher, and its machine's clock is the store's. It is followed as it is
//! slewed, and not where it jumps: a job that may wait for a quarter of an hour waits for a quarter of an
//! hour, whatever somebody sets the clock to meanwhile. A jump is adopted at the next start, and logged
//! until then.
//!
//! There is one clock to a process, as there is one store to a dispatcher: a function that could be given
//! another clock would sooner or later compare the times of two. Between two measurements time is
//! monotonic, so nothing here depends on what becomes of the machine's own clock.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::problem::chain;
use crate::store::{self, Store};

/// How often the clock is measured. Two quartz clocks drift apart by a millisecond meanwhile.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// A measurement that took longer says too little: half of this is its error.
const SLOWEST_MEASUREMENT: Duration = Duration::from_secs(1);

/// The most by which the machine's own clock may have moved between two measurements to be followed:
/// what adjusts clocks gently stays far below it.
const LARGEST_SLEW: SignedDuration = SignedDuration::from_secs(1);

/// What was measured last; `None` until the store is open.
static CLOCK: RwLock<Option<Reading>> = RwLock::new(None);

/// What time it was at a moment of monotonic time.
#[derive(Debug, Clone, Copy)]
struct Reading {
    time: Timestamp,
    at: Instant,
}

impl Reading {
    /// What time it is at a later moment.
    fn time_at(self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.at);
        self.time.saturating_add(since).unwrap_or(Timestamp::MAX)
    }

    /// The machine's own clock.
    fn of_this_machine() -> Self {
        Self {
            time: Timestamp::now(),
            at: Instant::now(),
        }
    }
}

/// Now, to the microsecond: as the store keeps it, so that what was written equals what is read.
#[must_use]
pub fn now() -> Timestamp {
    let reading = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    let now = match reading {
        Some(reading) if !invoke_hooks::sabotaged("no-database-clock") => {
            reading.time_at(Instant::now())
        }
        _ => Timestamp::now(),
    };
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Measures the store's clock for the first time. Before that, nothing may be written that has a time in
/// it.
///
/// # Errors
/// [`store::Error`] if the database does not say what time it is.
pub async fn start(store: &Store) -> Result<(), store::Error> {
    let reading = match of_database(store).await? {
        Some(Measurement { reading, .. }) => reading,
        None => Reading::of_this_machine(),
    };
    adopt(reading);
    Ok(())
}

/// Measures until `stop`. A measurement that fails is no harm: time goes on from the last one.
pub async fn follow(store: Store, stop: CancellationToken) {
    let mut jumped = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(MEASURE_EVERY) => {}
            () = stop.cancelled() => return,
        }
        match of_database(&store).await {
            Ok(Some(measurement)) if measurement.took > SLOWEST_MEASUREMENT => {}
            Ok(Some(measurement)) => adopt(measurement.reading),
            Ok(None) => jumped = follow_this_machine(jumped),
            Err(error) => tracing::warn!("the database's clock is not measured: {}", chain(&error)),
        }
    }
}

/// A reading of the database's clock, and how long it took to get it.
struct Measurement {
    reading: Reading,
    took: Duration,
}

/// The database's own clock; `None` if it has none.
async fn of_database(store: &Store) -> Result<Option<Measurement>, store::Error> {
    let Some((time, asked, answered)) = store.time().await? else {
        return Ok(None);
    };
    let took = answered.saturating_duration_since(asked);
    Ok(Some(Measurement {
        reading: Reading {
            time,
            at: asked + took / 2,
        },
        took,
    }))
}

/// Follows the machine's clock unless it has jumped; whether it has. Told once.
fn follow_this_machine(jumped_before: bool) -> bool {
    let measured = Reading::of_this_machine();
    let known = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    let moved = known.map_or(SignedDuration::ZERO, |known| {
        measured.time.duration_since(known.time_at(measured.at))
    });
    if moved.abs() <= LARGEST_SLEW {
        adopt(measured);
        return false;
    }
    if !jumped_before {
        tracing::error!(
            alarm = true,
            "this machine's clock was set by {moved:#}: deadlines go on as if it had not been, until the dispatcher is started again"
        );
    }
    true
}

fn adopt(reading: Reading) {
    *CLOCK.write().unwrap_or_else(PoisonError::into_inner) = Some(reading);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_a_reading_by_the_monotonic_clock() {
        let reading = Reading {
            time: "2026-11-22T10:00:00Z".parse().unwrap(),
            at: Instant::now(),
        };
        let after = |seconds| reading.time_at(reading.at + Duration::from_secs(seconds));
        assert_eq!(after(0), reading.time);
        assert_eq!(after(90), "2026-11-22T10:01:30Z".parse().unwrap());
    }
}
