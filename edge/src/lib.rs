//! The edge: the Worker that callers and nodes talk to.

mod account;
mod job_shard;

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tower_service::Service;
use worker::{
    Context, Env, HttpRequest, MessageBatch, Request, Response, Result, ScheduleContext, ScheduledEvent, event,
};

/// Every HTTP request.
#[event(fetch, respond_with_errors)]
pub async fn fetch(req: Request, _env: Env, _ctx: Context) -> Result<Response> {
    let answer = router().call(HttpRequest::try_from(req)?).await?;
    Response::try_from(answer)
}

/// Webhook deliveries, as ids; the row in the shard is the record.
#[event(queue)]
pub async fn queue(batch: MessageBatch<Value>, _env: Env, _ctx: Context) -> Result<()> {
    batch.ack_all();
    Ok(())
}

/// Touches every shard, so that an idle one cannot sleep on due work.
#[event(scheduled)]
pub async fn scheduled(_event: ScheduledEvent, _env: Env, _ctx: ScheduleContext) {}

fn router() -> Router {
    Router::new().route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
}
