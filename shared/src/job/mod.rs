//! Jobs and the tasks that they are made of.

pub mod lease;
pub mod machine;
pub mod refusals;
pub mod turns;
pub mod version;
pub mod view;
pub mod weight;

use serde::{Deserialize, Serialize};

/// Where a job is, as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting for a node. From creation, from a failure that the system tries again, and from the caller's retry.
    Queued,
    /// A node reads what the input is.
    Probing,
    /// A node decides what to do.
    Planning,
    /// A node decodes and encodes, uploads or verifies.
    Transcoding,
    /// A node joins chunks.
    Merging,
    /// The output is verified and published. Terminal.
    Completed,
    /// Something went wrong that was not the request's fault alone. Terminal, until the caller retries.
    Failed,
    /// Refused before processing. Terminal.
    Rejected,
    /// The caller stopped it. Terminal, until the caller retries.
    Cancelled,
}

impl JobState {
    /// Every state, in the order in which a job may pass through them.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Probing,
        Self::Planning,
        Self::Transcoding,
        Self::Merging,
        Self::Completed,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Probing => "probing",
            Self::Planning => "planning",
            Self::Transcoding => "transcoding",
            Self::Merging => "merging",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job is over. Only the caller's retry leads out of such a state.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Probing | Self::Planning | Self::Transcoding | Self::Merging => false,
            Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled => true,
        }
    }
}
