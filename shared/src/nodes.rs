//! Nodes as the installation knows them (`GET /v1/nodes`).

use serde::{Deserialize, Serialize};

use crate::{
    id::Id,
    job::JobState,
    protocol::{NodeInfo, SandboxLevel},
    time::UnixMs,
};

/// A node as one shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSeen {
    /// What it said of itself.
    pub info: NodeInfo,
    /// When it was last heard of, in ms since 1970.
    pub last_seen_ms: i64,
    /// What it holds in this shard.
    pub holds: Vec<Held>,
}

/// A job in a node's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "HeldJob"))]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The job.
    pub job_id: Id,
    /// Where it is.
    pub state: JobState,
    /// 0 to 99.
    pub progress: u8,
}

/// A node as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "Node"))]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// What its operator calls it.
    name: String,
    /// The version of its software.
    version: String,
    /// What it can encode, by the names of libav's encoders.
    encoders: Vec<String>,
    /// How the processes that decode and encode are isolated; null for nodes of earlier versions.
    sandbox: Option<SandboxLevel>,
    /// The jobs that it works on.
    holds: Vec<Held>,
    /// When it was last heard of, to half a minute or so while it has nothing to do.
    last_seen_at: UnixMs,
}

impl NodeView {
    /// Puts together what the shards know, by name. What a node said of itself last counts.
    pub fn merge(seen: impl IntoIterator<Item = NodeSeen>) -> Vec<Self> {
        let mut nodes = Vec::<NodeSeen>::new();
        for node in seen {
            match nodes.iter_mut().find(|known| known.info.name == node.info.name) {
                Some(known) => known.add(node),
                None => nodes.push(node),
            }
        }
        nodes.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        nodes.into_iter().map(Self::of).collect()
    }

    fn of(NodeSeen { info, last_seen_ms, mut holds }: NodeSeen) -> Self {
        let NodeInfo { name, version, encoders, sandbox } = info;
        holds.sort_by_key(|held| held.job_id);
        Self { name, version, encoders, sandbox, holds, last_seen_at: UnixMs(last_seen_ms) }
    }
}

impl NodeSeen {
    /// Adds what another shard knows of the same node.
    fn add(&mut self, mut other: Self) {
        if other.last_seen_ms >= self.last_seen_ms {
            std::mem::swap(self, &mut other);
        }
        self.holds.extend(other.holds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Place;

    fn seen(name: &str, version: &str, last_seen_ms: i64, held: &[i64]) -> NodeSeen {
        let sandbox = Some(SandboxLevel::Strict);
        let info = NodeInfo { name: name.to_owned(), version: version.to_owned(), encoders: vec![], sandbox };
        let job = |ms: &i64| Id::new(UnixMs(*ms), 0, Place::FIRST);
        let holds = held.iter().map(|ms| Held { job_id: job(ms), state: JobState::Transcoding, progress: 7 });
        NodeSeen { info, last_seen_ms, holds: holds.collect() }
    }

    #[test]
    fn what_the_shards_know_of_a_node_is_put_together() {
        let nodes = NodeView::merge([
            seen("b", "1", 5, &[3]),
            seen("a", "2", 9, &[]),
            seen("b", "2", 7, &[1]),
            seen("b", "1", 6, &[2]),
        ]);
        let told = serde_json::to_value(nodes).expect("JSON");
        assert_eq!((&told[0]["name"], &told[0]["sandbox"]), (&"a".into(), &"strict".into()));
        assert_eq!((told[1]["name"].as_str(), told[1]["version"].as_str()), (Some("b"), Some("2")));
        assert_eq!(told[1]["lastSeenAt"], "1970-01-01T00:00:00.007Z");
        assert_eq!(told[1]["holds"].as_array().map(Vec::len), Some(3));
        assert_eq!(told[1]["holds"][0]["state"], "transcoding");
    }
}
