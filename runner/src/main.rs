//! `invoke-runner`: see the library.

use std::process::ExitCode;

use clap::Parser as _;
use invoke_runner::options::Options;

fn main() -> ExitCode {
    invoke_hooks::start();
    // The only failure is a provider that is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    invoke_runner::run(Options::parse())
}
