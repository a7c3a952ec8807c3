//! `invoke schedule create NAME …`, `invoke schedule edit NAME …`

use std::ffi::OsString;

use invoke_protocol::environment::{Environment, SecretEnvironment};
use invoke_protocol::id::{ProfileName, ScheduleName};
use invoke_protocol::job::{IfOffline, JobSpec};
use invoke_protocol::schedule::{NextQuery, PutQuery, Run, Schedule, ScheduleSpec, ScheduleState};
use invoke_protocol::timing::TimeZoneName;

use super::show::coming_table;
use super::{spec, standing};
use crate::args::{CreateArgs, EditArgs, Format};
use crate::client;
use crate::command_line;
use crate::commands::Session;
use crate::commands::run::catch;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::request;
use crate::submission::{self, What};

/// How many of its times are shown of a schedule that was made or changed.
const SHOWN: u32 = 3;

/// Makes a schedule, and shows when it runs.
pub(super) async fn create(args: CreateArgs, session: &Session<'_>) -> Result<Exit, Failure> {
    let CreateArgs {
        name,
        words,
        argv,
        when,
        mut options,
    } = args;
    let command = command_line::after_subcommand(words, argv)?;
    let files = spec::files(&mut options.job)?;
    let zone = options.timing.tz.clone().unwrap_or_default();
    let when = spec::when(when, &zone, None, session.now)?.ok_or_else(|| {
        Failure::new(Exit::BAD_INPUT, "nothing says when it is to run")
            .with_hint("add --cron \"30 2 * * *\", --every 6h or --at 2026-11-22T02:30")
    })?;
    let settings = &session.settings;
    let job = JobSpec {
        command,
        cluster: settings.cluster.clone(),
        profile: settings
            .profile
            .clone()
            .unwrap_or_else(ProfileName::default_profile),
        start_within_seconds: None,
        run_timeout_seconds: None,
        if_offline: IfOffline::Wait,
        files: None,
        environment: Environment::default(),
        secrets: SecretEnvironment::default(),
        stdin: false,
    };
    let mut spec = spec::plain(Run::Job(job), when, zone);
    spec::apply(&mut spec, &options)?;
    say_notices(&options.job, session)?;
    let how = PutQuery {
        create: true,
        ..PutQuery::default()
    };
    let created = put(&name, how, spec, files, session).await?;
    show(&created, "is created", session).await
}

/// Changes a schedule, and shows when it runs then.
pub(super) async fn edit(args: EditArgs, session: &Session<'_>) -> Result<Exit, Failure> {
    let EditArgs {
        name,
        words,
        argv,
        when,
        mut options,
    } = args;
    let command = match words.is_empty() && argv.is_empty() {
        true => None,
        false => Some(command_line::after_subcommand(words, argv)?),
    };
    let files = spec::files(&mut options.job)?;
    let before = session.client.schedule(&name).await?;
    let mut spec = before.spec.clone();
    let zone: TimeZoneName = match &options.timing.tz {
        Some(zone) => zone.clone(),
        None => spec.timing.time_zone.clone(),
    };
    if let Some(when) = spec::when(when, &zone, Some(&spec.timing.when), session.now)? {
        spec.timing.when = when;
    }
    if let Some(command) = command {
        spec.run.job_mut().command = command;
    }
    spec::apply(&mut spec, &options)?;
    say_notices(&options.job, session)?;
    let how = PutQuery {
        create: false,
        revision: Some(before.revision),
        keep_secrets: keeps_secrets(&before, &spec)?,
    };
    let after = put(&name, how, spec, files, session).await?;
    let words = match after.revision == before.revision {
        true => "is as it was",
        false => "is changed",
    };
    show(&after, words, session).await
}

/// Nobody can read them back, so they are kept as they are, or all of them are given again.
fn keeps_secrets(before: &Schedule, spec: &ScheduleSpec) -> Result<bool, Failure> {
    let given = &spec.run.job().secrets;
    let lost: Vec<_> = before
        .secrets
        .iter()
        .filter(|name| !given.expose().contains_key(*name))
        .map(String::as_str)
        .collect();
    if given.is_empty() || lost.is_empty() {
        return Ok(given.is_empty() && !before.secrets.is_empty());
    }
    let message = format!(
        "--secret replaces all secrets of schedule {}, and {} would be lost",
        before.name,
        lost.join(", ")
    );
    Err(Failure::new(Exit::BAD_INPUT, message).with_hint(
        "give all of them again; to have less of them, delete the schedule and make it anew",
    ))
}

/// Puts a schedule with its files. A call that is cut is not repeated: the second would find what the first made.
pub(super) async fn put(
    name: &ScheduleName,
    how: PutQuery,
    spec: ScheduleSpec,
    files: Vec<OsString>,
    session: &Session<'_>,
) -> Result<Schedule, Failure> {
    let mut interrupts = catch(session)?;
    let put = async |files: Option<_>| {
        let mut spec = spec.clone();
        let job = spec.run.job_mut();
        job.files = files.or_else(|| job.files.take());
        let put = session.client.put_schedule(name, &how, &spec).await;
        put.map_err(|source| match source.may_have_arrived() {
            true => submission::Error::Unknown {
                what: What::Schedule,
                source,
            },
            false => submission::Error::NotAccepted(source),
        })
    };
    submission::with_files(What::Schedule, files, &mut interrupts, session, put).await
}

fn say_notices(job: &crate::args::JobArgs, session: &Session<'_>) -> Result<(), Failure> {
    for notice in &request::environment(job)?.notices {
        session.printer.say(notice);
    }
    Ok(())
}

async fn show(schedule: &Schedule, words: &str, session: &Session<'_>) -> Result<Exit, Failure> {
    let printer = session.printer;
    if session.format == Format::Json {
        printer.print_json(schedule)?;
        return Ok(Exit::SUCCESS);
    }
    let name = &schedule.name;
    printer.say(&format!("schedule {name} {words}"));
    if schedule.state != ScheduleState::Active {
        printer.say(&format!("schedule {name} {}", standing(schedule)));
    }
    let query = NextQuery { limit: Some(SHOWN) };
    let coming = session.client.coming_ticks(name, &query).await;
    let coming = coming.map_err(|error: client::Error| {
        let failure = Failure::from(error);
        let why = failure.message.unwrap_or_default();
        let message = format!("it cannot be shown when it runs: {why}");
        Failure {
            message: Some(message),
            ..failure
        }
    })?;
    match coming.ticks.is_empty() {
        true => printer.say("it never runs"),
        false => printer.print(&coming_table(&coming))?,
    }
    Ok(Exit::SUCCESS)
}
