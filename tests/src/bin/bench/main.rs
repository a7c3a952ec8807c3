//! `bench [submissions] [jobs] [output] [files] [streams] [recovery]`: how fast it is, on the test bed that this
//! runs in; see `make bench`.
//!
//! Prints one table, and exits with 1 if something must be faster. With all parts, docs/bench.md is
//! made of what came out.

#![expect(clippy::print_stdout, reason = "its table is for whoever started it")]

use std::process::ExitCode;

use invoke_tests::bed::{Bed, bed, workspace};

mod dispatcher;
mod files;
mod jobs;
mod memory;
mod output;
mod peers;
mod recovery;
mod streams;
mod submissions;
mod table;

use dispatcher::Engine;
use table::{Figure, table};

const HEAD: &str = "\
<!-- Made by `make bench` from what it saw. Do not edit. -->

# How fast it is

What the figures mean, and how they were measured, is in `tests/src/bin/bench`. Everything ran on one machine, the load, the
broker, the database and the cluster too.

";

fn main() -> ExitCode {
    let parts: Vec<_> = std::env::args().skip(1).collect();
    let bed = bed();
    let figures = measure(&bed, &parts);
    let table = table(&figures);
    println!("{}\n\n{table}", machine());
    if parts.is_empty() {
        let page = format!("{HEAD}{}\n\n{table}", machine());
        let docs = workspace().join("docs");
        let written = std::fs::create_dir_all(&docs)
            .and_then(|()| std::fs::write(docs.join("bench.md"), page));
        written.expect("docs can be written");
    }
    if figures.iter().all(Figure::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(bed: &Bed, parts: &[String]) -> Vec<Figure> {
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let mut figures = Vec::new();
    if wanted("submissions") {
        figures.extend(submissions::measure(bed, Engine::Postgres));
        figures.extend(submissions::measure(bed, Engine::Sqlite));
    }
    if wanted("jobs") {
        figures.extend(jobs::measure(bed));
    }
    if wanted("output") {
        figures.extend(output::measure(bed));
    }
    if wanted("files") {
        figures.extend(files::measure(bed));
    }
    if wanted("streams") {
        figures.extend(streams::measure(bed));
    }
    if wanted("recovery") {
        figures.extend(recovery::measure(bed));
    }
    figures
}

/// The machine, in one line.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    format!(
        "{cores} cores ({}), memory {}, Linux {}, a release build.",
        value(&read("/proc/cpuinfo"), "model name"),
        value(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
