//! The harness: edge and node as processes, origins and webhook receivers that misbehave on demand, and a small client.
//!
//! Everything listens on loopback ports of its own, keeps its state under `.dev/PORT/`, and is gone when its value is
//! dropped or its process ends, however that ends.

mod bucket;
mod client;
mod edge;
mod events;
mod http;
mod jobs;
mod media;
mod node;
mod origin;
mod process;
mod queue;
mod receiver;
mod sink;
mod zygote;

pub use bucket::{Bucket, Seen};
pub use client::{Answer, Client, TERMINAL, http_client};
pub use edge::{Edge, EdgeOptions, Spent};
pub use events::{Event, Events, Said};
pub use http::{Ending, Line, Reply, Request, Server};
pub use jobs::{PATIENCE, bytes, compress, faint_clip, job, long_clip, short_clip, thumbnail, with};
pub use media::{Probe, clip, ffmpeg, probe, sample};
pub use node::{Node, NodeOptions};
pub use origin::{Origin, Resets, Served};
pub use process::{Group, Guard, end_with_parent, free_port};
pub use queue::{ODD, Producer, Queue};
pub use receiver::{Hook, Receiver};
pub use sink::Sink;
pub use zygote::Zygote;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// The root of the checkout.
pub fn root() -> &'static Path {
    // This crate stands directly below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Where state, logs and the like of whatever listens on `port` are kept.
pub fn state_dir(port: u16) -> PathBuf {
    root().join(".dev").join(port.to_string())
}

/// Asks `check` again and again until it answers, and fails when `deadline` has passed without.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await? {
            return Ok(value);
        }
        if started.elapsed() > deadline {
            bail!("{what}: not within {deadline:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
