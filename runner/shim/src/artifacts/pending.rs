//! What is still to be looked at, in the order of paths, and no more of it than may be remembered.

use std::collections::BTreeSet;

/// How long all paths together may be: 80 bytes for each of 100,000.
const PATH_BYTES: usize = 8_000_000;

/// The first paths in order. Where there are too many the last ones go, and for good: nothing after the
/// first that was left out comes in again, so that what is looked at does not depend on the order in which
/// a file system lists its names.
pub(super) struct Pending {
    paths: BTreeSet<Vec<u8>>,
    /// Of the paths that are in.
    bytes: usize,
    /// How many, and how many bytes of them, there may be from now on.
    entries_left: usize,
    bytes_left: usize,
    first_left_out: Option<Vec<u8>>,
}

impl Pending {
    pub(super) fn new(entries: u64) -> Self {
        Self {
            paths: BTreeSet::new(),
            bytes: 0,
            entries_left: usize::try_from(entries).unwrap_or(usize::MAX),
            bytes_left: PATH_BYTES,
            first_left_out: None,
        }
    }

    pub(super) fn add(&mut self, path: Vec<u8>) {
        if self
            .first_left_out
            .as_ref()
            .is_some_and(|first| path >= *first)
        {
            return;
        }
        self.bytes += path.len();
        self.paths.insert(path);
        while self.paths.len() > self.entries_left || self.bytes > self.bytes_left {
            let Some(last) = self.paths.pop_last() else {
                return;
            };
            self.bytes -= last.len();
            self.first_left_out = Some(last);
        }
    }

    /// The first path. It counts from now on, whatever becomes of it: its name is kept elsewhere.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let path = self.paths.pop_first()?;
        self.bytes -= path.len();
        self.bytes_left -= path.len();
        self.entries_left -= 1;
        Some(path)
    }

    /// The first path that was too many, if one was.
    pub(super) fn first_left_out(&self) -> Option<&[u8]> {
        self.first_left_out.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut pending: Pending) -> (Vec<String>, Option<String>) {
        let text = |path: Vec<u8>| String::from_utf8(path).unwrap();
        let paths = std::iter::from_fn(|| pending.next()).map(text).collect();
        (paths, pending.first_left_out.map(text))
    }

    #[test]
    fn what_is_behind_something_left_out_is_left_out() {
        let mut pending = Pending::new(3);
        for path in ["d", "a", "a-b", "c"] {
            pending.add(path.into());
        }
        assert_eq!(pending.next(), Some(b"a".to_vec()));
        // Of the folder that was just looked at. There is room for one, but `c` was there before `d` went.
        pending.add("a/x".into());
        pending.add("d/x".into());
        let (paths, left_out) = all(pending);
        assert_eq!(paths, ["a-b", "a/x"]);
        assert_eq!(left_out.as_deref(), Some("c"));
    }

    #[test]
    fn the_length_of_paths_is_bounded_too() {
        let mut pending = Pending::new(u64::MAX);
        for number in 0..3000 {
            pending.add(format!("{number:04000}").into());
        }
        assert!(pending.bytes <= PATH_BYTES);
        let (paths, left_out) = all(pending);
        assert_eq!(paths.len(), 2000);
        assert_eq!(left_out.unwrap(), format!("{:04000}", 2000));
    }

    /// What was looked at is remembered as well: its path is in the manifest.
    #[test]
    fn paths_that_were_looked_at_count() {
        let mut pending = Pending::new(u64::MAX);
        let mut looked_at = 0;
        for number in 0..3000 {
            pending.add(format!("{number:04000}").into());
            looked_at += usize::from(pending.next().is_some());
        }
        assert_eq!(looked_at, 2000);
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_changes_nothing(
            (sorted, shuffled) in prop::collection::btree_set("[a-c]{1,4}", 0..20).prop_flat_map(|paths| {
                let paths: Vec<_> = paths.into_iter().collect();
                (Just(paths.clone()), Just(paths).prop_shuffle())
            }),
            entries in 0_usize..20,
        ) {
            let mut pending = Pending::new(entries as u64);
            for path in shuffled {
                pending.add(path.into());
            }
            let (paths, left_out) = all(pending);
            prop_assert_eq!(left_out.as_ref(), sorted.get(entries));
            prop_assert_eq!(paths, sorted[..entries.min(sorted.len())].to_vec());
        }
    }
}
