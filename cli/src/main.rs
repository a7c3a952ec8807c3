//! The doorway of `invoke`. What it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // An error only means that a provider was installed before: there is one in this program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    invoke_cli::main(&std::env::args_os().collect::<Vec<_>>())
}
