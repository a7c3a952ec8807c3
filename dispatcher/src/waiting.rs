//! What a job that has not started waits for, in one sentence for people.
//!
//! The nearest cause wins: a cluster that is away explains everything behind it; what the runner said
//! is known better there than here; otherwise the job is on its way, and this says where.

use invoke_protocol::api::{ClusterState, OFFLINE_AFTER_SECONDS};
use invoke_protocol::state::{JobState, Reason, ReasonCode};
use jiff::Timestamp;

use crate::broker::Health;
use crate::store::jobs::StoredJob;

/// Why the job has not started; `None` once it was permitted to, or is over.
#[must_use]
pub fn reason(job: &StoredJob, broker: &Health, now: Timestamp) -> Option<Reason> {
    if !matches!(
        job.state,
        JobState::Queued | JobState::Claimed { .. } | JobState::Starting { .. }
    ) {
        return None;
    }
    let cluster = &job.cluster_name;
    let patience = if now < job.start_deadline {
        let until = job.start_deadline.strftime("%Y-%m-%d %H:%M:%S UTC");
        format!("; the job waits until {until}")
    } else {
        String::new()
    };
    let (code, message) = match (
        cluster_state(job.cluster_last_contact, now),
        job.cluster_last_contact,
    ) {
        (ClusterState::Offline, Some(last)) => (
            ReasonCode::ClusterOffline,
            format!(
                "cluster {cluster} has been offline since {} ({}){patience}",
                last.strftime("%Y-%m-%d %H:%M:%S UTC"),
                for_people(seconds_between(last, now)),
            ),
        ),
        (ClusterState::NeverConnected | ClusterState::Offline, _) => (
            ReasonCode::ClusterNeverConnected,
            format!("no runner has ever connected for cluster {cluster}{patience}"),
        ),
        (ClusterState::Connected, _) => match &job.reported_waiting {
            Some(reported) => return Some(reported.clone()),
            None => (ReasonCode::OnItsWay, on_its_way(job, broker)),
        },
    };
    Some(Reason::new(code, message))
}

/// Whether a cluster's runner speaks, by when it spoke last.
#[must_use]
pub fn cluster_state(last_contact: Option<Timestamp>, now: Timestamp) -> ClusterState {
    match last_contact {
        None => ClusterState::NeverConnected,
        Some(last) if seconds_between(last, now) > OFFLINE_AFTER_SECONDS => ClusterState::Offline,
        Some(_) => ClusterState::Connected,
    }
}

/// Whole seconds from `earlier` to `later`; none if it is the other way round.
#[must_use]
pub fn seconds_between(earlier: Timestamp, later: Timestamp) -> u64 {
    u64::try_from(later.as_second().saturating_sub(earlier.as_second())).unwrap_or(0)
}

fn on_its_way(job: &StoredJob, broker: &Health) -> String {
    let cluster = &job.cluster_name;
    match (&job.state, job.published_at, broker) {
        (JobState::Claimed { runner, .. }, ..) => {
            format!("runner {runner} of cluster {cluster} is making its pod")
        }
        (JobState::Starting { .. }, ..) => format!("its pod in cluster {cluster} is starting"),
        (_, None, Health::Disconnected { why }) => {
            format!(
                "the dispatcher has no connection to RabbitMQ ({why}); the job is stored and will be sent when it is back"
            )
        }
        (_, None, Health::Blocked { why }) => {
            format!(
                "RabbitMQ takes no messages ({why}); the job is stored and will be sent when it does"
            )
        }
        (_, None, Health::Connected) => match &job.outbox_error {
            Some(error) => format!(
                "the message to cluster {cluster} could not be delivered ({error}); it is being sent again"
            ),
            None => format!("it is being sent to cluster {cluster}"),
        },
        (_, Some(_), _) => {
            format!("it is in the queue of cluster {cluster}; no runner has taken it yet")
        }
    }
}

fn for_people(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use invoke_protocol::id::RunnerId;

    use super::*;
    use crate::store::jobs::tests::queued_job;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_wait_has_a_sentence() {
        let now = at("2026-11-22T09:58:00Z");
        let connected = StoredJob {
            cluster_last_contact: Some(at("2026-11-22T09:57:55Z")),
            ..queued_job()
        };
        let published = StoredJob {
            published_at: Some(now),
            ..connected.clone()
        };
        let claimed = JobState::Claimed {
            runner: RunnerId("runner-0".to_owned()),
            since: now,
        };
        let down = Health::Disconnected {
            why: "connection refused".to_owned(),
        };
        let pull = Reason::new(ReasonCode::ImagePull, "the image cannot be pulled");
        let cases = [
            (queued_job(), &Health::Connected),
            (
                StoredJob {
                    start_deadline: now,
                    ..queued_job()
                },
                &Health::Connected,
            ),
            (
                StoredJob {
                    cluster_last_contact: Some(at("2026-11-22T09:50:00Z")),
                    ..queued_job()
                },
                &Health::Connected,
            ),
            (connected.clone(), &Health::Connected),
            (connected.clone(), &down),
            (
                StoredJob {
                    outbox_error: Some("there is no queue".to_owned()),
                    ..connected.clone()
                },
                &Health::Connected,
            ),
            (published.clone(), &down),
            (
                StoredJob {
                    state: claimed.clone(),
                    ..published.clone()
                },
                &Health::Connected,
            ),
            (
                StoredJob {
                    state: claimed,
                    reported_waiting: Some(pull),
                    ..published
                },
                &Health::Connected,
            ),
        ];
        let sentences = cases
            .map(|(job, broker)| reason(&job, broker, now).unwrap().message)
            .join("\n");
        insta::assert_snapshot!(sentences, @r"
        no runner has ever connected for cluster edge-7; the job waits until 2026-11-22 10:00:00 UTC
        no runner has ever connected for cluster edge-7
        cluster edge-7 has been offline since 2026-11-22 09:50:00 UTC (8 min); the job waits until 2026-11-22 10:00:00 UTC
        it is being sent to cluster edge-7
        the dispatcher has no connection to RabbitMQ (connection refused); the job is stored and will be sent when it is back
        the message to cluster edge-7 could not be delivered (there is no queue); it is being sent again
        it is in the queue of cluster edge-7; no runner has taken it yet
        runner runner-0 of cluster edge-7 is making its pod
        the image cannot be pulled
        ");
    }

    #[test]
    fn a_job_that_started_waits_for_nothing() {
        let running = JobState::Running {
            pod: "0197c1f0-0000-7000-8000-0000000000aa".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(
            reason(
                &StoredJob {
                    state: running,
                    ..queued_job()
                },
                &Health::Connected,
                Timestamp::UNIX_EPOCH
            ),
            None
        );
    }
}
