//! `GET /healthz`: whether this node works, for whoever watches over it.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::info;
use xora_shared::protocol::SandboxLevel;

use crate::attempt::Node;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    ok: bool,
    name: String,
    version: String,
    tasks: usize,
    slots: usize,
    encodes: usize,
    /// How job processes are isolated.
    sandbox: Option<SandboxLevel>,
    /// Those that encoded something at the start.
    encoders: Vec<String>,
    /// Milliseconds since the edge last answered; null before it ever has.
    edge_answered_ms_ago: Option<u64>,
    draining: bool,
}

/// Begins to answer.
pub async fn serve(node: Arc<Node>, listen: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    info!("listening on {}", listener.local_addr()?);
    let router = Router::new().route("/healthz", get(health)).with_state(node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn health(State(node): State<Arc<Node>>) -> Json<Health> {
    let answered = node.edge.silent_for();
    Json(Health {
        ok: true,
        name: node.edge.node.name.clone(),
        version: node.edge.node.version.clone(),
        tasks: node.board.count(),
        slots: node.config.slots,
        encodes: node.config.encodes,
        sandbox: node.edge.node.sandbox,
        encoders: node.edge.node.encoders.clone(),
        edge_answered_ms_ago: answered.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        draining: node.stop.phase() > crate::stop::Phase::Running,
    })
}
