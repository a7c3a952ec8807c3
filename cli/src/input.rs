//! This program's own stdin, which two may want to read: the job's command, and on a terminal we, when a
//! person was asked something.
//!
//! A read cannot be given up once it was begun. So one thread reads, for whoever wants something when it has
//! it, and nobody ever waits for the thread: a pipe that never ends keeps nothing alive.

use std::io::{self, Read as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// The most that is read before somebody takes it, and about the longest piece.
const MAX_AHEAD_BYTES: usize = 256 * 1024;

/// This program's stdin.
#[derive(Clone, Default)]
pub struct Input(Arc<Shared>);

/// What was read since the piece before.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// It; empty only at the end.
    pub bytes: Vec<u8>,
    /// Whether nothing follows.
    pub is_last: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The thread has something to do.
    wanted: Condvar,
    /// The thread has done something.
    news: Notify,
}

#[derive(Default)]
struct State {
    has_thread: bool,
    /// Whether somebody takes the pieces.
    is_taken: bool,
    read: Vec<u8>,
    end: Option<io::Result<()>>,
    /// Who asked the person, and gets the next line.
    question: Option<oneshot::Sender<Option<String>>>,
}

impl Input {
    /// The next piece, when there is one.
    ///
    /// # Errors
    /// The system's, if there is no more to be read and no end.
    pub async fn next(&self) -> io::Result<Piece> {
        loop {
            {
                let mut state = self.0.lock();
                state.is_taken = true;
                let piece = state.take();
                // Also if there was one: the next is read while this one is sent.
                self.0.want(&mut state);
                if let Some(piece) = piece {
                    return piece;
                }
            }
            // One that came since is not missed: it is kept until somebody waits.
            self.0.news.notified().await;
        }
    }

    /// The next line that a person types after this call; `None` at the end of their input. It is no part of
    /// any piece. What they typed before is. Call it before they see the question: who types fast answers it
    /// all the same.
    pub fn answer(&self) -> impl Future<Output = Option<String>> + use<> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.question = Some(sender);
            self.0.want(&mut state);
        }
        async { receiver.await.ok().flatten() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there is half done where a thread can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.has_thread, true) {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.read());
        }
        self.wanted.notify_one();
    }

    fn read(&self) {
        let mut piece = vec![0; MAX_AHEAD_BYTES];
        loop {
            let state = self.lock();
            drop(
                self.wanted
                    .wait_while(state, |state| !state.wants_more())
                    .unwrap_or_else(PoisonError::into_inner),
            );
            match io::stdin().lock().read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.lock().add(read.map(|length| &piece[..length]));
                    self.news.notify_one();
                }
            }
        }
    }
}

impl State {
    const fn wants_more(&self) -> bool {
        let has_room = self.read.len() < MAX_AHEAD_BYTES && self.end.is_none();
        self.question.is_some() || self.is_taken && has_room
    }

    fn add(&mut self, read: io::Result<&[u8]>) {
        if let Some(question) = self.question.take() {
            let line = read.as_ref().ok().filter(|line| !line.is_empty());
            let line = line.map(|line| String::from_utf8_lossy(line).into_owned());
            if question.send(line).is_ok() {
                return;
            }
            // Nobody waits for the answer any more.
        }
        match read {
            Ok([]) => self.end = Some(Ok(())),
            Ok(bytes) => self.read.extend_from_slice(bytes),
            Err(error) => self.end = Some(Err(error)),
        }
    }

    fn take(&mut self) -> Option<io::Result<Piece>> {
        let bytes = std::mem::take(&mut self.read);
        match self.end.take() {
            None if bytes.is_empty() => None,
            // First what came before it.
            Some(Err(error)) if !bytes.is_empty() => {
                self.end = Some(Err(error));
                Some(Ok(Piece {
                    bytes,
                    is_last: false,
                }))
            }
            Some(Err(error)) => Some(Err(error)),
            end => {
                let is_last = end.is_some();
                self.end = end;
                Some(Ok(Piece { bytes, is_last }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8], is_last: bool) -> Piece {
        Piece {
            bytes: bytes.to_vec(),
            is_last,
        }
    }

    #[test]
    fn what_was_read_is_taken_once_and_the_end_with_it() {
        let mut state = State::default();
        assert!(state.take().is_none());
        state.add(Ok(b"one "));
        state.add(Ok(b"two"));
        assert_eq!(state.take().unwrap().unwrap(), piece(b"one two", false));
        state.add(Ok(b"three"));
        state.add(Ok(b""));
        assert_eq!(state.take().unwrap().unwrap(), piece(b"three", true));
        assert_eq!(state.take().unwrap().unwrap(), piece(b"", true));
    }

    /// A file that breaks in the middle must not look like one that ends there.
    #[test]
    fn a_failure_is_no_end() {
        let mut state = State::default();
        state.add(Ok(b"one"));
        state.add(Err(io::ErrorKind::IsADirectory.into()));
        assert_eq!(state.take().unwrap().unwrap(), piece(b"one", false));
        assert!(state.take().unwrap().is_err());
    }

    #[test]
    fn an_answer_is_not_sent_on_and_what_nobody_waits_for_is() {
        let mut state = State::default();
        let ask = |state: &mut State| {
            let (sender, receiver) = oneshot::channel();
            state.question = Some(sender);
            receiver
        };
        state.add(Ok(b"before\n"));
        let mut answer = ask(&mut state);
        state.add(Ok(b"d\n"));
        assert_eq!(answer.try_recv().unwrap(), Some("d\n".to_owned()));
        drop(ask(&mut state));
        state.add(Ok(b"after\n"));
        assert_eq!(
            state.take().unwrap().unwrap(),
            piece(b"before\nafter\n", false)
        );
        let mut at_end = ask(&mut state);
        state.add(Ok(b""));
        assert_eq!(at_end.try_recv().unwrap(), None);
        assert!(state.take().is_none(), "Ctrl-D was the answer");
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        let mut state = State::default();
        assert!(!state.wants_more(), "nobody takes it");
        state.is_taken = true;
        assert!(state.wants_more());
        state.add(Ok(&[0; MAX_AHEAD_BYTES]));
        assert!(!state.wants_more());
        assert!(state.take().is_some() && state.wants_more());
        state.add(Ok(b""));
        assert!(!state.wants_more());
        state.question = Some(oneshot::channel().0);
        assert!(state.wants_more(), "a person may answer after all");
    }
}
