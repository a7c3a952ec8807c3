//! Exit codes: a promise to scripts.
//!
//! The command's own code passes through as it is, 0 to 255. Ours are 240 to 249; of a command on many
//! clusters, which has as many codes, 0 and 1 are ours, too. A command may use those too: where that matters, `-o json` tells them apart, because only a command that ended has an
//! `exit_code` there, and only our own failures print a line that begins with `invoke: `.

use invoke_protocol::fanout::{ChildStateName, FanOut, FanOutStateName};
use invoke_protocol::job::Job;
use invoke_protocol::state::StateName;

/// What this process exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// All is well.
    pub const SUCCESS: Self = Self(0);
    /// Of a command on many clusters: it did not succeed on all of them, or stopped.
    pub const INCOMPLETE: Self = Self(1);
    /// What was asked for makes no sense: usage, or an unknown cluster, profile or job.
    pub const BAD_INPUT: Self = Self(240);
    /// There is no dispatcher to talk to: not reachable, certificate not trusted, or not one of ours.
    pub const UNREACHABLE: Self = Self(241);
    /// The token is missing or wrong, or does not allow this.
    pub const NOT_ALLOWED: Self = Self(242);
    /// The job was not started before its start deadline, and never will be.
    pub const EXPIRED: Self = Self(243);
    /// The job never started: the cluster refused it, or could not make its pod, or was offline and
    /// that was not to be waited for.
    pub const NEVER_STARTED: Self = Self(244);
    /// Somebody cancelled the job, whatever code its command ended with.
    pub const CANCELLED: Self = Self(245);
    /// The command ran longer than it was allowed, whatever code it ended with.
    pub const TIMED_OUT: Self = Self(246);
    /// The command was permitted to start, and nobody knows how it ended.
    pub const LOST: Self = Self(247);
    /// The job goes on without us.
    pub const DETACHED: Self = Self(248);
    /// Anything else, such as an answer that makes no sense.
    pub const INTERNAL: Self = Self(249);
    /// Whoever read our output has gone, as in `invoke … | head -1`: 128 and SIGPIPE's number, which
    /// is what a shell says of every other program in that place. The job goes on.
    pub const READER_GONE: Self = Self(141);

    /// Ctrl-C or SIGTERM before anything was submitted: 128 and SIGINT's number, which is what a shell says
    /// of every program in that place.
    pub const INTERRUPTED: Self = Self(130);

    /// What a job that is over makes us exit with.
    ///
    /// A job that is not over, and an end that lacks its code, is [`Exit::INTERNAL`]: without an exit
    /// record there is no success.
    #[must_use]
    pub fn of_job(job: &Job) -> Self {
        match job.state {
            StateName::Succeeded | StateName::Failed => job.exit_code.map_or(Self::INTERNAL, Self),
            StateName::TimedOut => Self::TIMED_OUT,
            StateName::Cancelled => Self::CANCELLED,
            StateName::Expired => Self::EXPIRED,
            StateName::Rejected | StateName::InfraFailed => Self::NEVER_STARTED,
            StateName::Lost => Self::LOST,
            StateName::Queued
            | StateName::Claimed
            | StateName::Starting
            | StateName::Running
            | StateName::ContactLost
            | StateName::Cancelling => Self::INTERNAL,
        }
    }
}

impl Exit {
    /// What a command on many clusters makes us exit with, once it is over. A cluster that was left out because
    /// it was offline, and that was to be no failure, does not count; but one at least must have succeeded.
    ///
    /// One that is not over is [`Exit::DETACHED`].
    #[must_use]
    pub fn of_fanout(fanout: &FanOut) -> Self {
        let is = |child: ChildStateName| fanout.clusters.iter().any(|one| one.state == child);
        let is_well = |child: ChildStateName| {
            matches!(child, ChildStateName::Succeeded | ChildStateName::Skipped)
        };
        let all_well = fanout.clusters.iter().all(|one| is_well(one.state));
        match fanout.state {
            FanOutStateName::Cancelled => Self::CANCELLED,
            state if !state.is_over() => Self::DETACHED,
            FanOutStateName::Stopped => Self::INCOMPLETE,
            _ if all_well && is(ChildStateName::Succeeded) => Self::SUCCESS,
            _ => Self::INCOMPLETE,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// The codes as `--help` tells them.
pub const HELP: &str = "\
Exit codes:
  The command's own code passes through. Ours are:
  240  bad input: usage, or an unknown cluster, profile or job
  241  no dispatcher: unreachable, certificate not trusted, or another kind of server
  242  not signed in, or not allowed
  243  expired: the job was not started by its start deadline, and never will be
  244  never started: the cluster refused it, its pod could not be made, or --if-offline fail
  245  cancelled, whatever code the command ended with
  246  timed out: the command ran longer than allowed, whatever code it ended with
  247  lost: the command was permitted to start, and nobody knows how it ended
  248  detached, or not over yet: the job goes on without us
  249  internal: an answer that makes no sense
  1    with -l: the command did not succeed on all clusters, or it stopped before
  130  interrupted, or answered with no, before anything was submitted
  141  whoever read our output has gone, as in `invoke … | head -1`; the job goes on
  A command may exit with any of these itself: `-o json` tells them apart.";

#[cfg(test)]
mod tests {
    use super::*;

    /// The help page and the constants are the same promise.
    #[test]
    fn the_help_lists_every_code() {
        let constants = [
            Exit::BAD_INPUT,
            Exit::UNREACHABLE,
            Exit::NOT_ALLOWED,
            Exit::EXPIRED,
            Exit::NEVER_STARTED,
            Exit::CANCELLED,
            Exit::TIMED_OUT,
            Exit::LOST,
            Exit::DETACHED,
            Exit::INTERNAL,
        ];
        for (constant, code) in constants.into_iter().zip(240..) {
            assert_eq!(constant, Exit(code));
            assert!(HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
