//! `invoke -l env=prod "kubectl get nodes"`: show which clusters that is, ask, submit, follow, exit with 0 if it
//! succeeded on all of them.

use std::collections::HashSet;
use std::ffi::OsString;

use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::fanout::{
    FanOut, FanOutPlan, FanOutSpec, OfflineClusters, OnStop, PlannedChild,
};
use invoke_protocol::id::{FanOutId, JobId};
use invoke_protocol::job::JobSpec;
use invoke_protocol::selector::Selector;
use tokio::time::Instant;
use uuid::Uuid;

use super::Session;
use super::run::{catch, following_time};
use crate::args::{Format, ManyArgs, RunArgs, verb_names};
use crate::client::{self, Client};
use crate::command_line;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::fanout::{FollowAll, Groups, Lines, Show};
use crate::interrupt::{Followed, Interrupts, Left};
use crate::patience::Patience;
use crate::read_only::is_read_only;
use crate::request::JobRequest;
use crate::submission::{self, What};
use crate::table::columns;

/// What to run on which clusters, understood.
#[derive(Debug)]
pub struct Request {
    job: JobRequest,
    selector: Selector,
    many: ManyArgs,
    if_offline: OfflineClusters,
    yes: bool,
    dry_run: bool,
    group: bool,
    wait: bool,
}

impl Request {
    /// Makes sense of the arguments. The profile is a setting.
    ///
    /// # Errors
    /// [`Failure`] for words that are no command, variables that are none, and stdin.
    pub fn understand(
        args: RunArgs,
        selector: Selector,
        line: &[OsString],
    ) -> Result<Self, Failure> {
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
        if job.take_stdin() || stdin {
            let message = "the commands of many clusters cannot share one stdin";
            return Err(Failure::new(Exit::BAD_INPUT, message)
                .with_hint("attach what they read as a file: -f FILE, and `command < FILE`"));
        }
        let if_offline = job.if_offline.map(OfflineClusters::from);
        let command = command_line::command(words, argv, line, &verb_names())?;
        Ok(Self {
            job: JobRequest::understand(command, job)?,
            selector,
            many,
            if_offline: if_offline.unwrap_or_default(),
            yes,
            dry_run,
            group,
            wait: !no_wait,
        })
    }
}

/// A command on all clusters that a selector chooses, at once, whatever fails.
pub(super) const fn fanout_spec(selector: Selector, job: JobSpec) -> FanOutSpec {
    FanOutSpec {
        job,
        selector,
        canary: Vec::new(),
        concurrency: None,
        ramp: false,
        max_failures: None,
        on_stop: OnStop::Finish,
        if_offline: OfflineClusters::Wait,
        expected: None,
    }
}

/// Shows which clusters it would be, asks if it must, submits, and follows it to its end.
///
/// # Errors
/// [`Failure`] if nothing was submitted, or there is no more to be known of it.
pub async fn run(request: Request, session: &Session<'_>) -> Result<Exit, Failure> {
    let Request {
        job,
        selector,
        many,
        if_offline,
        yes,
        dry_run,
        group,
        wait,
    } = request;
    for notice in job.notices() {
        session.printer.say(notice);
    }
    let mut interrupts = catch(session)?;
    let mut each = job.spec(&session.settings);
    // The settings' cluster is for commands that name none.
    each.cluster = None;
    let spec = FanOutSpec {
        canary: many.canary,
        concurrency: many.concurrency,
        ramp: many.ramp,
        max_failures: many.max_failures,
        on_stop: many.on_stop.map(Into::into).unwrap_or_default(),
        if_offline,
        ..fanout_spec(selector, each)
    };
    let plan = plan(&spec, &mut interrupts, session).await?;
    if dry_run {
        return show_plan(&plan, session);
    }
    let must_ask = plan.clusters.len() > 1 && !yes && !is_read_only(&spec.job.command);
    if session.format == Format::Text || must_ask {
        session.printer.say(&sentence(&plan, &spec));
        session.printer.show(&table(&plan));
    }
    if must_ask {
        ask(plan.clusters.len(), &mut interrupts, session).await?;
    }
    let expected = plan.clusters.into_iter().map(|child| child.cluster);
    let spec = FanOutSpec {
        expected: Some(expected.collect()),
        ..spec
    };
    let fanout = submit(&spec, job.files, &mut interrupts, session).await?;
    if !wait {
        return leave(&fanout, session);
    }
    if session.format == Format::Text {
        session.printer.say(&format!("fan-out {}", fanout.id));
    }
    follow(fanout.id, HashSet::new(), group, interrupts, session).await
}

/// Asks which clusters it would be. Secrets are no part of that.
async fn plan(
    spec: &FanOutSpec,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
) -> Result<FanOutPlan, Failure> {
    let mut spec = spec.clone();
    spec.job.secrets = SecretEnvironment::default();
    match interrupts.preparing(ask_for_plan(&spec, session)).await {
        Ok(plan) => Ok(plan?),
        Err(Left) => Err(submission::left_before_submitting()),
    }
}

/// Asks until there is an answer: a plan changes nothing.
async fn ask_for_plan(
    spec: &FanOutSpec,
    session: &Session<'_>,
) -> Result<FanOutPlan, client::Error> {
    let mut patience = Patience::new(session.settings.retry_for);
    let mut announced = false;
    loop {
        let error = match session.client.plan_fanout(spec).await {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        if !error.is_passing() || !patience.is_left(Instant::now()) {
            return Err(error);
        }
        if !std::mem::replace(&mut announced, true) {
            let words = format!("{}; trying again", chain(&error));
            session.printer.say(&words);
        }
        patience.pause(error.retry_after()).await;
    }
}

async fn ask(
    clusters: usize,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
) -> Result<(), Failure> {
    let printer = session.printer;
    if !printer.can_ask() {
        let message = format!(
            "it would run on {clusters} clusters, is not known to only read, and there is nobody to ask"
        );
        return Err(Failure::new(Exit::BAD_INPUT, message)
            .with_hint("--yes runs it; --dry-run shows what it would be"));
    }
    let answer = session.input.answer();
    printer.ask(&format!("run on {clusters} clusters? [y/N]"));
    match interrupts.preparing(answer).await {
        Ok(Some(answer)) if is_yes(&answer) => Ok(()),
        Ok(_) => Err(Failure::new(Exit::INTERRUPTED, "nothing was submitted")),
        Err(Left) => {
            printer.show("\n");
            Err(submission::left_before_submitting())
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

async fn submit(
    spec: &FanOutSpec,
    files: Vec<OsString>,
    interrupts: &mut Interrupts<'_>,
    session: &Session<'_>,
) -> Result<FanOut, Failure> {
    let (key, retry_for) = (Uuid::now_v7(), session.settings.retry_for);
    let submit = async |files| {
        let mut spec = spec.clone();
        spec.job.files = files;
        let call = async || session.client.submit_fanout(&spec, key).await;
        submission::submit(What::FanOut, retry_for, session.printer, call).await
    };
    submission::with_files(What::FanOut, files, interrupts, session, submit).await
}

/// Follows one to its end. The output of `known` jobs is not printed.
///
/// # Errors
/// [`Failure`] if there is no more to be known of it.
pub(super) async fn follow(
    id: FanOutId,
    known: HashSet<JobId>,
    group: bool,
    mut interrupts: Interrupts<'_>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let (printer, raw) = (session.printer, session.raw);
    let watch = Client::new(&session.settings)?;
    let lines = Lines::new(printer, raw);
    let show = match session.format {
        Format::Json => Show::Document,
        Format::Text if group => Show::Groups(Groups::default()),
        Format::Text => Show::Lines(&lines),
    };
    let follow = FollowAll {
        client: &session.client,
        watch: &watch,
        id,
        known,
        patience: following_time(session),
        printer,
    };
    let followed = Followed::FanOut(id);
    match interrupts
        .following(&session.client, followed, follow.to_end(show))
        .await
    {
        Ok(Ok(outcome)) => outcome.print(raw, printer).await,
        Ok(Err(error)) => Err(error.into()),
        Err(Left) => {
            let message = format!("detached; fan-out {id} goes on");
            Err(Failure::new(Exit::DETACHED, message).with_hint(format!(
                "`invoke fanouts {id} follow` follows it again, `invoke fanouts {id} cancel` stops it"
            )))
        }
    }
}

/// Prints the id, and leaves.
pub(super) fn leave(fanout: &FanOut, session: &Session<'_>) -> Result<Exit, Failure> {
    match session.format {
        Format::Text => session.printer.print(&format!("{}\n", fanout.id))?,
        Format::Json => session.printer.print_json(fanout)?,
    }
    Ok(Exit::SUCCESS)
}

fn show_plan(plan: &FanOutPlan, session: &Session<'_>) -> Result<Exit, Failure> {
    match session.format {
        Format::Json => session.printer.print_json(plan)?,
        Format::Text => session.printer.print(&table(plan))?,
    }
    Ok(Exit::SUCCESS)
}

/// What will be done, in one sentence.
fn sentence(plan: &FanOutPlan, spec: &FanOutSpec) -> String {
    let limits = &plan.limits;
    let mut parts = vec![match limits.clusters {
        1 => "this is 1 cluster".to_owned(),
        count => format!("these are {count} clusters"),
    }];
    if limits.canaries > 0 {
        parts.push(match limits.canaries {
            1 => "the canary first".to_owned(),
            count => format!("{count} canaries first"),
        });
    }
    if limits.concurrency < limits.clusters {
        parts.push(format!("at most {} at once", limits.concurrency));
    }
    if spec.ramp {
        parts.push("one more with each success".to_owned());
    }
    if let Some(most) = limits.max_failures {
        parts.push(match most {
            0 => "it stops when one has failed".to_owned(),
            most => format!("it stops when {} have failed", u64::from(most) + 1),
        });
    }
    parts.join("; ")
}

fn table(plan: &FanOutPlan) -> String {
    let rows: Vec<_> = plan.clusters.iter().map(row).collect();
    columns(["CLUSTER", "NOTE"], &rows)
}

fn row(child: &PlannedChild) -> [String; 2] {
    let canary = child.canary.then(|| "canary".to_owned());
    let refusal = child.refusal.as_ref();
    let refusal = refusal.map(|refusal| format!("would be refused: {}", refusal.message));
    let notes: Vec<_> = [canary, child.offline.clone(), refusal]
        .into_iter()
        .flatten()
        .collect();
    [child.cluster.to_string(), notes.join("; ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_runs_anything() {
        for yes in ["y\n", "Y", " yes \n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "yeah", "ja", "y y"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
