//! What nodes and the edge say to each other, as JSON over HTTP under `/v1/node`.
//!
//! Tolerant on both sides: unknown fields are ignored, because the two deploy at different times. A message about a
//! task carries its [`Hold`]; a stale one is answered 409 with the job's state, and the node drops the work at once.

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Stage},
    id::Id,
    job::lease::{Clock, Hold},
    media::{Format, Wanted},
    report::{OutputFacts, Strategy, StreamFate, VerifyReport},
    request::Headers,
};

/// Where everything that nodes ask for is.
pub const PREFIX: &str = "/v1/node/";
/// `POST /v1/node/lease`
pub const LEASE: &str = "/v1/node/lease";
/// `POST /v1/node/heartbeat`
pub const HEARTBEAT: &str = "/v1/node/heartbeat";
/// `POST /v1/node/outputs/begin`
pub const OUTPUT_BEGIN: &str = "/v1/node/outputs/begin";
/// `POST /v1/node/outputs/targets`
pub const OUTPUT_TARGETS: &str = "/v1/node/outputs/targets";
/// `POST /v1/node/outputs/finish`
pub const OUTPUT_FINISH: &str = "/v1/node/outputs/finish";
/// `POST /v1/node/inputs/begin`
pub const INPUT_BEGIN: &str = "/v1/node/inputs/begin";
/// `POST /v1/node/inputs/finish`
pub const INPUT_FINISH: &str = "/v1/node/inputs/finish";
/// `POST /v1/node/complete`
pub const COMPLETE: &str = "/v1/node/complete";
/// `POST /v1/node/fail`
pub const FAIL: &str = "/v1/node/fail";
/// `POST /v1/node/release`
pub const RELEASE: &str = "/v1/node/release";
/// `GET /v1/node/wake?shard=…&node=…`, a WebSocket: every text message means "heartbeat now, then look for work".
pub const WAKE: &str = "/v1/node/wake";

/// Request header with the node's name, encoded by [`name_for_header`]. A message about a lease that another name took is
/// stale. A message without the header is judged by the node's key alone.
pub const NODE_NAME: &str = "x-xora-node";

/// A node's name as it stands in [`NODE_NAME`]: URL-encoded, because header values are ASCII.
pub fn name_for_header(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// Largest part that the edge takes, in bytes.
pub const MAX_PART: u64 = 90 << 20;

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Chosen by the operator, or the host's name and a random part. Stands in `attempts`.
    pub name: String,
    /// Version of the node's software.
    pub version: String,
    /// Encoders that were opened for real at start, by libav's names.
    pub encoders: Vec<String>,
    /// How its job processes are isolated; nodes of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxLevel>,
}

/// How the processes of a node that decode and encode are isolated from the rest of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SandboxLevel {
    /// Resource limits, system call filters and Landlock: no files, no sockets, no other process.
    Strict,
    /// Resource limits only.
    Basic,
    /// Not at all.
    Off,
}

/// Asks for one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRequest {
    /// Who asks.
    pub node: NodeInfo,
    /// Whether it has no room for a task that is known to encode moving pictures.
    #[serde(default)]
    pub light_only: bool,
}

/// The answer: a task, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseAnswer {
    /// The task, if there was one.
    pub lease: Option<Lease>,
    /// How many shards there are: the node keeps one wake-up socket to each.
    pub shards: u16,
}

/// A task and the right to do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// What to show with every message.
    pub hold: Hold,
    /// The job, for logs.
    pub job_id: Id,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The rules of time.
    pub clock: Clock,
    /// Where the inputs are, in their order.
    pub inputs: Vec<InputAt>,
    /// What is wanted.
    pub wanted: Wanted,
    /// Whether inputs that are read whole are to be kept in storage, for whoever works on the job after this node.
    #[serde(default)]
    pub stage_input: bool,
    /// Whether the input itself may be the result, by
    /// [`JobRequest::may_pass_through`](crate::request::JobRequest::may_pass_through). An edge that does not say so gets
    /// a copy.
    #[serde(default)]
    pub pass_through: bool,
}

/// Where an input is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputAt {
    /// Absolute URL; the node judges it again, and every hop and address behind it.
    pub url: String,
    /// Headers for the origin. Secret: never logged.
    #[serde(default)]
    pub headers: Headers,
    /// Whether the edge itself serves it: then it is trusted as the edge is, wherever that is.
    #[serde(default)]
    pub ours: bool,
}

/// All leases of one node, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// Who speaks.
    pub node: NodeInfo,
    /// What it holds.
    pub leases: Vec<Beat>,
}

/// One lease in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// The lease.
    pub hold: Hold,
    /// Where the work is.
    pub stage: Stage,
    /// 0 to 99, by media time.
    pub progress: u8,
}

/// The answer: one word for each lease, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatAnswer {
    /// See [`Word`].
    pub words: Vec<Word>,
}

/// What a node does with a lease from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Renewed.
    Continue,
    /// The caller cancelled the job: kill the work.
    Cancel,
    /// Someone else's now, or over: kill the work.
    Lost,
    /// The edge cannot say, because the lease's shard did not answer: go on. So is a word of a later version.
    #[serde(other)]
    Unknown,
}

/// Opens the output of a task. Repeated under the same fence it starts a new upload and drops the earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputBegin {
    /// The lease.
    pub hold: Hold,
    /// What is written.
    pub format: Format,
    /// Bytes of every part but the last, 5 MiB to [`MAX_PART`].
    pub part_size: u64,
    /// Whether one part is expected to hold all of it.
    #[serde(default)]
    pub single: bool,
}

/// Where the first parts go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputBegun {
    /// Parts in order, as many as the edge sees fit.
    pub targets: Vec<PartTarget>,
    /// Where to read the output back as soon as it is at the first target, which takes all of it: there is nothing to
    /// finish then. One that proves longer is begun again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_url: Option<String>,
    /// How long they are good from now, in seconds: ask again before that is over.
    #[serde(default = "hour")]
    pub good_for_seconds: u64,
    /// Whether they are in a bucket of the caller's: then their addresses are judged as those of inputs are.
    #[serde(default)]
    pub foreign: bool,
}

/// What targets were good for before they said so.
const fn hour() -> u64 {
    3600
}

/// Asks for targets of further parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputTargets {
    /// The lease.
    pub hold: Hold,
    /// First part number wanted, from 1.
    pub from: u32,
    /// Where the bucket said that the part is to be sent for now: the `Location` of its 307. The signature of a target
    /// covers its host, so that nobody can follow without another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
}

/// Where one part goes: `PUT` its bytes there, with a `Content-Length`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PartTarget {
    /// Part number, from 1.
    pub number: u32,
    /// Absolute URL, good for as long as the answer says.
    pub url: String,
    /// Headers to send with it.
    pub headers: Headers,
}

/// Every part is there: put the object together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFinish {
    /// The lease.
    pub hold: Hold,
    /// Size of the object, in bytes.
    pub bytes: u64,
    /// The parts, in order.
    pub parts: Vec<PartDone>,
}

/// Opens the copy of an input that is kept for later attempts. Answered by [`InputBegun`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputBegin {
    /// The lease.
    pub hold: Hold,
    /// Which of the job's inputs, from 0.
    pub input: u32,
    /// Its parts, all but the last of the same size: 1 to [`MAX_INPUT_PARTS`].
    pub parts: u32,
}

/// Where all parts of the copy go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputBegun {
    /// Parts in order, good for a day.
    pub targets: Vec<PartTarget>,
}

/// Most parts of the copy of an input.
pub const MAX_INPUT_PARTS: u32 = 1000;

/// The copy is whole: from now on, attempts read it instead of the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputFinish {
    /// The lease.
    pub hold: Hold,
    /// Which of the job's inputs, from 0.
    pub input: u32,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The parts, in order.
    pub parts: Vec<PartDone>,
}

/// One uploaded part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartDone {
    /// Part number, from 1.
    pub number: u32,
    /// As storage answered.
    pub etag: String,
}

/// The object stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFinished {
    /// Where to read it back for verification. The job does not refer to it yet.
    pub read_url: String,
    /// As in [`OutputBegun`].
    #[serde(default)]
    pub foreign: bool,
}

/// The work is done and verified: make the job refer to the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Complete {
    /// The lease.
    pub hold: Hold,
    /// What was made.
    pub result: NodeResult,
}

/// What a completed task leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResult {
    /// For `output_files`.
    pub facts: OutputFacts,
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hex SHA-256: of the object up to 64 MiB, above that of the concatenated digests of its parts. None where
    /// the input itself is the result ([`StrategyKind::Passthrough`](crate::report::StrategyKind::Passthrough)): it was
    /// not read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Part size under [`Self::sha256`] in bytes, when it is over parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_part_size: Option<u64>,
    /// Which way, and why.
    pub strategy: Strategy,
    /// What became of every stream.
    pub streams: Vec<StreamFate>,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// The receipt.
    pub verified: VerifyReport,
    /// Where the time went.
    pub timings: NodeTimings,
    /// What it cost.
    pub usage: Usage,
}

/// Where an attempt's time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTimings {
    /// From the lease until the first bytes of the input were there.
    pub fetch_ms: i64,
    /// From there until the last byte was produced.
    pub process_ms: i64,
    /// From there until the object stood and was verified.
    pub upload_ms: i64,
}

/// What an attempt cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// User and system time of the job processes, in seconds.
    pub cpu_seconds: f64,
    /// Bytes read from origins.
    pub bytes_read: u64,
    /// Bytes sent to storage.
    pub bytes_written: u64,
    /// Highest resident memory of a job process, in bytes.
    #[serde(default)]
    pub peak_memory_bytes: u64,
}

/// The attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fail {
    /// The lease.
    pub hold: Hold,
    /// Why.
    pub failure: Failure,
}

/// The task goes back unharmed and costs no attempt: the node is told to stop, or cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The lease.
    pub hold: Hold,
    /// Whether the plan says that it encodes moving pictures, and this node has no room for that now.
    #[serde(default)]
    pub heavy: bool,
    /// Why this node cannot do it while another node may. Absent when the node is told to stop, from nodes that are older
    /// than this field, and beside `heavy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReleaseReason>,
}

/// Why a node cannot do a task that another node may be able to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseReason {
    /// What the node lacks.
    pub lack: Lack,
    /// Whether the node lacks it for as long as it is configured as it is. False for a condition that passes, such as a
    /// disk that other jobs fill: that never ends a job, however many nodes say so.
    pub lasting: bool,
    /// What the job ends with if no node can do it. Its message names the limit, and how much the job needs.
    pub failure: Failure,
}

/// What a node may lack for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lack {
    /// Disk space for what it has to keep.
    Disk,
    /// Memory.
    Memory,
    /// An encoder or a muxer.
    Encoder,
    /// A decoder.
    Decoder,
    /// A filter.
    Filter,
    /// A free place beside its other tasks.
    Room,
    /// Permission: its operator set a limit, or does not allow an address.
    Policy,
    /// Something that a newer node knows.
    #[serde(other)]
    Other,
}
