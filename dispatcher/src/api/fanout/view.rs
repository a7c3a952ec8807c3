//! A stored fan-out as people see it.

use invoke_protocol::fanout::{Child, ChildCounts, ChildState, FanOut, OfflineClusters};
use invoke_protocol::id::FanOutId;
use invoke_protocol::state::{JobState, StateName};
use jiff::Timestamp;

use crate::clock;
use crate::fanout::plan::allowed;
use crate::problem::Refusal;
use crate::store::fanout_clusters::{StoredChild, Tally};
use crate::store::fanouts::StoredFanOut;
use crate::store::{Session, fanout_clusters, fanout_story, fanouts};
use crate::waiting;

/// The view of one fan-out at this moment, with its clusters and its story.
///
/// # Errors
/// A [`Refusal`] if there is none.
pub(super) async fn whole(session: &mut Session, id: FanOutId) -> Result<FanOut, Refusal> {
    let fanout = fanouts::find(session, id)
        .await?
        .ok_or_else(|| Refusal::no_fanout(id))?;
    let children = fanout_clusters::of_fanout(session, id).await?;
    let tallies: Vec<Tally> = children.iter().map(StoredChild::tally).collect();
    let now = clock::now();
    Ok(FanOut {
        clusters: children
            .iter()
            .map(|child| cluster(&fanout, child, now))
            .collect(),
        story: fanout_story::of_fanout(session, id).await?,
        ..summary(&fanout, &tallies)
    })
}

/// The view of a fan-out without its clusters and its story.
pub(super) fn summary(fanout: &StoredFanOut, clusters: &[Tally]) -> FanOut {
    let mut counts = ChildCounts::default();
    for tally in clusters {
        counts.add(tally.state, tally.count);
    }
    FanOut {
        id: fanout.id,
        spec: fanout.spec.clone(),
        secrets: fanout.secret_names.clone(),
        submitted_by: fanout.submitted_by.clone(),
        submitted: fanout.submitted_at,
        state: fanout.state.name(),
        reason: fanout.state.reason().cloned(),
        cancelled_by: fanout.state.cancelled_by().map(str::to_owned),
        ended: fanout.state.ended_at(),
        limits: fanout.limits,
        allowed: allowed(fanout, clusters),
        counts,
        round: fanout.round,
        version: fanout.version,
        clusters: Vec::new(),
        story: Vec::new(),
    }
}

fn cluster(fanout: &StoredFanOut, child: &StoredChild, now: Timestamp) -> Child {
    let job = child.job.as_ref();
    // What a command said that was stopped half-way is no result.
    let result = job.filter(|job| job.name() != StateName::Lost);
    let result = result.and_then(JobState::exit_record);
    let refusal = match child.state {
        ChildState::Refused { code, .. } => Some(code),
        _ => None,
    };
    Child {
        cluster: child.cluster_name.clone(),
        canary: child.canary,
        state: child.state.name(),
        attempt: child.attempt,
        job: child.state.job(),
        job_state: job.map(JobState::name),
        exit_code: result.map(|exit| exit.status.code()),
        reason: reason(fanout, child, now),
        refusal,
        started: child.state.started_at(),
        ended: child.state.ended_at(),
    }
}

fn reason(fanout: &StoredFanOut, child: &StoredChild, now: Timestamp) -> Option<String> {
    match &child.state {
        ChildState::Pending { turn } => waits_for(fanout, child, *turn, now),
        ChildState::Refused { message, .. }
        | ChildState::Offline { message, .. }
        | ChildState::Skipped { message, .. } => Some(message.clone()),
        ChildState::NotStarted { .. } => fanout.reason().map(|reason| reason.message.clone()),
        ChildState::Running { .. } | ChildState::Failed { .. } | ChildState::Cancelled { .. } => {
            let reason = child.job.as_ref().and_then(JobState::reason);
            reason.map(|reason| reason.message)
        }
        ChildState::Succeeded { .. } => None,
    }
}

/// What a cluster waits for, if not for its turn alone.
fn waits_for(
    fanout: &StoredFanOut,
    child: &StoredChild,
    turn: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let absence = waiting::absence(&child.cluster_name, child.cluster_last_contact, now)?.message;
    let until = turn.and_then(|turn| turn.checked_add(fanout.patience()).ok());
    Some(match (fanout.spec.if_offline, until) {
        (OfflineClusters::Wait, Some(until)) => {
            let until = until.strftime("%Y-%m-%d %H:%M:%S UTC");
            format!("{absence}; it is waited for until {until}")
        }
        (OfflineClusters::Skip, _) if !child.canary => {
            format!("{absence}; if so when its turn comes, it is skipped")
        }
        _ => absence,
    })
}
