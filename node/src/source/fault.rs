//! What can go wrong while an input is read.

use std::{error::Error, io};

use xora_shared::net::Refused;

/// Why bytes of an input cannot be had. The classifier turns it into a kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFault {
    /// The URL, a redirect's target or an address behind a name is against the policy.
    Refused(Refused),
    /// The origin answered with this status, and asking again would not help.
    Status(u16),
    /// More redirects than are followed, or one without a target.
    Redirects,
    /// The origin sends a compressed body, of which ranges mean nothing.
    Encoded,
    /// The origin could not be reached or did not go on, after all tries.
    Unavailable(Trouble),
    /// The file at the origin is not the one that reading began with.
    Changed,
    /// Two answers of the origin have different tags, and nothing else says which version of the file they are of: only
    /// one answer with all of it is sure to be of one version.
    Unsteady,
    /// The origin promised more bytes than it has.
    Truncated {
        /// Bytes that there are.
        at: u64,
        /// Bytes promised, if a number was.
        promised: Option<u64>,
    },
    /// The input is larger than allowed, in bytes.
    TooLarge {
        /// The limit.
        limit: u64,
        /// Its size, where the origin says it.
        size: Option<u64>,
    },
    /// The origin cannot serve ranges, and this node never has room to keep the whole.
    NoRoom {
        /// How much it keeps of such inputs together, in bytes.
        limit: u64,
    },
    /// The origin cannot serve ranges, and this node has no room to keep the whole just now: other jobs hold it, or the
    /// disk is full.
    Full,
    /// This node cannot write where it keeps what it reads.
    Disk,
}

/// What was the matter with one request. Worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A status that may pass: 5xx, and 429 to one of several requests. Every other 4xx is final, by the contract.
    Status(u16),
    /// The name does not resolve.
    Name,
    /// No connection.
    Connect,
    /// The connection broke.
    Reset,
    /// The body ended before its promised length.
    Ended,
    /// Nothing came for too long.
    Timeout,
    /// The answer does not fit the question.
    Odd,
}

impl SourceFault {
    /// Whether asking again may help.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Unavailable(trouble) => Some(*trouble),
            Self::Refused(_)
            | Self::Status(_)
            | Self::Redirects
            | Self::Encoded
            | Self::Changed
            | Self::Unsteady
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::Full
            | Self::Disk => None,
        }
    }
}

/// The resolver's refusal, carried through the HTTP client.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RefusedAddress(pub Refused);

/// The resolver's failure, carried through the HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
pub struct Unresolved;

impl From<reqwest::Error> for SourceFault {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        let mut trouble = if error.is_timeout() {
            Trouble::Timeout
        } else if error.is_connect() {
            Trouble::Connect
        } else {
            Trouble::Reset
        };
        while let Some(error) = cause {
            if let Some(RefusedAddress(refused)) = error.downcast_ref() {
                return Self::Refused(*refused);
            }
            if error.is::<Unresolved>() {
                trouble = Trouble::Name;
            }
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
                trouble = if trouble == Trouble::Connect { trouble } else { Trouble::Ended };
            }
            cause = error.source();
        }
        Self::Unavailable(trouble)
    }
}
