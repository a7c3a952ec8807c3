//! `invoke-shim`: see the library.

use std::process::ExitCode;

use invoke_shim::config::Config;

fn main() -> ExitCode {
    invoke_hooks::start();
    // The only failure is a provider that is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Config::from_environment() {
        Ok(config) => invoke_shim::run(&config),
        Err(error) => {
            invoke_shim::log::chain("the shim cannot start", &error);
            ExitCode::from(invoke_protocol::shim::EXIT_REFUSED)
        }
    }
}
