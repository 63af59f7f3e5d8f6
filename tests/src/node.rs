//! A node, as a process.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    client::Client,
    edge::Edge,
    process::{Group, free_port},
    root, wait_for,
};

/// What a node's log says where `--sandbox=strict` cannot be had.
const NOT_STRICT: &str = "start with --sandbox=basic";

/// How a node is to be started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name in the record.
    pub name: String,
    /// Whether it reads inputs from loopback addresses.
    pub allow_loopback: bool,
    /// Tasks at a time. None for what a node takes by itself.
    pub slots: Option<u32>,
    /// Tasks at a time that encode; the cores are shared out among them. None for what a node takes by itself.
    pub encodes: Option<u32>,
    /// Its API key. None to mint one.
    pub token: Option<String>,
    /// Further flags.
    pub flags: Vec<String>,
    /// The release build, for measuring.
    pub release: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            name: "node-1".to_owned(),
            allow_loopback: true,
            slots: None,
            encodes: None,
            token: None,
            flags: Vec::new(),
            release: false,
        }
    }
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it answers `/healthz`.
    pub url: String,
    group: Group,
}

impl Node {
    /// Starts the node, and waits until the edge has answered it.
    pub async fn start(edge: &Edge, options: NodeOptions) -> Result<Self> {
        let token = match options.token {
            Some(token) => token,
            None => edge.client().mint(&options.name, &["node"]).await?,
        };
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(binary(options.release));
        command
            .args(["--edge", &edge.url, "--listen", &listen, "--name", &options.name])
            .arg(format!("--allow-loopback={}", options.allow_loopback))
            .args(&options.flags)
            .env("XORA_NODE_TOKEN", token);
        for (flag, count) in [("--slots", options.slots), ("--encodes", options.encodes)] {
            if let Some(count) = count {
                command.args([flag, &count.to_string()]);
            }
        }
        let log = edge.dir().join(format!("{}.log", options.name));
        let group = Group::spawn(command, &log)?;
        let mut node = Self { name: options.name, url: format!("http://{listen}"), group };
        node.ready().await.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(node)
    }

    /// The same for a person who tries the system out: where the kernel cannot isolate job processes, this is said in one
    /// line, and the node runs without.
    pub async fn start_anywhere(edge: &Edge, options: NodeOptions) -> Result<Self> {
        let log = edge.dir().join(format!("{}.log", options.name));
        match Self::start(edge, options.clone()).await {
            // It is the last line: the log of an earlier start may say the same.
            Err(_) if fs::read_to_string(&log)?.lines().last().is_some_and(|line| line.contains(NOT_STRICT)) => {
                eprintln!(
                    "warning: this kernel cannot isolate job processes; going on with --sandbox=basic (see {})",
                    log.display()
                );
                let mut options = options;
                options.flags.push("--sandbox=basic".to_owned());
                Self::start(edge, options).await
            }
            started => started,
        }
    }

    /// What it says of itself.
    pub async fn health(&self) -> Result<Value> {
        Client::new(&self.url, "").get("/healthz").await?.expect(200)
    }

    /// A number that the kernel keeps about its supervisor: the one behind `name:` in this file of `/proc`.
    pub fn counter(&self, file: &str, name: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.group.id()))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("such a counter")?;
        Ok(line.split_whitespace().next().context("a number")?.parse()?)
    }

    /// Bytes that its supervisor had written to disk. None where the kernel tells root alone, as the supervisor is not
    /// dumpable.
    pub fn written(&self) -> Result<Option<u64>> {
        match self.counter("io", "write_bytes") {
            Err(error) if !rustix::process::geteuid().is_root() => {
                let why = error.downcast::<std::io::Error>()?;
                anyhow::ensure!(why.kind() == std::io::ErrorKind::PermissionDenied, "{why}");
                Ok(None)
            }
            written => written.map(Some),
        }
    }

    /// Asks it to finish what it can, give the rest back, and end.
    pub fn terminate(&self) -> Result<()> {
        self.group.terminate()
    }

    /// Waits until it has ended by itself. Answers whether it ended well.
    pub async fn wait(&mut self, deadline: Duration) -> Result<bool> {
        let ended = wait_for("the node to end", deadline, async || Ok(self.group.ended()?));
        Ok(ended.await?.success())
    }

    /// Kills the supervisor outright.
    pub fn kill(&mut self) -> Result<()> {
        self.group.kill_leader().map(drop)
    }

    async fn ready(&mut self) -> Result<()> {
        let client = Client::new(&self.url, "");
        let group = &mut self.group;
        let ready = wait_for("the node to reach the edge", Duration::from_secs(20), async || {
            if let Some(status) = group.ended()? {
                bail!("the node ended: {status}");
            }
            let health = client.get("/healthz").await.ok();
            Ok(health.filter(|health| health.json["edgeAnsweredMsAgo"].is_u64()))
        });
        ready.await.map(drop)
    }
}

pub(crate) fn binary(release: bool) -> PathBuf {
    root().join(if release { "target/release/xora-node" } else { "target/debug/xora-node" })
}
