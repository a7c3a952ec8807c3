//! `POST /v1/runner/jobs/{id}/permit`: the start. Granted once, to one pod, in time.

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::{PERMIT, Permit, PermitRefusal, PermitRequest};
use invoke_protocol::state::{Event, Refusal as StateRefusal};
use jiff::Timestamp;

use crate::access::runner::Runner;
use crate::api::path::{JobPath, json};
use crate::clock;
use crate::problem::Refusal;
use crate::sealing::Owner;
use crate::store::jobs::{self, StoredJob};

/// For how long a permit is good, in seconds from the moment it was granted: a shim that was paused in
/// between must not start a command that was given up meanwhile.
const GOOD_FOR_SECONDS: i64 = 60;

/// Permits a pod to start the command.
///
/// The same pod may ask again, as its answer may have been lost; the time that it has does not begin
/// anew.
#[utoipa::path(
    post, path = PERMIT, tag = "runner", security(("runner_token" = [])), request_body = PermitRequest,
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "Granted or refused", body = Permit),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn permit(
    runner: Runner,
    JobPath(id): JobPath,
    body: Bytes,
) -> Result<Json<Permit>, Refusal> {
    let PermitRequest { pod } = json(&body)?;
    let (by, now) = (runner.name(), clock::now());
    let event = |job: &StoredJob| Event::Permit {
        pod,
        start_deadline: last_moment(job),
    };
    let outcome = runner
        .app
        .store
        .change(runner.change(id, &by, now), event)
        .await?;
    let outcome = outcome.ok_or_else(|| Refusal::no_job(id))?;
    let left = seconds_left(outcome.job.permitted_at, now);
    let why = match outcome.verdict {
        _ if left > 0 && (outcome.verdict.is_ok() || invoke_hooks::sabotaged("no-permit-cas")) => {
            return Ok(Json(Permit::Granted {
                envelope: runner.app.signer.sign(&outcome.job)?,
                start_within_seconds: left,
                log_bytes: outcome.job.log_bytes,
                secrets: secrets(&runner, &outcome.job).await?,
            }));
        }
        Ok(_) | Err(StateRefusal::TooLate) => PermitRefusal::TooLate,
        Err(StateRefusal::OtherPod) => PermitRefusal::OtherPod,
        Err(_over) => PermitRefusal::Over,
    };
    Ok(Json(Permit::Refused { why }))
}

/// The secret variables that the order tells of, opened.
async fn secrets(runner: &Runner, job: &StoredJob) -> Result<Option<Vec<u8>>, Refusal> {
    if job.secrets_sha256.is_none() {
        return Ok(None);
    }
    let mut session = runner.app.store.read().await?;
    let sealed = jobs::sealed_secrets(&mut session, job.id).await?;
    let sealed = sealed.ok_or_else(|| {
        let detail = format!("job {} ended at this moment: ask again", job.id);
        Refusal::new(ProblemCode::Unavailable, detail)
    })?;
    Ok(Some(runner.app.sealer.open(Owner::job(job.id), &sealed)?))
}

fn last_moment(job: &StoredJob) -> Timestamp {
    if invoke_hooks::sabotaged("no-start-deadline") {
        return Timestamp::MAX;
    }
    job.start_deadline
}

/// What is left of a permit, rounded down: the doubtful second is not the shim's.
fn seconds_left(permitted: Option<Timestamp>, now: Timestamp) -> u64 {
    if invoke_hooks::sabotaged("no-permit-timebox") || invoke_hooks::sabotaged("no-permit-cas") {
        return 86_400;
    }
    let good_until = permitted.map(|at| {
        at.as_microsecond()
            .saturating_add(GOOD_FOR_SECONDS * 1_000_000)
    });
    let left = good_until.map_or(0, |until| {
        until.saturating_sub(now.as_microsecond()) / 1_000_000
    });
    u64::try_from(left.min(GOOD_FOR_SECONDS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_good_for_a_minute_from_its_first_answer() {
        let at = |millis: i64| Timestamp::from_millisecond(1_000_000 + millis).unwrap();
        for (later, left) in [
            (0, 60),
            (1, 59),
            (30_000, 30),
            (59_000, 1),
            (59_001, 0),
            (60_000, 0),
            (999_000, 0),
        ] {
            assert_eq!(seconds_left(Some(at(0)), at(later)), left, "{later} ms");
        }
        assert_eq!(seconds_left(None, at(0)), 0);
    }
}
