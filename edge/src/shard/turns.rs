//! Which task runs next: the highest priority first, and within it keys take turns.

use serde::Deserialize;
use worker::SqlStorageValue;
use xora_record::statements::{NEXT_KEY, OLDEST_OF_KEY, PUT_OFF_TASK, TOP_PRIORITY};
use xora_shared::{id::Id, job::refusals::APART_MS, protocol::LeaseRequest};

use super::{
    JobShard,
    store::{JobRow, TaskRow, UNREADABLE_MS, integer},
};
use crate::{
    config,
    docs::{Keyed, keyed},
    error::ApiError,
};

/// Most tasks whose rows cannot be read that one look puts off.
const PUT_OFF: usize = 20;

#[derive(Deserialize)]
struct Ready {
    priority: u8,
}

/// A key with tasks that are offered, and the oldest of these.
#[derive(Deserialize)]
struct Waiting {
    token: String,
    id: Id,
}

impl JobShard {
    /// The highest priority of what is offered, of all tasks or of those that are not heavy.
    pub(super) fn top_priority(&self, asked: &LeaseRequest) -> Result<Option<u8>, ApiError> {
        let mut top = None;
        for heavy in weights(asked.light_only) {
            let found = self.sql().exec(TOP_PRIORITY, vec![heavy, name(asked), since()])?.to_array::<Ready>()?.pop();
            top = top.max(found.map(|Ready { priority }| priority));
        }
        Ok(top)
    }

    /// The task that runs next, and its job: highest priority first, then the key whose turn it is, then its oldest. One whose
    /// rows cannot be read is put off, so that it keeps no other from its turn.
    pub(super) fn next_task(&self, asked: &LeaseRequest) -> Result<Option<(TaskRow, JobRow)>, ApiError> {
        for _ in 0..PUT_OFF {
            let Some((key, task)) = self.next_row(asked)? else { return Ok(None) };
            let read = task.and_then(|task: TaskRow| Ok((self.job(task.job_id)?, task)));
            match read {
                Ok((job, task)) => return Ok(Some((task, job))),
                Err(error) => self.put_off(PUT_OFF_TASK, &key, config::now().0 + UNREADABLE_MS, &error),
            }
        }
        Ok(None)
    }

    fn next_row(&self, asked: &LeaseRequest) -> Result<Option<Keyed<TaskRow>>, ApiError> {
        let Some(priority) = self.top_priority(asked)? else { return Ok(None) };
        let mut waiting = Vec::new();
        for heavy in weights(asked.light_only) {
            self.waiting_keys(asked, &heavy, priority, &mut waiting)?;
        }
        let turns = self.memory.turns.borrow();
        let Some(token) = turns.next(waiting.iter().map(|Waiting { token, id }| (token.as_str(), *id))) else {
            return Ok(None);
        };
        let mut oldest = Vec::new();
        for heavy in weights(asked.light_only) {
            oldest.extend(keyed(
                &self.sql(),
                OLDEST_OF_KEY,
                vec![heavy, integer(priority.into()), token.into(), name(asked), since()],
            )?);
        }
        Ok(oldest.into_iter().min_by(|(a, _), (b, _)| a.cmp(b)))
    }

    /// Adds the keys with tasks of this weight and priority that are offered, each with its oldest. The index is entered once
    /// for each key, however many tasks it has.
    fn waiting_keys(
        &self,
        asked: &LeaseRequest,
        heavy: &SqlStorageValue,
        priority: u8,
        keys: &mut Vec<Waiting>,
    ) -> Result<(), ApiError> {
        // Token ids are text of at least one character.
        let mut last = String::new();
        loop {
            let values = vec![heavy.clone(), integer(priority.into()), last.as_str().into(), name(asked), since()];
            let Some(next) = self.sql().exec(NEXT_KEY, values)?.to_array::<Waiting>()?.pop() else { return Ok(()) };
            last.clone_from(&next.token);
            keys.push(next);
        }
    }
}

/// The values of `heavy` that are wanted.
fn weights(light_only: bool) -> Vec<SqlStorageValue> {
    if light_only { vec![integer(0)] } else { vec![integer(0), integer(1)] }
}

fn name(asked: &LeaseRequest) -> SqlStorageValue {
    asked.node.name.as_str().into()
}

/// A node that could not do a task after this moment, in ms since 1970, is not offered it again yet.
fn since() -> SqlStorageValue {
    integer(config::now().0 - APART_MS)
}
