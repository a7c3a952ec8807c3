//! `invoke why ID`: what a job waits for or what it died of, and what to do about it.

use invoke_protocol::api::JobQuery;
use invoke_protocol::id::JobId;
use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::output::IncompleteReason;
use invoke_protocol::state::{ReasonCode, Started, StateName};
use jiff::Timestamp;
use serde::Serialize;

use super::Session;
use super::jobs::output_words;
use crate::args::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::{age, duration, moment, seconds_since};

/// Says why a job is where it is.
///
/// # Errors
/// See [`Failure`]; a job that failed is no failure to say so.
pub async fn why(id: JobId, session: &Session<'_>) -> Result<Exit, Failure> {
    let job = session.client.job(id, &JobQuery::default()).await?;
    let explanation = Explanation::of(&job, session.now);
    match session.format {
        Format::Json => session.printer.print_json(&explanation)?,
        Format::Text => session.printer.print(&explanation.text(&job))?,
    }
    Ok(Exit::SUCCESS)
}

/// Why a job is where it is, as JSON. Stable: names are added, never changed.
#[derive(Debug, Serialize)]
struct Explanation {
    id: JobId,
    state: StateName,
    /// Which reason; `null` where nothing is wrong and nothing has ended.
    code: Option<ReasonCode>,
    message: String,
    /// What else is to be known.
    detail: Option<String>,
    /// What to do now.
    advice: Option<String>,
    started: Started,
    exit_code: Option<u8>,
    output_complete: Option<Completeness>,
    output_incomplete_reason: Option<IncompleteReason>,
    retries: u32,
}

impl Explanation {
    fn of(job: &Job, now: Timestamp) -> Self {
        Self {
            id: job.id,
            state: job.state,
            code: code(job),
            message: message(job, now),
            detail: detail(job),
            advice: advice(job),
            started: job.started,
            exit_code: job.exit_code,
            output_complete: job.output_complete,
            output_incomplete_reason: job.output_incomplete_reason,
            retries: job.retries,
        }
    }

    fn text(&self, job: &Job) -> String {
        let first = format!(
            "job {} on cluster {} {}: {}",
            self.id,
            job.cluster,
            standing(job.state),
            self.message
        );
        let rest = [self.detail.clone(), self.advice.clone()];
        let lines = std::iter::once(first).chain(rest.into_iter().flatten());
        lines
            .map(|line| crate::printer::neutral(&line) + "\n")
            .collect()
    }
}

const fn standing(state: StateName) -> &'static str {
    match state {
        StateName::Queued | StateName::Claimed | StateName::Starting => "waits for its start",
        StateName::Running => "is running",
        StateName::ContactLost => "was started, and contact with it is lost",
        StateName::Cancelling => "is being cancelled",
        StateName::Succeeded => "succeeded",
        StateName::Failed => "failed",
        StateName::TimedOut => "timed out",
        StateName::Cancelled => "was cancelled",
        StateName::Expired => "expired",
        StateName::Rejected => "was rejected by its cluster",
        StateName::InfraFailed => "could not be started",
        StateName::Lost => "is lost",
    }
}

fn code(job: &Job) -> Option<ReasonCode> {
    let reason = job.reason.as_ref().or(job.waiting.as_ref());
    reason.map(|reason| reason.code)
}

fn message(job: &Job, now: Timestamp) -> String {
    match job.state {
        StateName::Running => running(job, now),
        StateName::Cancelling => cancelling(job),
        _ => match job.reason.as_ref().or(job.waiting.as_ref()) {
            Some(reason) => reason.message.clone(),
            None => format!(
                "its state is {}, and the dispatcher says no more",
                job.state
            ),
        },
    }
}

fn running(job: &Job, now: Timestamp) -> String {
    let since = job.times.permitted.map(|permitted| {
        let age = age(seconds_since(permitted, now));
        format!("since {} ({age})", moment(permitted))
    });
    let limit = job
        .run_timeout_seconds
        .map(|seconds| format!("for at most {}", duration(seconds)));
    let known: Vec<_> = since.into_iter().chain(limit).collect();
    if known.is_empty() {
        "its command was permitted to start".to_owned()
    } else {
        known.join(", ")
    }
}

fn cancelling(job: &Job) -> String {
    let by = job.cancelled_by.as_deref().unwrap_or("somebody");
    let since = job.times.cancel_requested;
    let since = since.map_or_else(String::new, |since| format!(" at {}", moment(since)));
    let stage = match job.times.cancel_delivered {
        Some(delivered) => format!(
            "its pod has had the order since {}: SIGTERM was sent, and SIGKILL follows when the grace is over",
            moment(delivered)
        ),
        None => "the order has not reached its pod yet".to_owned(),
    };
    format!("{by} asked for it{since}; {stage}")
}

/// What is certain about the start and the output.
fn detail(job: &Job) -> Option<String> {
    match job.state {
        StateName::Queued | StateName::Claimed | StateName::Starting => {
            let retries = match job.retries {
                0 => String::new(),
                count => format!(
                    "; its pod was lost before the start and replaced, {count} in a row so far"
                ),
            };
            let deadline = moment(job.times.start_deadline);
            Some(format!(
                "it may start until {deadline}, and is never started later{retries}"
            ))
        }
        StateName::Running | StateName::Cancelling => None,
        StateName::ContactLost => Some(
            "it may still be running, and is not started a second time; it becomes lost if nobody speaks \
             for it"
                .to_owned(),
        ),
        _ => Some(ended(job)),
    }
}

fn ended(job: &Job) -> String {
    let started = match job.started {
        Started::No => return "its command never started, and never will".to_owned(),
        Started::Yes => "its command started",
        Started::Unknown => {
            "its command was permitted to start, and nobody can say whether it did its work"
        }
    };
    match job.output_complete {
        Some(complete) => format!("{started}; its output is {}", output_words(job, complete)),
        None => started.to_owned(),
    }
}

fn advice(job: &Job) -> Option<String> {
    let id = job.id;
    let code = code(job).unwrap_or(ReasonCode::Unknown);
    Some(match job.state {
        StateName::Queued | StateName::Claimed | StateName::Starting => {
            format!("{}; `invoke cancel {id}` gives it up", remedy(code))
        }
        StateName::Running => {
            format!("`invoke logs -f {id}` follows it, `invoke cancel {id}` stops it")
        }
        StateName::ContactLost => format!("wait: `invoke logs -f {id}` follows it; `invoke clusters` shows whether its cluster speaks"),
        StateName::Cancelling => match job.times.cancel_delivered {
            Some(_) => format!("`invoke cancel --grace 0s {id}` does not wait for the grace"),
            None => "`invoke clusters` shows whether its cluster speaks".to_owned(),
        },
        StateName::Succeeded | StateName::Failed | StateName::Cancelled
            if job.started == Started::No =>
        {
            return None;
        }
        StateName::Failed if code == ReasonCode::OutOfMemory => {
            "give it less to do at once, or a profile with more memory: `invoke clusters` lists them".to_owned()
        }
        StateName::Succeeded | StateName::Failed | StateName::Cancelled => {
            format!("`invoke result {id}` prints its output")
        }
        StateName::TimedOut => "`--run-timeout` allows more, up to the profile's maximum".to_owned(),
        StateName::Expired | StateName::Rejected | StateName::InfraFailed => {
            format!("{}; then it can be run again", remedy(code))
        }
        StateName::Lost => format!(
            "look at what it did before you run it again; `invoke logs {id}` prints what it said"
        ),
    })
}

/// Who can do something about a job that does not start, and what.
const fn remedy(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::OnItsWay | ReasonCode::PodStarting => "nothing to do yet",
        ReasonCode::RunnerBusy => "it starts when a job before it ends",
        ReasonCode::ClusterNeverConnected => {
            "its runner must be installed: `invoke clusters token NAME` prints its values"
        }
        ReasonCode::ClusterOffline => {
            "the cluster's owner must bring its runner back: `invoke clusters` shows it"
        }
        ReasonCode::BrokerUnavailable => "the dispatcher's operator must look at RabbitMQ",
        ReasonCode::ClockSkew => "the cluster's owner must set the clocks of its nodes right",
        ReasonCode::UnknownProfile => "`invoke clusters` lists the profiles that there are",
        ReasonCode::Evicted | ReasonCode::Preempted | ReasonCode::NodeLost => {
            "nodes come and go: the cluster's owner can say why"
        }
        _ => "the cluster's owner must put that right",
    }
}
