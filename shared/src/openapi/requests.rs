//! Bodies of callers' requests, as types. The strict parsers in [`crate::request`] and beside it read JSON directly, to
//! name every problem at once; the tests below hold these types and the parsers against each other, in both directions.
#![expect(dead_code, reason = "only their schemas are used")]

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::{
    delivery::Schedule,
    id::Id,
    media::{Format, VideoCodec},
    request::Headers,
    token::Scope,
};

/// A job: what to do with which input.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "CreateJob")]
pub enum JobBody {
    /// A recipe, spelled out.
    Recipe(RecipeJob),
    /// A preset, and what differs from it.
    Preset(PresetJob),
}

/// A job that says itself what to do.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipeJob {
    /// How the work is described.
    pub mode: Mode,
    /// Where the input is. Required, but for `concat`.
    pub input: Option<Input>,
    /// The inputs of `concat`, 2 to 32, joined in the order in which they stand here. Names are `in_` and letters, digits
    /// or underscores; values are public https URLs.
    #[schemars(rename = "input_files", extend("minProperties" = 2, "maxProperties" = 32))]
    pub input_files: Option<Map<String, Value>>,
    /// What to write.
    pub output: Output,
    /// What to do.
    pub recipe: Recipe,
    #[schemars(flatten)]
    pub options: Options,
}

/// A job that runs a preset. Fields that are given override the preset's; null takes away what it says.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct PresetJob {
    /// A preset or starter.
    #[schemars(length(min = 1, max = 64))]
    pub preset_id: String,
    /// Where the input is. Required, but for `concat`.
    pub input: Option<Input>,
    /// The inputs of `concat`, as in a job without a preset.
    #[schemars(rename = "input_files", extend("minProperties" = 2, "maxProperties" = 32))]
    pub input_files: Option<Map<String, Value>>,
    /// How the work is described.
    pub mode: Option<Mode>,
    /// What to write instead.
    pub output: Option<Output>,
    /// Parameters of the preset's recipe, or another recipe with its `name`.
    pub recipe: Option<Map<String, Value>>,
    #[schemars(flatten)]
    pub options: Options,
}

/// What every job may say besides.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Options {
    /// Whether what is read of the input may be kept in storage for retries. Default: true.
    pub stage_input: Option<bool>,
    /// Where this job's webhook goes, instead of the default: a public https URL.
    #[schemars(length(max = 8192))]
    pub webhook_url: Option<String>,
    /// Your own notes, at most 16; they come back on the job and in webhooks. Names of 1 to 64 characters, values of at
    /// most 512.
    #[schemars(extend("maxProperties" = 16))]
    pub metadata: Option<Headers>,
    /// 9 runs first. Default: 5.
    #[schemars(range(max = 9))]
    pub priority: Option<u8>,
    /// The bucket that the output goes to, instead of the default.
    pub storage_provider_id: Option<Id>,
}

/// How the work is described.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Mode {
    /// By a recipe.
    Recipe,
}

/// Where an input is.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Input {
    /// Somewhere on the web.
    Url(UrlInput),
    /// Among your uploads.
    Upload(UploadInput),
}

/// An input by its URL.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UrlInput {
    /// A public https URL.
    #[schemars(length(max = 8192))]
    pub url: String,
    /// Headers for the origin, at most 32. They are never logged or returned, sealed at rest, and forgotten when the job is
    /// over.
    #[schemars(extend("maxProperties" = 32))]
    pub headers: Option<Headers>,
}

/// An input that was uploaded.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct UploadInput {
    /// The upload, of which every part has arrived.
    pub upload_id: Id,
}

/// What to write.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Output {
    /// A format that the recipe makes.
    pub format: Format,
}

/// What to do, and its parameters.
#[derive(JsonSchema)]
#[schemars(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Recipe {
    /// Whatever is needed so that the file plays on the web, and no more: mp4. What needs nothing is passed through: the
    /// result is the input's own URL. It is copied into storage instead where a storage provider is named, by the job or by
    /// the settings, and where the input needs headers or is an upload. What is only packed wrongly is packed anew, the rest
    /// is encoded. Any parameter makes it encode.
    WebReady {
        #[schemars(flatten)]
        rate: Rate,
        #[schemars(flatten)]
        scale: Scale,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// A light copy for editing, always encoded: mp4. Default quality: `crf` 32.
    Proxy {
        #[schemars(flatten)]
        rate: Rate,
        #[schemars(flatten)]
        scale: Scale,
        /// A keyframe each second (default), or every picture one.
        gop: Option<Gop>,
        #[schemars(flatten)]
        cut: Cut,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// A smaller file of the same picture size: mp4, webm, mov. Default quality: `crf` 28; 33 for webm.
    Compress {
        #[schemars(flatten)]
        rate: Rate,
        /// `h264` (default) or `hevc` in mp4 and mov, `vp9` in webm.
        codec: Option<VideoCodec>,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// Another container or codec: mp4, webm, mov, mp3, aac, wav, m4a, opus, flac. Copies what any player takes, encodes
    /// the rest.
    Transcode {
        #[schemars(flatten)]
        staging: Staging,
    },
    /// Another picture size: mp4, webm, mov. At least one of `width` and `height`; both: exactly that size. Odd sizes
    /// become even.
    Resize {
        #[schemars(flatten)]
        sides: Sides,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// A part of the input, exact to the frame: mp4, webm, mov, mp3, aac, wav, m4a, opus, flac.
    Trim {
        #[schemars(flatten)]
        cut: Cut,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// The first audio track. What fits into a file of its own is copied into one, whatever the format; the rest is encoded
    /// to the format, or to mp3 where that is none for audio. Where the file is not of the format asked for, the job's
    /// `warnings` say so.
    ExtractAudio {
        #[schemars(flatten)]
        cut: Cut,
        /// Whether the audio may be copied, into `aac` from an MP4 for example. False: it is always encoded to
        /// `output.format`. Default: true.
        copy: Option<bool>,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// One picture: jpg, png, webp.
    Thumbnail {
        /// The picture that is shown at this time. Default: 0. Past the end: the last one.
        #[schemars(range(min = 0.0, max = 10_000_000.0))]
        seek_seconds: Option<f64>,
        #[schemars(flatten)]
        sides: Sides,
        /// Of JPEG and WebP; 100 is best. Default: 85.
        #[schemars(range(min = 1, max = 100))]
        quality: Option<u8>,
        #[schemars(flatten)]
        staging: Staging,
    },
    /// Several inputs, one after the other: mp4, webm, mov, mp3, aac, wav, m4a, opus, flac. Pictures that agree are
    /// copied, and sound in a file of its own; what does not agree becomes like the first input.
    Concat {
        #[schemars(flatten)]
        staging: Staging,
    },
}

/// How many bits are spent.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Rate {
    /// Constant quality: 0 is best.
    #[schemars(range(max = 51))]
    pub crf: Option<u8>,
    /// An average rate in kbit/s instead. It wins over `crf`.
    #[schemars(range(min = 16, max = 200_000))]
    pub bitrate_kbps: Option<u32>,
}

/// A picture size.
#[derive(JsonSchema)]
pub struct Sides {
    /// In pixels; alone it keeps the aspect.
    #[schemars(range(min = 2, max = 8192))]
    pub width: Option<u32>,
    /// In pixels; alone it keeps the aspect.
    #[schemars(range(min = 2, max = 8192))]
    pub height: Option<u32>,
}

/// A picture size, and whether it may grow.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Scale {
    #[schemars(flatten)]
    pub sides: Sides,
    /// Whether smaller pictures stay as they are. Default: false.
    pub scale_down: Option<bool>,
}

/// A part of the input.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Cut {
    /// Where it begins. Default: 0.
    #[schemars(range(min = 0.0, max = 10_000_000.0))]
    pub start_seconds: Option<f64>,
    /// How long it is. Default: to the end.
    #[schemars(range(min = 0.001, max = 10_000_000.0))]
    pub duration_seconds: Option<f64>,
}

/// `stageInput` is also accepted inside a recipe.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Staging {
    /// As in the job itself, which wins.
    pub stage_input: Option<bool>,
}

/// How far apart keyframes are.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Gop {
    /// One each second.
    PerSecond,
    /// Every picture is one.
    AllIntra,
}

/// A file to upload.
#[derive(JsonSchema)]
#[schemars(rename = "CreateUpload", deny_unknown_fields)]
pub struct UploadBody {
    /// What you call it; without control characters.
    #[schemars(length(min = 1, max = 255))]
    pub filename: String,
    /// Its size in bytes.
    #[schemars(range(min = 1))]
    pub size: u64,
}

/// A bucket of yours that speaks S3, R2 included.
#[derive(JsonSchema)]
#[schemars(rename = "AddStorageProvider", rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderBody {
    /// What you call it.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Where its service answers, without the bucket: a public https URL.
    #[schemars(length(max = 8192))]
    pub endpoint: String,
    /// Letters, digits, `-` and `_`. Default: `auto`, which R2 wants.
    #[schemars(length(min = 1, max = 32))]
    pub region: Option<String>,
    /// The bucket's name: letters, digits, `-`, `_` and `.`.
    #[schemars(length(min = 1, max = 63))]
    pub bucket: String,
    /// What every key in it begins with: a path without a leading slash. Default: nothing.
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// Whether the bucket stands in the path; else in the host's name. Default: true.
    pub path_style: Option<bool>,
    /// Names the key. Kept sealed, never shown.
    #[schemars(length(min = 1, max = 256))]
    pub access_key_id: String,
    /// Signs with it. Kept sealed, never shown.
    #[schemars(length(min = 1, max = 256))]
    pub secret_access_key: String,
}

/// A preset: a job without its input, under a name.
#[derive(JsonSchema)]
#[schemars(rename = "SavePreset", deny_unknown_fields)]
pub struct PresetBody {
    /// What you call it.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// What it is for.
    #[schemars(length(max = 512))]
    pub description: Option<String>,
    /// The job.
    pub config: Config,
}

/// A job without its input.
#[derive(JsonSchema)]
#[schemars(rename = "PresetConfig", rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// How the work is described.
    pub mode: Mode,
    /// What to write.
    pub output: Output,
    /// What to do.
    pub recipe: Recipe,
    #[schemars(flatten)]
    pub options: Options,
}

/// Settings to change. Null clears; what is absent stays.
#[derive(JsonSchema)]
#[schemars(rename = "ChangeSettings", rename_all = "camelCase", deny_unknown_fields)]
pub struct SettingsBody {
    /// Where webhooks of jobs without an own URL go: a public https URL.
    #[schemars(length(max = 8192))]
    pub default_webhook_url: Option<String>,
    /// The bucket that outputs go to when the job names none.
    pub default_storage_provider_id: Option<Id>,
    /// How long webhooks are tried. Default: `standard`.
    pub webhook_schedule: Option<Schedule>,
    /// How long outputs are kept after their job ended, in days. 0: to the next clean-up. Default: 7.
    #[schemars(range(max = 3650))]
    pub output_retention_days: Option<u32>,
    /// How long inputs that are in storage are kept, in days, beyond the day that a job may wait for a node. Default: 1.
    #[schemars(range(max = 3650))]
    pub input_retention_days: Option<u32>,
    /// How long jobs are kept after they ended, in days, and with them whatever else there is of them. Default: 30.
    #[schemars(range(max = 3650))]
    pub job_retention_days: Option<u32>,
    /// Ignored, so that settings can be sent back as they were read.
    pub updated_at: Option<String>,
}

/// A key to make.
#[derive(JsonSchema)]
#[schemars(rename = "CreateToken", deny_unknown_fields)]
pub struct TokenBody {
    /// What you call it.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// What it may do.
    #[schemars(length(min = 1))]
    pub scopes: Vec<Scope>,
}
