//! `invoke fanouts [ID]`, `invoke fanouts ID follow|resume|retry-failed|cancel`

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use invoke_protocol::fanout::{
    Child, FanOut, FanOutQuery, FanOutStateName, FanOutStep, FanOutsQuery, RetryFailedRequest,
};
use invoke_protocol::id::{FanOutId, JobId};
use invoke_protocol::job::CancelRequest;
use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use super::fanout::{follow, leave};
use super::run::catch;
use crate::args::{FanOutsVerb, Format};
use crate::client::{self, LONG_POLL_SECONDS};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fanout::{counts, sentence, state};
use crate::patience::Patience;
use crate::printer::neutral;
use crate::table::{age, columns, cut, exact_moment, moment, seconds_since, table};

/// How much of a command is shown in a row.
const COMMAND_COLUMN: usize = 60;
/// How long to wait for the end after a cancel, besides the grace.
const A_BIT: Duration = Duration::from_secs(60);

/// Lists fan-outs, shows one, or does something with it.
///
/// # Errors
/// See [`Failure`].
pub async fn fanouts(
    id: Option<FanOutId>,
    verb: Option<FanOutsVerb>,
    limit: u32,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    match (id, verb) {
        (None, None) => list(limit, session).await,
        (Some(id), None) => one(id, session).await,
        (None, Some(_)) => Err(Failure::new(Exit::BAD_INPUT, "which fan-out?")
            .with_hint("its id comes first: `invoke fanouts ID …`; `invoke fanouts` lists them")),
        (Some(id), Some(FanOutsVerb::Follow { group })) => {
            follow(id, HashSet::new(), group, catch(session)?, session).await
        }
        (Some(id), Some(FanOutsVerb::Resume { no_wait })) => {
            let before = known_jobs(id, session).await?;
            let fanout = session.client.resume_fanout(id).await?;
            go_on(&fanout, before, no_wait, session).await
        }
        (Some(id), Some(FanOutsVerb::RetryFailed { lost, no_wait })) => {
            let before = known_jobs(id, session).await?;
            let what = RetryFailedRequest { lost };
            let fanout = session.client.retry_fanout(id, what).await?;
            go_on(&fanout, before, no_wait, session).await
        }
        (Some(id), Some(FanOutsVerb::Cancel { grace })) => cancel(id, grace, session).await,
    }
}

async fn list(limit: u32, session: &Session<'_>) -> Result<Exit, Failure> {
    let query = FanOutsQuery {
        limit: Some(limit),
        before: None,
    };
    let page = session.client.fanouts(&query).await?;
    if session.format == Format::Json {
        session.printer.print_json(&page)?;
    } else if page.fanouts.is_empty() {
        session.printer.say("no commands on many clusters yet");
        session
            .printer
            .say("hint: `invoke -l env=prod \"kubectl get nodes\"` runs one");
    } else {
        let rows: Vec<_> = page
            .fanouts
            .iter()
            .map(|fanout| row(fanout, session.now))
            .collect();
        let headings = ["ID", "STATE", "CLUSTERS", "SELECTOR", "AGE", "COMMAND"];
        session.printer.print(&table(headings, &rows))?;
    }
    Ok(Exit::SUCCESS)
}

fn row(fanout: &FanOut, now: Timestamp) -> [String; 6] {
    [
        fanout.id.to_string(),
        fanout.state.to_string(),
        format!("{}/{}", fanout.counts.succeeded, fanout.counts.all()),
        fanout.spec.selector.to_string(),
        age(seconds_since(fanout.submitted, now)),
        cut(&fanout.spec.job.command.to_string(), COMMAND_COLUMN),
    ]
}

async fn one(id: FanOutId, session: &Session<'_>) -> Result<Exit, Failure> {
    let fanout = session.client.fanout(id, &FanOutQuery::default()).await?;
    match session.format {
        Format::Json => session.printer.print_json(&fanout)?,
        Format::Text => {
            let clusters: Vec<_> = fanout.clusters.iter().map(child).collect();
            let clusters = columns(["CLUSTER", "STATE", "EXIT", "JOB", "WHY"], &clusters);
            let story: Vec<_> = fanout.story.iter().map(step).collect();
            let story = columns(["TIME (UTC)", "BY", "STEP", "CLUSTER", "MESSAGE"], &story);
            let page = format!("{}\n{clusters}\n{story}", detail(&fanout));
            session.printer.print(&page)?;
        }
    }
    Ok(Exit::SUCCESS)
}

fn detail(fanout: &FanOut) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<14}{}", neutral(&value));
        }
    };
    let (spec, limits) = (&fanout.spec, &fanout.limits);
    line("id", Some(fanout.id.to_string()));
    line("selector", Some(spec.selector.to_string()));
    line("profile", Some(spec.job.profile.to_string()));
    line("command", Some(spec.job.command.to_string()));
    line("submitted by", Some(fanout.submitted_by.clone()));
    line("state", Some(fanout.state.to_string()));
    let reason = fanout.reason.as_ref();
    line("reason", reason.map(|reason| reason.message.clone()));
    line("cancelled by", fanout.cancelled_by.clone());
    line("clusters", Some(counts(&fanout.counts)));
    line(
        "at once",
        Some(match spec.ramp && !fanout.state.is_over() {
            true => format!("{} of {}", fanout.allowed, limits.concurrency),
            false => limits.concurrency.to_string(),
        }),
    );
    let most = limits.max_failures;
    line("may fail", most.map(|most| most.to_string()));
    let rounds = (fanout.round > 0).then(|| fanout.round.to_string());
    line("went on", rounds.map(|rounds| format!("{rounds} times")));
    line("submitted", Some(moment(fanout.submitted)));
    line("over", fanout.ended.map(moment));
    text
}

fn child(child: &Child) -> [String; 5] {
    let none = || "-".to_owned();
    let attempt = match child.attempt {
        0 | 1 => String::new(),
        attempt => format!(" (attempt {attempt})"),
    };
    [
        child.cluster.to_string(),
        state(child),
        child.exit_code.map_or_else(none, |code| code.to_string()),
        child.job.map_or_else(none, |job| format!("{job}{attempt}")),
        child.reason.clone().unwrap_or_default(),
    ]
}

fn step(step: &FanOutStep) -> [String; 5] {
    let cluster = step.cluster.as_ref();
    [
        exact_moment(step.at),
        step.by.clone(),
        step.step.as_str().replace('_', " "),
        cluster.map_or_else(|| "-".to_owned(), ToString::to_string),
        step.message.clone(),
    ]
}

/// The jobs that there are before it goes on: their output was seen.
async fn known_jobs(id: FanOutId, session: &Session<'_>) -> Result<HashSet<JobId>, Failure> {
    let fanout = session.client.fanout(id, &FanOutQuery::default()).await?;
    Ok(fanout
        .clusters
        .iter()
        .filter_map(|child| child.job)
        .collect())
}

async fn go_on(
    fanout: &FanOut,
    before: HashSet<JobId>,
    no_wait: bool,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    if no_wait {
        return leave(fanout, session);
    }
    follow(fanout.id, before, false, catch(session)?, session).await
}

/// Asks for all of it to be cancelled, and waits until it is over.
///
/// # Errors
/// [`Failure`] if the dispatcher refuses, or cannot be asked.
pub(super) async fn cancel(
    id: FanOutId,
    grace_seconds: Option<u64>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let asked = ask(id, CancelRequest { grace_seconds }, session).await?;
    session
        .printer
        .say(&format!("fan-out {id}: cancel requested"));
    let grace = Duration::from_secs(grace_seconds.unwrap_or(30));
    let fanout = await_end(asked, Instant::now() + grace + A_BIT, session).await?;
    let exit = match fanout.state {
        FanOutStateName::Cancelled => Exit::SUCCESS,
        _ => Exit::of_fanout(&fanout),
    };
    if session.format == Format::Json {
        session.printer.print_json(&fanout)?;
        return Ok(exit);
    }
    session.printer.say(&sentence(&fanout));
    match fanout.state {
        FanOutStateName::Cancelled => {}
        state if state.is_over() => session
            .printer
            .say("it was over before it could be cancelled"),
        _ => session.printer.say(&format!(
            "it is not over yet; the request stands, `invoke fanouts {id}` says more"
        )),
    }
    Ok(exit)
}

/// Asks until there is an answer: the same request again changes nothing.
async fn ask(
    id: FanOutId,
    request: CancelRequest,
    session: &Session<'_>,
) -> Result<FanOut, Failure> {
    let mut patience = Patience::new(session.settings.retry_for);
    loop {
        match session.client.cancel_fanout(id, request).await {
            Ok(fanout) => return Ok(fanout),
            Err(error) if error.is_passing() && patience.is_left(Instant::now()) => {
                patience.pause(error.retry_after()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn await_end(
    mut fanout: FanOut,
    give_up: Instant,
    session: &Session<'_>,
) -> Result<FanOut, Failure> {
    let mut patience = Patience::new(session.settings.retry_for);
    while !fanout.state.is_over() {
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        session
            .printer
            .status(&format!("invoke: {}", counts(&fanout.counts)));
        let query = FanOutQuery {
            wait_seconds: Some(LONG_POLL_SECONDS.min(left.as_secs() + 1)),
            version: Some(fanout.version),
        };
        match session.client.fanout(fanout.id, &query).await {
            Ok(newer) => {
                patience.renew(true);
                fanout = newer;
            }
            Err(error) if error.is_passing() => patience.pause(error.retry_after()).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fanout)
}

/// The fan-out of this id, where the dispatcher has no job of it.
pub(super) async fn in_place_of_job(
    id: JobId,
    error: &client::Error,
    session: &Session<'_>,
) -> Option<FanOut> {
    match error.is_not_found() {
        true => find(id, session).await,
        false => None,
    }
}

/// What a command about a job came to; and where the id is a fan-out's, which command is for that.
///
/// # Errors
/// [`Failure`] if it failed.
pub(super) async fn explained(
    id: JobId,
    done: impl Future<Output = Result<Exit, Failure>>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let done = done.await;
    let is_refused = matches!(&done, Err(failure) if failure.exit == Exit::BAD_INPUT);
    if !is_refused || find(id, session).await.is_none() {
        return done;
    }
    let message = format!("{id} is a command on many clusters, and each has a job of its own");
    Err(Failure::new(Exit::BAD_INPUT, message).with_hint(format!(
        "`invoke fanouts {id}` lists them; `invoke fanouts {id} follow` prints what all of them print"
    )))
}

async fn find(id: JobId, session: &Session<'_>) -> Option<FanOut> {
    let id = FanOutId::from_uuid(*id.as_uuid());
    let fanout = session.client.fanout(id, &FanOutQuery::default()).await;
    fanout.ok()
}
