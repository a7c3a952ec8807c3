//! A stored job as people see it.

use invoke_protocol::job::{Job, JobFacts};
use jiff::Timestamp;

use crate::app::App;
use crate::store::jobs::StoredJob;
use crate::store::{self, Session, backlog};
use crate::waiting;

/// The view of a job at this moment.
#[must_use]
pub(super) fn view(app: &App, job: &StoredJob, now: Timestamp) -> Job {
    let facts = JobFacts {
        id: job.id,
        cluster: job.cluster_name.clone(),
        profile: job.profile.clone(),
        command: job.command.clone(),
        files: job.files,
        environment: job.environment.clone(),
        secrets: job.secret_names.clone(),
        stdin: job.stdin,
        fanout: job.fanout,
        submitted_by: job.submitted_by.clone(),
        tick: job.tick.clone(),
        submitted: job.submitted_at,
        start_deadline: job.start_deadline,
        permitted: job.permitted_at,
        runner: job.runner.clone(),
        pod: job.pod,
        retries: job.retries.count,
        log_bytes: job.log_bytes,
        output_expired: job.output_expired_at,
        version: job.version,
    };
    let shown = Job::new(
        facts,
        &job.state,
        waiting::reason(job, &app.broker.health(), now),
    );
    Job {
        run_timeout_seconds: job.run_limit_seconds(),
        ..shown
    }
}

/// The view of one job that somebody asks for: if it waits for its turn, its place in the queue is counted,
/// which a list does without.
///
/// # Errors
/// If the store has no answer.
pub(super) async fn view_with_place(
    app: &App,
    session: &mut Session,
    job: &StoredJob,
    now: Timestamp,
) -> Result<Job, store::Error> {
    let mut shown = view(app, job, now);
    if let Some(reason) = shown
        .waiting
        .take_if(|reason| waiting::is_for_its_turn(job, reason))
    {
        let earlier = backlog::earlier(session, job).await?;
        shown.waiting = Some(waiting::with_place(reason, &job.cluster_name, earlier));
    }
    Ok(shown)
}
