//! What this node has given back because it cannot do it, for a while: an edge that knows reasons does not offer it again
//! within a minute. One that does is older than reasons, and would offer it for ever.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use xora_shared::{id::Id, job::refusals::APART_MS};

use crate::board::millis;

/// Shorter than the edge waits by the time that a word may take to it.
const EARLY: Duration = Duration::from_secs(10);

/// Tasks, and when they were given back.
#[derive(Debug, Default)]
pub struct Refused(Mutex<HashMap<Id, Instant>>);

impl Refused {
    /// Notes that a task is given back. False when the edge did not heed that before: then it is to be told that the task
    /// failed.
    pub fn heeds(&self, task: Id) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, at| at.elapsed() + EARLY < millis(APART_MS));
        all.insert(task, Instant::now()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xora_shared::{id::Place, time::UnixMs};

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_offers_a_task_again_at_once_does_not_know_reasons() {
        let refused = Refused::default();
        let task = |ms| Id::new(UnixMs(ms), 0, Place::FIRST);
        assert!(refused.heeds(task(1)) && refused.heeds(task(2)));
        assert!(!refused.heeds(task(1)));
        tokio::time::advance(millis(APART_MS)).await;
        assert!(refused.heeds(task(1)));
    }
}
