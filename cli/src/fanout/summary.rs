//! How a command ended on many clusters: a table, and a sentence.

use invoke_protocol::fanout::{Child, ChildCounts, ChildStateName, FanOut, FanOutStateName};
use invoke_protocol::state::StateName;
use jiff::Timestamp;

use super::Ended;
use crate::table::{columns, cut, duration};

/// How much of a reason is shown in a row.
const REASON_COLUMN: usize = 100;

/// A row for each cluster, in the order in which they start.
pub(super) fn table(fanout: &FanOut, ended: &Ended) -> String {
    let rows: Vec<_> = fanout
        .clusters
        .iter()
        .map(|child| row(child, ended))
        .collect();
    columns(["CLUSTER", "STATE", "EXIT", "TIME", "WHY"], &rows)
}

fn row(child: &Child, ended: &Ended) -> [String; 5] {
    let none = || "-".to_owned();
    [
        child.cluster.to_string(),
        state(child),
        child.exit_code.map_or_else(none, |code| code.to_string()),
        match (child.started, child.ended) {
            (Some(started), Some(over)) => time(started, over),
            _ => none(),
        },
        cut(&why(child, ended), REASON_COLUMN),
    ]
}

/// Its job's own state where that says more.
pub(crate) fn state(child: &Child) -> String {
    match (child.state, child.job_state) {
        (ChildStateName::Failed, Some(job)) if job != StateName::Failed => job.to_string(),
        (state, _) => state.to_string(),
    }
    .replace('_', " ")
}

/// The first thing that went wrong, as far as it is known.
fn why(child: &Child, ended: &Ended) -> String {
    let seen = child.job.and_then(|job| ended.get(&job));
    let trouble = seen.and_then(|seen| seen.trouble.clone());
    let first_error = seen.map(|seen| seen.first_error.clone());
    let first_error = first_error.filter(|line| !line.is_empty());
    let reason = child.reason.clone();
    match child.state {
        ChildStateName::Succeeded => trouble,
        // A command that ended by itself has said it itself.
        ChildStateName::Failed if child.exit_code.is_some() => first_error.or(reason).or(trouble),
        _ => reason.or(first_error).or(trouble),
    }
    .unwrap_or_default()
}

fn time(from: Timestamp, until: Timestamp) -> String {
    let milliseconds = until.duration_since(from).as_millis().max(0);
    match milliseconds {
        0..9_950 => format!(
            "{}.{}s",
            (milliseconds + 50) / 1000,
            (milliseconds + 50) % 1000 / 100
        ),
        _ => duration(u64::try_from((milliseconds + 500) / 1000).unwrap_or(0)),
    }
}

/// How many clusters came to which end; in one sentence why, if it did not come to its own.
pub(crate) fn sentence(fanout: &FanOut) -> String {
    let id = fanout.id;
    let count = counts(&fanout.counts);
    let why = match (fanout.state, &fanout.reason, &fanout.cancelled_by) {
        (FanOutStateName::Cancelled | FanOutStateName::Cancelling, _, by) => {
            let by = by.as_deref().unwrap_or("somebody");
            format!("; {by} cancelled it")
        }
        (_, Some(reason), _) => format!("; it stopped: {}", reason.message),
        _ => String::new(),
    };
    format!("fan-out {id}: {count}{why}")
}

/// `3 of 5 clusters succeeded, 1 failed, 1 skipped`
pub(crate) fn counts(counts: &ChildCounts) -> String {
    let all = counts.all();
    let clusters = if all == 1 { "cluster" } else { "clusters" };
    let others = [
        (counts.failed, "failed"),
        (counts.refused, "refused"),
        (counts.offline, "offline"),
        (counts.skipped, "skipped"),
        (counts.cancelled, "cancelled"),
        (counts.not_started, "not started"),
        (counts.running, "running"),
        (counts.pending, "pending"),
    ];
    let others: String = others
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!(", {count} {state}"))
        .collect();
    format!("{} of {all} {clusters} succeeded{others}", counts.succeeded)
}

/// What to do now, if there is something.
pub(super) fn hint(fanout: &FanOut) -> Option<String> {
    let id = fanout.id;
    match fanout.state {
        FanOutStateName::Stopped if fanout.counts.failures() > 0 => Some(format!(
            "`invoke fanouts {id} resume` goes on with the rest, `invoke fanouts {id} retry-failed` also tries again \
             what has failed"
        )),
        FanOutStateName::Stopped => Some(format!("`invoke fanouts {id} resume` goes on")),
        FanOutStateName::Incomplete if fanout.counts.failures() > 0 => Some(format!(
            "`invoke fanouts {id} retry-failed` tries again what has failed"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_as_exact_as_it_matters() {
        let from = Timestamp::UNIX_EPOCH;
        let after =
            |milliseconds: i64| time(from, from + jiff::SignedDuration::from_millis(milliseconds));
        let times = [-5, 0, 49, 50, 1234, 9949, 9950, 59_700, 3_661_000].map(after);
        assert_eq!(
            times.join(" "),
            "0.0s 0.0s 0.0s 0.1s 1.2s 9.9s 10s 1m 1h1m1s"
        );
    }

    #[test]
    fn counts_name_what_there_is() {
        let one = ChildCounts {
            succeeded: 1,
            ..ChildCounts::default()
        };
        assert_eq!(counts(&one), "1 of 1 cluster succeeded");
        let some = ChildCounts {
            succeeded: 3,
            failed: 1,
            not_started: 2,
            ..ChildCounts::default()
        };
        assert_eq!(
            counts(&some),
            "3 of 6 clusters succeeded, 1 failed, 2 not started"
        );
    }
}
