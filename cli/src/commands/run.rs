//! `invoke "kubectl get pods"`: upload files, submit, follow, exit with the command's code.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use invoke_protocol::id::JobId;
use invoke_protocol::job::{IfOffline, Job, JobSpec};
use uuid::Uuid;

use super::Session;
use crate::args::{Format, Offline, RunArgs, verb_names};
use crate::command_line;
use crate::document::JobDocument;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::interrupt::{Followed, Interrupts, Left};
use crate::notices::Notices;
use crate::output::Output;
use crate::patience::Patience;
use crate::printer::Printer;
use crate::request::JobRequest;
use crate::stdin::{self, Stdin};
use crate::submission::{self, What};
use crate::verdict::conclude;

/// A job that was accepted is followed through an outage this many times as long as a submission is
/// repeated: there is more to lose.
const FOLLOWING_PATIENCE: u32 = 10;

/// What to run, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    job: JobRequest,
    if_offline: IfOffline,
    stdin: bool,
    wait: bool,
}

impl Request {
    /// Makes sense of the arguments. The cluster and the profile are settings.
    ///
    /// # Errors
    /// [`Failure`] for words that are no command, variables that are none, and options that are for many
    /// clusters.
    pub fn understand(args: RunArgs, line: &[OsString]) -> Result<Self, Failure> {
        let RunArgs {
            words,
            argv,
            mut job,
            stdin,
            no_wait,
            many,
            yes,
            dry_run,
            group,
        } = args;
        let of_many = [("--yes", yes), ("--dry-run", dry_run), ("--group", group)];
        let of_many = of_many.into_iter().find(|(_, given)| *given);
        let of_many = many.first_given().or(of_many.map(|(name, _)| name));
        if let Some(name) = of_many {
            return Err(only_for_many(name));
        }
        let if_offline = match job.if_offline.map(Offline::of_one) {
            None => IfOffline::Wait,
            Some(Some(if_offline)) => if_offline,
            Some(None) => return Err(only_for_many("--if-offline skip")),
        };
        let stdin = job.take_stdin() || stdin;
        let command = command_line::command(words, argv, line, &verb_names())?;
        Ok(Self {
            job: JobRequest::understand(command, job)?,
            if_offline,
            stdin,
            wait: !no_wait,
        })
    }
}

/// Brings the command's files to the dispatcher, submits it, and follows it to its end.
///
/// # Errors
/// [`Failure`] if there is no job, or no more to be known of it.
pub async fn run(request: Request, session: &Session<'_>) -> Result<Exit, Failure> {
    let Request {
        job,
        if_offline,
        stdin,
        wait,
    } = request;
    for notice in job.notices() {
        session.printer.say(notice);
    }
    let mut interrupts = catch(session)?;
    let spec = JobSpec {
        if_offline,
        stdin,
        ..job.spec(&session.settings)
    };
    let job = submit(spec, job.files, &mut interrupts, session).await?;
    let stdin = stdin.then(|| {
        let (client, input) = (&session.client, session.input.clone());
        Stdin::new(client, job.id, input, following_time(session))
    });
    if wait {
        let output = session.output();
        follow_and_send(
            job.id,
            Some(&job),
            output,
            stdin.as_ref(),
            interrupts,
            session,
        )
        .await
    } else {
        if let Some(stdin) = &stdin {
            send(job.id, stdin, interrupts, session).await?;
        }
        leave(&job, session)
    }
}

async fn submit(
    spec: JobSpec,
    files: Vec<OsString>,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
) -> Result<Job, Failure> {
    let (key, retry_for) = (Uuid::now_v7(), session.settings.retry_for);
    let submit = async |files| {
        let spec = JobSpec {
            files,
            ..spec.clone()
        };
        let call = async || session.client.submit(&spec, key).await;
        submission::submit(What::Job, retry_for, session.printer, call).await
    };
    submission::with_files(What::Job, files, interrupts, session, submit).await
}

/// Sends a job all that it is to read.
async fn send(
    id: JobId,
    stdin: &Stdin<'_>,
    mut interrupts: Interrupts<'_>,
    session: &Session<'_>,
) -> Result<(), Failure> {
    match interrupts
        .following(&session.client, Followed::Job(id), stdin.send())
        .await
    {
        Ok(sent) => sent.map_err(|error| unsent(error, id)),
        Err(Left) => Err(detached_unsent(id)),
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
    interrupts: Interrupts<'_>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    follow_and_send(id, known, output, None, interrupts, session).await
}

/// The same, and sends it what it is to read.
async fn follow_and_send(
    id: JobId,
    known: Option<&Job>,
    output: Output<'_>,
    stdin: Option<&Stdin<'_>>,
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
    let follow = with_stdin(follow.to_end(), id, stdin, printer);
    let followed = Followed::Job(id);
    match interrupts.following(client, followed, follow).await {
        Ok(Ok((job, output))) => finish(job, output, session),
        // Only a job of ours is worth a word more: `logs -f` was given the id.
        Ok(Err(error)) if known.is_some() => Err(with_job(error.into(), id)),
        Ok(Err(error)) => Err(error.into()),
        Err(Left) if stdin.is_some_and(|stdin| !stdin.is_sent()) => Err(detached_unsent(id)),
        Err(Left) => Err(detached(id)),
    }
}

/// Does something to its end, and sends a job what it is to read for as long as that takes. What is not
/// sent by then, nobody reads.
async fn with_stdin<T>(
    work: impl Future<Output = T>,
    id: JobId,
    stdin: Option<&Stdin<'_>>,
    printer: &Printer,
) -> T {
    let Some(stdin) = stdin else {
        return work.await;
    };
    let mut work = pin!(work);
    let sent = tokio::select! {
        done = &mut work => return done,
        sent = stdin.send() => sent,
    };
    if let Err(error) = sent {
        printer.fail(&unsent(error, id));
    }
    work.await
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
    Patience::new(following_time(session))
}

pub(super) fn following_time(session: &Session<'_>) -> Duration {
    session.settings.retry_for * FOLLOWING_PATIENCE
}

/// Catches the signals.
///
/// # Errors
/// [`Failure`] if the system does not let us.
pub(super) fn catch<'a>(session: &Session<'a>) -> Result<Interrupts<'a>, Failure> {
    let caught = Interrupts::catch(session.printer, session.input.clone());
    caught.map_err(|error| {
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

/// A command that reads on waits for ever, and looks as if it worked.
fn unsent(error: stdin::Error, id: JobId) -> Failure {
    let failure = Failure::from(error);
    let why = failure.message.unwrap_or_default();
    let message = format!("job {id} waits for the rest of its stdin: {why}");
    Failure::new(failure.exit, message).with_hint(format!("`invoke cancel {id}` stops it"))
}

/// The same, because the person left.
fn detached_unsent(id: JobId) -> Failure {
    let message = format!("detached; job {id} goes on, and waits for the rest of its stdin");
    Failure::new(Exit::DETACHED, message).with_hint(format!("`invoke cancel {id}` stops it"))
}

/// The word for an option of many clusters where there is one.
pub(super) fn only_for_many(option: &str) -> Failure {
    Failure::new(
        Exit::BAD_INPUT,
        format!("{option} is for a command on many clusters"),
    )
    .with_hint("choose them by their labels, as in -l env=prod; `invoke clusters` shows these")
}
