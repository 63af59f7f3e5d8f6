//! `/v1/node/*`: the lease protocol (`xora_shared::protocol`). Messages about a task go to its shard as they stand.

use std::{pin::pin, time::Duration};

use futures_util::future::{Either, join_all, select};
use serde::Deserialize;
use worker::{Delay, console_error};
use xora_shared::{
    answer::NodeList,
    id::Id,
    json,
    nodes::{NodeSeen, NodeView},
    protocol::{Beat, Heartbeat, HeartbeatAnswer, LeaseRequest, NODE_NAME, Word},
};

use super::{Ask, Reply, Site};
use crate::{
    auth::Scope,
    config,
    error::{ApiError, Code},
    shard::{self, Op, Speaker},
};

/// How long a shard has for what many shards are asked at once: less than a node waits for the answer to a heartbeat (5 s),
/// so that a shard that hangs costs the others nothing.
const PATIENCE: Duration = Duration::from_secs(3);

/// `GET /v1/nodes`
pub async fn list(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let env = &ask.site.env;
    let shards = shard::shard_map(env).await?.reach();
    let mut seen = Vec::<NodeSeen>::new();
    for (_, nodes) in shard::ask_all::<Vec<_>>(env, shards, Op::Nodes, &()).await? {
        seen.extend(nodes?);
    }
    Reply::of(200, &NodeList { nodes: NodeView::merge(seen) })
}

/// `POST /v1/node/lease`: asks the shards in turn until one has work, highest priority first. One that fails does not keep
/// the others from handing out work.
pub async fn lease(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let body = ask.text().await?;
    let by = speaker(ask)?;
    let shards = shard::shard_map(&site.env).await?.reach();
    let mut failed = None;
    for shard in with_work(&site, shards, &body).await? {
        match shard::forward_for_node(&site, &by, shard, Op::Lease, body.clone()).await {
            Ok(answer) if answer.status >= 500 => failed = Some(Ok(answer)),
            Ok(answer) if answer.status >= 400 => return Ok(answer),
            Ok(answer) if answer.body == "null" => {}
            Ok(answer) => {
                return Ok(Reply { body: format!(r#"{{"lease":{},"shards":{shards}}}"#, answer.body), ..answer });
            }
            Err(error) => failed = Some(Err(error)),
        }
    }
    let nothing = Reply { status: 200, body: format!(r#"{{"lease":null,"shards":{shards}}}"#) };
    failed.unwrap_or(Ok(nothing))
}

/// The shards that have work, those with the highest priority first and otherwise beginning anywhere.
async fn with_work(site: &Site, shards: u16, body: &str) -> Result<Vec<u16>, ApiError> {
    if shards == 1 {
        return Ok(vec![0]);
    }
    let request: LeaseRequest = parse(body)?;
    let peeked = (0..shards).map(async |shard| {
        let priority = in_time(shard::ask::<Option<u8>>(&site.env, shard, Op::Peek, &request)).await;
        Some((priority.ok()??, shard))
    });
    let mut ready: Vec<_> = join_all(peeked).await.into_iter().flatten().collect();
    let first = usize::from(u16::from_le_bytes(config::random()?)) % ready.len().max(1);
    ready.rotate_left(first);
    ready.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    Ok(ready.into_iter().map(|(_, shard)| shard).collect())
}

/// `POST /v1/node/heartbeat`: one call for all leases of a node, passed on to the shards that keep them. What a shard that
/// does not answer keeps is unknown; the words of the others stand.
pub async fn heartbeat(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let Heartbeat { node, leases } = parse(&ask.text().await?)?;
    let mut words = vec![Word::Unknown; leases.len()];
    let mut by_shard = Vec::<(u16, Vec<(usize, Beat)>)>::new();
    for (index, beat) in leases.into_iter().enumerate() {
        let Some(shard) = shard::shard_of(&site.env, beat.hold.task_id).await else { continue };
        match by_shard.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, beats)) => beats.push((index, beat)),
            None => by_shard.push((shard, vec![(index, beat)])),
        }
    }
    let by = speaker(ask)?;
    let (site, node, by) = (&site, &node, &by);
    let answers = by_shard.into_iter().map(async |(shard, beats)| {
        let (indices, leases): (Vec<_>, Vec<_>) = beats.into_iter().unzip();
        let heartbeat = Heartbeat { node: node.clone(), leases };
        match in_time(shard::ask_for_node::<Vec<Word>>(&site.env, by, shard, Op::Heartbeat, &heartbeat)).await {
            Ok(words) => indices.into_iter().zip(words).collect::<Vec<_>>(),
            Err(error) => {
                console_error!("heartbeat of {}: shard {shard}: {error}", node.name);
                Vec::new()
            }
        }
    });
    for (index, word) in join_all(answers).await.into_iter().flatten() {
        words[index] = word;
    }
    Reply::of(200, &HeartbeatAnswer { words })
}

async fn in_time<T>(asked: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match select(pin!(asked), pin!(Delay::from(PATIENCE))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(ApiError::new(Code::Unavailable, "a shard does not answer; try again")),
    }
}

/// Messages about a task (`outputs/…`, `complete`, `fail`, `release`): its shard gets them and answers.
pub async fn about(ask: &mut Ask, op: Op) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct AboutATask {
        hold: Held,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Held {
        task_id: Id,
    }
    ask.needs(Scope::Node)?;
    let site: Site = ask.site.clone();
    let body = ask.text().await?;
    let AboutATask { hold } = parse(&body)?;
    // Not 404: the map may be behind here, and work that is done must not be given up for that.
    let unknown = || ApiError::new(Code::Unavailable, "this edge does not know the shard of this task yet; try again");
    let shard = shard::shard_of(&site.env, hold.task_id).await.ok_or_else(unknown)?;
    shard::forward_for_node(&site, &speaker(ask)?, shard, op, body).await
}

/// The node that sent a request: its key, and its name where it says so.
fn speaker(ask: &Ask) -> Result<Speaker, ApiError> {
    Ok(Speaker { key: ask.caller.token_id.clone(), name: ask.request.headers().get(NODE_NAME)? })
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    json::from_str(body).map_err(|error| ApiError::invalid(format!("body: {error}")))
}
