//! `invoke-dispatcher`: parse, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use invoke_dispatcher::options::{Cli, Command};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If even stderr is gone, the exit code says it alone.
            let _unheard = writeln!(std::io::stderr(), "invoke-dispatcher: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    invoke_hooks::start();
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a second cryptography provider is in this program");
    }
    match Cli::parse().command {
        Command::Serve(options) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(invoke_dispatcher::serve(*options)),
        Command::Openapi => {
            let document =
                invoke_dispatcher::openapi().context("cannot write the OpenAPI document")?;
            writeln!(std::io::stdout(), "{document}").context("cannot print the OpenAPI document")
        }
    }
}
