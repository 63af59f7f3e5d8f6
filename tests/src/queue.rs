//! A second way into the edge's Queues: a small Worker beside it that sends whatever it is told to.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    client::Client,
    edge::{Edge, tail, wrangler_dev},
    process::{Group, free_port},
    wait_for,
};

/// `body` is JavaScript, because the Queue also carries what JSON cannot say.
const WORKER: &str = r#"
const bodies = {
  text: () => "not ours",
  null: () => null,
  number: () => 42,
  date: () => new Date(0),
  map: () => new Map([["delivery", 1]]),
  cycle: () => { const cycle = {}; cycle.self = cycle; return cycle; },
  bigint: () => 1n,
  bytes: () => new Uint8Array([0, 255, 1]),
};
export default {
  async fetch(request, env) {
    if (request.method !== "POST") return new Response("ready");
    const { queue, kind, json } = await request.json();
    const body = kind === undefined ? json : bodies[kind]();
    await env[queue].send(body, { contentType: kind === undefined ? "json" : "v8" });
    return new Response("sent");
  }
};"#;

const CONFIG: &str = r#"
name = "beside"
main = "worker.js"
compatibility_date = "2026-11-01"
send_metrics = false
[[queues.producers]]
binding = "DELIVERIES"
queue = "xora-deliveries"
[[queues.producers]]
binding = "DEAD"
queue = "xora-deliveries-dead"
"#;

/// Kinds of message that the edge never sends.
pub const ODD: [&str; 8] = ["text", "null", "number", "date", "map", "cycle", "bigint", "bytes"];

/// Which of the edge's Queues.
#[derive(Clone, Copy, Debug)]
pub enum Queue {
    /// What is to be delivered.
    Deliveries,
    /// What could not be claimed.
    Dead,
}

/// The Worker beside an edge. Dropping it kills it.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    _group: Group,
}

impl Producer {
    /// Starts it beside a running edge.
    pub async fn beside(edge: &Edge) -> Result<Self> {
        let dir = edge.dir().join("state/beside");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("worker.js"), WORKER)?;
        fs::write(dir.join("wrangler.toml"), CONFIG)?;
        let (port, log) = (free_port()?, edge.dir().join("beside.log"));
        let mut group = Group::spawn(wrangler_dev(&dir, port, &edge.registry())?, &log)?;
        let client = Client::new(&format!("http://127.0.0.1:{port}"), "");
        let ready = wait_for("the Worker beside the edge", Duration::from_mins(1), async || {
            if let Some(status) = group.ended()? {
                bail!("it ended: {status}");
            }
            Ok(client.get("/").await.ok().filter(|answer| answer.status == 200))
        });
        ready.await.with_context(|| tail(&log))?;
        Ok(Self { client, _group: group })
    }

    /// Sends a message of one of the [`ODD`] kinds.
    pub async fn send_odd(&self, queue: Queue, kind: &str) -> Result<()> {
        self.send(json!({"queue": queue.binding(), "kind": kind})).await
    }

    /// Sends JSON.
    pub async fn send_json(&self, queue: Queue, json: serde_json::Value) -> Result<()> {
        self.send(json!({"queue": queue.binding(), "json": json})).await
    }

    async fn send(&self, body: serde_json::Value) -> Result<()> {
        self.client.post("/", &body).await?.expect(200).map(drop)
    }
}

impl Queue {
    const fn binding(self) -> &'static str {
        match self {
            Self::Deliveries => "DELIVERIES",
            Self::Dead => "DEAD",
        }
    }
}
