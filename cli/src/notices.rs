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
    quiet_until: Instant,
    later: Option<Notice>,
    said: VecDeque<String>,
    lost_contact: bool,
    cut_before: bool,
    cut_said: bool,
}

/// One sentence about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Notice {
    text: String,
    /// The same for a status line, which is one line long at most.
    brief: String,
    /// Whether it is worth a line at once.
    is_problem: bool,
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
            quiet_until: Instant::now() + quiet,
            later: None,
            said: VecDeque::new(),
            lost_contact: false,
            cut_before: false,
            cut_said: false,
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
            Some(notice) if notice.is_problem => self.say(notice.text),
            Some(notice) => self.later = Some(notice),
            None => self.printer.clear_status(),
        }
    }

    /// The connection was cut, or could not be made again, so many times in a row. The first outage is
    /// said at once; later ones only if they last, because some proxies cut every connection now and
    /// then.
    pub fn cut(&mut self, failed_attempts: u32) {
        let is_new = failed_attempts <= 1;
        if is_new && !self.cut_before || failed_attempts == 3 && !self.cut_said {
            self.printer.say("the connection was cut; reconnecting");
            self.cut_said = true;
        } else if is_new {
            self.cut_said = false;
        }
        self.cut_before = true;
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
        if let Some(Notice { text, brief, .. }) = self.later.take() {
            if self.printer.is_interactive() {
                self.printer.status(&format!("invoke: {brief}"));
            } else {
                self.say(text);
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
            let text = format!("{name}: waiting: {}", reason.message);
            Some(Notice {
                text,
                is_problem: is_problem(reason.code),
            })
        }
        StateName::ContactLost => {
            let text = format!(
                "{name}: nobody there has spoken for it lately; it may still be running, waiting for news"
            );
            Some(Notice {
                text,
                is_problem: true,
            })
        }
        StateName::Cancelling => {
            let by = job.cancelled_by.as_deref().unwrap_or("somebody");
            let text = format!("{name}: {by} asked for it to be cancelled; stopping the command");
            Some(Notice {
                text,
                is_problem: true,
            })
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
