//! Refused reports that contradict the record, in people's words.
//!
//! Most refusals are ordinary: an answer was lost, a redelivery came late, a pod that lost its race was
//! deleted. The ones here are not: somebody says of a job what cannot be true if the record is. The
//! record stands; people must know.

use invoke_protocol::output::ExitRecord;
use invoke_protocol::state::{Event, Refusal, Started};

use super::jobs::StoredJob;

/// What is wrong, if a refused event contradicts the record.
pub(super) fn words(job: &StoredJob, event: &Event, refusal: Refusal) -> Option<String> {
    match (event, refusal) {
        (Event::Exit { exit, .. }, Refusal::Contradiction | Refusal::Over) => Some(format!(
            "it says that {}, and the job {}",
            end(exit),
            on_record(job)
        )),
        (Event::Exit { pod, exit, .. }, Refusal::OtherPod) => Some(format!(
            "it says that {} in pod {pod}, and {}",
            end(exit),
            permitted(job)
        )),
        // What was said to have never started has started after all.
        (Event::Recover { pod, .. }, Refusal::Over) if job.state.started() == Started::No => {
            Some(format!(
                "it says that pod {pod} was permitted to start the command, and the job {}, never started",
                on_record(job)
            ))
        }
        (Event::Recover { pod, .. }, Refusal::OtherPod) => Some(format!(
            "it says that pod {pod} was permitted to start the command, and {}",
            permitted(job)
        )),
        // What was said to have never started has come to an end.
        (Event::StartRefused { pod, reason }, Refusal::Contradiction) => Some(format!(
            "it says that pod {pod} never started the command ({}), and the job {}",
            reason.message,
            on_record(job)
        )),
        (Event::Reject { reason }, Refusal::AlreadyStarted) => Some(format!(
            "it refuses the order ({}), and {}",
            reason.message,
            permitted(job)
        )),
        _ => None,
    }
}

/// An upload of more than was stored when the job ended.
pub(super) fn output_after_end(job: &StoredJob) -> String {
    format!(
        "it has output beyond the {} bytes that are stored, and the job {}",
        job.log_bytes,
        on_record(job)
    )
}

fn end(exit: &ExitRecord) -> String {
    format!("the command left with code {}", exit.status.code())
}

fn on_record(job: &StoredJob) -> String {
    let name = job.state.name();
    match job.state.exit_record() {
        Some(exit) => format!("is {name} on record, with code {}", exit.status.code()),
        None => format!("is {name} on record"),
    }
}

fn permitted(job: &StoredJob) -> String {
    match job.pod {
        Some(pod) => format!("the command was permitted to start in pod {pod}"),
        None => "the command was permitted to start".to_owned(),
    }
}
