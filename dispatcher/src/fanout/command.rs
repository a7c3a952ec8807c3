//! What people make of a fan-out that is there: cancel it, make it go on, try again what has failed.

use invoke_protocol::fanout::{ChildEvent, ChildState, ChildStateName, FanOutEvent, FanOutRefusal};
use invoke_protocol::id::FanOutId;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{JobState, StateName};
use jiff::Timestamp;

use super::carry_out;
use super::plan::{Moment, plan};
use crate::problem::Refusal;
use crate::store::fanout_clusters::StoredChild;
use crate::store::fanout_transition::{Draft, Written};
use crate::store::fanouts::StoredFanOut;
use crate::store::{self, Store};

/// How often somebody else may be faster before the caller is told to come back.
const MAX_RACES: u32 = 16;

/// What somebody wants of a fan-out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// That all of it ends.
    Cancel {
        /// From SIGTERM to SIGKILL, in seconds; the clusters' own if silent.
        grace_seconds: Option<u64>,
    },
    /// That it goes on after a stop.
    Resume,
    /// That it goes on, with another attempt for what has failed.
    RetryFailed {
        /// Also for what nobody knows the end of.
        lost: bool,
    },
}

/// Does it, on behalf of `by`.
///
/// # Errors
/// A [`Refusal`] that says what stands against it, and what to do.
pub(crate) async fn obey(
    store: &Store,
    id: FanOutId,
    command: Command,
    by: &str,
    now: Timestamp,
) -> Result<StoredFanOut, Refusal> {
    for _ in 0..MAX_RACES {
        let mut session = store.write().await?;
        let mut draft = Draft::load(&mut session, id)
            .await?
            .ok_or_else(|| Refusal::no_fanout(id))?;
        self::draft(&mut draft, command, by, now)?;
        if draft.is_empty() {
            return Ok(draft.fanout().clone());
        }
        if let Written::Yes(fanout) = store.write_fanout(session, draft, now).await? {
            return Ok(*fanout);
        }
    }
    Err(store::Error::ContendedFanOut(id).into())
}

/// Drafts what is wanted.
///
/// # Errors
/// As [`obey`]; then nothing of the draft may be written.
pub(super) fn draft(
    draft: &mut Draft,
    command: Command,
    by: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    match command {
        Command::Cancel { grace_seconds } => cancel(draft, grace_seconds, by, now),
        Command::Resume => go_on(draft, &FanOutEvent::Resume, is_unstarted, by, now),
        Command::RetryFailed { lost } => {
            let is_meant = |child: &StoredChild| is_unstarted(child) || is_failed(child, lost);
            go_on(draft, &FanOutEvent::Retry, is_meant, by, now)
        }
    }
}

/// What has not started never does, and what runs is told to end, in one transaction.
fn cancel(
    draft: &mut Draft,
    grace_seconds: Option<u64>,
    by: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    let event = FanOutEvent::Cancel {
        by: by.to_owned(),
        grace_seconds,
    };
    let refused = draft.apply(&event, by, now);
    refused.map_err(|_over| Refusal::fanout_over(draft.fanout()))?;
    // Nothing starts any more: who speaks does not matter.
    let moment = Moment {
        now,
        listening_since: now,
    };
    for step in plan(draft.fanout(), draft.children(), moment) {
        carry_out(draft, step, now)?;
    }
    Ok(())
}

fn go_on(
    draft: &mut Draft,
    event: &FanOutEvent,
    is_meant: impl Fn(&StoredChild) -> bool,
    by: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    let before = draft.fanout().clone();
    let refused = |why: &FanOutRefusal| cannot_go_on(&before, &why.to_string());
    draft.apply(event, by, now).map_err(|why| refused(&why))?;
    if before.resumable_until.is_none_or(|until| until < now) {
        return Err(cannot_go_on(
            &before,
            "it stopped too long ago, and what it needs is not kept any more: submit it again",
        ));
    }
    let meant: Vec<_> = draft
        .children()
        .iter()
        .filter(|child| is_meant(child))
        .collect();
    let meant: Vec<u32> = meant.into_iter().map(|child| child.position).collect();
    if meant.is_empty() {
        return Err(cannot_go_on(
            &before,
            &nothing_left(draft.children(), event),
        ));
    }
    for position in meant {
        let retried = draft.apply_to(position, &ChildEvent::Retry, by, now);
        retried.map_err(super::Error::from)?;
    }
    match draft.children().iter().find(|child| is_in_the_way(child)) {
        Some(canary) => Err(cannot_go_on(&before, &behind(canary))),
        None => Ok(()),
    }
}

const fn is_unstarted(child: &StoredChild) -> bool {
    matches!(child.state, ChildState::NotStarted { .. })
}

fn is_failed(child: &StoredChild, lost: bool) -> bool {
    match child.state {
        ChildState::Failed { .. } => lost || !is_lost(child),
        ChildState::Refused { .. } | ChildState::Offline { .. } | ChildState::Cancelled { .. } => {
            true
        }
        _ => false,
    }
}

fn is_lost(child: &StoredChild) -> bool {
    child.job.as_ref().map(JobState::name) == Some(StateName::Lost)
}

/// A canary that did not succeed and is not tried again: nothing would ever start behind it.
fn is_in_the_way(child: &StoredChild) -> bool {
    let waits = matches!(
        child.state.name(),
        ChildStateName::Pending | ChildStateName::Succeeded
    );
    child.canary && !waits
}

fn behind(canary: &StoredChild) -> String {
    let (name, state) = (&canary.cluster_name, canary.state.name());
    let advice = if is_lost(canary) {
        "see whether its command ran, and try it again with retry-failed and lost, or submit again with another canary"
    } else {
        "try it again with retry-failed, or submit again with another canary"
    };
    format!("canary {name} did not succeed ({state}), and nothing starts before it has: {advice}")
}

fn nothing_left(children: &[StoredChild], event: &FanOutEvent) -> String {
    let lost: Vec<_> = children.iter().filter(|child| is_lost(child)).collect();
    match (event, lost.first()) {
        (FanOutEvent::Resume, _) => {
            "every cluster had its turn: retry-failed tries again what failed".to_owned()
        }
        (_, Some(first)) => format!(
            "nobody knows how the command ended on {} of its clusters ({}), so it may have done its work, or still run: \
             see there, and say lost to try these again",
            lost.len(),
            first.cluster_name
        ),
        (_, None) => "nothing of it has failed".to_owned(),
    }
}

fn cannot_go_on(fanout: &StoredFanOut, why: &str) -> Refusal {
    let detail = format!("fan-out {} cannot go on: {why}", fanout.id);
    Refusal::new(ProblemCode::FanoutCannotGoOn, detail)
}
