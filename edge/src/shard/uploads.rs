//! Outputs on their way: the edge opens and completes every upload itself, and knows of each until a job refers to it.

use worker::console_error;
use xora_shared::{
    id::Id,
    job::{
        lease::Hold,
        view::{JobRecord, OwnBucket},
    },
    protocol::{MAX_PART, OutputBegin, OutputBegun, OutputFinish, OutputFinished, OutputTargets},
    time::UnixMs,
};

use super::{JobShard, stale, store::UploadRow};
use crate::{
    config,
    error::ApiError,
    routes::files,
    s3::Opened,
    storage::{Links, Storage},
};

/// Smallest part but the last, in bytes (S3 and R2 alike).
const MIN_PART: u64 = 5 << 20;

/// How many part targets one answer holds.
const TARGETS: u32 = 16;

/// A multipart upload that a node may write to.
#[derive(Debug)]
pub struct Upload {
    /// Key of the object.
    pub key: String,
    /// Storage's id of the upload.
    pub upload_id: String,
}

impl Upload {
    fn of(row: UploadRow) -> Self {
        Self { key: row.key, upload_id: row.upload_id }
    }
}

impl JobShard {
    /// Opens the output of a task. An earlier upload under the same fence is dropped.
    pub(super) async fn begin_upload(&self, begin: OutputBegin, origin: &str) -> Result<OutputBegun, ApiError> {
        if !(MIN_PART..=MAX_PART).contains(&begin.part_size) {
            let message = format!("partSize: must be {MIN_PART} to {MAX_PART} bytes");
            return Err(ApiError::invalid(message));
        }
        let job = self.job(self.held(&begin.hold)?.job_id)?;
        let provider = job.record.request.storage_provider_id;
        let (storage, key) = (self.storage(provider)?, output_key(&begin));
        let upload_id = storage.create(&key, begin.format.mime_type()).await?;
        // Time has passed: the lease may be over, and then nobody would know of this upload.
        let earlier = self.upload(&key)?;
        if let Err(over) = self.held(&begin.hold) {
            storage.abort(&Upload { key, upload_id }).await;
            return Err(over);
        }
        let stored = earlier.as_ref().and_then(|row| row.stored);
        let (task_id, fence) = (begin.hold.task_id, begin.hold.fence);
        let row = UploadRow { key, task_id, fence, upload_id, provider, stored, drop_at: None };
        self.put_upload(&row)?;
        if let Some(earlier) = earlier {
            storage.abort(&Upload::of(earlier)).await;
        }
        self.targets_of(row, 1, origin)
    }

    /// Targets of further parts.
    pub(super) fn targets(&self, wanted: &OutputTargets, origin: &str) -> Result<OutputBegun, ApiError> {
        self.targets_of(self.row_of(&wanted.hold)?, wanted.from.max(1), origin)
    }

    fn targets_of(&self, row: UploadRow, from: u32, origin: &str) -> Result<OutputBegun, ApiError> {
        let signer = files::Signer::new(&self.env, origin)?;
        let storage = self.storage(row.provider)?;
        let upload = Upload::of(row);
        let targets = (from..from.saturating_add(TARGETS)).map(|number| storage.target(&signer, &upload, number));
        Ok(OutputBegun {
            targets: targets.collect::<Result<_, ApiError>>()?,
            good_for_seconds: signer.part_seconds().unsigned_abs(),
            foreign: storage.foreign(),
        })
    }

    /// Puts an output together and checks its size. The same message again finds it standing.
    pub(super) async fn finish_upload(&self, finish: OutputFinish, origin: &str) -> Result<OutputFinished, ApiError> {
        let row = self.row_of(&finish.hold)?;
        let (storage, stored) = (self.storage(row.provider)?, row.stored);
        let upload = Upload::of(row);
        if stored.is_none() {
            storage.complete(&upload, &finish.parts).await?;
        }
        let found = storage.size(&upload.key).await?;
        if found != Some(finish.bytes) {
            return Err(wrong_parts("storage does not have what was said to be sent; send the output again"));
        }
        let row = self.row_of(&finish.hold)?;
        let read_url = storage.read_url(&files::Signer::new(&self.env, origin)?, &row.key)?;
        self.put_upload(&UploadRow { stored: found, ..row })?;
        Ok(OutputFinished { read_url, foreign: storage.foreign() })
    }

    /// The key under which a finished output of this size stands, and the bucket if it is the caller's.
    pub(super) fn stored(&self, hold: &Hold, bytes: u64) -> Result<(String, Option<OwnBucket>), ApiError> {
        let row = self.row_of(hold)?;
        if row.stored != Some(bytes) {
            return Err(wrong_parts("the output is not finished"));
        }
        Ok((row.key, self.storage(row.provider)?.own()))
    }

    /// Where what a job writes is kept.
    fn storage(&self, provider: Option<Id>) -> Result<Storage, ApiError> {
        let Some(id) = provider else { return Storage::managed(&self.env) };
        let gone = || ApiError::not_found("storage provider; it was deleted");
        let provider = self.provider(id)?.ok_or_else(gone)?;
        let opened = Opened::of(&self.env, &provider)?;
        opened.judge(&self.env)?;
        Ok(Storage::Own(OwnBucket { provider: id, bucket: provider.bucket }, opened))
    }

    /// Links to what a job made.
    pub(super) fn links(&self, record: &JobRecord, origin: &str) -> Result<Links, ApiError> {
        let Some(own) = record.result.as_ref().and_then(|published| published.own.clone()) else {
            return Links::new(&self.env, origin, None);
        };
        let opened = self.provider(own.provider)?.map(|provider| Opened::of(&self.env, &provider)).transpose()?;
        Links::new(&self.env, origin, Some((own, opened)))
    }

    /// Marks what a task has written for removal, except what its job now refers to.
    pub(super) fn drop_uploads(&self, task: Id, keep: Option<&str>, now: UnixMs) -> Result<(), ApiError> {
        for row in self.uploads_of(task)? {
            if keep == Some(row.key.as_str()) {
                self.delete_upload(&row.key)?;
            } else {
                self.put_upload(&UploadRow { drop_at: Some(now.0), ..row })?;
            }
        }
        Ok(())
    }

    /// Removes what nothing refers to. What cannot be removed now is tried again in a minute.
    pub(super) async fn remove(&self, row: UploadRow) -> Result<(), ApiError> {
        const AGAIN_MS: i64 = 60_000;
        let removed = match self.storage(row.provider) {
            Ok(storage) => storage.remove(&Upload::of(row.clone())).await,
            // Nothing opens that bucket any more.
            Err(gone) if row.provider.is_some() => {
                console_error!("leave {}: {}", row.key, gone);
                Ok(())
            }
            Err(error) => Err(error),
        };
        // A later upload of the same key may have taken the row over in the meantime.
        if self.upload(&row.key)?.is_none_or(|now| now.upload_id != row.upload_id) {
            return Ok(());
        }
        match removed {
            Ok(()) => self.delete_upload(&row.key),
            Err(error) => {
                console_error!("remove {}: {error}", row.key);
                self.put_upload(&UploadRow { drop_at: Some(config::now().plus(AGAIN_MS).0), ..row })
            }
        }
    }

    fn row_of(&self, hold: &Hold) -> Result<UploadRow, ApiError> {
        let task = self.held(hold)?;
        let rows = self.uploads_of(hold.task_id)?;
        rows.into_iter().find(|row| row.fence == hold.fence && row.drop_at.is_none()).ok_or_else(|| stale(task.state))
    }
}

/// The first fence gets the plain name; a later one must not write where an earlier node may still be writing.
fn output_key(begin: &OutputBegin) -> String {
    let (job, extension) = (begin.hold.task_id, begin.format.extension());
    match begin.hold.fence {
        1 => format!("outputs/{job}/result.{extension}"),
        fence => format!("outputs/{job}/{fence}/result.{extension}"),
    }
}

fn wrong_parts(message: &str) -> ApiError {
    ApiError::invalid(message)
}
