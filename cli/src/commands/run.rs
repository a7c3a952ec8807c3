//! `invoke "kubectl get pods"`: submit, follow, exit with the command's code.

use std::ffi::OsString;

use invoke_protocol::command::Command;
use invoke_protocol::environment::{Environment, SecretEnvironment};
use invoke_protocol::id::{JobId, ProfileName};
use invoke_protocol::job::{IfOffline, Job, JobSpec};
use uuid::Uuid;

use super::Session;
use crate::args::{Format, RunArgs, verb_names};
use crate::command_line;
use crate::document::JobDocument;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::interrupt::{Interrupts, Left};
use crate::notices::Notices;
use crate::output::Output;
use crate::patience::Patience;
use crate::submission;
use crate::verdict::conclude;

/// A job that was accepted is followed through an outage this many times as long as a submission is
/// repeated: there is more to lose.
const FOLLOWING_PATIENCE: u32 = 10;

/// What to run, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    command: Command,
    start_within_seconds: Option<u64>,
    run_timeout_seconds: Option<u64>,
    if_offline: IfOffline,
    wait: bool,
}

impl Request {
    /// Makes sense of the arguments. The cluster and the profile are settings.
    ///
    /// # Errors
    /// [`Failure`] for words that are no command.
    pub fn understand(args: RunArgs, line: &[OsString]) -> Result<Self, Failure> {
        let RunArgs {
            words,
            argv,
            start_within,
            run_timeout,
            if_offline,
            no_wait,
            cluster: _,
            profile: _,
        } = args;
        Ok(Self {
            command: command_line::command(words, argv, line, &verb_names())?,
            start_within_seconds: start_within,
            run_timeout_seconds: run_timeout,
            if_offline: if_offline.into(),
            wait: !no_wait,
        })
    }
}

/// Submits the command and follows it to its end.
///
/// # Errors
/// [`Failure`] if there is no job, or no more to be known of it.
pub async fn run(request: Request, session: &Session<'_>) -> Result<Exit, Failure> {
    let Session {
        client,
        settings,
        printer,
        ..
    } = session;
    let spec = JobSpec {
        files: None,
        environment: Environment::default(),
        secrets: SecretEnvironment::default(),
        stdin: false,
        command: request.command,
        cluster: settings.cluster.clone(),
        profile: settings
            .profile
            .clone()
            .unwrap_or_else(ProfileName::default_profile),
        start_within_seconds: request.start_within_seconds,
        run_timeout_seconds: request.run_timeout_seconds,
        if_offline: request.if_offline,
    };
    let mut interrupts = catch(session)?;
    let key = Uuid::now_v7();
    let submission = submission::submit(client, &spec, key, settings.retry_for, printer);
    let job = match interrupts.finishing(submission).await {
        Ok(submitted) => submitted?,
        Err(Left) => return Err(left_while_submitting()),
    };
    if request.wait {
        follow(job.id, Some(&job), session.output(), interrupts, session).await
    } else {
        leave(&job, session)
    }
}

/// Follows a job to its end. `known` is the job as it was last seen.
///
/// # Errors
/// [`Failure`] if there is no more to be known of it.
pub(super) async fn follow(
    id: JobId,
    known: Option<&Job>,
    output: Output<'_>,
    mut interrupts: Interrupts<'_>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let Session {
        client, printer, ..
    } = session;
    let mut notices = Notices::new(printer);
    if let Some(job) = known {
        notices.observe(job);
    }
    let follow = Follow::new(client, id, output, notices, following_patience(session));
    match interrupts.following(client, id, follow.to_end()).await {
        Ok(Ok((job, output))) => finish(job, output, session),
        // Only a job of ours is worth a word more: `logs -f` was given the id.
        Ok(Err(error)) if known.is_some() => Err(with_job(error.into(), id)),
        Ok(Err(error)) => Err(error.into()),
        Err(Left) => Err(detached(id)),
    }
}

/// Prints what is left to print of a job that is over, and says how it ended.
///
/// # Errors
/// [`Failure`] if it cannot be printed.
pub(super) fn finish(job: Job, output: Output<'_>, session: &Session<'_>) -> Result<Exit, Failure> {
    let exit = conclude(&job, output.taken_bytes(), session.printer);
    if session.format == Format::Json {
        let (stdout, stderr) = output.into_memory();
        session
            .printer
            .print_json(&JobDocument::new(job, stdout, stderr))?;
    }
    Ok(exit)
}

/// For how long a job is followed through an outage.
pub(super) fn following_patience(session: &Session<'_>) -> Patience {
    Patience::new(session.settings.retry_for * FOLLOWING_PATIENCE)
}

/// Catches the signals.
///
/// # Errors
/// [`Failure`] if the system does not let us.
pub(super) fn catch<'a>(session: &Session<'a>) -> Result<Interrupts<'a>, Failure> {
    Interrupts::catch(session.printer).map_err(|error| {
        Failure::new(
            Exit::INTERNAL,
            format!("cannot catch the signals of this process: {error}"),
        )
    })
}

fn leave(job: &Job, session: &Session<'_>) -> Result<Exit, Failure> {
    let mut notices = Notices::new(session.printer);
    notices.observe(job);
    match session.format {
        Format::Text => session.printer.print(&format!("{}\n", job.id))?,
        Format::Json => session.printer.print_json(job)?,
    }
    Ok(Exit::SUCCESS)
}

/// Names the job in a failure after its submission: the person has its id from nowhere else.
fn with_job(failure: Failure, id: JobId) -> Failure {
    match failure.message {
        Some(message) if !message.contains(&id.to_string()) => Failure {
            exit: failure.exit,
            message: Some(format!("job {id}: {message}")),
            hint: failure
                .hint
                .or_else(|| Some(format!("`invoke logs -f {id}` prints its output again"))),
        },
        message => Failure { message, ..failure },
    }
}

fn detached(id: JobId) -> Failure {
    Failure::new(Exit::DETACHED, format!("detached; job {id} goes on")).with_hint(format!(
        "`invoke logs -f {id}` follows it again, `invoke cancel {id}` stops it"
    ))
}

fn left_while_submitting() -> Failure {
    let message = "gave up while submitting; it is not known whether the job was accepted";
    Failure::new(Exit::DETACHED, message).with_hint("`invoke jobs` shows whether it was")
}
