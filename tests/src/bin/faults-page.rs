//! Makes docs/faults.md of the records that the rows of the matrix wrote when they ran.

#![expect(clippy::print_stdout, reason = "it is told to whoever started it")]

use std::fmt::Write as _;
use std::process::ExitCode;

use invoke_tests::bed::workspace;
use invoke_tests::chaos::report::summaries;
use invoke_tests::row::records;
use serde_json::{Value, json};

const HEAD: &str = "\
<!-- Made by `make faults` from what it saw. Do not edit. -->

# Faults, and what they cost

Each row is a fault that is really made, on the real parts: what is done, the test that does it, the protection that its
negative control turns off, and what came out. The control is the same scenario without the protection; it must break the
promise that is named, or the test would prove nothing. The promises: no job lost, none run twice, output complete (or it
says that it is not), a clear state, nothing left over.

";

fn main() -> ExitCode {
    let mut rows: Vec<Value> = std::fs::read_dir(records())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok())
        .collect();
    rows.extend(never_run(&rows));
    rows.sort_by_key(|row| (row["row"].as_u64(), text(&row["test"])));
    let docs = workspace().join("docs");
    let written = std::fs::create_dir_all(&docs)
        .and_then(|()| std::fs::write(docs.join("faults.md"), table(&rows)));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("docs/faults.md cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The tests that no record is of: a page that left them out would be a quiet gap.
fn never_run(rows: &[Value]) -> Vec<Value> {
    let has_record = |name: &str| rows.iter().any(|row| text(&row["test"]) == name);
    let files = std::fs::read_dir(workspace().join("tests/tests"));
    let sources = files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut missing = Vec::new();
    for source in sources {
        for line in source.lines() {
            let name = line
                .strip_prefix("fn row_")
                .and_then(|rest| rest.split_once('('));
            let Some((name, _)) = name else { continue };
            let number: Option<u64> = name.get(..2).and_then(|number| number.parse().ok());
            let test = format!("row_{name}");
            if !has_record(&test) {
                missing.push(
                    json!({"row": number, "test": test, "positive": "not run", "seconds": 0}),
                );
            }
        }
    }
    missing
}

fn table(rows: &[Value]) -> String {
    let mut page = HEAD.to_owned();
    page += "| row | fault | test | without | breaks | result | control | s |\n|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let _ = writeln!(
            page,
            "| {} | {} | `{}` | {} | {} | {} | {} | {} |",
            row["row"],
            text(&row["fault"]),
            text(&row["test"]),
            text(&row["without"]).replace("=return;", ", "),
            text(&row["breaks"]),
            text(&row["positive"]),
            text(&row["control"]),
            row["seconds"],
        );
    }
    let storms = summaries();
    if !storms.is_empty() {
        page += "\n## Storms\n\n`make chaos MINUTES=… SEED=…`: random faults, one after another, while canaries are submitted.\n";
        for (seed, words) in storms {
            let _ = write!(page, "\nSeed {seed}:\n\n```text\n{words}```\n");
        }
    }
    page
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('|', "\\|")
}
