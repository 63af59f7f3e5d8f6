//! Bodies of requests: JSON within a limit, or a clear refusal.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ApiError, Code};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A caller's body, to be read strictly.
pub async fn of_caller(request: Request) -> Result<Value, ApiError> {
    let is_json = content_type_is_json(request.headers());
    let bytes = read(request).await?;
    if !is_json {
        let message = "the body must be JSON; send it with `Content-Type: application/json`";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::new(Code::ValidationError, format!("body: is not valid JSON: {error}")))
}

/// A node's message: unknown fields are fine, the two sides deploy at different times.
pub async fn of_node<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    serde_json::from_slice(&read(request).await?)
        .map_err(|error| ApiError::new(Code::ValidationError, format!("body: {error}")))
}

async fn read(request: Request<Body>) -> Result<Vec<u8>, ApiError> {
    let too_large = || ApiError::new(Code::PayloadTooLarge, format!("the body must be at most {MAX_BODY} bytes"));
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(ApiError::new(Code::ValidationError, "body: broke off; send it again")),
    }
}

/// Whether the body is said to be JSON. Saying nothing is fine.
fn content_type_is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}
