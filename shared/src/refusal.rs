//! What a request can be refused with: API section 1 as a table. The one place that chooses HTTP statuses.

use serde::{Deserialize, Serialize};

/// `error.code` of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
    /// The key asks too often.
    RateLimited,
    /// A bucket of the caller's refuses, and will go on to. Only nodes get this.
    StorageRefused,
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
            Self::StorageRefused => 424,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// After how many seconds the same request may be answered, where that is known.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            // A period of the rate limit in `wrangler.toml`.
            Self::RateLimited => Some(10),
            Self::Unavailable => Some(1),
            Self::ValidationError
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::RangeNotSatisfiable
            | Self::IdempotencyMismatch
            | Self::StorageRefused
            | Self::Internal => None,
        }
    }

    /// Whether the same request may be answered later.
    pub const fn retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Unavailable | Self::Internal => true,
            Self::ValidationError
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::RangeNotSatisfiable
            | Self::IdempotencyMismatch
            | Self::StorageRefused => false,
        }
    }
}

/// The body of every refused request.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", schemars(rename = "Error"))]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct ErrorDetail {
    /// For programs.
    code: Code,
    /// For people: what happened and what to do. Every problem of a body is in it, by path.
    message: String,
    /// Whether the same request may be answered later.
    retryable: bool,
    /// Names this request in the logs of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl ErrorBody {
    /// The body for a code and a message, without a request id.
    pub fn new(code: Code, message: &str) -> Self {
        let (message, retryable) = (message.to_owned(), code.retryable());
        Self { error: ErrorDetail { code, message, retryable, request_id: None } }
    }
}
