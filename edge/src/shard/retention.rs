//! Retention: what is over is removed, as the settings say. The cron asks for it, and the alarm now and then.

use std::collections::HashSet;

use xora_record::statements::{JOBS_ENDED, JOBS_WITH_OUTPUT, PUT_OFF_ENDED, PUT_OFF_OUTPUT};
use xora_shared::{job::view::JobRecord, provider::Provider, removal::Removal, settings::Cutoffs, time::UnixMs};

use super::{
    JobShard,
    store::{JobRow, UNREADABLE_MS, UploadRow},
};
use crate::{account, config, error::ApiError};

/// Most rows of each kind that are handled at once.
const ROWS: i64 = 100;

/// Between two looks of the alarm, in milliseconds.
const EVERY_MS: i64 = 5 * 60 * 1000;

/// A node that was not heard of for this long is forgotten, in milliseconds.
const NODE_MS: i64 = 24 * 3600 * 1000;

impl JobShard {
    /// As [`Self::sweep`], unless it was done lately.
    pub(super) async fn sweep_now_and_then(&self) -> Result<(), ApiError> {
        let now = config::now();
        if now.since(UnixMs(self.memory.swept_ms.get())) < EVERY_MS { Ok(()) } else { self.sweep().await }
    }

    /// Marks files for removal and removes rows whose time is over. What is left after many goes has its turn at the next
    /// look.
    pub(super) async fn sweep(&self) -> Result<(), ApiError> {
        const GOES: usize = 10;
        let settings = self.settings().await?;
        let now = config::now();
        self.memory.swept_ms.set(now.0);
        for _ in 0..GOES {
            if !self.sweep_once(settings.cutoffs(now), now)? {
                break;
            }
        }
        self.forget_nodes(now.plus(-NODE_MS))
    }

    /// A provider may be deleted just while a job that names it is made, which then brings a copy of it. Asks `Account`, so
    /// the cron does it and not the alarm.
    pub(super) async fn forget_deleted_providers(&self) -> Result<(), ApiError> {
        let copies = self.providers()?;
        if copies.is_empty() {
            return Ok(());
        }
        let standing = account::providers(&self.env).await?;
        let is_gone = |copy: &&Provider| standing.iter().all(|provider| provider.id != copy.id);
        copies.iter().filter(is_gone).try_for_each(|gone| self.delete_provider(gone.id))
    }

    /// Whether there may be more. No await: rows are read and written in one turn.
    fn sweep_once(&self, cutoffs: Cutoffs, now: UnixMs) -> Result<bool, ApiError> {
        let ended = self.due::<JobRow>(JOBS_ENDED, PUT_OFF_ENDED, cutoffs.jobs.0, ROWS)?;
        let outputs = self.due::<JobRow>(JOBS_WITH_OUTPUT, PUT_OFF_OUTPUT, cutoffs.outputs.0, ROWS)?;
        let full = |rows: &[JobRow]| i64::try_from(rows.len()).is_ok_and(|count| count >= ROWS);
        let more = full(&ended) || full(&outputs);
        let ids: HashSet<_> = ended.iter().map(|job| job.record.id).collect();
        for job in ended {
            let (id, until) = (job.record.id.to_string(), cutoffs.jobs.0 + UNREADABLE_MS);
            self.forget(job, now).unwrap_or_else(|error| self.put_off(PUT_OFF_ENDED, &id, until, &error));
        }
        for job in outputs.into_iter().filter(|job| !ids.contains(&job.record.id)) {
            let (id, until) = (job.record.id.to_string(), cutoffs.outputs.0 + UNREADABLE_MS);
            self.expire_output(job, now).unwrap_or_else(|error| self.put_off(PUT_OFF_OUTPUT, &id, until, &error));
        }
        Ok(more)
    }

    fn expire_output(&self, mut job: JobRow, now: UnixMs) -> Result<(), ApiError> {
        self.drop_output(&job.record, now)?;
        job.record.output_expired_ms = Some(now.0);
        self.put_job(&job)
    }

    /// Removes the rows of a job that is over, and marks its files for removal. Webhooks that are still owed are sent; their
    /// rows go then.
    pub(super) fn forget(&self, job: JobRow, now: UnixMs) -> Result<(), ApiError> {
        self.drop_output(&job.record, now)?;
        self.leave_staged(job.record.id, 0, now)?;
        for id in job.deliveries {
            if let Some(mut delivery) = self.delivery(id)? {
                delivery.orphan = true;
                // A link to it would lead nowhere.
                if delivery.record.kept_key().is_some() {
                    delivery.record.output_expired_ms = Some(now.0);
                }
                self.put_delivery(&delivery)?;
            }
        }
        self.delete_job(job.record.id)
    }

    /// Marks the output of a job for removal, if there is one.
    fn drop_output(&self, record: &JobRecord, now: UnixMs) -> Result<(), ApiError> {
        let Some(key) = record.kept_key() else { return Ok(()) };
        self.put_upload(&UploadRow {
            key: key.to_owned(),
            task_id: record.id,
            fence: 0,
            upload_id: String::new(),
            provider: None,
            stored: None,
            drop_at: Some(now.0),
            removal: Removal::default(),
        })
    }
}
