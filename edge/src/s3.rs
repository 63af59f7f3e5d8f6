//! Calls to buckets that speak S3. Their keys are opened here and go nowhere else.

use std::{fmt, time::Duration};

use worker::Env;
use xora_shared::{
    net::{Policy, check_url},
    protocol::PartDone,
    provider::Provider,
    s3::{Bucket, Call, Keys, NotAUrl, ONCE, Said, Verdict, complete_body, element},
};

use crate::{
    config,
    error::{ApiError, Code},
    exchange::{Answer, Outgoing, exchange},
};

/// How long a bucket may take for an answer: less than the 10 s that a node waits for ours.
const QUICK: Duration = Duration::from_secs(8);
/// How long it may take to put a large object together: with [`QUICK`] for its size, less than the two minutes that a node
/// waits for that.
const SLOW: Duration = Duration::from_secs(100);
/// Most redirects that are followed, each with a signature of its own.
const REDIRECTS: usize = 2;
/// Most bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;

/// A bucket and what opens it.
pub struct Opened {
    bucket: Bucket,
    keys: Keys,
    policy: Policy,
}

/// Why a bucket did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It says no.
    Refused(Said),
    /// It does not answer, or says that it cannot just now.
    Unavailable(Option<Said>),
    /// It does not give back what it took.
    Differs,
    /// Our policy does not permit its URL.
    Policy,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(said) => write!(f, "the bucket answers {said}"),
            Self::Unavailable(Some(said)) => write!(f, "the bucket answers {said}; try again"),
            Self::Unavailable(None) => f.write_str("the bucket does not answer; try again"),
            Self::Differs => f.write_str("the bucket does not keep what is written"),
            Self::Policy => f.write_str("the bucket's endpoint is not allowed here"),
        }
    }
}

impl From<NotAUrl> for Trouble {
    fn from(NotAUrl: NotAUrl) -> Self {
        Self::Policy
    }
}

impl Opened {
    /// The bucket of a storage provider.
    pub fn of(env: &Env, provider: &Provider) -> Result<Self, ApiError> {
        let keys = provider.keys(&config::credentials_secret(env)?).ok_or_else(|| {
            let message = "what opens this storage provider was sealed with another CREDENTIALS_SECRET; add it again";
            ApiError::new(Code::Internal, message)
        })?;
        Ok(Self { bucket: provider.bucket.clone(), keys, policy: config::policy(env) })
    }

    /// The managed bucket, where the deployment says how to reach it past the Worker.
    pub fn managed(env: &Env) -> Option<Self> {
        let (bucket, keys) = config::managed_s3(env)?;
        Some(Self { bucket, keys, policy: config::policy(env) })
    }

    /// A URL that does one call, for a number of seconds.
    pub fn presign(&self, call: Call<'_>, seconds: i64) -> Result<String, NotAUrl> {
        self.bucket.presign(&self.keys, call, seconds, config::now())
    }

    /// A URL that writes an object unless one stands there, for a number of seconds, and the header that it must come with.
    pub fn presign_once(&self, key: &str, seconds: i64) -> Result<(String, (&'static str, &'static str)), NotAUrl> {
        let call = Call { method: "PUT", key, query: &[] };
        Ok((self.bucket.presign_once(&self.keys, call, seconds, config::now())?, ONCE))
    }

    /// The same bucket where its service said, in a 307, that it is for now.
    pub fn moved(&self, location: &str) -> Result<Self, Trouble> {
        let bucket = self.bucket.moved(location).ok_or(Trouble::Policy)?;
        check_url(&bucket.url("")?, self.policy).map_err(|_| Trouble::Policy)?;
        Ok(Self { bucket, keys: self.keys.clone(), policy: self.policy })
    }

    /// Opens a multipart upload. Answers its id.
    pub async fn create(&self, key: &str, content_type: &str) -> Result<String, Trouble> {
        let call = Call { method: "POST", key, query: &[("uploads", "")] };
        let answer = self.call(call, &[("content-type", content_type)], "", QUICK).await?;
        element(&answer.text, "UploadId").filter(|id| !id.is_empty()).ok_or(Trouble::Unavailable(None))
    }

    /// Puts an object together.
    pub async fn complete(&self, key: &str, upload_id: &str, parts: &[PartDone]) -> Result<(), Trouble> {
        let call = Call { method: "POST", key, query: &[("uploadId", upload_id)] };
        let answer = self.call(call, &[("content-type", "application/xml")], &complete_body(parts), SLOW).await?;
        // S3 may find out that it fails after it has begun to answer 200.
        match element(&answer.text, "Code") {
            Some(_) => Err(Trouble::Unavailable(Some(Said::of(answer.status, &answer.text, None)))),
            None => Ok(()),
        }
    }

    /// Gives a multipart upload up. One that is complete or gone is none to give up.
    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<(), Trouble> {
        self.gone(Call { method: "DELETE", key, query: &[("uploadId", upload_id)] }).await
    }

    /// Deletes an object, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), Trouble> {
        self.gone(Call { method: "DELETE", key, query: &[] }).await
    }

    /// The size of an object that has any bytes, if it is there.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, Trouble> {
        // Not HEAD: what is said of a body that is not sent gets lost on the way.
        let call = Call { method: "GET", key, query: &[] };
        match self.call(call, &[("range", "bytes=0-0")], "", QUICK).await {
            Ok(answer) => {
                let range = answer.headers.get("Content-Range").ok().flatten();
                Ok(range.and_then(|range| range.rsplit_once('/')?.1.parse().ok()))
            }
            Err(Trouble::Refused(said)) if is_gone(&said) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Writes a small object.
    pub async fn put(&self, key: &str, text: &str) -> Result<(), Trouble> {
        let call = Call { method: "PUT", key, query: &[] };
        self.call(call, &[("content-type", "text/plain")], text, QUICK).await.map(drop)
    }

    /// Reads a small object.
    pub async fn get(&self, key: &str) -> Result<String, Trouble> {
        Ok(self.call(Call { method: "GET", key, query: &[] }, &[], "", QUICK).await?.text)
    }

    async fn gone(&self, call: Call<'_>) -> Result<(), Trouble> {
        match self.call(call, &[], "", QUICK).await {
            Ok(_) => Ok(()),
            Err(Trouble::Refused(said)) if is_gone(&said) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    async fn call(
        &self,
        call: Call<'_>,
        extra: &[(&'static str, &str)],
        body: &str,
        within: Duration,
    ) -> Result<Answer, Trouble> {
        let mut elsewhere = None;
        for _ in 0..=REDIRECTS {
            let at: &Self = elsewhere.as_ref().unwrap_or(self);
            let signed = at.bucket.sign(&at.keys, call, extra, body.as_bytes(), config::now())?;
            let outgoing = Outgoing { method: call.method, url: &signed.url, headers: &signed.headers, body };
            let answer = exchange(outgoing, within, ANSWER_BYTES).await.map_err(|_| Trouble::Unavailable(None))?;
            let header = |name| answer.headers.get(name).ok().flatten();
            match (answer.status, header("Location")) {
                (200..300, _) if !answer.cut => return Ok(answer),
                (200..300, _) => return Err(Trouble::Unavailable(None)),
                (307, Some(location)) => elsewhere = Some(self.moved(&location)?),
                (status, _) => {
                    let said = Said::of(status, &answer.text, header("x-amz-bucket-region").as_deref());
                    return Err(match said.verdict() {
                        Verdict::Passes => Trouble::Unavailable(Some(said)),
                        Verdict::Broken | Verdict::Permanent => Trouble::Refused(said),
                    });
                }
            }
        }
        Err(Trouble::Refused(Said { status: 307, ..Said::default() }))
    }

    /// Refuses what the policy does not permit: it may have changed since the provider was added.
    pub fn judge(&self) -> Result<(), Trouble> {
        let url = self.bucket.url("")?;
        check_url(&url, self.policy).map(drop).map_err(|_| Trouble::Policy)
    }
}

/// Whether an object or an upload is not there, while its bucket is.
fn is_gone(said: &Said) -> bool {
    said.status == 404 && said.code != "NoSuchBucket"
}
