//! The relay: what is stored but not sent is signed, published, confirmed, and only then marked as
//! sent.
//!
//! **Confirm before mark.** Marked first, a job whose message was lost would wait for a runner that
//! never hears of it. Sent twice is harmless: a runner claims before it acts.

use std::sync::Arc;
use std::time::Duration;

use invoke_protocol::state::JobState;

use crate::broker::{Broker, Delivery, Error, Message, Session};
use crate::clock;
use crate::problem::chain;
use crate::signing::{self, Signer};
use crate::store::jobs::{self, StoredJob};
use crate::store::outbox::Leased;
use crate::store::{self, Store};

/// How many jobs are taken from the outbox, and wait for their confirm, at once.
const BATCH: u32 = 64;

/// How long to wait without a hint: what rests after a failure is due again by then, or another
/// replica stored something and stopped.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The relay of one dispatcher.
#[derive(Clone)]
pub struct Relay {
    /// Where jobs wait.
    pub store: Store,
    /// Signs them.
    pub signer: Arc<Signer>,
    /// Wakes it, and is told how the broker stands.
    pub broker: Arc<Broker>,
}

impl Relay {
    /// Sends what there is to send until the session has ended.
    ///
    /// # Errors
    /// What makes the session doubtful.
    pub async fn run(&self, session: &Session) -> Result<(), Error> {
        while !session.ended().is_cancelled() {
            // There may be more than one batch: rest only when there was nothing.
            if self.send_some(session).await? == 0 {
                tokio::select! {
                    () = self.broker.awoken() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = session.ended().cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// Sends one batch and says how many were taken on. One that fails does not drop the others: each
    /// of them is marked or given back.
    async fn send_some(&self, session: &Session) -> Result<usize, Error> {
        if session.is_blocked() {
            return Ok(0);
        }
        let leased = self.store.lease_unsent(BATCH, clock::now()).await?;
        let taken = leased.len();
        let mut batch = Vec::with_capacity(taken);
        for leased in leased {
            batch.extend(self.prepare(leased).await?.map(|message| (leased, message)));
        }
        let (leased, messages): (Vec<Leased>, Vec<Message>) = batch.into_iter().unzip();
        let deliveries = session.publish(&messages).await;
        if !messages.is_empty() {
            invoke_hooks::point("dispatcher.outbox.after-publish");
        }
        let mut verdict = Ok(taken);
        for (leased, delivery) in leased.into_iter().zip(deliveries) {
            if let Err(error) = self.settle(leased, delivery).await {
                verdict = Err(error);
            }
        }
        verdict
    }

    /// The message, if the job still needs one.
    async fn prepare(&self, leased: Leased) -> Result<Option<Message>, Error> {
        let Some(job) = self.unstarted(leased).await? else {
            self.store.drop_unsent(leased).await?;
            return Ok(None);
        };
        match self.message(&job) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                tracing::error!(job.id = %job.id, "job {} cannot be signed: {}", job.id, chain(&error));
                self.give_back(leased, &chain(&error)).await?;
                Ok(None)
            }
        }
    }

    async fn settle(&self, leased: Leased, delivery: Result<Delivery, Error>) -> Result<(), Error> {
        let job = leased.job;
        match delivery {
            Ok(Delivery::Taken) => Ok(self.store.mark_sent(leased, clock::now()).await?),
            Err(_) if invoke_hooks::sabotaged("no-confirm") => {
                Ok(self.store.mark_sent(leased, clock::now()).await?)
            }
            Ok(Delivery::Unroutable(why)) => {
                tracing::warn!(job.id = %job, "RabbitMQ has no queue for job {job}: {why}");
                self.give_back(leased, &format!("RabbitMQ has no queue for it: {why}"))
                    .await
            }
            Err(error) => {
                self.give_back(leased, &chain(&error)).await?;
                Err(error)
            }
        }
    }

    /// A job that has started, or is over, needs no message any more. One that was claimed may: the
    /// sweeper puts it here when its runner has not brought it to its start.
    async fn unstarted(&self, leased: Leased) -> Result<Option<StoredJob>, store::Error> {
        let mut session = self.store.read().await?;
        let job = jobs::find(&mut session, leased.job).await?;
        Ok(job.filter(|job| {
            matches!(
                job.state,
                JobState::Queued | JobState::Claimed { .. } | JobState::Starting { .. }
            )
        }))
    }

    /// Signed when it is sent, not when it was stored: the key that signs is the one of today.
    fn message(&self, job: &StoredJob) -> Result<Message, signing::Error> {
        let body = serde_json::to_vec(&self.signer.sign(job)?)?;
        Ok(Message {
            cluster: job.cluster_name.clone(),
            id: job.id.to_string(),
            body,
        })
    }

    async fn give_back(&self, leased: Leased, why: &str) -> Result<(), Error> {
        Ok(self.store.give_back(leased, why, clock::now()).await?)
    }
}
