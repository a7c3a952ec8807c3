//! The real binary against a scripted dispatcher over real TLS.

mod stub;
mod fixtures;
mod program;
mod help;
mod usage;
mod settings;
mod connection;
mod run;
mod follow;
mod ends;
mod interrupt;
mod inspect;
mod clusters;
