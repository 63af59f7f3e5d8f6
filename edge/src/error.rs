//! A refused request on its way to the caller.

use std::fmt;

use serde::Deserialize;
use worker::console_error;
pub use xora_shared::refusal::Code;
use xora_shared::{json, net::Refused, refusal::ErrorBody, request::Invalid, sign::NotGranted};

use crate::routes::Reply;

/// A refused request: a code for programs, a message for people that says what to do. It also travels from the Durable
/// Objects to the Worker. Boxed, because nearly every function can answer one.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Reason>);

/// What happened, and what to do.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Reason {
    code: Code,
    message: String,
}

impl ApiError {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Reason { code, message: message.into() }))
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::ValidationError, message)
    }

    /// Whether it is our fault: asking again may help.
    pub fn is_ours(&self) -> bool {
        self.0.code.status() >= 500
    }

    /// Our fault; the log says more.
    fn ours() -> Self {
        Self::new(Code::Internal, "something went wrong here; try again")
    }

    /// Whether this is the code.
    pub fn is(&self, code: Code) -> bool {
        self.0.code == code
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
        console_error!("platform: {error}");
        Self::ours()
    }
}

impl From<worker::KvError> for ApiError {
    fn from(error: worker::KvError) -> Self {
        console_error!("KV: {error}");
        Self::ours()
    }
}

/// Rows and messages are written by us: what does not parse is our fault.
impl From<serde_json::Error> for ApiError {
    #[inline(never)]
    fn from(error: serde_json::Error) -> Self {
        console_error!("JSON: {error}");
        Self::ours()
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
        let Reason { code, message } = &*self.0;
        let body = serde_json::to_string(&ErrorBody::new(*code, message));
        Reply { status: code.status(), body: body.unwrap_or_default() }
    }

    /// Reads what [`Self::reply`] wrote, in a Durable Object.
    pub fn parse(body: &str) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Body {
            error: Reason,
        }
        let Body { error } = json::from_str(body)?;
        Ok(Self(Box::new(error)))
    }
}
