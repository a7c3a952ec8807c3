//! Archives of any kind, one block after the other.

use flate2::Compression;
use flate2::write::GzEncoder;

use tar::Header;

use super::{Archive, BLOCK_BYTES, Entry, Error, Refusal};

/// A tar that has no end yet.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name.as_bytes(), content, |_| {})
    }

    pub(crate) fn folder(self, name: &str, mode: u32) -> Self {
        self.entry(b'5', name.as_bytes(), b"", |header| header.set_mode(mode))
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// GNU's record for the name of the entry that comes next.
    pub(crate) fn long(self, name: &str) -> Self {
        self.entry(
            b'L',
            b"././@LongLink",
            &[name.as_bytes(), b"\0"].concat(),
            |_| {},
        )
    }

    /// Any header; `change` comes last but for the checksum.
    pub(crate) fn entry(
        mut self,
        kind: u8,
        name: &[u8],
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().linkflag = [kind];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
        self
    }

    pub(crate) fn zeros(mut self, blocks: usize) -> Self {
        self.0.resize(self.0.len() + blocks * BLOCK_BYTES, 0);
        self
    }

    /// With its proper end.
    pub(crate) fn gz(self) -> Vec<u8> {
        gz(&self.zeros(2).0)
    }
}

pub(crate) fn gz(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, tar).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn read(archive: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut archive = Archive::new(archive);
    std::iter::from_fn(|| archive.next_entry().transpose()).collect()
}

/// Why an archive that is whole otherwise is refused.
pub(crate) fn refusal(tar: Tar) -> Option<Refusal> {
    match read(&tar.gz()) {
        Err(Error::Refused { refusal, .. }) => Some(refusal),
        _ => None,
    }
}
