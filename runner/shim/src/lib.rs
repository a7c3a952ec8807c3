//! PID 1 of every job pod: it asks its runner for the one command that this pod may run, runs it
//! once, and does not leave before every byte of output and the way it ended are acknowledged.
//!
//! ```text
//!  door ──assignment──▶ marker ──▶ files ──▶ command ──pipes──▶ mask ──▶ recorder ──▶ spool ──▶ uploader ──▶ door
//!                                             │ ▲ ▲                                                │
//!                                             │ │ └── stdin ◀── door                               │
//!                                 SIGCHLD ────┘ └── SIGTERM, SIGKILL ◀── course ◀── orders, signals, time
//!
//!  when that is over:  artifacts ──▶ delivery ──▶ uploader ──▶ door
//! ```
//!
//! One thread does all of it, but for what takes long on files: that is done aside. The command runs as
//! the same user, so nothing here is a secret from it; what it must not be able to do is run twice, lose
//! output, or outlive its pod's job.

pub mod config;
pub mod log;
mod termination;
mod door;
mod patience;
mod marker;
mod aside;
mod beneath;
mod archive;
mod unpack;
mod files;
mod command;
mod stdin;
mod secrets;
mod mask;
mod spool;
mod recorder;
mod uploader;
mod orders;
mod course;
mod processes;
mod memory;
mod artifacts;
mod farewell;
mod delivery;
mod execution;
mod shim;

pub use shim::run;
