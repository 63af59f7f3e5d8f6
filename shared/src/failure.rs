//! Why a job did not succeed, as data. The one table from kind to state, code, `retryable` and what the system does.

use serde::{Deserialize, Serialize};

use crate::job::JobState;

/// What went wrong. Decided once, where it happened (the node's classifier, or the shard for what nodes cannot see);
/// everything else follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The input's name resolves to, or redirects to, an address that the policy refuses.
    AddressRefused,
    /// The origin answered 4xx, or redirected too often.
    OriginRefused,
    /// The origin answered 5xx, reset, timed out, or its name does not resolve.
    OriginUnavailable,
    /// Not media, or no stream that the recipe needs.
    InputUnsupported,
    /// Over one of the limits.
    InputTooLarge,
    /// Cut, or shorter than it says.
    InputTruncated,
    /// A command that is not allowed.
    CommandRefused,
    /// A codec, filter or muxer failed.
    Transcode,
    /// The output was read back and is not what was meant.
    OutputInvalid,
    /// Storage did not take the output.
    Storage,
    /// The job process crashed, stalled, or ran out of time or memory.
    ProcessDied,
    /// The job process made a system call for which the sandbox kills it.
    SandboxKilled,
    /// The node stopped answering and the lease ran out.
    NodeLost,
    /// No node took the job in time.
    Unclaimed,
    /// The installation is misconfigured.
    Misconfigured,
    /// No node has an encoder or a muxer that the output needs.
    NoEncoder,
    /// No node has a decoder that the input needs, though the decoder is one that nodes may use.
    NoDecoder,
    /// No node has a filter that the output needs.
    NoFilter,
}

/// Codes of failed jobs, as `error.code` says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are the documentation; API section 1 lists them")]
pub enum JobCode {
    EngineError,
    EngineInvocationError,
    EngineInvokeFailed,
    EngineEmptyResponse,
    EngineInvalidResponse,
    ConfigError,
    UnsupportedCommand,
    TranscodeError,
    InputUnreachable,
    InputUnsupported,
    InputTruncated,
    InputTooLarge,
    OutputInvalid,
    StorageError,
    NodeLost,
}

/// How often the system itself tries again after a kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAgain {
    /// Never: the next attempt would end the same.
    Never,
    /// One more time in all.
    Once,
    /// Until the attempts of the task are used up.
    WhileAttemptsLast,
}

/// One row of API section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The terminal state, [`JobState::Failed`] or [`JobState::Rejected`].
    pub state: JobState,
    /// What `error.code` says.
    pub code: JobCode,
    /// What `error.retryable` says: whether the caller's own retry may end differently.
    pub retryable: bool,
    /// What the system does by itself.
    pub again: TryAgain,
}

impl FailureKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 18] = [
        Self::AddressRefused,
        Self::OriginRefused,
        Self::OriginUnavailable,
        Self::InputUnsupported,
        Self::InputTooLarge,
        Self::InputTruncated,
        Self::CommandRefused,
        Self::Transcode,
        Self::OutputInvalid,
        Self::Storage,
        Self::ProcessDied,
        Self::SandboxKilled,
        Self::NodeLost,
        Self::Unclaimed,
        Self::Misconfigured,
        Self::NoEncoder,
        Self::NoDecoder,
        Self::NoFilter,
    ];

    /// What follows from this kind of failure (API section 6).
    pub const fn verdict(self) -> Verdict {
        use JobState::{Failed, Rejected};
        use TryAgain::{Never, Once, WhileAttemptsLast};
        let (state, code, retryable, again) = match self {
            Self::AddressRefused => (Rejected, JobCode::InputUnreachable, false, Never),
            Self::OriginRefused => (Failed, JobCode::InputUnreachable, false, Never),
            Self::OriginUnavailable => (Failed, JobCode::InputUnreachable, true, WhileAttemptsLast),
            Self::InputUnsupported | Self::NoDecoder => (Rejected, JobCode::InputUnsupported, false, Never),
            Self::InputTooLarge => (Rejected, JobCode::InputTooLarge, false, Never),
            Self::InputTruncated => (Failed, JobCode::InputTruncated, false, Never),
            Self::CommandRefused => (Rejected, JobCode::UnsupportedCommand, false, Never),
            Self::Transcode => (Failed, JobCode::TranscodeError, true, Never),
            Self::OutputInvalid => (Failed, JobCode::OutputInvalid, true, Once),
            Self::Storage => (Failed, JobCode::StorageError, true, WhileAttemptsLast),
            Self::ProcessDied => (Failed, JobCode::EngineInvocationError, true, Once),
            Self::SandboxKilled => (Failed, JobCode::EngineError, true, Once),
            Self::NodeLost => (Failed, JobCode::NodeLost, true, WhileAttemptsLast),
            Self::Unclaimed => (Failed, JobCode::EngineInvokeFailed, true, Never),
            Self::Misconfigured | Self::NoEncoder | Self::NoFilter => (Failed, JobCode::ConfigError, false, Never),
        };
        Verdict { state, code, retryable, again }
    }
}

/// A failure as a node reports it and as an attempt keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Where: the finer stage, which `attempts` shows.
    pub stage: Stage,
    /// For the caller: what happened and what to do. Nothing is ever decided from it.
    pub message: String,
}

/// Where in an attempt the work is. The job's own `state` is coarser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Reading what the input is.
    Probe,
    /// Deciding what to do with it.
    Plan,
    /// Decoding, filtering, encoding, muxing.
    Transcode,
    /// Joining chunks.
    Merge,
    /// Sending the last parts and having them put together.
    Upload,
    /// Reading the result back.
    Verify,
}

impl Stage {
    /// The job state that callers see at this stage of an undivided job.
    pub const fn job_state(self) -> JobState {
        match self {
            Self::Probe => JobState::Probing,
            Self::Plan => JobState::Planning,
            Self::Transcode | Self::Upload | Self::Verify => JobState::Transcoding,
            Self::Merge => JobState::Merging,
        }
    }
}
