//! The end of orders that the broker has put aside: delivered again and again and never dealt with, or
//! rejected. Left alone, their jobs would wait until their start deadlines and say nothing of it.
//!
//! **On record, then acknowledged.** A letter is believed only if it is an order that this dispatcher
//! signed; what else comes here is strange, and an alarm: never its content, which may be a command.

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use invoke_protocol::envelope::{Envelope, OrderV1};
use invoke_protocol::state::{Event, Reason, ReasonCode};
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::{Error, Session};
use crate::clock;
use crate::outbox::Relay;
use crate::problem::chain;
use crate::store;
use crate::store::transition::{Change, Verdict};

/// Ends the jobs of dead letters until the session has ended.
///
/// # Errors
/// What makes the session doubtful.
pub(super) async fn bury(session: &Session, relay: &Relay) -> Result<(), Error> {
    if invoke_hooks::sabotaged("no-dead-letter-consumer") {
        session.ended().cancelled().await;
        return Ok(());
    }
    let mut letters = session.dead_letters().await?;
    loop {
        let letter = tokio::select! {
            letter = letters.next() => letter.ok_or(Error::Ended)??,
            () = session.ended().cancelled() => return Ok(()),
        };
        settle(relay, &letter).await?;
        letter.acker.ack(BasicAckOptions::default()).await?;
    }
}

/// Puts on record what is to be put on record. Fails only where it may succeed in a moment: a letter
/// that fails each time must not keep the session from ever being up.
async fn settle(relay: &Relay, letter: &Delivery) -> Result<(), store::Error> {
    let why = death(letter);
    match (order(relay, letter), why.as_deref()) {
        (Some(order), Some("delivery_limit" | "rejected")) => {
            match end(relay, &order, why.as_deref().unwrap_or_default()).await {
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => tracing::error!(
                    alarm = true,
                    job.id = %order.job,
                    "the dead letter of job {} cannot be dealt with: {}",
                    order.job,
                    chain(&error)
                ),
                Ok(true) => {}
                Ok(false) => strange(relay, letter, why.as_deref()),
            }
        }
        _ => strange(relay, letter, why.as_deref()),
    }
    Ok(())
}

/// Ends a job that has not started; one that has, or is over, needs no message. `false` if there is no
/// such job.
async fn end(relay: &Relay, order: &OrderV1, why: &str) -> Result<bool, store::Error> {
    let change = Change {
        job: order.job,
        scope: Some(order.cluster),
        by: "dispatcher",
        now: clock::now(),
    };
    let outcome = relay
        .store
        .change(change, |job| Event::PodFailed {
            pod: None,
            reason: poison(job.cluster_name.as_str(), why),
            retries: job.retries,
        })
        .await?;
    let Some(outcome) = outcome else {
        return Ok(false);
    };
    if outcome.verdict == Ok(Verdict::Changed) {
        tracing::error!(
            alarm = true,
            job.id = %order.job,
            "job {} was given up: its message is dead ({why})",
            order.job
        );
    }
    Ok(true)
}

fn poison(cluster: &str, why: &str) -> Reason {
    let message = format!(
        "the runner of cluster {cluster} was sent the job's message and did not deal with it, so RabbitMQ \
         put it aside ({why}); look at the runner's log before you submit it again"
    );
    Reason::new(ReasonCode::PoisonMessage, message)
}

fn strange(relay: &Relay, letter: &Delivery, why: Option<&str>) {
    let count = relay.broker.strange_letters.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::error!(
        alarm = true,
        dead_letters.strange = count,
        "a dead letter of {} bytes is of no job that waits for it ({}); it was removed",
        letter.data.len(),
        why.unwrap_or("it does not say why it died")
    );
}

/// The order that it is, if it is one of ours.
fn order(relay: &Relay, letter: &Delivery) -> Option<OrderV1> {
    let envelope: Envelope = serde_json::from_slice(&letter.data).ok()?;
    relay.signer.verified(&envelope)
}

/// Why the broker put it aside, in its own word: the first of its deaths is the last that it died.
fn death(letter: &Delivery) -> Option<String> {
    let headers = letter.properties.headers().as_ref()?;
    let deaths = headers.inner().get("x-death")?.as_array()?;
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else {
        return None;
    };
    text(last, "reason")
}

fn text(table: &FieldTable, key: &str) -> Option<String> {
    match table.inner().get(key)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}
