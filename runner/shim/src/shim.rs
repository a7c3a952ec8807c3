//! A shim's life: ask, mark, run, upload, report.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use invoke_protocol::files::Files;
use invoke_protocol::output::ExitRecord;
use invoke_protocol::shim::{Assignment, EXIT_REFUSED, StartRefusal};
use invoke_protocol::state::{Reason, ReasonCode};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::course::Stop;
use crate::delivery::Delivery;
use crate::door::{self, Answer, Door, Upload};
use crate::execution::{Stops, execute};
use crate::farewell::Farewell;
use crate::marker::Marker;
use crate::mask::Masker;
use crate::patience::Patience;
use crate::recorder::{self, Recorder};
use crate::termination::Termination;
use crate::uploader::{UploadEnd, Uploader};
use crate::{files, log, orders, secrets, spool};

/// Runs the pod's one command.
///
/// The exit code is the shim's, not the command's: 0 when the end is on record with the dispatcher,
/// [`EXIT_REFUSED`] when nothing was run or nobody wants the result.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refusal::Runtime)
        .and_then(|runtime| runtime.block_on(live(config)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            log::chain("nothing more to do", &refusal);
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// Why a shim leaves without the end of a command on record.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("failed to start the runtime")]
    Runtime(#[source] io::Error),
    #[error("a command was started in this pod before; it is not started again")]
    StartedBefore,
    #[error("failed to set up the connection to the runner")]
    Door(#[source] crate::door::InvalidAuthority),
    #[error("the runner has no command for this pod")]
    NoAssignment,
    #[error("the permit to start came too late")]
    TooLate,
    #[error("Kubernetes ended the pod before its command could start")]
    Terminated,
    #[error("failed to mark the start, so there is none")]
    Mark(#[source] io::Error),
    #[error("failed to prepare for the command")]
    Prepare(#[source] io::Error),
    #[error("the command was not started, and never will be: {}", .0.message)]
    NotStarted(Reason),
    #[error("nobody wants the result any more")]
    Unwanted,
    #[error("nobody has taken the last word; it stays in the termination message")]
    Unreported,
}

/// The longest termination message that Kubernetes keeps.
const MAX_LAST_WORDS_BYTES: usize = 4096;

async fn live(config: &Config) -> Result<(), Refusal> {
    // Before anything else: until then nobody hears it.
    let termination = Termination::listen().map_err(Refusal::Prepare)?;
    let marker = Marker::new(&config.state_dir);
    if marker.exists() {
        return Err(Refusal::StartedBefore);
    }
    let door = Door::new(config).map_err(Refusal::Door)?;
    let assignment = assignment(&door, termination.clone()).await?;
    marker.set().map_err(Refusal::Mark)?;
    invoke_hooks::point("shim.after-marker");
    // After the marker: whatever is said now of a start that does not happen, it cannot happen later.
    let masker = match prepare(config, &door, &assignment, termination.clone()).await {
        Ok(masker) => masker,
        Err(reason) => return refuse(config, &door, reason).await,
    };
    let record = run_and_upload(config, &door, &assignment, masker, termination.clone()).await?;
    let record = bring_artifacts(config, &door, &assignment, termination, record).await?;
    invoke_hooks::point("shim.before-exit-report");
    report(config, async || door.exit(&record).await).await
}

/// Asks until there is an answer: a runner that is away for an hour is no reason to give up, the
/// pod's own deadline is.
async fn assignment(door: &Door, mut termination: Termination) -> Result<Assignment, Refusal> {
    let mut patience = Patience::new();
    loop {
        // From before the question: what the answer allows is counted from then, however long it took.
        let asked = Instant::now();
        let answer = tokio::select! {
            answer = door.assignment() => answer,
            _ = termination.told() => return Err(Refusal::Terminated),
        };
        match answer {
            Ok(Answer::Is(assignment)) => return in_time(assignment, asked),
            Ok(Answer::Gone) => return Err(Refusal::NoAssignment),
            Err(error) => {
                if patience.is_fresh() {
                    log::chain("no assignment yet, asking again", &error);
                }
            }
        }
        tokio::select! {
            () = patience.wait() => {}
            _ = termination.told() => return Err(Refusal::Terminated),
        }
    }
}

/// A permit is good for a while only: whoever granted it may have given this pod up since. From then on this
/// pod has the command, and what it prepares takes as long as it takes.
fn in_time(assignment: Assignment, asked: Instant) -> Result<Assignment, Refusal> {
    let within = Duration::from_secs(assignment.start_within_seconds);
    if invoke_hooks::sabotaged("shim.no-start-within") || asked.elapsed() < within {
        Ok(assignment)
    } else {
        Err(Refusal::TooLate)
    }
}

/// Makes everything ready that the command needs, unless it is not wanted any more.
async fn prepare(
    config: &Config,
    door: &Door,
    assignment: &Assignment,
    termination: Termination,
) -> Result<Masker, Reason> {
    if let Some(files) = &assignment.files {
        bring(config, door, files, termination).await?;
    }
    // As late as can be: what a Secret is now, the command sees.
    let secrets = secrets::known(config, assignment);
    let secrets = secrets.map_err(|too_much| too_much.reason())?;
    Ok(Masker::new(&secrets))
}

async fn bring(
    config: &Config,
    door: &Door,
    files: &Files,
    mut termination: Termination,
) -> Result<(), Reason> {
    let (order, mut asked) = mpsc::channel(1);
    tokio::select! {
        brought = files::bring(config, door, files) => brought.map_err(|error| error.reason()),
        Some(_) = asked.recv() => Err(Reason::new(
            ReasonCode::Cancelled,
            "the job was cancelled while its files were fetched",
        )),
        _ = termination.told() => Err(Reason::new(
            ReasonCode::PodTerminated,
            "Kubernetes told the pod to stop while the job's files were fetched",
        )),
        never = orders::listen(door, order) => match never {},
    }
}

async fn refuse(config: &Config, door: &Door, reason: Reason) -> Result<(), Refusal> {
    let refusal = StartRefusal { reason };
    leave_last_words(config, &refusal);
    report(config, async || door.start_refusal(&refusal).await).await?;
    Err(Refusal::NotStarted(refusal.reason))
}

/// What works at the same time while a command runs, connected.
struct Parts<'a> {
    recorder: Recorder,
    uploader: Uploader<'a>,
    farewell: Farewell,
    stops: Stops,
    order: mpsc::Sender<Stop>,
    carried_out: watch::Receiver<u32>,
}

impl<'a> Parts<'a> {
    fn connect(
        config: &Config,
        door: &'a Door,
        assignment: &Assignment,
        masker: Masker,
        termination: Termination,
    ) -> io::Result<Self> {
        let limits = recorder::Limits {
            waiting: config.spool_limit_bytes,
            recorded: assignment.output_cap_bytes,
        };
        let (writer, reader) = spool::create(&config.state_dir)?;
        let (written_sender, written) = watch::channel(0);
        let (acknowledged_sender, acknowledged) = watch::channel(0);
        let (storage_full_sender, storage_full) = watch::channel(false);
        let (carried_out_sender, carried_out) = watch::channel(0);
        let (order, asked) = mpsc::channel(4);
        Ok(Self {
            recorder: Recorder::new(writer, masker, limits, written_sender, acknowledged.clone()),
            farewell: Farewell {
                written: written.clone(),
                acknowledged,
                storage_full,
                storage_full_within: config.storage_full_within,
                within: config.farewell_within,
            },
            uploader: Uploader {
                door,
                what: Upload::Output,
                reader,
                written,
                acknowledged: acknowledged_sender,
                storage_full: storage_full_sender,
                stops: order.clone(),
            },
            stops: Stops {
                asked,
                termination,
                carried_out: carried_out_sender,
            },
            order,
            carried_out,
        })
    }
}

/// Runs the command while its output is uploaded, and goes on uploading after its end for as long as that
/// makes sense. From the end on, the record is in the termination message.
async fn run_and_upload(
    config: &Config,
    door: &Door,
    assignment: &Assignment,
    masker: Masker,
    termination: Termination,
) -> Result<ExitRecord, Refusal> {
    let parts =
        Parts::connect(config, door, assignment, masker, termination).map_err(Refusal::Prepare)?;
    let execution = async {
        let executed = tokio::select! {
            executed = execute(config, door, assignment, parts.recorder, parts.stops) => executed,
            never = orders::listen(door, parts.order) => match never {},
        };
        if let Ok(Some(record)) = &executed {
            leave_last_words(config, record);
        }
        executed
    };
    let upload = async {
        tokio::select! {
            end = parts.uploader.upload() => end,
            reason = parts.farewell.wait() => UploadEnd::Incomplete(reason),
        }
    };
    let confirmation = orders::confirm(door, parts.carried_out, config.cancelling_within);
    match tokio::join!(execution, upload, confirmation) {
        (Err(error), ..) => Err(Refusal::Prepare(error)),
        (Ok(None), ..) | (_, UploadEnd::Unwanted, ()) => Err(Refusal::Unwanted),
        (Ok(Some(record)), UploadEnd::Finished, ()) => Ok(record),
        (Ok(Some(record)), UploadEnd::Incomplete(reason), ()) => {
            let incomplete = record.incomplete.or(Some(reason));
            let record = ExitRecord {
                incomplete,
                ..record
            };
            leave_last_words(config, &record);
            Ok(record)
        }
    }
}

/// Brings what the command has left, after its output. Until it is there, the record in the termination
/// message says that it is not.
async fn bring_artifacts(
    config: &Config,
    door: &Door,
    assignment: &Assignment,
    termination: Termination,
    record: ExitRecord,
) -> Result<ExitRecord, Refusal> {
    let delivery = Delivery {
        config,
        door,
        assignment,
        termination,
    };
    let artifacts = match delivery.collect().await {
        Some(collected) => {
            let artifacts = Some(collected.not_uploaded());
            let record = ExitRecord {
                artifacts,
                ..record.clone()
            };
            leave_last_words(config, &record);
            let uploaded = delivery.upload(collected).await;
            Some(uploaded.ok_or(Refusal::Unwanted)?)
        }
        None => None,
    };
    let record = ExitRecord {
        artifacts,
        ..record
    };
    leave_last_words(config, &record);
    Ok(record)
}

/// A copy of the last word, an [`ExitRecord`] or a [`StartRefusal`], in the pod's status, for a runner that
/// this shim never reaches. Neither can be taken for the other: each lacks what the other must have.
fn leave_last_words(config: &Config, word: &impl Serialize) {
    let written = serde_json::to_vec(word)
        .map_err(io::Error::other)
        .and_then(|text| match text.len() {
            // A word that is cut off is none.
            0..=MAX_LAST_WORDS_BYTES => std::fs::write(&config.termination_log, text),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        });
    if let Err(error) = written {
        log::chain("the last word is not in the termination message", &error);
    }
}

/// Says the last word until it is acknowledged, or for as long as that makes sense.
async fn report(
    config: &Config,
    say: impl AsyncFn() -> Result<Answer<()>, door::Error>,
) -> Result<(), Refusal> {
    let reported = tokio::time::timeout(config.farewell_within, report_until_taken(say));
    reported.await.unwrap_or(Err(Refusal::Unreported))
}

async fn report_until_taken(
    say: impl AsyncFn() -> Result<Answer<()>, door::Error>,
) -> Result<(), Refusal> {
    let mut patience = Patience::new();
    loop {
        match say().await {
            Ok(Answer::Is(())) => return Ok(()),
            Ok(Answer::Gone) => return Err(Refusal::Unwanted),
            Err(error) => {
                if patience.is_fresh() {
                    log::chain(
                        "the last word was not acknowledged and will be said again",
                        &error,
                    );
                }
                patience.wait().await;
            }
        }
    }
}
