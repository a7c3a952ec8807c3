//! The real shim in a process of its own, against a door with real TLS.
//!
//! The shim takes signals and reaps every child of its process, so it cannot run inside the tests'
//! own: this binary starts itself again for it, see [`pod::shim_process`].

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod door;
mod pod;
mod files;
mod ends;
mod stdin;
mod mask;
mod output;
mod refusals;
mod stops;
mod drain;
mod farewell;
mod artifacts;
mod cost;
