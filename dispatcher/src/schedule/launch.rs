//! Makes the run of a tick: a job, or a fan-out, in the transaction of the look that decided it.

use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::fanout::FanOutSpec;
use invoke_protocol::id::{ClusterName, ScheduleId};
use invoke_protocol::job::JobSpec;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{Run, TickCause, TickOutcome};
use jiff::Timestamp;
use uuid::Uuid;

use super::look::Look;
use crate::acceptance;
use crate::access::Principal;
use crate::fanout::submission::prepare;
use crate::problem::Refusal;
use crate::sealing::Owner;
use crate::signing::sha256;
use crate::store;
use crate::store::clusters::StoredCluster;
use crate::store::fanouts;
use crate::store::jobs::{self, NewFiles, NewJob, TickKey};
use crate::store::ticks::StoredTick;

/// Makes the run of a tick, or says in the tick why there is none.
///
/// # Errors
/// [`store::Error`]; then nothing of the look was done.
pub(super) async fn launch(look: &mut Look<'_>, tick: &mut StoredTick) -> Result<(), store::Error> {
    let owner = look.schedule.owner.clone();
    let Some(principal) = Principal::absent(&mut look.session, &owner).await? else {
        let reason = format!("its owner {owner} has no valid credential any more");
        look.suspend(&reason);
        refuse(look, tick, reason);
        return Ok(());
    };
    let made = match look.schedule.spec.run.clone() {
        Run::Job(spec) => make_job(look, tick, &principal, spec).await,
        Run::FanOut(spec) => make_fanout(look, tick, &principal, spec).await,
    };
    match made {
        Ok(()) => {
            tick.attempts = tick.attempts.saturating_add(1);
            if !tick.outcome.is_run() {
                tick.lateness = Some(look.lateness(tick));
            }
            tick.outcome = match tick.caught_up {
                true => TickOutcome::CaughtUp,
                false => TickOutcome::Fired,
            };
            (tick.cause, tick.open) = (None, true);
            tick.message.clear();
            tick.decided_at = look.now;
            tick.look_at = look.next_look(tick, None);
        }
        Err(refusal) => not_made(look, tick, &refusal),
    }
    Ok(())
}

fn not_made(look: &mut Look<'_>, tick: &mut StoredTick, refusal: &Refusal) {
    match refusal.code() {
        // Nothing is wrong with it: it is tried again until it is too late.
        _ if refusal.is_passing() => {
            (tick.outcome, tick.cause) = (TickOutcome::Deferred, Some(TickCause::Unavailable));
            (tick.open, tick.look_at) = (true, look.now);
            tick.message = refusal.detail().to_owned();
        }
        ProblemCode::Forbidden | ProblemCode::Unauthenticated => {
            look.suspend(refusal.detail());
            refuse(look, tick, refusal.detail().to_owned());
        }
        _ => refuse(look, tick, refusal.detail().to_owned()),
    }
}

fn refuse(look: &Look<'_>, tick: &mut StoredTick, message: String) {
    (tick.outcome, tick.cause) = (TickOutcome::Refused, Some(TickCause::NotAllowed));
    (tick.open, tick.message, tick.decided_at) = (false, message, look.now);
}

async fn make_job(
    look: &mut Look<'_>,
    tick: &mut StoredTick,
    principal: &Principal,
    spec: JobSpec,
) -> Result<(), Refusal> {
    let cluster = cluster(look, &spec)?;
    let deadline = acceptance::check(
        look.app,
        &mut look.session,
        principal,
        &spec,
        &cluster,
        look.now,
    )
    .await?;
    let id = acceptance::new_job_id(look.now);
    let key = key(look.schedule.id, tick);
    let job = NewJob {
        id,
        cluster: cluster.id,
        start_deadline: deadline.min(tick.start_deadline),
        profile: spec.profile,
        command: spec.command,
        submitted_by: principal.name.clone(),
        run_timeout_seconds: spec.run_timeout_seconds,
        idempotency_key: key,
        request_digest: key.as_bytes().to_vec(),
        files: files(look, spec.files),
        environment: spec.environment,
        secrets: look.app.sealer.seal(Owner::job(id), secrets(look)?)?,
        stdin: false,
        fanout: None,
        tick: Some(TickKey {
            schedule: look.schedule.id,
            instant: tick.instant,
        }),
    };
    let made = match jobs::add(&mut look.session, &job, look.now).await? {
        true => Some(id),
        // Made before under this name: it is this tick's, and no other is made.
        false => jobs::by_idempotency_key(&mut look.session, &principal.name, key)
            .await?
            .map(|job| job.id),
    };
    tick.job = made;
    Ok(())
}

fn cluster(look: &Look<'_>, spec: &JobSpec) -> Result<StoredCluster, Refusal> {
    look.cluster.clone().ok_or_else(|| {
        let name = spec.cluster.as_ref().map_or("", ClusterName::as_str);
        let detail = format!("there is no cluster {name} any more");
        Refusal::new(ProblemCode::UnknownCluster, detail)
    })
}

/// A fan-out is as any other from here on: its clusters are those that the selector matches now.
async fn make_fanout(
    look: &mut Look<'_>,
    tick: &mut StoredTick,
    principal: &Principal,
    mut spec: FanOutSpec,
) -> Result<(), Refusal> {
    let key = key(look.schedule.id, tick);
    spec.job.secrets = secrets(look)?;
    // They are the schedule's, whoever uploaded them.
    let files = spec.job.files.take();
    let made = (key, key.as_bytes().to_vec());
    let mut fanout = prepare(look.app, &mut look.session, principal, spec, made, look.now).await?;
    fanout.spec.job.files = files;
    fanout.files_upload = look.schedule.files_upload;
    let id = fanout.id;
    tick.fanout = match fanouts::add(&mut look.session, &fanout, look.now).await? {
        true => Some(id),
        false => fanouts::by_idempotency_key(&mut look.session, &principal.name, key)
            .await?
            .map(|fanout| fanout.id),
    };
    Ok(())
}

/// The values of the schedule's secret variables.
fn secrets(look: &Look<'_>) -> Result<SecretEnvironment, Refusal> {
    match &look.schedule.sealed_secrets {
        Some(sealed) => Ok(look
            .app
            .sealer
            .open_variables(Owner::schedule(look.schedule.id), sealed)?),
        None => Ok(SecretEnvironment::default()),
    }
}

/// The files of the schedule, which are kept for as long as it is there.
fn files(look: &Look<'_>, files: Option<invoke_protocol::files::Files>) -> Option<NewFiles> {
    let upload = look.schedule.files_upload?;
    Some(NewFiles {
        files: files?,
        upload,
    })
}

/// The name of an attempt at a tick, as its job's idempotency key (a UUIDv8, RFC 9562): the same in every
/// dispatcher, and of no other.
fn key(schedule: ScheduleId, tick: &StoredTick) -> Uuid {
    let text = format!(
        "tick {schedule} {} {} {}",
        tick.revision,
        tick.instant.as_microsecond(),
        tick.attempts
    );
    key_of(&text)
}

/// The key of something that is made because of a tick, besides its run.
pub(super) fn key_beside(schedule: ScheduleId, instant: Timestamp, what: &str) -> Uuid {
    let text = format!("beside {schedule} {} {what}", instant.as_microsecond());
    key_of(&text)
}

fn key_of(text: &str) -> Uuid {
    let digest = sha256(text.as_bytes());
    let first = digest.first_chunk::<16>().copied().unwrap_or_default();
    Uuid::new_v8(first)
}
