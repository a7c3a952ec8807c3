//! The command's processes: signals to them, and what becomes of them.

use std::io;

use invoke_protocol::output::{ExitStatus, ResourceUsage};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::time::TimeVal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// The command's main process, which is also its process group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group(Pid);

impl Group {
    /// The group that a child was started in. `None` for a number that kill(2) would take for
    /// something else: 0 is our own group, -1 everybody.
    pub(crate) fn of_child(id: u32) -> Option<Self> {
        i32::try_from(id)
            .ok()
            .filter(|id| *id > 1)
            .map(|id| Self(Pid::from_raw(id)))
    }

    /// SIGTERM to the group.
    pub(crate) fn terminate(self) {
        // A group that is gone has what was wanted for it.
        let _ = killpg(self.0, Signal::SIGTERM);
    }

    /// SIGKILL to everything that the command left behind.
    ///
    /// As PID 1 that is every process in the pod's own process namespace, also one that has left the
    /// group. Anywhere else `kill(-1)` would mean the whole machine: there it is the group only.
    pub(crate) fn kill_everything(self) {
        let _ = if getpid() == Pid::from_raw(1) {
            kill(Pid::from_raw(-1), Signal::SIGKILL)
        } else {
            killpg(self.0, Signal::SIGKILL)
        };
    }
}

/// Collects every child that ends: PID 1 is the parent of all orphans.
#[derive(Debug)]
pub(crate) struct Reaper(SignalStream);

impl Reaper {
    /// Must exist before the command does: a SIGCHLD that comes earlier would be missed.
    ///
    /// # Errors
    /// Where the signal cannot be listened to.
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    /// Waits for the end of the group's main process, and reaps what else ends meanwhile.
    pub(crate) async fn ended(&mut self, group: Group) -> ExitStatus {
        loop {
            if let Some(status) = reap(group) {
                return status;
            }
            self.0.recv().await;
        }
    }

    /// Waits for the end of everything else, and reaps it.
    pub(crate) async fn all_ended(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => drop(self.0.recv().await),
                Ok(_) | Err(Errno::EINTR) => {}
                // There are no children.
                Err(_) => return,
            }
        }
    }
}

/// Reaps all that has ended. Says how the main process did, if it is among them.
fn reap(group: Group) -> Option<ExitStatus> {
    let mut main = None;
    loop {
        // One SIGCHLD may stand for many children.
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == group.0 => {
                // exit(3) passes on the lowest eight bits.
                main = Some(ExitStatus::Exited(code.to_le_bytes()[0]));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == group.0 => {
                main = Some(ExitStatus::Signalled((signal as i32).to_le_bytes()[0]));
            }
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) | Err(_) => return main,
            Ok(_) => {}
        }
    }
}

/// What the children that were waited for have cost.
pub(crate) fn usage() -> ResourceUsage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return ResourceUsage::default();
    };
    let micros = |time: TimeVal| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default()
    };
    ResourceUsage {
        user_micros: micros(usage.user_time()),
        system_micros: micros(usage.system_time()),
        // Linux counts in KiB.
        max_rss_bytes: u64::try_from(usage.max_rss()).unwrap_or_default() * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kill(2) takes 0, 1 and negative numbers for far more than one command.
    #[test]
    fn only_a_real_child_is_a_group() {
        assert!(Group::of_child(0).is_none());
        assert!(Group::of_child(1).is_none());
        assert!(Group::of_child(u32::MAX).is_none());
        assert!(Group::of_child(2).is_some());
    }
}
