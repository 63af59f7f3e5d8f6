//! Nodes as this shard knows them: from leases and heartbeats, in memory; a row an hour, for after a restart; and from their
//! sockets, whose pings are answered without waking the shard.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use worker::{
    js_sys::{Date, Function, Reflect},
    wasm_bindgen::{JsCast, JsValue},
};
use xora_record::statements::{DELETE_NODE, NODE, NODES, PUT_NODE};
use xora_shared::{
    nodes::{Held, NodeSeen},
    protocol::NodeInfo,
    time::UnixMs,
};

use super::JobShard;
use crate::error::ApiError;

/// How far behind the row of a node may be, in milliseconds.
const BEHIND_MS: i64 = 3600 * 1000;

/// Longest name that a socket is tagged with, in bytes (the platform's limit is 256).
pub(super) const MAX_TAG: usize = 200;

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRow {
    pub info: NodeInfo,
    /// When it was last heard of, in ms since 1970; the row may be an hour behind.
    pub seen_ms: i64,
    /// When the row was written.
    pub written_ms: i64,
}

impl JobShard {
    /// Notes that a node was heard of.
    pub(super) fn note_node(&self, info: &NodeInfo, now: UnixMs) -> Result<(), ApiError> {
        let known = self.memory.nodes.borrow().get(&info.name).cloned();
        let known = if known.is_some() { known } else { self.node(&info.name)? };
        let written_ms = known.filter(|row| row.info == *info).map(|row| row.written_ms);
        let written_ms = written_ms.filter(|at| now.0 - at < BEHIND_MS);
        let row = NodeRow { info: info.clone(), seen_ms: now.0, written_ms: written_ms.unwrap_or(now.0) };
        if written_ms.is_none() {
            self.put_node(&row)?;
        }
        self.memory.nodes.borrow_mut().insert(info.name.clone(), row);
        Ok(())
    }

    /// Every node that this shard knows.
    pub(super) fn nodes_seen(&self) -> Result<Vec<NodeSeen>, ApiError> {
        let mut held = self.held_by_node();
        let rows = self.nodes()?.into_iter().map(|row| {
            let row = self.memory.nodes.borrow().get(&row.info.name).cloned().unwrap_or(row);
            let holds = held.remove(&row.info.name).unwrap_or_default();
            let last_seen_ms = row.seen_ms.max(self.last_ping_ms(&row.info.name));
            NodeSeen { info: row.info, last_seen_ms, holds }
        });
        Ok(rows.collect())
    }

    /// Names of the nodes that were heard of since `cutoff`.
    pub(super) fn nodes_since(&self, cutoff: i64) -> Result<Vec<String>, ApiError> {
        let mut names = Vec::new();
        for row in self.nodes()? {
            let seen_ms = self.memory.nodes.borrow().get(&row.info.name).map_or(row.seen_ms, |newer| newer.seen_ms);
            if seen_ms.max(self.last_ping_ms(&row.info.name)) >= cutoff {
                names.push(row.info.name);
            }
        }
        Ok(names)
    }

    /// Forgets nodes that were not heard of since `cutoff`.
    pub(super) fn forget_nodes(&self, cutoff: UnixMs) -> Result<(), ApiError> {
        for node in self.nodes_seen()?.into_iter().filter(|node| node.last_seen_ms < cutoff.0) {
            self.delete_node(&node.info.name)?;
            self.memory.nodes.borrow_mut().remove(&node.info.name);
        }
        Ok(())
    }

    fn held_by_node(&self) -> HashMap<String, Vec<Held>> {
        let leased: Vec<_> = self.memory.live.borrow().iter().map(|(id, live)| (*id, *live)).collect();
        let mut held = HashMap::<String, Vec<Held>>::new();
        for (id, live) in leased {
            let Ok(Some(task)) = self.task(id) else { continue };
            let Some(attempt) = task.attempts.last() else { continue };
            let job = Held { job_id: task.job_id, state: live.stage.job_state(), progress: live.progress };
            held.entry(attempt.node.clone()).or_default().push(job);
        }
        held
    }

    /// When a ping of this node's socket was last answered, in ms since 1970; 0 if none was.
    fn last_ping_ms(&self, name: &str) -> i64 {
        let state: &JsValue = self.state.as_raw().as_ref();
        let Ok(Ok(ask)) =
            Reflect::get(state, &"getWebSocketAutoResponseTimestamp".into()).map(JsValue::dyn_into::<Function>)
        else {
            return 0;
        };
        let pinged = |socket: &JsValue| ask.call1(state, socket).ok()?.dyn_into::<Date>().ok();
        let sockets = self.state.get_websockets_with_tag(name);
        let times = sockets.iter().filter_map(|socket| pinged(socket.as_ref().as_ref()));
        #[expect(clippy::cast_possible_truncation, reason = "dates are far below 2^53")]
        let newest = times.map(|date| date.get_time() as i64).max();
        newest.unwrap_or(0)
    }

    fn nodes(&self) -> Result<Vec<NodeRow>, ApiError> {
        self.readable(NODES, vec![])
    }

    fn node(&self, name: &str) -> Result<Option<NodeRow>, ApiError> {
        Ok(self.docs(NODE, vec![name.into()])?.pop())
    }

    fn put_node(&self, row: &NodeRow) -> Result<(), ApiError> {
        let values = vec![row.info.name.as_str().into(), serde_json::to_string(row)?.into()];
        self.write(PUT_NODE, values)
    }

    fn delete_node(&self, name: &str) -> Result<(), ApiError> {
        self.write(DELETE_NODE, vec![name.into()])
    }
}
