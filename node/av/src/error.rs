//! What can go wrong, as a kind to decide by and a text to read.

use std::{ffi::CStr, fmt};

use ffmpeg_next::ffi;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kind of failure. Decide by this, never by the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The [`crate::ReadAt`] failed, now or earlier: nothing read since can be trusted.
    Source,
    /// The [`crate::WriteAt`] failed, now or earlier.
    Sink,
    /// The bytes are not what they claim.
    InvalidData,
    /// No allowed demuxer or decoder for it.
    Unsupported,
    /// This build of libav lacks a decoder that is allowed.
    NoDecoder,
    /// This build of libav lacks the encoder or the muxer.
    NoEncoder,
    /// This build of libav lacks the filter.
    NoFilter,
    /// Out of memory, or over libav's own caps (too many streams answers this, too).
    Memory,
    /// An option that libav does not know was given: a mistake of ours.
    Option,
    /// Anything else that libav refuses.
    Other,
}

/// A failure of libav, or of the bytes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What to decide by.
    pub kind: ErrorKind,
    /// libav's code, for the log.
    pub code: i32,
    /// What was being done.
    pub doing: &'static str,
}

/// What a codec or a graph answers when asked for its next item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The item was filled in.
    Ready,
    /// Feed it more first.
    More,
    /// There will be nothing more.
    End,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, doing: &'static str) -> Self {
        Self { kind, code: 0, doing }
    }

    pub(crate) fn from_code(code: i32, doing: &'static str) -> Self {
        let kind = match code {
            ffi::AVERROR_INVALIDDATA => ErrorKind::InvalidData,
            ffi::AVERROR_ENCODER_NOT_FOUND | ffi::AVERROR_MUXER_NOT_FOUND => ErrorKind::NoEncoder,
            ffi::AVERROR_FILTER_NOT_FOUND => ErrorKind::NoFilter,
            ffi::AVERROR_DECODER_NOT_FOUND
            | ffi::AVERROR_DEMUXER_NOT_FOUND
            | ffi::AVERROR_STREAM_NOT_FOUND
            | ffi::AVERROR_PATCHWELCOME => ErrorKind::Unsupported,
            ffi::AVERROR_OPTION_NOT_FOUND => ErrorKind::Option,
            _ if code == ffi::AVERROR(libc_enomem()) => ErrorKind::Memory,
            _ => ErrorKind::Other,
        };
        Self { kind, code, doing }
    }

    /// As an encoder says it: x264 and others return only that they failed. Whether for lack of memory, their log tells.
    pub(crate) fn of_encoder(self) -> Self {
        self.of_encoder_that(crate::log::blames_memory())
    }

    fn of_encoder_that(self, blames_memory: bool) -> Self {
        let is_memory = self.code == ffi::AVERROR_EXTERNAL && blames_memory;
        if is_memory { Self { kind: ErrorKind::Memory, ..self } } else { self }
    }

    pub(crate) fn memory(doing: &'static str) -> Self {
        Self { kind: ErrorKind::Memory, code: ffi::AVERROR(libc_enomem()), doing }
    }
}

const fn libc_enomem() -> i32 {
    ffi::ENOMEM
}

/// Turns libav's negative return codes into errors.
pub(crate) fn check(code: i32, doing: &'static str) -> Result<i32> {
    if code < 0 { Err(Error::from_code(code, doing)) } else { Ok(code) }
}

/// Turns the return code of a `receive`-like function into a [`Poll`].
pub(crate) fn poll(code: i32, doing: &'static str) -> Result<Poll> {
    match code {
        ffi::AVERROR_EOF => Ok(Poll::End),
        _ if code == ffi::AVERROR(ffi::EAGAIN) => Ok(Poll::More),
        _ => check(code, doing).map(|_| Poll::Ready),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == 0 {
            return write!(f, "{}: {:?}", self.doing, self.kind);
        }
        let mut text = [0; 128];
        // SAFETY: the buffer and its length belong together, and libav ends the text with a zero byte.
        let text = unsafe {
            ffi::av_strerror(self.code, text.as_mut_ptr(), text.len());
            CStr::from_ptr(text.as_ptr())
        };
        write!(f, "{}: {}", self.doing, text.to_string_lossy())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_that_fails_is_out_of_memory_where_its_log_says_so() {
        let kind = |code, blames_memory| Error::from_code(code, "encode").of_encoder_that(blames_memory).kind;
        assert_eq!(kind(ffi::AVERROR_EXTERNAL, true), ErrorKind::Memory);
        assert_eq!(kind(ffi::AVERROR_EXTERNAL, false), ErrorKind::Other);
        assert_eq!(kind(ffi::AVERROR_INVALIDDATA, true), ErrorKind::InvalidData);
    }

    #[test]
    fn what_a_build_of_libav_lacks_is_told_apart_from_an_input_that_is_not_supported() {
        let kind = |code| Error::from_code(code, "open").kind;
        assert_eq!(kind(ffi::AVERROR_ENCODER_NOT_FOUND), ErrorKind::NoEncoder);
        assert_eq!(kind(ffi::AVERROR_FILTER_NOT_FOUND), ErrorKind::NoFilter);
        assert_eq!(kind(ffi::AVERROR_PATCHWELCOME), ErrorKind::Unsupported);
    }
}
