//! `/v1/uploads`: a caller's file, in parts, to name in jobs.

use xora_shared::{sign::sha256_hex, upload::UploadRequest};

use super::{Ask, Reply};
use crate::{
    auth::Scope,
    config,
    error::ApiError,
    shard::{self, NewReceived, Op},
};

/// `POST /v1/uploads`
pub async fn create(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (site, token_id) = (ask.site.clone(), ask.caller.token_id.clone());
    let body = ask.json().await?;
    let UploadRequest { filename, size } = UploadRequest::parse(&body, config::max_upload_bytes(&site.env))?;
    // All uploads of a key in one shard, which can count them.
    let spread = u16::from_str_radix(&sha256_hex(token_id.as_bytes())[..4], 16).unwrap_or(0);
    let place = shard::shard_map(&site.env).await?.place(spread, config::now());
    let id = config::new_id(place)?;
    let new = serde_json::to_string(&NewReceived { id, token_id, filename, size })?;
    let reply = shard::forward(&site, place.shard(), Op::Receive, new).await?;
    Ok(if reply.status == 200 { Reply { status: 201, ..reply } } else { reply })
}

/// `GET /v1/uploads/:id`
pub async fn read(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (id, shard) = ask.row("upload").await?;
    shard::forward(&ask.site, shard, Op::ReadReceived, format!("\"{id}\"")).await
}
