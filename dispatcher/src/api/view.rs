//! A stored job as people see it.

use invoke_protocol::job::{Job, JobFacts};
use jiff::Timestamp;

use crate::app::App;
use crate::store::jobs::StoredJob;
use crate::waiting;

/// The view of a job at this moment.
#[must_use]
pub(super) fn view(app: &App, job: &StoredJob, now: Timestamp) -> Job {
    let facts = JobFacts {
        id: job.id,
        cluster: job.cluster_name.clone(),
        profile: job.profile.clone(),
        command: job.command.clone(),
        submitted_by: job.submitted_by.clone(),
        submitted: job.submitted_at,
        start_deadline: job.start_deadline,
        permitted: job.permitted_at,
        runner: job.runner.clone(),
        pod: job.pod,
        retries: 0,
        log_bytes: job.log_bytes,
        version: job.version,
    };
    Job::new(
        facts,
        &job.state,
        waiting::reason(job, &app.broker.health(), now),
    )
}
