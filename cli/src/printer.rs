//! Where words go: what was asked for to stdout, our own words to stderr, each line of those prefixed.
//!
//! Everything that another machine said is [`neutral`] before it is shown: a name, a reason or a
//! command must not move the cursor, retitle the window or forge a line. Whoever puts such a text into
//! a line makes it neutral there, because a line end in it is to be seen; what was forgotten loses
//! everything but its line ends here, before it comes to a terminal. There is no way around that:
//! `--raw` is about the command's own bytes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::Failure;
use crate::terminal::{NO_COLOURS, is_active, push_visible};

/// Writes to the standard streams of the process.
#[derive(Debug)]
pub struct Printer {
    interactive: bool,
    status_shown: AtomicBool,
    colours_left: AtomicBool,
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
            colours_left: AtomicBool::new(false),
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
        let harmless;
        let text = match self.prints_to_terminal() {
            true => {
                harmless = neutral_lines(text);
                &harmless
            }
            // A file of values, for example: as it is to be read.
            false => text,
        };
        let written = write_and_flush(&mut io::stdout().lock(), text.as_bytes());
        written.map_err(|source| Error::of("stdout", source))
    }

    /// Prints one JSON document, whose strings have for everything that a terminal would obey the
    /// escapes of JSON: the same document to every reader.
    ///
    /// # Errors
    /// As [`Printer::print`].
    pub fn print_json(&self, document: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::of("stdout", error.into()))?;
        self.print(&format!("{}\n", escaped_json(&text)))
    }

    /// Says one line of our own. Nothing is lost if nobody hears it, so nothing fails.
    pub fn say(&self, line: &str) {
        self.clear_status();
        self.write_words(&format!("invoke: {}\n", neutral(line)));
    }

    /// Says lines without our name before them: a usage page, or commands to copy.
    pub fn show(&self, lines: &str) {
        self.clear_status();
        self.write_words(&neutral_lines(lines));
    }

    /// Asks, and leaves the cursor behind the question.
    pub fn ask(&self, question: &str) {
        self.clear_status();
        self.write_words(&format!("\ninvoke: {} ", neutral(question)));
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

    /// Notes whether the command's output has left colours on, that our words are not to be in.
    pub(crate) fn leave_colours(&self, left: bool) {
        self.colours_left.store(left, Ordering::Relaxed);
    }

    /// Ends the colours that the command's output has left on, if any.
    pub fn end_colours(&self) {
        if self.colours_left.swap(false, Ordering::Relaxed) {
            // They are on a terminal: if not behind this stream, then behind the other.
            let _ = match self.interactive {
                true => write_and_flush(&mut io::stderr().lock(), NO_COLOURS.as_bytes()),
                false => write_and_flush(&mut io::stdout().lock(), NO_COLOURS.as_bytes()),
            };
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
        if self.interactive {
            self.end_colours();
        }
        let _ = io::stderr().lock().write_all(words.as_bytes());
    }

    fn columns(&self) -> usize {
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        columns.unwrap_or(80_usize).saturating_sub(1)
    }
}

/// Writes, and lets nothing wait in a buffer.
pub(crate) fn write_and_flush(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Text from elsewhere on one line, with everything made visible that a terminal would obey or not
/// show, line ends and tabs too.
#[must_use]
pub fn neutral(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            other => push_visible(other, &mut shown),
        }
    }
    shown
}

/// The same for a text that has lines.
fn neutral_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            other => push_visible(other, &mut shown),
        }
    }
    shown
}

/// A JSON text that means the same, without a character that acts. Those stand in strings only: what
/// is between them are signs, letters, blanks and line ends.
fn escaped_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || !is_active(character) {
            shown.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
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
        assert_eq!(neutral("a\nb\tc\r"), "a\\nb\\tc^M");
        assert_eq!(neutral("\x1b]0;title\x07"), "^[]0;title^G");
        assert_eq!(neutral("\x1b[31mred"), "^[[31mred");
        assert_eq!(neutral("\u{9b}2J \u{202e}txt"), "<U+009B>2J <U+202E>txt");
        assert_eq!(neutral_lines("a\n\tb\r\n\x1b[2J"), "a\n\tb^M\n^[[2J");
    }

    /// Also where somebody has forgotten it before. In a process of its own, whose stderr can be looked at.
    #[test]
    fn whatever_is_said_does_nothing() {
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "printer::tests::says_it", "--ignored"]);
        let said = String::from_utf8(inner.output().unwrap().stderr).unwrap();
        assert_eq!(
            said,
            "invoke: ^[[2J\\nforged\n^[[2J\nforged\n\ninvoke: ^[[2J\\nforged "
        );
    }

    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn says_it() {
        let (printer, hostile) = (Printer::for_process(), "\x1b[2J\nforged");
        printer.say(hostile);
        printer.show(&format!("{hostile}\n"));
        printer.ask(hostile);
    }

    #[test]
    fn a_document_means_the_same_and_does_nothing() {
        let text = "ä\n\t\x1b[2J\u{7f}\u{9b}2J\u{202e}\u{e0041}\"\\";
        let json = escaped_json(&serde_json::to_string_pretty(&[text]).unwrap());
        assert_eq!(
            json,
            "[\n  \"ä\\n\\t\\u001b[2J\\u007f\\u009b2J\\u202e\\udb40\\udc41\\\"\\\\\"\n]"
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
