//! A job with its output as one JSON document: what `-o json` prints. Stable: names are added, never
//! changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invoke_protocol::artifacts::ArtifactsSummary;
use invoke_protocol::command::Command;
use invoke_protocol::environment::Environment;
use invoke_protocol::files::Files;
use invoke_protocol::id::{ClusterName, FanOutId, JobId, PodUid, ProfileName, RunnerId};
use invoke_protocol::job::{Completeness, Job, Step, Times};
use invoke_protocol::output::{
    Discarded, EndCause, IncompleteReason, ResourceUsage, StreamSummary,
};
use invoke_protocol::schedule::TickReference;
use invoke_protocol::state::{Reason, Started, StateName};
use jiff::Timestamp;
use serde::Serialize;

/// Every field of [`Job`], with the output in place of its summaries.
#[derive(Debug, Serialize)]
pub struct JobDocument {
    id: JobId,
    cluster: ClusterName,
    profile: ProfileName,
    command: Command,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Files>,
    #[serde(skip_serializing_if = "Environment::is_empty")]
    environment: Environment,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stdin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fanout: Option<FanOutId>,
    submitted_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick: Option<TickReference>,
    state: StateName,
    exit_code: Option<u8>,
    cause: Option<EndCause>,
    started: Started,
    output_complete: Option<Completeness>,
    output_incomplete_reason: Option<IncompleteReason>,
    reason: Option<Reason>,
    waiting: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_timeout_seconds: Option<u64>,
    retries: u32,
    cancelled_by: Option<String>,
    times: Times,
    log_bytes: u64,
    #[serde(skip_serializing_if = "Discarded::is_nothing")]
    discarded: Discarded,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<ArtifactsSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_expired: Option<Timestamp>,
    usage: Option<ResourceUsage>,
    runner: Option<RunnerId>,
    pod: Option<PodUid>,
    version: i64,
    /// Not there where the job came with an event: an event tells no stories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    story: Vec<Step>,
    stdout: String,
    stdout_encoding: Encoding,
    stdout_summary: Option<StreamSummary>,
    stderr: String,
    stderr_encoding: Encoding,
    stderr_summary: Option<StreamSummary>,
}

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Encoding {
    /// They are text.
    #[serde(rename = "utf-8")]
    Utf8,
    /// They are not: RFC 4648, section 4.
    #[serde(rename = "base64")]
    Base64,
}

impl JobDocument {
    /// A job with what its command printed.
    #[must_use]
    pub fn new(job: Job, stdout: Vec<u8>, stderr: Vec<u8>) -> Self {
        // Completely: a new field of `Job` does not compile until it is in the document.
        let Job {
            id,
            cluster,
            profile,
            command,
            files,
            environment,
            secrets,
            stdin,
            fanout,
            submitted_by,
            tick,
            state,
            exit_code,
            cause,
            started,
            output_complete,
            output_incomplete_reason,
            reason,
            waiting,
            run_timeout_seconds,
            retries,
            cancelled_by,
            times,
            log_bytes,
            stdout: stdout_summary,
            stderr: stderr_summary,
            discarded,
            artifacts,
            output_expired,
            usage,
            runner,
            pod,
            version,
            story,
        } = job;
        let (stdout, stdout_encoding) = encode(stdout);
        let (stderr, stderr_encoding) = encode(stderr);
        Self {
            id,
            cluster,
            profile,
            command,
            files,
            environment,
            secrets,
            stdin,
            fanout,
            submitted_by,
            tick,
            state,
            exit_code,
            cause,
            started,
            output_complete,
            output_incomplete_reason,
            reason,
            waiting,
            run_timeout_seconds,
            retries,
            cancelled_by,
            times,
            log_bytes,
            discarded,
            artifacts,
            output_expired,
            usage,
            runner,
            pod,
            version,
            story,
            stdout,
            stdout_encoding,
            stdout_summary,
            stderr,
            stderr_encoding,
            stderr_summary,
        }
    }
}

pub(crate) fn encode(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_written_as_base64() {
        assert_eq!(encode("ä\0".into()), ("ä\0".into(), Encoding::Utf8));
        assert_eq!(encode(vec![0xff, 0]), ("/wA=".into(), Encoding::Base64));
    }
}
