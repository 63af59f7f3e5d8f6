//! `/v1/node/*`: the lease protocol (`xora_shared::protocol`). Messages about a task go to its shard as they stand.

use futures_util::future::try_join_all;
use serde::Deserialize;
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
    error::ApiError,
    shard::{self, Op, Speaker},
};

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

/// `POST /v1/node/lease`: asks the shards in turn until one has work, highest priority first.
pub async fn lease(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let body = ask.text().await?;
    let by = speaker(ask)?;
    let shards = shard::shard_map(&site.env).await?.reach();
    for shard in with_work(&site, shards, &body).await? {
        let answer = shard::forward_for_node(&site, &by, shard, Op::Lease, body.clone()).await?;
        if answer.status >= 400 {
            return Ok(answer);
        }
        if answer.body != "null" {
            return Ok(Reply { body: format!(r#"{{"lease":{},"shards":{shards}}}"#, answer.body), ..answer });
        }
    }
    Ok(Reply { status: 200, body: format!(r#"{{"lease":null,"shards":{shards}}}"#) })
}

/// The shards that have work, those with the highest priority first and otherwise beginning anywhere.
async fn with_work(site: &Site, shards: u16, body: &str) -> Result<Vec<u16>, ApiError> {
    if shards == 1 {
        return Ok(vec![0]);
    }
    let request: LeaseRequest = parse(body)?;
    let peeked = shard::ask_all::<Option<u8>>(&site.env, shards, Op::Peek, &request).await?;
    // A shard that does not answer does not keep the others from handing out work.
    let ready = peeked.into_iter().filter_map(|(shard, priority)| Some((priority.ok()??, shard)));
    let mut ready: Vec<_> = ready.collect();
    let first = usize::from(u16::from_le_bytes(config::random()?)) % ready.len().max(1);
    ready.rotate_left(first);
    ready.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    Ok(ready.into_iter().map(|(_, shard)| shard).collect())
}

/// `POST /v1/node/heartbeat`: one call for all leases of a node, passed on to the shards that keep them.
pub async fn heartbeat(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let Heartbeat { node, leases } = parse(&ask.text().await?)?;
    let mut words = vec![Word::Lost; leases.len()];
    let mut by_shard = Vec::<(u16, Vec<(usize, Beat)>)>::new();
    for (index, beat) in leases.into_iter().enumerate() {
        let shard = beat.hold.task_id.place().shard();
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
        let words: Vec<Word> = shard::ask_for_node(&site.env, by, shard, Op::Heartbeat, &heartbeat).await?;
        Ok::<_, ApiError>(indices.into_iter().zip(words).collect::<Vec<_>>())
    });
    for (index, word) in try_join_all(answers).await?.into_iter().flatten() {
        words[index] = word;
    }
    Reply::of(200, &HeartbeatAnswer { words })
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
    shard::forward_for_node(&site, &speaker(ask)?, hold.task_id.place().shard(), op, body).await
}

/// The node that sent a request: its key, and its name where it says so.
fn speaker(ask: &Ask) -> Result<Speaker, ApiError> {
    Ok(Speaker { key: ask.caller.token_id.clone(), name: ask.request.headers().get(NODE_NAME)? })
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    json::from_str(body).map_err(|error| ApiError::invalid(format!("body: {error}")))
}
