//! What the deployment says: variables, secrets, and the few things that only the runtime knows.

use worker::{Date, Env};
use xora_shared::{
    id::{Id, Place},
    net::Policy,
    s3::{Bucket, Keys},
    time::UnixMs,
    upload::LOOK_MS,
};

use crate::error::{ApiError, Code};

/// How long links to files are good, in seconds, when `FILE_URL_SECONDS` does not say.
const FILE_URL_SECONDS: i64 = 24 * 3600;

/// What inputs and webhooks may point to.
pub fn policy(env: &Env) -> Policy {
    Policy { allow_loopback: text(env, "ALLOW_LOOPBACK").as_deref() == Some("true") }
}

/// The key that signs links to files.
pub fn signing_key(env: &Env) -> Result<Vec<u8>, ApiError> {
    secret(env, "SIGNING_SECRET", 32).map(String::into_bytes)
}

/// What seals the keys of callers' buckets.
pub fn credentials_secret(env: &Env) -> Result<String, ApiError> {
    secret(env, "CREDENTIALS_SECRET", 32)
}

/// The managed bucket as nodes reach it past the Worker, when the deployment says so: `MEDIA_S3_ENDPOINT`,
/// `MEDIA_S3_BUCKET` and the secrets `MEDIA_S3_ACCESS_KEY_ID` and `MEDIA_S3_SECRET_ACCESS_KEY`.
pub fn managed_s3(env: &Env) -> Option<(Bucket, Keys)> {
    let bucket = Bucket {
        endpoint: text(env, "MEDIA_S3_ENDPOINT")?,
        region: text(env, "MEDIA_S3_REGION").unwrap_or_else(|| "auto".to_owned()),
        bucket: text(env, "MEDIA_S3_BUCKET")?,
        prefix: String::new(),
        path_style: true,
    };
    let keys = Keys {
        access_key_id: secret(env, "MEDIA_S3_ACCESS_KEY_ID", 1).ok()?,
        secret_access_key: secret(env, "MEDIA_S3_SECRET_ACCESS_KEY", 1).ok()?,
    };
    Some((bucket, keys))
}

/// How long nodes may use the target of a part, in seconds, when `PART_URL_SECONDS` does not say.
const PART_URL_SECONDS: i64 = 3600;

/// How long nodes may use the target of a part, in seconds.
pub fn part_url_seconds(env: &Env) -> i64 {
    text(env, "PART_URL_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(PART_URL_SECONDS)
}

/// The first API key, which can mint others. None when the deployment sets none.
pub fn first_key(env: &Env) -> Option<String> {
    secret(env, "XORA_API_KEY", 32).ok()
}

/// The origin that callers reach this Worker under, when `PUBLIC_URL` names it.
pub fn public_url(env: &Env) -> Option<String> {
    text(env, "PUBLIC_URL").map(|url| url.trim_end_matches('/').to_owned())
}

/// The origins of web pages that may call the API, with commas. None: none may.
pub fn cors_origins(env: &Env) -> Option<String> {
    text(env, "CORS_ORIGINS")
}

/// How long links to files are good, in seconds.
pub fn file_url_seconds(env: &Env) -> i64 {
    text(env, "FILE_URL_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(FILE_URL_SECONDS)
}

/// Largest file that callers may upload, in bytes, when `MAX_UPLOAD_BYTES` does not say: what nodes take by default.
const MAX_UPLOAD_BYTES: u64 = 64 << 30;

/// How long an upload stays that no job names, in seconds, when `UPLOAD_SECONDS` does not say.
const UPLOAD_SECONDS: i64 = 24 * 3600;

/// How long an upload stays that no job names, in milliseconds.
pub fn upload_ms(env: &Env) -> i64 {
    text(env, "UPLOAD_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(UPLOAD_SECONDS) * 1000
}

/// How often the jobs that named an upload are asked whether they are over, in milliseconds: not less often than uploads
/// that no job names go.
pub fn look_at_uploads_ms(env: &Env) -> i64 {
    upload_ms(env).min(LOOK_MS)
}

/// Largest file that callers may upload, in bytes.
pub fn max_upload_bytes(env: &Env) -> u64 {
    text(env, "MAX_UPLOAD_BYTES").and_then(|text| text.parse().ok()).unwrap_or(MAX_UPLOAD_BYTES)
}

/// The runtime's clock.
pub fn now() -> UnixMs {
    UnixMs(i64::try_from(Date::now().as_millis()).unwrap_or(i64::MAX))
}

/// A new id of a row that is kept at `place`.
pub fn new_id(place: Place) -> Result<Id, ApiError> {
    Ok(Id::new(now(), u128::from_le_bytes(random()?), place))
}

/// Bytes from the runtime's cryptographic source.
pub fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ApiError::new(Code::Internal, "no randomness; try again"))?;
    Ok(bytes)
}

fn text(env: &Env, name: &str) -> Option<String> {
    env.var(name).ok().map(|value| value.to_string()).filter(|value| !value.is_empty())
}

/// A secret of at least `min` characters: a short one is a mistake of the operator, not a key.
fn secret(env: &Env, name: &str, min: usize) -> Result<String, ApiError> {
    let value = env.secret(name).map(|secret| secret.to_string()).unwrap_or_default();
    if value.len() >= min {
        return Ok(value);
    }
    let message =
        format!("this installation lacks its secret {name} (at least {min} characters): `wrangler secret put {name}`");
    Err(ApiError::new(Code::Internal, message))
}
