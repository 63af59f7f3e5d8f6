//! The shard map as this isolate knows it. The operator writes it to KV; while KV fails, or holds a map that cannot be
//! used, the last good one is used on. `Account` keeps a copy of that for isolates that have just started.

use std::cell::RefCell;

use worker::{Env, console_error};
use xora_shared::{id::Id, shards::ShardMap, time::UnixMs};

use crate::{
    account, config,
    error::{ApiError, Code},
    kv,
};

/// Name of the map in KV.
const KEY: &str = "shard-map";

/// How long a map is used before KV is asked again, in milliseconds.
const KEPT_MS: i64 = 10_000;

/// How soon KV is asked again for the sake of an id whose shard the map lacks, in milliseconds.
const UNKNOWN_MS: i64 = 1_000;

#[derive(Clone)]
struct Kept {
    map: ShardMap,
    /// When KV was last asked, whatever it answered.
    asked: UnixMs,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// How new rows are spread: the operator's map, one shard when there is none.
pub async fn shard_map(env: &Env) -> Result<ShardMap, ApiError> {
    asked_within(env, KEPT_MS).await
}

async fn asked_within(env: &Env, ms: i64) -> Result<ShardMap, ApiError> {
    if let Some(map) = by_kv(env, ms).await {
        return Ok(map);
    }
    let map = copy(env).await.ok_or_else(unusable)?;
    KEPT.set(Some(Kept { map: map.clone(), asked: config::now() }));
    Ok(map)
}

/// The map without help of the record: as KV had it within the last `ms` milliseconds or has it now, else as it was last
/// known here.
async fn by_kv(env: &Env, ms: i64) -> Option<ShardMap> {
    let now = config::now();
    if let Some(Kept { map, .. }) = kept().filter(|kept| now.since(kept.asked) < ms) {
        return Some(map);
    }
    let map = read(env).await.ok().map(|(map, _)| map).or_else(|| kept().map(|kept| kept.map))?;
    KEPT.set(Some(Kept { map: map.clone(), asked: now }));
    Some(map)
}

/// How many shards there may be rows in, without help of the record.
pub async fn reach_by_kv(env: &Env) -> Option<u16> {
    by_kv(env, KEPT_MS).await.map(|map| map.reach())
}

/// The shard of a row, if there may be such a row. An object that is asked for an id that was never given out would stay
/// for ever, so no id leads to a shard that the map lacks. Where no map can be had, the id is believed.
pub async fn shard_of(env: &Env, id: Id) -> Option<u16> {
    let shard = id.place().shard();
    let is_in = |map: &ShardMap| shard < map.reach();
    // However old: a map only grows.
    if kept().is_some_and(|kept| is_in(&kept.map)) {
        return Some(shard);
    }
    let asks_now = kept().is_none_or(|kept| config::now().since(kept.asked) >= UNKNOWN_MS);
    match asked_within(env, UNKNOWN_MS).await {
        Ok(map) if is_in(&map) => Some(shard),
        // KV may lag here, and not where the cron read it.
        Ok(_) if asks_now && copy(env).await.is_some_and(|map| is_in(&map)) => Some(shard),
        Ok(_) => None,
        Err(_) => Some(shard),
    }
}

/// Has `Account` keep the map that is in KV, if it can be used.
pub async fn keep(env: &Env) -> Result<(), ApiError> {
    let (_, text) = read(env).await?;
    match text {
        Some(text) => account::keep_shard_map(env, &text).await,
        None => Ok(()),
    }
}

/// The map that is in KV, and its text. What is wrong is in the log.
async fn read(env: &Env) -> Result<(ShardMap, Option<String>), ApiError> {
    let text = kv::get(env, KEY).await.inspect_err(|error| console_error!("{KEY} in KV: {error}"))?;
    let map = text.as_deref().map(ShardMap::parse).transpose().map_err(|bad| {
        console_error!("{KEY} in KV: {bad}; the last good map stays in force");
        unusable()
    })?;
    Ok((map.unwrap_or_default(), text))
}

/// The last good map, by the record.
async fn copy(env: &Env) -> Option<ShardMap> {
    let text = account::shard_map(env).await.inspect_err(|error| console_error!("{KEY} in the record: {error}"));
    ShardMap::parse(&text.ok()??).ok()
}

fn kept() -> Option<Kept> {
    KEPT.with_borrow(Clone::clone)
}

fn unusable() -> ApiError {
    ApiError::new(Code::Unavailable, "this installation is being changed; try again soon")
}
