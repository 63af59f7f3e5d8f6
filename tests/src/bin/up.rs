//! `make up`: the edge and some nodes, until interrupted.
#![allow(clippy::print_stdout, reason = "a command that talks to a person")]

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

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
    let port = number("PORT", 8787)?;
    println!("starting the edge …");
    let edge = Edge::start(EdgeOptions { port: Some(port), ..EdgeOptions::default() }).await?;
    let token = edge.node_token().await?;
    let mut nodes = Vec::new();
    for number in 1..=number("NODES", 1)? {
        let options =
            NodeOptions { name: format!("node-{number}"), token: Some(token.clone()), ..NodeOptions::default() };
        nodes.push(Node::start_anywhere(&edge, options).await?);
    }
    // Whoever reads the file may rely on a system that runs.
    let _published = publish(&edge)?;
    println!("\n  XORA_URL      {}", edge.url);
    println!("  XORA_API_KEY  {}", edge.key);
    println!("  API           {}/docs", edge.url);
    for node in &nodes {
        println!("  {:13} {}/healthz", node.name, node.url);
    }
    println!("\n  both variables, for every shell and program:   . {}", edge.dir().join("env").display());
    println!("  logs in {}", edge.dir().display());
    println!("  ALLOW_LOOPBACK is on: http and loopback addresses are accepted. For this machine only.");
    println!("\n  one more node, which takes the same jobs:");
    println!("    XORA_EDGE={} XORA_NODE_TOKEN={token} ALLOW_LOOPBACK=true \\", edge.url);
    println!("      XORA_NODE_LISTEN=127.0.0.1:0 {}", root().join("target/debug/xora-node").display());
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

/// Writes URL and key to `.dev/PORT/env`, for shells to read and for programs to inherit, and has `.dev/env` lead there.
fn publish(edge: &Edge) -> Result<Guard> {
    let (file, link) = (edge.dir().join("env"), root().join(".dev/env"));
    let text = format!("XORA_URL={}\nXORA_API_KEY={}\nexport XORA_URL XORA_API_KEY\n", edge.url, edge.key);
    let published = Guard::delete_linked(&file, &link)?;
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    // A link is replaced by renaming another over it.
    let new = edge.dir().join("env.link");
    let _ = fs::remove_file(&new);
    symlink(&file, &new)?;
    fs::rename(&new, &link)?;
    Ok(published)
}

/// A number from the environment; an empty variable is none.
fn number(name: &str, default: u16) -> Result<u16> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.map_or(Ok(default), |value| value.parse().with_context(|| format!("{name} must be a number")))
}
