//! `POST /v1/runner/contact`: "I am here", answered with the jobs that are to be cancelled, and with what the
//! operator's limits mean to new pods.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use invoke_protocol::api::{CLOCK_SKEW_SECONDS, Limits};
use invoke_protocol::artifacts::{ArtifactsLimits, MAX_ENTRIES};
use invoke_protocol::problem::Problem;
use invoke_protocol::runner::{
    CONTACT, Cancellation, ContactRequest, ContactResponse, ProfileSummary,
};
use invoke_protocol::state::{Event, ReasonCode};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::access::runner::Runner;
use crate::api::path::json;
use crate::clock;
use crate::problem::Refusal;
use crate::store::{clusters, due, jobs};

/// The longest that an answer is held back. Less than what makes a cluster offline: a runner that waits
/// for an answer says nothing meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// How many profiles a cluster may offer.
const MAX_PROFILES: usize = 100;

/// How much of a version is kept.
const MAX_VERSION_CHARS: usize = 64;

/// Takes down that the runner is there, and answers when there is news, or the wait is over.
#[utoipa::path(
    post, path = CONTACT, tag = "runner", security(("runner_token" = [])), request_body = ContactRequest,
    responses(
        (status = 200, description = "The jobs to cancel, all of them", body = ContactResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn contact(runner: Runner, body: Bytes) -> Result<Json<ContactResponse>, Refusal> {
    let request: ContactRequest = json(&body)?;
    let until = Instant::now() + Duration::from_secs(request.wait_seconds).min(MAX_WAIT);
    record(&runner, &request).await?;
    end_silence(&runner).await?;
    let mut known = request.cancelling;
    known.sort_unstable();
    let (app, cluster) = (&runner.app, runner.cluster.id);
    // Subscribe before read: see `crate::events`.
    let mut subscription = app.store.events().of_cluster(cluster);
    loop {
        let cancelling = cancelling(&runner).await?;
        if cancelling != known || Instant::now() >= until || app.stopping.is_cancelled() {
            return Ok(Json(ContactResponse {
                cancelling,
                artifacts: artifacts(&app.limits),
            }));
        }
        tokio::select! {
            () = subscription.news_or_poll() => {}
            () = tokio::time::sleep_until(until) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

/// As much may come back as may be attached.
fn artifacts(limits: &Limits) -> ArtifactsLimits {
    ArtifactsLimits {
        content_bytes: limits.files_bytes,
        entries: limits.files_entries.min(MAX_ENTRIES),
    }
}

async fn cancelling(runner: &Runner) -> Result<Vec<Cancellation>, Refusal> {
    let mut session = runner.app.store.read().await?;
    Ok(jobs::cancelling(&mut session, runner.cluster.id).await?)
}

async fn record(runner: &Runner, request: &ContactRequest) -> Result<(), Refusal> {
    let mut profiles = request.profiles.clone();
    if profiles.len() > MAX_PROFILES {
        return Err(Refusal::invalid(format!(
            "a cluster offers at most {MAX_PROFILES} profiles, not {}",
            profiles.len()
        )));
    }
    profiles.sort_by(|one: &ProfileSummary, other| one.name.cmp(&other.name));
    // It is shown to people, and comes from outside.
    let version: String = request
        .version
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_VERSION_CHARS)
        .collect();
    let now = clock::now();
    let contact = clusters::Contact {
        runner_version: &version,
        profiles: &profiles,
        clock_skew_seconds: clock_skew(request.clock, now),
    };
    let mut session = runner.app.store.write().await?;
    clusters::record_contact(&mut session, runner.cluster.id, contact, now).await?;
    Ok(session.commit().await?)
}

/// By how many seconds a runner's clock is ahead of ours; `None` while that is no more than what a slow
/// network can make of it.
fn clock_skew(theirs: Timestamp, ours: Timestamp) -> Option<i64> {
    let ahead = theirs.duration_since(ours).as_secs();
    Some(ahead).filter(|ahead| ahead.unsigned_abs() > CLOCK_SKEW_SECONDS.unsigned_abs())
}

/// Jobs that were marked silent are running again, as far as anyone knows.
async fn end_silence(runner: &Runner) -> Result<(), Refusal> {
    let mut session = runner.app.store.read().await?;
    let silent = due::silent(&mut session, runner.cluster.id).await?;
    drop(session);
    let (by, now) = (runner.name(), clock::now());
    for job in silent {
        // Refused where somebody was faster: then it is not silent any more.
        runner
            .app
            .store
            .change(runner.change(job, &by, now), |_| Event::Contact {
                ends: ReasonCode::ClusterOffline,
            })
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn as_much_comes_back_as_may_be_attached() {
        let limits = |files_entries| Limits {
            files_bytes: 5 << 30,
            files_entries,
            retention_seconds: 1,
        };
        for (attached, back) in [(7, 7), (MAX_ENTRIES, MAX_ENTRIES), (u64::MAX, MAX_ENTRIES)] {
            let artifacts = artifacts(&limits(attached));
            assert_eq!(
                (artifacts.content_bytes, artifacts.entries),
                (5 << 30, back)
            );
        }
    }

    #[test]
    fn a_clock_is_wrong_by_more_than_half_a_minute() {
        let ours: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for (ahead, told) in [
            (0, None),
            (30, None),
            (31, Some(31)),
            (7200, Some(7200)),
            (-30, None),
            (-86_400, Some(-86_400)),
        ] {
            let theirs = ours + SignedDuration::from_secs(ahead);
            assert_eq!(clock_skew(theirs, ours), told);
        }
        assert!(clock_skew(Timestamp::MAX, ours).is_some());
        assert!(clock_skew(Timestamp::MIN, ours).is_some());
    }
}
