//! Jobs as a dispatcher shows them.

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::api::JobEvent;
use invoke_protocol::command::Command;
use invoke_protocol::environment::Environment;
use invoke_protocol::job::{Completeness, Job, Times};
use invoke_protocol::output::{Discarded, EndCause, Frame, ResourceUsage, Stream, StreamSummary};
use invoke_protocol::state::{Reason, ReasonCode, Started, StateName};
use jiff::Timestamp;

use crate::stub::{Piece, event};

pub(crate) const ID: &str = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";

/// A route of the job.
pub(crate) fn route(method: &str, rest: &str) -> String {
    format!("{method} /v1/jobs/{ID}{rest}")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

/// A job that was just accepted.
pub(crate) fn queued() -> Job {
    Job {
        run_timeout_seconds: None,
        files: None,
        environment: Environment::default(),
        secrets: Vec::new(),
        stdin: false,
        fanout: None,
        discarded: Discarded::default(),
        artifacts: None,
        output_expired: None,
        retries: 0,
        story: Vec::new(),
        id: ID.parse().unwrap(),
        cluster: "demo".parse().unwrap(),
        profile: "default".parse().unwrap(),
        command: Command::shell("kubectl get pods").unwrap(),
        submitted_by: "local".into(),
        tick: None,
        state: StateName::Queued,
        exit_code: None,
        cause: None,
        started: Started::No,
        output_complete: None,
        output_incomplete_reason: None,
        reason: None,
        waiting: Some(Reason::new(
            ReasonCode::OnItsWay,
            "it is on its way to the cluster",
        )),
        cancelled_by: None,
        times: Times {
            cancel_requested: None,
            cancel_delivered: None,
            submitted: at(0),
            start_deadline: at(900),
            permitted: None,
            started: None,
            finished: None,
            ended: None,
        },
        log_bytes: 0,
        stdout: None,
        stderr: None,
        usage: None,
        runner: None,
        pod: None,
        version: 1,
    }
}

/// The same, running.
pub(crate) fn running() -> Job {
    Job {
        retries: 0,
        story: Vec::new(),
        state: StateName::Running,
        started: Started::Unknown,
        waiting: None,
        times: Times {
            cancel_requested: None,
            cancel_delivered: None,
            permitted: Some(at(2)),
            ..queued().times
        },
        runner: Some(invoke_protocol::id::RunnerId("invoke-runner-0".into())),
        pod: Some("4f1f3c9e-0a57-4d0b-8d3e-6f0a8b1c2d3e".parse().unwrap()),
        version: 4,
        ..queued()
    }
}

/// The same, ended by itself with a code, having printed this.
pub(crate) fn ended(code: u8, printed: &Printed) -> Job {
    Job {
        retries: 0,
        story: Vec::new(),
        state: if code == 0 {
            StateName::Succeeded
        } else {
            StateName::Failed
        },
        exit_code: Some(code),
        cause: Some(EndCause::Itself),
        started: Started::Yes,
        output_complete: Some(Completeness::Yes),
        times: Times {
            cancel_requested: None,
            cancel_delivered: None,
            started: Some(at(3)),
            finished: Some(at(4)),
            ended: Some(at(5)),
            ..running().times
        },
        log_bytes: printed.log().len() as u64,
        stdout: Some(printed.summary(Stream::Stdout)),
        stderr: Some(printed.summary(Stream::Stderr)),
        usage: Some(ResourceUsage {
            user_micros: 1000,
            system_micros: 500,
            max_rss_bytes: 4_194_304,
        }),
        version: 5,
        ..running()
    }
}

/// The same, over without a word from its command.
pub(crate) fn over(state: StateName, started: Started, reason: Option<Reason>) -> Job {
    Job {
        retries: 0,
        story: Vec::new(),
        state,
        started,
        reason,
        waiting: None,
        output_complete: Some(Completeness::Yes),
        times: Times {
            cancel_requested: None,
            cancel_delivered: None,
            ended: Some(at(900)),
            ..queued().times
        },
        version: 5,
        ..queued()
    }
}

/// What a command prints, in order.
#[derive(Clone, Default)]
pub(crate) struct Printed(Vec<(Stream, Vec<u8>)>);

impl Printed {
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    pub(crate) fn out(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((Stream::Stdout, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn err(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((Stream::Stderr, bytes.as_ref().to_vec()));
        self
    }

    /// All of one stream.
    pub(crate) fn of(&self, stream: Stream) -> Vec<u8> {
        let of_stream = self.0.iter().filter(|(of, _)| *of == stream);
        of_stream.flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        let mut log = Vec::new();
        for (stream, payload) in &self.0 {
            Frame {
                stream: *stream,
                at: Timestamp::UNIX_EPOCH,
                payload,
            }
            .encode(&mut log);
        }
        log
    }

    /// One event for each piece, with its place in the log.
    pub(crate) fn events(&self) -> Vec<Piece> {
        let mut log = Vec::new();
        let place = |(stream, data): &(Stream, Vec<u8>)| {
            Frame {
                stream: *stream,
                at: Timestamp::UNIX_EPOCH,
                payload: data,
            }
            .encode(&mut log);
            event(
                log.len() as u64,
                &JobEvent::Output {
                    stream: *stream,
                    at: Timestamp::UNIX_EPOCH,
                    data: data.clone(),
                },
            )
        };
        self.0.iter().map(place).collect()
    }

    pub(crate) fn summary(&self, stream: Stream) -> StreamSummary {
        let bytes = self.of(stream);
        let digest = digest(&SHA256, &bytes);
        let sha256 = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        StreamSummary {
            bytes: bytes.len() as u64,
            sha256,
        }
    }
}

/// The event that says how a job is.
pub(crate) fn job_event(position: u64, job: Job) -> Piece {
    event(position, &JobEvent::Job { job: Box::new(job) })
}

/// The event that ends a stream.
pub(crate) fn end_event(job: Job) -> Piece {
    event(job.log_bytes, &JobEvent::End { job: Box::new(job) })
}

/// All events of a job that prints this and exits with a code.
pub(crate) fn whole_stream(code: u8, printed: &Printed) -> Vec<Piece> {
    let mut pieces = vec![job_event(0, running())];
    pieces.extend(printed.events());
    pieces.push(end_event(ended(code, printed)));
    pieces
}
