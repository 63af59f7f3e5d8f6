//! How the Worker calls its Durable Objects: one JSON message, one JSON answer or an [`ApiError`].

use serde::{Serialize, de::DeserializeOwned};
use worker::{Method, Request, RequestInit, Response, Result, Stub};

use crate::error::ApiError;

/// Calls an object.
pub async fn send<C: Serialize, T: DeserializeOwned>(stub: &Stub, call: &C) -> Result<T, ApiError> {
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(serde_json::to_string(call)?.into()));
    let mut response = stub.fetch_with_request(Request::new_with_init("https://object/", &init)?).await?;
    let text = response.text().await?;
    if response.status_code() == 200 { Ok(serde_json::from_str(&text)?) } else { Err(serde_json::from_str(&text)?) }
}

/// Reads a call, in the object.
pub async fn receive<C: DeserializeOwned>(req: &mut Request) -> Result<C, ApiError> {
    Ok(serde_json::from_str(&req.text().await?)?)
}

/// An answer, in the object.
pub fn reply<T: Serialize>(value: &T) -> Result<Response, ApiError> {
    Ok(Response::ok(serde_json::to_string(value)?)?)
}

/// An answer or a refusal, as a response.
pub fn answer(result: Result<Response, ApiError>) -> Result<Response> {
    match result {
        Ok(response) => Ok(response),
        Err(error) => Ok(Response::from_json(&error)?.with_status(error.code.status().as_u16())),
    }
}
