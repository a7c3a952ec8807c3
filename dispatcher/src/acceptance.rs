//! What decides whether a job is taken: the same for one that a person submits at this moment and for one that
//! a schedule, or one command over many clusters, makes while nobody is there.

use invoke_protocol::id::JobId;
use invoke_protocol::job::{IfOffline, JobSpec};
use invoke_protocol::problem::ProblemCode;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::access::{Action, Principal};
use crate::api::limits;
use crate::app::App;
use crate::broker::Health;
use crate::problem::Refusal;
use crate::store::clusters::StoredCluster;
use crate::store::{Session, backlog};
use crate::waiting;

/// For how long the oldest job of a cluster may wait in the outbox before no more are taken.
const MAX_UNSENT_AGE: SignedDuration = SignedDuration::from_mins(10);

/// When it is worth trying again then, in seconds: RabbitMQ has been away for longer than a restart takes.
const UNSENT_RETRY_SECONDS: u64 = 30;

/// Checks everything of a job but its files: who asks, and what the cluster offers. Answers the last moment at
/// which it may start.
///
/// # Errors
/// A [`Refusal`] that says what is not allowed, and what is.
pub async fn check(
    app: &App,
    session: &mut Session,
    principal: &Principal,
    spec: &JobSpec,
    cluster: &StoredCluster,
    now: Timestamp,
) -> Result<Timestamp, Refusal> {
    let action = Action::Run {
        cluster,
        profile: &spec.profile,
    };
    principal.may(action)?;
    let start_deadline = limits::check(spec, cluster, now)?;
    check_contact(spec, cluster, now)?;
    check_outbox(app, session, cluster, now).await?;
    Ok(start_deadline)
}

/// A new job's id: UUIDv7 of the program's own clock, so that ids sort as jobs were submitted.
#[must_use]
pub fn new_job_id(now: Timestamp) -> JobId {
    JobId::from_uuid(new_uuid(now))
}

/// A UUIDv7 of the program's own clock.
#[must_use]
pub fn new_uuid(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(
        uuid::NoContext,
        seconds,
        nanoseconds,
    ))
}

/// A job that shall not wait for a cluster that is away is refused before there is one.
fn check_contact(spec: &JobSpec, cluster: &StoredCluster, now: Timestamp) -> Result<(), Refusal> {
    if spec.if_offline == IfOffline::Wait || invoke_hooks::sabotaged("no-if-offline") {
        return Ok(());
    }
    match waiting::absence(&cluster.name, cluster.last_contact, now) {
        None => Ok(()),
        Some(absence) => Err(Refusal::new(
            ProblemCode::ClusterOffline,
            format!(
                "{}, and the job was not to wait for it: see to its runner, or submit the job with if_offline \"wait\"",
                absence.message
            ),
        )),
    }
}

/// Jobs wait in the store while RabbitMQ is away or full, but not without end: what is not sent for so
/// long, nobody sees to, and whoever submits more should know.
async fn check_outbox(
    app: &App,
    session: &mut Session,
    cluster: &StoredCluster,
    now: Timestamp,
) -> Result<(), Refusal> {
    let problem = match app.broker.health() {
        Health::Connected => return Ok(()),
        Health::Blocked { why } => format!("RabbitMQ takes no messages ({why})"),
        Health::Disconnected { why } => {
            format!("the dispatcher has no connection to RabbitMQ ({why})")
        }
    };
    let limit = now.saturating_sub(MAX_UNSENT_AGE).unwrap_or(Timestamp::MIN);
    if !backlog::unsent_since(session, cluster.id, limit).await? {
        return Ok(());
    }
    let detail = format!(
        "{problem}, and jobs for cluster {} have waited to be sent for more than {} minutes: these stay, and no more \
         are taken until RabbitMQ is back",
        cluster.name,
        MAX_UNSENT_AGE.as_mins()
    );
    Err(Refusal::new(ProblemCode::Unavailable, detail).retry_after(UNSENT_RETRY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let later = now + SignedDuration::from_millis(1);
        assert!(new_job_id(now) < new_job_id(later));
    }
}
