//! Files that callers upload, part by part: a row for each file, and one for each part that is there.

use serde::{Deserialize, Serialize};
use worker::{UploadedPart, console_error};
use xora_shared::{
    id::Id,
    request::JobRequest,
    time::UnixMs,
    upload::{Due, Layout, MAX_UNUSED, ON_ITS_WAY_MS, UploadView, kept_ms},
};

use super::{JobShard, Op, Upload, store::ReceivedRow};
use crate::{
    config,
    error::{ApiError, Code},
    routes::files,
};

/// A file that a caller is about to send.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewReceived {
    /// Id of the upload.
    pub id: Id,
    /// The key that asked.
    pub token_id: String,
    /// What the caller calls the file.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A part on its way, or there.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReceivedPart {
    /// The upload.
    pub upload: Id,
    /// Its number, from 1.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// As storage answered. None before it was stored.
    pub etag: Option<String>,
}

/// An upload, and the job that gets it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UseReceived {
    /// The upload.
    pub upload: Id,
    /// The job, which is about to be stored.
    pub job: Id,
}

/// How long storage may take to put a file together, in milliseconds.
const PUTTING_TOGETHER_MS: i64 = 10 * 60 * 1000;

/// Where a caller's file stands in storage.
pub fn key(id: Id) -> String {
    format!("uploads/{id}/source")
}

/// The upload that a key belongs to, if it is a caller's.
pub fn of_key(key: &str) -> Option<Id> {
    key.strip_prefix("uploads/")?.strip_suffix("/source")?.parse().ok()
}

impl JobShard {
    /// Opens an upload.
    pub(super) async fn receive(&self, new: NewReceived, origin: &str) -> Result<UploadView, ApiError> {
        let NewReceived { id, token_id, filename, size } = new;
        self.refuse_too_many(&token_id)?;
        let upload = self.env.bucket("MEDIA")?.create_multipart_upload(key(id)).execute().await?;
        let upload_id = upload.upload_id().await;
        // Time has passed, and others may have opened theirs.
        if let Err(refused) = self.refuse_too_many(&token_id) {
            let _ = upload.abort().await;
            return Err(refused);
        }
        let drop_at = config::now().plus(config::upload_ms(&self.env)).0;
        let layout = Layout::of(size);
        let row = ReceivedRow {
            id,
            token_id,
            filename,
            layout,
            upload_id,
            used: false,
            over_ms: None,
            kept_ms: 0,
            deleting: false,
            drop_at,
        };
        self.put_received(&row)?;
        self.arm().await?;
        self.shown_received(row, origin)
    }

    fn refuse_too_many(&self, token_id: &str) -> Result<(), ApiError> {
        if self.count_unused(token_id)? < MAX_UNUSED {
            return Ok(());
        }
        let message = format!(
            "this key has {MAX_UNUSED} uploads that no job has named; name some in jobs, or wait: each is deleted after a day"
        );
        Err(ApiError::new(Code::Conflict, message))
    }

    /// An upload as it stands.
    pub(super) fn read_received(&self, id: Id, origin: &str) -> Result<UploadView, ApiError> {
        self.shown_received(self.received(id)?, origin)
    }

    /// Checks that a part may be stored, before its body is read.
    pub(super) fn expect_part(&self, part: &ReceivedPart) -> Result<(), ApiError> {
        let row = self.received(part.upload)?;
        if row.used {
            return Err(ApiError::new(Code::Conflict, "a job has this file already; open a new upload for another"));
        }
        match row.layout.bytes_of(part.number) {
            Some(bytes) if bytes == part.bytes => Ok(()),
            Some(bytes) => {
                let message = format!("part {} must have {bytes} bytes, not {}", part.number, part.bytes);
                Err(ApiError::invalid(message))
            }
            None => {
                Err(ApiError::invalid(format!("there is no part {}; the file has {}", part.number, row.layout.parts())))
            }
        }
    }

    /// Notes a part that is stored. A part that comes again replaces the one before.
    pub(super) fn note_part(&self, part: ReceivedPart) -> Result<(), ApiError> {
        self.expect_part(&part)?;
        self.put_received_part(part.upload, part.number, &part.etag.unwrap_or_default())
    }

    /// Gives a file to a job: puts it together the first time, and keeps it for as long as the job may need it.
    pub(super) async fn use_received(&self, UseReceived { upload: id, job }: UseReceived) -> Result<(), ApiError> {
        let kept_ms = kept_ms(self.settings().await?.input_retention_days);
        let row = self.received(id)?;
        if !row.used {
            // Storage may take its time, in which the file must not be deleted.
            let until = config::now().plus(PUTTING_TOGETHER_MS).0;
            if row.drop_at < until {
                self.put_received(&ReceivedRow { drop_at: until, ..row.clone() })?;
            }
            self.put_together(&row).await?;
        }
        // Time has passed: the file may have been deleted.
        let row = self.received(id)?;
        let drop_at = config::now().plus(config::look_at_uploads_ms(&self.env)).0;
        self.put_received(&ReceivedRow { used: true, kept_ms, drop_at, ..row })?;
        self.put_received_user(id, job)?;
        self.delete_received_parts(id)?;
        self.arm().await
    }

    /// Gives the files that a job names to it again, because it runs again. They may be in any shard.
    pub(super) async fn use_uploads(&self, job: Id, request: &JobRequest) -> Result<(), ApiError> {
        for upload in request.uploads() {
            let wanted = UseReceived { upload, job };
            let shard = upload.place().shard();
            let used = if shard == job.place().shard() {
                self.use_received(wanted).await
            } else {
                super::ask(&self.env, shard, Op::UseReceived, &wanted).await
            };
            let gone = || {
                let what_to_do = "upload the file again and create a new job";
                ApiError::new(
                    Code::Conflict,
                    format!("the upload {upload} that this job reads was deleted; {what_to_do}"),
                )
            };
            used.map_err(|error| if error.is(Code::NotFound) { gone() } else { error })?;
        }
        Ok(())
    }

    /// When each of these jobs was over; none for one that is not. One that is not here was deleted, unless it is so new that
    /// it may be on its way.
    pub(super) fn over(&self, jobs: &[Id]) -> Result<Vec<Option<i64>>, ApiError> {
        let now = config::now();
        let on_its_way = Id::floor(now.plus(-ON_ITS_WAY_MS));
        let over = |id: &Id| match (self.task(*id)?, self.find_job(*id)?) {
            (Some(_), _) => Ok(None),
            (None, Some(job)) => Ok(job.record.finished_ms),
            (None, None) => Ok((*id < on_its_way).then_some(now.0)),
        };
        jobs.iter().map(over).collect()
    }

    /// Those of these jobs that are over, and when they were. One whose shard does not answer may not be.
    async fn over_anywhere(&self, here: u16, mut jobs: Vec<Id>) -> Result<Vec<(Id, i64)>, ApiError> {
        jobs.sort_unstable_by_key(|job| job.place().shard());
        let mut found = Vec::new();
        for jobs in jobs.chunk_by(|a, b| a.place().shard() == b.place().shard()) {
            let shard = jobs[0].place().shard();
            let asked =
                if shard == here { self.over(jobs) } else { super::ask(&self.env, shard, Op::Over, &jobs).await };
            match asked {
                Ok(over) => found.extend(jobs.iter().zip(over).filter_map(|(job, at)| Some((*job, at?)))),
                Err(error) => console_error!("uploads: shard {shard} does not say which jobs are over: {error}"),
            }
        }
        Ok(found)
    }

    async fn put_together(&self, row: &ReceivedRow) -> Result<(), ApiError> {
        let parts = self.received_parts(row.id)?;
        let missing = row.layout.missing(&parts.iter().map(|(number, _)| *number).collect::<Vec<_>>());
        if !missing.is_empty() {
            return Err(short(&missing));
        }
        let parts =
            parts.into_iter().filter_map(|(number, etag)| Some(UploadedPart::new(number.try_into().ok()?, etag)));
        let (bucket, key) = (self.env.bucket("MEDIA")?, key(row.id));
        let upload = bucket.resume_multipart_upload(key.as_str(), row.upload_id.as_str())?;
        // Storage answers alike for a second completion and for bad parts: the size decides.
        if let Err(error) = upload.complete(parts.collect::<Vec<_>>()).await {
            console_error!("complete {key}: {error}");
        }
        match bucket.head(key.as_str()).await?.map(|object| object.size()) {
            Some(size) if size == row.layout.size => Ok(()),
            _ => {
                let message = "storage could not put the parts together; try again, and if it stays so, upload anew";
                Err(ApiError::new(Code::Unavailable, message))
            }
        }
    }

    /// Looks at a file whose time has come: it stays while a job that named it is not over and for some days after that, and is
    /// deleted then. What cannot be deleted now is tried again in a minute.
    pub(super) async fn look_at_received(&self, row: ReceivedRow) -> Result<(), ApiError> {
        const USERS: i64 = 100;
        const AGAIN_MS: i64 = 60_000;
        let (id, looked_at) = (row.id, row.drop_at);
        let over = self.over_anywhere(id.place().shard(), self.received_users(id, USERS)?).await?;
        // Time has passed: a job may have named it meanwhile, or may be about to. No await until `deleting` is written, so
        // that none does after.
        let (now, look_ms) = (config::now(), config::look_at_uploads_ms(&self.env));
        let Some(mut row) = self.any_received(id)?.filter(|row| row.drop_at == looked_at) else { return Ok(()) };
        for (job, at) in over {
            row.over_ms = row.over_ms.max(Some(at));
            self.delete_received_user(id, job)?;
        }
        let in_use = !self.received_users(id, 1)?.is_empty();
        match Due::of(in_use, row.over_ms.map(UnixMs), row.kept_ms, look_ms, now) {
            Due::Keep(until) => return self.put_received(&ReceivedRow { drop_at: until.0, ..row }),
            Due::Delete => row.deleting = true,
        }
        row.drop_at = now.plus(AGAIN_MS).0;
        self.put_received(&row)?;
        let (bucket, key) = (self.env.bucket("MEDIA")?, key(id));
        if !row.used {
            // One that is gone cannot be aborted, and need not.
            let _ = bucket.resume_multipart_upload(key.as_str(), row.upload_id.as_str())?.abort().await;
        }
        if let Err(error) = bucket.delete(key.as_str()).await {
            console_error!("delete {key}: {error}");
            return Ok(());
        }
        self.delete_received_parts(id)?;
        self.delete_received(id)
    }

    fn shown_received(&self, row: ReceivedRow, origin: &str) -> Result<UploadView, ApiError> {
        let ReceivedRow { id, filename, layout, upload_id, used, drop_at, kept_ms, .. } = row;
        let in_use = used && !self.received_users(id, 1)?.is_empty();
        let expires_ms = if in_use { drop_at.max(config::now().plus(kept_ms).0) } else { drop_at };
        let arrived = if used {
            (1..=layout.parts()).collect()
        } else {
            self.received_parts(id)?.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
        };
        let signer = files::Signer::new(&self.env, origin)?;
        let upload = Upload { key: key(id), upload_id };
        let parts =
            layout.missing(&arrived).into_iter().map(|number| signer.part_until(&upload, number, drop_at / 1000));
        Ok(UploadView {
            upload_id: id,
            filename,
            size: layout.size,
            part_size: layout.part_size,
            parts: parts.collect(),
            arrived,
            expires_at: UnixMs(expires_ms),
        })
    }
}

fn short(missing: &[u32]) -> ApiError {
    const SHOWN: usize = 10;
    let shown: Vec<_> = missing.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if missing.len() > SHOWN { format!(" and {} more", missing.len() - SHOWN) } else { String::new() };
    let message = format!(
        "input.uploadId: parts {}{more} have not arrived; read the upload for their URLs, send them, and create the job again",
        shown.join(", ")
    );
    ApiError::new(Code::Conflict, message)
}
