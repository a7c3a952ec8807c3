//! `invoke`: runs a command inside a private Kubernetes cluster and behaves as if it ran here.
//!
//! The modules are listed in the order of a run: the command line is read ([`args`], [`command_line`]), the
//! [`environment`] of the command is gathered, [`settings`] say whom to ask, a subcommand ([`commands`])
//! makes calls ([`client`]), the command's [`files`] are brought to the dispatcher ([`upload`]), a job is
//! submitted ([`submission`]) and followed ([`follow`]) while it is sent its [`stdin`], [`interrupt`]s are
//! caught and [`notices`] given; its [`output`] is printed, through [`terminal`] if that is one, and
//! verified, and its [`verdict`] becomes the [`exit`] code. One command on many clusters is asked about
//! unless it is [`read_only`], and followed by [`fanout`].

use std::ffi::OsString;
use std::process::ExitCode;

pub mod args;
pub mod command_line;
pub mod environment;
pub mod request;
pub mod settings;
pub mod commands;
pub mod client;
pub mod patience;
pub mod files;
pub mod upload;
pub mod progress;
pub mod submission;
pub mod read_only;
pub mod input;
pub mod interrupt;
pub mod stdin;
pub mod follow;
pub mod fanout;
pub mod notices;
pub mod view;
pub mod output;
mod door;
pub mod terminal;
pub mod document;
pub mod download;
pub mod verdict;
pub mod story;
pub mod table;
pub mod amount;
pub mod printer;
pub mod failure;
pub mod exit;

use args::{Args, Stop};
use exit::Exit;
use failure::Failure;
use printer::Printer;

/// Does what a command line says, the program's name first.
#[must_use]
pub fn main(line: &[OsString]) -> ExitCode {
    let printer = Printer::for_process();
    let exit = match Args::parse_from_line(line) {
        Ok(args) => perform(args, line, &printer),
        Err(stop) => explain(stop, &printer),
    };
    let exit = exit.unwrap_or_else(|failure| {
        printer.fail(&failure);
        failure.exit
    });
    // Whichever way it ended: the shell's prompt is not to be in the command's colours.
    printer.end_colours();
    exit.into()
}

fn perform(args: Args, line: &[OsString], printer: &Printer) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(
            Exit::INTERNAL,
            format!("cannot start: the system refuses: {error}"),
        )
    })?;
    // The one place that reads the clock.
    let now = jiff::Timestamp::now();
    let exit = runtime.block_on(commands::dispatch(args, line, printer, now));
    // Not waiting for a write to a pipe that nobody empties: whoever detaches wants to leave.
    runtime.shutdown_background();
    exit
}

fn explain(stop: Stop, printer: &Printer) -> Result<Exit, Failure> {
    match stop {
        Stop::Asked(page) => {
            // A reader who has left has seen enough of it.
            let _ = page.print();
            Ok(Exit::SUCCESS)
        }
        Stop::Nothing => {
            printer.show(&args::help());
            // Not success: `invoke $COMMAND` with an empty variable has run nothing.
            Ok(Exit::BAD_INPUT)
        }
        Stop::Usage(failure) => Err(failure),
    }
}
