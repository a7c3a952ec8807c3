//! What a command prints, made harmless for a terminal.
//!
//! A terminal obeys what it is sent: it moves its cursor over what was printed before, takes a new
//! title, fills the clipboard, types an answer into the shell. What a command in a cluster prints is
//! often somebody else's text, such as a log line that holds what a stranger asked a web server for.
//! So on a terminal only this passes:
//!
//! - printable text, line ends and tabs;
//! - colours: `ESC [ … m` with short numbers. They can make text hard to see, but never change what is
//!   there. `NO_COLOR` is no reason to take them away: it asks programs to add none, and we add none then;
//!   whether the command does is its own decision, in its own environment.
//!
//! Everything else is shown instead of obeyed:
//!
//! | what | shown as |
//! |---|---|
//! | control characters, ESC among them | `^G`, `^[`, `^?` |
//! | a carriage return that ends no line | `^M` and a new line: a progress bar becomes a line a step, and what it would overwrite stays |
//! | characters that are invisible, or turn the reading direction; C1 controls | `<U+202E>` |
//! | bytes that are no UTF-8, 8-bit C1 controls among them | `\x9b` |
//!
//! Nothing is parsed in order to be skipped. An `ESC` that begins no colour is shown, and what follows
//! it is text: however a terminal understands a sequence, and wherever one ends or fails to, the
//! `ESC` it begins with is not there.
//!
//! ```text
//!   bytes ──▶ characters ──▶ ESC, or a carriage return: held until it is known what it begins ──▶ text
//!                │ the beginning of one: held, at most 3 bytes
//! ```
//!
//! What comes out is a fixed point: it goes through unchanged.

use std::fmt::Write as _;
use std::mem;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// The longest colour, in bytes: bold, underlined, with three colours of three numbers each, has 61.
const LONGEST_COLOUR: usize = 64;
/// How many digits a number of a colour may have: the largest that means something is 255. Terminals
/// have stumbled over longer ones.
const MOST_DIGITS: usize = 3;

/// Ends all colours.
pub(crate) const NO_COLOURS: &str = "\x1b[0m";

/// One stream on its way to a terminal. Holds back what can only be understood with the bytes that
/// follow it, which is never more than an unfinished colour and an unfinished character.
#[derive(Debug, Default)]
pub struct Sanitiser {
    /// What may be the beginning of something.
    held: Held,
    /// The beginning of a character.
    unfinished: Vec<u8>,
    coloured: bool,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// A carriage return, or several in a row, which do no more than one: `\r\r\n` ends one line.
    Return,
    /// The beginning of a colour, from its ESC on.
    Colour(String),
}

impl Sanitiser {
    /// What to show for the next bytes of the stream, cut from it anywhere.
    #[must_use]
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let mut shown = String::with_capacity(bytes.len());
        let bytes = [&mem::take(&mut self.unfinished), bytes].concat();
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for character in chunk.valid().chars() {
                self.take(character, &mut shown);
            }
            if chunks.peek().is_none() && is_unfinished(chunk.invalid()) {
                self.unfinished = chunk.invalid().to_vec();
            } else {
                self.refuse(chunk.invalid(), &mut shown);
            }
        }
        shown
    }

    /// What to show at the end of the stream: what was held back, and the end of its colours.
    #[must_use]
    pub fn end(&mut self) -> String {
        let mut shown = String::new();
        self.release(&mut shown);
        let unfinished = mem::take(&mut self.unfinished);
        self.refuse(&unfinished, &mut shown);
        if mem::take(&mut self.coloured) {
            shown.push_str(NO_COLOURS);
        }
        shown
    }

    /// Whether what was shown has left colours on.
    #[must_use]
    pub const fn is_coloured(&self) -> bool {
        self.coloured
    }

    fn take(&mut self, character: char, shown: &mut String) {
        match (&mut self.held, character) {
            (Held::Return, '\r') => {}
            (Held::Return, '\n') => {
                self.held = Held::Nothing;
                shown.push('\n');
            }
            (Held::Colour(colour), next) if continues(colour, next) => colour.push(next),
            (Held::Colour(colour), 'm') if is_colour(colour) => {
                self.coloured = !is_end(colour);
                shown.push_str(colour);
                shown.push('m');
                self.held = Held::Nothing;
            }
            _ => {
                self.release(shown);
                self.begin(character, shown);
            }
        }
    }

    /// Takes a character that continues nothing.
    fn begin(&mut self, character: char, shown: &mut String) {
        match character {
            '\r' => self.held = Held::Return,
            '\x1b' => self.held = Held::Colour(character.into()),
            '\n' | '\t' => shown.push(character),
            other => push_visible(other, shown),
        }
    }

    /// Takes bytes that are no character.
    fn refuse(&mut self, bytes: &[u8], shown: &mut String) {
        for byte in bytes {
            self.release(shown);
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }

    /// Shows what was held back, for it was the beginning of nothing.
    fn release(&mut self, shown: &mut String) {
        match mem::take(&mut self.held) {
            Held::Nothing => {}
            Held::Return => shown.push_str("^M\n"),
            Held::Colour(colour) => colour
                .chars()
                .for_each(|character| push_visible(character, shown)),
        }
    }
}

/// Adds a character as it is if a terminal only shows it, and otherwise made visible.
pub(crate) fn push_visible(character: char, shown: &mut String) {
    match character {
        harmless if !is_active(harmless) => shown.push(harmless),
        // As `cat -v` and `less` show them: 64 places further in ASCII.
        '\0'..='\x1f' | '\x7f' => {
            shown.push('^');
            shown.push(char::from(character as u8 ^ 0x40));
        }
        other => {
            let _ = write!(shown, "<U+{:04X}>", u32::from(other));
        }
    }
}

/// Whether a character does anything but stand there to be seen: whether it is obeyed, turns the
/// reading direction, or is invisible, so that two different texts would look the same. Line ends and
/// tabs are active, too.
pub(crate) fn is_active(character: char) -> bool {
    // The bulk of all text, without a look into tables.
    if matches!(character, ' '..='~') {
        return false;
    }
    matches!(
        character.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    ) || is_ignorable(character)
}

/// What Unicode calls default ignorable in other categories: fonts show nothing for it. Without
/// U+FE0E and U+FE0F, which choose between two pictures of one sign and stand behind many a check mark.
const fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2065}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0d}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether more bytes could make a character of these.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Whether a colour that began like this may go on like that. The `m` that ends it has its place.
fn continues(colour: &str, next: char) -> bool {
    match next {
        '[' => colour.len() == 1,
        '0'..='9' | ';' | ':' => (2..LONGEST_COLOUR - 1).contains(&colour.len()),
        _ => false,
    }
}

fn is_colour(without_its_m: &str) -> bool {
    let numbers = without_its_m.strip_prefix("\x1b[");
    numbers.is_some_and(|numbers| {
        let mut numbers = numbers.split([';', ':']);
        numbers.all(|number| number.len() <= MOST_DIGITS)
    })
}

/// Whether a colour is the end of all colours, and nothing else.
fn is_end(without_its_m: &str) -> bool {
    let mut numbers = without_its_m.chars().skip(2);
    numbers.all(|character| matches!(character, '0' | ';'))
}

#[cfg(test)]
mod tests;
