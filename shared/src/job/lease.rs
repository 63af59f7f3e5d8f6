//! Leases: who may speak for a task.

use serde::{Deserialize, Serialize};

use crate::{id::Id, sign::same_secret};

/// The clock rules of a lease, in milliseconds. They travel with every lease, so that edge and node never disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// How long a lease lasts from its last heartbeat.
    pub lease_ms: i64,
    /// How often a node sends heartbeats.
    pub heartbeat_ms: i64,
    /// How long media time may stand still before the node gives up: alive but not advancing is not alive.
    pub stall_ms: i64,
    /// How long nodes of earlier versions go on without an answered heartbeat, by their monotonic clock; those of this
    /// version go on until the edge says that the lease is lost.
    pub silence_ms: i64,
}

impl Clock {
    /// The rules in force.
    pub const STANDARD: Self = Self { lease_ms: 30_000, heartbeat_ms: 5_000, stall_ms: 60_000, silence_ms: 25_000 };
}

/// What a node shows with every message about a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The task.
    pub task_id: Id,
    /// The secret that came with the lease.
    pub token: String,
    /// The number that only grows: a higher one exists once the task has moved on.
    pub fence: u64,
}

impl Hold {
    /// Whether this is the lease with this token and fence.
    pub fn is(&self, token: &str, fence: u64) -> bool {
        self.fence == fence && same_secret(&self.token, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Place, time::UnixMs};

    #[test]
    fn a_hold_is_good_for_its_own_token_and_fence_only() {
        let task_id = Id::new(UnixMs(1), 2, Place::new(0, 0).expect("in range"));
        let hold = Hold { task_id, token: "a".into(), fence: 3 };
        assert!(hold.is("a", 3));
        assert!(!hold.is("a", 4));
        assert!(!hold.is("b", 3));
        assert!(!hold.is("", 3));
    }

    #[test]
    fn a_silent_node_stops_before_its_lease_ends() {
        let Clock { lease_ms, heartbeat_ms, silence_ms, stall_ms: _ } = Clock::STANDARD;
        assert!(heartbeat_ms * 3 < silence_ms && silence_ms < lease_ms);
    }
}
