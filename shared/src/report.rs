//! What a node reports of finished work: the output, why it was made that way, and the receipt of its verification.
//! The edge stores these as they are; callers see them on the job.

use serde::{Deserialize, Serialize};

use crate::media::{FileType, Format};

/// Which way was chosen, and why, in words that a caller understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// The way.
    pub kind: StrategyKind,
    /// Why this way, and what was adjusted.
    pub reasons: Vec<String>,
}

/// Ways to make an output, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StrategyKind {
    /// The input is the result.
    Passthrough,
    /// The packets of the whole file are copied into a new container.
    Remux,
    /// Packets are copied out of a longer file, or pictures are copied beside sound that is encoded.
    Copy,
    /// Re-encoded around the cut only.
    SmartCut,
    /// Pictures, or sound without them, are decoded and encoded.
    Encode,
}

/// What is known of one output file, for `output_files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFacts {
    /// What it is: a video without pictures is audio.
    pub file_type: FileType,
    /// Its container.
    pub format: Format,
    /// libav's name of the main codec (`h264`, `aac`, `mjpeg`).
    pub codec: String,
    /// Length in microseconds; none for pictures.
    pub duration_us: Option<u64>,
    /// Pixels; none for audio.
    pub width: Option<u32>,
    /// Pixels; none for audio.
    pub height: Option<u32>,
}

/// What verification must find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// The container.
    pub format: Format,
    /// The size in bytes, as written.
    pub bytes: u64,
    /// The picture track, if there is one.
    pub video: Option<ExpectedVideo>,
    /// The sound track, if there is one.
    pub audio: Option<ExpectedAudio>,
    /// How many chapters there are.
    pub chapters: u64,
    /// Whether there is a cover.
    pub cover: bool,
}

/// What the picture track must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedVideo {
    /// libav's name of the codec.
    pub codec: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Packets of the track, each a picture.
    pub frames: u64,
    /// First presentation time in the output, in microseconds.
    pub start_us: i64,
    /// From the first picture's start to the last one's end, in microseconds.
    pub duration_us: u64,
    /// Where pictures that were encoded meet others that were copied, in microseconds: decoding has to pass unharmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joints_us: Vec<i64>,
}

/// What the sound track must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedAudio {
    /// libav's name of the codec.
    pub codec: String,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u32,
    /// Samples (per channel) that went into the encoder, or that copied packets last.
    pub samples: u64,
    /// First presentation time in the output, in microseconds.
    pub start_us: i64,
}

/// What became of one stream of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StreamFate {
    /// The input, by index.
    pub input: u32,
    /// The stream in it, by index.
    pub stream: u32,
    /// What it is: `video h264 1280x720`.
    pub what: String,
    /// What became of it.
    pub fate: Fate,
    /// Why, where that is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What can become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Copied as it is.
    Kept,
    /// Encoded anew.
    Converted,
    /// Left out.
    Dropped,
}

/// What a job process made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// For `output_files`.
    pub facts: OutputFacts,
    /// What the second process must find.
    pub expect: Expectation,
    /// Every stream of every input.
    pub streams: Vec<StreamFate>,
    /// What a caller should know: corrupt packets skipped, timestamps repaired.
    pub warnings: Vec<String>,
}

/// What is said of an input that is the result as it stands: nothing was made or stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unchanged {
    /// Why nothing has to be done.
    pub strategy: Strategy,
    /// For `output_files`.
    pub facts: OutputFacts,
    /// Every stream.
    pub streams: Vec<StreamFate>,
    /// What a caller should know.
    pub warnings: Vec<String>,
    /// What was seen of it.
    pub verified: VerifyReport,
}

/// How much of the output verification looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// All of it.
    Full,
    /// The index or header, and the first and the last pictures and sound.
    Edges,
}

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// How much was looked at.
    pub coverage: Coverage,
    /// Length as read back, in microseconds; none for pictures.
    pub duration_us: Option<u64>,
    /// Pictures as read back.
    pub frames: Option<u64>,
    /// Start of sound minus start of pictures as read back, in microseconds, when there are both.
    pub av_offset_us: Option<i64>,
}
