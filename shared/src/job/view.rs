//! The job as callers see it (API section 4), and the record that it is made from.

use serde::{Deserialize, Serialize};

use super::JobState;
use crate::{
    failure::{Failure, JobCode, Stage},
    id::Id,
    media::{FileType, Format},
    protocol::{NodeResult, Usage},
    report::{Coverage, Strategy, StreamFate},
    request::{Headers, JobRequest},
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
    /// The caller cancelled the job.
    Cancelled,
}

/// A published output: the job refers to this key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Key in storage.
    pub key: String,
    /// What the node said of it.
    pub result: NodeResult,
}

/// API section 4, as JSON. What is absent is left out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    job_id: Id,
    state: JobState,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<SignedOutput>,
    #[serde(rename = "output_files", skip_serializing_if = "Option::is_none")]
    output_files: Option<OutputFiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
    created_at: UnixMs,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<UnixMs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<UnixMs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Headers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<Strategy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedOutput {
    signed_url: String,
}

#[derive(Clone, Debug, Serialize)]
struct OutputFiles {
    output: OutputFile,
}

#[derive(Clone, Debug, Serialize)]
struct OutputFile {
    file_id: String,
    filename: String,
    size_mbytes: f64,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    file_type: FileType,
    file_format: Format,
    mime_type: &'static str,
    codec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    storage_url: String,
}

#[derive(Clone, Debug, Serialize)]
struct JobError {
    code: JobCode,
    message: String,
    stage: JobState,
    retryable: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    node: String,
    started_at: UnixMs,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<UnixMs>,
    stage: Stage,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name on the wire")]
struct Timings {
    queue_ms: i64,
    fetch_ms: i64,
    process_ms: i64,
    upload_ms: i64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    coverage: Coverage,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    av_offset_us: Option<i64>,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_part_size: Option<u64>,
    streams: Vec<StreamFate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl JobView {
    /// Shows a record. `sign` makes a URL of a storage key, good from now.
    pub fn of(record: JobRecord, sign: impl Fn(&str) -> String) -> Self {
        let JobRecord { id, state, progress, created_ms, started_ms, finished_ms, request, attempts, failure, result } =
            record;
        let queue_ms = started_ms.map_or(0, |started| UnixMs(started).since(UnixMs(created_ms)));
        let mut view = Self {
            job_id: id,
            state,
            progress,
            output: None,
            output_files: None,
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
        };
        if let Some(Published { key, result }) = result {
            let url = sign(&key);
            view.output = Some(SignedOutput { signed_url: url.clone() });
            view.output_files = Some(OutputFiles { output: OutputFile::of(id, &result, url) });
            view.timings = Some(Timings {
                queue_ms,
                fetch_ms: result.timings.fetch_ms,
                process_ms: result.timings.process_ms,
                upload_ms: result.timings.upload_ms,
            });
            view.usage = Some(result.usage);
            view.strategy = Some(result.strategy.clone());
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
            Some(AttemptEnd::Failed(failure)) => (Some("failed"), Some(JobError::of(failure))),
            Some(AttemptEnd::Released) => (Some("released"), None),
            Some(AttemptEnd::Cancelled) => (Some("cancelled"), None),
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
