//! One command on many clusters: looks at every fan-out that is not over and does what is next. It takes no input,
//! is woken when a job of one ends, and looks every second anyway.
//!
//! ```text
//!   resolution (which clusters) ──▶ stored ──▶ plan (what is next) ──▶ child (its job) ──▶ one transaction
//!                                      ▲                                                        │
//!                                      └──────── a job ended, a cluster spoke, a second ────────┘
//! ```
//!
//! Any number of dispatchers may do so at once: each step is decided on what is stored and written under the
//! fan-out's version ([`crate::store::fanout_transition`]), so that nothing is started twice, nothing is started
//! on what is no longer true, and a dispatcher that dies in the middle leaves nothing half done.

pub(crate) mod resolution;
pub(crate) mod submission;
pub mod plan;
mod child;
pub(crate) mod command;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use invoke_protocol::fanout::{ChildEvent, ChildRefusesEvent, FanOutEvent, FanOutRefusal};
use invoke_protocol::id::FanOutId;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::child::{Child, Verdict};
use self::plan::{Moment, Step, plan};
use crate::app::App;
use crate::clock;
use crate::problem::chain;
use crate::store::fanout_transition::{Draft, NotTaken, Written};
use crate::store::{self, Session, fanouts};

/// How the story and the audit log call what is done here by itself.
const BY: &str = "dispatcher";

/// How many transactions one fan-out gets before the next has its turn.
const MAX_TURNS: u32 = 16;

/// Why a fan-out did not get on. It is tried again in a second.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Sealing(#[from] crate::sealing::Error),
    #[error("the plan has a step that a cluster refuses")]
    Child(#[from] ChildRefusesEvent),
    #[error("the plan has a step that the fan-out refuses")]
    FanOut(#[from] FanOutRefusal),
}

/// What makes fan-outs get on, in one dispatcher.
pub(crate) struct Engine {
    pub(crate) app: Arc<App>,
    /// When this dispatcher began to listen: before that it could not have heard anybody.
    pub(crate) listening_since: Timestamp,
}

impl Engine {
    /// Makes them get on until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // Subscribe before read: see `crate::events`.
        let mut news = self.app.store.events().of_fanouts();
        loop {
            self.round().await;
            tokio::select! {
                () = news.news_or_poll() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// All of them, as far as they get. One that fails does not hold up the others.
    async fn round(&self) {
        let open = match self.open().await {
            Ok(open) => open,
            Err(error) => return tracing::warn!("no fan-out gets on: {}", chain(&error)),
        };
        for fanout in open {
            if let Err(error) = self.advance(fanout).await {
                tracing::warn!(fanout.id = %fanout, "fan-out {fanout} does not get on: {}", chain(&error));
            }
        }
    }

    async fn open(&self) -> Result<Vec<FanOutId>, store::Error> {
        let mut session = self.app.store.read().await?;
        fanouts::open(&mut session).await
    }

    async fn advance(&self, id: FanOutId) -> Result<(), Error> {
        let mut not_taken = None;
        for _ in 0..MAX_TURNS {
            let moment = self.moment();
            // Others can write while nothing is to be done, which is most of the time.
            if self.is_at_rest(id, moment).await? {
                return Ok(());
            }
            let mut session = self.app.store.write().await?;
            let Some(draft) = Draft::load(&mut session, id).await? else {
                return Ok(());
            };
            let draft = self.draft(&mut session, draft, not_taken, moment).await?;
            if draft.is_empty() {
                return Ok(());
            }
            match self
                .app
                .store
                .write_fanout(session, draft, moment.now)
                .await?
            {
                // Stored, then told: there may be jobs to send.
                Written::Yes(fanout) => {
                    self.app.broker.wake();
                    let state = fanout.state.name();
                    if fanout.state.is_over() {
                        tracing::info!(fanout.id = %id, fanout.state = %state, "fan-out {id} is {state}");
                    }
                }
                Written::Overtaken => {}
                Written::NotTaken(position, why) => not_taken = Some((position, why)),
            }
        }
        // It is not at rest: the next round begins at once.
        self.app.store.events().fanout_changed(id);
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment {
            now: clock::now(),
            listening_since: self.listening_since,
        }
    }

    async fn is_at_rest(&self, id: FanOutId, moment: Moment) -> Result<bool, Error> {
        let mut session = self.app.store.read().await?;
        let draft = Draft::load(&mut session, id).await?;
        Ok(draft.is_none_or(|draft| plan(draft.fanout(), draft.children(), moment).is_empty()))
    }

    /// Drafts what the plan says. A cluster whose job is refused ends it: with one more failure the brakes
    /// decide anew before another is started.
    async fn draft(
        &self,
        session: &mut Session,
        mut draft: Draft,
        not_taken: Option<(u32, NotTaken)>,
        moment: Moment,
    ) -> Result<Draft, Error> {
        let now = moment.now;
        let mut child = Child::new(&self.app, draft.fanout().clone(), not_taken);
        for step in plan(draft.fanout(), draft.children(), moment) {
            let Step::Start(position) = step else {
                carry_out(&mut draft, step, now)?;
                continue;
            };
            match child
                .decide(session, draft.children(), position, now)
                .await?
            {
                Verdict::Start(job) => draft.start(position, *job, BY, now)?,
                Verdict::Later => {}
                Verdict::Refused { code, message } => {
                    let refused = ChildEvent::Refuse { code, message };
                    draft.apply_to(position, &refused, BY, now)?;
                    return Ok(draft);
                }
                Verdict::NotAllowed(reason) => {
                    draft.apply(&FanOutEvent::Stop { reason }, BY, now)?;
                    return Ok(draft);
                }
            }
        }
        Ok(draft)
    }
}

/// Drafts a step that starts nothing.
fn carry_out(draft: &mut Draft, step: Step, now: Timestamp) -> Result<(), Error> {
    match step {
        Step::Child(position, event) => draft.apply_to(position, &event, BY, now)?,
        Step::FanOut(event) => draft.apply(&event, BY, now)?,
        Step::Cancel { job, grace_seconds } => {
            let state = &draft.fanout().state;
            let by = state.cancelled_by().unwrap_or(BY).to_owned();
            draft.cancel(job, &by, grace_seconds);
        }
        Step::Start(_) => {}
    }
    Ok(())
}
