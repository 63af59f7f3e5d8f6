//! The job as callers see it (API section 4), and the record that it is made from.

use serde::{Deserialize, Serialize};

use super::JobState;
use crate::{
    failure::{Failure, JobCode, Stage},
    id::Id,
    media::{FileType, Format},
    protocol::{NodeResult, Usage},
    report::{Coverage, Strategy, StreamFate},
    request::{Headers, Input, JobRequest},
    s3::Bucket,
    time::UnixMs,
};

/// Everything that is known of a job. Deliveries keep a snapshot of it; signed URLs are made when it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRecord {
    /// The job.
    pub id: Id,
    /// Where it is.
    pub state: JobState,
    /// 0 to 100.
    pub progress: u8,
    /// When it was created, in ms since 1970.
    pub created_ms: i64,
    /// When a node first took it.
    pub started_ms: Option<i64>,
    /// When it reached its terminal state.
    pub finished_ms: Option<i64>,
    /// What was asked for.
    pub request: JobRequest,
    /// Every try so far.
    pub attempts: Vec<Attempt>,
    /// Why it ended badly.
    pub failure: Option<Failure>,
    /// What it made.
    pub result: Option<Published>,
    /// When the output was removed because its time was over. What is known of it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expired_ms: Option<i64>,
}

impl JobRecord {
    /// Where its output stands in the managed bucket, if one does. What stands elsewhere is the caller's own.
    pub fn kept_key(&self) -> Option<&str> {
        let published = self.result.as_ref().filter(|published| published.own.is_none());
        published.filter(|_| self.output_expired_ms.is_none())?.key.as_deref()
    }
}

impl JobRecord {
    /// What a delivery keeps of it: of the inputs only what is itself the result, and no headers.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut snapshot = self.clone();
        if self.result.as_ref().is_none_or(|published| published.key.is_some()) {
            snapshot.request.inputs.clear();
        }
        snapshot.request.forget_headers();
        snapshot
    }
}

/// One try of a task by one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The node's name.
    pub node: String,
    /// When it was leased.
    pub started_ms: i64,
    /// When it ended.
    pub finished_ms: Option<i64>,
    /// How far it came.
    pub stage: Stage,
    /// How it ended, unless it completed or still runs.
    pub end: Option<AttemptEnd>,
}

/// How an attempt ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttemptEnd {
    /// It failed.
    Failed(Failure),
    /// The node was told to stop and gave it back.
    Released,
    /// The node could not do it, for this reason, and gave it back.
    Refused(Failure),
    /// The caller cancelled the job.
    Cancelled,
}

/// A published output: the job refers to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Key in storage, without the prefix of an own bucket; none where the input itself is the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The caller's bucket that it is in. None for the managed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnBucket>,
    /// What the node said of it.
    pub result: NodeResult,
}

/// A bucket of the caller's, as it was when the output was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnBucket {
    /// Which storage provider it was.
    pub provider: Id,
    /// Where it is.
    pub bucket: Bucket,
}

/// A job as it stands. What there is nothing to say of is left out.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "Job"))]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// The job.
    job_id: Id,
    /// Where it is.
    state: JobState,
    /// 0 to 100. Never goes back within an attempt; keeps its value on failure.
    progress: u8,
    /// The result of a completed job.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<SignedOutput>,
    /// What is known of the result.
    #[serde(rename = "output_files", skip_serializing_if = "Option::is_none")]
    output_files: Option<OutputFiles>,
    /// When the files were removed because their time was over; instead of `output` and `output_files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_expired_at: Option<UnixMs>,
    /// Why it failed or was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
    /// When it was created.
    created_at: UnixMs,
    /// When a node first took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<UnixMs>,
    /// When it came to its terminal state.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<UnixMs>,
    /// Your own notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Headers>,
    /// Which way was chosen, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<Strategy>,
    /// Every try so far.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptView>,
    /// Where the time went.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// The receipt: what was found when the result was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
    /// What you should know of the result: that it is not what was asked for in some way, or that something was lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A result.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct SignedOutput {
    /// A link to the file, signed just now; it expires.
    signed_url: String,
}

/// The files that a job made.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct OutputFiles {
    /// The one output.
    output: OutputFile,
}

/// One file that a job made.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct OutputFile {
    /// Names this file.
    file_id: String,
    /// The name that a download gets.
    filename: String,
    /// Bytes / 10⁶, to three decimals.
    size_mbytes: f64,
    /// Size in bytes.
    size_bytes: u64,
    /// Length in seconds; absent for pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    /// What it is.
    file_type: FileType,
    /// Its container.
    file_format: Format,
    /// Its media type.
    mime_type: &'static str,
    /// The main codec.
    codec: String,
    /// In pixels; absent for audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    /// In pixels; absent for audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    /// The same link as `signedUrl`.
    storage_url: String,
}

/// Why a job or an attempt did not succeed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct JobError {
    /// For programs.
    code: JobCode,
    /// For people: what happened and what to do.
    message: String,
    /// Where it happened.
    stage: JobState,
    /// Whether a retry may end differently.
    retryable: bool,
}

/// One try of a job by one node.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "Attempt"))]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    /// The node's name.
    node: String,
    /// When it took the job.
    started_at: UnixMs,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<UnixMs>,
    /// How far it came.
    stage: Stage,
    /// How it ended, unless it completed or still runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<AttemptOutcome>,
    /// Why it failed, or why its node could not do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
}

/// How an attempt ended that neither completed nor still runs.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum AttemptOutcome {
    /// It failed: see `error`.
    Failed,
    /// Its node gave the work back: it was told to stop, or cannot do it; then `error` says why.
    Released,
    /// The caller cancelled the job.
    Cancelled,
}

/// Where the time of a job went, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name on the wire")]
struct Timings {
    /// From creation until a node took it.
    queue_ms: i64,
    /// From there until the first bytes of the input were there.
    fetch_ms: i64,
    /// From there until the last byte was produced.
    process_ms: i64,
    /// From there until the result stood and was verified.
    upload_ms: i64,
}

/// What was found when the result was read back.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Verification {
    /// How much of the result was read back.
    coverage: Coverage,
    /// Length as read back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    /// Pictures as read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<u64>,
    /// Start of sound minus start of pictures, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    av_offset_us: Option<i64>,
    /// SHA-256 of the file in hexadecimal; of the digests of its parts where `sha256PartSize` is given. Absent where the
    /// input itself is the result: it was not read whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Bytes of one part under `sha256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_part_size: Option<u64>,
    /// What became of every stream of the input.
    streams: Vec<StreamFate>,
    /// What you should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl JobView {
    /// Shows a record. `sign` makes a URL of a storage key, good from now.
    pub fn of(record: JobRecord, sign: impl Fn(&str) -> String) -> Self {
        let JobRecord {
            id,
            state,
            progress,
            created_ms,
            started_ms,
            finished_ms,
            request,
            attempts,
            failure,
            result,
            output_expired_ms,
        } = record;
        let queue_ms = started_ms.map_or(0, |started| UnixMs(started).since(UnixMs(created_ms)));
        let mut view = Self {
            job_id: id,
            state,
            progress,
            output: None,
            output_files: None,
            output_expired_at: output_expired_ms.map(UnixMs),
            error: failure.as_ref().map(JobError::of),
            created_at: UnixMs(created_ms),
            started_at: started_ms.map(UnixMs),
            finished_at: finished_ms.map(UnixMs),
            metadata: request.metadata,
            strategy: None,
            attempts: attempts.iter().map(AttemptView::of).collect(),
            timings: None,
            usage: None,
            verification: None,
            warnings: Vec::new(),
        };
        if let Some(Published { key, own: _, result }) = result {
            // Without a key the caller's own file is the result, at the caller's own address.
            let url = match (key, request.inputs.into_iter().next()) {
                _ if output_expired_ms.is_some() => None,
                (Some(key), _) => Some(sign(&key)),
                (None, Some(Input::Url { url, .. })) => Some(url),
                (None, Some(Input::Upload { .. }) | None) => None,
            };
            view.output = url.clone().map(|signed_url| SignedOutput { signed_url });
            view.output_files = url.map(|url| OutputFiles { output: OutputFile::of(id, &result, url) });
            view.timings = Some(Timings {
                queue_ms,
                fetch_ms: result.timings.fetch_ms,
                process_ms: result.timings.process_ms,
                upload_ms: result.timings.upload_ms,
            });
            view.usage = Some(result.usage);
            view.strategy = Some(result.strategy.clone());
            view.warnings.clone_from(&result.warnings);
            view.verification = Some(Verification::of(result));
        }
        view
    }
}

impl OutputFile {
    fn of(job: Id, result: &NodeResult, storage_url: String) -> Self {
        let facts = &result.facts;
        Self {
            file_id: format!("{job}-output"),
            filename: format!("output.{}", facts.format.extension()),
            size_mbytes: thousandths(result.bytes / 1_000 + u64::from(result.bytes % 1_000 >= 500)),
            size_bytes: result.bytes,
            duration: facts.duration_us.map(|us| thousandths((us + 500) / 1_000)),
            file_type: facts.file_type,
            file_format: facts.format,
            mime_type: facts.format.mime_type(),
            codec: facts.codec.clone(),
            width: facts.width,
            height: facts.height,
            storage_url,
        }
    }
}

/// A count of thousandths as the nearest number with three decimals.
fn thousandths(count: u64) -> f64 {
    count as f64 / 1_000.0
}

impl JobError {
    fn of(failure: &Failure) -> Self {
        let verdict = failure.kind.verdict();
        Self {
            code: verdict.code,
            message: failure.message.clone(),
            stage: failure.stage.job_state(),
            retryable: verdict.retryable,
        }
    }
}

impl AttemptView {
    fn of(attempt: &Attempt) -> Self {
        let (outcome, error) = match &attempt.end {
            None => (None, None),
            Some(AttemptEnd::Failed(failure)) => (Some(AttemptOutcome::Failed), Some(JobError::of(failure))),
            Some(AttemptEnd::Released) => (Some(AttemptOutcome::Released), None),
            Some(AttemptEnd::Refused(failure)) => (Some(AttemptOutcome::Released), Some(JobError::of(failure))),
            Some(AttemptEnd::Cancelled) => (Some(AttemptOutcome::Cancelled), None),
        };
        Self {
            node: attempt.node.clone(),
            started_at: UnixMs(attempt.started_ms),
            finished_at: attempt.finished_ms.map(UnixMs),
            stage: attempt.stage,
            outcome,
            error,
        }
    }
}

impl Verification {
    fn of(result: NodeResult) -> Self {
        Self {
            coverage: result.verified.coverage,
            duration_us: result.verified.duration_us,
            frames: result.verified.frames,
            av_offset_us: result.verified.av_offset_us,
            sha256: result.sha256,
            sha256_part_size: result.sha256_part_size,
            streams: result.streams,
            warnings: result.warnings,
        }
    }
}
