//! `/v1/tokens`: API keys, shown once, stored as hashes.

use axum::{
    Extension, Json,
    extract::{Path, Request},
    http::StatusCode,
};
use serde_json::{Value, json};
use xora_shared::{
    id::{Id, Place},
    request::{Field, Fields},
    sign::sha256_hex,
};

use super::{Site, body};
use crate::{
    account,
    auth::{Caller, Scope},
    config,
    error::ApiError,
};

/// `POST /v1/tokens`
#[worker::send]
pub async fn create(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.needs(Scope::Admin)?;
    let body = body::of_caller(request).await?;
    let mut fields = Fields::of_body(&body)?;
    let name = fields.required("name", |field| field.text(1, 64));
    let scopes = fields.required("scopes", scopes);
    fields.finish()?;
    let id = Id::new(
        config::now(),
        u128::from_le_bytes(config::random()?),
        Place::new(0, 0).unwrap_or_else(|| unreachable!("in range")),
    );
    let key = new_key()?;
    let token = account::new_token(id.to_string(), name.unwrap_or_default(), scopes.unwrap_or_default(), config::now());
    account::create_token(&site.env, token.clone(), sha256_hex(key.as_bytes())).await?;
    let mut answer = serde_json::to_value(token)?;
    answer["token"] = key.into();
    Ok((StatusCode::CREATED, Json(answer)))
}

/// `GET /v1/tokens`
#[worker::send]
pub async fn list(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Scope::Admin)?;
    Ok(Json(json!({"tokens": account::tokens(&site.env).await?})))
}

/// `DELETE /v1/tokens/:id`
#[worker::send]
pub async fn revoke(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.needs(Scope::Admin)?;
    if account::revoke_token(&site.env, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("token"))
    }
}

fn scopes(field: Field) -> Option<Vec<Scope>> {
    let scopes: Option<Vec<_>> = field
        .strings()?
        .iter()
        .map(|name| Scope::ALL.iter().find(|(known, _)| known == name).map(|(_, scope)| *scope))
        .collect();
    match scopes.filter(|scopes| !scopes.is_empty()) {
        Some(scopes) => Some(scopes),
        None => field.refuse("must be a list of one or more of jobs, settings, admin, node"),
    }
}

/// `nte_` and 48 letters and digits: 285 bits of the runtime's randomness.
fn new_key() -> Result<String, ApiError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut key = String::from("nte_");
    while key.len() < 52 {
        // Bytes of 248 and more would favour the first letters.
        let fresh = config::random::<64>()?;
        let letters = fresh.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        key.extend(letters.take(52 - key.len()));
    }
    Ok(key)
}
