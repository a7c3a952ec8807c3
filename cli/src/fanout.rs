//! Follows a command on many clusters to its end: its own state by a long-poll, and each of its jobs.
//!
//! ```text
//!   long-poll ──▶ its clusters ──▶ jobs not yet followed ──▶ at most so many at once ──▶ Follow ──▶ output
//!       ▲                │                 (the others wait, and are followed from their first byte on)
//!       └── version ─────┘
//! ```
//!
//! It is over when the fan-out is, and every job of it was followed to its end. The long-poll has a connection of
//! its own: output that nobody reads fast enough must not hold up the news that it has been stopped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use invoke_protocol::fanout::{FanOut, FanOutQuery, FanOutStateName};
use invoke_protocol::id::{ClusterName, FanOutId, JobId};
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::output::{IncompleteReason, Stream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::client::{self, Client, LONG_POLL_SECONDS};
use crate::commands::artifacts;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::follow::{self, Follow};
use crate::notices::Notices;
use crate::output::{self, Output};
use crate::patience::Patience;
use crate::printer::Printer;
use crate::verdict;

mod lines;
mod groups;
mod summary;
mod document;

pub use document::FanOutDocument;
pub use groups::{Groups, Spool};
pub use lines::{ClusterLines, Lines};
pub(crate) use summary::{counts, sentence, state};

/// How many jobs are followed at once. Servers allow about a hundred requests on one connection.
const FOLLOWED_AT_ONCE: usize = 64;
/// How many of them may hold a piece of stored output, of up to 8 MiB.
const PIECES_AT_ONCE: usize = 4;
/// How often its state is asked for at most: it tells all of its clusters each time.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// What was seen of each job that was followed.
pub(crate) type Ended = HashMap<JobId, Seen>;

/// What was seen of a job.
pub(crate) struct Seen {
    /// The first line of its stderr; may be empty.
    first_error: String,
    /// Why its output was not had, or not to be trusted.
    trouble: Option<String>,
    output: Option<SeenOutput>,
}

/// What a job printed, for a document.
pub(crate) struct SeenOutput {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    complete: Option<Completeness>,
    incomplete_reason: Option<IncompleteReason>,
}

/// How the output of many clusters is shown.
pub enum Show<'a> {
    /// As it comes, line by line.
    Lines(&'a Lines<'a>),
    /// At the end, once for all that printed the same.
    Groups(Groups),
    /// In one document at the end.
    Document,
}

/// One fan-out that is followed.
pub struct FollowAll<'a> {
    /// For output.
    pub client: &'a Client,
    /// For its state: a connection of its own.
    pub watch: &'a Client,
    /// Which.
    pub id: FanOutId,
    /// Jobs whose output is not wanted: it was seen before.
    pub known: HashSet<JobId>,
    /// How long an outage may last.
    pub patience: Duration,
    /// Where words go.
    pub printer: &'a Printer,
}

/// It is over, and this is what came of it.
pub struct Outcome<'a> {
    /// As it ended.
    pub fanout: FanOut,
    ended: Ended,
    show: Show<'a>,
}

/// Why a fan-out is no longer followed. It goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The dispatcher refuses, or is none.
    #[error(transparent)]
    Client(client::Error),
    /// What its jobs print cannot be taken.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The dispatcher could not be reached for too long.
    #[error("fan-out {fanout} goes on without us")]
    GaveUp {
        /// Which.
        fanout: FanOutId,
        /// Why.
        #[source]
        source: client::Error,
    },
}

/// One of its jobs came to its end, or is not followed any more.
struct JobEnded<'a> {
    cluster: ClusterName,
    job: JobId,
    followed: Result<(Job, Output<'a>), follow::Error>,
}

impl<'a> FollowAll<'a> {
    /// Takes all output, says what there is to say, and returns the fan-out as it ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn to_end(mut self, mut show: Show<'a>) -> Result<Outcome<'a>, Error> {
        let turns = Semaphore::new(PIECES_AT_ONCE);
        let mut watch = Watch::new(&self);
        let mut fanout = watch.news(None).await?;
        if let Show::Lines(lines) = show {
            lines.align(fanout.clusters.iter().map(|child| &child.cluster));
        }
        // Of one that is over, what each cluster printed is shown in one piece.
        let at_once = match fanout.state.is_over() {
            true => 1,
            false => FOLLOWED_AT_ONCE,
        };
        let mut known = std::mem::take(&mut self.known);
        let (mut waiting, mut ended) = (VecDeque::new(), Ended::new());
        let mut followed = FuturesUnordered::new();
        let mut said = None;
        loop {
            for child in &fanout.clusters {
                if let Some(job) = child.job
                    && known.insert(job)
                {
                    waiting.push_back((child.cluster.clone(), job));
                }
            }
            self.tell(&fanout, &mut said, &show);
            let mut news = pin!(watch.news(Some(fanout.version)));
            fanout = loop {
                while followed.len() < at_once
                    && let Some((cluster, job)) = waiting.pop_front()
                {
                    let output = show.output(&cluster);
                    followed.push(self.follow(cluster, job, output, &turns));
                }
                if fanout.state.is_over() && followed.is_empty() {
                    return Ok(Outcome {
                        fanout,
                        ended,
                        show,
                    });
                }
                tokio::select! {
                    newer = &mut news, if !fanout.state.is_over() => break newer?,
                    Some(end) = followed.next() => self.take(end, &mut show, &mut ended)?,
                }
            };
        }
    }

    /// Tells what has changed about the whole.
    fn tell(&self, fanout: &FanOut, said: &mut Option<FanOutStateName>, show: &Show<'_>) {
        let is_new = said.replace(fanout.state) != Some(fanout.state);
        let words = match (fanout.state, &fanout.reason, &fanout.cancelled_by) {
            (FanOutStateName::Stopping, Some(reason), _) => {
                Some(format!("nothing more is started: {}", reason.message))
            }
            (FanOutStateName::Cancelling, _, Some(by)) => Some(format!(
                "{by} asked for it to be cancelled; stopping the commands"
            )),
            _ => None,
        };
        if let Some(words) = words.filter(|_| is_new) {
            self.printer.say(&format!("fan-out {}: {words}", self.id));
        }
        if !fanout.state.is_over() {
            let status = format!("invoke: {}", counts(&fanout.counts));
            match show {
                Show::Lines(lines) => lines.status(&status),
                Show::Groups(_) | Show::Document => self.printer.status(&status),
            }
        }
    }

    async fn follow<'s>(
        &'s self,
        cluster: ClusterName,
        job: JobId,
        output: Output<'s>,
        turns: &'s Semaphore,
    ) -> JobEnded<'s> {
        let notices = Notices::of_one_of_many(self.printer);
        let patience = Patience::new(self.patience);
        let follow = Follow::new(self.client, job, output, notices, patience);
        let followed = follow.taking_turns(turns).to_end().await;
        JobEnded {
            cluster,
            job,
            followed,
        }
    }

    /// Takes note of a job that came to its end. What is wrong with one of them is said, and does not end
    /// the others.
    fn take(&self, end: JobEnded<'_>, show: &mut Show<'_>, ended: &mut Ended) -> Result<(), Error> {
        let JobEnded {
            cluster,
            job,
            followed,
        } = end;
        let seen = match followed {
            Ok((over, output)) => {
                let incomplete = verdict::incomplete(&over, output.taken_bytes());
                let artifacts = over.artifacts.as_ref().and_then(artifacts::incomplete);
                for sentence in [incomplete, artifacts].into_iter().flatten() {
                    self.printer.say(&format!("cluster {cluster}: {sentence}"));
                }
                show.keep(&cluster, &over, output)
            }
            Err(follow::Error::GaveUp { source, .. }) => {
                let fanout = self.id;
                return Err(Error::GaveUp { fanout, source });
            }
            Err(follow::Error::Output(error @ output::Error::Print(_))) => {
                return Err(error.into());
            }
            Err(error) => {
                let why = chain(&error);
                self.printer.say(&format!("cluster {cluster}: {why}"));
                Seen {
                    first_error: String::new(),
                    trouble: Some(why),
                    output: None,
                }
            }
        };
        ended.insert(job, seen);
        Ok(())
    }
}

impl<'a> Show<'a> {
    fn output(&self, cluster: &ClusterName) -> Output<'a> {
        match self {
            Self::Lines(lines) => Output::to_lines(lines.of(cluster)),
            Self::Groups(_) => Output::to_spool(),
            Self::Document => Output::to_memory(),
        }
    }

    fn keep(&mut self, cluster: &ClusterName, job: &Job, output: Output<'_>) -> Seen {
        let first_error = output.first_error();
        let output = match self {
            Self::Lines(_) => None,
            Self::Groups(groups) => {
                let [stdout, stderr] = [Stream::Stdout, Stream::Stderr].map(|of| output.sha256(of));
                groups.add(cluster, output.into_spool(), [stdout, stderr]);
                None
            }
            Self::Document => {
                let (stdout, stderr) = output.into_memory();
                Some(SeenOutput {
                    stdout,
                    stderr,
                    complete: job.output_complete,
                    incomplete_reason: job.output_incomplete_reason,
                })
            }
        };
        Seen {
            first_error,
            trouble: None,
            output,
        }
    }
}

impl Outcome<'_> {
    /// Prints what is left to print, and says how it ended.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be printed.
    pub async fn print(self, raw: bool, printer: &Printer) -> Result<Exit, Failure> {
        let Self {
            fanout,
            ended,
            show,
        } = self;
        printer.clear_status();
        let exit = match ended.values().any(|seen| seen.trouble.is_some()) {
            // Whoever reads the output must not take it for all of it.
            true if Exit::of_fanout(&fanout) == Exit::SUCCESS => Exit::INTERNAL,
            _ => Exit::of_fanout(&fanout),
        };
        match show {
            Show::Document => {
                printer.print_json(&FanOutDocument::new(fanout, ended))?;
                return Ok(exit);
            }
            Show::Groups(groups) => {
                let all: Vec<_> = fanout.clusters.iter().map(|child| &child.cluster).collect();
                groups.print(&all, raw, printer).await?;
            }
            Show::Lines(_) => {}
        }
        printer.show(&summary::table(&fanout, &ended));
        printer.say(&summary::sentence(&fanout));
        if let Some(hint) = summary::hint(&fanout) {
            printer.say(&format!("hint: {hint}"));
        }
        Ok(exit)
    }
}

/// Asks how it is, again and again.
struct Watch<'a> {
    client: &'a Client,
    id: FanOutId,
    notices: Notices<'a>,
    patience: Patience,
    /// When it was answered last, if it was: then the dispatcher's name and certificate were right.
    answered: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(all: &FollowAll<'a>) -> Self {
        Self {
            client: all.watch,
            id: all.id,
            notices: Notices::new(all.printer),
            patience: Patience::new(all.patience),
            answered: None,
        }
    }

    /// The fan-out, when it is not any more as it was in a version; at once if there is none.
    async fn news(&mut self, version: Option<i64>) -> Result<FanOut, Error> {
        let query = FanOutQuery {
            wait_seconds: version.map(|_| LONG_POLL_SECONDS),
            version,
        };
        let mut failed_attempts = 0;
        if let Some(answered) = self.answered {
            tokio::time::sleep_until(answered + ASKED_EVERY).await;
        }
        loop {
            let error = match self.client.fanout(self.id, &query).await {
                Ok(fanout) => {
                    self.answered = Some(Instant::now());
                    self.patience.renew(true);
                    self.notices.answered();
                    return Ok(fanout);
                }
                Err(error) => error,
            };
            // A laptop that sleeps resolves no names: for a dispatcher that has answered, that passes.
            let is_outage = error.is_passing() || self.answered.is_some() && error.is_unreachable();
            if !is_outage {
                return Err(Error::Client(error));
            }
            if !self.patience.is_left(Instant::now()) {
                let fanout = self.id;
                return Err(Error::GaveUp {
                    fanout,
                    source: error,
                });
            }
            failed_attempts += 1;
            self.notices.cut(failed_attempts);
            self.patience.pause(error.retry_after()).await;
        }
    }
}
