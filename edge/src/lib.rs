//! The edge: the Worker that callers and nodes talk to. The only crate that knows `worker`; it has no media knowledge.
//!
//! `routes` is HTTP, `shard` the record of jobs (a Durable Object), `account` the record of keys and settings (another),
//! `webhook` what sends deliveries. What anything means is decided in `xora-shared`.

mod account;
mod auth;
mod config;
mod docs;
mod error;
mod exchange;
#[cfg(debug_assertions)]
mod faults;
mod kv;
#[cfg(debug_assertions)]
mod panics;
mod routes;
mod s3;
mod shard;
mod storage;
mod webhook;

use worker::{
    Context, Env, MessageBatch, Request, Response, Result, ScheduleContext, ScheduledEvent, console_error, event,
};

/// Every HTTP request.
#[event(fetch, respond_with_errors)]
pub async fn fetch(req: Request, env: Env, _ctx: Context) -> Result<Response> {
    routes::answer(req, env).await
}

/// Webhook deliveries as ids; the rows in the shards are the record.
#[event(queue)]
pub async fn queue(batch: MessageBatch<serde_json::Value>, env: Env, ctx: Context) -> Result<()> {
    webhook::consume(&batch, &env, &ctx).await;
    Ok(())
}

/// Touches every shard, so that an idle one cannot sleep on due work, and brings the copies of what is kept elsewhere up to
/// date: the settings in the shards, the shard map in `Account`.
#[event(scheduled)]
pub async fn scheduled(_event: ScheduledEvent, env: Env, _ctx: ScheduleContext) {
    if let Err(error) = shard::keep_shard_map(&env).await {
        console_error!("cron: shard map: {error}");
    }
    let settings =
        account::versioned_settings(&env).await.inspect_err(|error| console_error!("cron: settings: {error}"));
    if let Err(error) = shard::tell_all(&env, shard::Op::Touch, &settings.ok()).await {
        console_error!("cron: {error}");
    }
}
