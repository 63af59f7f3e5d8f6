//! Lists of jobs, newest first. The Worker puts the lists of all shards together.

use serde::Deserialize;
use worker::console_error;
use xora_record::statements::{LIST, LIST_OVER, LIST_QUEUED};
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
use crate::error::ApiError;

impl JobShard {
    /// The jobs of this shard that a query wants, newest first, each with its id. One that cannot be read is left out.
    pub(super) fn list(&self, &ListQuery { state, limit, before }: &ListQuery) -> Result<Vec<(Id, JobView)>, ApiError> {
        let mut values = Vec::new();
        let query = match state {
            None => LIST,
            Some(JobState::Queued) => LIST_QUEUED,
            Some(state) if state.is_terminal() => {
                values.push(state.name().into());
                LIST_OVER
            }
            Some(state) => return Ok(self.running(state, before, limit)),
        };
        // `~` is above every id.
        values.push(before.map_or_else(|| "~".into(), text));
        values.push(integer(limit.into()));
        let rows = self.sql().exec(query, values)?.to_array::<Listed>()?;
        Ok(rows.into_iter().filter_map(|row| self.listed(row).inspect_err(unreadable).ok()).collect())
    }

    /// Rows do not follow every stage, memory does. It knows every lease, and there are as many as nodes have slots.
    fn running(&self, state: JobState, before: Option<Id>, limit: u32) -> Vec<(Id, JobView)> {
        let live = self.memory.live.borrow();
        let here = live.iter().filter(|(_, live)| live.stage.job_state() == state).map(|(id, _)| *id);
        let mut ids: Vec<_> = here.filter(|id| before.is_none_or(|before| *id < before)).collect();
        drop(live);
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(limit.try_into().unwrap_or(usize::MAX));
        let listed = |id| Ok::<_, ApiError>((id, self.view(self.job(id)?, self.task(id)?)?));
        ids.into_iter().filter_map(|id| listed(id).inspect_err(unreadable).ok()).collect()
    }

    fn listed(&self, Listed { doc, task }: Listed) -> Result<(Id, JobView), ApiError> {
        let job: JobRow = json::from_str(&doc)?;
        let task = task.as_deref().map(json::from_str::<TaskRow>).transpose()?;
        Ok((job.record.id, self.view(job, task)?))
    }
}

/// A job and, while it is not over, its task.
#[derive(Deserialize)]
struct Listed {
    doc: String,
    task: Option<String>,
}

fn unreadable(error: &ApiError) {
    console_error!("list: a job cannot be shown: {error}");
}
