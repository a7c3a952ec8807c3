//! The real binary against a scripted dispatcher over real TLS.

#![expect(clippy::unwrap_used, reason = "what a test does not expect ends it")]

mod stub;
mod intake;
mod front;
mod fixtures;
mod program;
mod pty;
mod help;
mod usage;
mod settings;
mod connection;
mod run;
mod upload;
mod environment;
mod stdin;
mod follow;
mod ends;
mod interrupt;
mod inspect;
mod logs;
mod artifacts;
mod why;
mod cancel;
mod clusters;
mod fanout;
mod fanouts;
mod schedule;
mod ledger;
mod transfer;
mod calendar;
mod terminal;
