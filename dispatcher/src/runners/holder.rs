//! The pod that holds a job's permit: what a job is given and gives, only this pod is given and gives.

use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::state::JobState;

use crate::access::runner::Runner;
use crate::problem::Refusal;
use crate::store::jobs::{self, StoredJob};

/// The job of the runner's own cluster that runs in this pod.
///
/// # Errors
/// A [`Refusal`] if there is no such job, or it was not started, or in another pod, or is over.
pub(super) async fn job_in(runner: &Runner, id: JobId, pod: PodUid) -> Result<StoredJob, Refusal> {
    let mut session = runner.app.store.read().await?;
    let job = jobs::find(&mut session, id)
        .await?
        .filter(|job| job.cluster == runner.cluster.id)
        .ok_or_else(|| Refusal::no_job(id))?;
    match &job.state {
        JobState::Running { pod: holder, .. }
        | JobState::ContactLost { pod: holder, .. }
        | JobState::Cancelling { pod: holder, .. } => match *holder == pod {
            true => Ok(job),
            false => Err(Refusal::other_pod(id)),
        },
        JobState::Queued | JobState::Claimed { .. } | JobState::Starting { .. } => {
            Err(Refusal::not_started(id))
        }
        _ => Err(Refusal::job_over(&job)),
    }
}
