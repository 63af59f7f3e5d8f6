//! Outputs on their way: the edge opens and completes every upload itself, and knows of each until a job refers to it.

use worker::{HttpMetadata, UploadedPart, console_error};
use xora_shared::{
    id::Id,
    job::lease::Hold,
    protocol::{MAX_PART, OutputBegin, OutputBegun, OutputFinish, OutputFinished, OutputTargets},
    time::UnixMs,
};

use super::{JobShard, stale, store::UploadRow};
use crate::{config, error::ApiError, routes::files};

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

impl JobShard {
    /// Opens the output of a task. An earlier upload under the same fence is dropped.
    pub(super) async fn begin_upload(&self, begin: OutputBegin, origin: &str) -> Result<OutputBegun, ApiError> {
        if !(MIN_PART..=MAX_PART).contains(&begin.part_size) {
            let message = format!("partSize: must be {MIN_PART} to {MAX_PART} bytes");
            return Err(ApiError::invalid(message));
        }
        self.held(&begin.hold)?;
        let key = output_key(&begin);
        let metadata =
            HttpMetadata { content_type: Some(begin.format.mime_type().to_owned()), ..HttpMetadata::default() };
        let bucket = self.env.bucket("MEDIA")?;
        let upload = bucket.create_multipart_upload(key.as_str()).http_metadata(metadata).execute().await?;
        let upload_id = upload.upload_id().await;
        // Time has passed: the lease may be over, and then nobody would know of this upload.
        let earlier = self.upload(&key)?;
        if let Err(over) = self.held(&begin.hold) {
            let _ = upload.abort().await;
            return Err(over);
        }
        let stored = earlier.as_ref().and_then(|row| row.stored);
        let (task_id, fence) = (begin.hold.task_id, begin.hold.fence);
        let row = UploadRow { key, task_id, fence, upload_id, stored, drop_at: None };
        self.put_upload(&row)?;
        if let Some(earlier) = earlier {
            self.abort(&earlier).await;
        }
        self.targets_of(row, 1, origin)
    }

    /// Targets of further parts.
    pub(super) fn targets(&self, wanted: &OutputTargets, origin: &str) -> Result<OutputBegun, ApiError> {
        self.targets_of(self.row_of(&wanted.hold)?, wanted.from.max(1), origin)
    }

    fn targets_of(
        &self,
        UploadRow { key, upload_id, .. }: UploadRow,
        from: u32,
        origin: &str,
    ) -> Result<OutputBegun, ApiError> {
        let signer = files::Signer::new(&self.env, origin)?;
        let upload = Upload { key, upload_id };
        Ok(OutputBegun {
            targets: (from..from.saturating_add(TARGETS)).map(|number| signer.part(&upload, number)).collect(),
        })
    }

    /// Puts an output together and checks its size. The same message again finds it standing.
    pub(super) async fn finish_upload(&self, finish: OutputFinish, origin: &str) -> Result<OutputFinished, ApiError> {
        let row = self.row_of(&finish.hold)?;
        let bucket = self.env.bucket("MEDIA")?;
        if row.stored.is_none() {
            let parts = finish.parts.iter().map(|part| {
                let number = u16::try_from(part.number).map_err(|_| wrong_parts("a part number is over 65535"))?;
                Ok(UploadedPart::new(number, part.etag.clone()))
            });
            let parts = parts.collect::<Result<Vec<_>, ApiError>>()?;
            let upload = bucket.resume_multipart_upload(row.key.as_str(), row.upload_id.as_str())?;
            // Storage answers alike for a second completion, an unknown upload and bad parts: the size decides below.
            if let Err(error) = upload.complete(parts).await {
                console_error!("complete {}: {error:?}", row.key);
            }
        }
        let found = bucket.head(row.key.as_str()).await?.map(|object| object.size());
        if found != Some(finish.bytes) {
            return Err(wrong_parts("storage does not have what was said to be sent; send the output again"));
        }
        let row = self.row_of(&finish.hold)?;
        let read_url = files::Signer::new(&self.env, origin)?.read_url(&row.key);
        self.put_upload(&UploadRow { stored: found, ..row })?;
        Ok(OutputFinished { read_url })
    }

    /// The key under which a finished output of this size stands.
    pub(super) fn stored_key(&self, hold: &Hold, bytes: u64) -> Result<String, ApiError> {
        let row = self.row_of(hold)?;
        if row.stored == Some(bytes) { Ok(row.key) } else { Err(wrong_parts("the output is not finished")) }
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
        self.abort(&row).await;
        let deleted = self.env.bucket("MEDIA")?.delete(row.key.as_str()).await;
        // A later upload of the same key may have taken the row over in the meantime.
        if self.upload(&row.key)?.is_none_or(|now| now.upload_id != row.upload_id) {
            return Ok(());
        }
        match deleted {
            Ok(()) => self.delete_upload(&row.key),
            Err(error) => {
                console_error!("remove {}: {error:?}", row.key);
                self.put_upload(&UploadRow { drop_at: Some(config::now().plus(AGAIN_MS).0), ..row })
            }
        }
    }

    /// Aborts a multipart upload. One that is complete or gone cannot be aborted, and need not.
    async fn abort(&self, row: &UploadRow) {
        let Ok(bucket) = self.env.bucket("MEDIA") else { return };
        if let Ok(upload) = bucket.resume_multipart_upload(row.key.as_str(), row.upload_id.as_str()) {
            let _ = upload.abort().await;
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
