//! Commands that are run at times of their own: what is to be run, when, and what became of every time.
//!
//! A **tick** is one moment at which a schedule is due. It is named by the schedule, the schedule's revision
//! and the moment in UTC, happens once, whoever else looks at the schedule, and has its entry in the
//! schedule's **ledger** for ever.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::fanout::FanOutSpec;
use crate::id::{CalendarName, FanOutId, JobId, ScheduleId, ScheduleName};
use crate::job::JobSpec;
use crate::timing::{TimeZoneName, Timing};

/// What a person asks for: the body of `PUT /v1/schedules/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleSpec {
    /// What each tick runs.
    pub run: Run,
    /// When.
    pub timing: Timing,
    /// What to do at a tick while the run before it goes on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    /// What to do about ticks that nobody was there for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catch_up: CatchUp,
    /// Whether a run that fails is run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// After how many runs that failed, one after the other, the schedule is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1))]
    pub pause_after_failures: Option<NonZeroU32>,
    /// Calendars outside of whose events nothing is run. All of those that close hold anyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_calendars: Vec<CalendarName>,
    /// Calendars that close, and do not hold for this schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_calendars: Vec<CalendarName>,
    /// Who is told of what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
    /// A run that goes on for longer is told of, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_running_seconds: Option<u64>,
}

/// What a tick runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// One job in one cluster. Its cluster is named even where there is only one: there may be more by then.
    Job(JobSpec),
    /// One command over many clusters, chosen by label at each tick.
    #[serde(rename = "fanout")]
    FanOut(FanOutSpec),
}

impl Run {
    /// The job, or what each job of many is made of.
    #[must_use]
    pub const fn job(&self) -> &JobSpec {
        match self {
            Self::Job(job) => job,
            Self::FanOut(fanout) => &fanout.job,
        }
    }

    /// The same, to be changed.
    #[must_use]
    pub const fn job_mut(&mut self) -> &mut JobSpec {
        match self {
            Self::Job(job) => job,
            Self::FanOut(fanout) => &mut fanout.job,
        }
    }
}

/// What to do at a tick while the run before it goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Nothing: the tick is skipped.
    #[default]
    Skip,
    /// It waits for the end of that run. One waits at most; the next is skipped.
    QueueOne,
    /// That run is cancelled; when it is over, the tick's begins.
    CancelRunning,
    /// Both run.
    Allow,
}

/// What to do about ticks that were due while no dispatcher was there, and for which it is too late now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are missed.
    #[default]
    None,
    /// The last of them is run.
    Last,
    /// The last so many of them are run, one after the other: 1 to [`MAX_CAUGHT_UP`].
    All(u32),
}

/// The most ticks that are caught up.
pub const MAX_CAUGHT_UP: u32 = 100;

/// When a run that fails is run again, as the same tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retry {
    /// How often at most.
    #[cfg_attr(feature = "openapi", schema(value_type = u32, minimum = 1))]
    pub times: NonZeroU32,
    /// After which failures.
    pub on: Vec<RetryOn>,
}

/// The most attempts after the first.
pub const MAX_RETRIES: u32 = 10;

/// A failure after which a run is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The command provably never started.
    NeverStarted,
    /// The command exited with this code.
    Exit(u8),
}

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notify {
    /// By what.
    pub by: NotifyBy,
    /// Of what; of everything if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<NotifyOn>,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotifyBy {
    /// A `POST` of [`Notification`] to this address, signed as <https://www.standardwebhooks.com> says.
    Webhook(String),
    /// A command in the cluster of the schedule's runs, with their profile and rights; of none if these are over
    /// many clusters. It has the variables `SCHEDULE`, `SCHEDULE_EVENT`, `SCHEDULE_TICK`, `SCHEDULE_RUN` and
    /// `SCHEDULE_MESSAGE`.
    Command(Command),
}

/// What somebody can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotifyOn {
    /// A run ended otherwise than well, after the last attempt.
    Failed,
    /// A tick was missed or refused.
    Missed,
    /// A run goes on for longer than was said.
    LongRunning,
    /// A run ended well after one that did not.
    Recovered,
}

impl NotifyOn {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Missed => "missed",
            Self::LongRunning => "long_running",
            Self::Recovered => "recovered",
        }
    }
}

/// What a webhook is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notification {
    /// What happened, such as `schedule.failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was noticed.
    pub timestamp: Timestamp,
    /// About what.
    pub data: Tick,
}

/// A schedule, as everybody who may read it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// Its id; a schedule that is made again under an old name has a new one.
    pub id: ScheduleId,
    /// Its name.
    pub name: ScheduleName,
    /// Grows with each change of what it is to do.
    pub revision: i64,
    /// With whose rights it runs.
    pub owner: String,
    /// What it is to do, without the values of secret variables.
    pub spec: ScheduleSpec,
    /// The names of secret variables that its runs have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether it is at work.
    pub state: ScheduleState,
    /// When it is due next; `None` if it never is again.
    pub next: Option<Timestamp>,
    /// Whether the next tick is to be skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_next: bool,
    /// How many runs have failed since one last ended well.
    pub failures: u32,
    /// The last tick.
    pub last: Option<Tick>,
    /// When it was made.
    pub created: Timestamp,
    /// When what it is to do was changed last.
    pub changed: Timestamp,
}

/// Whether a schedule is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ScheduleState {
    /// It is.
    Active,
    /// Somebody paused it, or it paused itself after failures: its ticks are skipped.
    Paused {
        /// Who: a person's name, or `dispatcher`.
        by: String,
        /// Since when.
        since: Timestamp,
        /// Why; may be empty.
        reason: String,
    },
    /// Its owner may not do any more what it does: its ticks are refused until the owner may again and
    /// resumes it, or somebody takes it over.
    Suspended {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
    },
}

impl ScheduleState {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused { .. } => "paused",
            Self::Suspended { .. } => "suspended",
        }
    }
}

/// An entry of a schedule's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tick {
    /// The schedule.
    pub schedule: ScheduleName,
    /// Its revision then.
    pub revision: i64,
    /// The moment, without jitter.
    pub instant: Timestamp,
    /// Whether somebody asked for it, by `run-now`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// What became of it.
    pub outcome: TickOutcome,
    /// Why that.
    pub cause: Option<TickCause>,
    /// The particulars, for people; may be empty.
    pub message: String,
    /// When it was decided.
    pub decided: Timestamp,
    /// How long after its moment and its jitter it was fired, in milliseconds.
    pub lateness_ms: Option<u64>,
    /// The job that it made, the last one if there were several attempts.
    pub job: Option<JobId>,
    /// The fan-out that it made, the last one if there were several attempts.
    pub fanout: Option<FanOutId>,
    /// How many attempts it has had.
    pub attempts: u32,
    /// How the run ended, once it did.
    pub result: Option<TickResult>,
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TickOutcome {
    /// It was run.
    Fired,
    /// It was run when it was too late for it, because that was wanted.
    CaughtUp,
    /// It waits for the end of another run.
    Queued,
    /// It waits for its cluster, which is offline.
    Deferred,
    /// It was not run, and was not to be.
    Skipped,
    /// It was to be run, and was not.
    Missed,
    /// It was not allowed.
    Refused,
}

impl TickOutcome {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::CaughtUp => "caught_up",
            Self::Queued => "queued",
            Self::Deferred => "deferred",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Refused => "refused",
        }
    }

    /// Whether it is still to be decided whether it runs.
    #[must_use]
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Queued | Self::Deferred)
    }

    /// Whether it made a run.
    #[must_use]
    pub const fn is_run(self) -> bool {
        matches!(self, Self::Fired | Self::CaughtUp)
    }
}

/// Why something became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TickCause {
    /// Another run went on.
    Overlap,
    /// A calendar closed it out.
    Blackout,
    /// The schedule was paused.
    Paused,
    /// The schedule was suspended.
    Suspended,
    /// Somebody said that it was to be skipped.
    ByHand,
    /// A later tick was due as well.
    Superseded,
    /// No dispatcher was there in time.
    NobodyThere,
    /// Its cluster was offline.
    ClusterOffline,
    /// No more jobs were taken.
    Unavailable,
    /// Its window, or its time to start, was over.
    TooLate,
    /// Its owner may not, or the cluster offers no such thing.
    NotAllowed,
}

impl TickCause {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Blackout => "blackout",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::ByHand => "by_hand",
            Self::Superseded => "superseded",
            Self::NobodyThere => "nobody_there",
            Self::ClusterOffline => "cluster_offline",
            Self::Unavailable => "unavailable",
            Self::TooLate => "too_late",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// How the run of a tick ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TickResult {
    /// Well.
    Succeeded,
    /// Somebody, or the schedule, cancelled it.
    Cancelled,
    /// Otherwise.
    Failed,
}

impl TickResult {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A tick that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComingTick {
    /// The moment, without jitter.
    pub instant: Timestamp,
    /// The same in the schedule's zone (RFC 9557), such as `2026-11-22T02:30:00+01:00[Europe/Berlin]`.
    pub local: String,
    /// By how much later it is fired, in seconds.
    pub jitter_seconds: u64,
    /// The last moment at which it may start.
    pub start_deadline: Timestamp,
    /// What touches it, each in a sentence.
    pub notes: Vec<ComingNote>,
}

/// What touches a tick that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComingNote {
    /// What kind of thing it is.
    pub kind: ComingNoteKind,
    /// In words.
    pub message: String,
}

/// What can touch a tick that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ComingNoteKind {
    /// A calendar closes it out: it will be skipped.
    Blackout,
    /// Clocks change.
    DaylightSaving,
    /// The run before it will probably go on still.
    Overlap,
    /// Its owner may not do any more what it does.
    Rights,
    /// It will be skipped, because the schedule is paused or suspended, or somebody said so.
    Skipped,
}

/// How a schedule is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct PutQuery {
    /// Refuse if there is one of this name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// Change only this revision of it: refuse if somebody else was faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Keep the secret variables that it has, in place of those in the body, which are none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_secrets: bool,
}

/// How many coming ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct NextQuery {
    /// 1 to 100; 10 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Which part of the ledger: the newest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct TicksQuery {
    /// How many, 1 to 500; 50 if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only ticks before this moment: the last of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
}

/// All schedules, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleList {
    /// The schedules.
    pub schedules: Vec<Schedule>,
}

/// Ticks that are to come, the soonest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComingTicks {
    /// The schedule's zone.
    pub time_zone: String,
    /// The ticks.
    pub ticks: Vec<ComingTick>,
}

/// A page of a ledger, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TickList {
    /// The ticks.
    pub ticks: Vec<Tick>,
    /// What to pass as `before` for the next page; `None` on the last.
    pub next: Option<Timestamp>,
}

/// Why a schedule is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseRequest {
    /// In words, for whoever wonders.
    #[serde(default)]
    pub reason: String,
}

/// The key with which a schedule's webhooks are signed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebhookKey {
    /// `whsec_` and base64, as <https://www.standardwebhooks.com> has it.
    pub key: String,
}

/// The most events of a calendar, and the longest iCalendar file, in bytes.
pub const MAX_CALENDAR_BYTES: usize = 1024 * 1024;

/// A calendar to be kept: the body of `PUT /v1/calendars/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CalendarSpec {
    /// What its events mean.
    pub kind: CalendarKind,
    /// An iCalendar object (RFC 5545), at most [`MAX_CALENDAR_BYTES`].
    pub ics: String,
    /// The zone of times in it that have none; UTC if silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZoneName>,
}

/// What the events of a calendar mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CalendarKind {
    /// Meanwhile nothing is run, by any schedule that does not say that it ignores this calendar.
    Closed,
    /// Only meanwhile something is run, by the schedules that name this calendar.
    Open,
}

impl CalendarKind {
    /// The name as it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// A calendar, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Calendar {
    /// Its name.
    pub name: CalendarName,
    /// What its events mean.
    pub kind: CalendarKind,
    /// Who imported it last.
    pub imported_by: String,
    /// When.
    pub imported: Timestamp,
    /// The events that are now or to come within a year, the soonest first, at most 20.
    pub coming: Vec<CalendarSpan>,
}

/// From when to when an event of a calendar lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CalendarSpan {
    /// From then.
    pub from: Timestamp,
    /// Until before then.
    pub until: Timestamp,
    /// What the event is called.
    pub summary: String,
}

/// All calendars, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CalendarList {
    /// The calendars.
    pub calendars: Vec<Calendar>,
}

/// Which schedule made a job, and at which of its ticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TickReference {
    /// The schedule.
    pub schedule: ScheduleName,
    /// The moment.
    pub instant: Timestamp,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
