//! Reads the archive of attached files: the one archive parser in the product, and a narrow one.
//!
//! It takes what `invoke` writes and nothing more: **one gzip member around one tar in GNU's or the ustar
//! form, with files, folders and symbolic links**. Of the rest of tar's history nothing is guessed at:
//!
//! - The tar crate decodes headers only. Its own iterator takes an archive that is torn between two
//!   entries for a whole one, reads long names into memory whatever their length, and falls back to the
//!   short name where a PAX record is malformed.
//! - PAX records are refused: two sizes and two names for one entry are how one archive comes to mean
//!   different things to two readers. GNU's records for long names are bounded by the longest path.
//! - What a name, a link or a mode may be is in [`entry`].
//! - What follows the end is refused: a second member, or more than the zeros that fill tar's last record.
//!
//! Memory is what one header and one name take, and what is read is bounded by what the caller lets
//! through: an entry's content is not touched before the caller has seen its size.

mod entry;
#[cfg(test)]
pub(crate) mod handmade;

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;
use tar::{EntryType, Header};

pub(crate) use entry::{Entry, Kind, Name, Refusal};

const BLOCK_BYTES: usize = 512;

/// What tar rounds its archives up to, with zeros.
const RECORD_BYTES: usize = 20 * BLOCK_BYTES;

/// The longest path that Linux takes, with the NUL at its end.
const PATH_BYTES: usize = 4096;

/// An archive that is read once, from front to back.
pub(crate) struct Archive<R> {
    tar: GzDecoder<BufReader<R>>,
    /// Of the entry that was read last.
    content_left: u64,
    /// The zeros that follow its content.
    padding: usize,
}

/// Why an archive is not taken. What was read of it before must not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("the archive is no gzip, or damaged")]
    Damaged(#[source] io::Error),
    #[error("the archive ends in the middle")]
    Torn,
    #[error("the archive has no tar header where one must be, or a damaged one")]
    Header,
    #[error("something follows the end of the archive")]
    NotAtEnd,
    #[error("{name} in the archive {refusal}")]
    Refused { name: Name, refusal: Refusal },
}

impl<R: Read> Archive<R> {
    /// Reads the archive from its first compressed byte to its last.
    pub(crate) fn new(compressed: R) -> Self {
        Self {
            tar: GzDecoder::new(BufReader::new(compressed)),
            content_left: 0,
            padding: 0,
        }
    }

    /// The next entry; `None` once the archive is at its proper end. What was not read of the content of
    /// the one before is passed over.
    ///
    /// # Errors
    /// [`Error`]: then there is no next one.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let (mut long_name, mut long_target) = (None, None);
        loop {
            let Some(header) = self.header()? else {
                return match (long_name, long_target) {
                    (None, None) => self.end().map(|()| None),
                    // The entry that they belong to is missing.
                    _ => Err(Error::Torn),
                };
            };
            match header.entry_type() {
                EntryType::GNULongName if long_name.is_none() => {
                    long_name = Some(self.long(&header)?);
                }
                EntryType::GNULongLink if long_target.is_none() => {
                    long_target = Some(self.long(&header)?);
                }
                _ => {
                    let entry = Entry::decode(&header, long_name, long_target)?;
                    self.content_left = entry.content_bytes();
                    self.padding = padding(self.content_left);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads on in the content of the last entry; 0 at its end.
    ///
    /// # Errors
    /// [`Error::Torn`], [`Error::Damaged`], [`Error::Read`].
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted =
            usize::try_from(self.content_left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.tar.read(&mut buffer[..wanted]).map_err(unreadable)?;
        if length == 0 {
            return Err(Error::Torn);
        }
        self.content_left -= length as u64;
        Ok(length)
    }

    fn pass_over_content(&mut self) -> Result<(), Error> {
        let mut block = [0; BLOCK_BYTES];
        while self.read_content(&mut block)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        self.tar
            .read_exact(&mut block[..padding])
            .map_err(unreadable)
    }

    /// The next header; `None` where a block of zeros stands in its place.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        self.pass_over_content()?;
        let mut header = Header::new_old();
        self.tar
            .read_exact(header.as_mut_bytes())
            .map_err(unreadable)?;
        if is_zero(header.as_bytes()) {
            return Ok(None);
        }
        let is_known = header.as_ustar().is_some() || header.as_gnu().is_some();
        if !is_known || !has_its_checksum(&header) {
            return Err(Error::Header);
        }
        Ok(Some(header))
    }

    /// The content of an entry that is the name or target of the next one, which did not fit there.
    fn long(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let bytes = entry::size(header)?;
        if bytes > PATH_BYTES as u64 {
            let name = Name::of(header)?;
            return Err(name.refused(Refusal::TooLong));
        }
        let mut long = Vec::new();
        let read = self.tar.by_ref().take(bytes).read_to_end(&mut long);
        read.map_err(unreadable)?;
        self.padding = padding(bytes);
        if long.last() == Some(&0) {
            long.pop();
        }
        Ok(long)
    }

    /// After the first of the two blocks of zeros that end a tar.
    fn end(&mut self) -> Result<(), Error> {
        let mut block = [0; BLOCK_BYTES];
        self.tar.read_exact(&mut block).map_err(unreadable)?;
        let mut filled = 0;
        while is_zero(&block) && filled < RECORD_BYTES {
            match self.tar.read(&mut block).map_err(unreadable)? {
                0 => return self.nothing_follows(),
                length => filled += length,
            }
        }
        Err(Error::NotAtEnd)
    }

    /// The member is whole by its own checksum; the file must be at its end, too.
    fn nothing_follows(&mut self) -> Result<(), Error> {
        let rest = self.tar.get_mut().fill_buf().map_err(Error::Read)?;
        match rest.is_empty() {
            true => Ok(()),
            false => Err(Error::NotAtEnd),
        }
    }
}

fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Torn,
        // What flate2 says of bytes that are no gzip, and of a checksum that is not theirs.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::Damaged(error),
        _ => Error::Read(error),
    }
}

/// How many zeros fill the last block of so much content.
fn padding(content: u64) -> usize {
    let over = usize::try_from(content % BLOCK_BYTES as u64).unwrap_or_default();
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn has_its_checksum(header: &Header) -> bool {
    let mut correct = header.clone();
    correct.set_cksum();
    match (header.cksum(), correct.cksum()) {
        (Ok(stated), Ok(correct)) => stated == correct,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::handmade::{Tar, gz, read, refusal};
    use super::*;

    #[test]
    fn a_second_size_is_refused_before_it_means_anything() {
        let hidden = Tar::default().file("../hidden", b"").0;
        let tar = Tar::default()
            .entry(b'x', b"pax", b"12 size=512\n", |_| {})
            .entry(b'0', b"shown", b"", |header| header.set_size(0));
        let tar = Tar([tar.0, hidden].concat());
        let mut iterator = tar::Archive::new(&*tar.0);
        let names: Vec<_> = iterator
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path_bytes().into_owned())
            .collect();
        assert_eq!(names, [b"shown"], "what the tar crate makes of it");
        assert_eq!(refusal(tar), Some(Refusal::Pax));
    }

    #[test]
    fn long_names_are_read_and_bounded() {
        let long = [b"a/".repeat(100), b"b".to_vec()].concat();
        let tar = Tar::default()
            .entry(b'L', b"././@LongLink", &[&long[..], b"\0"].concat(), |_| {})
            .entry(b'K', b"././@LongLink", &long, |_| {})
            .link("short", "short");
        let entries = read(&tar.gz()).unwrap();
        assert_eq!(entries[0].name.as_bytes(), long);
        assert_eq!(entries[0].kind, Kind::Symlink { target: long });

        for kind in [b'L', b'K'] {
            // Not there at all: the size alone decides, and nothing is read for it.
            for bytes in [4097, 1 << 32, u64::MAX] {
                let tar = Tar::default().entry(kind, b"huge", b"", |header| header.set_size(bytes));
                assert_eq!(refusal(tar), Some(Refusal::TooLong));
            }
            let fits = Tar::default().entry(kind, b"", &[b'a'; 4096], |_| {});
            assert_eq!(refusal(fits.link("l", "x")), Some(Refusal::TooLong));
            let twice = Tar::default().entry(kind, b"", b"a", |_| {});
            let twice = twice.entry(kind, b"", b"b", |_| {}).link("l", "x");
            assert_eq!(refusal(twice), Some(Refusal::Unknown(kind)));
            let of_none = Tar::default().entry(kind, b"", b"a", |_| {});
            assert!(matches!(read(&of_none.gz()), Err(Error::Torn)));
        }
    }

    #[test]
    fn a_damaged_header_is_no_header() {
        let whole = Tar::default().file("name", b"content");
        for (position, byte) in [
            (0, b'm'),
            (100, b'9'),
            (124, b'x'),
            (148, b'7'),
            (257, b'U'),
        ] {
            let mut tar = whole.clone();
            tar.0[position] = byte;
            assert!(matches!(read(&tar.gz()), Err(Error::Header)), "{position}");
        }
        // Also where its checksum is right.
        let old = Tar::default().entry(b'0', b"name", b"", |header| {
            header.as_mut_bytes()[257..265].fill(0);
        });
        assert!(matches!(read(&old.gz()), Err(Error::Header)));
        let size = Tar::default().entry(b'0', b"name", b"", |header| {
            header.as_old_mut().size[0] = b'-';
        });
        assert!(matches!(read(&size.gz()), Err(Error::Header)));
    }

    /// The tar crate's own iterator takes most of these for whole archives.
    #[test]
    fn an_archive_that_is_cut_anywhere_is_torn() {
        let tar = Tar::default()
            .folder("a", 0o755)
            .file("a/b", &[7; 700])
            .zeros(2)
            .0;
        assert_eq!(read(&gz(&tar)).unwrap().len(), 2);
        for length in (0..tar.len()).step_by(128) {
            assert!(
                matches!(read(&gz(&tar[..length])), Err(Error::Torn)),
                "{length}"
            );
        }
        let whole = gz(&tar);
        for length in 0..whole.len() {
            assert!(
                matches!(read(&whole[..length]), Err(Error::Torn)),
                "{length}"
            );
        }
    }

    #[test]
    fn nothing_follows_the_end_but_the_zeros_of_a_last_record() {
        let tar = Tar::default().file("a", b"b");
        assert!(read(&gz(&tar.clone().zeros(20).0)).is_ok());
        let whole = tar.clone().gz();
        let one_zero_block = tar.clone().zeros(1).file("c", b"");
        let cases = [
            ("an entry", tar.clone().zeros(2).file("c", b"").gz()),
            ("an entry after one block", one_zero_block.gz()),
            ("a byte", gz(&[&tar.clone().zeros(2).0[..], b"x"].concat())),
            ("many zeros", gz(&tar.zeros(30_000).0)),
            ("a second member", [&whole[..], &whole].concat()),
            ("an empty member", [&whole[..], &gz(b"")].concat()),
            ("a zero", [&whole[..], b"\0"].concat()),
        ];
        for (what, archive) in cases {
            assert!(matches!(read(&archive), Err(Error::NotAtEnd)), "{what}");
        }
    }

    #[test]
    fn what_is_no_gzip_or_has_the_wrong_checksum_is_damaged() {
        let mut whole = Tar::default().file("a", b"b").gz();
        assert!(matches!(
            read(b"PK\x03\x04 a zip file"),
            Err(Error::Damaged(_))
        ));
        let checksum = whole.len() - 8;
        whole[checksum] ^= 1;
        assert!(matches!(read(&whole), Err(Error::Damaged(_))));
    }

    /// A member's header may name a file. Nobody wants to know it at any length.
    #[test]
    fn an_endless_gzip_header_is_not_kept() {
        let endless = [1; 1 << 20];
        let header = [0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
        let mut archive = header.chain(&endless[..]);
        let read = Archive::new(&mut archive).next_entry();
        assert!(matches!(read, Err(Error::Damaged(_))));
        assert!(archive.into_inner().1.len() > 900_000, "it gave up early");
    }
}
