//! `/v1/tokens`: API keys, shown once, stored as hashes.

use xora_shared::{
    answer::{NewToken, TokenList},
    id::Place,
    sign::sha256_hex,
    token::{Token, TokenRequest, new_key},
};

use super::{Ask, Reply};
use crate::{
    account,
    auth::{self, Scope},
    config,
    error::ApiError,
    shard::{self, Op},
};

/// `POST /v1/tokens`
pub async fn create(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    let env = ask.site.env.clone();
    let body = ask.json().await?;
    let TokenRequest { name, scopes } = TokenRequest::parse(&body)?;
    let id = config::new_id(Place::FIRST)?.to_string();
    let created_at = config::now().to_iso();
    let (listed, token) = (Token { id, name, scopes, created_at, last_used_at: None }, new_key(config::random)?);
    account::create_token(&env, &listed, &sha256_hex(token.as_bytes())).await?;
    Reply::of(201, &NewToken { listed, token })
}

/// `GET /v1/tokens`
pub async fn list(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    Reply::of(200, &TokenList { tokens: account::tokens(&ask.site.env).await? })
}

/// `DELETE /v1/tokens/:id`
pub async fn revoke(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Admin)?;
    let env = &ask.site.env;
    let revoked = account::revoke_token(env, &ask.id_text).await?;
    auth::forget(&ask.id_text);
    let hash = revoked.ok_or_else(|| ApiError::not_found("token"))?;
    shard::tell_all(env, Op::HangUp, &hash).await?;
    Ok(Reply::no_content())
}
