//! Lists of jobs, newest first. The Worker puts the lists of all shards together.

use worker::SqlStorageValue;
use xora_shared::{
    id::Id,
    job::{JobState, view::JobView},
    request::ListQuery,
};

use super::{
    JobShard,
    store::{JobRow, integer, text},
};
use crate::error::ApiError;

impl JobShard {
    /// The jobs of this shard that a query wants, newest first.
    pub(super) fn list(&self, query: &ListQuery) -> Result<Vec<(Id, JobView)>, ApiError> {
        self.wanted(query)?.into_iter().map(|job| Ok((job.record.id, self.view(job)?))).collect()
    }

    fn wanted(&self, &ListQuery { state, limit, before }: &ListQuery) -> Result<Vec<JobRow>, ApiError> {
        match state {
            None => self.jobs_before(before, limit),
            Some(JobState::Queued) => self.waiting_jobs_before(before, limit),
            Some(state) if state.is_terminal() => self.ended_jobs_before(state, before, limit),
            Some(state) => self.running_jobs_before(state, before, limit),
        }
    }

    /// Rows do not follow every stage, memory does. It knows every lease, and there are as many as nodes have slots.
    fn running_jobs_before(&self, state: JobState, before: Option<Id>, limit: u32) -> Result<Vec<JobRow>, ApiError> {
        let live = self.memory.live.borrow();
        let here = live.iter().filter(|(_, live)| live.stage.job_state() == state).map(|(id, _)| *id);
        let mut ids: Vec<_> = here.filter(|id| before.is_none_or(|before| *id < before)).collect();
        drop(live);
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(limit.try_into().unwrap_or(usize::MAX));
        ids.into_iter().map(|id| self.job(id)).collect()
    }

    /// Jobs that are older than `before`, newest first.
    fn jobs_before(&self, before: Option<Id>, limit: u32) -> Result<Vec<JobRow>, ApiError> {
        self.docs(
            "SELECT doc FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?",
            vec![end(before), integer(limit.into())],
        )
    }

    /// Jobs that are over and in this state.
    fn ended_jobs_before(&self, state: JobState, before: Option<Id>, limit: u32) -> Result<Vec<JobRow>, ApiError> {
        let query = "SELECT doc FROM jobs WHERE ended_at IS NOT NULL AND state = ? AND id < ? ORDER BY id DESC LIMIT ?";
        self.docs(query, vec![state.name().into(), end(before), integer(limit.into())])
    }

    /// Jobs that wait for a node.
    fn waiting_jobs_before(&self, before: Option<Id>, limit: u32) -> Result<Vec<JobRow>, ApiError> {
        let query = "SELECT jobs.doc AS doc FROM tasks JOIN jobs ON jobs.id = tasks.id
            WHERE tasks.ready_at IS NOT NULL AND tasks.id < ? ORDER BY tasks.id DESC LIMIT ?";
        self.docs(query, vec![end(before), integer(limit.into())])
    }
}

/// What ids below a position are below of; `~` is above every id.
fn end(before: Option<Id>) -> SqlStorageValue {
    before.map_or_else(|| "~".into(), text)
}
