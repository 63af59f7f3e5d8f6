//! A refused request on its way to the caller.

use serde::{Deserialize, Serialize};
use worker::console_error;
pub use xora_shared::refusal::Code;
use xora_shared::{net::Refused, refusal::ErrorBody, request::Invalid, sign::NotGranted};

use crate::routes::Reply;

/// A refused request: a code for programs, a message for people that says what to do. It also travels from the Durable
/// Objects to the Worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// What.
    pub code: Code,
    /// Why, and what to do.
    pub message: String,
}

impl ApiError {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::ValidationError, message)
    }

    /// No such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"))
    }
}

/// Failures of the platform. The caller learns that it was our fault, the log learns what it was.
impl From<worker::Error> for ApiError {
    #[inline(never)]
    fn from(error: worker::Error) -> Self {
        console_error!("platform: {error:?}");
        Self::new(Code::Internal, "something went wrong here; try again")
    }
}

impl From<worker::KvError> for ApiError {
    fn from(error: worker::KvError) -> Self {
        worker::Error::from(error).into()
    }
}

/// Rows and messages are written by us: what does not parse is our fault.
impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        worker::Error::from(error).into()
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::new(Code::ValidationError, invalid.to_string())
    }
}

impl From<NotGranted> for ApiError {
    fn from(not_granted: NotGranted) -> Self {
        Self::new(Code::Forbidden, not_granted.to_string())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(Code::ValidationError, refused.to_string())
    }
}

impl ApiError {
    /// As an answer.
    pub fn reply(&self) -> Reply {
        let Self { code, message } = self;
        let body = serde_json::to_string(&ErrorBody::new(*code, message));
        Reply { status: code.status(), body: body.unwrap_or_default() }
    }

    /// Reads what [`Self::reply`] wrote, in a Durable Object.
    pub fn parse(body: &str) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Body {
            error: ApiError,
        }
        let Body { error } = serde_json::from_str(body)?;
        Ok(error)
    }
}
