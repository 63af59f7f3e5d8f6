//! Callers' view of the whole: a real edge, real nodes, real files, HTTP.
//!
//! One edge with one node serves every test that does not need to break something; the others start their own.

mod concat;
mod crashes;
mod create;
mod deliveries;
mod description;
mod events;
mod fairness;
mod files;
mod inputs;
mod jobs;
mod keys;
mod limits;
mod list;
mod nodes;
mod presets;
mod recipes;
mod record;
mod remote;
mod retention;
mod samples;
mod secrets;
mod settings;
mod shards;
mod signatures;
mod storage;
mod up;
mod uploads;
mod webhooks;

use anyhow::Result;
use serde_json::json;
use tokio::sync::OnceCell;
use xora_tests::{
    Edge, EdgeOptions, Node, NodeOptions, PATIENCE, bytes, compress, end_with_parent, faint_clip, job, long_clip,
    short_clip, thumbnail, with,
};

struct System {
    edge: Edge,
    _node: Node,
}

static SYSTEM: OnceCell<System> = OnceCell::const_new();

/// The edge that tests share, with a node beside it.
async fn edge() -> Result<&'static Edge> {
    let system = SYSTEM.get_or_try_init(|| async {
        end_with_parent();
        let edge = over_shards(Edge::start(EdgeOptions::default()).await?).await?;
        let node =
            Node::start(&edge, NodeOptions { slots: Some(2), encodes: Some(2), ..NodeOptions::default() }).await?;
        anyhow::Ok(System { edge, _node: node })
    });
    Ok(&system.await?.edge)
}

static IDLE: OnceCell<Edge> = OnceCell::const_new();

/// The edge without a node that tests share: jobs stay queued there until they are cancelled.
async fn idle_edge() -> Result<&'static Edge> {
    IDLE.get_or_try_init(async || over_shards(own_edge().await?).await).await
}

/// With new rows spread over four shards: what holds for one holds for these.
async fn over_shards(edge: Edge) -> Result<Edge> {
    edge.put_shard_map(&json!({"epochs": [{"shards": 4}]})).await?;
    Ok(edge)
}

/// An edge of a test's own.
async fn own_edge() -> Result<Edge> {
    end_with_parent();
    Edge::start(EdgeOptions::default()).await
}
