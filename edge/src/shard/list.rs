//! Lists of jobs, newest first. The Worker puts the lists of all shards together.

use xora_shared::{
    id::Id,
    job::{JobState, view::JobView},
    json,
    request::ListQuery,
};

use super::{
    JobShard,
    store::{JobRow, TaskRow, integer, text},
};
use crate::{
    docs::{Row, texts},
    error::ApiError,
};

impl JobShard {
    /// The jobs of this shard that a query wants, newest first, each with its id.
    pub(super) fn list(&self, &ListQuery { state, limit, before }: &ListQuery) -> Result<Vec<(Id, JobView)>, ApiError> {
        let mut values = Vec::new();
        let from = match state {
            None => "jobs LEFT JOIN tasks USING (id) WHERE",
            Some(JobState::Queued) => "tasks CROSS JOIN jobs USING (id) WHERE ready_at IS NOT NULL AND",
            Some(state) if state.is_terminal() => {
                values.push(state.name().into());
                "jobs LEFT JOIN tasks USING (id) WHERE ended_at IS NOT NULL AND state = ? AND"
            }
            Some(state) => return self.running(state, before, limit),
        };
        // One query for all. A row is a job and, on a line of its own, its task while that is not over.
        let query = format!(
            "SELECT jobs.doc || char(10) || ifnull(tasks.doc, '') AS doc
            FROM {from} id < ? ORDER BY id DESC LIMIT ?"
        );
        // `~` is above every id.
        values.push(before.map_or_else(|| "~".into(), text));
        values.push(integer(limit.into()));
        let mut listed = Vec::new();
        for Row { doc } in texts(&self.sql(), &query, values)? {
            let (job, task) = doc.split_once('\n').unwrap_or_default();
            let task = if task.is_empty() { None } else { Some(json::from_str(task)?) };
            listed.push(self.listed(json::from_str(job)?, task)?);
        }
        Ok(listed)
    }

    /// Rows do not follow every stage, memory does. It knows every lease, and there are as many as nodes have slots.
    fn running(&self, state: JobState, before: Option<Id>, limit: u32) -> Result<Vec<(Id, JobView)>, ApiError> {
        let live = self.memory.live.borrow();
        let here = live.iter().filter(|(_, live)| live.stage.job_state() == state).map(|(id, _)| *id);
        let mut ids: Vec<_> = here.filter(|id| before.is_none_or(|before| *id < before)).collect();
        drop(live);
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(limit.try_into().unwrap_or(usize::MAX));
        ids.into_iter().map(|id| self.listed(self.job(id)?, self.task(id)?)).collect()
    }

    fn listed(&self, job: JobRow, task: Option<TaskRow>) -> Result<(Id, JobView), ApiError> {
        Ok((job.record.id, self.view(job, task)?))
    }
}
