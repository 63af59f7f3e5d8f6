//! Copies of inputs that nodes read whole: later attempts read them instead of the origin. A copy that is whole stays
//! until some time after its job's end; one that is not goes with its attempt. Both are rows among the uploads.

use worker::{UploadedPart, console_error};
use xora_shared::{
    id::Id,
    protocol::{InputBegin, InputBegun, InputFinish, MAX_INPUT_PARTS},
    removal::Removal,
    time::UnixMs,
};

use super::{JobShard, Upload, stale, store::UploadRow};
use crate::{config, error::ApiError, routes::files};

/// How long a node may take to send a part, in seconds: an input comes as slowly as it is worked on.
const SECONDS: i64 = 24 * 3600;

/// The key of the whole copy of an input, if there is one that stays.
pub(super) fn whole(rows: &[UploadRow], input: u32) -> Option<&str> {
    let tail = format!("/{input}");
    let found = rows.iter().find(|row| row.stored.is_some() && row.drop_at.is_none() && row.key.ends_with(&tail));
    found.map(|row| row.key.as_str())
}

impl JobShard {
    /// Opens the copy of an input.
    pub(super) async fn begin_staging(&self, begin: InputBegin, origin: &str) -> Result<InputBegun, ApiError> {
        let InputBegin { hold, input, parts } = begin;
        if !(1..=MAX_INPUT_PARTS).contains(&parts) {
            return Err(ApiError::invalid(format!("parts: must be 1 to {MAX_INPUT_PARTS}")));
        }
        let job = self.job(self.held(&hold)?.job_id)?.record;
        if !job.request.stage_input || input as usize >= job.request.inputs.len() {
            return Err(ApiError::invalid("input: this job has none that is to be kept"));
        }
        let key = format!("inputs/{}/{}/{input}", job.id, hold.fence);
        let upload = self.env.bucket("MEDIA")?.create_multipart_upload(key.as_str()).execute().await?;
        let upload_id = upload.upload_id().await;
        // Time has passed: the lease may be over, and then nobody would know of this upload.
        let earlier = self.upload(&key)?;
        if let Err(over) =
            self.held(&hold).and_then(|task| if earlier.is_some() { Err(stale(task.state)) } else { Ok(()) })
        {
            let _ = upload.abort().await;
            return Err(over);
        }
        let (task_id, fence) = (hold.task_id, hold.fence);
        let row = UploadRow {
            key: key.clone(),
            task_id,
            fence,
            upload_id: upload_id.clone(),
            provider: None,
            stored: None,
            drop_at: None,
            removal: Removal::default(),
        };
        self.put_upload(&row)?;
        let (signer, upload) = (files::Signer::new(&self.env, origin)?, Upload { key, upload_id });
        let expires = config::now().0 / 1000 + SECONDS;
        Ok(InputBegun { targets: (1..=parts).map(|number| signer.part_until(&upload, number, expires)).collect() })
    }

    /// Puts the copy together, and has later attempts read it.
    pub(super) async fn finish_staging(&self, finish: InputFinish) -> Result<(), ApiError> {
        let row = self.staging(&finish)?;
        let parts = finish.parts.iter().filter_map(|part| Some((u16::try_from(part.number).ok()?, &part.etag)));
        let parts: Vec<_> = parts.map(|(number, etag)| UploadedPart::new(number, etag.clone())).collect();
        let bucket = self.env.bucket("MEDIA")?;
        let upload = bucket.resume_multipart_upload(row.key.as_str(), row.upload_id.as_str())?;
        // Storage answers alike for a second completion and bad parts: the size decides.
        if let Err(error) = upload.complete(parts).await {
            console_error!("complete {}: {error}", row.key);
        }
        let found = bucket.head(row.key.as_str()).await?.map(|object| object.size());
        if found != Some(finish.bytes) {
            return Err(ApiError::invalid("storage does not have what was said to be sent"));
        }
        let row = self.staging(&finish)?;
        self.put_upload(&UploadRow { stored: found, ..row })
    }

    /// After a job's end: what is whole stays for some days, in case the caller wants the job tried again.
    pub(super) fn leave_staged(&self, job: Id, days: u32, now: UnixMs) -> Result<(), ApiError> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        for row in self.staged_of(job)? {
            let drop_at = if row.stored.is_some() { now.plus(i64::from(days) * DAY_MS) } else { now };
            self.put_upload(&UploadRow { drop_at: Some(drop_at.0), ..row })?;
        }
        Ok(())
    }

    /// After an attempt that was not the last: what is not whole never will be.
    pub(super) fn drop_half_staged(&self, job: Id, now: UnixMs) -> Result<(), ApiError> {
        for row in self.staged_of(job)?.into_iter().filter(|row| row.stored.is_none()) {
            self.put_upload(&UploadRow { drop_at: Some(now.0), ..row })?;
        }
        Ok(())
    }

    /// When the caller wants the job tried again: what is still there stays.
    pub(super) fn take_up_staged(&self, job: Id, now: UnixMs) -> Result<(), ApiError> {
        // One whose removal has begun may be gone, though its next try is still to come.
        let untouched = |row: &UploadRow| row.removal == Removal::default() && row.drop_at.is_some_and(|at| at > now.0);
        let there = |row: &UploadRow| row.stored.is_some() && untouched(row);
        for row in self.staged_of(job)?.into_iter().filter(there) {
            self.put_upload(&UploadRow { drop_at: None, removal: Removal::default(), ..row })?;
        }
        Ok(())
    }

    fn staging(&self, finish: &InputFinish) -> Result<UploadRow, ApiError> {
        let InputFinish { hold, input, .. } = finish;
        let task = self.held(hold)?;
        let row = self.upload(&format!("inputs/{}/{}/{input}", task.job_id, hold.fence))?;
        row.filter(|row| row.drop_at.is_none()).ok_or_else(|| stale(task.state))
    }
}
