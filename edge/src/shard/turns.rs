//! Which task runs next: the highest priority first, and within it keys take turns.

use serde::Deserialize;
use worker::SqlStorageValue;
use xora_shared::id::Id;

use super::{
    JobShard,
    store::{TaskRow, integer},
};
use crate::error::ApiError;

#[derive(Deserialize)]
struct Ready {
    priority: u8,
}

/// A key with tasks that are ready, and the oldest of these.
#[derive(Deserialize)]
struct Waiting {
    token: String,
    id: Id,
}

impl JobShard {
    /// The highest priority of what is ready, of all tasks or of those that are not heavy.
    pub(super) fn top_priority(&self, now: i64, light_only: bool) -> Result<Option<u8>, ApiError> {
        let query = "SELECT priority FROM tasks WHERE ready_at IS NOT NULL AND ready_at <= ? AND heavy <= ?
            ORDER BY priority DESC, token, id LIMIT 1";
        let found = self.sql().exec(query, vec![integer(now), most(light_only)])?.to_array::<Ready>()?.pop();
        Ok(found.map(|Ready { priority }| priority))
    }

    /// The task that runs next: highest priority first, then the key whose turn it is, then its oldest.
    pub(super) fn next_task(&self, now: i64, light_only: bool) -> Result<Option<TaskRow>, ApiError> {
        let Some(priority) = self.top_priority(now, light_only)? else { return Ok(None) };
        let waiting = self.waiting_keys(priority, now, light_only)?;
        let turns = self.memory.turns.borrow();
        let waiting = waiting.iter().map(|Waiting { token, id }| (token.as_str(), *id));
        let Some(token) = turns.next(waiting) else { return Ok(None) };
        let query = "SELECT doc FROM tasks WHERE ready_at IS NOT NULL AND ready_at <= ? AND heavy <= ?
            AND priority = ? AND token = ? ORDER BY id LIMIT 1";
        Ok(self.docs(query, vec![integer(now), most(light_only), integer(priority.into()), token.into()])?.pop())
    }

    /// Keys with tasks of this priority that are ready, each with its oldest. The index is entered once for each key,
    /// however many tasks it has.
    fn waiting_keys(&self, priority: u8, now: i64, light_only: bool) -> Result<Vec<Waiting>, ApiError> {
        let query = "SELECT token, id FROM tasks WHERE ready_at IS NOT NULL AND ready_at <= ? AND heavy <= ?
            AND priority = ? AND token > ? ORDER BY token, id LIMIT 1";
        let mut keys = Vec::new();
        // Token ids are text of at least one character.
        let mut last = String::new();
        loop {
            let values = vec![integer(now), most(light_only), integer(priority.into()), last.as_str().into()];
            let Some(next) = self.sql().exec(query, values)?.to_array::<Waiting>()?.pop() else { return Ok(keys) };
            last.clone_from(&next.token);
            keys.push(next);
        }
    }
}

/// The highest `heavy` that is wanted.
fn most(light_only: bool) -> SqlStorageValue {
    integer(i64::from(!light_only))
}
