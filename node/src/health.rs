//! `GET /healthz`, `/readyz` and `/livez`: whether this node works, for whoever watches over it.
//!
//! `/livez` is 200 as long as the node answers at all: another answer is a reason to start it again. `/readyz` and `/healthz`
//! are 503 while it can do no work, with the reasons; `/readyz` also while it drains.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::info;
use xora_shared::protocol::SandboxLevel;

use crate::{
    attempt::Node,
    edge::{CallError, Trouble},
    stop::Phase,
};

/// How long the edge may be silent before the node counts as cut off. An idle node asks for work every half minute.
const SILENT: Duration = Duration::from_mins(1);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    ok: bool,
    /// Why it is not; empty when it is.
    problems: Vec<String>,
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
    let router = Router::new()
        .route("/healthz", get(async |State(node): State<Arc<Node>>| answer(&node, problems(&node))))
        .route("/readyz", get(async |State(node): State<Arc<Node>>| answer(&node, unready(&node))))
        .route("/livez", get(async || "ok"))
        .with_state(node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn answer(node: &Node, problems: Vec<String>) -> (StatusCode, Json<Health>) {
    let ok = problems.is_empty();
    let answered = node.edge.silent_for();
    let health = Health {
        ok,
        problems,
        name: node.edge.node.name.clone(),
        version: node.edge.node.version.clone(),
        tasks: node.board.count(),
        slots: node.config.slots,
        encodes: node.config.encodes,
        sandbox: node.edge.node.sandbox,
        encoders: node.edge.node.encoders.clone(),
        edge_answered_ms_ago: answered.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        draining: node.stop.phase() > Phase::Running,
    };
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health))
}

fn problems(node: &Node) -> Vec<String> {
    let edge = of_edge(node.edge.silent_for(), node.edge.trouble());
    let encoders = node.edge.node.encoders.is_empty().then(|| "no encoder works; see the log of the start".to_owned());
    edge.into_iter().chain(encoders).collect()
}

fn unready(node: &Node) -> Vec<String> {
    let draining = (node.stop.phase() > Phase::Running).then(|| "stopping: no new tasks".to_owned());
    problems(node).into_iter().chain(draining).collect()
}

/// What is wrong with the edge, which last answered so long ago.
fn of_edge(silent: Option<Duration>, trouble: Option<Trouble>) -> Option<String> {
    let why = match trouble {
        Some(Trouble::Key) => return Some(CallError::Key.to_string()),
        Some(Trouble::Silent(why)) => format!(": {why}"),
        None => String::new(),
    };
    match silent {
        None => Some(format!("the edge has not answered yet{why}")),
        Some(silent) if silent > SILENT => Some(format!("the edge has not answered for {} s{why}", silent.as_secs())),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_healthy_while_the_edge_answers_and_takes_its_key() {
        let seconds = |count| Some(Duration::from_secs(count));
        let silent = || Some(Trouble::Silent("Connection refused (os error 111)".to_owned()));
        assert_eq!(of_edge(seconds(35), None), None);
        assert_eq!(of_edge(seconds(35), silent()), None, "a restart of the edge is no reason");
        let told = |silent, trouble| of_edge(silent, trouble).expect("a problem");
        assert_eq!(told(None, None), "the edge has not answered yet");
        assert_eq!(told(None, silent()), "the edge has not answered yet: Connection refused (os error 111)");
        assert_eq!(
            told(seconds(75), silent()),
            "the edge has not answered for 75 s: Connection refused (os error 111)"
        );
        assert!(told(seconds(1), Some(Trouble::Key)).contains("XORA_NODE_TOKEN"));
    }
}
