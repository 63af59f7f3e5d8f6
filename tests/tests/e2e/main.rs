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
mod fuzz;
mod inputs;
mod jobs;
mod keys;
mod limits;
mod list;
mod presets;
mod recipes;
mod remote;
mod retention;
mod samples;
mod settings;
mod shards;
mod signatures;
mod storage;
mod uploads;
mod webhooks;

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use xora_tests::{Edge, EdgeOptions, Node, NodeOptions, clip, end_with_parent};

/// Longest wait for anything that takes an encode of a short clip, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

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

/// A job of the recipe mode.
fn job(url: &str, format: &str, recipe: &Value) -> Value {
    json!({"mode": "recipe", "input": {"url": url}, "output": {"format": format}, "recipe": recipe})
}

fn compress(url: &str) -> Value {
    job(url, "mp4", &json!({"name": "compress"}))
}

fn thumbnail(url: &str) -> Value {
    job(url, "jpg", &json!({"name": "thumbnail", "seekSeconds": 1}))
}

/// The same job with one more field.
fn with(mut job: Value, name: &str, value: impl Into<Value>) -> Value {
    job[name] = value.into();
    job
}

/// Two seconds of picture and tone.
fn short_clip() -> Result<std::path::PathBuf> {
    let args = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i sine=d=2 -shortest -c:v libx264 -c:a aac";
    clip("short.mp4", &args.split(' ').collect::<Vec<_>>())
}

/// A minute that takes this machine several seconds to encode.
fn long_clip() -> Result<std::path::PathBuf> {
    let args = "-f lavfi -i testsrc2=s=1280x720:r=30:d=60 -c:v libx264 -preset ultrafast -crf 35";
    clip("long.mp4", &args.split(' ').collect::<Vec<_>>())
}

/// Half a minute that is small to read and long to encode.
fn faint_clip() -> Result<std::path::PathBuf> {
    let args = "-f lavfi -i testsrc2=s=1280x720:r=30:d=30 -c:v libx264 -preset ultrafast -crf 45";
    clip("faint.mp4", &args.split(' ').collect::<Vec<_>>())
}

fn bytes(path: &Path) -> Result<bytes::Bytes> {
    Ok(std::fs::read(path)?.into())
}
