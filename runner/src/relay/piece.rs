//! A piece of what a shim uploads, whole: only then is it sent on, and may be sent on again.
//!
//! However many shims there are and however slow the line to the dispatcher is, what is on its way through
//! this replica has one room. A piece for which there is none is not read, so its shim waits, and behind it
//! the command in its write(2).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts as _, Query, Request};
use bytes::BytesMut;
use futures::TryStreamExt as _;
use invoke_protocol::output::MAX_CHUNK_BYTES;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Refusal, Relay};

/// Enough for a line of 1 Gbit/s whose answers take a quarter of a second.
const ROOM_BYTES: usize = 32 * MAX_CHUNK_BYTES;

/// A line inside of the cluster: whoever is slower gives its place to others.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// The room for all pieces.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES)))
    }
}

/// A piece, with its place in the room.
pub(super) struct Piece {
    /// Its position in what it is a piece of.
    pub(super) from: u64,
    pub(super) bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

#[derive(Deserialize)]
struct Position {
    from: u64,
}

impl FromRequest<Arc<Relay>> for Piece {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &Arc<Relay>) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let position = Query::<Position>::from_request_parts(&mut parts, relay).await;
        let Query(Position { from }) = position.map_err(|_| Refusal::Invalid)?;
        let (bytes, place) = relay.room.take_in(body).await?;
        Ok(Self {
            from,
            bytes,
            _place: place,
        })
    }
}

impl Room {
    async fn take_in(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        // Of unknown length: it may be as long as any.
        let length = body.size_hint().upper();
        let length = length.map_or(Ok(MAX_CHUNK_BYTES), usize::try_from);
        let length = length
            .ok()
            .filter(|length| *length <= MAX_CHUNK_BYTES)
            .ok_or(Refusal::TooLarge)?;
        let places = u32::try_from(length).map_err(|_| Refusal::TooLarge)?;
        let place = Arc::clone(&self.0).acquire_many_owned(places).await;
        let place = place.map_err(|_never_closed| Refusal::Later)?;
        let arrived = timeout(ARRIVES_WITHIN, collect(body, length)).await;
        Ok((arrived.map_err(|_elapsed| Refusal::Later)??, place))
    }
}

async fn collect(body: Body, length: usize) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::with_capacity(length);
    let mut parts = body.into_data_stream();
    // Whoever is cut off hears no answer.
    while let Some(part) = parts.try_next().await.map_err(|_cut| Refusal::Later)? {
        if bytes.len() + part.len() > length {
            return Err(Refusal::TooLarge);
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    /// A body that comes when the sender says so.
    fn slow() -> (UnboundedSender<Bytes>, Body) {
        let (sender, parts) = unbounded::<Bytes>();
        (sender, Body::from_stream(parts.map(Ok::<_, Infallible>)))
    }

    #[tokio::test]
    async fn a_piece_is_what_was_sent() {
        let room = Room::default();
        let (sender, body) = slow();
        for part in ["to", "", "gether"] {
            sender.unbounded_send(Bytes::from(part)).unwrap();
        }
        drop(sender);
        assert_eq!(room.take_in(body).await.unwrap().0, "together");
        let longest = vec![7; MAX_CHUNK_BYTES];
        let (bytes, _place) = room.take_in(Body::from(longest.clone())).await.unwrap();
        assert!(bytes == longest);
        assert!(room.take_in(Body::empty()).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_whether_it_says_so_or_not() {
        let room = Room::default();
        let long = vec![0; MAX_CHUNK_BYTES + 1];
        let (sender, body) = slow();
        sender.unbounded_send(Bytes::from(long.clone())).unwrap();
        drop(sender);
        for body in [Body::from(long), body] {
            assert_eq!(room.take_in(body).await.unwrap_err(), Refusal::TooLarge);
        }
        assert_eq!(room.0.available_permits(), ROOM_BYTES);
    }

    /// Without this a hundred shims and a slow line would be the end of the runner.
    #[tokio::test]
    async fn what_has_no_room_is_not_read() {
        let room = Room::default();
        let whole = || room.take_in(Body::from(vec![0; MAX_CHUNK_BYTES]));
        let mut held = Vec::new();
        while let Some(taken) = whole().now_or_never() {
            held.push(taken.unwrap());
            assert!(held.len() <= 32, "no end of room");
        }
        let mut waiting = std::pin::pin!(whole());
        assert!(waiting.as_mut().now_or_never().is_none());
        held.pop();
        assert!(waiting.now_or_never().unwrap().is_ok());
    }

    /// Else 32 shims whose lines are broken would keep everybody else's place.
    #[tokio::test(start_paused = true)]
    async fn a_place_is_not_kept_for_what_does_not_come() {
        let room = Room::default();
        let (_sender, body) = slow();
        let taken = timeout(2 * ARRIVES_WITHIN, room.take_in(body)).await;
        assert_eq!(taken.unwrap().unwrap_err(), Refusal::Later);
        assert_eq!(room.0.available_permits(), ROOM_BYTES);
    }
}
