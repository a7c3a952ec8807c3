//! `invoke fanouts …`

use clap::Subcommand;

use super::grace;

/// What to do with a command that runs, or has run, on many clusters.
#[derive(Debug, Subcommand)]
pub enum FanOutsVerb {
    /// Follow it to its end
    #[command(
        after_help = "Example:\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 follow --group"
    )]
    Follow {
        /// Print at the end what they printed, once for all clusters that printed the same
        #[arg(long)]
        group: bool,
    },
    /// Let it go on after it has stopped, and follow it
    #[command(
        after_help = "Example:\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 resume"
    )]
    Resume {
        /// Do not follow it
        #[arg(long)]
        no_wait: bool,
    },
    /// Run again where it has failed, let it go on, and follow it
    #[command(
        after_help = "Example:\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 retry-failed"
    )]
    RetryFailed {
        /// Also where nobody knows how it ended: it may run twice there
        #[arg(long)]
        lost: bool,
        /// Do not follow it
        #[arg(long)]
        no_wait: bool,
    },
    /// Cancel all of it, and wait until it is over
    #[command(
        after_help = "Example:\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 cancel --grace 5s"
    )]
    Cancel {
        /// From SIGTERM to SIGKILL, at most 1h; 0s kills at once [default: the clusters' own]
        #[arg(long, value_name = "TIME", value_parser = grace)]
        grace: Option<u64>,
    },
}
