//! `make up`: the edge and some nodes, until interrupted.
#![allow(clippy::print_stdout, reason = "a command that talks to a person")]

use std::{env, fs, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use xora_tests::{Edge, EdgeOptions, Guard, Node, NodeOptions, end_with_parent, root};

#[tokio::main]
async fn main() -> Result<()> {
    end_with_parent();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = serve() => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Runs until cancelled, or until something ends that should not.
async fn serve() -> Result<()> {
    let file = root().join(".dev/env");
    let _ = fs::remove_file(&file);
    println!("starting the edge …");
    let edge = Edge::start(EdgeOptions { port: Some(number("PORT", 8787)?), ..EdgeOptions::default() }).await?;
    let mut nodes = Vec::new();
    for number in 1..=number("NODES", 1)? {
        let options = NodeOptions { name: format!("node-{number}"), ..NodeOptions::default() };
        nodes.push(Node::start(&edge, options).await?);
    }
    // Whoever reads the file may rely on a system that runs.
    let _published = Guard::delete_file(&file)?;
    fs::write(&file, format!("XORA_URL={}\nXORA_API_KEY={}\n", edge.url, edge.key))?;
    println!("\n  XORA_URL      {}", edge.url);
    println!("  XORA_API_KEY  {}", edge.key);
    for node in &nodes {
        println!("  {}        {}/healthz", node.name, node.url);
    }
    println!("\n  logs in {}; the two variables also in {}", edge.dir().display(), file.display());
    println!("  ALLOW_LOOPBACK is on: http and loopback addresses are accepted. For this machine only.");
    println!("\nready; Ctrl-C stops everything");
    loop {
        // With no node of its own there is nothing to wait for but the end.
        sleep(Duration::from_millis(500)).await;
        for node in &mut nodes {
            if let Ok(ended) = node.wait(Duration::ZERO).await {
                anyhow::bail!("{} ended (well: {ended}); see its log in {}", node.name, edge.dir().display());
            }
        }
    }
}

/// A number from the environment; an empty variable is none.
fn number(name: &str, default: u16) -> Result<u16> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.map_or(Ok(default), |value| value.parse().with_context(|| format!("{name} must be a number")))
}
