//! Who is asking: keys, scopes, and a short memory of verdicts.

use std::{cell::RefCell, collections::HashMap};

use serde::{Deserialize, Serialize};
use worker::{Env, Headers};
pub use xora_shared::token::Scope;
use xora_shared::{
    sign::{same_secret, sha256_hex},
    time::UnixMs,
};

use crate::{
    account, config,
    error::{ApiError, Code},
};

/// How long a verdict on a key is remembered in one isolate, in milliseconds: a revoked key is refused everywhere within 30 s.
const REMEMBER_MS: i64 = 25_000;

/// Most verdicts remembered in one isolate.
const REMEMBER: usize = 1_000;

/// Whoever holds a valid key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caller {
    /// Id of the token, for fairness and limits.
    pub token_id: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What the key is kept under. None for the first key, which nobody revokes.
    #[serde(skip)]
    pub hash: Option<String>,
}

impl Caller {
    /// Refuses callers whose key does not cover `scope`. Admin covers all but the node protocol.
    pub fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        let covered = self.scopes.contains(&scope) || (scope != Scope::Node && self.scopes.contains(&Scope::Admin));
        if covered {
            return Ok(());
        }
        let message = format!("this key lacks the scope `{}`; use one that has it", scope.name());
        Err(ApiError::new(Code::Forbidden, message))
    }
}

thread_local! {
    static VERDICTS: RefCell<HashMap<String, (UnixMs, Option<Caller>)>> = RefCell::default();
}

/// Finds out who sent a request.
pub async fn caller(env: &Env, headers: &Headers) -> Result<Caller, ApiError> {
    let key = presented(headers).ok_or_else(|| {
        ApiError::new(Code::Unauthorized, "send your API key as `Authorization: Bearer KEY` or `X-API-KEY: KEY`")
    })?;
    if config::first_key(env).is_some_and(|first| same_secret(&first, &key)) {
        return Ok(Caller { token_id: "first".to_owned(), scopes: vec![Scope::Admin], hash: None });
    }
    let hash = sha256_hex(key.as_bytes());
    let verdict = if let Some(verdict) = remembered(&hash) {
        verdict
    } else {
        let verdict = account::verify(env, &hash).await?;
        remember(hash.clone(), verdict.clone());
        verdict
    };
    let caller = verdict.ok_or_else(|| ApiError::new(Code::Unauthorized, "this API key is not valid"))?;
    Ok(Caller { hash: Some(hash), ..caller })
}

/// Refuses a key that asks too often. The platform counts, at each of its locations for itself: a brake, not an account.
/// No more than `ratelimits` of `wrangler.toml` says; without that, no limit.
pub async fn admit(env: &Env, caller: &Caller) -> Result<(), ApiError> {
    let Ok(limiter) = env.rate_limiter("REQUESTS") else { return Ok(()) };
    // What cannot be counted is let in.
    let admitted = limiter.limit(caller.token_id.clone()).await.map_or(true, |outcome| outcome.success);
    if admitted {
        return Ok(());
    }
    Err(ApiError::new(Code::RateLimited, "this key asks too often; wait as long as `Retry-After` says, in seconds"))
}

/// What the key that a request presents is kept under.
pub fn hash(headers: &Headers) -> Option<String> {
    presented(headers).map(|key| sha256_hex(key.as_bytes()))
}

fn presented(headers: &Headers) -> Option<String> {
    let bearer = headers.get("Authorization").ok().flatten().and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
    });
    bearer.or_else(|| headers.get("X-API-KEY").ok().flatten()).filter(|key| !key.is_empty() && key.len() <= 256)
}

#[expect(clippy::option_option, reason = "not remembered, remembered as invalid, and a caller are three things")]
fn remembered(hash: &str) -> Option<Option<Caller>> {
    let now = config::now();
    VERDICTS.with_borrow(|verdicts| {
        verdicts.get(hash).filter(|(at, _)| now.since(*at) < REMEMBER_MS).map(|(_, verdict)| verdict.clone())
    })
}

/// Forgets what this isolate remembers of the key with this id: it was revoked.
pub fn forget(token_id: &str) {
    let is_other = |caller: &Option<Caller>| caller.as_ref().is_none_or(|caller| caller.token_id != token_id);
    VERDICTS.with_borrow_mut(|verdicts| verdicts.retain(|_, (_, verdict)| is_other(verdict)));
}

fn remember(hash: String, verdict: Option<Caller>) {
    VERDICTS.with_borrow_mut(|verdicts| {
        if verdicts.len() >= REMEMBER {
            verdicts.clear();
        }
        verdicts.insert(hash, (config::now(), verdict));
    });
}
