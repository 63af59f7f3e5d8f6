//! Files that callers upload, part by part: a row for each file, and one for each part that is there.

use serde::{Deserialize, Serialize};
use worker::{UploadedPart, console_error};
use xora_shared::{
    id::Id,
    time::UnixMs,
    upload::{Layout, MAX_UNUSED, UploadView, used_ms},
};

use super::{JobShard, Upload, store::ReceivedRow};
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
        let drop_at = config::now().plus(config::upload_ms(&self.env)).0;
        let row = ReceivedRow { id, token_id, filename, layout: Layout::of(size), upload_id, used: false, drop_at };
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
    pub(super) async fn use_received(&self, id: Id) -> Result<(), ApiError> {
        let kept_ms = used_ms(self.settings().await?.input_retention_days);
        let row = self.received(id)?;
        if !row.used {
            self.put_together(&row).await?;
        }
        // Time has passed: the file may have been deleted.
        let row = self.received(id)?;
        self.put_received(&ReceivedRow { used: true, drop_at: config::now().plus(kept_ms).0, ..row })?;
        self.delete_received_parts(id)?;
        self.arm().await
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

    /// Deletes a file whose time is over. What cannot be deleted now is tried again in a minute.
    pub(super) async fn forget_received(&self, row: ReceivedRow) -> Result<(), ApiError> {
        const AGAIN_MS: i64 = 60_000;
        let (bucket, key) = (self.env.bucket("MEDIA")?, key(row.id));
        if !row.used {
            // One that is gone cannot be aborted, and need not.
            let _ = bucket.resume_multipart_upload(key.as_str(), row.upload_id.as_str())?.abort().await;
        }
        let deleted = bucket.delete(key.as_str()).await;
        let now = config::now();
        // A job may have named it in the meantime: then it finds no input, and says so.
        if let Err(error) = deleted {
            console_error!("delete {key}: {error}");
            return self.put_received(&ReceivedRow { drop_at: now.plus(AGAIN_MS).0, ..row });
        }
        self.delete_received_parts(row.id)?;
        self.delete_received(row.id)
    }

    fn shown_received(&self, row: ReceivedRow, origin: &str) -> Result<UploadView, ApiError> {
        let ReceivedRow { id, filename, layout, upload_id, used, drop_at, .. } = row;
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
            expires_at: UnixMs(drop_at),
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
