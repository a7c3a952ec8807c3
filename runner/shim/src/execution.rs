//! Runs the command that was assigned, from its start to the record of its end.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Child;
use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitRecord, ExitStatus, IncompleteReason, Stream};
use invoke_protocol::shim::Assignment;
use jiff::Timestamp;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, watch};

use crate::command::{self, NotExecuted};
use crate::config::Config;
use crate::course::{Course, Event, Limits, OutputRead, Step, Stop, StopCause};
use crate::delivery;
use crate::door::Door;
use crate::memory::KillCounter;
use crate::processes::{self, Group, Reaper};
use crate::recorder::{Pipes, Recorder};
use crate::stdin;
use crate::termination::Termination;

/// How long a process may take to die of SIGKILL. One that waits for a device may take for ever.
const DEATH: Duration = Duration::from_secs(2);

/// What tells the shim to stop a command.
pub(crate) struct Stops {
    /// The runner's orders, and the uploader.
    pub(crate) asked: mpsc::Receiver<Stop>,
    /// The kubelet, which ends the pod.
    pub(crate) termination: Termination,
    /// Grows with every cancellation that was passed on to the command.
    pub(crate) carried_out: watch::Sender<u32>,
}

/// Runs the command once. The recorder is dropped at the end: the log is complete then.
///
/// Answers `None` where nobody wants a record.
///
/// # Errors
/// Where the shim cannot even watch a process: nothing was started.
pub(crate) async fn execute(
    config: &Config,
    door: &Door,
    assignment: &Assignment,
    recorder: Recorder,
    mut stops: Stops,
) -> io::Result<Option<ExitRecord>> {
    let reaper = Reaper::new()?;
    let memory_kills = KillCounter::begin(&config.cgroup_dir);
    let started_at = Timestamp::now();
    let spawned = command::spawn(assignment, &config.work_dir, &config.artifacts_dir);
    let ending = match spawned {
        Ok(child) => {
            invoke_hooks::point("shim.after-exec");
            let limits = Limits::of(assignment, config.farewell_within);
            follow(child, door, limits, recorder, reaper, &mut stops).await?
        }
        Err(error) => explain(error, recorder).await,
    };
    let record = ending.into_record(started_at, Timestamp::now());
    Ok(record.map(|record| ExitRecord {
        out_of_memory: memory_kills.has_risen(),
        artifacts: delivery::not_yet(&config.artifacts_dir),
        ..record
    }))
}

struct Ending {
    status: ExitStatus,
    cause: Option<StopCause>,
    output: OutputRead,
    recorder: Recorder,
}

impl Ending {
    fn into_record(self, started_at: Timestamp, finished_at: Timestamp) -> Option<ExitRecord> {
        let cause: EndCause = StopCause::in_record(self.cause)?;
        let recorded = self.recorder.finish();
        Some(ExitRecord {
            status: self.status,
            cause,
            started_at,
            finished_at,
            log_bytes: recorded.log_bytes,
            stdout: recorded.stdout,
            stderr: recorded.stderr,
            usage: processes::usage(),
            out_of_memory: false,
            incomplete: match self.output {
                OutputRead::Whole => None,
                OutputRead::Abandoned => Some(IncompleteReason::StorageFull),
            },
            discarded: recorded.discarded,
            artifacts: None,
        })
    }
}

async fn explain(error: NotExecuted, mut recorder: Recorder) -> Ending {
    let message = error.message.as_bytes();
    recorder.append(Stream::Stderr, message).await;
    recorder.end(Stream::Stderr).await;
    Ending {
        status: ExitStatus::Exited(error.code),
        cause: None,
        output: OutputRead::Whole,
        recorder,
    }
}

async fn follow(
    child: Child,
    door: &Door,
    limits: Limits,
    mut recorder: Recorder,
    mut reaper: Reaper,
    stops: &mut Stops,
) -> io::Result<Ending> {
    let group = Group::of_child(child.id()).ok_or(io::ErrorKind::InvalidData)?;
    let pipes = Pipes {
        stdout: receiver(child.stdout)?,
        stderr: receiver(child.stderr)?,
    };
    let stdin = child.stdin.map(|pipe| Sender::from_owned_fd(pipe.into()));
    let stdin = stdin.transpose()?;
    let mut course = Course::new(Instant::now(), limits);
    let (all_are_dead, dead) = watch::channel(false);
    let (mut ended, mut closed, mut told) = (false, false, false);
    let (status, cause, output) = {
        let mut recording = pin!(recorder.record(pipes, dead));
        let mut feeding = pin!(stdin::feed(door, stdin));
        loop {
            let event = tokio::select! {
                // The end before a stop that came at the same moment: its exit is its own word.
                biased;
                status = reaper.ended(group), if !ended => {
                    ended = true;
                    Event::Ended(status)
                }
                () = &mut recording, if !closed => {
                    closed = true;
                    Event::OutputClosed
                }
                Some(stop) = stops.asked.recv() => Event::Stop(stop),
                _ = stops.termination.told(), if !told => {
                    told = true;
                    Event::Stop(Stop::at_once(StopCause::PodTerminated))
                }
                () = sleep_until(course.deadline()) => Event::Time,
                never = &mut feeding => match never {},
            };
            match course.on(event, Instant::now()) {
                Step::Nothing => {}
                Step::Terminate => group.terminate(),
                Step::Kill => {
                    group.kill_everything();
                    all_are_dead.send_replace(ended);
                }
                Step::Report {
                    status,
                    cause,
                    output,
                } => break (status, cause, output),
            }
            if is_cancellation(event) && course.is_stopping() {
                stops.carried_out.send_modify(|orders| *orders += 1);
            }
        }
    };
    group.kill_everything();
    // What is dead changes nothing any more: not what was printed, nor the artifacts.
    let _ = tokio::time::timeout(DEATH, reaper.all_ended()).await;
    Ok(Ending {
        status,
        cause,
        output,
        recorder,
    })
}

const fn is_cancellation(event: Event) -> bool {
    matches!(
        event,
        Event::Stop(Stop {
            cause: StopCause::Cancelled,
            ..
        })
    )
}

fn receiver(pipe: Option<impl Into<OwnedFd>>) -> io::Result<Option<Receiver>> {
    pipe.map(|pipe| Receiver::from_owned_fd(pipe.into()))
        .transpose()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
