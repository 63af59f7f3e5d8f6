//! What every handler gets and gives.

use futures_util::StreamExt;
use serde::Serialize;
use worker::{Env, Headers, Request, Response, Result};
use xora_shared::id::Id;

use crate::{
    auth::{Caller, Scope},
    error::{ApiError, Code},
    shard,
};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

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
    pub id_text: String,
    /// The request itself.
    pub request: Request,
}

impl Ask {
    /// Refuses callers whose key does not cover `scope`.
    pub fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        self.caller.needs(scope)
    }

    /// The id in the path, of a `what`.
    pub fn id(&self, what: &str) -> Result<Id, ApiError> {
        self.id_text.parse().map_err(|_| ApiError::not_found(what))
    }

    /// The id in the path, of a `what` that is a row of a shard, and that shard.
    pub async fn row(&self, what: &str) -> Result<(Id, u16), ApiError> {
        let id = self.id(what)?;
        Ok((id, shard::of(&self.site.env, id, what).await?))
    }

    /// A caller's JSON.
    pub async fn json(&mut self) -> Result<serde_json::Value, ApiError> {
        let is_json = is_json(self.request.headers())?;
        let text = self.text().await?;
        if !is_json {
            let message = "the body must be JSON; send it with `Content-Type: application/json`";
            return Err(ApiError::new(Code::UnsupportedMediaType, message));
        }
        serde_json::from_str(&text).map_err(|error| ApiError::invalid(format!("body: is not valid JSON: {error}")))
    }

    /// The body as text, within [`MAX_BODY`].
    pub async fn text(&mut self) -> Result<String, ApiError> {
        let mut body = Vec::new();
        if self.request.inner().body().is_some() {
            let mut chunks = self.request.stream()?;
            while let Some(chunk) = chunks.next().await {
                body.extend(chunk.map_err(|_| ApiError::invalid("body: broke off; send it again"))?);
                if body.len() > MAX_BODY {
                    let message = format!("the body must be at most {MAX_BODY} bytes");
                    return Err(ApiError::new(Code::PayloadTooLarge, message));
                }
            }
        }
        String::from_utf8(body).map_err(|_| ApiError::invalid("body: is not valid JSON: it is not UTF-8"))
    }
}

/// Whether a body is said to be JSON. Saying nothing is fine.
fn is_json(headers: &Headers) -> Result<bool, ApiError> {
    let Some(value) = headers.get("Content-Type")? else { return Ok(true) };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(essence == "application/json" || essence.ends_with("+json"))
}

/// A JSON answer, ready to send.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON, or nothing.
    pub body: String,
}

impl Reply {
    /// An answer with a status.
    pub fn of(status: u16, value: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self { status, body: serde_json::to_string(value)? })
    }

    /// An answer that says nothing but that it is done.
    pub fn no_content() -> Self {
        Self { status: 204, body: String::new() }
    }

    /// As the runtime sends it, named by the request's id; errors carry it in their body too.
    pub fn into_response(mut self, request_id: &str) -> Result<Response> {
        if self.status >= 400 {
            let mut body: serde_json::Value = serde_json::from_str(&self.body)?;
            body["error"]["requestId"] = request_id.into();
            self.body = body.to_string();
        }
        let headers = Headers::new();
        headers.set("X-Request-Id", request_id)?;
        if self.status == 204 {
            return Ok(Response::empty()?.with_status(204).with_headers(headers));
        }
        headers.set("Content-Type", "application/json")?;
        if self.status == Code::Unauthorized.status() {
            headers.set("WWW-Authenticate", "Bearer")?;
        }
        let code = [Code::RateLimited, Code::Unavailable].into_iter().find(|code| code.status() == self.status);
        if let Some(seconds) = code.and_then(Code::retry_after) {
            headers.set("Retry-After", &seconds.to_string())?;
        }
        Ok(Response::ok(self.body)?.with_status(self.status).with_headers(headers))
    }
}
