//! `/v1/node/*`: the lease protocol (`xora_shared::protocol`). Messages about a task go to its shard as they stand.

use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use xora_shared::{
    id::Id,
    protocol::{Beat, Heartbeat, HeartbeatAnswer, Word},
};

use super::{Ask, Reply, Site};
use crate::{
    auth::Scope,
    config,
    error::ApiError,
    shard::{self, Op, ShardMap},
};

/// `POST /v1/node/lease`: asks the shards in turn, beginning anywhere, until one has work.
pub async fn lease(mut ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let body = ask.text().await?;
    let shards = ShardMap::load(&site.env).await?.shards.max(1);
    let first = u16::from_le_bytes(config::random()?) % shards;
    for step in 0..shards {
        let answer = shard::forward(&site, (first + step) % shards, Op::Lease, body.clone()).await?;
        if answer.status >= 400 {
            return Ok(answer);
        }
        if answer.body != "null" {
            return Ok(Reply { body: format!(r#"{{"lease":{},"shards":{shards}}}"#, answer.body), ..answer });
        }
    }
    Reply::of(200, &json!({"lease": Value::Null, "shards": shards}))
}

/// `POST /v1/node/heartbeat`: one call for all leases of a node, passed on to the shards that keep them.
pub async fn heartbeat(mut ask: Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Node)?;
    let site = ask.site.clone();
    let Heartbeat { node, leases } = parse(&ask.text().await?)?;
    let mut by_shard = std::collections::BTreeMap::<u16, Vec<(usize, Beat)>>::new();
    let mut words = vec![Word::Lost; leases.len()];
    for (index, beat) in leases.into_iter().enumerate() {
        by_shard.entry(beat.hold.task_id.place().shard()).or_default().push((index, beat));
    }
    let (site, node) = (&site, &node);
    let answers = by_shard.into_iter().map(async |(shard, beats)| {
        let (indices, leases): (Vec<_>, Vec<_>) = beats.into_iter().unzip();
        let heartbeat = Heartbeat { node: node.clone(), leases };
        let words: Vec<Word> = shard::ask(&site.env, shard, Op::Heartbeat, &heartbeat).await?;
        Ok::<_, ApiError>(indices.into_iter().zip(words).collect::<Vec<_>>())
    });
    for (index, word) in try_join_all(answers).await?.into_iter().flatten() {
        words[index] = word;
    }
    Reply::of(200, &HeartbeatAnswer { words })
}

/// Messages about a task (`outputs/…`, `complete`, `fail`, `release`): its shard gets them and answers.
pub async fn about(mut ask: Ask, op: Op) -> Result<Reply, ApiError> {
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
    shard::forward(&site, hold.task_id.place().shard(), op, body).await
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    serde_json::from_str(body).map_err(|error| ApiError::invalid(format!("body: {error}")))
}
