//! Follows a job to its end: through cuts, restarts and proxies that let no event stream through.
//!
//! ```text
//!              ┌── cut, or silence: again from the position of the last byte taken ──┐
//!              ▼                                                                      │
//!   GET events (server-sent) ── job ▸ notices · output ▸ Output ── end ▸ verify ▸ done
//!              │                └ stored ▸ GET output, up to there ▸ Output
//!              │ no event stream, or two in a row without an event
//!              ▼
//!   GET job (long-poll) + GET output ── the same, for the rest of the way
//! ```
//!
//! The position in the output log is the only state. It moves after a piece was written, so a cut at
//! any moment neither loses nor doubles a byte.

use std::pin::pin;
use std::time::Duration;

use invoke_protocol::api::{JobEvent, JobQuery};
use invoke_protocol::id::JobId;
use invoke_protocol::job::Job;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::client::{self, Client, LONG_POLL_SECONDS, StreamError};
use crate::notices::Notices;
use crate::output::{self, Output};
use crate::patience::Patience;

/// How long an event stream may take to say its first word, which a dispatcher says at once. A proxy
/// that collects the whole answer first would never say one.
const FIRST_EVENT_WITHIN: Duration = Duration::from_secs(10);
/// How many streams may end without an event before there is a better way.
const FRUITLESS_STREAMS: u32 = 2;
/// A stream that lived this long was a good one, and may be opened again at once.
const GOOD_STREAM: Duration = Duration::from_secs(5);

/// One job that is followed.
pub struct Follow<'a> {
    client: &'a Client,
    job: JobId,
    output: Output<'a>,
    notices: Notices<'a>,
    patience: Patience,
    /// Whether the dispatcher has answered before: then its name and its certificate were right.
    reached: bool,
    /// Who may hold a piece of stored output, if there are others beside this one.
    turns: Option<&'a Semaphore>,
}

/// Why a job is no longer followed. It goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The dispatcher refuses, or is none.
    #[error(transparent)]
    Client(client::Error),
    /// Its output cannot be taken.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The dispatcher could not be reached for too long.
    #[error("job {job} goes on without us")]
    GaveUp {
        /// Which.
        job: JobId,
        /// Why.
        #[source]
        source: client::Error,
    },
}

/// How one way of following came to its end.
enum Pass {
    /// The job is over, and all of its output was taken.
    Over(Box<Job>),
    /// An event stream ended before the job did.
    Cut {
        /// Whether it had said anything.
        heard: bool,
    },
    /// What answers is no event stream.
    NoStream,
}

impl<'a> Follow<'a> {
    /// Prepares to follow a job from its first byte on.
    #[must_use]
    pub fn new(
        client: &'a Client,
        job: JobId,
        output: Output<'a>,
        notices: Notices<'a>,
        patience: Patience,
    ) -> Self {
        Self {
            client,
            job,
            output,
            notices,
            patience,
            reached: false,
            turns: None,
        }
    }

    /// The same beside others, which do not all hold a piece of stored output at the same time.
    #[must_use]
    pub fn taking_turns(self, turns: &'a Semaphore) -> Self {
        Self {
            turns: Some(turns),
            ..self
        }
    }

    /// Takes all output, tells what there is to tell, and returns the job as it ended, with the
    /// output.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn to_end(mut self) -> Result<(Job, Output<'a>), Error> {
        let (mut fruitless, mut failed_attempts) = (0, 0);
        loop {
            let pass = if fruitless < FRUITLESS_STREAMS {
                self.events().await
            } else {
                self.poll(JobEnd::Await).await.map(Pass::Over)
            };
            let error = match pass {
                Ok(Pass::Over(job)) => {
                    self.output.end().await?;
                    self.output.verify(&job)?;
                    return Ok((*job, self.output));
                }
                Ok(Pass::NoStream) => {
                    fruitless = FRUITLESS_STREAMS;
                    continue;
                }
                Ok(Pass::Cut { heard }) => {
                    fruitless = if heard { 0 } else { fruitless + 1 };
                    failed_attempts = if heard { 1 } else { failed_attempts + 1 };
                    self.client.cut()
                }
                Err(Error::Client(error)) if self.is_outage(&error) => {
                    // Some proxies cut before they have passed on a word of it.
                    fruitless += u32::from(error.is_cut());
                    failed_attempts += 1;
                    error
                }
                Err(error) => return Err(error),
            };
            self.pause(error, failed_attempts).await?;
        }
    }

    /// Takes the output that is stored by now, and returns the job as it is. Waits for nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn so_far(mut self) -> Result<(Job, Output<'a>), Error> {
        loop {
            match self.poll(JobEnd::DoNotAwait).await {
                Ok(job) => {
                    self.output.end().await?;
                    if job.state.is_terminal() {
                        self.output.verify(&job)?;
                    }
                    return Ok((*job, self.output));
                }
                Err(Error::Client(error)) if self.is_outage(&error) => self.pause(error, 0).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn pause(&mut self, error: client::Error, failed_attempts: u32) -> Result<(), Error> {
        if !self.patience.is_left(Instant::now()) {
            return Err(Error::GaveUp {
                job: self.job,
                source: error,
            });
        }
        self.notices.cut(failed_attempts);
        let pause = self.patience.pause(error.retry_after());
        meanwhile(&mut self.notices, pause).await;
        Ok(())
    }

    async fn events(&mut self) -> Result<Pass, Error> {
        let opened = Instant::now();
        let first_by = opened + FIRST_EVENT_WITHIN;
        let open = timeout_at(
            first_by,
            self.client.events(self.job, self.output.position()),
        );
        let mut stream = match meanwhile(&mut self.notices, open).await {
            Err(_elapsed) => return Ok(Pass::Cut { heard: false }),
            Ok(answer) => match answer.map_err(Error::Client)? {
                Some(stream) => stream,
                None => return Ok(Pass::NoStream),
            },
        };
        let mut heard = false;
        loop {
            let next = async {
                match heard {
                    true => stream.next().await,
                    false => timeout_at(first_by, stream.next())
                        .await
                        .unwrap_or(Err(StreamError::Cut)),
                }
            };
            let placed = match meanwhile(&mut self.notices, next).await {
                Ok(placed) => placed,
                Err(StreamError::Cut) => return Ok(Pass::Cut { heard }),
                Err(StreamError::Nonsense(why)) => return Err(self.nonsense(why)),
            };
            heard = true;
            self.answered();
            let is_output = matches!(
                placed.event,
                JobEvent::Output { .. } | JobEvent::Stored { .. }
            );
            self.patience
                .renew(is_output || opened.elapsed() > GOOD_STREAM);
            match placed.event {
                JobEvent::Job { job } => self.notices.observe(&job),
                JobEvent::End { job } => {
                    self.notices.observe(&job);
                    return Ok(Pass::Over(job));
                }
                // The stream says its next word when this is taken: what is behind costs no memory.
                JobEvent::Stored { log_bytes } => self.take_stored(log_bytes).await?,
                JobEvent::Output { stream, at, data } => {
                    let taken = self.output.take(stream, at, &data, placed.position);
                    if !taken.await? {
                        return Err(
                            self.nonsense("a piece of output does not continue the one before")
                        );
                    }
                }
            }
        }
    }

    async fn poll(&mut self, end: JobEnd) -> Result<Box<Job>, Error> {
        let mut query = JobQuery::default();
        loop {
            let call = self.client.job(self.job, &query);
            let job = meanwhile(&mut self.notices, call)
                .await
                .map_err(Error::Client)?;
            self.answered();
            // First the job, then its output: the other way round, what is printed between the two
            // would be missing from a job that is over.
            self.notices.observe(&job);
            self.take_stored(job.log_bytes).await?;
            // Not before: of a job whose output cannot be read, the rest can be, again and again.
            self.patience.renew(true);
            if job.state.is_terminal() || end == JobEnd::DoNotAwait {
                return Ok(Box::new(job));
            }
            query = JobQuery {
                wait_seconds: Some(LONG_POLL_SECONDS),
                version: Some(job.version),
                log_bytes: Some(self.output.position()),
            };
        }
    }

    /// Takes the output that is known to be stored, up to a position at least.
    async fn take_stored(&mut self, log_bytes: u64) -> Result<(), Error> {
        while self.output.position() < log_bytes {
            let _turn = match self.turns {
                Some(turns) => turns.acquire().await.ok(),
                None => None,
            };
            let call = self.client.output(self.job, self.output.position());
            let log = meanwhile(&mut self.notices, call)
                .await
                .map_err(Error::Client)?;
            if log.is_empty() {
                return Err(self.nonsense("stored output is not handed out"));
            }
            self.patience.renew(true);
            if !self.output.take_log(&log).await? {
                return Err(self.nonsense("a piece of output is no output log"));
            }
        }
        Ok(())
    }

    fn answered(&mut self) {
        self.reached = true;
        self.notices.answered();
    }

    /// Whether the same call may succeed a little later. A laptop that sleeps resolves no names, and a
    /// front that restarts shows its own certificate: for a dispatcher that has answered, that passes.
    fn is_outage(&self, error: &client::Error) -> bool {
        error.is_passing() || self.reached && error.is_unreachable()
    }

    fn nonsense(&self, why: impl Into<String>) -> Error {
        Error::Client(self.client.nonsense(why))
    }
}

/// Whether to wait for the end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobEnd {
    Await,
    DoNotAwait,
}

/// Does something, and speaks when a notice is due meanwhile.
async fn meanwhile<T>(notices: &mut Notices<'_>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = notices.due() => notices.speak(),
        }
    }
}
