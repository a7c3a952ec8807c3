//! Ctrl-C and SIGTERM, which end this program and not the job.
//!
//! The work is one future. While a person is asked, it is not polled, so nothing is printed into the
//! question; when they go on, it goes on where it was.

use std::fmt;
use std::io;
use std::pin::pin;

use invoke_protocol::id::{FanOutId, JobId};
use invoke_protocol::job::CancelRequest;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{self, Client};
use crate::failure::chain;
use crate::input::Input;
use crate::printer::Printer;

/// The signals that ask this program to end.
pub struct Interrupts<'a> {
    printer: &'a Printer,
    input: Input,
    interrupt: Signal,
    terminate: Signal,
    /// One that came when it could not yet be answered.
    pending: Option<Kind>,
}

/// What goes on when we leave, and can be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// One job.
    Job(JobId),
    /// One command on many clusters.
    FanOut(FanOutId),
}

/// Which signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGINT: a person at a terminal, mostly.
    Interrupt,
    /// SIGTERM: a machine that will not wait long.
    Terminate,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    GoOn,
    Detach,
    Cancel,
}

/// The person left before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

impl<'a> Interrupts<'a> {
    /// Begins to catch the signals: from now on they no longer end the program by themselves.
    ///
    /// # Errors
    /// The system's, if it does not let them be caught.
    pub fn catch(printer: &'a Printer, input: Input) -> io::Result<Self> {
        Ok(Self {
            printer,
            input,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            pending: None,
        })
    }

    /// Does work that leaves nothing behind when it is given up: the first signal ends it.
    ///
    /// # Errors
    /// [`Left`] if the work was not done.
    pub async fn preparing<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Left> {
        if self.pending.is_some() {
            return Err(Left);
        }
        tokio::select! {
            done = work => Ok(done),
            _ = self.next() => Err(Left),
        }
    }

    /// Does work that is better finished: the submission, after which it is known whether there is a
    /// job. The first signal is kept for [`Interrupts::following`]; the second ends the work.
    ///
    /// # Errors
    /// [`Left`] if the work was not done.
    pub async fn finishing<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Left> {
        let mut work = pin!(work);
        loop {
            let kind = tokio::select! {
                done = &mut work => return Ok(done),
                kind = self.next() => kind,
            };
            if self.pending.replace(kind).is_some() {
                return Err(Left);
            }
            self.printer
                .say("finishing the submission first; once more to give up on it");
        }
    }

    /// Follows a job, or many. On a terminal, Ctrl-C asks, and Ctrl-C again cancels it; elsewhere, and
    /// for SIGTERM, it is left to itself.
    ///
    /// # Errors
    /// [`Left`] if it goes on without us.
    pub async fn following<T>(
        &mut self,
        client: &Client,
        followed: Followed,
        work: impl Future<Output = T>,
    ) -> Result<T, Left> {
        let mut work = pin!(work);
        let mut cancel_requested = false;
        loop {
            let kind = match self.pending.take() {
                Some(kind) => kind,
                None => tokio::select! {
                    done = &mut work => return Ok(done),
                    kind = self.next() => kind,
                },
            };
            match self.decide(kind, followed, cancel_requested).await {
                Decision::GoOn => self.printer.say("going on"),
                Decision::Detach => return Err(Left),
                Decision::Cancel => cancel_requested = self.cancel(client, followed).await,
            }
        }
    }

    async fn next(&mut self) -> Kind {
        tokio::select! {
            _ = self.terminate.recv() => Kind::Terminate,
            _ = self.interrupt.recv() => Kind::Interrupt,
        }
    }

    async fn decide(&mut self, kind: Kind, followed: Followed, cancel_requested: bool) -> Decision {
        // Whoever asks again after a cancel does not want to wait for it.
        if kind == Kind::Terminate || cancel_requested || !self.printer.can_ask() {
            return Decision::Detach;
        }
        let answer = self.input.answer();
        self.printer.ask(followed.question());
        let answer = tokio::select! {
            answer = answer => answer,
            kind = self.next() => {
                self.printer.show("\n");
                return if kind == Kind::Interrupt { Decision::Cancel } else { Decision::Detach };
            }
        };
        understand(answer.as_deref())
    }

    /// Whether the dispatcher took the request.
    async fn cancel(&mut self, client: &Client, followed: Followed) -> bool {
        let asked = tokio::select! {
            asked = followed.cancel(client) => asked,
            kind = self.next() => {
                self.pending = Some(kind);
                return true;
            }
        };
        match &asked {
            Ok(()) => self.printer.say(&format!(
                "asked for {followed} to be cancelled; once more to detach"
            )),
            Err(error) => self
                .printer
                .say(&format!("{followed} cannot be cancelled: {}", chain(error))),
        }
        asked.is_ok()
    }
}

impl Followed {
    const fn question(self) -> &'static str {
        match self {
            Self::Job(_) => "detach (d), cancel the job (c) or go on (Enter)?",
            Self::FanOut(_) => "detach (d), cancel it on all clusters (c) or go on (Enter)?",
        }
    }

    async fn cancel(self, client: &Client) -> Result<(), client::Error> {
        let how = CancelRequest::default();
        match self {
            Self::Job(id) => client.cancel(id, how).await.map(drop),
            Self::FanOut(id) => client.cancel_fanout(id, how).await.map(drop),
        }
    }
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job {id}"),
            Self::FanOut(id) => write!(f, "fan-out {id}"),
        }
    }
}

/// What a person answered; `None` if their terminal is gone.
fn understand(answer: Option<&str>) -> Decision {
    match answer.map(|line| line.trim().to_lowercase()).as_deref() {
        None | Some("d" | "detach") => Decision::Detach,
        Some("c" | "cancel") => Decision::Cancel,
        Some(_) => Decision::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_stops_anything() {
        assert_eq!(understand(Some("\n")), Decision::GoOn);
        assert_eq!(understand(Some("what?\n")), Decision::GoOn);
        assert_eq!(understand(Some(" D\n")), Decision::Detach);
        assert_eq!(understand(Some("c\n")), Decision::Cancel);
        assert_eq!(understand(None), Decision::Detach);
    }
}
