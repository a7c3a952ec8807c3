//! The shim's own words, for `kubectl logs`. The command's output never comes here.

use std::error::Error;
use std::io::Write as _;

/// One sentence.
pub fn line(sentence: &str) {
    // Nobody may be reading; that must not matter to the command.
    let _ = writeln!(std::io::stderr(), "invoke-shim: {sentence}");
}

/// What failed, and the whole chain of why.
pub fn chain(what: &str, error: &dyn Error) {
    line(&format!("{what}: {}", sentence(error)));
}

/// An error with the whole chain of why, in one sentence.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
