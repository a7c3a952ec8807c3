//! The document is part of the contract: a change of it is seen in review.

/// `dispatcher/openapi.json` is made with `invoke-dispatcher openapi > dispatcher/openapi.json`.
#[test]
fn the_document_is_the_one_that_is_committed() {
    let committed = include_str!("../../openapi.json");
    let made = invoke_dispatcher::openapi().unwrap();
    if committed.trim() != made.trim() {
        let first = committed
            .lines()
            .zip(made.lines())
            .position(|(old, new)| old != new);
        panic!(
            "dispatcher/openapi.json is not true any more, from line {:?}: `make snapshots`",
            first.map(|line| line + 1)
        );
    }
}
