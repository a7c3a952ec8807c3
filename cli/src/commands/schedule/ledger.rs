//! `invoke schedule history NAME`: what became of the times of a schedule.

use invoke_protocol::id::ScheduleName;
use invoke_protocol::schedule::{Tick, TickCause, TickOutcome, TickResult, TicksQuery};

use crate::args::Format;
use crate::commands::Session;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::{columns, duration, moment};

/// Shows the ledger, the newest first.
pub(super) async fn history(
    name: &ScheduleName,
    limit: u32,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let query = TicksQuery {
        limit: Some(limit),
        before: None,
    };
    let page = session.client.ticks(name, &query).await?;
    if session.format == Format::Json {
        session.printer.print_json(&page)?;
    } else if page.ticks.is_empty() {
        session
            .printer
            .say(&format!("schedule {name} was never due yet"));
    } else {
        let rows: Vec<_> = page.ticks.iter().map(row).collect();
        let headings = ["TIME", "OUTCOME", "LATE", "RUN", "RESULT", "MESSAGE"];
        session.printer.print(&columns(headings, &rows))?;
    }
    Ok(Exit::SUCCESS)
}

fn row(tick: &Tick) -> [String; 6] {
    let none = || "-".to_owned();
    [
        moment(tick.instant),
        outcome(tick),
        tick.lateness_ms.map_or_else(none, lateness),
        run(tick).unwrap_or_else(none),
        result(tick).unwrap_or_else(none),
        tick.message.clone(),
    ]
}

/// `skipped (overlap)`
fn outcome(tick: &Tick) -> String {
    let mut particulars = Vec::new();
    particulars.extend(tick.cause.map(|cause| cause.as_str().replace('_', " ")));
    particulars.extend(tick.by_hand.then(|| "run now".to_owned()));
    let outcome = tick.outcome.as_str().replace('_', " ");
    match particulars.is_empty() {
        true => outcome,
        false => format!("{outcome} ({})", particulars.join(", ")),
    }
}

/// How it ended, as short as it can be said.
pub(super) fn ending(tick: &Tick) -> String {
    result(tick).unwrap_or_else(|| tick.outcome.as_str().replace('_', " "))
}

fn result(tick: &Tick) -> Option<String> {
    let result = tick.result?.as_str();
    Some(match tick.attempts {
        0 | 1 => result.to_owned(),
        attempts => format!("{result} (attempt {attempts})"),
    })
}

fn run(tick: &Tick) -> Option<String> {
    let fanout = || tick.fanout.map(|id| id.to_string());
    tick.job.map(|id| id.to_string()).or_else(fanout)
}

fn lateness(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => duration(milliseconds / 1000),
    }
}

/// What became of a tick, and why, in one sentence.
pub(super) fn sentence(tick: &Tick) -> String {
    let at = moment(tick.instant);
    let became = match tick.outcome {
        TickOutcome::Fired if tick.by_hand => "it was run because somebody said so",
        TickOutcome::Fired => "it was run",
        TickOutcome::CaughtUp => "it was run later, to make up for it",
        TickOutcome::Queued => "it waits for the end of another run",
        TickOutcome::Deferred => "it waits for its cluster",
        TickOutcome::Skipped => "it was skipped",
        TickOutcome::Missed => "it was missed",
        TickOutcome::Refused => "it was refused",
    };
    let because = tick
        .cause
        .map(cause)
        .map(|cause| format!(", because {cause}"));
    let message = (!tick.message.is_empty()).then(|| format!(": {}", tick.message));
    let kind = if tick.fanout.is_some() {
        "fan-out"
    } else {
        "job"
    };
    let run = run(tick).map(|id| match tick.result {
        None => format!("; {kind} {id}"),
        Some(TickResult::Succeeded) => format!("; {kind} {id} succeeded"),
        Some(TickResult::Failed) => format!("; {kind} {id} failed"),
        Some(TickResult::Cancelled) => format!("; {kind} {id} was cancelled"),
    });
    let parts = [because, message, run].into_iter().flatten();
    format!("{at}: {became}{}", parts.collect::<String>())
}

/// In words that follow "because".
const fn cause(cause: TickCause) -> &'static str {
    match cause {
        TickCause::Overlap => "the run before it went on",
        TickCause::Blackout => "a calendar closes that time",
        TickCause::Paused => "the schedule was paused",
        TickCause::Suspended => "the schedule was suspended",
        TickCause::ByHand => "somebody said that it was to be skipped",
        TickCause::Superseded => "a later time was due as well",
        TickCause::NobodyThere => "no dispatcher was there in time",
        TickCause::Unavailable => "no more jobs were taken",
        TickCause::ClusterOffline => "its cluster was offline",
        TickCause::TooLate => "its window, or its time to start, was over",
        TickCause::NotAllowed => "its owner may not do that, or its cluster offers no such thing",
    }
}
