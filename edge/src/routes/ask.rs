//! What every handler gets and gives.

use axum::{
    body::Body,
    extract::{FromRequest, RawPathParams, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use worker::Env;
use xora_shared::id::Id;

use super::body;
use crate::{
    auth::{Caller, Scope},
    error::{ApiError, Code},
};

/// Where a request reached us.
#[derive(Clone)]
pub struct Site {
    /// The bindings.
    pub env: Env,
    /// `https://host`, for links in answers.
    pub origin: String,
}

/// One request of someone with a key.
pub struct Ask {
    /// Where it reached us.
    pub site: Site,
    /// Who asks.
    pub caller: Caller,
    /// The id in the path, where there is one.
    id: String,
    request: Request,
}

impl Ask {
    /// Refuses callers whose key does not cover `scope`.
    pub fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        self.caller.needs(scope)
    }

    /// The id in the path, as text.
    pub fn id_text(&self) -> &str {
        &self.id
    }

    /// The id in the path, of a `what`.
    pub fn id(&self, what: &str) -> Result<Id, ApiError> {
        self.id.parse().map_err(|_| ApiError::not_found(what))
    }

    /// A caller's JSON.
    pub async fn json(self) -> Result<serde_json::Value, ApiError> {
        body::json(self.request).await
    }

    /// The body as text.
    pub async fn text(self) -> Result<String, ApiError> {
        body::text(self.request).await
    }
}

impl<S: Send + Sync> FromRequest<S> for Ask {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        use axum::extract::FromRequestParts;
        let (mut parts, body) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut parts, state).await;
        let id = params.ok().and_then(|params| params.iter().next().map(|(_, value)| value.to_owned()));
        let missing = || ApiError::new(Code::Internal, "something went wrong here; try again");
        Ok(Self {
            site: parts.extensions.remove().ok_or_else(missing)?,
            caller: parts.extensions.remove().ok_or_else(missing)?,
            id: id.unwrap_or_default(),
            request: Request::from_parts(parts, body),
        })
    }
}

/// A JSON answer, ready to send.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: String,
}

impl Reply {
    /// An answer with a status.
    pub fn of(status: u16, value: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self { status, body: serde_json::to_string(value)? })
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == Code::Unavailable.status() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
