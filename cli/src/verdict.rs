//! How a job ended: the words, and the exit code.

use invoke_protocol::job::{Completeness, Job};
use invoke_protocol::output::{Discarded, IncompleteReason};
use invoke_protocol::state::{ReasonCode, Started, StateName};

use crate::commands::artifacts;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::table::moment;

/// Says what a person must know of a job that is over, and returns what to exit with. A command that
/// ended by itself has said everything already.
#[must_use]
pub fn conclude(job: &Job, taken_bytes: u64, printer: &Printer) -> Exit {
    if let Some(sentence) = incomplete(job, taken_bytes) {
        printer.say(&sentence);
    }
    if let Some(sentence) = job.artifacts.as_ref().and_then(artifacts::incomplete) {
        printer.say(&sentence);
    }
    if let Some(sentence) = sentence(job) {
        printer.say(&sentence);
    }
    Exit::of_job(job)
}

/// What is to be said of a job that is over; `None` if its command ended by itself, and nothing of the
/// pod's had a part in it.
#[must_use]
pub fn sentence(job: &Job) -> Option<String> {
    let id = job.id;
    let why = job
        .reason
        .as_ref()
        .map(|reason| format!(": {}", reason.message))
        .unwrap_or_default();
    let code = job
        .exit_code
        .map(|code| format!("; its command ended with code {code}"));
    let code = code.unwrap_or_default();
    match job.state {
        StateName::Expired => {
            let deadline = moment(job.times.start_deadline);
            Some(format!(
                "job {id} expired: it was not started by {deadline}{why}"
            ))
        }
        StateName::Rejected => Some(format!(
            "job {id} was rejected by its cluster and never started{why}"
        )),
        StateName::InfraFailed => Some(format!("job {id} never started{why}")),
        // By what its shim said of the end, which is no result.
        StateName::Lost if job.started == Started::Yes => Some(format!(
            "job {id} is lost: its command was stopped half-way, and nobody knows how much it did{why}"
        )),
        StateName::Lost => Some(format!(
            "job {id} is lost: its command was permitted to start, and nobody knows how it ended{why}"
        )),
        // What the kernel did, the command cannot have said itself.
        StateName::Failed if is_out_of_memory(job) => Some(format!("job {id} failed{why}")),
        StateName::Succeeded if is_out_of_memory(job) => Some(format!(
            "job {id} succeeded by its exit code, but look at its output{why}"
        )),
        StateName::TimedOut => Some(format!(
            "job {id} timed out: it ran longer than it was allowed and was stopped{code}"
        )),
        StateName::Cancelled => {
            let by = job.cancelled_by.as_deref().unwrap_or("somebody");
            let code = if code.is_empty() {
                "; its command never started"
            } else {
                &code
            };
            Some(format!("job {id} was cancelled by {by}{code}"))
        }
        _ => None,
    }
}

/// What is to be said of output of which some is missing.
pub(crate) fn incomplete(job: &Job, taken_bytes: u64) -> Option<String> {
    if job.output_complete != Some(Completeness::No) {
        return None;
    }
    let why = missing(job);
    let written = match (&job.stdout, &job.stderr) {
        (Some(stdout), Some(stderr)) => {
            let Discarded {
                stdout_bytes,
                stderr_bytes,
            } = job.discarded;
            let all = stdout.bytes + stderr.bytes + stdout_bytes + stderr_bytes;
            format!(" of {all}")
        }
        _ => String::new(),
    };
    Some(format!(
        "OUTPUT IS INCOMPLETE: this is {taken_bytes}{written} bytes; {why}"
    ))
}

/// Why output is missing, where some is.
pub(crate) const fn missing(job: &Job) -> &'static str {
    match job.output_incomplete_reason {
        Some(IncompleteReason::NotUploaded) => "the rest was never uploaded",
        Some(IncompleteReason::Cap) => "the rest was over the profile's cap and is not kept",
        Some(IncompleteReason::StorageFull) => "the dispatcher had no room for the rest",
        Some(IncompleteReason::PodGone | IncompleteReason::Unknown) | None => {
            "nobody knows how much is missing"
        }
    }
}

fn is_out_of_memory(job: &Job) -> bool {
    let code = job.reason.as_ref().map(|reason| reason.code);
    code == Some(ReasonCode::OutOfMemory)
}
