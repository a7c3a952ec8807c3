//! What happened to a job, step by step.

use invoke_protocol::job::{Job, StepName};

use crate::table::{columns, exact_moment};

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
