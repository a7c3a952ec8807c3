//! `invoke schedule …`: commands that are run at times of their own.

use invoke_protocol::id::ScheduleName;
use invoke_protocol::schedule::{Schedule, ScheduleState, Tick, TickOutcome};
use uuid::Uuid;

use super::Session;
use super::run::catch;
use super::{fanout, run};
use crate::args::{Format, ScheduleVerb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::submission::{self, What};
use crate::table::moment;

mod spec;
mod put;
mod show;
mod ledger;
mod why;
mod transfer;

/// Does something with schedules.
///
/// # Errors
/// See [`Failure`].
pub async fn schedule(verb: ScheduleVerb, session: &Session<'_>) -> Result<Exit, Failure> {
    let client = &session.client;
    match verb {
        ScheduleVerb::Create(args) => put::create(*args, session).await,
        ScheduleVerb::Edit(args) => put::edit(*args, session).await,
        ScheduleVerb::List => show::list(session).await,
        ScheduleVerb::Show { name } => show::one(&name, session).await,
        ScheduleVerb::Next { limit, name } => show::next(&name, limit, session).await,
        ScheduleVerb::History { limit, name } => ledger::history(&name, limit, session).await,
        ScheduleVerb::Why { name, when } => why::why(&name, &when, session).await,
        ScheduleVerb::Pause { reason, name } => {
            let paused = client.pause_schedule(&name, reason).await?;
            report(&paused, &standing(&paused), session)
        }
        ScheduleVerb::Resume { name } => {
            let resumed = client.resume_schedule(&name).await?;
            report(&resumed, &standing(&resumed), session)
        }
        ScheduleVerb::SkipNext { name } => {
            let schedule = client.skip_next_tick(&name).await?;
            let words = match schedule.next {
                Some(next) => format!("skips its next time, {}", moment(next)),
                None => "never runs again, so there is nothing to skip".to_owned(),
            };
            report(&schedule, &words, session)
        }
        ScheduleVerb::TakeOver { name } => {
            let taken = client.take_schedule_over(&name).await?;
            let words = format!("runs with the rights of {} from now on", taken.owner);
            report(&taken, &words, session)
        }
        ScheduleVerb::Delete { name } => {
            client.delete_schedule(&name).await?;
            session.printer.say(&format!(
                "schedule {name} is deleted; `invoke schedule history {name}` still tells what became of it"
            ));
            Ok(Exit::SUCCESS)
        }
        ScheduleVerb::WebhookKey { name } => {
            let key = client.webhook_key(&name).await?;
            match session.format {
                Format::Json => session.printer.print_json(&key)?,
                Format::Text => session.printer.print(&format!("{}\n", key.key))?,
            }
            Ok(Exit::SUCCESS)
        }
        ScheduleVerb::RunNow { wait, name } => run_now(&name, wait, session).await,
        ScheduleVerb::Export { names } => transfer::export(&names, session).await,
        ScheduleVerb::Apply { file } => transfer::apply(&file, session).await,
    }
}

/// Says what has changed; as JSON, prints how it is now.
fn report(schedule: &Schedule, words: &str, session: &Session<'_>) -> Result<Exit, Failure> {
    match session.format {
        Format::Json => session.printer.print_json(schedule)?,
        Format::Text => session
            .printer
            .say(&format!("schedule {} {words}", schedule.name)),
    }
    Ok(Exit::SUCCESS)
}

/// Whether it is at work, in words that follow its name.
fn standing(schedule: &Schedule) -> String {
    match &schedule.state {
        ScheduleState::Active => match schedule.next {
            Some(next) => format!("is active, and runs next at {}", moment(next)),
            None => "is active, and never runs again".to_owned(),
        },
        ScheduleState::Paused { by, since, reason } => {
            let reason = match reason.is_empty() {
                true => String::new(),
                false => format!(": {reason}"),
            };
            format!("is paused by {by} since {}{reason}", moment(*since))
        }
        ScheduleState::Suspended { since, reason } => {
            format!("is suspended since {}: {reason}", moment(*since))
        }
    }
}

/// Runs it at once, and follows that if it is wanted.
async fn run_now(name: &ScheduleName, wait: bool, session: &Session<'_>) -> Result<Exit, Failure> {
    let key = Uuid::now_v7();
    let (retry_for, printer) = (session.settings.retry_for, session.printer);
    let call = async || session.client.run_schedule(name, key).await;
    let tick = submission::submit(What::Job, retry_for, printer, call).await?;
    match (tick.job, tick.fanout) {
        (Some(job), _) if wait => {
            run::follow(job, None, session.output(), catch(session)?, session).await
        }
        (_, Some(fanout)) if wait => {
            let known = std::collections::HashSet::new();
            fanout::follow(fanout, known, false, catch(session)?, session).await
        }
        (job, fanout) => {
            let run = job.map(|id| id.to_string());
            let run = run.or_else(|| fanout.map(|id| id.to_string()));
            match (session.format, run) {
                (Format::Json, _) => printer.print_json(&tick)?,
                (Format::Text, Some(run)) => printer.print(&format!("{run}\n"))?,
                (Format::Text, None) => printer.say(&ledger::sentence(&tick)),
            }
            Ok(exit_of(&tick, wait))
        }
    }
}

/// Of a tick whose run is not followed.
const fn exit_of(tick: &Tick, wait: bool) -> Exit {
    match tick.outcome {
        TickOutcome::Fired | TickOutcome::CaughtUp => Exit::SUCCESS,
        TickOutcome::Queued | TickOutcome::Deferred if wait => Exit::DETACHED,
        TickOutcome::Queued | TickOutcome::Deferred => Exit::SUCCESS,
        TickOutcome::Skipped | TickOutcome::Missed | TickOutcome::Refused => Exit::NEVER_STARTED,
    }
}
