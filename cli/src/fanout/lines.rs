//! The output of many clusters on our own streams, as it comes: each line whole, and behind the name of its
//! cluster.
//!
//! ```text
//!   edge-1  | NAME      READY
//!   prod-eu | NAME      READY
//!   edge-1  | web-0     1/1
//! ```
//!
//! A line is shown when it is complete, or when its stream is. One that is longer than [`MAX_LINE_BYTES`] is
//! shown in pieces, each after the first behind a `+`: nobody else may have to wait for its end, and nobody
//! has the memory for it.

use std::cell::Cell;

use invoke_protocol::id::ClusterName;
use invoke_protocol::output::Stream;
use tokio::sync::Mutex;

use crate::door::Door;
use crate::output::write_now;
use crate::printer::{self, Printer};
use crate::terminal::NO_COLOURS;

/// The longest line that is kept until it is complete.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// What names are shown in: all that can be told apart on light and on dark, but for red, which means trouble.
const COLOURS: [&str; 10] = [
    "\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[92m",
    "\x1b[95m", "\x1b[94m",
];

/// Our own streams, on which many clusters print.
pub struct Lines<'a> {
    printer: &'a Printer,
    stdout: Look,
    stderr: Look,
    /// How long the longest name is, once the clusters are known.
    width: Cell<usize>,
    /// Whoever writes: stdout and stderr may be one terminal.
    turn: Mutex<()>,
}

/// How a stream of ours shows lines.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Whether only what is harmless there goes through.
    is_guarded: bool,
    is_terminal: bool,
    has_colours: bool,
}

/// The lines of one cluster.
pub struct ClusterLines<'a> {
    lines: &'a Lines<'a>,
    stdout: Line,
    stderr: Line,
}

/// One stream of one cluster.
struct Line {
    door: Door,
    /// The name, as it stands before each line.
    name: String,
    is_terminal: bool,
    /// The beginning of a line.
    pending: Vec<u8>,
    /// Whether a piece of that line was shown.
    is_continued: bool,
}

impl<'a> Lines<'a> {
    /// `raw` lets a terminal have every byte.
    #[must_use]
    pub fn new(printer: &'a Printer, raw: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let look = |is_terminal| Look {
            is_guarded: is_terminal && !raw,
            is_terminal,
            has_colours: is_terminal && !no_color,
        };
        Self {
            printer,
            stdout: look(printer.prints_to_terminal()),
            stderr: look(printer.is_interactive()),
            width: Cell::new(0),
            turn: Mutex::new(()),
        }
    }

    /// Leaves room for these names.
    pub(super) fn align<'n>(&self, clusters: impl Iterator<Item = &'n ClusterName>) {
        let widest = clusters.map(|cluster| cluster.as_str().len()).max();
        self.width.set(widest.unwrap_or(0));
    }

    /// The lines of one of them.
    #[must_use]
    pub fn of(&'a self, cluster: &ClusterName) -> ClusterLines<'a> {
        let name = format!("{cluster:width$}", width = self.width.get());
        let line = |look: Look| Line {
            door: Door::of(look.is_guarded),
            name: match look.has_colours {
                true => format!("{}{name}{NO_COLOURS}", colour(cluster)),
                false => name.clone(),
            },
            is_terminal: look.is_terminal,
            pending: Vec::new(),
            is_continued: false,
        };
        ClusterLines {
            lines: self,
            stdout: line(self.stdout),
            stderr: line(self.stderr),
        }
    }

    /// Shows a person what is going on, until the next line takes its place. While one is being written it is not
    /// shown: it would stand in that.
    pub(super) fn status(&self, text: &str) {
        if let Ok(_turn) = self.turn.try_lock() {
            self.printer.status(text);
        }
    }

    async fn write(&self, stream: Stream, lines: Vec<u8>) -> Result<(), printer::Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        self.printer.clear_status();
        write_now(stream, lines).await
    }
}

impl ClusterLines<'_> {
    /// Takes what came next of a stream, and shows what lines it completes.
    ///
    /// # Errors
    /// [`printer::Error`].
    pub async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), printer::Error> {
        let line = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let lines = line.take(bytes);
        self.lines.write(stream, lines).await
    }

    /// Shows what is left where nothing follows.
    ///
    /// # Errors
    /// [`printer::Error`].
    pub async fn end(&mut self) -> Result<(), printer::Error> {
        for (stream, line) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            let lines = line.end();
            self.lines.write(stream, lines).await?;
        }
        Ok(())
    }
}

impl Line {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let text = self.door.show(bytes);
        self.show(&text)
    }

    fn end(&mut self) -> Vec<u8> {
        let rest = self.door.end();
        let mut lines = self.show(&rest);
        // What ends all colours is no line: each line has ended its own.
        if self.pending == NO_COLOURS.as_bytes() {
            self.pending.clear();
        }
        if !self.pending.is_empty() {
            self.show_pending(&mut lines);
        }
        lines
    }

    fn show(&mut self, text: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = part.strip_suffix(b"\n").unwrap_or(part);
            while self.pending.len() + rest.len() > MAX_LINE_BYTES {
                let (piece, after) = rest.split_at(self.room(rest));
                self.pending.extend_from_slice(piece);
                self.show_pending(&mut lines);
                self.is_continued = true;
                rest = after;
            }
            self.pending.extend_from_slice(rest);
            if part.ends_with(b"\n") {
                self.show_pending(&mut lines);
                self.is_continued = false;
            }
        }
        lines
    }

    /// How much of a long line still fits, without cutting through a character.
    fn room(&self, rest: &[u8]) -> usize {
        let room = MAX_LINE_BYTES - self.pending.len();
        let is_inner = |at: &usize| rest.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let whole = (room.saturating_sub(3)..=room).rev();
        let mut whole = whole.filter(|at| !is_inner(at));
        // Bytes that are no text are cut anywhere; and something must go.
        whole
            .next()
            .filter(|at| *at > 0 || !self.pending.is_empty())
            .unwrap_or(room)
    }

    fn show_pending(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(self.name.as_bytes());
        lines.extend_from_slice(if self.is_continued { b" + " } else { b" | " });
        lines.extend_from_slice(&self.pending);
        // The next line is another cluster's.
        if self.is_terminal && self.pending.contains(&b'\x1b') {
            lines.extend_from_slice(NO_COLOURS.as_bytes());
        }
        lines.push(b'\n');
        self.pending.clear();
    }
}

/// The same for a name every time: FNV-1a.
fn colour(cluster: &ClusterName) -> &'static str {
    let hash = cluster
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    COLOURS[(hash % COLOURS.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(is_terminal: bool) -> Line {
        Line {
            door: Door::of(is_terminal),
            name: "a".to_owned(),
            is_terminal,
            pending: Vec::new(),
            is_continued: false,
        }
    }

    fn shown(mut line: Line, pieces: &[&[u8]]) -> String {
        let mut shown = Vec::new();
        for piece in pieces {
            shown.extend(line.take(piece));
        }
        shown.extend(line.end());
        String::from_utf8_lossy(&shown).into_owned()
    }

    #[test]
    fn a_line_is_shown_when_it_is_whole() {
        let mut line = line(false);
        assert_eq!(line.take(b"one\ntw"), b"a | one\n");
        assert_eq!(line.take(b""), b"");
        assert_eq!(line.take(b"o\n\nthree"), b"a | two\na | \n");
        assert_eq!(line.end(), b"a | three\n");
        assert_eq!(line.end(), b"");
    }

    /// A colour that was left on would be the next cluster's, and so would its cursor.
    #[test]
    fn nothing_reaches_beyond_its_line() {
        let pieces: [&[u8]; 3] = [b"\x1b[31mred\nstill ", b"\x1b[2Jred\rx\n", b"\x1b[0mend"];
        assert_eq!(
            shown(line(true), &pieces),
            "a | \x1b[31mred\x1b[0m\na | still ^[[2Jred^M\na | x\na | \x1b[0mend\x1b[0m\n"
        );
        assert_eq!(
            shown(line(true), &[b"\x1b[31mred\n"]),
            "a | \x1b[31mred\x1b[0m\n"
        );
        assert_eq!(shown(line(false), &[b"\x1b[31m\n"]), "a | \x1b[31m\n");
    }

    #[test]
    fn a_long_line_is_shown_in_pieces() {
        let long =
            "x".repeat(MAX_LINE_BYTES - 1) + "ä" + &"y".repeat(MAX_LINE_BYTES) + "z\nshort\n";
        let all = shown(line(false), &[long.as_bytes()]);
        let pieces: Vec<&str> = all.lines().collect();
        assert_eq!(pieces.len(), 4);
        assert!(pieces[0].starts_with("a | x") && pieces[0].ends_with('x'));
        assert!(pieces[1].starts_with("a + äy"));
        assert!(pieces[2].starts_with("a + y") && pieces[2].ends_with('z'));
        assert_eq!(pieces[3], "a | short");
        let text: String = pieces.iter().map(|piece| &piece[4..]).collect();
        assert_eq!(text + "\n", long.replacen("\nshort", "short", 1));
        let bytes = vec![0xbf; MAX_LINE_BYTES * 2 + 10];
        let mut line = line(false);
        let mut taken = line.take(&bytes);
        taken.extend(line.end());
        assert_eq!(
            taken.iter().filter(|byte| **byte == 0xbf).count(),
            bytes.len()
        );
    }

    #[test]
    fn a_name_keeps_its_colour() {
        let of = |name: &str| colour(&name.parse().unwrap());
        assert_eq!(of("edge-1"), of("edge-1"));
        let many: std::collections::BTreeSet<_> = (0..50)
            .map(|number| of(&format!("edge-{number}")))
            .collect();
        assert_eq!(many.len(), COLOURS.len());
    }

    proptest! {
        /// However the output is cut into pieces, the same lines are shown.
        #[test]
        fn cuts_do_not_matter(text in "[ab\n\x1bä]{0,40}", cut in 0..50_usize, is_terminal: bool) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(shown(line(is_terminal), &[bytes]), shown(line(is_terminal), &[first, second]));
        }
    }
}
