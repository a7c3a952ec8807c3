//! Runs the command that was assigned, from its start to the record of its end.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Child;
use std::time::{Duration, Instant};

use invoke_protocol::output::{EndCause, ExitRecord, ExitStatus, Stream};
use invoke_protocol::shim::Assignment;
use jiff::Timestamp;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::command::{self, NotExecuted};
use crate::config::Config;
use crate::course::{Course, Event, Step, StopCause};
use crate::processes::{self, Group, Reaper};
use crate::recorder::{Pipes, Recorder};

/// What tells the shim to stop a command.
pub(crate) struct Stops {
    /// The runner's orders, and the uploader.
    pub(crate) asked: mpsc::Receiver<StopCause>,
    /// SIGTERM: the kubelet ends the pod.
    pub(crate) terminate: Signal,
}

/// Runs the command once. The recorder is dropped at the end: the log is complete then.
///
/// Answers `None` where nobody wants a record.
///
/// # Errors
/// Where the shim cannot even watch a process: nothing was started.
pub(crate) async fn execute(
    config: &Config,
    assignment: &Assignment,
    recorder: Recorder,
    stops: &mut Stops,
) -> io::Result<Option<ExitRecord>> {
    let reaper = Reaper::new()?;
    let started_at = Timestamp::now();
    let spawned = command::spawn(
        &assignment.command,
        &assignment.environment,
        &config.work_dir,
    );
    let ending = match spawned {
        Ok(child) => follow(child, assignment, recorder, reaper, stops).await?,
        Err(error) => explain(error, recorder).await,
    };
    Ok(ending.into_record(started_at, Timestamp::now()))
}

struct Ending {
    status: ExitStatus,
    cause: Option<StopCause>,
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
            incomplete: None,
        })
    }
}

async fn explain(error: NotExecuted, mut recorder: Recorder) -> Ending {
    recorder
        .append(Stream::Stderr, error.message.as_bytes())
        .await;
    Ending {
        status: ExitStatus::Exited(error.code),
        cause: None,
        recorder,
    }
}

async fn follow(
    child: Child,
    assignment: &Assignment,
    mut recorder: Recorder,
    mut reaper: Reaper,
    stops: &mut Stops,
) -> io::Result<Ending> {
    let group = Group::of_child(child.id()).ok_or(io::ErrorKind::InvalidData)?;
    let pipes = Pipes {
        stdout: receiver(child.stdout)?,
        stderr: receiver(child.stderr)?,
    };
    let until = Instant::now() + Duration::from_secs(assignment.run_timeout_seconds);
    let mut course = Course::new(until, Duration::from_secs(assignment.grace_seconds));
    let (mut ended, mut closed) = (false, false);
    let (status, cause) = {
        let mut recording = pin!(recorder.record(pipes));
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
                Some(cause) = stops.asked.recv() => Event::Stop(cause),
                _ = stops.terminate.recv() => Event::Stop(StopCause::PodTerminated),
                () = sleep_until(course.deadline()) => Event::Time,
            };
            match course.on(event, Instant::now()) {
                Step::Nothing => {}
                Step::Terminate => group.terminate(),
                Step::Kill => group.kill_everything(),
                Step::Report { status, cause } => break (status, cause),
            }
        }
    };
    group.kill_everything();
    processes::reap(group);
    Ok(Ending {
        status,
        cause,
        recorder,
    })
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
