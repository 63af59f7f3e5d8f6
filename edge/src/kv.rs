//! KV: a copy for every location to read. It may lag by a minute and more, or fail for hours: nothing that is begun needs
//! it to finish.

use std::{pin::pin, time::Duration};

use futures_util::future::{Either, select};
use worker::{Delay, Env};

use crate::error::{ApiError, Code};

/// How long KV may take to answer before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The value under a key, if there is one.
pub async fn get(env: &Env, key: &str) -> Result<Option<String>, ApiError> {
    #[cfg(debug_assertions)]
    if let Some(value) = crate::faults::kv_get(key)? {
        return Ok(value);
    }
    let value = in_time(async { Ok(env.kv("SETTINGS")?.get(key).text().await?) }).await?;
    #[cfg(debug_assertions)]
    crate::faults::kv_has(key, value.as_ref());
    Ok(value)
}

/// Writes a value.
pub async fn put(env: &Env, key: &str, value: String) -> Result<(), ApiError> {
    #[cfg(debug_assertions)]
    crate::faults::kv_put()?;
    in_time(async { Ok(env.kv("SETTINGS")?.put(key, value)?.execute().await?) }).await
}

async fn in_time<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match select(pin!(call), pin!(Delay::from(PATIENCE))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(ApiError::new(Code::Unavailable, "KV does not answer; try again")),
    }
}
