//! Table `job_story`: what happened to a job, for people. Rows are only ever added, in the transaction
//! of what they tell of, so a story never tells of what was not, and never leaves out what was.
//!
//! The submission is not in it: the job itself says when it was, and by whom.

use invoke_protocol::id::JobId;
use invoke_protocol::job::{Step, StepName};
use invoke_protocol::state::{Event, JobState, MAX_RETRIES, Retries};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;

use super::column::Row;
use super::{Error, Session, one_row};

/// How long a story may become by steps that can come again and again: a runner that repeats itself in
/// ever new words must not fill the store.
const MAX_REPEATABLE: i64 = 1000;

/// Adds a step that made the job's version `version`.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn add(
    session: &mut Session,
    job: JobId,
    version: i64,
    step: &Step,
) -> Result<(), Error> {
    if version > MAX_REPEATABLE && is_repeatable(step.step) {
        return Ok(());
    }
    let added = sql!(
        session,
        execute,
        "INSERT INTO job_story (job_id, seq, at, who, step, message) VALUES ($1, $2, $3, $4, $5, $6)",
        *job.as_uuid(),
        version,
        step.at.as_microsecond(),
        step.by.as_str(),
        step.step.as_str(),
        step.message.as_str(),
    )?;
    one_row("job_story", job, added)
}

/// Whether the story has this step with these words already.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn has(
    session: &mut Session,
    job: JobId,
    step: StepName,
    message: &str,
) -> Result<bool, Error> {
    let (count,) = sql!(
        session,
        fetch_one as (i64,),
        "SELECT COUNT(*) FROM job_story WHERE job_id = $1 AND step = $2 AND message = $3",
        *job.as_uuid(),
        step.as_str(),
        message,
    )?;
    Ok(count > 0)
}

/// What happened to a job since it was submitted, oldest first.
///
/// # Errors
/// [`Error`].
pub async fn of_job(session: &mut Session, job: JobId) -> Result<Vec<Step>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64, String, String, String),
        "SELECT at, who, step, message FROM job_story WHERE job_id = $1 ORDER BY seq",
        *job.as_uuid(),
    )?;
    let place = Row {
        table: "job_story",
        key: job.to_string(),
    };
    rows.into_iter()
        .map(|(at, by, step, message)| {
            let step: StrDeserializer<'_, serde::de::value::Error> =
                step.as_str().into_deserializer();
            Ok(Step {
                at: place.time("at", at)?,
                by,
                step: StepName::deserialize(step)
                    .map_err(|error| place.contradiction("step", error))?,
                message,
            })
        })
        .collect()
}

/// Steps that nothing but somebody's restraint keeps from coming again.
const fn is_repeatable(step: StepName) -> bool {
    matches!(
        step,
        StepName::Published
            | StepName::Claimed
            | StepName::Waiting
            | StepName::Postponed
            | StepName::ContactLost
            | StepName::ContactBack
            | StepName::ReportRefused
    )
}

/// Which step a change of state is, and its particulars in people's words.
pub(super) fn of_change(event: &Event, next: &JobState, retries: Retries) -> (StepName, String) {
    if next.is_terminal() {
        return (StepName::Ended, end(next));
    }
    match event {
        Event::Claim { .. } => (StepName::Claimed, String::new()),
        Event::PodCreated { .. } => (StepName::PodCreated, String::new()),
        Event::Permit { pod, .. } => (StepName::Permitted, format!("pod {pod}")),
        Event::Recover { pod, .. } => (
            StepName::Recovered,
            format!("the cluster has a record that pod {pod} was permitted to start the command"),
        ),
        Event::Cancel { grace_seconds, .. } => {
            let grace = grace_seconds.map_or_else(String::new, |seconds| {
                format!("the command has {seconds} s to end by itself")
            });
            (StepName::CancelRequested, grace)
        }
        Event::CancelDelivered { pod } => (StepName::CancelDelivered, format!("pod {pod}")),
        Event::PodFailed { reason, .. } => {
            let Retries { count, .. } = retries;
            let message = format!("{} (retry {count} of {MAX_RETRIES})", reason.message);
            (StepName::Retried, message)
        }
        Event::Postpone => (StepName::Postponed, String::new()),
        Event::Silence { reason } => (StepName::ContactLost, reason.message.clone()),
        Event::Contact { .. } => (StepName::ContactBack, String::new()),
        // These end a job or change nothing.
        Event::Exit { .. }
        | Event::StartRefused { .. }
        | Event::Reject { .. }
        | Event::StartDeadline { .. }
        | Event::GiveUp { .. } => (StepName::Ended, end(next)),
    }
}

fn end(state: &JobState) -> String {
    let name = state.name();
    match state.reason() {
        Some(reason) => format!("{name}: {}", reason.message),
        None => name.to_string(),
    }
}
