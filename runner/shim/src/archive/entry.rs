//! What an entry of the archive may be.
//!
//! A name has one spelling: `./a`, `a//b` and `a/../b` are refused, so that two entries are the same if
//! and only if their names are the same bytes.
//!
//! **A link stays beneath the root, also by way of other links**, for a reason that needs no memory of the
//! others: `..` may stand only at the beginning of its target, where it goes up from the folder that the
//! link lies in, and no more often than that folder is deep. From there every part goes down, or to another
//! link of which the same is true. (`a/../b` would go up from wherever a link `a` leads.)

use std::fmt;

use tar::{EntryType, Header};

use super::{Error, PATH_BYTES, is_zero};

/// One file, folder or link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it goes beneath the root: parts with `/` between them, none of them empty, `.` or `..`.
    pub(crate) name: Name,
    pub(crate) kind: Kind,
}

/// What an entry is. A mode has the nine permission bits and no others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        bytes: u64,
        mode: u32,
    },
    Folder {
        mode: u32,
    },
    /// The target leads beneath the root.
    Symlink {
        target: Vec<u8>,
    },
}

/// A name as the archive has it: any bytes. Shown in quotes, with what a terminal would obey escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(Vec<u8>);

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("has an absolute name")]
    Absolute,
    #[error("has \"..\" in its name")]
    DotDot,
    #[error("has an empty part or \".\" in its name")]
    NotPlain,
    #[error("has a NUL in its name or target")]
    Nul,
    #[error("has a name or target of more than {} bytes", PATH_BYTES - 1)]
    TooLong,
    #[error("is a symbolic link that leads, or may lead, out of the work folder")]
    Escapes,
    #[error("is no file and has content all the same")]
    Content,
    #[error("is a hard link")]
    HardLink,
    #[error("is a device")]
    Device,
    #[error("is a FIFO")]
    Fifo,
    #[error("is a sparse file")]
    Sparse,
    #[error("is a PAX record: the archive must be in GNU's form")]
    Pax,
    #[error("is of a kind that is not taken ({0:#04x})")]
    Unknown(u8),
}

impl Entry {
    /// An entry by its header and by what GNU's records said before it.
    pub(super) fn decode(
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
    ) -> Result<Self, Error> {
        let mut name = match long_name {
            Some(long) => Name(long),
            None => Name::of(header)?,
        };
        // A folder's name may say with one `/` at its end that it is one.
        if header.entry_type().is_dir() && name.0.last() == Some(&b'/') {
            name.0.pop();
        }
        let (bytes, mode) = (size(header)?, mode(header)?);
        let kind = kind(header, long_target, bytes, mode);
        match kind.and_then(|kind| checked(&name, kind)) {
            Ok(kind) => Ok(Self { name, kind }),
            Err(refusal) => Err(name.refused(refusal)),
        }
    }

    /// How much content follows: only files have any.
    pub(crate) fn content_bytes(&self) -> u64 {
        match self.kind {
            Kind::File { bytes, .. } => bytes,
            Kind::Folder { .. } | Kind::Symlink { .. } => 0,
        }
    }
}

impl Name {
    /// The name in the header itself, which has two places for it in the ustar form.
    pub(super) fn of(header: &Header) -> Result<Self, Error> {
        let prefix: &[u8] = header.as_ustar().map_or(&[], |ustar| &ustar.prefix);
        match [field(prefix), field(&header.as_old().name)] {
            [Ok([]), Ok(name)] => Ok(Self(name.to_vec())),
            [Ok(prefix), Ok(name)] => Ok(Self([prefix, b"/", name].concat())),
            _ => Err(Self(header.path_bytes().into_owned()).refused(Refusal::Nul)),
        }
    }

    pub(super) fn refused(self, refusal: Refusal) -> Error {
        Error::Refused {
            name: self,
            refusal,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A hostile name may be long; whoever is to find it needs its beginning.
        const SHOWN: usize = 200;
        let shown = String::from_utf8_lossy(&self.0[..self.0.len().min(SHOWN)]);
        let rest = if self.0.len() > SHOWN { "…" } else { "" };
        write!(formatter, "{shown:?}{rest}")
    }
}

/// How many bytes follow a header.
pub(super) fn size(header: &Header) -> Result<u64, Error> {
    header.entry_size().map_err(|_| Error::Header)
}

fn mode(header: &Header) -> Result<u32, Error> {
    let mode = header.mode().map_err(|_| Error::Header)?;
    Ok(mode & 0o777)
}

/// A text that is filled up with NULs. What is hidden behind the first is no filling.
fn field(bytes: &[u8]) -> Result<&[u8], Refusal> {
    let length = bytes.iter().position(|byte| *byte == 0);
    let (text, filling) = bytes.split_at(length.unwrap_or(bytes.len()));
    match is_zero(filling) {
        true => Ok(text),
        false => Err(Refusal::Nul),
    }
}

fn kind(
    header: &Header,
    long_target: Option<Vec<u8>>,
    bytes: u64,
    mode: u32,
) -> Result<Kind, Refusal> {
    match header.entry_type() {
        EntryType::Regular => Ok(Kind::File { bytes, mode }),
        EntryType::Directory | EntryType::Symlink if bytes > 0 => Err(Refusal::Content),
        EntryType::Directory => Ok(Kind::Folder { mode }),
        EntryType::Symlink => Ok(Kind::Symlink {
            target: match long_target {
                Some(long) => long,
                None => field(&header.as_old().linkname)?.to_vec(),
            },
        }),
        EntryType::Link => Err(Refusal::HardLink),
        EntryType::Char | EntryType::Block => Err(Refusal::Device),
        EntryType::Fifo => Err(Refusal::Fifo),
        EntryType::GNUSparse => Err(Refusal::Sparse),
        EntryType::XHeader | EntryType::XGlobalHeader => Err(Refusal::Pax),
        other => Err(Refusal::Unknown(other.as_byte())),
    }
}

fn checked(name: &Name, kind: Kind) -> Result<Kind, Refusal> {
    is_plain(&name.0)?;
    if let Kind::Symlink { target } = &kind {
        stays_beneath(&name.0, target)?;
    }
    Ok(kind)
}

fn is_path(bytes: &[u8]) -> Result<(), Refusal> {
    match bytes.len() >= PATH_BYTES {
        true => Err(Refusal::TooLong),
        false if bytes.contains(&0) => Err(Refusal::Nul),
        false => Ok(()),
    }
}

fn is_plain(name: &[u8]) -> Result<(), Refusal> {
    is_path(name)?;
    if name.first() == Some(&b'/') {
        return Err(Refusal::Absolute);
    }
    let mut parts = name.split(|byte| *byte == b'/');
    parts.try_for_each(|part| match part {
        b".." => Err(Refusal::DotDot),
        b"" | b"." => Err(Refusal::NotPlain),
        _ => Ok(()),
    })
}

/// Whether a link of this name leads beneath the root, whatever other links there are: see the top.
fn stays_beneath(name: &[u8], target: &[u8]) -> Result<(), Refusal> {
    is_path(target)?;
    if target.is_empty() || target[0] == b'/' {
        return Err(Refusal::Escapes);
    }
    let mut depth = name.iter().filter(|byte| **byte == b'/').count();
    let mut has_gone_down = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if has_gone_down || depth == 0 => return Err(Refusal::Escapes),
            b".." => depth -= 1,
            _ => has_gone_down = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::handmade::{Tar, read, refusal};

    #[test]
    fn a_name_has_one_spelling() {
        let cases = [
            ("/etc/passwd", Some(Refusal::Absolute)),
            ("//a", Some(Refusal::Absolute)),
            ("..", Some(Refusal::DotDot)),
            ("../a", Some(Refusal::DotDot)),
            ("a/../b", Some(Refusal::DotDot)),
            ("a/..", Some(Refusal::DotDot)),
            ("", Some(Refusal::NotPlain)),
            (".", Some(Refusal::NotPlain)),
            ("./a", Some(Refusal::NotPlain)),
            ("a/.", Some(Refusal::NotPlain)),
            ("a/./b", Some(Refusal::NotPlain)),
            ("a//b", Some(Refusal::NotPlain)),
            ("a//", Some(Refusal::NotPlain)),
            ("...", None),
            (".a/..b/c..", None),
            ("a\\..\\b\n", None),
        ];
        for (name, expected) in cases {
            assert_eq!(
                refusal(Tar::default().file(name, b"")),
                expected,
                "file {name:?}"
            );
            assert_eq!(
                refusal(Tar::default().folder(name, 0o755)),
                expected,
                "folder {name:?}"
            );
            assert_eq!(
                refusal(Tar::default().link(name, "x")),
                expected,
                "link {name:?}"
            );
        }
        assert_eq!(
            refusal(Tar::default().file("a/", b"")),
            Some(Refusal::NotPlain)
        );
        assert_eq!(refusal(Tar::default().folder("a/", 0o755)), None);
        assert_eq!(
            refusal(Tar::default().folder("./", 0o755)),
            Some(Refusal::NotPlain)
        );
        assert_eq!(
            refusal(Tar::default().folder("/", 0o755)),
            Some(Refusal::NotPlain)
        );
    }

    #[test]
    fn nothing_hides_behind_a_nul() {
        assert_eq!(
            refusal(Tar::default().entry(b'0', b"a\0b", b"", |_| {})),
            Some(Refusal::Nul)
        );
        assert_eq!(
            refusal(Tar::default().link("a", "b\0../../c")),
            Some(Refusal::Nul)
        );
        let long = Tar::default().entry(b'L', b"", b"a\0b\0", |_| {});
        assert_eq!(refusal(long.file("short", b"")), Some(Refusal::Nul));
        let long = Tar::default().entry(b'K', b"", b"a\0b\0", |_| {});
        assert_eq!(refusal(long.link("short", "x")), Some(Refusal::Nul));
    }

    #[test]
    fn only_files_folders_and_links_are_taken() {
        let cases = [
            (b'1', Refusal::HardLink),
            (b'3', Refusal::Device),
            (b'4', Refusal::Device),
            (b'6', Refusal::Fifo),
            (b'7', Refusal::Unknown(b'7')),
            (b'S', Refusal::Sparse),
            (b'x', Refusal::Pax),
            (b'g', Refusal::Pax),
            (b'V', Refusal::Unknown(b'V')),
            (0xff, Refusal::Unknown(0xff)),
        ];
        for (kind, expected) in cases {
            let tar = Tar::default().entry(kind, b"a", b"", |header| {
                header.as_old_mut().linkname[0] = b'b';
            });
            assert_eq!(refusal(tar), Some(expected));
        }
        for kind in [b'2', b'5'] {
            let tar = Tar::default().entry(kind, b"a", b"content", |header| {
                header.as_old_mut().linkname[0] = b'b';
            });
            assert_eq!(refusal(tar), Some(Refusal::Content));
        }
    }

    #[test]
    fn a_link_leads_beneath_the_root_whatever_the_others_do() {
        let cases = [
            ("l", "a", true),
            ("l", "./a//b/.", true),
            ("l", ".", true),
            ("a/b/l", "..", true),
            ("a/b/l", "../..", true),
            ("a/b/l", "./../../c", true),
            ("a/b/l", "...", true),
            ("l", "..", false),
            ("l", "/", false),
            ("l", "/etc/passwd", false),
            ("l", "", false),
            ("a/b/l", "../../..", false),
            ("a/b/l", "../../../root/a", false),
            // By its text it stays inside. Where `a/b` is a link to `..`, it does not.
            ("a/l", "b/..", false),
            ("a/l", "b/../c", false),
            ("a/l", "./b/../..", false),
        ];
        for (name, target, is_taken) in cases {
            let expected = (!is_taken).then_some(Refusal::Escapes);
            assert_eq!(
                refusal(Tar::default().link(name, target)),
                expected,
                "{name} → {target}"
            );
        }
    }

    #[test]
    fn a_name_in_two_places_of_a_ustar_header_is_one() {
        let ustar = |prefix: &[u8]| {
            let prefix = prefix.to_vec();
            Tar::default().entry(b'0', b"name", b"", move |header| {
                let bytes = header.as_mut_bytes();
                bytes[257..265].copy_from_slice(b"ustar\x0000");
                bytes[345..345 + prefix.len()].copy_from_slice(&prefix);
            })
        };
        let entries = read(&ustar(b"some/prefix").gz()).unwrap();
        assert_eq!(entries[0].name.as_bytes(), b"some/prefix/name");
        assert_eq!(refusal(ustar(b"..")), Some(Refusal::DotDot));
        assert_eq!(refusal(ustar(b"/")), Some(Refusal::Absolute));
        assert_eq!(refusal(ustar(b"a\0b")), Some(Refusal::Nul));
    }

    #[test]
    fn a_mode_is_nine_bits() {
        let tar = Tar::default().folder("a", 0o7777).folder("b", 0o40_755);
        let entries = read(&tar.gz()).unwrap();
        assert_eq!(entries[0].kind, Kind::Folder { mode: 0o777 });
        assert_eq!(entries[1].kind, Kind::Folder { mode: 0o755 });
    }

    #[test]
    fn a_name_is_shown_so_that_nothing_obeys_it() {
        let error = read(&Tar::default().file("../\u{1b}[2J\n\u{202e}é", b"").gz()).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""../\u{1b}[2J\n\u{202e}é" in the archive has ".." in its name"#
        );
        let long = Name(vec![b'a'; 4000]).to_string();
        assert_eq!(long.chars().count(), 203);
    }
}
