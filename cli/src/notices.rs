//! What a person is told while a job is under way: nothing while all is well and quick, and otherwise
//! what it waits for, once per change.

use std::collections::VecDeque;
use std::time::Duration;

use invoke_protocol::job::Job;
use invoke_protocol::state::{ReasonCode, StateName};
use tokio::time::Instant;

use crate::printer::Printer;

/// How long a job may be on its way before a person at a terminal is told.
const QUIET_FOR_A_PERSON: Duration = Duration::from_secs(1);
/// The same for a log, where the line stays.
const QUIET_FOR_A_LOG: Duration = Duration::from_secs(2);
/// How many sentences are remembered, so that two that alternate are said once each.
const REMEMBERED: usize = 8;

/// Tells a person about one job.
pub struct Notices<'a> {
    printer: &'a Printer,
    /// Whether there are others beside it: then only what is wrong with it is told.
    is_one_of_many: bool,
    quiet_until: Instant,
    later: Option<Ordinary>,
    said: VecDeque<String>,
    lost_contact: bool,
    cut_before: bool,
    cut_said: bool,
}

/// What there is to say about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    /// Something is wrong, or has changed for good: a line at once.
    AtOnce(String),
    /// The ordinary way of things, told if it takes long.
    Later(Ordinary),
}

/// One sentence in two lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ordinary {
    /// For a log.
    line: String,
    /// For a terminal, where it comes and goes: without what the person knows.
    status: String,
}

impl<'a> Notices<'a> {
    /// For a job that is followed from now on.
    #[must_use]
    pub fn new(printer: &'a Printer) -> Self {
        let quiet = if printer.is_interactive() {
            QUIET_FOR_A_PERSON
        } else {
            QUIET_FOR_A_LOG
        };
        Self {
            printer,
            is_one_of_many: false,
            quiet_until: Instant::now() + quiet,
            later: None,
            said: VecDeque::new(),
            lost_contact: false,
            cut_before: false,
            cut_said: false,
        }
    }

    /// For one of many jobs that are followed side by side. Whoever follows them all tells of the connection, and
    /// of what is ordinary.
    #[must_use]
    pub fn of_one_of_many(printer: &'a Printer) -> Self {
        Self {
            is_one_of_many: true,
            ..Self::new(printer)
        }
    }

    /// Says what is new about a job, now or, if it is still so by then, a little later.
    pub fn observe(&mut self, job: &Job) {
        self.later = None;
        let back = self.lost_contact && job.state == StateName::Running;
        self.lost_contact = job.state == StateName::ContactLost;
        if back {
            self.said.clear();
            self.say(format!("job {}: its cluster speaks again", job.id));
        }
        match notice(job) {
            Some(Notice::AtOnce(line)) => self.say(line),
            _ if self.is_one_of_many => {}
            Some(Notice::Later(ordinary)) => self.later = Some(ordinary),
            None => self.printer.clear_status(),
        }
    }

    /// The connection was cut, or could not be made again, so many times in a row. The first outage is
    /// said at once; later ones only if they last, because some proxies cut every connection now and
    /// then.
    pub fn cut(&mut self, failed_attempts: u32) {
        if self.is_one_of_many {
            return;
        }
        let is_new = failed_attempts <= 1;
        if is_new && !self.cut_before || failed_attempts == 3 && !self.cut_said {
            self.printer.say("reconnecting to the dispatcher…");
            self.cut_said = true;
        } else if is_new {
            self.cut_said = false;
        }
        self.cut_before = true;
    }

    /// The dispatcher has answered: an outage that was said is said to be over.
    pub fn answered(&mut self) {
        if std::mem::take(&mut self.cut_said) {
            self.printer.say("reconnected");
        }
    }

    /// Waits until [`Notices::speak`] has something to say.
    pub async fn due(&self) {
        match self.later {
            Some(_) => tokio::time::sleep_until(self.quiet_until).await,
            None => std::future::pending().await,
        }
    }

    /// Says what was kept for later.
    pub fn speak(&mut self) {
        if let Some(Ordinary { line, status }) = self.later.take() {
            if self.printer.is_interactive() {
                self.printer.status(&format!("invoke: {status}"));
            } else {
                self.say(line);
            }
        }
    }

    fn say(&mut self, text: String) {
        if !self.said.contains(&text) {
            self.printer.say(&text);
            self.said.push_back(text);
            if self.said.len() > REMEMBERED {
                self.said.pop_front();
            }
        }
    }
}

/// What there is to say about a job as it is now.
fn notice(job: &Job) -> Option<Notice> {
    let name = format!("job {} on cluster {}", job.id, job.cluster);
    match job.state {
        StateName::Queued | StateName::Claimed | StateName::Starting => {
            let reason = job.waiting.as_ref()?;
            let status = format!("waiting: {}", reason.message);
            let line = format!("{name}: {status}");
            Some(match is_problem(reason.code) {
                true => Notice::AtOnce(line),
                false => Notice::Later(Ordinary { line, status }),
            })
        }
        StateName::ContactLost => {
            let silence = job
                .waiting
                .as_ref()
                .map_or("nobody there has spoken for it lately", |reason| {
                    &reason.message
                });
            Some(Notice::AtOnce(format!(
                "{name}: {silence}; it may still be running, waiting for news"
            )))
        }
        StateName::Cancelling => {
            let by = job.cancelled_by.as_deref().unwrap_or("somebody");
            Some(Notice::AtOnce(format!(
                "{name}: {by} asked for it to be cancelled; stopping the command"
            )))
        }
        _ => None,
    }
}

/// Whether a reason to wait is more than the ordinary way of things.
const fn is_problem(code: ReasonCode) -> bool {
    !matches!(
        code,
        ReasonCode::OnItsWay | ReasonCode::PodStarting | ReasonCode::RunnerBusy
    )
}
