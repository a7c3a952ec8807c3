//! `invoke schedule list`, `invoke schedule show NAME`, `invoke schedule next NAME`

use std::fmt::Write as _;

use invoke_protocol::id::ScheduleName;
use invoke_protocol::schedule::{
    CatchUp, ComingTick, ComingTicks, NextQuery, Notify, NotifyBy, NotifyOn, Overlap, Retry,
    RetryOn, Run, Schedule, ScheduleSpec,
};
use invoke_protocol::timing::{AtWindowEnd, When};
use jiff::fmt::temporal::Pieces;

use super::{ledger, standing};
use crate::args::Format;
use crate::commands::Session;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::neutral;
use crate::table::{columns, cut, duration, moment, table};

/// How much of a command is shown in a row.
const COMMAND_COLUMN: usize = 60;

/// Lists schedules.
pub(super) async fn list(session: &Session<'_>) -> Result<Exit, Failure> {
    let list = session.client.schedules().await?;
    if session.format == Format::Json {
        session.printer.print_json(&list)?;
    } else if list.schedules.is_empty() {
        session.printer.say("no schedules yet");
        session
            .printer
            .say("hint: `invoke schedule create --help` shows how one is made");
    } else {
        let rows: Vec<_> = list.schedules.iter().map(row).collect();
        let headings = ["NAME", "STATE", "WHEN", "WHERE", "NEXT", "LAST", "COMMAND"];
        session.printer.print(&table(headings, &rows))?;
    }
    Ok(Exit::SUCCESS)
}

fn row(schedule: &Schedule) -> [String; 7] {
    let none = || "-".to_owned();
    [
        schedule.name.to_string(),
        schedule.state.as_str().to_owned(),
        when(&schedule.spec),
        place(&schedule.spec.run),
        match schedule.skip_next {
            true => "skipped once".to_owned(),
            false => schedule.next.map_or_else(none, moment),
        },
        schedule.last.as_ref().map_or_else(none, ledger::ending),
        cut(&schedule.spec.run.job().command.to_string(), COMMAND_COLUMN),
    ]
}

/// Shows a schedule.
pub(super) async fn one(name: &ScheduleName, session: &Session<'_>) -> Result<Exit, Failure> {
    let schedule = session.client.schedule(name).await?;
    match session.format {
        Format::Json => session.printer.print_json(&schedule)?,
        Format::Text => session.printer.print(&detail(&schedule))?,
    }
    Ok(Exit::SUCCESS)
}

fn detail(schedule: &Schedule) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<14}{}", neutral(&value));
        }
    };
    let spec = &schedule.spec;
    let (job, timing) = (spec.run.job(), &spec.timing);
    line("name", Some(schedule.name.to_string()));
    line("owner", Some(schedule.owner.clone()));
    line("state", Some(standing(schedule)));
    line("skip next", schedule.skip_next.then(|| "yes".to_owned()));
    line("command", Some(job.command.to_string()));
    line("where", Some(place(&spec.run)));
    line("profile", Some(job.profile.to_string()));
    line("when", Some(when(spec)));
    line("offset", timing.offset.map(|offset| offset.to_string()));
    line("window", timing.window_seconds.map(duration));
    line("cutoff", timing.cutoff_seconds.map(duration));
    let is_cancelled = timing.at_window_end == AtWindowEnd::Cancel;
    line("at window end", is_cancelled.then(|| "cancel".to_owned()));
    line(
        "jitter",
        timing
            .jitter_seconds
            .map(|most| format!("up to {}", duration(most))),
    );
    line("only during", names(&spec.open_calendars));
    line("also during", names(&spec.ignored_calendars));
    line("overlap", Some(overlap(spec.overlap).to_owned()));
    line("catch up", Some(catch_up(spec.catch_up)));
    line("retry", spec.retry.as_ref().map(retry));
    line(
        "on failure",
        spec.pause_after_failures
            .map(|count| format!("pause after {count}")),
    );
    for notify in &spec.notify {
        line("tells", Some(tells(notify)));
    }
    line("long running", spec.long_running_seconds.map(duration));
    line("start within", job.start_within_seconds.map(duration));
    line("run timeout", job.run_timeout_seconds.map(duration));
    line("files", job.files.map(|files| files.sha256.to_string()));
    let variables = job.environment.variables().keys();
    line("variables", names(&variables.collect::<Vec<_>>()));
    line("secrets", names(&schedule.secrets));
    line(
        "failures",
        (schedule.failures > 0).then(|| format!("{} in a row", schedule.failures)),
    );
    line("last", schedule.last.as_ref().map(ledger::sentence));
    line("created", Some(moment(schedule.created)));
    line(
        "changed",
        (schedule.changed != schedule.created).then(|| {
            format!(
                "{} (revision {})",
                moment(schedule.changed),
                schedule.revision
            )
        }),
    );
    text
}

/// Shows when it runs next.
pub(super) async fn next(
    name: &ScheduleName,
    limit: u32,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let query = NextQuery { limit: Some(limit) };
    let coming = session.client.coming_ticks(name, &query).await?;
    match session.format {
        Format::Json => session.printer.print_json(&coming)?,
        Format::Text if coming.ticks.is_empty() => {
            session
                .printer
                .say(&format!("schedule {name} never runs again"));
        }
        Format::Text => session.printer.print(&coming_table(&coming))?,
    }
    Ok(Exit::SUCCESS)
}

/// When it runs, by its own zone and by all others, and what touches that.
pub(super) fn coming_table(coming: &ComingTicks) -> String {
    let rows: Vec<_> = coming.ticks.iter().map(coming_row).collect();
    let zone = format!("TIME ({})", neutral(&coming.time_zone));
    columns([&zone, "UTC", "NOTES"], &rows)
}

fn coming_row(tick: &ComingTick) -> [String; 3] {
    let jitter = match tick.jitter_seconds {
        0 => None,
        seconds => Some(format!("starts {} later", duration(seconds))),
    };
    let notes = tick.notes.iter().map(|note| note.message.clone());
    let notes: Vec<_> = notes.chain(jitter).collect();
    [
        local(&tick.local),
        tick.instant.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        notes.join("; "),
    ]
}

/// As the dispatcher counts it, whose rules for a zone may be newer than ours: nothing is computed here.
fn local(text: &str) -> String {
    let Ok(pieces) = Pieces::parse(text) else {
        return text.to_owned();
    };
    let (date, time) = (pieces.date(), pieces.time().unwrap_or_default());
    let offset = pieces.to_numeric_offset();
    let offset = offset.map_or_else(String::new, |offset| format!(" {offset}"));
    let date = date.strftime("%a %Y-%m-%d");
    format!("{date} {time}{offset}")
}

/// What makes its times.
fn when(spec: &ScheduleSpec) -> String {
    let zone = &spec.timing.time_zone;
    match &spec.timing.when {
        When::Cron { expression } => format!("{expression} {zone}"),
        When::Every { seconds, from } => {
            format!("every {} from {}", duration(*seconds), moment(*from))
        }
        When::At { time } => format!("once, {}", moment(*time)),
    }
}

fn place(run: &Run) -> String {
    match run {
        Run::Job(job) => match &job.cluster {
            Some(cluster) => cluster.to_string(),
            None => "the only cluster".to_owned(),
        },
        Run::FanOut(fanout) => format!("-l {}", fanout.selector),
    }
}

const fn overlap(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Skip => "skip",
        Overlap::QueueOne => "queue-one",
        Overlap::CancelRunning => "cancel-running",
        Overlap::Allow => "allow",
    }
}

fn catch_up(catch_up: CatchUp) -> String {
    match catch_up {
        CatchUp::None => "none".to_owned(),
        CatchUp::Last => "last".to_owned(),
        CatchUp::All(most) => format!("all={most}"),
    }
}

fn retry(retry: &Retry) -> String {
    let on: Vec<_> = retry
        .on
        .iter()
        .map(|on| match on {
            RetryOn::NeverStarted => "never-started".to_owned(),
            RetryOn::Exit(code) => format!("exit={code}"),
        })
        .collect();
    format!("{} times, on {}", retry.times, on.join(","))
}

fn tells(notify: &Notify) -> String {
    let by = match &notify.by {
        NotifyBy::Webhook(url) => url.clone(),
        NotifyBy::Command(command) => format!("`{command}`"),
    };
    let on: Vec<_> = notify.on.iter().copied().map(NotifyOn::as_str).collect();
    match on.is_empty() {
        true => format!("{by} of all"),
        false => format!("{by} of {}", on.join(",").replace('_', "-")),
    }
}

fn names<T: std::fmt::Display>(names: &[T]) -> Option<String> {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_is_shown_as_it_came() {
        assert_eq!(
            local("2026-11-22T02:30:00+01:00[Europe/Berlin]"),
            "Sun 2026-11-22 02:30:00 +01"
        );
        assert_eq!(
            local("2026-11-22T02:30:00+05:45[Nowhere/Known]"),
            "Sun 2026-11-22 02:30:00 +05:45"
        );
        assert_eq!(local("soon"), "soon");
    }
}
