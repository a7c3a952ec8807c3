//! `invoke result ID`, of a job or of a command on many clusters

use std::collections::HashSet;

use invoke_protocol::fanout::FanOut;
use invoke_protocol::id::JobId;

use super::Session;
use super::fanout::follow;
use super::fanouts::in_place_of_job;
use super::run::{catch, finish, following_patience};
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
    let job = match session.client.job(id, &JobQuery::default()).await {
        Ok(job) => job,
        Err(error) => match in_place_of_job(id, &error, session).await {
            Some(fanout) => return of_fanout(&fanout, session).await,
            None => return Err(error.into()),
        },
    };
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

/// The same of a command on many clusters.
async fn of_fanout(fanout: &FanOut, session: &Session<'_>) -> Result<Exit, Failure> {
    let (id, state) = (fanout.id, fanout.state);
    if !state.is_over() {
        let message = format!("fan-out {id} is not over: its state is {state}");
        return Err(Failure::new(Exit::DETACHED, message).with_hint(format!(
            "`invoke fanouts {id} follow` follows it to its end"
        )));
    }
    follow(id, HashSet::new(), false, catch(session)?, session).await
}
