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

    /// An encoder of this name did not open.
    pub fn of_encoder(name: &str, error: Error) -> Self {
        if error.kind != ErrorKind::NoEncoder {
            return Self::Av(error);
        }
        let message = format!(
            "the output needs the encoder {name}, which the node's libav lacks; install a build that has it there"
        );
        Self::known(FailureKind::NoEncoder, message)
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
        ErrorKind::NoDecoder => known(
            FailureKind::NoDecoder,
            format!(
                "the input needs a decoder that the node's libav lacks ({error}); install a complete build of it there"
            ),
        ),
        ErrorKind::NoEncoder => known(
            FailureKind::NoEncoder,
            format!(
                "the output needs an encoder or muxer that the node's libav lacks ({error}); install a complete build there"
            ),
        ),
        ErrorKind::NoFilter => known(
            FailureKind::NoFilter,
            format!(
                "the output needs a filter that the node's libav lacks ({error}); install a complete build of it there"
            ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use xora_av::{AudioEncoding, Encoder, Frame};

    #[test]
    fn a_missing_encoder_is_named_and_is_not_the_inputs_fault() {
        let how = AudioEncoding { encoder: "aac_of_tomorrow", options: &[], global_header: false };
        let error = Encoder::audio(&how, &Frame::silence(960, false).expect("a frame")).err().expect("there is none");
        let Some(JobFailure::Known { kind, message }) = Fault::of_encoder("aac_of_tomorrow", error).into_failure()
        else {
            panic!("not known")
        };
        assert_eq!(kind, FailureKind::NoEncoder);
        assert!(message.contains("aac_of_tomorrow") && !message.contains("input"), "{message}");
    }

    #[test]
    fn what_a_build_of_libav_lacks_has_kinds_of_its_own() {
        for (lacks, expected) in [
            (ErrorKind::NoDecoder, FailureKind::NoDecoder),
            (ErrorKind::NoEncoder, FailureKind::NoEncoder),
            (ErrorKind::NoFilter, FailureKind::NoFilter),
            (ErrorKind::Unsupported, FailureKind::InputUnsupported),
        ] {
            let error = Error { kind: lacks, code: 0, doing: "find" };
            let JobFailure::Known { kind, .. } = judge(error) else { panic!("{lacks:?}") };
            assert_eq!(kind, expected);
        }
    }
}
