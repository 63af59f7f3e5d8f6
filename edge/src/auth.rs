//! Who is asking: keys, scopes, and a short memory of verdicts.

use std::{cell::RefCell, collections::HashMap};

use serde::{Deserialize, Serialize};
use worker::{Env, Headers};
pub use xora_shared::token::Scope;
use xora_shared::{
    known::{Known, Recalled},
    net::counted_as,
    sign::{same_secret, sha256_hex},
    time::UnixMs,
    token::is_key,
};

use crate::{
    account, config,
    error::{ApiError, Code},
};

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

/// How long a client that was refused must present no unknown key, in milliseconds: what `Retry-After` says.
const QUIET_MS: i64 = 10_000;

/// Most clients that are remembered as refused.
const REFUSED: usize = 1_000;

thread_local! {
    static KNOWN: RefCell<Known<Caller>> = RefCell::default();
    /// Clients that presented too many unknown keys, and when each last tried.
    static TOO_MANY: RefCell<HashMap<String, UnixMs>> = RefCell::default();
}

/// Finds out who sent a request. Only a text with the form of a key is looked up, and a key that this isolate does not know
/// counts against its client first: made-up keys must not keep `Account` from answering for others.
pub async fn caller(env: &Env, headers: &Headers) -> Result<Caller, ApiError> {
    let key = presented(headers).ok_or_else(|| {
        ApiError::new(Code::Unauthorized, "send your API key as `Authorization: Bearer KEY` or `X-API-KEY: KEY`")
    })?;
    if config::first_key(env).is_some_and(|first| same_secret(&first, &key)) {
        return Ok(Caller { token_id: "first".to_owned(), scopes: vec![Scope::Admin], hash: None });
    }
    let invalid = || ApiError::new(Code::Unauthorized, "this API key is not valid");
    if !is_key(&key) {
        return Err(invalid());
    }
    let hash = sha256_hex(key.as_bytes());
    let caller = match KNOWN.with_borrow(|known| known.recall(&hash, config::now())) {
        Recalled::Valid(caller) => Some(caller),
        Recalled::Invalid => None,
        Recalled::Stale => look_up(env, &hash).await?,
        Recalled::Unknown => {
            admit_stranger(env, headers).await?;
            look_up(env, &hash).await?
        }
    };
    Ok(Caller { hash: Some(hash), ..caller.ok_or_else(invalid)? })
}

async fn look_up(env: &Env, hash: &str) -> Result<Option<Caller>, ApiError> {
    let verdict = account::verify(env, hash).await?;
    KNOWN.with_borrow_mut(|known| known.note(hash.to_owned(), verdict.clone(), config::now()));
    Ok(verdict)
}

/// Refuses a client that presents many keys which this isolate does not know.
async fn admit_stranger(env: &Env, headers: &Headers) -> Result<(), ApiError> {
    // Set by the platform. What comes without it is counted together.
    let client = counted_as(&headers.get("CF-Connecting-IP")?.unwrap_or_default());
    // Without this, a flood that goes on would get 50 keys looked up in each 10 seconds.
    if !is_waiting(&client) {
        if is_within(env, "STRANGERS", client.clone()).await {
            return Ok(());
        }
        TOO_MANY.with_borrow_mut(|clients| {
            if clients.len() >= REFUSED {
                clients.clear();
            }
            clients.insert(client, config::now());
        });
    }
    let message =
        "too many keys that are not known here came from this address; wait as long as `Retry-After` says, in seconds";
    Err(ApiError::new(Code::RateLimited, message))
}

/// Whether a client was refused and has not been quiet since.
fn is_waiting(client: &str) -> bool {
    let now = config::now();
    TOO_MANY.with_borrow_mut(|clients| {
        let Some(last) = clients.get_mut(client).filter(|last| now.since(**last) < QUIET_MS) else { return false };
        *last = now;
        true
    })
}

/// Counts one more under a name. The platform counts at each of its locations for itself: a brake, not an account. No more
/// than `ratelimits` of `wrangler.toml` says; without that, no limit. What cannot be counted is let in.
async fn is_within(env: &Env, limiter: &str, name: String) -> bool {
    let Ok(limiter) = env.rate_limiter(limiter) else { return true };
    limiter.limit(name).await.map_or(true, |outcome| outcome.success)
}

/// Refuses a key that asks too often.
pub async fn admit(env: &Env, caller: &Caller) -> Result<(), ApiError> {
    if is_within(env, "REQUESTS", caller.token_id.clone()).await {
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

/// Forgets what this isolate remembers of the key with this id: it was revoked.
pub fn forget(token_id: &str) {
    KNOWN.with_borrow_mut(|known| known.retain(|caller| caller.token_id != token_id));
}
