//! Which lines of an output are shown, and how: one stream or both, from a line on, with times.
//!
//! A line belongs to the place where it begins. Lines of both streams are numbered together, in the order
//! in which they begin; a line that is continued later, after something of the other stream, stays one.

use invoke_protocol::output::{InvalidLog, Stream, frames};
use jiff::Timestamp;

/// What to show. It sees the output piece by piece, in the order of the log.
#[derive(Debug, Clone)]
pub struct View {
    selection: Selection,
    /// How many lines to pass over before the first that is shown.
    skip: u64,
    timestamps: bool,
    stdout: Line,
    stderr: Line,
}

/// Which streams are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Both.
    Both,
    /// Only this one.
    Only(Stream),
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The next byte begins a line.
    Ended,
    /// In the middle of one that is shown.
    Shown,
    /// In the middle of one that is not.
    Hidden,
}

impl Selection {
    fn has(self, stream: Stream) -> bool {
        match self {
            Self::Both => true,
            Self::Only(only) => only == stream,
        }
    }
}

impl View {
    /// Shows from the first line on, `skip` lines passed over, each with the time at which it began if
    /// `timestamps`.
    #[must_use]
    pub const fn new(selection: Selection, skip: u64, timestamps: bool) -> Self {
        Self {
            selection,
            skip,
            timestamps,
            stdout: Line::Ended,
            stderr: Line::Ended,
        }
    }

    /// The same for a log that is not seen from its beginning: what comes first of each stream may be the
    /// rest of a line, and is not shown.
    #[must_use]
    pub const fn from_the_middle(self) -> Self {
        Self {
            stdout: Line::Hidden,
            stderr: Line::Hidden,
            ..self
        }
    }

    /// What is shown of the next piece.
    #[must_use]
    pub fn show(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        if !self.selection.has(stream) {
            return shown;
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line(stream) == Line::Ended {
                self.begin(stream);
                if self.timestamps && self.line(stream) == Line::Shown {
                    shown.extend(format!("{at:.6} ").bytes());
                }
            }
            if self.line(stream) == Line::Shown {
                shown.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                *self.line_mut(stream) = Line::Ended;
            }
        }
        shown
    }

    fn begin(&mut self, stream: Stream) {
        *self.line_mut(stream) = match self.skip.checked_sub(1) {
            Some(left) => {
                self.skip = left;
                Line::Hidden
            }
            None => Line::Shown,
        };
    }

    const fn line(&self, stream: Stream) -> Line {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    const fn line_mut(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Counts the lines that a [`View`] would see, without showing any.
#[derive(Debug, Clone)]
pub struct Count {
    view: View,
}

impl Count {
    /// Of these streams; `from_the_middle` as [`View::from_the_middle`].
    #[must_use]
    pub const fn new(selection: Selection, from_the_middle: bool) -> Self {
        let view = View::new(selection, u64::MAX, false);
        Self {
            view: if from_the_middle {
                view.from_the_middle()
            } else {
                view
            },
        }
    }

    /// Looks at a piece of the log, whole frames.
    ///
    /// # Errors
    /// [`InvalidLog`].
    pub fn look_at(&mut self, log: &[u8]) -> Result<(), InvalidLog> {
        for frame in frames(log) {
            let frame = frame?;
            let nothing = self.view.show(frame.stream, frame.at, frame.payload);
            debug_assert!(nothing.is_empty());
        }
        Ok(())
    }

    /// How many lines there were.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        u64::MAX - self.view.skip
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUT: Stream = Stream::Stdout;
    const ERR: Stream = Stream::Stderr;

    fn shown(view: View, pieces: &[(Stream, &str)]) -> String {
        let mut view = view;
        let at = |second: i64| Timestamp::from_millisecond(1_500 * second).unwrap();
        let pieces = (0..).zip(pieces);
        let shown =
            pieces.map(|(second, (stream, text))| view.show(*stream, at(second), text.as_bytes()));
        String::from_utf8(shown.collect::<Vec<_>>().concat()).unwrap()
    }

    const PIECES: [(Stream, &str); 5] = [
        (OUT, "one\ntw"),
        (ERR, "warning\n"),
        (OUT, "o\nthree\n"),
        (ERR, "err"),
        (OUT, "\nend"),
    ];

    #[test]
    fn lines_are_numbered_where_they_begin() {
        let view = |skip| View::new(Selection::Both, skip, false);
        assert_eq!(
            shown(view(0), &PIECES),
            "one\ntwwarning\no\nthree\nerr\nend"
        );
        assert_eq!(shown(view(1), &PIECES), "twwarning\no\nthree\nerr\nend");
        assert_eq!(shown(view(2), &PIECES), "warning\nthree\nerr\nend");
        assert_eq!(shown(view(5), &PIECES), "\nend");
        assert_eq!(shown(view(7), &PIECES), "");
    }

    #[test]
    fn one_stream_alone_has_its_own_numbers() {
        let view = |stream, skip| View::new(Selection::Only(stream), skip, false);
        assert_eq!(shown(view(ERR, 0), &PIECES), "warning\nerr");
        assert_eq!(shown(view(ERR, 1), &PIECES), "err");
        assert_eq!(shown(view(OUT, 2), &PIECES), "three\n\nend");
    }

    #[test]
    fn a_time_stands_before_each_line_and_not_within() {
        let view = View::new(Selection::Only(OUT), 0, true);
        assert_eq!(
            shown(view, &PIECES),
            "1970-01-01T00:00:00.000000Z one\n1970-01-01T00:00:00.000000Z two\n\
             1970-01-01T00:00:03.000000Z three\n1970-01-01T00:00:06.000000Z \n\
             1970-01-01T00:00:06.000000Z end"
        );
    }

    #[test]
    fn the_rest_of_a_line_is_none() {
        let view = View::new(Selection::Both, 0, false).from_the_middle();
        assert_eq!(shown(view, &PIECES), "two\nthree\nerr\nend");
    }

    proptest! {
        /// However the output is cut into pieces, the same lines are shown; and what is counted is what can
        /// be passed over.
        #[test]
        fn cuts_do_not_matter(text in "[ab\n]{0,40}", cuts in prop::collection::vec(1..5_usize, 0..40), skip in 0..6_u64) {
            let whole = View::new(Selection::Both, skip, false).show(OUT, Timestamp::UNIX_EPOCH, text.as_bytes());
            let (mut view, mut rest, mut pieces) = (View::new(Selection::Both, skip, false), text.as_bytes(), Vec::new());
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.extend(view.show(OUT, Timestamp::UNIX_EPOCH, piece));
                rest = after;
            }
            prop_assert_eq!(&whole, &pieces);
            let model: Vec<u8> = text.split_inclusive('\n').skip(usize::try_from(skip).unwrap()).flat_map(str::bytes).collect();
            prop_assert_eq!(whole, model);
        }
    }
}
