//! The course of one command: a pure machine that says when to terminate and when to kill.
//!
//! ```text
//!  Running ──stop, time──▶ Stopping ──time──▶ Stopping, killed
//!     │                       │                    │
//!     └───────── ended ───────┴────────────────────┴──▶ Over ──output closed, or 2 s and killed──▶ done
//! ```
//!
//! **Who ended it** is whoever had SIGTERM sent, and that is whoever came first:
//!
//! - A cancellation has it sent at once, and so does the run deadline when it comes.
//! - Kubernetes' word to the pod does not: the command goes on by itself for a while (the drain), and its
//!   exit in that time is its own. A cancellation or the run deadline in that time is the cause then;
//!   otherwise the end of the drain is.
//! - What comes after SIGTERM changes nothing but the grace, and that only for the shorter.

use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitStatus};
use invoke_protocol::shim::Assignment;

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

/// A wish to have the command stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) cause: StopCause,
    /// From SIGTERM to SIGKILL, where it is not to be the assignment's.
    pub(crate) grace: Option<Duration>,
}

impl Stop {
    /// With the assignment's grace.
    pub(crate) const fn at_once(cause: StopCause) -> Self {
        Self { cause, grace: None }
    }
}

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its main process is gone.
    Ended(ExitStatus),
    /// Nobody holds its pipes any more.
    OutputClosed,
    /// It is to be stopped.
    Stop(Stop),
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
        /// Whether all that it printed was read.
        output: OutputRead,
    },
}

/// Whether all that a command printed was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputRead {
    /// To the end.
    Whole,
    /// There was no room for the rest, for too long.
    Abandoned,
}

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The command.
    pub(crate) run: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
    /// From Kubernetes' word to SIGTERM.
    pub(crate) drain: Duration,
    /// From the death of everything to when what is left in the pipes is given up.
    pub(crate) farewell: Duration,
}

impl Limits {
    pub(crate) fn of(assignment: &Assignment, farewell: Duration) -> Self {
        let drain = match invoke_hooks::sabotaged("shim.no-drain") {
            true => 0,
            false => assignment.drain_seconds,
        };
        Self {
            run: Duration::from_secs(assignment.run_timeout_seconds),
            grace: Duration::from_secs(assignment.grace_seconds),
            drain: Duration::from_secs(drain),
            farewell,
        }
    }
}

#[derive(Debug)]
enum Phase {
    Running {
        until: Instant,
        /// When Kubernetes' patience is over, if it has spoken.
        drained_at: Option<Instant>,
    },
    Stopping {
        cause: StopCause,
        kill_at: Option<Instant>,
    },
    Over {
        status: ExitStatus,
        cause: Option<StopCause>,
        kill_at: Option<Instant>,
        abandon_at: Instant,
    },
}

/// Where a command stands.
#[derive(Debug)]
pub(crate) struct Course {
    phase: Phase,
    output_closed: bool,
    limits: Limits,
}

impl Course {
    /// A command that was started at `start`.
    pub(crate) fn new(start: Instant, limits: Limits) -> Self {
        Self {
            phase: Phase::Running {
                until: start + limits.run,
                drained_at: None,
            },
            output_closed: false,
            limits,
        }
    }

    /// When to come back with [`Event::Time`], if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { until, drained_at } => {
                Some(drained_at.map_or(until, |drained_at| until.min(drained_at)))
            }
            Phase::Stopping { kill_at, .. } => kill_at,
            Phase::Over {
                kill_at,
                abandon_at,
                ..
            } => Some(kill_at.unwrap_or(abandon_at)),
        }
    }

    /// Whether it was told to stop and has not ended.
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// Takes what happened at `now` into account.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Step {
        match event {
            Event::Ended(status) => self.ended(status, now),
            Event::OutputClosed => {
                self.output_closed = true;
                self.report_if_read()
            }
            Event::Stop(stop) => self.stop(stop, now),
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
            abandon_at: now + LINGER + self.limits.farewell,
        };
        self.report_if_read()
    }

    fn stop(&mut self, stop: Stop, now: Instant) -> Step {
        match &mut self.phase {
            Phase::Running { drained_at, .. } if stop.cause == StopCause::PodTerminated => {
                let drained_at = *drained_at.get_or_insert(now + self.limits.drain);
                if now < drained_at {
                    Step::Nothing
                } else {
                    self.terminate(stop, now)
                }
            }
            Phase::Running { .. } => self.terminate(stop, now),
            // The first cause stays, and its grace is not renewed; a person may be less patient now.
            Phase::Stopping { kill_at, .. } => {
                if let (Some(kill_at), Some(grace)) = (kill_at, stop.grace) {
                    *kill_at = (*kill_at).min(now + grace);
                }
                Step::Nothing
            }
            Phase::Over { .. } => Step::Nothing,
        }
    }

    fn terminate(&mut self, stop: Stop, now: Instant) -> Step {
        self.phase = Phase::Stopping {
            cause: stop.cause,
            kill_at: Some(now + stop.grace.unwrap_or(self.limits.grace)),
        };
        Step::Terminate
    }

    fn time(&mut self, now: Instant) -> Step {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Step::Nothing;
        }
        match &mut self.phase {
            Phase::Running { until, drained_at } => {
                let cause = match drained_at {
                    Some(drained_at) if *drained_at < *until => StopCause::PodTerminated,
                    _ => StopCause::RunTimeout,
                };
                self.terminate(Stop::at_once(cause), now)
            }
            Phase::Stopping { kill_at, .. } => {
                *kill_at = None;
                Step::Kill
            }
            Phase::Over { kill_at, .. } if kill_at.is_some() => {
                *kill_at = None;
                Step::Kill
            }
            Phase::Over { status, cause, .. } => Step::Report {
                status: *status,
                cause: *cause,
                output: OutputRead::Abandoned,
            },
        }
    }

    fn report_if_read(&self) -> Step {
        match self.phase {
            Phase::Over { status, cause, .. } if self.output_closed => Step::Report {
                status,
                cause,
                output: OutputRead::Whole,
            },
            _ => Step::Nothing,
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
        let limits = Limits {
            run: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            drain: Duration::from_secs(20),
            farewell: Duration::from_secs(3600),
        };
        Course::new(start, limits)
    }

    fn report(status: ExitStatus, cause: Option<StopCause>) -> Step {
        Step::Report {
            status,
            cause,
            output: OutputRead::Whole,
        }
    }

    fn stop(cause: StopCause, grace: Option<u64>) -> Event {
        Event::Stop(Stop {
            cause,
            grace: grace.map(Duration::from_secs),
        })
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_command_that_ends_by_itself_is_reported_when_its_output_is_read() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(course.on(Event::Ended(OK), start), Step::Nothing);
        let report = report(OK, None);
        assert_eq!(course.on(Event::OutputClosed, start), report);
    }

    #[test]
    fn closed_output_is_not_the_end() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(course.on(Event::OutputClosed, start), Step::Nothing);
        let report = report(OK, None);
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
        assert_eq!(course.deadline(), Some(after(start, 3602)));
        let abandoned = Step::Report {
            status: OK,
            cause: None,
            output: OutputRead::Abandoned,
        };
        assert_eq!(course.on(Event::Time, after(start, 3602)), abandoned);
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
        let report = report(TERM, Some(StopCause::RunTimeout));
        assert_eq!(course.on(Event::Ended(TERM), after(start, 90)), report);
    }

    /// Two causes must not add up to twice the grace, nor swap the reason.
    #[test]
    fn the_first_cause_wins() {
        let start = Instant::now();
        let mut course = course(start);
        assert_eq!(
            course.on(stop(StopCause::Cancelled, None), start),
            Step::Terminate
        );
        assert_eq!(
            course.on(stop(StopCause::PodTerminated, None), after(start, 5)),
            Step::Nothing
        );
        assert_eq!(course.deadline(), Some(after(start, 30)));
        course.on(Event::OutputClosed, start);
        let report = report(TERM, Some(StopCause::Cancelled));
        assert_eq!(course.on(Event::Ended(TERM), after(start, 6)), report);
    }

    /// Else a command that succeeded would be shown as cancelled.
    #[test]
    fn a_stop_after_the_end_changes_nothing() {
        let start = Instant::now();
        let mut course = course(start);
        course.on(Event::Ended(OK), start);
        assert_eq!(
            course.on(stop(StopCause::Cancelled, None), start),
            Step::Nothing
        );
        let report = report(OK, None);
        assert_eq!(course.on(Event::OutputClosed, start), report);
    }

    /// Row by row: what happens while Kubernetes waits for a command to end by itself.
    #[test]
    fn a_drain_leaves_the_command_alone_for_a_while() {
        let start = Instant::now();
        let drained = || {
            let mut course = course(start);
            let told = stop(StopCause::PodTerminated, None);
            assert_eq!(course.on(told, after(start, 1)), Step::Nothing);
            // Told again, as kubelets do: the time does not begin anew.
            assert_eq!(course.on(told, after(start, 5)), Step::Nothing);
            assert_eq!(course.deadline(), Some(after(start, 21)));
            course.on(Event::OutputClosed, after(start, 6));
            course
        };
        let mut by_itself = drained();
        assert_eq!(
            by_itself.on(Event::Ended(OK), after(start, 20)),
            report(OK, None)
        );

        let mut too_slow = drained();
        assert_eq!(too_slow.on(Event::Time, after(start, 21)), Step::Terminate);
        assert_eq!(too_slow.deadline(), Some(after(start, 51)));
        let terminated = report(OK, Some(StopCause::PodTerminated));
        assert_eq!(too_slow.on(Event::Ended(OK), after(start, 22)), terminated);

        let mut cancelled = drained();
        let cancel = stop(StopCause::Cancelled, Some(4));
        assert_eq!(cancelled.on(cancel, after(start, 10)), Step::Terminate);
        assert_eq!(cancelled.deadline(), Some(after(start, 14)));
        let ended = cancelled.on(Event::Ended(TERM), after(start, 11));
        assert_eq!(ended, report(TERM, Some(StopCause::Cancelled)));
    }

    #[test]
    fn the_run_deadline_within_a_drain_is_the_cause() {
        let start = Instant::now();
        let mut course = course(start);
        course.on(stop(StopCause::PodTerminated, None), after(start, 50));
        assert_eq!(course.deadline(), Some(after(start, 60)));
        assert_eq!(course.on(Event::Time, after(start, 60)), Step::Terminate);
        course.on(Event::OutputClosed, after(start, 60));
        let ended = course.on(Event::Ended(TERM), after(start, 61));
        assert_eq!(ended, report(TERM, Some(StopCause::RunTimeout)));
    }

    /// A person who asks again has lost patience; one who asks for more does not get it.
    #[test]
    fn a_grace_can_only_be_shortened() {
        let start = Instant::now();
        let mut course = course(start);
        course.on(stop(StopCause::Cancelled, Some(100)), start);
        assert_eq!(course.deadline(), Some(after(start, 100)));
        course.on(stop(StopCause::Cancelled, Some(200)), after(start, 1));
        assert_eq!(course.deadline(), Some(after(start, 100)));
        course.on(stop(StopCause::Cancelled, Some(0)), after(start, 2));
        assert_eq!(course.deadline(), Some(after(start, 2)));
        assert_eq!(course.on(Event::Time, after(start, 2)), Step::Kill);
    }
}
