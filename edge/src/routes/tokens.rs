//! `/v1/tokens`: API keys, shown once, stored as hashes.

use serde_json::json;
use xora_shared::{
    id::{Id, Place},
    request::{Field, Fields},
    sign::sha256_hex,
};

use super::{Ask, Reply};
use crate::{
    account::{self, Token},
    auth::Scope,
    config,
    error::ApiError,
};

/// `POST /v1/tokens`
pub async fn create(mut ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    let env = ask.site.env.clone();
    let body = ask.json().await?;
    let mut fields = Fields::of_body(&body)?;
    let name = fields.required("name", |field| field.text(1, 64));
    let scopes = fields.required("scopes", scopes);
    fields.finish()?;
    let id = Id::new(config::now(), u128::from_le_bytes(config::random()?), Place::FIRST).to_string();
    let created_at = config::now().to_iso();
    let token = Token { id, name: name.unwrap_or_default(), scopes: scopes.unwrap_or_default(), created_at };
    let key = new_key()?;
    account::create_token(&env, &token, &sha256_hex(key.as_bytes())).await?;
    let mut answer = serde_json::to_value(token)?;
    answer["token"] = key.into();
    Reply::of(201, &answer)
}

/// `GET /v1/tokens`
pub async fn list(ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    Reply::of(200, &json!({"tokens": account::tokens(&ask.site.env).await?}))
}

/// `DELETE /v1/tokens/:id`
pub async fn revoke(ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    let found = account::revoke_token(&ask.site.env, &ask.id_text).await?;
    if found { Ok(Reply::no_content()) } else { Err(ApiError::not_found("token")) }
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
