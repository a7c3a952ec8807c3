//! Where words go: what was asked for to stdout, our own words to stderr, each line of those prefixed.
//!
//! Everything that another machine said is [`neutral`] before it is shown: a name, a reason or a
//! command must not move the cursor, retitle the window or forge a line.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::Failure;

/// Writes to the standard streams of the process.
#[derive(Debug)]
pub struct Printer {
    interactive: bool,
    status_shown: AtomicBool,
}

/// Why something was not printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody reads it any more.
    #[error("nobody reads our output any more")]
    ReaderGone,
    /// A full disk, for example.
    #[error("cannot write to {stream}")]
    Write {
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What became of a write to a stream.
    pub(crate) fn of(stream: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Write { stream, source },
        }
    }
}

impl Printer {
    /// For the process's own streams.
    #[must_use]
    pub fn for_process() -> Self {
        Self {
            interactive: io::stderr().is_terminal(),
            status_shown: AtomicBool::new(false),
        }
    }

    /// Whether a person sees our words as they appear.
    #[must_use]
    pub const fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Whether a person can be asked: somebody sees the question and can type the answer.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        self.interactive && io::stdin().is_terminal()
    }

    /// Whether what is printed to stdout stays on a screen.
    #[must_use]
    pub fn prints_to_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints what was asked for.
    ///
    /// # Errors
    /// [`Error`] if nobody reads it, or the disk behind it is full.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        self.clear_status();
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        written.map_err(|source| Error::of("stdout", source))
    }

    /// Prints one JSON document.
    ///
    /// # Errors
    /// As [`Printer::print`].
    pub fn print_json(&self, document: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::of("stdout", error.into()))?;
        self.print(&format!("{text}\n"))
    }

    /// Says one line of our own. Nothing is lost if nobody hears it, so nothing fails.
    pub fn say(&self, line: &str) {
        self.clear_status();
        self.write_words(&format!("invoke: {}\n", neutral(line)));
    }

    /// Says lines as they are: a usage page, or commands to copy.
    pub fn show(&self, lines: &str) {
        self.clear_status();
        self.write_words(lines);
    }

    /// Asks, and leaves the cursor behind the question.
    pub fn ask(&self, question: &str) {
        self.clear_status();
        self.write_words(&format!("\ninvoke: {question} "));
    }

    /// Shows what is going on, on a terminal, until the next word or output takes its place.
    pub fn status(&self, line: &str) {
        if self.interactive {
            // Not longer than a line: what wraps cannot be erased by one carriage return.
            let line: String = neutral(line).chars().take(self.columns()).collect();
            self.write_words(&format!("\r\x1b[2K{line}"));
            self.status_shown.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the status line away, if there is one.
    pub fn clear_status(&self) {
        if self.status_shown.swap(false, Ordering::Relaxed) {
            self.write_words("\r\x1b[2K");
        }
    }

    /// Says why the program ends.
    pub fn fail(&self, failure: &Failure) {
        if let Some(message) = &failure.message {
            self.say(message);
        }
        if let Some(hint) = &failure.hint {
            self.say(&format!("hint: {hint}"));
        }
    }

    fn write_words(&self, words: &str) {
        let _ = io::stderr().lock().write_all(words.as_bytes());
    }

    fn columns(&self) -> usize {
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        columns.unwrap_or(80_usize).saturating_sub(1)
    }
}

/// Text from elsewhere on one line, with everything escaped that a terminal would obey: control
/// characters, and the marks that turn the reading direction (Unicode TR36, 3.3).
#[must_use]
pub fn neutral(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            obeyed if is_obeyed(obeyed) => shown.extend(obeyed.escape_unicode()),
            harmless => shown.push(harmless),
        }
    }
    shown
}

fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}'
        )
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_instead() {
        assert_eq!(
            neutral("kubectl get ns 'ä' 日本"),
            "kubectl get ns 'ä' 日本"
        );
        assert_eq!(neutral("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(neutral("\x1b]0;title\x07"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(neutral("\u{9b}2J \u{202e}txt"), "\\u{9b}2J \\u{202e}txt");
    }
}
