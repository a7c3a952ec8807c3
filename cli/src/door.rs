//! What leads to a stream of our own: everything goes through, or, to a terminal, only what is harmless there.

use crate::terminal::Sanitiser;

/// One stream of a command on its way to a stream of ours.
pub(crate) enum Door {
    /// As they are: a pipe, a file, or a terminal that is to obey.
    Bytes,
    /// Made visible: a terminal.
    Visible(Sanitiser),
}

impl Door {
    pub(crate) fn of(is_guarded: bool) -> Self {
        match is_guarded {
            true => Self::Visible(Sanitiser::default()),
            false => Self::Bytes,
        }
    }

    pub(crate) fn show(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Bytes => bytes.to_vec(),
            Self::Visible(sanitiser) => sanitiser.show(bytes).into_bytes(),
        }
    }

    pub(crate) fn end(&mut self) -> Vec<u8> {
        match self {
            Self::Bytes => Vec::new(),
            Self::Visible(sanitiser) => sanitiser.end().into_bytes(),
        }
    }

    pub(crate) const fn is_coloured(&self) -> bool {
        match self {
            Self::Bytes => false,
            Self::Visible(sanitiser) => sanitiser.is_coloured(),
        }
    }
}
