//! A storm: canaries are submitted all the while that random parts are killed, paused, cut off and
//! restarted; then everything is let be, and every promise is checked.
//!
//! The schedule of faults comes from the seed alone: the same seed is the same storm. What the machine
//! makes of it differs from run to run.

pub mod schedule;
pub mod storm;
pub mod report;
