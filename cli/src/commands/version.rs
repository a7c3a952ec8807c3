//! `invoke version`

use serde::Serialize;

use crate::args::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::Printer;

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// Prints the version of this program.
///
/// # Errors
/// [`Failure`] if it cannot be printed.
pub fn version(format: Format, printer: &Printer) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => printer.print(&format!("invoke {version}\n"))?,
        Format::Json => printer.print_json(&Version { version })?,
    }
    Ok(Exit::SUCCESS)
}
