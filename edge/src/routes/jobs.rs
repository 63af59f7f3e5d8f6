//! `/v1/jobs` and `/v1/deliveries`.

use serde_json::json;
use xora_shared::{id::Id, job::JobState, request::JobRequest};

use super::{Ask, Reply};
use crate::{
    auth::Scope,
    config,
    error::ApiError,
    shard::{self, NewJob, Op, ShardMap},
};

/// `POST /v1/jobs`
pub async fn create(mut ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (site, token_id) = (ask.site.clone(), ask.caller.token_id.clone());
    let request = JobRequest::parse(&ask.json().await?, config::policy(&site.env))?;
    let place = ShardMap::load(&site.env).await?.place(u16::from_le_bytes(config::random()?));
    let id = Id::new(config::now(), u128::from_le_bytes(config::random()?), place);
    let job = NewJob { id, request, token_id, origin: site.origin };
    shard::ask::<()>(&site.env, place.shard(), Op::Create, &job).await?;
    accepted(id)
}

/// `POST /v1/jobs/:id/retry`
pub async fn retry(ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let id = ask.id("job")?;
    shard::ask::<()>(&ask.site.env, id.place().shard(), Op::Retry, &id).await?;
    accepted(id)
}

/// `POST /v1/deliveries/:id/redeliver`
pub async fn redeliver(ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let id = ask.id("delivery")?;
    shard::ask::<()>(&ask.site.env, id.place().shard(), Op::Redeliver, &id).await?;
    Reply::of(202, &json!({"id": id, "state": "pending"}))
}

/// `GET /v1/jobs/:id`, `POST /v1/jobs/:id/cancel`, `GET /v1/jobs/:id/deliveries`: the job's shard answers.
pub async fn about(ask: Ask, op: Op) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let id = ask.id("job")?;
    shard::forward(&ask.site, id.place().shard(), op, format!("\"{id}\"")).await
}

fn accepted(id: Id) -> Result<Reply, ApiError> {
    Reply::of(202, &json!({"jobId": id, "state": JobState::Queued}))
}
