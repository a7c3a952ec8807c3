//! `invoke cancel ID`, of a job; for a command on many clusters see [`super::fanouts`]
//!
//! Three stages, each said as it comes: the dispatcher has the request, the pod has the order, the
//! command is dead.

use std::time::Duration;

use invoke_protocol::api::JobQuery;
use invoke_protocol::id::JobId;
use invoke_protocol::job::{CancelRequest, Job, StepName};
use invoke_protocol::state::{Started, StateName};

use tokio::time::Instant;

use super::{Session, fanouts};
use crate::args::Format;
use crate::client::{self, LONG_POLL_SECONDS};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::patience::Patience;
use crate::printer::Printer;
use crate::verdict::sentence;

/// How long to wait for each stage, besides the grace.
const A_BIT: Duration = Duration::from_secs(30);
/// What the cluster's own grace may be, where none was asked for.
const CLUSTERS_GRACE: Duration = Duration::from_secs(30);

/// Asks for a job to be cancelled, and waits until it is over.
///
/// # Errors
/// [`Failure`] if the dispatcher refuses, or cannot be asked.
pub async fn cancel(
    id: JobId,
    grace_seconds: Option<u64>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let asked = match ask(id, CancelRequest { grace_seconds }, session).await {
        Ok(asked) => asked,
        Err(error) => {
            return match fanouts::in_place_of_job(id, &error, session).await {
                Some(fanout) => fanouts::cancel(fanout.id, grace_seconds, session).await,
                None => Err(error.into()),
            };
        }
    };
    let mut stages = Stages::new(grace_seconds, session.printer);
    stages.observe(&asked);
    let job = await_end(asked, &mut stages, session).await?;
    let exit = match job.state {
        StateName::Cancelled => Exit::SUCCESS,
        state if state.is_terminal() => Exit::of_job(&job),
        _ => Exit::DETACHED,
    };
    if session.format == Format::Json {
        session.printer.print_json(&job)?;
    } else {
        session.printer.say(&words(&job));
    }
    Ok(exit)
}

/// Asks until there is an answer: the same request again changes nothing.
async fn ask(
    id: JobId,
    request: CancelRequest,
    session: &Session<'_>,
) -> Result<Job, client::Error> {
    let mut patience = Patience::new(session.settings.retry_for);
    loop {
        match session.client.cancel(id, request).await {
            Ok(job) => return Ok(job),
            Err(error) if error.is_passing() && patience.is_left(Instant::now()) => {
                patience.pause(error.retry_after()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn await_end(
    mut job: Job,
    stages: &mut Stages<'_>,
    session: &Session<'_>,
) -> Result<Job, Failure> {
    let mut patience = Patience::new(session.settings.retry_for);
    while !job.state.is_terminal() {
        let left = stages.give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let query = JobQuery {
            wait_seconds: Some(LONG_POLL_SECONDS.min(left.as_secs() + 1)),
            version: Some(job.version),
            // Output is no news here.
            log_bytes: Some(u64::MAX),
        };
        match session.client.job(job.id, &query).await {
            Ok(newer) => {
                patience.renew(true);
                job = newer;
                stages.observe(&job);
            }
            Err(error) if error.is_passing() => patience.pause(error.retry_after()).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(job)
}

/// What was said already, and until when to wait.
struct Stages<'a> {
    printer: &'a Printer,
    grace_seconds: Option<u64>,
    requested: bool,
    delivered: bool,
    give_up: Instant,
}

impl<'a> Stages<'a> {
    fn new(grace_seconds: Option<u64>, printer: &'a Printer) -> Self {
        let mut stages = Self {
            printer,
            grace_seconds,
            requested: false,
            delivered: false,
            give_up: Instant::now(),
        };
        stages.wait_for_grace();
        stages
    }

    fn observe(&mut self, job: &Job) {
        if job.state == StateName::Cancelling && !std::mem::replace(&mut self.requested, true) {
            self.printer
                .say(&format!("job {}: cancel requested", job.id));
        }
        if was_delivered(job) && !std::mem::replace(&mut self.delivered, true) {
            let kill = match self.grace_seconds {
                Some(0) => "SIGKILL at once".to_owned(),
                Some(seconds) => format!("SIGKILL after {seconds} s"),
                None => "SIGKILL when the cluster's grace is over".to_owned(),
            };
            self.printer.say(&format!(
                "job {}: delivered to the pod: SIGTERM sent, {kill}",
                job.id
            ));
            self.wait_for_grace();
        }
    }

    /// The grace begins when the pod has the order.
    fn wait_for_grace(&mut self) {
        let grace = self
            .grace_seconds
            .map_or(CLUSTERS_GRACE, Duration::from_secs);
        self.give_up = Instant::now() + grace + A_BIT;
    }
}

/// Also by the story, for a command that was dead before the delivery could be seen.
fn was_delivered(job: &Job) -> bool {
    let told = || {
        let mut steps = job.story.iter();
        steps.any(|step| step.step == StepName::CancelDelivered)
    };
    job.times.cancel_delivered.is_some() || job.state == StateName::Cancelled && told()
}

fn words(job: &Job) -> String {
    let state = job.state;
    match sentence(job) {
        Some(sentence) if state == StateName::Cancelled && job.started != Started::No => {
            format!("the command is dead: {sentence}")
        }
        Some(sentence) if state == StateName::Cancelled => sentence,
        _ if matches!(state, StateName::Succeeded | StateName::Failed) => {
            let code = job
                .exit_code
                .map(|code| format!(" with code {code}"))
                .unwrap_or_default();
            format!(
                "job {} was not cancelled: its command ended first{code}",
                job.id
            )
        }
        Some(sentence) => sentence,
        None => format!(
            "job {} is not over yet: its state is {state}; the request stands, `invoke why {}` says more",
            job.id, job.id
        ),
    }
}
