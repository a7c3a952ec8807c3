//! What is uploaded piece by piece and resumed where it ended: archives of attached files, what commands
//! read, and what they leave.
//!
//! The row says how far an upload goes, the blobs hold it. **Blob first, row second**, as with the output
//! log ([`crate::output`]): a row that counts bytes of a blob that is not durable yet would acknowledge what
//! a power failure takes back; a blob without its row is found again by the next piece
//! ([`Blobs::put`]).
//!
//! What becomes of a piece is decided by [`place`], which knows nothing but lengths.

mod placing;

use std::ops::Range;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::Stream;
use invoke_protocol::digest::Sha256;
use jiff::Timestamp;
use uuid::Uuid;

use crate::blobs::{self, Blobs};
use crate::store::job_output::Part;
use crate::store::uploads::{self, Growth, Key, StoredUpload};
use crate::store::{self, Store};

pub use placing::{Extent, Misfit, Piece, Step, place};

/// Bytes that are uploaded.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The position of the first.
    pub from: u64,
    /// They.
    pub bytes: Bytes,
    /// How long the whole is, by the word of who uploads it.
    pub total: Option<u64>,
}

/// Why a piece was not taken, or an upload not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not fit what is stored.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The blob is not what its row says.
    #[error("blob {blob} has {found} bytes, and its row says {expected}")]
    Blob {
        /// Its key.
        blob: String,
        /// What was found.
        found: u64,
        /// What the row says.
        expected: u64,
    },
    /// No part has the byte.
    #[error("upload {upload} has no part with the byte at {position}")]
    Missing {
        /// The upload.
        upload: Uuid,
        /// Where.
        position: u64,
    },
    /// Others appended, or removed it, each time.
    #[error("others changed the upload each time")]
    Contended,
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The blob store has none.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}

/// How often a piece may find that another was faster.
const MAX_RACES: u32 = 8;

/// How much is hashed at once, so that others get their turn.
const HASHED_AT_ONCE: usize = 256 * 1024;

/// Appends what of the piece is not stored yet, durably, and answers how the upload stands then. One that has
/// no digest is complete when it reaches the length that was stated.
///
/// # Errors
/// [`Error`]; nothing of the piece was acknowledged.
pub async fn append(
    store: &Store,
    blobs: &Blobs,
    key: &Key,
    chunk: &Chunk,
    now: Timestamp,
) -> Result<StoredUpload, Error> {
    for _ in 0..MAX_RACES {
        let upload = find_or_begin(store, key, chunk, now).await?;
        let extent = Extent {
            stored: upload.stored,
            total: upload.total,
        };
        let piece = Piece {
            from: chunk.from,
            length: chunk.bytes.len() as u64,
            total: chunk.total,
        };
        let (skip, total) = match place(extent, piece)? {
            Step::Known => return Ok(upload),
            Step::Grow { skip, total } => (skip, total),
        };
        // What is skipped lies inside the piece, so the number fits.
        let rest = usize::try_from(skip).map_or(Bytes::new(), |skip| chunk.bytes.slice(skip..));
        let part = match rest.is_empty() {
            true => None,
            false => Some(put(blobs, &upload, rest).await?),
        };
        let stored = part.as_ref().map_or(upload.stored, |part| part.to);
        if let Some(total) = total.filter(|total| stored > *total) {
            // A blob of another piece, which nobody was told is stored, goes on after the end.
            return Err(Misfit::Beyond { end: stored, total }.into());
        }
        let complete = total == Some(stored) && !has_digest(key);
        let growth = Growth {
            part,
            total,
            complete,
        };
        let mut session = store.write().await?;
        if uploads::append(&mut session, &upload, &growth, now).await? {
            session.commit().await?;
            if stored >= piece.end() {
                return Ok(StoredUpload {
                    total,
                    stored,
                    complete,
                    ..upload
                });
            }
        }
    }
    Err(Error::Contended)
}

async fn find_or_begin(
    store: &Store,
    key: &Key,
    chunk: &Chunk,
    now: Timestamp,
) -> Result<StoredUpload, Error> {
    let mut session = store.read().await?;
    if let Some(upload) = uploads::find(&mut session, key).await? {
        return Ok(upload);
    }
    drop(session);
    let mut session = store.write().await?;
    // Of an archive the length is stated with each piece. Of what a command reads, by the last: it is no
    // fact before that piece is there.
    let total = chunk.total.filter(|_| has_digest(key));
    uploads::begin(&mut session, key, total, now).await?;
    let upload = uploads::find(&mut session, key).await?;
    session.commit().await?;
    upload.ok_or(Error::Contended)
}

/// Whether it is complete only when its digest was compared.
const fn has_digest(key: &Key) -> bool {
    matches!(key, Key::Files { .. })
}

/// A part that begins where the upload ends. It is as long as its blob, which another may have written.
async fn put(blobs: &Blobs, upload: &StoredUpload, bytes: Bytes) -> Result<Part, Error> {
    let blob = uploads::blob(upload.id, upload.stored);
    let length = blobs.put(&blob, bytes).await?;
    Ok(Part {
        from: upload.stored,
        to: upload.stored + length,
        blob,
    })
}

/// The rest of the part that the byte at `position` lies in.
///
/// # Errors
/// [`Error::Missing`] if none has it.
pub async fn read(
    store: &Store,
    blobs: &Blobs,
    upload: Uuid,
    position: u64,
) -> Result<Bytes, Error> {
    let mut session = store.read().await?;
    let parts = uploads::parts(&mut session, upload, position, 1).await?;
    drop(session);
    let missing = || Error::Missing { upload, position };
    let part = parts.into_iter().next().ok_or_else(missing)?;
    let bytes = whole(blobs, &part).await?;
    let skip = position.checked_sub(part.from).ok_or_else(missing)?;
    // The part is one piece, so the number fits.
    Ok(bytes.slice(usize::try_from(skip).unwrap_or(bytes.len())..))
}

async fn whole(blobs: &Blobs, part: &Part) -> Result<Bytes, Error> {
    let bytes = blobs.get(&part.blob).await?;
    let (found, expected) = (bytes.len() as u64, part.to - part.from);
    if found == expected {
        return Ok(bytes);
    }
    Err(Error::Blob {
        blob: part.blob.clone(),
        found,
        expected,
    })
}

/// The bytes of a range that is stored, one part in memory at a time.
pub fn stream(
    store: Store,
    blobs: Blobs,
    upload: Uuid,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    futures::stream::try_unfold(range.start, move |position| {
        let (store, blobs, end) = (store.clone(), blobs.clone(), range.end);
        async move {
            if position >= end {
                return Ok(None);
            }
            let mut bytes = read(&store, &blobs, upload, position).await?;
            bytes.truncate(usize::try_from(end - position).unwrap_or(usize::MAX));
            let next = position + bytes.len() as u64;
            Ok(Some((bytes, next)))
        }
    })
}

/// Reads an upload back, part by part, and hashes it.
///
/// # Errors
/// [`Error`].
pub async fn sha256(store: &Store, blobs: &Blobs, upload: &StoredUpload) -> Result<Sha256, Error> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut position = 0;
    while position < upload.stored {
        let bytes = read(store, blobs, upload.id, position).await?;
        for piece in bytes.chunks(HASHED_AT_ONCE) {
            hash.update(piece);
            tokio::task::yield_now().await;
        }
        position += bytes.len() as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    Ok(Sha256::from_bytes(sha256))
}

/// How many blobs are removed between two looks at the store.
const REMOVED_AT_ONCE: u32 = 64;

/// Takes down that everything before `position` was handed on, and removes it.
///
/// # Errors
/// [`Error`]; what was not removed is when it is asked for again.
pub async fn take(
    store: &Store,
    blobs: &Blobs,
    upload: &StoredUpload,
    position: u64,
) -> Result<(), Error> {
    if position <= upload.taken {
        return Ok(());
    }
    let mut session = store.write().await?;
    uploads::take(&mut session, upload.id, position).await?;
    session.commit().await?;
    loop {
        let mut session = store.read().await?;
        let parts = uploads::taken_parts(&mut session, upload.id, REMOVED_AT_ONCE).await?;
        drop(session);
        let Some(last) = parts.last() else {
            return Ok(());
        };
        // Blobs first: a blob that no row tells of would be there for ever.
        for part in &parts {
            blobs.delete(&part.blob).await?;
        }
        let mut session = store.write().await?;
        uploads::forget_parts(&mut session, upload.id, last.to).await?;
        session.commit().await?;
    }
}
