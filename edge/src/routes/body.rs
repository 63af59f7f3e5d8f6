//! Bodies of requests: text within a limit, JSON where it is said to be, or a clear refusal.

use axum::{
    extract::Request,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::error::{ApiError, Code};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A caller's body, to be read strictly.
pub async fn json(request: Request) -> Result<Value, ApiError> {
    let is_json = content_type_is_json(request.headers());
    let text = text(request).await?;
    if !is_json {
        let message = "the body must be JSON; send it with `Content-Type: application/json`";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    serde_json::from_str(&text).map_err(|error| ApiError::invalid(format!("body: is not valid JSON: {error}")))
}

/// A body as text.
pub async fn text(request: Request) -> Result<String, ApiError> {
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => String::from_utf8(body.to_bytes().to_vec())
            .map_err(|_| ApiError::invalid("body: is not valid JSON: it is not UTF-8")),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(Code::PayloadTooLarge, format!("the body must be at most {MAX_BODY} bytes")))
        }
        Err(_) => Err(ApiError::invalid("body: broke off; send it again")),
    }
}

/// Whether the body is said to be JSON. Saying nothing is fine.
fn content_type_is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}
