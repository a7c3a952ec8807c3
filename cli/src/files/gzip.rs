//! The gzip around the tar (RFC 1952), one member: what deflate makes shorter is deflated, the rest stands in it
//! as it is.
//!
//! ```text
//!  ├ header ┼ deflated: tar's headers, text ┼ stored: a picture ┼ deflated ┼ … ┼ checksum, length ┤
//! ```
//!
//! To find out that a picture, an archive or a disk image cannot be compressed takes deflate as long as to
//! compress it. So it is asked about a sample of each piece first. What comes of it depends on the bytes and
//! on nothing else.

use std::io::{self, Write};
use std::mem;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Deflate, no flags, no time, no word on how it was compressed or by which system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// How much of a piece is tried. What is shorter is not worth it.
const SAMPLE_BYTES: usize = 8 * 1024;

/// What a sample may come to: if all of it saves less than a sixteenth, that is not worth the time.
const WORTHWHILE_BYTES: u64 = (SAMPLE_BYTES - SAMPLE_BYTES / 16) as u64;

/// The longest block that is stored (RFC 1951, 3.2.4).
const STORED_BYTES: usize = 65_535;

/// What comes out at once.
const OUT_BYTES: usize = 64 * 1024;

pub(super) struct Gzip<W> {
    to: W,
    deflate: Compress,
    /// Whether everything that deflate was given has come out, up to a whole byte, and it looks back at none of it.
    is_flushed: bool,
    sample: Compress,
    out: Vec<u8>,
    crc: Crc,
    /// How much was written, modulo 2³², as the format has it.
    length: u32,
}

impl<W: Write> Gzip<W> {
    pub(super) fn begin(mut to: W) -> io::Result<Self> {
        to.write_all(&HEADER)?;
        Ok(Self {
            to,
            deflate: Compress::new(level(), false),
            is_flushed: false,
            sample: Compress::new(level(), false),
            out: Vec::with_capacity(OUT_BYTES),
            crc: Crc::new(),
            length: 0,
        })
    }

    /// Writes a piece of content. Where it is cut into pieces decides what comes out.
    pub(super) fn write_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        match self.is_worthwhile(piece)? {
            true => self.write(piece),
            false => self.store(piece),
        }
    }

    /// Writes what is worth deflating.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_flushed = false;
        self.deflate(bytes, FlushCompress::None)?;
        self.count(bytes);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.deflate(&[], FlushCompress::Finish)?;
        self.to.write_all(&self.crc.sum().to_le_bytes())?;
        self.to.write_all(&self.length.to_le_bytes())?;
        Ok(self.to)
    }

    fn is_worthwhile(&mut self, piece: &[u8]) -> io::Result<bool> {
        let Some(sample) = piece.get(..SAMPLE_BYTES) else {
            return Ok(true);
        };
        if has_a_favourite(sample) {
            return Ok(true);
        }
        self.sample.reset();
        self.out.clear();
        // There is room for all that can come out: what stayed inside would be in the way of the next sample.
        let status = self
            .sample
            .compress_vec(sample, &mut self.out, FlushCompress::Finish);
        let is_whole = status.map_err(io::Error::other)? == Status::StreamEnd;
        Ok(is_whole && self.sample.total_out() <= WORTHWHILE_BYTES)
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !mem::replace(&mut self.is_flushed, true) {
            self.deflate(&[], FlushCompress::Full)?;
        }
        for block in bytes.chunks(STORED_BYTES) {
            let [low, high] = (block.len() as u16).to_le_bytes();
            // Stored, not the last; its length, and that again, inverted.
            self.to.write_all(&[0, low, high, !low, !high])?;
            self.to.write_all(block)?;
        }
        self.count(bytes);
        Ok(())
    }

    fn deflate(&mut self, mut bytes: &[u8], flush: FlushCompress) -> io::Result<()> {
        loop {
            let before = self.deflate.total_in();
            self.out.clear();
            let status = self.deflate.compress_vec(bytes, &mut self.out, flush);
            let status = status.map_err(io::Error::other)?;
            // No more than there are.
            bytes = &bytes[(self.deflate.total_in() - before) as usize..];
            self.to.write_all(&self.out)?;
            let is_all_out = self.out.len() < self.out.capacity();
            if status == Status::StreamEnd || bytes.is_empty() && is_all_out {
                return Ok(());
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length = self.length.wrapping_add(bytes.len() as u32);
    }
}

/// Whether one byte is an eighth of all, as the blank is in most texts: that alone saves a sixteenth, and nothing
/// has to be tried.
fn has_a_favourite(sample: &[u8]) -> bool {
    let mut counts = [0; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    counts.iter().any(|count| *count >= sample.len() / 8)
}

/// The fastest that stores what it cannot make shorter: level 1 of this library makes such files up to an
/// eighth longer, which nobody has promised room for. On source trees it is more than twice as fast as
/// gzip's usual 6 and makes archives a quarter larger: on anything faster than a slow line, it is the
/// packing that people wait for.
fn level() -> Compression {
    Compression::new(2)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(length as u64);
        std::iter::repeat_with(|| random.u8(..))
            .take(length)
            .collect()
    }

    fn text(length: usize) -> Vec<u8> {
        b"nothing new under the sun\n"
            .iter()
            .copied()
            .cycle()
            .take(length)
            .collect()
    }

    fn zipped(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut gzip = Gzip::begin(Vec::new()).unwrap();
        for piece in pieces {
            gzip.write_piece(piece).unwrap();
        }
        gzip.finish().unwrap()
    }

    /// The whole, and that there is nothing behind it.
    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let (mut decoder, mut content) = (GzDecoder::new(bytes), Vec::new());
        decoder.read_to_end(&mut content).unwrap();
        assert!(decoder.into_inner().is_empty(), "one member");
        content
    }

    /// Deflate takes its time to find out that noise cannot be made shorter, and then stores it in blocks of its
    /// own size. Here it is not even asked.
    #[test]
    fn what_cannot_be_made_shorter_is_stored_at_once() {
        let noise = noise(128 * 1024);
        let mut zipped = zipped(&[text(1000), noise.clone(), noise.clone()]);
        assert_eq!(
            unzipped(&zipped),
            [text(1000), noise.clone(), noise.clone()].concat()
        );
        for piece in [&noise, &noise] {
            for block in piece.chunks(STORED_BYTES) {
                let mut windows = zipped.windows(block.len());
                let place = windows.position(|window| window == block);
                zipped.drain(..place.unwrap() + block.len());
            }
        }
    }

    /// However often it is asked.
    #[test]
    fn no_sample_is_in_the_way_of_the_next() {
        let pieces: Vec<_> = (0..300).map(|more| noise(SAMPLE_BYTES + more)).collect();
        assert!(unzipped(&zipped(&pieces)) == pieces.concat());
    }

    #[test]
    fn what_can_be_made_shorter_is() {
        let numbers = (0_u32..40_000).flat_map(u32::to_le_bytes);
        let digits = noise(100_000).into_iter().map(|byte| b'0' + byte % 10);
        // A block of noise again and again: its bytes are as frequent as those of noise.
        let repeated = noise(1000).into_iter().cycle().take(100_000);
        for content in [
            text(100_000),
            numbers.collect(),
            digits.collect(),
            repeated.collect(),
        ] {
            let zipped = zipped(std::slice::from_ref(&content));
            assert_eq!(unzipped(&zipped), content);
            assert!(zipped.len() < content.len() * 3 / 4, "{}", zipped.len());
        }
    }

    proptest! {
        /// Whatever follows whatever, of lengths around every limit.
        #[test]
        fn what_is_zipped_is_what_is_unzipped(
            pieces in prop::collection::vec((any::<bool>(), prop_oneof![0_usize..200, 8100_usize..8300, 65_000_usize..66_000, Just(131_072)]), 0..12)
        ) {
            let piece = |(is_noise, length): &(bool, usize)| match is_noise {
                true => noise(*length),
                false => text(*length),
            };
            let pieces: Vec<_> = pieces.iter().map(piece).collect();
            let zipped = zipped(&pieces);
            prop_assert_eq!(unzipped(&zipped), pieces.concat());
            let whole: usize = pieces.iter().map(Vec::len).sum();
            prop_assert!(zipped.len() <= whole + whole / 1000 + 20 + 11 * pieces.len());
        }
    }
}
