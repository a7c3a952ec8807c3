//! What a job that has not started waits for, in one sentence for people.
//!
//! The nearest cause wins: a cluster that is away explains everything behind it; what the runner said
//! is known better there than here; then a RabbitMQ that does not take the message, and a clock by which
//! orders look expired; otherwise the job is on its way, and this says where.

use invoke_protocol::api::{ClusterState, OFFLINE_AFTER_SECONDS};
use invoke_protocol::id::ClusterName;
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
    if let Some(absence) = absence(&job.cluster_name, job.cluster_last_contact, now) {
        let until = job.start_deadline.strftime("%Y-%m-%d %H:%M:%S UTC");
        return Some(if now < job.start_deadline {
            Reason::new(
                absence.code,
                format!("{}; the job waits until {until}", absence.message),
            )
        } else {
            absence
        });
    }
    Some(match &job.reported_waiting {
        Some(reported) => reported.clone(),
        None => on_its_way(job, broker, now),
    })
}

/// How a cluster is away, if it is.
#[must_use]
pub fn absence(
    cluster: &ClusterName,
    last_contact: Option<Timestamp>,
    now: Timestamp,
) -> Option<Reason> {
    match (cluster_state(last_contact, now), last_contact) {
        (ClusterState::Connected, Some(_)) => None,
        (_, Some(last)) => Some(Reason::new(
            ReasonCode::ClusterOffline,
            format!(
                "cluster {cluster} has been offline since {} ({})",
                last.strftime("%Y-%m-%d %H:%M:%S UTC"),
                for_people(seconds_between(last, now)),
            ),
        )),
        (_, None) => Some(Reason::new(
            ReasonCode::ClusterNeverConnected,
            format!("no runner has ever connected for cluster {cluster}"),
        )),
    }
}

/// Whether a job that waits for `reason` waits for its turn, so that its place in the queue says more.
#[must_use]
pub fn is_for_its_turn(job: &StoredJob, reason: &Reason) -> bool {
    match reason.code {
        ReasonCode::RunnerBusy => true,
        ReasonCode::OnItsWay => {
            matches!(job.state, JobState::Queued | JobState::Claimed { .. })
        }
        _ => false,
    }
}

/// The same reason, with the job's place in its cluster's queue behind `earlier` others.
#[must_use]
pub fn with_place(reason: Reason, cluster: &ClusterName, earlier: u64) -> Reason {
    let others = match earlier {
        0 => return reason,
        1 => "1 job submitted earlier has not started".to_owned(),
        more => format!("{more} jobs submitted earlier have not started"),
    };
    let place = ordinal(earlier.saturating_add(1));
    let message = format!(
        "{}; it is {place} in the queue of cluster {cluster}: {others}",
        reason.message
    );
    Reason::new(reason.code, message)
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

fn on_its_way(job: &StoredJob, broker: &Health, now: Timestamp) -> Reason {
    let cluster = &job.cluster_name;
    match &job.state {
        JobState::Claimed { runner, .. } => Reason::new(
            ReasonCode::OnItsWay,
            format!("runner {runner} of cluster {cluster} is making its pod"),
        ),
        JobState::Starting { .. } => Reason::new(
            ReasonCode::OnItsWay,
            format!("its pod in cluster {cluster} is starting"),
        ),
        _ => unsent(job, broker, now)
            .or_else(|| wrong_clock(job))
            .unwrap_or_else(|| in_the_queue(job)),
    }
}

/// What keeps the message from getting to the cluster, as far as it is known here.
fn unsent(job: &StoredJob, broker: &Health, now: Timestamp) -> Option<Reason> {
    let cluster = &job.cluster_name;
    // To a job whose time is over nothing is promised.
    let hope = |words| if now < job.start_deadline { words } else { "" };
    let message = match (broker, job.published_at, &job.outbox_error) {
        (Health::Disconnected { why }, None, _) => format!(
            "the dispatcher has no connection to RabbitMQ ({why}){}",
            hope("; the job is stored and will be sent when it is back")
        ),
        (Health::Disconnected { why }, Some(_), _) => format!(
            "it was put into the queue of cluster {cluster}, but the dispatcher has no connection to RabbitMQ ({why}){}",
            hope("; what RabbitMQ has lost is sent again when it is back")
        ),
        (Health::Blocked { why }, None, _) => format!(
            "RabbitMQ takes no messages ({why}){}",
            hope("; the job is stored and will be sent when it does")
        ),
        (Health::Connected, _, Some(error)) => format!(
            "the message to cluster {cluster} could not be delivered ({error}){}",
            hope("; it is being sent again")
        ),
        _ => return None,
    };
    Some(Reason::new(ReasonCode::BrokerUnavailable, message))
}

fn wrong_clock(job: &StoredJob) -> Option<Reason> {
    let (cluster, ahead) = (&job.cluster_name, job.cluster_clock_skew?);
    let (seconds, way) = (
        ahead.unsigned_abs(),
        if ahead > 0 { "ahead of" } else { "behind" },
    );
    let message = format!(
        "the clock of cluster {cluster} is {seconds} seconds {way} the dispatcher's, so orders or certificates \
         may not look valid there, and then nothing is started; set the clock of the runner's node"
    );
    Some(Reason::new(ReasonCode::ClockSkew, message))
}

fn in_the_queue(job: &StoredJob) -> Reason {
    let cluster = &job.cluster_name;
    let message = match job.published_at {
        None => format!("it is being sent to cluster {cluster}"),
        Some(_) => format!("it is in the queue of cluster {cluster}; no runner has taken it yet"),
    };
    Reason::new(ReasonCode::OnItsWay, message)
}

fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
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
        let blocked = Health::Blocked {
            why: "low on disk".to_owned(),
        };
        let ahead = StoredJob {
            cluster_clock_skew: Some(7200),
            ..published.clone()
        };
        let behind = StoredJob {
            cluster_clock_skew: Some(-86_400),
            ..connected.clone()
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
            (connected.clone(), &blocked),
            (published.clone(), &Health::Connected),
            (published.clone(), &down),
            (published.clone(), &blocked),
            (ahead, &Health::Connected),
            (behind, &Health::Connected),
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
        let sentences = cases.map(|(job, broker)| {
            let Reason { code, message } = reason(&job, broker, now).unwrap();
            format!("{code:?}: {message}")
        });
        insta::assert_snapshot!(sentences.join("\n"), @r"
        ClusterNeverConnected: no runner has ever connected for cluster edge-7; the job waits until 2026-11-22 10:00:00 UTC
        ClusterNeverConnected: no runner has ever connected for cluster edge-7
        ClusterOffline: cluster edge-7 has been offline since 2026-11-22 09:50:00 UTC (8 min); the job waits until 2026-11-22 10:00:00 UTC
        OnItsWay: it is being sent to cluster edge-7
        BrokerUnavailable: the dispatcher has no connection to RabbitMQ (connection refused); the job is stored and will be sent when it is back
        BrokerUnavailable: the message to cluster edge-7 could not be delivered (there is no queue); it is being sent again
        BrokerUnavailable: RabbitMQ takes no messages (low on disk); the job is stored and will be sent when it does
        OnItsWay: it is in the queue of cluster edge-7; no runner has taken it yet
        BrokerUnavailable: it was put into the queue of cluster edge-7, but the dispatcher has no connection to RabbitMQ (connection refused); what RabbitMQ has lost is sent again when it is back
        OnItsWay: it is in the queue of cluster edge-7; no runner has taken it yet
        ClockSkew: the clock of cluster edge-7 is 7200 seconds ahead of the dispatcher's, so orders or certificates may not look valid there, and then nothing is started; set the clock of the runner's node
        ClockSkew: the clock of cluster edge-7 is 86400 seconds behind the dispatcher's, so orders or certificates may not look valid there, and then nothing is started; set the clock of the runner's node
        OnItsWay: runner runner-0 of cluster edge-7 is making its pod
        ImagePull: the image cannot be pulled
        ");
    }

    /// Who waits for its turn is told how many come first; who waits for something else is not.
    #[test]
    fn a_turn_has_a_place() {
        let places = [0, 1, 2, 3, 10, 20, 111].map(|earlier| {
            let reason = Reason::new(ReasonCode::RunnerBusy, "10 jobs at once");
            with_place(reason, &queued_job().cluster_name, earlier).message
        });
        insta::assert_snapshot!(places.join("\n"), @r"
        10 jobs at once
        10 jobs at once; it is 2nd in the queue of cluster edge-7: 1 job submitted earlier has not started
        10 jobs at once; it is 3rd in the queue of cluster edge-7: 2 jobs submitted earlier have not started
        10 jobs at once; it is 4th in the queue of cluster edge-7: 3 jobs submitted earlier have not started
        10 jobs at once; it is 11th in the queue of cluster edge-7: 10 jobs submitted earlier have not started
        10 jobs at once; it is 21st in the queue of cluster edge-7: 20 jobs submitted earlier have not started
        10 jobs at once; it is 112th in the queue of cluster edge-7: 111 jobs submitted earlier have not started
        ");
        let starting = JobState::Starting {
            runner: RunnerId("runner-0".to_owned()),
            since: Timestamp::UNIX_EPOCH,
        };
        let starting = StoredJob {
            state: starting,
            ..queued_job()
        };
        for (job, code, place) in [
            (queued_job(), ReasonCode::OnItsWay, true),
            (queued_job(), ReasonCode::ClusterOffline, false),
            (queued_job(), ReasonCode::BrokerUnavailable, false),
            (starting.clone(), ReasonCode::OnItsWay, false),
            (starting.clone(), ReasonCode::RunnerBusy, true),
            (starting, ReasonCode::ImagePull, false),
        ] {
            assert_eq!(
                is_for_its_turn(&job, &Reason::new(code, "")),
                place,
                "{code:?}"
            );
        }
    }

    /// These words stay with an expired job for ever.
    #[test]
    fn a_job_whose_time_is_over_is_promised_nothing() {
        let now = at("2026-11-22T10:00:01Z");
        let overdue = StoredJob {
            cluster_last_contact: Some(now),
            ..queued_job()
        };
        let why = "connection refused".to_owned();
        for broker in [
            Health::Disconnected { why: why.clone() },
            Health::Blocked { why },
        ] {
            let said = reason(&overdue, &broker, now).unwrap().message;
            assert!(!said.contains("will be"), "{said}");
        }
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
