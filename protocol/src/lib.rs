//! The contract between the `invoke` programs. Data only: no I/O, no async, no clock.
//!
//! The modules are listed in the order in which a job meets them: it is named by [`id`]s, says what
//! to run ([`command`]) with which [`files`] and which [`environment`], is submitted and shown
//! ([`job`]), perhaps as one of many ([`fanout`]) on the clusters whose [`labels`] a [`selector`] matches,
//! or at the time ([`timing`]) of a [`schedule`], moves through [`state`]s, travels to its cluster as a
//! signed order ([`envelope`]) over the names in [`topology`], is handed to a pod ([`shim`]) on the word of
//! a [`runner`], and ends as [`output`] and [`artifacts`]. [`api`] has what people's doors speak,
//! [`problem`] how any door refuses.

pub mod id;
pub mod digest;
pub mod command;
pub mod environment;
pub mod files;
pub mod job;
pub mod labels;
pub mod selector;
pub mod fanout;
pub mod timing;
pub mod schedule;
pub mod state;
pub mod envelope;
pub mod topology;
pub mod runner;
pub mod shim;
pub mod output;
pub mod artifacts;
pub mod api;
pub mod problem;

mod base64_bytes;
