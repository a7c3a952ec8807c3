//! Which fault comes when. Pure.

use std::fmt;
use std::time::Duration;

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to a part, which is started again when the fault is over.
    Kill(&'static str),
    /// SIGSTOP to a part, SIGCONT when the fault is over.
    Pause(&'static str),
    /// SIGKILL to all replicas of the runner.
    KillRunners,
    /// SIGSTOP to one replica of the runner, SIGCONT when the fault is over.
    PauseRunner,
    /// Packets between the cluster and the dispatcher vanish.
    CutDispatcher,
    /// Packets between the cluster and RabbitMQ vanish.
    CutBroker,
    /// Packets between the cluster and everything outside vanish.
    CutHub,
    /// The cluster's queue is deleted, with what is in it.
    DeleteQueue,
    /// RabbitMQ closes all connections.
    CloseConnections,
    /// RabbitMQ is killed and comes back without its data.
    WipeBroker,
    /// Some job's pod is deleted, with its grace.
    DeletePod,
    /// Some job's pod is deleted without grace.
    ForceDeletePod,
}

/// A fault at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// From the beginning of the storm.
    pub at: Duration,
    /// For how long, if it lasts.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// With how many chances each: a part that is hard on everything else comes up less often.
const FAULTS: [(Fault, u32); 20] = [
    (Fault::Kill("dispatcher"), 6),
    (Fault::Pause("dispatcher"), 3),
    (Fault::Kill("rabbitmq"), 3),
    (Fault::Pause("rabbitmq"), 2),
    (Fault::Kill("postgres"), 3),
    (Fault::Pause("postgres"), 2),
    (Fault::KillRunners, 5),
    (Fault::PauseRunner, 4),
    (Fault::CutDispatcher, 4),
    (Fault::CutBroker, 3),
    (Fault::CutHub, 2),
    (Fault::DeleteQueue, 2),
    (Fault::CloseConnections, 2),
    (Fault::WipeBroker, 1),
    (Fault::DeletePod, 3),
    (Fault::ForceDeletePod, 2),
    (Fault::Kill("apiserver"), 2),
    (Fault::Kill("kubelet"), 2),
    (Fault::Kill("scheduler"), 1),
    (Fault::Kill("containerd"), 1),
];

/// The storm of a seed: faults one after another, each over before the next begins, for `minutes`.
#[must_use]
pub fn schedule(seed: u64, minutes: u64) -> Vec<Planned> {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Duration::from_secs(minutes * 60);
    let mut at = Duration::from_secs(10);
    let mut planned = Vec::new();
    while at < end {
        let fault = pick(&mut random);
        let lasts = Duration::from_millis(random.u64(500..12_000));
        planned.push(Planned { at, lasts, fault });
        at += lasts + Duration::from_millis(random.u64(3_000..15_000));
    }
    planned
}

fn pick(random: &mut fastrand::Rng) -> Fault {
    let chances: u32 = FAULTS.iter().map(|(_, chances)| chances).sum();
    let mut drawn = random.u32(0..chances);
    for (fault, chances) in FAULTS {
        if drawn < chances {
            return fault;
        }
        drawn -= chances;
    }
    Fault::KillRunners
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(part) => write!(f, "kill -9 {part}"),
            Self::Pause(part) => write!(f, "pause {part}"),
            Self::KillRunners => f.write_str("kill -9 all runners"),
            Self::PauseRunner => f.write_str("pause a runner"),
            Self::CutDispatcher => f.write_str("cut cluster from dispatcher"),
            Self::CutBroker => f.write_str("cut cluster from RabbitMQ"),
            Self::CutHub => f.write_str("cut cluster from the hub"),
            Self::DeleteQueue => f.write_str("delete the queue"),
            Self::CloseConnections => f.write_str("close all of RabbitMQ's connections"),
            Self::WipeBroker => f.write_str("wipe RabbitMQ's data"),
            Self::DeletePod => f.write_str("delete a job's pod"),
            Self::ForceDeletePod => f.write_str("delete a job's pod without grace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_storm() {
        let storm = schedule(1, 30);
        assert_eq!(storm, schedule(1, 30));
        assert_ne!(storm, schedule(2, 30));
        for (fault, _) in FAULTS {
            assert!(
                (0..20).any(|seed| schedule(seed, 30)
                    .iter()
                    .any(|planned| planned.fault == fault)),
                "{fault} never comes"
            );
        }
        assert!(
            storm
                .windows(2)
                .all(|pair| pair[0].at + pair[0].lasts < pair[1].at)
        );
    }
}
