//! `invoke "kubectl get pods"`: upload files, submit, follow, exit with the command's code.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use invoke_protocol::command::Command;
use invoke_protocol::id::{JobId, ProfileName};
use invoke_protocol::job::{IfOffline, Job, JobSpec};
use uuid::Uuid;

use super::Session;
use crate::args::{Format, RunArgs, verb_names};
use crate::command_line;
use crate::document::JobDocument;
use crate::environment::{Environment, Options};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::interrupt::{Interrupts, Left};
use crate::notices::Notices;
use crate::output::Output;
use crate::patience::Patience;
use crate::printer::Printer;
use crate::stdin::{self, Stdin};
use crate::submission;
use crate::upload::Upload;
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
    files: Vec<OsString>,
    stdin: bool,
    environment: Environment,
}

impl Request {
    /// Makes sense of the arguments. The cluster and the profile are settings.
    ///
    /// # Errors
    /// [`Failure`] for words that are no command, and variables that are none.
    pub fn understand(args: RunArgs, line: &[OsString]) -> Result<Self, Failure> {
        let RunArgs {
            words,
            argv,
            start_within,
            run_timeout,
            if_offline,
            no_wait,
            mut files,
            mut stdin,
            variables,
            variable_files,
            secrets,
            cluster: _,
            profile: _,
        } = args;
        let named = files.len();
        files.retain(|file| file != "-");
        stdin |= files.len() < named;
        let environment = Options {
            variables: &variables,
            files: &variable_files,
            secrets: &secrets,
        };
        Ok(Self {
            command: command_line::command(words, argv, line, &verb_names())?,
            start_within_seconds: start_within,
            run_timeout_seconds: run_timeout,
            if_offline: if_offline.into(),
            wait: !no_wait,
            files,
            stdin,
            environment: Environment::gather(environment, |name| std::env::var_os(name))?,
        })
    }
}

/// Brings the command's files to the dispatcher, submits it, and follows it to its end.
///
/// # Errors
/// [`Failure`] if there is no job, or no more to be known of it.
pub async fn run(request: Request, session: &Session<'_>) -> Result<Exit, Failure> {
    let Request {
        command,
        start_within_seconds,
        run_timeout_seconds,
        if_offline,
        wait,
        files,
        stdin,
        environment,
    } = request;
    for notice in &environment.notices {
        session.printer.say(notice);
    }
    let mut interrupts = catch(session)?;
    let spec = JobSpec {
        command,
        cluster: session.settings.cluster.clone(),
        profile: session
            .settings
            .profile
            .clone()
            .unwrap_or_else(ProfileName::default_profile),
        start_within_seconds,
        run_timeout_seconds,
        if_offline,
        files: None,
        environment: environment.variables,
        secrets: environment.secrets,
        stdin,
    };
    let job = submit(spec, files, &mut interrupts, session).await?;
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

/// Submits a job with its files, which are uploaded before. Should they be gone when the job arrives, they
/// are uploaded once more.
async fn submit(
    mut spec: JobSpec,
    files: Vec<OsString>,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
) -> Result<Job, Failure> {
    let Session {
        client,
        settings,
        printer,
        now,
        ..
    } = session;
    let nothing = |Left| left_before_submitting();
    let mut upload = match files.is_empty() {
        true => None,
        false => {
            let plan = Upload::plan(files, settings, printer, *now);
            Some(interrupts.preparing(plan).await.map_err(nothing)??)
        }
    };
    let key = Uuid::now_v7();
    let mut may_repeat = upload.is_some();
    loop {
        if let Some(upload) = &mut upload {
            let files = interrupts.preparing(upload.complete()).await;
            spec.files = Some(files.map_err(nothing)??);
        }
        let submission = submission::submit(client, &spec, key, settings.retry_for, printer);
        match interrupts.finishing(submission).await {
            Ok(Err(error)) if may_repeat && error.lacks_files() => may_repeat = false,
            Ok(submitted) => return Ok(submitted?),
            Err(Left) => return Err(left_while_submitting()),
        }
    }
}

/// Sends a job all that it is to read.
async fn send(
    id: JobId,
    stdin: &Stdin<'_>,
    mut interrupts: Interrupts<'_>,
    session: &Session<'_>,
) -> Result<(), Failure> {
    match interrupts
        .following(&session.client, id, stdin.send())
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
    match interrupts.following(client, id, follow).await {
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

fn following_time(session: &Session<'_>) -> Duration {
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

fn left_before_submitting() -> Failure {
    Failure::new(Exit::INTERRUPTED, "interrupted; nothing was submitted")
}

fn left_while_submitting() -> Failure {
    let message = "gave up while submitting; it is not known whether the job was accepted";
    Failure::new(Exit::DETACHED, message).with_hint("`invoke jobs` shows whether it was")
}
