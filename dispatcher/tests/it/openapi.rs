//! The document is part of the contract: a change of it is seen in review.

use std::path::Path;

/// `make snapshots` writes it anew.
#[test]
fn the_document_is_the_one_that_is_committed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = invoke_dispatcher::openapi().unwrap() + "\n";
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&file, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    if committed != made {
        let first = committed
            .lines()
            .zip(made.lines())
            .position(|(old, new)| old != new);
        let line = first.map_or_else(|| committed.lines().count(), |line| line + 1);
        panic!(
            "{} is not true any more, from line {line}: run `make snapshots` and read the diff",
            file.display()
        );
    }
}
