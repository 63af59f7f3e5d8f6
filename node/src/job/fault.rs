//! From what libav or the socket said to what the supervisor is told.

use std::io;

use xora_av::{Error, ErrorKind};
use xora_shared::failure::FailureKind;

use crate::ipc::JobFailure;

/// The work's own result.
pub type Done<T> = Result<T, Fault>;

/// Why the work stopped.
#[derive(Debug)]
pub enum Fault {
    /// libav, before it is decided whose fault that is.
    Av(Error),
    /// Decided already.
    Job(JobFailure),
    /// Nothing of what was wanted came out. After a seek it may have led astray, and reading from the start may help.
    Nothing(&'static str),
    /// The sound track held nothing of what was wanted that could be decoded, or not for so long that the pictures cannot
    /// wait any more; nothing was written yet.
    Silent,
    /// The supervisor is gone: there is nobody to tell.
    Gone,
}

impl Fault {
    /// A failure that we understand.
    pub fn known(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Job(JobFailure::Known { kind, message: message.into() })
    }

    /// The input is not what the recipe needs.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::known(FailureKind::InputUnsupported, message)
    }

    /// The input ends too early.
    pub fn truncated(message: impl Into<String>) -> Self {
        Self::known(FailureKind::InputTruncated, message)
    }

    /// Over a limit, which the message names. `setting` is the node's flag that says how much is allowed.
    pub fn too_large(message: impl std::fmt::Display, setting: &str) -> Self {
        Self::known(FailureKind::InputTooLarge, format!("{message} ({setting} of the node)"))
    }

    /// Packets cannot be copied after all; encoding them may work.
    pub fn uncopyable(reason: impl Into<String>) -> Self {
        Self::Job(JobFailure::Uncopyable { reason: reason.into() })
    }

    /// A codec, filter or muxer failed.
    pub fn transcode(message: impl Into<String>) -> Self {
        Self::known(FailureKind::Transcode, message)
    }

    /// Says which of several inputs is meant, counted from 1.
    pub fn of_input(self, number: usize) -> Self {
        match self.into_failure() {
            Some(JobFailure::Known { kind, message }) => Self::known(kind, format!("input {number}: {message}")),
            Some(other) => Self::Job(other),
            None => Self::Gone,
        }
    }

    /// What the supervisor is told; none when it is gone.
    pub fn into_failure(self) -> Option<JobFailure> {
        match self {
            Self::Job(failure) => Some(failure),
            Self::Nothing(message) => {
                Some(JobFailure::Known { kind: FailureKind::Transcode, message: message.to_owned() })
            }
            Self::Silent => Self::Nothing("no sound of the input could be decoded").into_failure(),
            Self::Av(error) => Some(judge(error)),
            Self::Gone => None,
        }
    }
}

/// What an error of libav means where nothing more is known.
fn judge(error: Error) -> JobFailure {
    let known = |kind, message| JobFailure::Known { kind, message };
    match error.kind {
        ErrorKind::Source => JobFailure::Unreadable,
        ErrorKind::Unsupported => known(
            FailureKind::InputUnsupported,
            format!("the input uses a codec or format that is not supported ({error}); convert it to another first"),
        ),
        ErrorKind::Memory => known(
            FailureKind::InputTooLarge,
            format!(
                "the input needs more memory than a job may have ({error}); use a smaller picture size, or leave out what \
                 it carries beside its media (--max-pixels and --max-job-memory-bytes of the node)"
            ),
        ),
        ErrorKind::InvalidData | ErrorKind::Sink | ErrorKind::Option | ErrorKind::Other => {
            known(FailureKind::Transcode, format!("the media could not be processed ({error})"))
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Av(error)
    }
}

impl From<io::Error> for Fault {
    /// Only the socket to the supervisor fails with these.
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}
