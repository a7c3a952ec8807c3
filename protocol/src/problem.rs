//! How a door refuses: problem details (RFC 9457), `application/problem+json`.

use serde::{Deserialize, Serialize};

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `https://invoke.dev/problems/<code>`: a name, not a page that must exist.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which problem it is; stable, for programs.
    pub code: ProblemCode,
    /// The kind of problem in a few words; the same for every one of its kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to which object, why, and what to do now: for people.
    pub detail: String,
    /// The request that was refused, as the logs name it.
    pub request_id: String,
}

macro_rules! problem_codes {
    ($($variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Which problem it is. A reader that does not know a code takes it for [`ProblemCode::Unknown`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum ProblemCode {
            $(#[doc = $title] $variant,)*
            /// One that was made after this program.
            #[serde(other)]
            Unknown,
        }

        impl ProblemCode {
            /// The code as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status that it comes with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* Self::Unknown => 500 }
            }

            /// Its title.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* Self::Unknown => "Unknown problem" }
            }
        }
    };
}

problem_codes! {
    InvalidRequest = "invalid_request", 400, "The request cannot be understood";
    InvalidCommand = "invalid_command", 422, "The command cannot be run";
    InvalidId = "invalid_id", 400, "That is not an id";
    Unauthenticated = "unauthenticated", 401, "No valid credential";
    Forbidden = "forbidden", 403, "Not allowed";
    NoSuchRoute = "no_such_route", 404, "There is nothing at this path";
    MethodNotAllowed = "method_not_allowed", 405, "This path has no such method";
    JobNotFound = "job_not_found", 404, "No such job";
    UnknownCluster = "unknown_cluster", 404, "No such cluster";
    ClusterRequired = "cluster_required", 422, "More than one cluster";
    NoClusters = "no_clusters", 422, "No clusters";
    ClusterExists = "cluster_exists", 409, "The cluster exists already";
    UnknownProfile = "unknown_profile", 422, "No such profile";
    InvalidDeadline = "invalid_deadline", 422, "The deadline is out of range";
    InvalidSelector = "invalid_selector", 422, "That selects no clusters by labels";
    NoClusterSelected = "no_cluster_selected", 422, "The selector matches no cluster";
    InvalidShare = "invalid_share", 422, "That is no number of clusters";
    InvalidCanary = "invalid_canary", 422, "That cannot be a canary";
    ClustersChanged = "clusters_changed", 409, "The selector matches other clusters now";
    FanoutNotFound = "fanout_not_found", 404, "No such fan-out";
    FanoutOver = "fanout_over", 409, "The fan-out is over";
    FanoutCannotGoOn = "fanout_cannot_go_on", 409, "The fan-out cannot go on";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The idempotency key was used for something else";
    JobOver = "job_over", 409, "The job is over";
    NotStarted = "not_started", 409, "The command was never started";
    OtherPod = "other_pod", 409, "The command was started in another pod";
    Contradiction = "contradiction", 409, "Another end is on record";
    OutputGap = "output_gap", 409, "The output does not continue where the stored output ends";
    InvalidOutput = "invalid_output", 400, "That is no output log";
    ClusterOffline = "cluster_offline", 409, "The cluster is offline";
    TooManyRequests = "too_many_requests", 429, "Too many requests at once";
    StorageFull = "storage_full", 507, "There is no room for more";
    FilesMissing = "files_missing", 422, "The attached files are not uploaded";
    FilesTooLarge = "files_too_large", 422, "The attached files are more than is allowed";
    FilesNotFound = "files_not_found", 404, "Nothing of these files is uploaded";
    DigestMismatch = "digest_mismatch", 422, "The bytes do not have the digest that was stated";
    UploadGap = "upload_gap", 409, "The upload does not continue where the stored bytes end";
    UploadContradiction = "upload_contradiction", 409, "Other bytes are stored already";
    NoStdin = "no_stdin", 409, "The command reads nothing";
    ArtifactsNotFound = "artifacts_not_found", 404, "The job has no artifacts";
    OutputExpired = "output_expired", 410, "The output is not kept any more";
    RangeNotSatisfiable = "range_not_satisfiable", 416, "There are no such bytes";
    InvalidSchedule = "invalid_schedule", 422, "The schedule cannot be kept";
    ScheduleNotFound = "schedule_not_found", 404, "No such schedule";
    ScheduleExists = "schedule_exists", 409, "The schedule exists already";
    ScheduleChanged = "schedule_changed", 409, "Somebody else has changed the schedule";
    NotRun = "not_run", 409, "The schedule does not run now";
    InvalidCalendar = "invalid_calendar", 422, "That is no calendar";
    CalendarNotFound = "calendar_not_found", 404, "No such calendar";
    JoinTokenInvalid = "join_token_invalid", 401, "The join token is not valid";
    TooLarge = "too_large", 413, "The request is too large";
    Unavailable = "unavailable", 503, "Not now";
    Internal = "internal", 500, "Something went wrong on our side";
}

impl Problem {
    /// A problem with its words.
    #[must_use]
    pub fn new(
        code: ProblemCode,
        detail: impl Into<String>,
        request_id: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("https://invoke.dev/problems/{}", code.as_str()),
            code,
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            request_id: request_id.into(),
        }
    }
}
