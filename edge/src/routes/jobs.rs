//! `/v1/jobs`.

use axum::{
    Extension, Json,
    extract::{Path, Request},
    http::StatusCode,
};
use serde_json::{Value, json};
use xora_shared::{
    id::Id,
    job::{JobState, view::JobView},
    request::JobRequest,
};

use super::{Site, body, files};
use crate::{
    auth::{Caller, Scope},
    config,
    error::ApiError,
    shard::{self, Call, DeliveryView, ShardMap, Stored},
};

/// `POST /v1/jobs`
#[worker::send]
pub async fn create(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.needs(Scope::Jobs)?;
    let body = body::of_caller(request).await?;
    let request = JobRequest::parse(&body, config::policy(&site.env))?;
    let random = u128::from_le_bytes(config::random()?);
    let [high, low, ..] = config::random::<2>()?;
    let place = ShardMap::load(&site.env).await?.place(u16::from_le_bytes([high, low]));
    let id = Id::new(config::now(), random, place);
    let call = Call::Create { id, request: Box::new(request), token_id: caller.token_id, origin: site.origin };
    shard::call::<()>(&site.env, id, &call).await?;
    Ok(accepted(id))
}

/// `GET /v1/jobs/:id`
#[worker::send]
pub async fn read(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    caller.needs(Scope::Jobs)?;
    let id = parse(&id)?;
    show(&site, shard::call(&site.env, id, &Call::Read(id)).await?)
}

/// `POST /v1/jobs/:id/cancel`
#[worker::send]
pub async fn cancel(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    caller.needs(Scope::Jobs)?;
    let id = parse(&id)?;
    show(&site, shard::call(&site.env, id, &Call::Cancel(id)).await?)
}

/// `POST /v1/jobs/:id/retry`
#[worker::send]
pub async fn retry(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.needs(Scope::Jobs)?;
    let id = parse(&id)?;
    shard::call::<()>(&site.env, id, &Call::Retry(id)).await?;
    Ok(accepted(id))
}

/// `GET /v1/jobs/:id/deliveries`
#[worker::send]
pub async fn deliveries(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Scope::Jobs)?;
    let id = parse(&id)?;
    let deliveries: Vec<DeliveryView> = shard::call(&site.env, id, &Call::Deliveries(id)).await?;
    Ok(Json(json!({"deliveries": deliveries})))
}

/// `POST /v1/deliveries/:id/redeliver`
#[worker::send]
pub async fn redeliver(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.needs(Scope::Jobs)?;
    let id = id.parse().map_err(|_| ApiError::not_found("delivery"))?;
    shard::call::<()>(&site.env, id, &Call::Redeliver(id)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id, "state": "pending"}))))
}

fn accepted(id: Id) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({"jobId": id, "state": JobState::Queued})))
}

fn parse(id: &str) -> Result<Id, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("job"))
}

fn show(site: &Site, stored: Stored) -> Result<Json<JobView>, ApiError> {
    let signer = files::Signer::new(&site.env, &stored.origin)?;
    Ok(Json(JobView::of(stored.record, |key| signer.read_url(key))))
}
