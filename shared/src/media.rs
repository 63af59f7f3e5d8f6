//! What a caller wants made: recipes, formats and their parameters, already checked.
//!
//! Requests are turned into these types by [`crate::request`]; the node plans from them. Times that callers give as
//! fractional seconds are held as integer microseconds from here on.

use serde::{Deserialize, Serialize};

/// A container format that a recipe can write, named as in `output.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// MPEG-4 part 14, index first.
    Mp4,
    /// WebM (VP8/VP9 with Opus or Vorbis).
    Webm,
    /// QuickTime, index first.
    Mov,
    /// Animated GIF.
    Gif,
    /// MPEG audio layer III.
    Mp3,
    /// AAC in ADTS frames.
    Aac,
    /// PCM in RIFF/WAVE.
    Wav,
    /// JPEG picture.
    Jpg,
    /// PNG picture.
    Png,
    /// AAC in MPEG-4 (audio only).
    M4a,
    /// Opus in Ogg.
    Opus,
    /// FLAC.
    Flac,
    /// WebP picture.
    Webp,
    /// Vorbis in Ogg. Nobody asks for it: it is what Vorbis is copied into.
    Ogg,
}

/// What kind of thing a file is, as `file_type` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// Moving pictures, with or without sound.
    Video,
    /// Sound only.
    Audio,
    /// One picture, or an animation of pictures.
    Image,
}

impl Format {
    /// Every format that can be asked for, in the order of the API's table.
    pub const ALL: [Self; 13] = [
        Self::Mp4,
        Self::Webm,
        Self::Mov,
        Self::Gif,
        Self::Mp3,
        Self::Aac,
        Self::Wav,
        Self::Jpg,
        Self::Png,
        Self::M4a,
        Self::Opus,
        Self::Flac,
        Self::Webp,
    ];

    /// Whether files of this format are those of ISO/IEC 14496-12 and QuickTime: an index says where each packet is, and
    /// an edit list which part is shown.
    pub const fn has_index(self) -> bool {
        matches!(self, Self::Mp4 | Self::Mov | Self::M4a)
    }

    /// Whether the headers of files of this format, and their size, tell how long they are: in WAV a sample has a size.
    pub const fn tells_length(self) -> bool {
        self.has_index() || matches!(self, Self::Wav)
    }

    /// The name on the wire, which is also the file name's extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Webm => "webm",
            Self::Mov => "mov",
            Self::Gif => "gif",
            Self::Mp3 => "mp3",
            Self::Aac => "aac",
            Self::Wav => "wav",
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::M4a => "m4a",
            Self::Opus => "opus",
            Self::Flac => "flac",
            Self::Webp => "webp",
            Self::Ogg => "ogg",
        }
    }

    /// The format that can be asked for by this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == name)
    }

    /// The media type of a file in this format, from the IANA registry (or its usual name where that has none).
    pub const fn mime_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Webm => "video/webm",
            Self::Mov => "video/quicktime",
            Self::Gif => "image/gif",
            Self::Mp3 => "audio/mpeg",
            Self::Aac => "audio/aac",
            Self::Wav => "audio/wav",
            Self::Jpg => "image/jpeg",
            Self::Png => "image/png",
            Self::M4a => "audio/mp4",
            Self::Opus | Self::Ogg => "audio/ogg",
            Self::Flac => "audio/flac",
            Self::Webp => "image/webp",
        }
    }

    /// What a file in this format normally is.
    pub const fn file_type(self) -> FileType {
        match self {
            Self::Mp4 | Self::Webm | Self::Mov => FileType::Video,
            Self::Mp3 | Self::Aac | Self::Wav | Self::M4a | Self::Opus | Self::Flac | Self::Ogg => FileType::Audio,
            Self::Gif | Self::Jpg | Self::Png | Self::Webp => FileType::Image,
        }
    }
}

/// A video codec that a caller can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    Hevc,
    /// VP9, what WebM holds.
    Vp9,
}

/// How many bits a lossy video encoder spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RateControl {
    /// Constant quality, 0 (best) to 51.
    Crf(u8),
    /// Average rate in kbit/s.
    BitrateKbps(u32),
}

/// How large the picture becomes, in pixels with square sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Width; alone it keeps the aspect.
    pub width: Option<u32>,
    /// Height; alone it keeps the aspect.
    pub height: Option<u32>,
    /// Whether the picture only ever becomes smaller, within these sides and with its aspect.
    #[serde(default)]
    pub only_down: bool,
}

/// A part of a file, in microseconds from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// Where it begins.
    pub start_us: u64,
    /// How long it is; to the end if not said.
    pub duration_us: Option<u64>,
}

impl Cut {
    /// Whether it is the whole file.
    pub fn is_whole(self) -> bool {
        self == Self::default()
    }
}

/// How often the picture can be begun at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gop {
    /// Every second.
    PerSecond,
    /// At every picture.
    AllIntra,
}

/// `webReady`: plays in every browser, made the cheapest way that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebReady {
    /// Set when the caller chose any of it, which forces an encode.
    pub encode: Option<WebEncode>,
}

/// What a caller chose of `webReady`'s encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebEncode {
    /// Quality or rate; the recipe's own if not said.
    pub rate: Option<RateControl>,
    /// Size of the picture.
    pub scale: Scale,
}

/// `proxy`: for scrubbing on a timeline, always encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Quality or rate.
    pub rate: RateControl,
    /// Size of the picture.
    pub scale: Scale,
    /// Where a player can begin.
    pub gop: Gop,
    /// The part that is made.
    pub cut: Cut,
}

/// `resize`: the same film in another size. At least one side is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    /// Size of the picture.
    pub scale: Scale,
}

/// `trim`: a part of the file, exact to the picture or sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trim {
    /// The part.
    pub cut: Cut,
}

/// `extractAudio`: the first audio track, copied where its codec has a file format of its own. The format asked for is
/// what it is encoded to otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtractAudio {
    /// The part.
    pub cut: Cut,
    /// Whether it may be copied. False always encodes to the format asked for.
    #[serde(default = "copies")]
    pub copy: bool,
}

/// `extractAudio` copies, unless the caller says otherwise; so do jobs that were stored before they could say it.
const fn copies() -> bool {
    true
}

/// `compress`: a smaller file of the same picture size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compress {
    /// Quality or rate.
    pub rate: RateControl,
    /// Codec; the default depends on the format.
    pub codec: VideoCodec,
}

/// `thumbnail`: one picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thumbnail {
    /// The picture shown at this time, in microseconds from the start of the file.
    pub seek_us: u64,
    /// Width in pixels; alone it keeps the aspect.
    pub width: Option<u32>,
    /// Height in pixels; alone it keeps the aspect.
    pub height: Option<u32>,
    /// JPEG quality, 1 to 100 (100 is best).
    pub quality: u8,
}

/// What is wanted, after all checks: one recipe with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Recipe {
    /// See [`WebReady`].
    WebReady(WebReady),
    /// See [`Proxy`].
    Proxy(Proxy),
    /// See [`Compress`].
    Compress(Compress),
    /// Another format, copied where every player takes what is there.
    Transcode,
    /// See [`Resize`].
    Resize(Resize),
    /// See [`Trim`].
    Trim(Trim),
    /// See [`ExtractAudio`].
    ExtractAudio(ExtractAudio),
    /// See [`Thumbnail`].
    Thumbnail(Thumbnail),
    /// Two inputs or more, one after the other, in their order.
    Concat,
}

impl Recipe {
    /// The recipe's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WebReady(_) => "webReady",
            Self::Proxy(_) => "proxy",
            Self::Compress(_) => "compress",
            Self::Transcode => "transcode",
            Self::Resize(_) => "resize",
            Self::Trim(_) => "trim",
            Self::ExtractAudio(_) => "extractAudio",
            Self::Thumbnail(_) => "thumbnail",
            Self::Concat => "concat",
        }
    }
}

/// A recipe and the format of its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// What to do.
    pub recipe: Recipe,
    /// What to write.
    pub format: Format,
}
