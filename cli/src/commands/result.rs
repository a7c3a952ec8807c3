//! `invoke result ID`

use invoke_protocol::id::JobId;

use super::Session;
use super::run::{finish, following_patience};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::notices::Notices;
use invoke_protocol::api::JobQuery;

/// Prints the stored output of a job that is over, and exits with its command's code.
///
/// # Errors
/// [`Failure`], also for a job that is not over: nothing is waited for, and half an output is no
/// result.
pub async fn result(id: JobId, session: &Session<'_>) -> Result<Exit, Failure> {
    let job = session.client.job(id, &JobQuery::default()).await?;
    if !job.state.is_terminal() {
        let message = format!("job {id} is not over: its state is {}", job.state);
        return Err(Failure::new(Exit::DETACHED, message)
            .with_hint(format!("`invoke logs -f {id}` follows it to its end")));
    }
    let notices = Notices::new(session.printer);
    let follow = Follow::new(
        &session.client,
        id,
        session.output(),
        notices,
        following_patience(session),
    );
    let (job, output) = follow.so_far().await?;
    finish(job, output, session)
}
