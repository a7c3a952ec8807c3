//! Where a piece of an upload belongs, by lengths alone.

/// How far an upload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// How much of it is stored.
    pub stored: u64,
    /// How long the whole is, if that was stated.
    pub total: Option<u64>,
}

/// A piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The position of its first byte.
    pub from: u64,
    /// How long it is.
    pub length: u64,
    /// How long the whole is, if the piece says so.
    pub total: Option<u64>,
}

impl Piece {
    /// The position after its last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.from.saturating_add(self.length)
    }
}

/// What is to be done with a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it says nothing new.
    Known,
    /// To take up what is new.
    Grow {
        /// How many of its bytes are stored already.
        skip: u64,
        /// How long the whole is, if that is known now.
        total: Option<u64>,
    },
}

/// Why a piece does not belong to the upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// What lies between is missing.
    #[error("{stored} bytes are stored, and the piece begins at {from}")]
    Gap {
        /// Where the stored bytes end.
        stored: u64,
        /// Where the piece begins.
        from: u64,
    },
    /// The whole cannot have two lengths.
    #[error("the whole was said to have {before} bytes, and is now said to have {now}")]
    OtherTotal {
        /// What was stated before.
        before: u64,
        /// What the piece states.
        now: u64,
    },
    /// There is more than the whole has.
    #[error("there are bytes up to {end}, and the whole is said to have {total}")]
    Beyond {
        /// Where the piece, or what is stored, ends.
        end: u64,
        /// How long the whole is.
        total: u64,
    },
}

/// Decides what of a piece is new.
///
/// # Errors
/// [`Misfit`].
pub fn place(extent: Extent, piece: Piece) -> Result<Step, Misfit> {
    let total = match (extent.total, piece.total) {
        (Some(before), Some(now)) if before != now => {
            return Err(Misfit::OtherTotal { before, now });
        }
        (before, now) => before.or(now),
    };
    let (stored, from, end) = (extent.stored, piece.from, piece.end());
    match total {
        Some(total) if end.max(stored) > total => Err(Misfit::Beyond {
            end: end.max(stored),
            total,
        }),
        _ if from > stored => Err(Misfit::Gap { stored, from }),
        _ if end > stored || total != extent.total => Ok(Step::Grow {
            skip: (stored - from).min(piece.length),
            total,
        }),
        _ => Ok(Step::Known),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A piece as somebody sends it: really bytes.
    #[derive(Debug, Clone)]
    struct Sent {
        from: usize,
        bytes: Vec<u8>,
        total: Option<usize>,
    }

    /// An upload as anybody would write it down: byte by byte.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct Model {
        bytes: Vec<u8>,
        total: Option<usize>,
    }

    impl Model {
        fn take(&self, sent: &Sent) -> Option<Self> {
            let mut after = self.clone();
            if sent.from > after.bytes.len() {
                return None;
            }
            for (index, byte) in sent.bytes.iter().enumerate() {
                if sent.from + index == after.bytes.len() {
                    after.bytes.push(*byte);
                }
            }
            after.total = after.total.or(sent.total);
            let is_one_length = sent.total.is_none() || sent.total == after.total;
            let fits = |total| after.bytes.len() <= total && sent.from <= total;
            (is_one_length && after.total.is_none_or(fits)).then_some(after)
        }
    }

    /// The same by the rules.
    fn take(before: &Model, sent: &Sent) -> Result<Model, Misfit> {
        let extent = Extent {
            stored: before.bytes.len() as u64,
            total: before.total.map(|total| total as u64),
        };
        let piece = Piece {
            from: sent.from as u64,
            length: sent.bytes.len() as u64,
            total: sent.total.map(|total| total as u64),
        };
        let mut after = before.clone();
        if let Step::Grow { skip, total } = place(extent, piece)? {
            after
                .bytes
                .extend(&sent.bytes[usize::try_from(skip).unwrap()..]);
            after.total = total.map(|total| usize::try_from(total).unwrap());
        }
        Ok(after)
    }

    const WHOLE: [u8; 40] = {
        let mut whole = [0; 40];
        let mut index = 0;
        while index < whole.len() {
            whole[index] = index as u8;
            index += 1;
        }
        whole
    };

    fn any_piece() -> impl Strategy<Value = Sent> {
        let total = prop_oneof![
            3 => Just(None),
            3 => Just(Some(WHOLE.len())),
            1 => (0..50_usize).prop_map(Some),
        ];
        (0..=WHOLE.len(), 0..16_usize, total).prop_map(|(from, length, total)| Sent {
            from,
            bytes: WHOLE[from..(from + length).min(WHOLE.len())].to_vec(),
            total,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The rules take what the model takes, store what it stores, and refuse what it refuses.
        #[test]
        fn the_rules_are_the_model(pieces in prop::collection::vec(any_piece(), 0..30)) {
            let mut upload = Model::default();
            for sent in &pieces {
                let (expected, found) = (upload.take(sent), take(&upload, sent));
                prop_assert_eq!(&expected, &found.ok(), "{:?} to {:?}", sent, upload);
                if let Some(after) = expected {
                    prop_assert!(WHOLE.starts_with(&after.bytes), "no byte lost or doubled");
                    // A piece that is sent again because its answer was lost changes nothing.
                    prop_assert_eq!(take(&after, sent), Ok(after.clone()));
                    upload = after;
                }
            }
        }

        /// Whoever goes on where the stored bytes end comes to the end, wherever they are cut off.
        #[test]
        fn an_upload_is_resumed_to_its_end(cuts in prop::collection::vec((0..8_usize, 0..12_usize), 60)) {
            let mut upload = Model::default();
            for (back, length) in cuts {
                let from = upload.bytes.len().saturating_sub(back);
                let end = (from + back + length).min(WHOLE.len());
                let sent = Sent { from, bytes: WHOLE[from..end].to_vec(), total: Some(WHOLE.len()) };
                let after = take(&upload, &sent);
                prop_assert!(after.is_ok(), "{sent:?} to {upload:?}");
                upload = after.unwrap_or_default();
                prop_assert!(upload.bytes.len() >= end);
            }
        }
    }

    /// No number makes it panic, and none is taken for a small one.
    #[test]
    fn the_longest_numbers_are_beyond_every_end() {
        let piece = Piece {
            from: u64::MAX,
            length: u64::MAX,
            total: None,
        };
        let known = Extent {
            stored: 7,
            total: Some(9),
        };
        let beyond = Misfit::Beyond {
            end: u64::MAX,
            total: 9,
        };
        assert_eq!(place(known, piece), Err(beyond));
        let gap = Misfit::Gap {
            stored: 0,
            from: u64::MAX,
        };
        assert_eq!(place(Extent::default(), piece), Err(gap));
    }
}
