//! Masks known secrets in what a command prints, however the output is cut into pieces.
//!
//! All secrets are looked for at once by the automaton of Aho and Corasick: after every byte its node
//! stands for the longest end of the stream that is the beginning of some secret.
//!
//! ```text
//! … kubectl --token=eyJhbGc           secret: eyJhbGciOiJSUzI1NiJ9
//! └──── decided ────┘└ held ┘         the node is 7 deep: only what begins here can still be a secret
//! ```
//!
//! What lies before is decided, because no occurrence that is found later can begin there. So nothing is
//! held back but the beginning of a secret, and every occurrence is found, also inside and across others.
//!
//! This keeps secrets out of the output by accident, not by intent: a command that prints one backwards,
//! in base64 or one line at a time is not understood.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

/// Shorter values are not masked: they stand in innocent text everywhere, and the masks would tell more
/// than they hide.
pub(crate) const SHORTEST_BYTES: usize = 6;

/// What stands for a secret, or for several that overlap.
const MASK: &[u8] = b"***";

/// One stream of output on its way. It has no `Debug`, which would print secrets.
pub(crate) struct Masker {
    secrets: Arc<Secrets>,
    node: u32,
    /// The end of the stream, as long as it may still become a secret.
    held: Vec<u8>,
    /// What of it is known to be secret: in order, apart from each other.
    spans: Vec<Span>,
}

/// A piece of what is held that is one secret, or several that overlap.
struct Span {
    start: usize,
    end: usize,
    /// Its beginning is decided already, and the mask written.
    is_masked: bool,
}

impl Masker {
    /// Masks these values wherever they stand. Line ends at the end of a value are not taken for a part
    /// of it: a secret that comes from a file has one, and is seldom printed with it. Values of less than
    /// [`SHORTEST_BYTES`] are not masked.
    ///
    /// Takes up 24 bytes for each byte of all values together, which are less than 4 GiB.
    pub(crate) fn new(secrets: &[Vec<u8>]) -> Self {
        let values = secrets.iter().map(|secret| without_line_end(secret));
        let masked: Vec<_> = values
            .filter(|value| value.len() >= SHORTEST_BYTES)
            .collect();
        Self::of(Arc::new(Secrets::new(&masked)))
    }

    /// For another stream of the same command, from its beginning.
    pub(crate) fn for_another_stream(&self) -> Self {
        Self::of(Arc::clone(&self.secrets))
    }

    fn of(secrets: Arc<Secrets>) -> Self {
        Self {
            secrets,
            node: ROOT,
            held: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Takes the next piece of the stream, and appends to `out` what is decided by now.
    pub(crate) fn mask(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.secrets.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        let mut position = self.held.len();
        self.held.extend_from_slice(piece);
        while let Some((node, after)) = self.secrets.next_step(self.node, &self.held, position) {
            (self.node, position) = (node, after);
            let length = self.secrets.ending_at(node);
            if length > 0 {
                self.cover(position - length, position);
            }
        }
        self.release(self.held.len() - self.secrets.open_at(self.node), out);
    }

    /// Appends the rest, of which no secret will come.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.node = ROOT;
        self.release(self.held.len(), out);
    }

    /// Notes an occurrence. They come in the order of their ends, and may begin before others.
    fn cover(&mut self, start: usize, end: usize) {
        let mut span = Span {
            start,
            end,
            is_masked: false,
        };
        while let Some(before) = self.spans.pop_if(|before| before.end > span.start) {
            span.start = span.start.min(before.start);
            span.is_masked |= before.is_masked;
        }
        self.spans.push(span);
    }

    /// Appends what is held before `until`, masked, and holds the rest.
    fn release(&mut self, until: usize, out: &mut Vec<u8>) {
        let mut position = 0;
        let mut begun = Vec::new();
        for span in mem::take(&mut self.spans) {
            let mut is_masked = span.is_masked;
            if span.start < until {
                out.extend_from_slice(&self.held[position..span.start]);
                if !mem::replace(&mut is_masked, true) {
                    out.extend_from_slice(MASK);
                }
                position = span.end.min(until);
            }
            if span.end > until {
                begun.push(Span {
                    start: span.start.saturating_sub(until),
                    end: span.end - until,
                    is_masked,
                });
            }
        }
        out.extend_from_slice(&self.held[position..until]);
        self.held.drain(..until);
        self.spans = begun;
    }
}

fn without_line_end(secret: &[u8]) -> &[u8] {
    let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let end = secret.iter().rposition(|byte| !is_line_end(byte));
    &secret[..end.map_or(0, |last| last + 1)]
}

/// The node of no beginning at all. It is nobody's child.
const ROOT: u32 = 0;

/// The automaton: a tree of the beginnings of all secrets. There may be many bytes of them, and each is a node:
/// so nodes are small, and have numbers of 32 bits.
struct Secrets {
    nodes: Vec<Node>,
    /// The children of the root, by their byte: most of the text never leaves it.
    starts: [u32; 256],
}

#[derive(Default)]
struct Node {
    byte: u8,
    first_child: u32,
    next_sibling: u32,
    /// The longest proper end of this beginning that is a beginning, too.
    fallback: u32,
    /// The length of the longest secret that ends here; 0 for none.
    ending: u32,
    /// The length of the longest end of this beginning that can go on to be a secret.
    open: u32,
}

impl Secrets {
    fn new(values: &[&[u8]]) -> Self {
        let bytes: usize = values.iter().map(|value| value.len()).sum();
        let mut secrets = Self {
            // At once: a list that grows has its old self beside it.
            nodes: Vec::with_capacity(1 + bytes),
            starts: [ROOT; 256],
        };
        secrets.nodes.push(Node::default());
        for value in values {
            let last = value
                .iter()
                .fold(ROOT, |node, byte| secrets.grow(node, *byte));
            secrets.at_mut(last).ending = value.len() as u32;
        }
        secrets.link();
        secrets
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn at(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn at_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// The child of this byte, made if need be.
    fn grow(&mut self, parent: u32, byte: u8) -> u32 {
        if let Some(child) = self.child(parent, byte) {
            return child;
        }
        let child = self.nodes.len() as u32;
        let next_sibling = mem::replace(&mut self.at_mut(parent).first_child, child);
        self.nodes.push(Node {
            byte,
            next_sibling,
            ..Node::default()
        });
        if parent == ROOT {
            self.starts[usize::from(byte)] = child;
        }
        child
    }

    /// From the root outwards: what a node falls back to is nearer to the root than the node.
    fn link(&mut self) {
        let mut waiting = VecDeque::from([(ROOT, 0)]);
        while let Some((parent, depth)) = waiting.pop_front() {
            let mut child = self.at(parent).first_child;
            while child != ROOT {
                let fallback = match parent {
                    ROOT => ROOT,
                    _ => self.step(self.at(parent).fallback, self.at(child).byte),
                };
                self.settle(child, depth + 1, fallback);
                waiting.push_back((child, depth + 1));
                child = self.at(child).next_sibling;
            }
        }
    }

    fn settle(&mut self, node: u32, depth: u32, fallback: u32) {
        let (ending, open) = (self.at(fallback).ending, self.at(fallback).open);
        let node = self.at_mut(node);
        node.fallback = fallback;
        // Its own length is more than any proper end's.
        node.ending = node.ending.max(ending);
        node.open = if node.first_child == ROOT {
            open
        } else {
            depth
        };
    }

    fn child(&self, parent: u32, byte: u8) -> Option<u32> {
        if parent == ROOT {
            return Some(self.starts[usize::from(byte)]).filter(|start| *start != ROOT);
        }
        let mut child = self.at(parent).first_child;
        while child != ROOT && self.at(child).byte != byte {
            child = self.at(child).next_sibling;
        }
        Some(child).filter(|child| *child != ROOT)
    }

    fn step(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            match self.child(node, byte) {
                Some(child) => return child,
                None if node == ROOT => return ROOT,
                None => node = self.at(node).fallback,
            }
        }
    }

    /// The node after the next byte that matters, and the position after it; `None` at the text's end.
    fn next_step(&self, node: u32, text: &[u8], position: usize) -> Option<(u32, usize)> {
        let rest = &text[position..];
        let skipped = match node {
            ROOT => rest
                .iter()
                .position(|byte| self.starts[usize::from(*byte)] != ROOT)?,
            _ => 0,
        };
        let byte = rest.get(skipped)?;
        Some((self.step(node, *byte), position + skipped + 1))
    }

    fn ending_at(&self, node: u32) -> usize {
        self.at(node).ending as usize
    }

    fn open_at(&self, node: u32) -> usize {
        self.at(node).open as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masker(secrets: &[&str]) -> Masker {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| secret.as_bytes().to_vec())
            .collect();
        Masker::new(&secrets)
    }

    fn masked(secrets: &[&str], pieces: &[&str]) -> String {
        let mut masker = masker(secrets);
        let mut out = Vec::new();
        for piece in pieces {
            masker.mask(piece.as_bytes(), &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let secrets = ["hunter2hunter", "correct horse"];
        let cases = [
            ("", ""),
            ("nothing here", "nothing here"),
            ("hunter2hunter", "***"),
            ("a=hunter2hunter;b=correct horse", "a=***;b=***"),
            ("correct horsehunter2hunter", "******"),
            ("hunter2hunte", "hunter2hunte"),
            ("hunter2hunter2hunter2", "***2"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(&secrets, &[text]), expected);
            let pieces: Vec<_> = text.split_inclusive(|_| true).collect();
            assert_eq!(masked(&secrets, &pieces), expected, "byte by byte");
        }
    }

    #[test]
    fn nothing_of_secrets_that_overlap_is_left() {
        let cases: [(&[&str], &str, &str); 5] = [
            (&["abcdef-1", "def-1234"], "abcdef-1234", "***"),
            (
                &["password", "password-longer"],
                "password-longer password-long",
                "*** ***-long",
            ),
            (
                &["abcdefghij", "cdefgh"],
                "abcdefghij abcdefgh",
                "*** ab***",
            ),
            (&["aaaaaa"], "baaaaaaaaaaab", "b***b"),
            (&["abcabcabc"], "abcabcabcabcabcabcab", "***ab"),
        ];
        for (secrets, text, expected) in cases {
            assert_eq!(masked(secrets, &[text]), expected);
        }
    }

    #[test]
    fn a_line_end_is_no_part_of_a_secret() {
        for secret in ["from-a-file\n", "from-a-file\r\n", "from-a-file\n\n"] {
            assert_eq!(
                masked(&[secret], &["a from-a-file\nb from-a-file"]),
                "a ***\nb ***"
            );
        }
        assert_eq!(
            masked(&["two\nlines\n"], &["two\nlines two\n"]),
            "*** two\n"
        );
    }

    #[test]
    fn what_is_too_short_is_not_masked() {
        assert_eq!(
            masked(
                &["admin", "admin\n", "", "\n\n\n\n\n\n\n"],
                &["admin\n\n\n\n\n\n\n\n"]
            ),
            "admin\n\n\n\n\n\n\n\n"
        );
        assert_eq!(masked(&["admin1"], &["admin1"]), "***");
    }

    /// A prompt that waits for an answer must be seen: what cannot become a secret goes out at once.
    #[test]
    fn only_the_beginning_of_a_secret_is_held_back() {
        let mut masker = masker(&["secret-token", "tokens"]);
        let steps = [
            ("> ", "> "),
            ("sec", ""),
            ("ond s", "second "),
            ("ecret-tok", ""),
            ("e", ""),
            ("n", "***"),
            ("s", ""),
            (" token", " "),
            ("", ""),
            ("s", "***"),
        ];
        for (piece, expected) in steps {
            let mut out = Vec::new();
            masker.mask(piece.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "after {piece:?}");
        }
    }

    #[test]
    fn each_stream_has_its_own_beginning() {
        let mut stdout = masker(&["secret-token"]);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        stdout.mask(b"secret-", &mut first);
        let mut stderr = stdout.for_another_stream();
        stderr.mask(b"token secret-", &mut second);
        stdout.mask(b"token", &mut first);
        stdout.finish(&mut first);
        stderr.finish(&mut second);
        assert_eq!(
            (&first[..], &second[..]),
            (&b"***"[..], &b"token secret-"[..])
        );
    }

    /// Every occurrence of every secret in the whole text at once, the overlapping ones as one.
    fn model(secrets: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for start in 0..text.len() {
            let here = secrets.iter().map(|secret| without_line_end(secret));
            let found = here
                .filter(|value| value.len() >= SHORTEST_BYTES && text[start..].starts_with(value));
            let Some(longest) = found.map(<[u8]>::len).max() else {
                continue;
            };
            match spans.last_mut() {
                Some((_, end)) if *end > start => *end = (start + longest).max(*end),
                _ => spans.push((start, start + longest)),
            }
        }
        let (mut masked, mut position) = (Vec::new(), 0);
        for (start, end) in spans {
            masked.extend(&text[position..start]);
            masked.extend(MASK);
            position = end;
        }
        masked.extend(&text[position..]);
        masked
    }

    /// How much of the text's end can still become a secret.
    fn longest_beginning(secrets: &[Vec<u8>], text: &[u8]) -> usize {
        let values = secrets.iter().map(|secret| without_line_end(secret));
        let long_enough = values.filter(|value| value.len() >= SHORTEST_BYTES);
        let open = long_enough
            .flat_map(|value| (1..value.len()).filter(|length| text.ends_with(&value[..*length])));
        open.max().unwrap_or_default()
    }

    proptest! {
        /// Few letters, so that secrets meet, contain and repeat each other.
        #[test]
        fn pieces_are_masked_as_the_whole_would_be(
            secrets in prop::collection::vec("[ab\n]{4,10}".prop_map(String::into_bytes), 0..6),
            filler in prop::collection::vec("[abc]{0,12}".prop_map(String::into_bytes), 1..8),
            order in prop::collection::vec(any::<prop::sample::Index>(), 8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = Vec::new();
            for (filler, order) in filler.iter().zip(&order) {
                text.extend(filler);
                if !secrets.is_empty() {
                    text.extend(order.get(&secrets));
                }
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();

            let mut masker = Masker::new(&secrets);
            let mut out = Vec::new();
            for cut in cuts.windows(2) {
                masker.mask(&text[cut[0]..cut[1]], &mut out);
                prop_assert_eq!(masker.held.len(), longest_beginning(&secrets, &text[..cut[1]]));
            }
            masker.finish(&mut out);
            prop_assert_eq!(out, model(&secrets, &text));
        }

        #[test]
        fn bytes_of_any_kind_are_masked(
            secret in prop::collection::vec(any::<u8>(), 6..300),
            before in prop::collection::vec(any::<u8>(), 0..100),
            size in 1_usize..40,
        ) {
            let text = [&before[..], &secret, &before, &secret].concat();
            let secrets = [secret];
            let mut masker = Masker::new(&secrets);
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                masker.mask(piece, &mut out);
            }
            masker.finish(&mut out);
            prop_assert_eq!(out, model(&secrets, &text));
        }
    }
}
