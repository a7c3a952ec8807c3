//! The states by name alone.

use serde::{Deserialize, Serialize};

/// A state without what is known in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "each is documented at the variant of JobState that bears its name"
)]
pub enum StateName {
    Queued,
    Claimed,
    Starting,
    Running,
    ContactLost,
    Cancelling,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    Expired,
    Rejected,
    InfraFailed,
    Lost,
}

impl StateName {
    /// The name as it is written everywhere, such as `contact_lost`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::ContactLost => "contact_lost",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::InfraFailed => "infra_failed",
            Self::Lost => "lost",
        }
    }

    /// Whether nothing can happen to a job any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::Queued
                | Self::Claimed
                | Self::Starting
                | Self::Running
                | Self::ContactLost
                | Self::Cancelling
        )
    }
}

impl std::fmt::Display for StateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
