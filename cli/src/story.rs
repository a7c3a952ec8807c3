//! What happened to a job, step by step.

use invoke_protocol::job::{Job, Step, StepName};

use crate::table::{columns, exact_moment};

/// A job whose story begins with its submission, which the dispatcher does not write down a second
/// time: the job says itself when it was submitted and by whom.
#[must_use]
pub fn with_submission(mut job: Job) -> Job {
    let begins = |step: &Step| step.step == StepName::Submitted;
    if !job.story.first().is_some_and(begins) {
        let submission = Step {
            at: job.times.submitted,
            by: job.submitted_by.clone(),
            step: StepName::Submitted,
            message: String::new(),
        };
        job.story.insert(0, submission);
    }
    job
}

/// The story, a line for each step. At its full width: what a step says is cut nowhere.
#[must_use]
pub fn told(job: &Job) -> String {
    let rows: Vec<_> = job
        .story
        .iter()
        .map(|step| {
            [
                exact_moment(step.at),
                step.by.clone(),
                words(step.step).to_owned(),
                step.message.clone(),
            ]
        })
        .collect();
    columns(["TIME (UTC)", "BY", "STEP", "MESSAGE"], &rows)
}

const fn words(step: StepName) -> &'static str {
    match step {
        StepName::Submitted => "submitted",
        StepName::Published => "published",
        StepName::Claimed => "claimed",
        StepName::PodCreated => "pod created",
        StepName::Waiting => "waiting",
        StepName::Retried => "queued again",
        StepName::Postponed => "postponed",
        StepName::Permitted => "permitted to start",
        StepName::Recovered => "recovered",
        StepName::ContactLost => "contact lost",
        StepName::ContactBack => "contact back",
        StepName::CancelRequested => "cancel requested",
        StepName::CancelDelivered => "cancel delivered",
        StepName::ReportRefused => "report refused",
        StepName::Ended => "over",
        StepName::Unknown => "-",
    }
}
