//! `invoke cancel ID`

use std::time::Duration;

use invoke_protocol::api::JobQuery;
use invoke_protocol::id::JobId;
use invoke_protocol::job::Job;
use invoke_protocol::state::StateName;

use tokio::time::Instant;

use super::Session;
use crate::args::Format;
use crate::client::LONG_POLL_SECONDS;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::patience::Patience;
use crate::verdict::sentence;

/// How long to wait for the command to be dead: its grace, and time to hear of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a job to be cancelled, and waits until it is over.
///
/// # Errors
/// [`Failure`] if the job ended in another way, or is not over within a minute.
pub async fn cancel(id: JobId, session: &Session<'_>) -> Result<Exit, Failure> {
    let asked = session.client.cancel(id).await?;
    if !asked.state.is_terminal() {
        session.printer.say(&format!(
            "asked for job {id} to be cancelled; waiting for its command to stop"
        ));
    }
    let job = await_end(asked, session).await?;
    let exit = match job.state {
        StateName::Cancelled => Exit::SUCCESS,
        state if state.is_terminal() => Exit::of_job(&job),
        _ => Exit::DETACHED,
    };
    match session.format {
        Format::Json => session.printer.print_json(&job)?,
        Format::Text => session.printer.say(&words(&job)),
    }
    Ok(exit)
}

async fn await_end(mut job: Job, session: &Session<'_>) -> Result<Job, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut patience = Patience::new(PATIENCE);
    while !job.state.is_terminal() && Instant::now() < deadline {
        let query = JobQuery {
            wait_seconds: Some(LONG_POLL_SECONDS),
            version: Some(job.version),
            // Output is no news here.
            log_bytes: Some(u64::MAX),
        };
        match session.client.job(job.id, &query).await {
            Ok(newer) => job = newer,
            Err(error) if error.is_passing() => patience.pause().await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(job)
}

fn words(job: &Job) -> String {
    let state = job.state;
    match sentence(job) {
        Some(sentence) => sentence,
        None if state.is_terminal() => {
            let code = job
                .exit_code
                .map(|code| format!(" with code {code}"))
                .unwrap_or_default();
            format!(
                "job {} was not cancelled: its command ended first{code}",
                job.id
            )
        }
        None => format!(
            "job {} is not over yet: its state is {state}; the request stands",
            job.id
        ),
    }
}
