//! A fan-out with what its commands printed, as one JSON document: what `-o json` prints. Stable: names are
//! added, never changed.

use invoke_protocol::fanout::{
    Child, ChildCounts, ChildStateName, FanOut, FanOutLimits, FanOutSpec, FanOutStateName,
    FanOutStep, StopReason,
};
use invoke_protocol::id::{ClusterName, FanOutId, JobId};
use invoke_protocol::job::Completeness;
use invoke_protocol::output::IncompleteReason;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::StateName;
use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, SeenOutput};
use crate::document::{Encoding, encode};

/// Every field of [`FanOut`], with the output in its clusters.
#[derive(Debug, Serialize)]
pub struct FanOutDocument {
    id: FanOutId,
    spec: FanOutSpec,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    submitted_by: String,
    submitted: Timestamp,
    state: FanOutStateName,
    reason: Option<StopReason>,
    cancelled_by: Option<String>,
    ended: Option<Timestamp>,
    limits: FanOutLimits,
    allowed: u32,
    counts: ChildCounts,
    round: u32,
    version: i64,
    clusters: Vec<ChildDocument>,
    story: Vec<FanOutStep>,
}

/// Every field of [`Child`], with what its command printed; `null` where it was not had.
#[derive(Debug, Serialize)]
struct ChildDocument {
    cluster: ClusterName,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    canary: bool,
    state: ChildStateName,
    attempt: u32,
    job: Option<JobId>,
    job_state: Option<StateName>,
    exit_code: Option<u8>,
    reason: Option<String>,
    refusal: Option<ProblemCode>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    output_complete: Option<Completeness>,
    output_incomplete_reason: Option<IncompleteReason>,
    /// Why the output was not had, or is not to be trusted.
    output_error: Option<String>,
    stdout: Option<String>,
    stdout_encoding: Option<Encoding>,
    stderr: Option<String>,
    stderr_encoding: Option<Encoding>,
}

impl FanOutDocument {
    pub(super) fn new(fanout: FanOut, mut of_jobs: Ended) -> Self {
        // Completely: a new field does not compile until it is in the document.
        let FanOut {
            id,
            spec,
            secrets,
            submitted_by,
            submitted,
            state,
            reason,
            cancelled_by,
            ended,
            limits,
            allowed,
            counts,
            round,
            version,
            clusters,
            story,
        } = fanout;
        let clusters = clusters.into_iter();
        Self {
            id,
            spec,
            secrets,
            submitted_by,
            submitted,
            state,
            reason,
            cancelled_by,
            ended,
            limits,
            allowed,
            counts,
            round,
            version,
            clusters: clusters
                .map(|child| ChildDocument::new(child, &mut of_jobs))
                .collect(),
            story,
        }
    }
}

impl ChildDocument {
    fn new(child: Child, of_jobs: &mut Ended) -> Self {
        let Child {
            cluster,
            canary,
            state,
            attempt,
            job,
            job_state,
            exit_code,
            reason,
            refusal,
            started,
            ended,
        } = child;
        let seen = job.and_then(|job| of_jobs.remove(&job));
        let (output, output_error) = seen.map_or((None, None), |seen| (seen.output, seen.trouble));
        let mut document = Self {
            cluster,
            canary,
            state,
            attempt,
            job,
            job_state,
            exit_code,
            reason,
            refusal,
            started,
            ended,
            output_complete: None,
            output_incomplete_reason: None,
            output_error,
            stdout: None,
            stdout_encoding: None,
            stderr: None,
            stderr_encoding: None,
        };
        if let Some(output) = output {
            document.take(output);
        }
        document
    }

    fn take(&mut self, output: SeenOutput) {
        let SeenOutput {
            stdout,
            stderr,
            complete,
            incomplete_reason,
        } = output;
        let (stdout, stdout_encoding) = encode(stdout);
        let (stderr, stderr_encoding) = encode(stderr);
        self.output_complete = complete;
        self.output_incomplete_reason = incomplete_reason;
        self.stdout = Some(stdout);
        self.stdout_encoding = Some(stdout_encoding);
        self.stderr = Some(stderr);
        self.stderr_encoding = Some(stderr_encoding);
    }
}
