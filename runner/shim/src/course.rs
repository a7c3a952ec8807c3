//! The course of one command: a pure machine that says when to terminate and when to kill.
//!
//! ```text
//!  Running ──stop, time──▶ Stopping ──time──▶ Stopping, killed
//!     │                       │                    │
//!     └───────── ended ───────┴────────────────────┴──▶ Over ──output closed, or 2 s and killed──▶ done
//! ```

use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitStatus};

/// For how long what the command left behind may go on holding its pipes. `sh -c 'daemon & echo done'`
/// must not keep a job open for as long as the daemon lives.
const LINGER: Duration = Duration::from_secs(2);

/// Who wants the command stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// Somebody cancelled the job.
    Cancelled,
    /// Its time is over.
    RunTimeout,
    /// Kubernetes ends the pod.
    PodTerminated,
    /// The dispatcher has given the job up.
    Unwanted,
}

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its main process is gone.
    Ended(ExitStatus),
    /// Nobody holds its pipes any more.
    OutputClosed,
    /// It is to be stopped.
    Stop(StopCause),
    /// The moment of [`Course::deadline`] has come.
    Time,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// SIGTERM to the process group.
    Terminate,
    /// SIGKILL to everything.
    Kill,
    /// It is over: kill what is left and report.
    Report {
        status: ExitStatus,
        cause: Option<StopCause>,
    },
}

#[derive(Debug)]
enum Phase {
    Running {
        until: Instant,
    },
    Stopping {
        cause: StopCause,
        kill_at: Option<Instant>,
    },
    Over {
        status: ExitStatus,
        cause: Option<StopCause>,
        kill_at: Option<Instant>,
    },
}

/// Where a command stands.
#[derive(Debug)]
pub(crate) struct Course {
    phase: Phase,
    output_closed: bool,
    grace: Duration,
}

impl Course {
    /// A command that has just been started and may run until `until`.
    pub(crate) fn new(until: Instant, grace: Duration) -> Self {
        Self {
            phase: Phase::Running { until },
            output_closed: false,
            grace,
        }
    }

    /// When to come back with [`Event::Time`], if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { until } => Some(until),
            Phase::Stopping { kill_at, .. } | Phase::Over { kill_at, .. } => kill_at,
        }
    }

    /// Takes what happened at `now` into account.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Step {
        match event {
            Event::Ended(status) => self.ended(status, now),
            Event::OutputClosed => {
                self.output_closed = true;
                self.report_if_over(Step::Nothing)
            }
            Event::Stop(cause) => self.stop(cause, now),
            Event::Time => self.time(now),
        }
    }

    fn ended(&mut self, status: ExitStatus, now: Instant) -> Step {
        let cause = match self.phase {
            // Before any signal of ours: the exit is the command's own word, whatever is asked later.
            Phase::Running { .. } => None,
            Phase::Stopping { cause, .. } => Some(cause),
            Phase::Over { .. } => return Step::Nothing,
        };
        self.phase = Phase::Over {
            status,
            cause,
            kill_at: Some(now + LINGER),
        };
        self.report_if_over(Step::Nothing)
    }

    fn stop(&mut self, cause: StopCause, now: Instant) -> Step {
        // The first cause wins: a second one must neither rename the end nor renew the grace.
        let Phase::Running { .. } = self.phase else {
            return Step::Nothing;
        };
        self.phase = Phase::Stopping {
            cause,
            kill_at: Some(now + self.grace),
        };
        Step::Terminate
    }

    fn time(&mut self, now: Instant) -> Step {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Step::Nothing;
        }
        match &mut self.phase {
            Phase::Running { .. } => self.stop(StopCause::RunTimeout, now),
            Phase::Stopping { kill_at, .. } | Phase::Over { kill_at, .. } => {
                *kill_at = None;
                Step::Kill
            }
        }
    }

    fn report_if_over(&self, otherwise: Step) -> Step {
        match self.phase {
            Phase::Over { status, cause, .. } if self.output_closed => {
                Step::Report { status, cause }
            }
            _ => otherwise,
        }
    }
}

impl StopCause {
    /// What the exit record says; `None` if nobody wants one.
    pub(crate) fn in_record(cause: Option<Self>) -> Option<EndCause> {
        match cause {
            None => Some(EndCause::Itself),
            Some(Self::Cancelled) => Some(EndCause::Cancelled),
            Some(Self::RunTimeout) => Some(EndCause::RunTimeout),
            Some(Self::PodTerminated) => Some(EndCause::PodTerminated),
            Some(Self::Unwanted) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: ExitStatus = ExitStatus::Exited(0);
    const TERM: ExitStatus = ExitStatus::Signalled(15);

    fn course(start: Instant) -> Course {
        Course::new(start + Duration::from_secs(60), Duration::from_secs(30))
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_command_that_ends_by_itself_is_reported_when_its_output_is_read() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(course.on(Event::Ended(OK), start), Step::Nothing);
        let report = Step::Report {
            status: OK,
            cause: None,
        };
        assert_eq!(course.on(Event::OutputClosed, start), report);
    }

    #[test]
    fn closed_output_is_not_the_end() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(course.on(Event::OutputClosed, start), Step::Nothing);
        let report = Step::Report {
            status: OK,
            cause: None,
        };
        assert_eq!(course.on(Event::Ended(OK), start), report);
    }

    #[test]
    fn what_holds_the_pipes_after_the_end_is_killed_after_two_seconds() {
        let start = Instant::now();
        let mut course = course(start);
        course.on(Event::Ended(OK), start);
        assert_eq!(course.deadline(), Some(after(start, 2)));
        assert_eq!(course.on(Event::Time, after(start, 1)), Step::Nothing);
        assert_eq!(course.on(Event::Time, after(start, 2)), Step::Kill);
        assert_eq!(course.deadline(), None);
    }

    #[test]
    fn time_over_means_terminate_then_kill() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(course.on(Event::Time, after(start, 59)), Step::Nothing);
        assert_eq!(course.on(Event::Time, after(start, 60)), Step::Terminate);
        assert_eq!(course.deadline(), Some(after(start, 90)));
        assert_eq!(course.on(Event::Time, after(start, 90)), Step::Kill);
        course.on(Event::OutputClosed, after(start, 90));
        let report = Step::Report {
            status: TERM,
            cause: Some(StopCause::RunTimeout),
        };
        assert_eq!(course.on(Event::Ended(TERM), after(start, 90)), report);
    }

    /// Two causes must not add up to twice the grace, nor swap the reason.
    #[test]
    fn the_first_cause_wins() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(
            course.on(Event::Stop(StopCause::Cancelled), start),
            Step::Terminate
        );
        assert_eq!(
            course.on(Event::Stop(StopCause::PodTerminated), after(start, 5)),
            Step::Nothing
        );
        assert_eq!(course.deadline(), Some(after(start, 30)));
        course.on(Event::OutputClosed, start);
        let report = Step::Report {
            status: TERM,
            cause: Some(StopCause::Cancelled),
        };
        assert_eq!(course.on(Event::Ended(TERM), after(start, 6)), report);
    }

    /// Else a command that succeeded would be shown as cancelled.
    #[test]
    fn a_stop_after_the_end_changes_nothing() {
        let start = Instant::now();
        let mut course = course(start);
        course.on(Event::Ended(OK), start);
        assert_eq!(
            course.on(Event::Stop(StopCause::Cancelled), start),
            Step::Nothing
        );
        let report = Step::Report {
            status: OK,
            cause: None,
        };
        assert_eq!(course.on(Event::OutputClosed, start), report);
    }
}
