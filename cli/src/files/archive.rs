//! Packs a tree: tar in GNU's format, in gzip, the same bytes for the same tree.
//!
//! Whatever is not part of what a person attaches is left out or the same everywhere: owners, times,
//! the order in which a file system lists.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use invoke_protocol::digest::Sha256;
use tar::{EntryType, Header};

use super::Error;
use super::gzip::Gzip;
use super::tree::{Kind, Node, Stamp, Tree};

/// 2000-01-01T00:00:00Z, for every entry. Not 0: what is packed again in the pod as a zip, a Python
/// wheel for example, is refused with times before 1980.
const MODIFIED: u64 = 946_684_800;
const LINK_MODE: u32 = 0o777;
const BLOCK_BYTES: u64 = 512;
/// What GNU tar calls the entry that holds a long name or target.
const LONG_LINK: &[u8] = b"././@LongLink";
/// How much is read at once, and compressed or not.
const PIECE_BYTES: usize = 128 * 1024;

/// An archive, ready to be sent.
#[derive(Debug)]
pub struct Packed {
    /// The archive: a file without a name, at its beginning. It is gone when it is closed.
    pub file: File,
    /// Of the archive.
    pub sha256: Sha256,
    /// The archive's length.
    pub bytes: u64,
    /// The bytes of all regular files in it.
    pub content_bytes: u64,
    /// The files, folders and symbolic links in it.
    pub entries: u64,
}

/// Reads the files of a tree into an archive.
pub(super) fn pack(tree: &Tree, folder: &Path, progress: impl FnMut(u64)) -> Result<Packed, Error> {
    let file = tempfile::tempfile().map_err(Error::Archive)?;
    let mut packer = Packer {
        archive: Gzip::begin(Tally::new(file)).map_err(Error::Archive)?,
        folder,
        piece: vec![0; PIECE_BYTES],
        content_bytes: 0,
        progress,
    };
    for (path, node) in tree.iter() {
        packer.add(path, node)?;
    }
    let content_bytes = packer.content_bytes;
    let tally = packer.finish().map_err(Error::Archive)?;
    let Tally {
        mut file,
        digest,
        bytes,
    } = tally;
    file.rewind().map_err(Error::Archive)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.finish().as_ref());
    Ok(Packed {
        file,
        sha256: Sha256::from_bytes(sha256),
        bytes,
        content_bytes,
        entries: tree.entries(),
    })
}

struct Packer<'a, P> {
    archive: Gzip<Tally>,
    folder: &'a Path,
    piece: Vec<u8>,
    content_bytes: u64,
    progress: P,
}

impl<P: FnMut(u64)> Packer<'_, P> {
    fn add(&mut self, path: &Path, node: &Node) -> Result<(), Error> {
        let (kind, mode, size) = match &node.kind {
            Kind::Folder { mode, .. } => (EntryType::Directory, *mode, 0),
            Kind::File { mode, stamp } => (EntryType::Regular, *mode, stamp.size),
            Kind::Link { .. } => (EntryType::Symlink, LINK_MODE, 0),
        };
        let mut header = header(kind, mode, size);
        let mut name = path.as_os_str().as_bytes().to_owned();
        if kind.is_dir() {
            name.push(b'/');
        }
        self.write_header(&mut header, &name, node)
            .map_err(Error::Archive)?;
        match &node.kind {
            Kind::File { stamp, .. } => self.write_content(&node.source, stamp),
            Kind::Folder { .. } | Kind::Link { .. } => Ok(()),
        }
    }

    fn write_header(&mut self, header: &mut Header, name: &[u8], node: &Node) -> io::Result<()> {
        if let Kind::Link { target, .. } = &node.kind {
            let target = target.as_os_str().as_bytes();
            if !fill(&mut header.as_old_mut().linkname, target) {
                self.write_long(EntryType::GNULongLink, target)?;
            }
        }
        if !fill(&mut header.as_old_mut().name, name) {
            self.write_long(EntryType::GNULongName, name)?;
        }
        header.set_cksum();
        self.archive.write(header.as_bytes())
    }

    /// Writes what does not fit into the header that follows.
    fn write_long(&mut self, kind: EntryType, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64 + 1;
        let mut header = header(kind, 0o644, size);
        fill(&mut header.as_old_mut().name, LONG_LINK);
        header.set_cksum();
        self.archive.write(header.as_bytes())?;
        self.archive.write(bytes)?;
        self.archive.write(&[0])?;
        self.pad(size)
    }

    /// Writes a file's content, if it is the file that was planned, before and after the reading.
    fn write_content(&mut self, path: &Path, planned: &Stamp) -> Result<(), Error> {
        let mut file = self.open(path, planned)?;
        let mut left = planned.size;
        loop {
            let length =
                read(&mut file, &mut self.piece).map_err(|error| unreadable(path, error))?;
            if length == 0 {
                break;
            }
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| changed(path))?;
            let written = self.archive.write_piece(&self.piece[..length]);
            written.map_err(Error::Archive)?;
            self.content_bytes += length as u64;
            (self.progress)(self.content_bytes);
        }
        let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
        if left > 0 || Stamp::of(&metadata) != *planned {
            return Err(changed(path));
        }
        self.pad(planned.size).map_err(Error::Archive)
    }

    fn open(&self, path: &Path, planned: &Stamp) -> Result<File, Error> {
        let real = self.folder.join(path);
        let metadata = real.metadata().map_err(|error| unreadable(path, error))?;
        // Before it is opened: a named pipe in its place would wait for a writer.
        if Stamp::of(&metadata) != *planned {
            return Err(changed(path));
        }
        File::open(real).map_err(|error| unreadable(path, error))
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let zeros = [0; BLOCK_BYTES as usize];
        let rest = (BLOCK_BYTES - written % BLOCK_BYTES) % BLOCK_BYTES;
        self.archive.write(&zeros[..rest as usize])
    }

    fn finish(mut self) -> io::Result<Tally> {
        // Two blocks of zeros are the end.
        self.archive.write(&[0; 2 * BLOCK_BYTES as usize])?;
        self.archive.finish()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MODIFIED);
    header.set_size(size);
    header
}

/// Whether the bytes fit into a field; as many as do are there in any case.
fn fill(field: &mut [u8], bytes: &[u8]) -> bool {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
    length == bytes.len()
}

/// A whole piece, or what is left: how much a file system gives at once must not be seen in the archive.
fn read(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < piece.len() {
        match file.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn changed(path: &Path) -> Error {
    Error::Changed {
        path: path.to_owned(),
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => changed(path),
        _ => Error::Unreadable {
            path: path.to_owned(),
            source,
        },
    }
}

/// Counts and hashes what is written to a file.
struct Tally {
    file: File,
    digest: Context,
    bytes: u64,
}

impl Tally {
    fn new(file: File) -> Self {
        Self {
            file,
            digest: Context::new(&SHA256),
            bytes: 0,
        }
    }
}

impl Write for Tally {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
