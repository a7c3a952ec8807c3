//! `invoke jobs [ID]`

use std::fmt::Write as _;

use invoke_protocol::api::{JobQuery, JobsQuery};
use invoke_protocol::id::{ClusterName, JobId};
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::state::Started;
use jiff::Timestamp;

use super::Session;
use super::run::following_patience;
use crate::args::Format;
use crate::document::JobDocument;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::notices::Notices;
use crate::output::Output;
use crate::printer::neutral;
use crate::story;
use crate::table::{age, cut, moment, seconds_since, table};
use crate::verdict::missing;

/// How much of a command is shown in a row.
const COMMAND_COLUMN: usize = 60;

/// Lists jobs, the newest first.
///
/// # Errors
/// See [`Failure`].
pub async fn list(
    cluster: Option<ClusterName>,
    limit: u32,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let query = JobsQuery {
        cluster,
        limit: Some(limit),
        before: None,
    };
    let page = session.client.jobs(&query).await?;
    if session.format == Format::Json {
        session.printer.print_json(&page)?;
        return Ok(Exit::SUCCESS);
    }
    if page.jobs.is_empty() {
        session.printer.say("no jobs yet");
        return Ok(Exit::SUCCESS);
    }
    let rows: Vec<_> = page.jobs.iter().map(|job| row(job, session.now)).collect();
    let headings = [
        "ID", "CLUSTER", "PROFILE", "STATE", "EXIT", "AGE", "COMMAND",
    ];
    session.printer.print(&table(headings, &rows))?;
    Ok(Exit::SUCCESS)
}

/// Shows one job with its story; as JSON also with its output so far.
///
/// # Errors
/// See [`Failure`].
pub async fn one(id: JobId, session: &Session<'_>) -> Result<Exit, Failure> {
    if session.format == Format::Text {
        let job = session.client.job(id, &JobQuery::default()).await?;
        let page = format!("{}\n{}", detail(&job), story::told(&job));
        session.printer.print(&page)?;
        return Ok(Exit::SUCCESS);
    }
    let (output, notices) = (Output::to_memory(), Notices::new(session.printer));
    let follow = Follow::new(
        &session.client,
        id,
        output,
        notices,
        following_patience(session),
    );
    let (job, output) = follow.so_far().await?;
    let (stdout, stderr) = output.into_memory();
    session
        .printer
        .print_json(&JobDocument::new(job, stdout, stderr))?;
    Ok(Exit::SUCCESS)
}

fn row(job: &Job, now: Timestamp) -> [String; 7] {
    [
        job.id.to_string(),
        job.cluster.to_string(),
        job.profile.to_string(),
        job.state.to_string(),
        job.exit_code
            .map_or_else(|| "-".to_owned(), |code| code.to_string()),
        age(seconds_since(job.times.submitted, now)),
        cut(&job.command.to_string(), COMMAND_COLUMN),
    ]
}

fn detail(job: &Job) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<14}{}", neutral(&value));
        }
    };
    line("id", Some(job.id.to_string()));
    line("cluster", Some(job.cluster.to_string()));
    line("profile", Some(job.profile.to_string()));
    line("command", Some(job.command.to_string()));
    line("submitted by", Some(job.submitted_by.clone()));
    line("fan-out", job.fanout.map(|id| id.to_string()));
    line(
        "schedule",
        job.tick
            .as_ref()
            .map(|tick| format!("{} at {}", tick.schedule, moment(tick.instant))),
    );
    line("state", Some(job.state.to_string()));
    line(
        "waiting",
        job.waiting.as_ref().map(|reason| reason.message.clone()),
    );
    line(
        "reason",
        job.reason.as_ref().map(|reason| reason.message.clone()),
    );
    line(
        "retries",
        (job.retries > 0).then(|| job.retries.to_string()),
    );
    line("exit code", job.exit_code.map(|code| code.to_string()));
    line("cancelled by", job.cancelled_by.clone());
    let started = match job.started {
        Started::Yes => "yes",
        Started::No => "no",
        Started::Unknown => "unknown",
    };
    line("started", Some(started.to_owned()));
    line(
        "output",
        job.output_complete
            .map(|complete| output_words(job, complete)),
    );
    line("submitted", Some(moment(job.times.submitted)));
    line(
        "start by",
        job.times
            .permitted
            .is_none()
            .then(|| moment(job.times.start_deadline)),
    );
    line("permitted", job.times.permitted.map(moment));
    line("command began", job.times.started.map(moment));
    line("command ended", job.times.finished.map(moment));
    line("over", job.times.ended.map(moment));
    line("runner", job.runner.as_ref().map(ToString::to_string));
    line("pod", job.pod.map(|pod| pod.to_string()));
    text
}

pub(super) fn output_words(job: &Job, complete: Completeness) -> String {
    let bytes = |summary: &Option<invoke_protocol::output::StreamSummary>| {
        summary.as_ref().map_or(0, |summary| summary.bytes)
    };
    let (stdout, stderr) = (bytes(&job.stdout), bytes(&job.stderr));
    match complete {
        Completeness::Yes => format!("complete: {stdout} bytes of stdout, {stderr} of stderr"),
        Completeness::No => format!("INCOMPLETE: {}", missing(job)),
    }
}
