//! Where outputs are kept: the managed bucket, or one of the caller's own.

use worker::{Bucket, Env, HttpMetadata, UploadedPart, console_error};
use xora_shared::{
    job::view::OwnBucket,
    protocol::{PartDone, PartTarget},
    request::Headers,
    s3::{Call, Verdict},
};

use crate::{
    config,
    error::{ApiError, Code},
    routes::files::Signer,
    s3::{Opened, Trouble},
    shard::Upload,
};

/// See the module.
pub enum Storage {
    /// The managed bucket, through its binding. Where the deployment says how, nodes write past the Worker.
    Managed {
        /// The binding.
        bucket: Bucket,
        /// The same bucket, as nodes reach it.
        direct: Option<Opened>,
    },
    /// A bucket of the caller's.
    Own(OwnBucket, Opened),
}

impl Storage {
    /// The managed bucket.
    pub fn managed(env: &Env) -> Result<Self, ApiError> {
        Ok(Self::Managed { bucket: env.bucket("MEDIA")?, direct: Opened::managed(env) })
    }

    /// Which bucket of the caller's it is, if it is one.
    pub fn own(self) -> Option<OwnBucket> {
        match self {
            Self::Managed { .. } => None,
            Self::Own(own, _) => Some(own),
        }
    }

    /// Whether nodes must judge its addresses.
    pub const fn foreign(&self) -> bool {
        match self {
            Self::Managed { .. } => false,
            Self::Own(..) => true,
        }
    }

    /// Opens a multipart upload. Answers its id.
    pub async fn create(&self, key: &str, content_type: &str) -> Result<String, ApiError> {
        match self {
            Self::Managed { bucket, .. } => {
                let metadata = HttpMetadata { content_type: Some(content_type.to_owned()), ..HttpMetadata::default() };
                let upload = bucket.create_multipart_upload(key).http_metadata(metadata).execute().await?;
                Ok(upload.upload_id().await)
            }
            Self::Own(_, opened) => Ok(opened.create(key, content_type).await?),
        }
    }

    /// The same storage where it said, in a 307 to a node, that it is for now.
    pub fn moved(self, location: &str) -> Result<Self, ApiError> {
        Ok(match self {
            Self::Managed { bucket, direct } => {
                Self::Managed { bucket, direct: direct.map(|opened| opened.moved(location)).transpose()? }
            }
            Self::Own(own, opened) => Self::Own(own, opened.moved(location)?),
        })
    }

    /// Where a node puts one part.
    pub fn target(&self, signer: &Signer, upload: &Upload, number: u32) -> Result<PartTarget, ApiError> {
        match self {
            Self::Managed { direct: None, .. } => Ok(signer.part(upload, number)),
            Self::Managed { direct: Some(opened), .. } | Self::Own(_, opened) => {
                let mut headers = Headers::new();
                let url = if upload.upload_id.is_empty() {
                    let once = opened.presign_once(&upload.key, signer.part_seconds()).map_err(Trouble::from)?;
                    let (url, (name, value)) = once;
                    headers.insert(name.to_owned(), value.to_owned());
                    url
                } else {
                    let text = number.to_string();
                    let query = [("partNumber", text.as_str()), ("uploadId", upload.upload_id.as_str())];
                    let call = Call { method: "PUT", key: &upload.key, query: &query };
                    opened.presign(call, signer.part_seconds()).map_err(Trouble::from)?
                };
                Ok(PartTarget { number, url, headers })
            }
        }
    }

    /// Puts an object together. Answers its size where storage says it. It answers alike for a second completion, an unknown
    /// upload and bad parts: whether the object stands is seen by its size.
    pub async fn complete(&self, upload: &Upload, parts: &[PartDone]) -> Result<Option<u64>, ApiError> {
        let Upload { key, upload_id } = upload;
        match self {
            Self::Managed { bucket, .. } => {
                let parts = parts.iter().map(uploaded).collect::<Result<Vec<_>, ApiError>>()?;
                let upload = bucket.resume_multipart_upload(key.as_str(), upload_id.as_str())?;
                Ok(match upload.complete(parts).await {
                    Ok(object) => Some(object.size()),
                    Err(error) => {
                        console_error!("complete {key}: {error}");
                        None
                    }
                })
            }
            Self::Own(_, opened) => match opened.complete(key, upload_id, parts).await {
                Ok(()) => Ok(None),
                Err(trouble) => {
                    console_error!("complete {key}: {trouble}");
                    let size = opened.size(key).await?;
                    if size.is_some() { Ok(size) } else { Err(trouble.into()) }
                }
            },
        }
    }

    /// The size of an object, if it stands.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, ApiError> {
        match self {
            Self::Managed { bucket, .. } => Ok(bucket.head(key).await?.map(|object| object.size())),
            Self::Own(_, opened) => Ok(opened.size(key).await?),
        }
    }

    /// Where a node reads an object back.
    pub fn read_url(&self, signer: &Signer, key: &str) -> Result<String, ApiError> {
        match self {
            Self::Managed { .. } => Ok(signer.read_url(key)),
            Self::Own(_, opened) => {
                let call = Call { method: "GET", key, query: &[] };
                Ok(opened.presign(call, signer.part_seconds()).map_err(Trouble::from)?)
            }
        }
    }

    /// Removes an object and the upload that was to make it, whichever of the two there is.
    pub async fn remove(&self, upload: &Upload) -> Result<(), ApiError> {
        self.abort(upload).await;
        match self {
            Self::Managed { bucket, .. } => Ok(bucket.delete(upload.key.as_str()).await?),
            Self::Own(_, opened) => Ok(opened.delete(&upload.key).await?),
        }
    }

    /// Aborts a multipart upload. One that is complete or gone cannot be aborted, and need not.
    pub async fn abort(&self, Upload { key, upload_id }: &Upload) {
        match self {
            _ if upload_id.is_empty() => {}
            Self::Managed { bucket, .. } => {
                if let Ok(upload) = bucket.resume_multipart_upload(key.as_str(), upload_id.as_str()) {
                    let _ = upload.abort().await;
                }
            }
            Self::Own(_, opened) => {
                if let Err(trouble) = opened.abort(key, upload_id).await {
                    console_error!("abort {key}: {trouble}");
                }
            }
        }
    }
}

/// R2 names parts without the quotes that HTTP puts around an ETag.
fn uploaded(part: &PartDone) -> Result<UploadedPart, ApiError> {
    let number = u16::try_from(part.number).map_err(|_| ApiError::invalid("a part number is over 65535"))?;
    Ok(UploadedPart::new(number, part.etag.trim_matches('"').to_owned()))
}

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> Self {
        let code = match &trouble {
            Trouble::Unavailable(_) => Code::Unavailable,
            Trouble::Refused(said) if said.verdict() == Verdict::Permanent => Code::StorageRefused,
            Trouble::Refused(_) | Trouble::Differs | Trouble::Policy => Code::ValidationError,
        };
        Self::new(code, trouble.to_string())
    }
}

/// A read link for a caller: into an own bucket, or to our own files.
pub struct Links {
    signer: Signer,
    own: Option<(OwnBucket, Option<Opened>)>,
    seconds: i64,
}

impl Links {
    /// Links under an origin, good from now. `own` is the bucket of the job's output if it is the caller's, and what opens it,
    /// if that is still there.
    pub fn new(env: &Env, origin: &str, own: Option<(OwnBucket, Option<Opened>)>) -> Result<Self, ApiError> {
        Ok(Self { signer: Signer::new(env, origin)?, own, seconds: config::file_url_seconds(env) })
    }

    /// A link to read an output. Without what opens its bucket it names the object and opens nothing.
    pub fn read_url(&self, key: &str) -> String {
        let Some((own, opened)) = &self.own else { return self.signer.read_url(key) };
        let call = Call { method: "GET", key, query: &[] };
        let url = match opened {
            Some(opened) => opened.presign(call, self.seconds),
            None => own.bucket.url(key),
        };
        url.unwrap_or_default()
    }
}
