//! Outputs on their way: the edge opens and completes every upload itself, and knows of each until a job refers to it.

use xora_shared::{
    id::Id,
    job::{
        lease::Hold,
        view::{JobRecord, OwnBucket},
    },
    protocol::{MAX_PART, OutputBegin, OutputBegun, OutputFinish, OutputFinished, OutputTargets},
    removal::Removal,
    time::UnixMs,
};

use super::{JobShard, stale, store::UploadRow};
use crate::{
    config,
    error::{ApiError, Code},
    routes::files,
    s3::Opened,
    storage::{Links, Storage},
};

/// Smallest part but the last, in bytes (S3 and R2 alike).
const MIN_PART: u64 = 5 << 20;

/// How many part targets one answer holds.
const TARGETS: u32 = 16;

/// What marks the key of an output that was begun again after one request was to write it.
const AGAIN: &str = "-again/";

/// An object that a node may write.
#[derive(Debug)]
pub struct Upload {
    /// Key of the object.
    pub key: String,
    /// Storage's id of the multipart upload; empty where one request writes it all.
    pub upload_id: String,
}

impl Upload {
    /// What a row is of.
    pub(super) fn of(row: UploadRow) -> Self {
        Self { key: row.key, upload_id: row.upload_id }
    }
}

impl JobShard {
    /// Opens the output of a task. An earlier upload under the same fence is dropped; where that was one request, which
    /// may still be on its way, under another key.
    pub(super) async fn begin_upload(&self, begin: OutputBegin, origin: &str) -> Result<OutputBegun, ApiError> {
        if !(MIN_PART..=MAX_PART).contains(&begin.part_size) {
            let message = format!("partSize: must be {MIN_PART} to {MAX_PART} bytes");
            return Err(ApiError::invalid(message));
        }
        let job = self.job(self.held(&begin.hold)?.job_id)?;
        let provider = job.record.request.storage_provider_id;
        let storage = self.storage(provider)?;
        let (task_id, fence) = (begin.hold.task_id, begin.hold.fence);
        let earlier = self.row_of(&begin.hold).ok();
        // Once begun again, it stays away from the first request's key.
        let again = earlier.as_ref().is_some_and(|row| row.is_single() || row.key.contains(AGAIN));
        let key = output_key(&begin, again);
        let upload_id = if begin.single && earlier.is_none() {
            String::new()
        } else {
            storage.create(&key, begin.format.mime_type()).await?
        };
        // Time has passed: the lease may be over, and then nobody would know of this upload.
        let earlier = self.row_of(&begin.hold).ok();
        if let Err(over) = self.held(&begin.hold) {
            storage.abort(&Upload { key, upload_id }).await;
            return Err(over);
        }
        let row = UploadRow {
            key,
            task_id,
            fence,
            upload_id,
            provider,
            stored: None,
            drop_at: None,
            removal: Removal::default(),
        };
        self.put_upload(&row)?;
        match earlier {
            Some(late) if late.key != row.key => {
                self.put_upload(&UploadRow { drop_at: Some(config::now().0), ..late })?;
                self.arm().await?;
            }
            // Beside the answer: the node does not wait for a second call to storage.
            Some(earlier) => self.state.wait_until(async move { storage.abort(&Upload::of(earlier)).await }),
            None => {}
        }
        self.targets_of(row, 1, None, origin)
    }

    /// Targets of further parts.
    pub(super) fn targets(&self, wanted: &OutputTargets, origin: &str) -> Result<OutputBegun, ApiError> {
        self.targets_of(self.row_of(&wanted.hold)?, wanted.from.max(1), wanted.moved.as_deref(), origin)
    }

    fn targets_of(
        &self,
        row: UploadRow,
        from: u32,
        moved: Option<&str>,
        origin: &str,
    ) -> Result<OutputBegun, ApiError> {
        let signer = files::Signer::new(&self.env, origin)?;
        let storage = self.storage(row.provider)?;
        let storage = if let Some(location) = moved { storage.moved(location)? } else { storage };
        let single = row.is_single();
        let read_url = if single { Some(storage.read_url(&signer, &row.key)?) } else { None };
        let (upload, count) = (Upload::of(row), if single { 1 } else { TARGETS });
        let targets = (from..from.saturating_add(count)).map(|number| storage.target(&signer, &upload, number));
        Ok(OutputBegun {
            targets: targets.collect::<Result<_, ApiError>>()?,
            read_url,
            good_for_seconds: signer.part_seconds().unsigned_abs(),
            foreign: storage.foreign(),
        })
    }

    /// Puts an output together and checks its size. The same message again finds it standing.
    pub(super) async fn finish_upload(&self, finish: OutputFinish, origin: &str) -> Result<OutputFinished, ApiError> {
        let row = self.row_of(&finish.hold)?;
        let (storage, stored) = (self.storage(row.provider)?, row.stored);
        let upload = Upload::of(row);
        let said = if stored.is_none() { storage.complete(&upload, &finish.parts).await? } else { None };
        let found = match said {
            Some(size) => Some(size),
            None => storage.size(&upload.key).await?,
        };
        if found != Some(finish.bytes) {
            return Err(wrong_parts("storage does not have what was said to be sent; send the output again"));
        }
        let row = self.row_of(&finish.hold)?;
        let read_url = storage.read_url(&files::Signer::new(&self.env, origin)?, &row.key)?;
        self.put_upload(&UploadRow { stored: found, ..row })?;
        Ok(OutputFinished { read_url, foreign: storage.foreign() })
    }

    /// The size of an output that one request writes; none of others, whose row has it.
    pub(super) async fn written(&self, hold: &Hold) -> Result<Option<u64>, ApiError> {
        match self.row_of(hold) {
            Ok(row) if row.is_single() => self.storage(row.provider)?.size(&row.key).await,
            _ => Ok(None),
        }
    }

    /// The key under which a finished output of this size stands, and the bucket if it is the caller's.
    pub(super) fn stored(
        &self,
        hold: &Hold,
        written: Option<u64>,
        bytes: u64,
    ) -> Result<(String, Option<OwnBucket>), ApiError> {
        let row = self.row_of(hold)?;
        if row.stored.or(written) != Some(bytes) {
            let message = "the output does not stand in storage with the size that was named; finish it first";
            return Err(ApiError::new(Code::Conflict, message));
        }
        Ok((row.key, self.storage(row.provider)?.own()))
    }

    /// Where what a job writes is kept.
    pub(super) fn storage(&self, provider: Option<Id>) -> Result<Storage, ApiError> {
        let Some(id) = provider else { return Storage::managed(&self.env) };
        let gone = || ApiError::not_found("storage provider; it was deleted");
        let provider = self.provider(id)?.ok_or_else(gone)?;
        let opened = Opened::of(&self.env, &provider)?;
        opened.judge()?;
        Ok(Storage::Own(OwnBucket { provider: id, bucket: provider.bucket }, opened))
    }

    /// Links to what a job made: under `PUBLIC_URL`, else under the origin that its caller reached us at.
    pub(super) fn links(&self, record: &JobRecord, origin: &str) -> Result<Links, ApiError> {
        let public = config::public_url(&self.env);
        let origin = public.as_deref().unwrap_or(origin);
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
                // One that waits to be removed once more keeps its time.
                self.put_upload(&UploadRow { drop_at: row.drop_at.or(Some(now.0)), ..row })?;
            }
        }
        Ok(())
    }

    fn row_of(&self, hold: &Hold) -> Result<UploadRow, ApiError> {
        let task = self.held(hold)?;
        let rows = self.uploads_of(hold.task_id)?;
        rows.into_iter().find(|row| row.fence == hold.fence && row.drop_at.is_none()).ok_or_else(|| stale(task.state))
    }
}

/// The first fence gets the plain name; a later one must not write where an earlier node may still be writing, nor one
/// that begins again where its own first request may still be on its way.
fn output_key(begin: &OutputBegin, again: bool) -> String {
    let (job, extension) = (begin.hold.task_id, begin.format.extension());
    match begin.hold.fence {
        fence if again => format!("outputs/{job}/{fence}{AGAIN}result.{extension}"),
        1 => format!("outputs/{job}/result.{extension}"),
        fence => format!("outputs/{job}/{fence}/result.{extension}"),
    }
}

fn wrong_parts(message: &str) -> ApiError {
    ApiError::invalid(message)
}
