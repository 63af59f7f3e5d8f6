//! `/v1/node/*`: the lease protocol (`xora_shared::protocol`).

use axum::{Extension, Json, extract::Request};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use xora_shared::{
    job::{JobState, lease::Hold},
    protocol::{
        Complete, Fail, Heartbeat, HeartbeatAnswer, Lease, LeaseAnswer, LeaseRequest, OutputBegin, OutputBegun,
        OutputFinish, OutputFinished, OutputTargets, PartTarget, Release, Word,
    },
    request::Headers,
};

use super::{Site, body, files};
use crate::{
    auth::{Caller, Scope},
    config,
    error::ApiError,
    shard::{self, Call, ShardMap, Upload},
};

/// How many part targets one answer holds.
const TARGETS: u32 = 16;

/// `POST /v1/node/lease`: asks the shards in turn, beginning anywhere, until one has work.
#[worker::send]
pub async fn lease(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let request: LeaseRequest = of_node(&caller, request).await?;
    let shards = ShardMap::load(&site.env).await?.shards.max(1);
    let [low, high] = config::random::<2>()?;
    let first = u16::from_le_bytes([low, high]) % shards;
    for step in 0..shards {
        let shard = (first + step) % shards;
        let call = Call::Lease(request.clone());
        if let Some(lease) = shard::call_shard::<Option<Lease>>(&site.env, shard, &call).await? {
            return Ok(Json(LeaseAnswer { lease: Some(lease), shards }));
        }
    }
    Ok(Json(LeaseAnswer { lease: None, shards }))
}

/// `POST /v1/node/heartbeat`: one call for all leases of a node, passed on to the shards that keep them.
#[worker::send]
pub async fn heartbeat(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    let Heartbeat { node, leases } = of_node(&caller, request).await?;
    let mut by_shard = std::collections::BTreeMap::<u16, Vec<usize>>::new();
    for (index, beat) in leases.iter().enumerate() {
        by_shard.entry(beat.hold.task_id.place().shard()).or_default().push(index);
    }
    let (site, node, leases) = (&site, &node, &leases);
    let answers = by_shard.into_iter().map(|(shard, indices)| async move {
        let leases = indices.iter().map(|index| leases[*index].clone()).collect();
        let call = Call::Heartbeat(Heartbeat { node: node.clone(), leases });
        let words: Vec<Word> = shard::call_shard(&site.env, shard, &call).await?;
        Ok::<_, ApiError>(indices.into_iter().zip(words).collect::<Vec<_>>())
    });
    let mut words = vec![Word::Lost; leases.len()];
    for (index, word) in try_join_all(answers).await?.into_iter().flatten() {
        words[index] = word;
    }
    Ok(Json(HeartbeatAnswer { words }))
}

/// `POST /v1/node/outputs/begin`
#[worker::send]
pub async fn begin_output(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<OutputBegun>, ApiError> {
    let begin: OutputBegin = of_node(&caller, request).await?;
    let id = begin.hold.task_id;
    let upload = shard::call(&site.env, id, &Call::OutputBegin(begin)).await?;
    targets(&site, &upload, 1)
}

/// `POST /v1/node/outputs/targets`
#[worker::send]
pub async fn output_targets(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<OutputBegun>, ApiError> {
    let OutputTargets { hold, from } = of_node(&caller, request).await?;
    let id = hold.task_id;
    let upload = shard::call(&site.env, id, &Call::OutputOf(hold)).await?;
    targets(&site, &upload, from.max(1))
}

/// `POST /v1/node/outputs/finish`
#[worker::send]
pub async fn finish_output(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<OutputFinished>, ApiError> {
    let finish: OutputFinish = of_node(&caller, request).await?;
    let id = finish.hold.task_id;
    let key: String = shard::call(&site.env, id, &Call::OutputFinish(finish)).await?;
    let read_url = files::Signer::new(&site.env, &site.origin)?.read_url(&key);
    Ok(Json(OutputFinished { read_url }))
}

/// `POST /v1/node/complete`
#[worker::send]
pub async fn complete(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let complete: Complete = of_node(&caller, request).await?;
    let hold = complete.hold.clone();
    told(&site, &hold, Call::Complete(Box::new(complete))).await
}

/// `POST /v1/node/fail`
#[worker::send]
pub async fn fail(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let fail: Fail = of_node(&caller, request).await?;
    let hold = fail.hold.clone();
    told(&site, &hold, Call::Fail(fail)).await
}

/// `POST /v1/node/release`
#[worker::send]
pub async fn release(
    Extension(site): Extension<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let release: Release = of_node(&caller, request).await?;
    let hold = release.hold.clone();
    told(&site, &hold, Call::Release(release)).await
}

async fn of_node<T: serde::de::DeserializeOwned>(caller: &Caller, request: Request) -> Result<T, ApiError> {
    caller.needs(Scope::Node)?;
    body::of_node(request).await
}

async fn told(site: &Site, hold: &Hold, call: Call) -> Result<Json<Value>, ApiError> {
    let state: JobState = shard::call(&site.env, hold.task_id, &call).await?;
    Ok(Json(json!({"state": state})))
}

fn targets(site: &Site, upload: &Upload, from: u32) -> Result<Json<OutputBegun>, ApiError> {
    let signer = files::Signer::new(&site.env, &site.origin)?;
    let target = |number| PartTarget { number, url: signer.part_url(upload, number), headers: Headers::new() };
    Ok(Json(OutputBegun { targets: (from..from.saturating_add(TARGETS)).map(target).collect() }))
}
