//! `chaos MINUTES SEED`: one storm on the test bed that this runs in; see `make chaos`.
//!
//! Exits with 0 if every promise was kept, with 1 otherwise; the trace is kept in any case.

#![expect(clippy::print_stdout, reason = "its report is for whoever started it")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use invoke_tests::bed::bed;
use invoke_tests::chaos::report::{folder, judge};
use invoke_tests::chaos::schedule::schedule;
use invoke_tests::chaos::storm::{Trace, rage};
use invoke_tests::collector::Collector;

/// After the storm: the longest start deadline and run timeout of a canary, and two minutes.
const DRAIN: Duration = Duration::from_secs(120 + 120 + 120);

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>());
    let (Some(Ok(minutes)), Some(Ok(seed)), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        println!("usage: chaos MINUTES SEED");
        return ExitCode::from(2);
    };
    let bed = bed();
    let folder = folder();
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let path = folder.join(format!("seed-{seed}.jsonl"));
    let trace = Arc::new(Trace::new(&path));
    let collector = Collector::start(&bed.hub_ip);
    let planned = schedule(seed, minutes);
    let storm = format!("{} faults in {minutes} min", planned.len());
    println!("seed {seed}: {storm}");

    let attempts = rage(&planned, minutes, seed, &collector, &trace);
    let report = judge(&bed, &attempts, &collector, DRAIN);
    for violation in &report.violations {
        trace.add("violation", &violation.to_string());
    }
    std::fs::write(
        folder.join(format!("seed-{seed}.txt")),
        format!("{storm}\n{report}"),
    )
    .expect("the target folder can be written");
    println!("{report}trace: target/chaos/seed-{seed}.jsonl");
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
