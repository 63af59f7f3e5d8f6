//! What nodes said of a task that they gave back because they cannot do it.

use serde::{Deserialize, Serialize};

use super::machine::Refused;
use crate::{protocol::ReleaseReason, time::UnixMs};

/// How long a task is not offered again to a node that could not do it, in milliseconds.
pub const APART_MS: i64 = 60_000;

/// A node counts as known for this long after it was last heard of, in milliseconds: as long as a restart takes.
pub const KNOWN_MS: i64 = 600_000;

/// The last word of each node that could not do one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusals {
    /// Since when the task waits for a node that can do it, in ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    by: Vec<Refusal>,
}

/// What one node said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    node: String,
    /// When it last said so, in ms since 1970.
    at_ms: i64,
    /// How often it has.
    times: u32,
    lasting: bool,
}

impl Refusals {
    /// Whether no node has refused the task.
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// Notes that `node` gave the task back, which was offered since `offered_ms`. `known` are the names of the nodes that
    /// there are ([`KNOWN_MS`]). Answers what the machine has to know.
    pub fn note(
        &mut self,
        node: &str,
        reason: &ReleaseReason,
        offered_ms: i64,
        now: UnixMs,
        known: &[String],
    ) -> Refused {
        let before = if let Some(refusal) = self.by.iter_mut().find(|refusal| refusal.node == node) {
            let before = refusal.times;
            (refusal.at_ms, refusal.times, refusal.lasting) = (now.0, before.saturating_add(1), reason.lasting);
            before
        } else {
            self.by.push(Refusal { node: node.to_owned(), at_ms: now.0, times: 1, lasting: reason.lasting });
            0
        };
        // One that is not known any more says nothing about those that are, and names must not pile up.
        self.by.retain(|refusal| refusal.node == node || known.contains(&refusal.node));
        let cannot = |name: &String| self.by.iter().any(|refusal| refusal.lasting && refusal.node == *name);
        let by_all = reason.lasting && known.iter().all(|name| name == node || cannot(name));
        let since_ms = *self.since_ms.get_or_insert(offered_ms);
        Refused { kind: reason.failure.kind, by_all, before, waited_ms: now.since(UnixMs(since_ms)) }
    }

    /// A node that could do the task has tried: the wait for one begins anew.
    pub fn was_tried(&mut self) {
        self.since_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::{Failure, FailureKind, Stage},
        protocol::Lack,
    };

    const DAY: i64 = 24 * 3600 * 1000;

    fn reason(lasting: bool) -> ReleaseReason {
        let failure = Failure { kind: FailureKind::InputTooLarge, stage: Stage::Probe, message: "too long".into() };
        ReleaseReason { lack: Lack::Policy, lasting, failure }
    }

    fn known(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_task_is_beyond_all_nodes_when_each_that_is_known_has_refused_it_for_good() {
        // Node, whether for good, which nodes are known then, whether it is beyond all.
        type Row = (&'static [(&'static str, bool)], &'static [&'static str], bool);
        let table: [Row; 7] = [
            (&[("a", true)], &["a"], true),
            (&[("a", true)], &["a", "b"], false),
            (&[("a", true), ("b", true)], &["a", "b"], true),
            (&[("a", false)], &["a"], false),
            (&[("a", false), ("b", true)], &["a", "b"], false),
            (&[("a", true), ("b", true)], &["b"], true),
            (&[("a", true), ("a", false)], &["a"], false),
        ];
        for (said, nodes, expected) in table {
            let mut refusals = Refusals::default();
            let notes = said
                .iter()
                .map(|(node, lasting)| refusals.note(node, &reason(*lasting), 0, UnixMs(5), &known(nodes)).by_all);
            assert_eq!(notes.last(), Some(expected), "{said:?} of {nodes:?}");
        }
    }

    #[test]
    fn each_node_is_counted_by_itself_and_those_that_are_gone_are_forgotten() {
        let mut refusals = Refusals::default();
        let nodes = known(&["a", "b"]);
        let mut note = |node, nodes: &[String]| refusals.note(node, &reason(true), 0, UnixMs(5), nodes).before;
        assert_eq!((note("a", &nodes), note("b", &nodes), note("b", &nodes), note("a", &nodes)), (0, 0, 1, 1));
        note("c", &known(&["c"]));
        assert_eq!(refusals.by.iter().map(|refusal| refusal.node.as_str()).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn the_wait_is_counted_from_the_first_offer_and_anew_after_an_attempt() {
        let mut refusals = Refusals::default();
        let waited = |refusals: &mut Refusals, offered, now| {
            refusals.note("a", &reason(false), offered, UnixMs(now), &known(&["a"])).waited_ms
        };
        assert_eq!(waited(&mut refusals, 10, 30), 20);
        assert_eq!(waited(&mut refusals, DAY, DAY + 30), DAY + 20);
        refusals.was_tried();
        assert_eq!(waited(&mut refusals, DAY, DAY + 30), 30);
    }
}
