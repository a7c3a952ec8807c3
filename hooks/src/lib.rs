//! Fail points and sabotage switches.
//!
//! A **fail point** ([`point`]) is a place at which a test can kill the program. A **sabotage switch**
//! ([`sabotaged`]) turns one protection off, so that a test can be seen to fail without it. Both exist
//! in builds with the feature `armed` only; in all others these functions are empty, and neither the
//! names nor the listener are in the program.
//!
//! What they do is said in the words of the `fail` crate, such as `return`, `off`, `1*return`,
//! `3*off->1*return`, and only `return` means anything here:
//!
//! - at the start: `INVOKE_HOOKS='name=actions;name=actions'`
//! - at run time: `GET /?name=NAME&actions=ACTIONS` at `INVOKE_HOOKS_LISTEN` (`address:port`).
//!   `GET /` lists what is set.
//!
//! `point` with `return` aborts the process: as with SIGKILL, no destructor runs and nothing is flushed.

/// The environment variable with what is set from the start.
pub const ENV: &str = "INVOKE_HOOKS";
/// The environment variable with the address of the listener, which there is none without.
pub const ENV_LISTEN: &str = "INVOKE_HOOKS_LISTEN";

#[cfg(feature = "armed")]
mod armed;

/// Whether this is a test build.
pub const ARMED: bool = cfg!(feature = "armed");

/// Reads the environment and starts the listener. Call it once, first.
#[inline]
pub fn start() {
    #[cfg(feature = "armed")]
    armed::start();
}

/// What is set whose name begins with `prefix`, as [`ENV`] takes it: for a program that this one starts.
#[inline]
#[must_use]
#[cfg_attr(
    not(feature = "armed"),
    expect(unused_variables, reason = "nothing is ever set")
)]
pub fn set_with_prefix(prefix: &'static str) -> Option<String> {
    #[cfg(feature = "armed")]
    return armed::set_with_prefix(prefix);
    #[cfg(not(feature = "armed"))]
    None
}

/// Kills this process here, if a test says so.
#[inline]
#[cfg_attr(
    not(feature = "armed"),
    expect(unused_variables, reason = "nothing is to be done")
)]
pub fn point(name: &'static str) {
    #[cfg(feature = "armed")]
    if armed::is_set(name) {
        armed::die(name);
    }
}

/// Whether a test has turned the protection `name` off.
#[inline]
#[must_use]
#[cfg_attr(
    not(feature = "armed"),
    expect(unused_variables, reason = "nothing is ever off")
)]
pub fn sabotaged(name: &'static str) -> bool {
    #[cfg(feature = "armed")]
    return armed::is_set(name);
    #[cfg(not(feature = "armed"))]
    false
}
