//! What a request can be refused with. The one place that chooses HTTP statuses.

use serde::{Deserialize, Serialize};
use serde_json::json;
use worker::console_error;
use xora_shared::{net::Refused, request::Invalid, sign::NotGranted};

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

/// `error.code` of a refused request (API section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request itself is wrong.
    ValidationError,
    /// No key, or one that is not valid.
    Unauthorized,
    /// The key's scopes do not cover this, or a file's signature does not.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Not in this state.
    Conflict,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The range starts past the end.
    RangeNotSatisfiable,
    /// The same idempotency key came with another body.
    IdempotencyMismatch,
    /// Cannot be answered just now.
    Unavailable,
    /// Our fault.
    Internal,
}

impl Code {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::ValidationError => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::IdempotencyMismatch => 422,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    const fn retryable(self) -> bool {
        match self {
            Self::Unavailable | Self::Internal => true,
            Self::ValidationError
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::RangeNotSatisfiable
            | Self::IdempotencyMismatch => false,
        }
    }
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
        let body = json!({"error": {"code": code, "message": message, "retryable": code.retryable()}});
        Reply { status: code.status(), body: body.to_string() }
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
