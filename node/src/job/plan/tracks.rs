//! Single tracks: what can be copied, and how the rest is encoded.

use xora_av::{Orientation, Stream};
use xora_shared::media::{Format, RateControl, Scale, VideoCodec};

use super::{Abilities, AudioEncode, VideoEncode};
use crate::job::{
    fault::{Done, Fault},
    probe::Probe,
    shape::{Picture, Pixels, Size},
};

/// The picture that a recipe wants where it has to encode.
#[derive(Clone, Copy, Debug)]
pub struct VideoWish {
    /// Codec.
    pub codec: VideoCodec,
    /// Quality or rate.
    pub rate: RateControl,
    /// Size.
    pub scale: Scale,
    /// Where a player can begin.
    pub keys: Keys,
}

/// Where a player can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Where the encoder thinks best.
    AsEncoder,
    /// Once a second at least.
    EverySecond,
    /// At each picture.
    EveryPicture,
}

/// Why the packets of a picture track cannot stand in a container as they are, in words; none when they can. Copied is
/// what any player takes: 8-bit 4:2:0 H.264 in MP4 and MOV, VP8 and VP9 in WebM.
pub fn video_obstacle(stream: &Stream, probe: &Probe, format: Format) -> Option<String> {
    let codec = stream.codec.as_str();
    let fits = match format {
        Format::Mp4 | Format::Mov => codec == "h264",
        Format::Webm => matches!(codec, "vp8" | "vp9"),
        Format::Gif
        | Format::Mp3
        | Format::Aac
        | Format::Wav
        | Format::Jpg
        | Format::Png
        | Format::M4a
        | Format::Opus
        | Format::Flac
        | Format::Webp
        | Format::Ogg => false,
    };
    let turned = stream.orientation != Orientation::Upright;
    let reason = if !fits {
        format!("{codec} does not play everywhere from {}", format.extension())
    } else if !matches!(stream.pixel_format.as_str(), "yuv420p" | "yuvj420p") {
        format!("pixels of the form {} do not play everywhere", stream.pixel_format)
    } else if stream.is_interlaced {
        "they are interlaced".to_owned()
    } else if turned && format == Format::Webm {
        "they are turned, which webm cannot say".to_owned()
    } else if codec == "h264" && !stream.has_header {
        "their header is missing".to_owned()
    } else {
        return unreliable_times(probe);
    };
    Some(reason)
}

/// As [`video_obstacle`], for sound in a film: AAC and MP3 in MP4 and MOV, Opus and Vorbis in WebM.
pub fn audio_obstacle(stream: &Stream, probe: &Probe, format: Format) -> Option<String> {
    let codec = stream.codec.as_str();
    let fits = match format {
        // Slower MP3 has no place in MP4 by its standard.
        Format::Mp4 | Format::Mov => codec == "aac" || (codec == "mp3" && stream.sample_rate >= 16_000),
        Format::Webm => matches!(codec, "opus" | "vorbis") && stream.has_header,
        Format::M4a => codec == "aac",
        Format::Mp3 | Format::Aac | Format::Wav | Format::Opus | Format::Flac | Format::Ogg => {
            return (own_format(stream) != Some(format))
                .then(|| format!("{codec} cannot stand in {}", format.extension()));
        }
        Format::Gif | Format::Jpg | Format::Png | Format::Webp => false,
    };
    if fits {
        return unreliable_times(probe);
    }
    Some(format!("{codec} does not play everywhere from {}", format.extension()))
}

/// Whether music in this format can have a cover that was compressed so.
pub fn holds_cover(format: Format, codec: &str) -> bool {
    matches!(format, Format::Mp3 | Format::M4a | Format::Flac) && matches!(codec, "mjpeg" | "png")
}

/// Why pictures that can be copied cannot be cut without encoding all of them, in words.
pub fn cut_obstacle(stream: &Stream) -> Option<String> {
    /// Baseline, constrained baseline, main and high, as libav numbers them.
    const PROFILES: [i32; 4] = [66, 66 + 512, 77, 100];
    if stream.codec != "h264" {
        return Some(format!("{} cannot be joined at a cut", stream.codec));
    }
    (!PROFILES.contains(&stream.profile)).then(|| "their profile cannot be joined at a cut".to_owned())
}

/// Whether players leave out sound before the start of a file in this format, so that it can begin inside a packet.
pub fn hides_start(format: Format) -> bool {
    format.has_index()
}

/// Whether packets have times in this format, instead of following each other.
pub fn has_times(format: Format) -> bool {
    format.has_index() || matches!(format, Format::Webm | Format::Opus | Format::Ogg)
}

/// How the few pictures around a cut are encoded: with no loss that would show beside those that are copied, and
/// without reordering, so that they fit before them.
pub fn encode_patch() -> VideoEncode {
    let option = |name, value: &str| (name, value.to_owned());
    VideoEncode {
        encoder: "libx264",
        options: vec![option("preset", "veryfast"), option("crf", "18"), option("bf", "0")],
        tag: None,
        picture: Picture {
            orientation: Orientation::Upright,
            deinterlace: false,
            can_tonemap: false,
            size: Size::AsInput,
            pixels: Pixels::Film,
        },
        key_every_us: None,
    }
}

/// Containers whose packets have no times of their own, or only decoding times, are not copied from.
fn unreliable_times(probe: &Probe) -> Option<String> {
    let known = ["mov", "matroska", "mpegts", "flv", "ogg", "mp3", "aac", "flac", "wav"];
    let name = probe.container.split(',').next().unwrap_or_default();
    (!known.contains(&name)).then(|| format!("{name} files have no reliable times to copy"))
}

/// The file format that is a sound codec's own, into which it can be copied.
pub fn own_format(stream: &Stream) -> Option<Format> {
    match stream.codec.as_str() {
        "mp3" => Some(Format::Mp3),
        "aac" => Some(Format::Aac),
        "opus" if stream.has_header => Some(Format::Opus),
        "vorbis" if stream.has_header => Some(Format::Ogg),
        "flac" if stream.has_header => Some(Format::Flac),
        // What WAV can hold: little-endian, and unsigned only in bytes.
        "pcm_u8" | "pcm_s16le" | "pcm_s24le" | "pcm_s32le" | "pcm_f32le" | "pcm_f64le" => Some(Format::Wav),
        _ => None,
    }
}

/// How pictures are encoded.
pub fn encode_video(stream: &Stream, wish: &VideoWish, abilities: Abilities) -> VideoEncode {
    let (encoder, tag) = match wish.codec {
        VideoCodec::H264 => ("libx264", None),
        // Apple's players want the parameter sets out of band, which this tag promises.
        VideoCodec::Hevc => ("libx265", Some(*b"hvc1")),
        VideoCodec::Vp9 => ("libvpx-vp9", None),
    };
    VideoEncode {
        encoder,
        options: video_options(wish, stream),
        tag,
        picture: Picture {
            orientation: stream.orientation,
            deinterlace: stream.is_interlaced,
            can_tonemap: abilities.tonemap,
            size: size(wish.scale),
            pixels: Pixels::Film,
        },
        key_every_us: (wish.keys == Keys::EverySecond).then_some(1_000_000),
    }
}

/// A scale without sides that only shrinks means the usual size of a smaller copy.
fn size(scale: Scale) -> Size {
    /// 720p.
    const SMALLER: (u32, u32) = (1280, 720);
    match (scale.width, scale.height, scale.only_down) {
        (None, None, false) => Size::AsInput,
        (None, None, true) => Size::AtMost(SMALLER.0, SMALLER.1),
        (width, height, true) => Size::AtMost(width.unwrap_or(u32::MAX), height.unwrap_or(u32::MAX)),
        (Some(width), None, false) => Size::Width(width),
        (None, Some(height), false) => Size::Height(height),
        (Some(width), Some(height), false) => Size::Exactly(width, height),
    }
}

/// Options that differ from libav's defaults. The presets are chosen once: x264's `veryfast` makes files a few percent
/// larger than `medium` at the same quality number in about a third of the time, and time is what a node sells. x265's
/// `veryfast` is still smaller than x264 at the same quality; VP9's `cpu-used` 4 with `row-mt` is where its quality
/// falls slowest for the time won.
fn video_options(wish: &VideoWish, stream: &Stream) -> Vec<(&'static str, String)> {
    let mut options: Vec<(&str, String)> = match wish.codec {
        VideoCodec::H264 => vec![("preset", "veryfast".into()), ("profile", "high".into())],
        VideoCodec::Hevc => vec![("preset", "veryfast".into()), ("x265-params", "log-level=none".into())],
        VideoCodec::Vp9 => vec![
            ("deadline", "good".into()),
            ("cpu-used", "4".into()),
            ("row-mt", "1".into()),
            // Columns of tiles are what its threads share out; each wants 256 pixels at least.
            ("tile-columns", stream.width.checked_div(256).map_or(0, |n| n.max(1).ilog2().min(4)).to_string()),
            ("auto-alt-ref", "1".into()),
            ("lag-in-frames", "25".into()),
        ],
    };
    match (wish.rate, wish.codec) {
        // x264 takes everything below 1 for lossless, which needs another profile, that no browser plays.
        (RateControl::Crf(0), VideoCodec::H264) => options.push(("crf", "1".to_owned())),
        (RateControl::Crf(crf), _) => options.push(("crf", crf.to_string())),
        (RateControl::BitrateKbps(kbps), _) => options.push(("b", (u64::from(kbps) * 1000).to_string())),
    }
    if wish.codec == VideoCodec::Vp9 && matches!(wish.rate, RateControl::Crf(_)) {
        // Else the default rate would cap the quality.
        options.push(("b", "0".into()));
    }
    match wish.keys {
        Keys::AsEncoder => {}
        // The pictures are asked for one by one; each must be one that decoding can begin at.
        Keys::EverySecond => options.push(("forced-idr", "1".into())),
        Keys::EveryPicture => options.push(("g", "1".into())),
    }
    options
}

/// How sound is encoded for a container. In films and lossy files it is stereo at most, because browsers and phones mix
/// 5.1 down badly or not at all; one channel stays one. Uncompressed and lossless sound keeps what there is, as far as
/// FLAC can hold it. Fails where more channels than anyone has a name for would have to be mixed.
pub fn encode_audio(stream: &Stream, format: Format) -> Done<AudioEncode> {
    let most = match format {
        Format::Wav => stream.channels,
        Format::Flac => 8,
        Format::Mp4
        | Format::Mov
        | Format::Webm
        | Format::Mp3
        | Format::M4a
        | Format::Aac
        | Format::Opus
        | Format::Ogg
        | Format::Gif
        | Format::Jpg
        | Format::Png
        | Format::Webp => 2,
    };
    let channels = stream.channels.min(most);
    let layout = match channels {
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        _ if channels == stream.channels => stream.layout.clone(),
        _ => "7.1".to_owned(),
    };
    if channels < stream.channels && stream.layout.ends_with(" channels") {
        return Err(Fault::unsupported(format!(
            "the sound has {} channels, and nothing says how to mix them to {layout}; take it out as wav, which keeps \
             them all",
            stream.channels
        )));
    }
    let (encoder, sample_format, stereo_rate) = match format {
        Format::Webm | Format::Opus => ("libopus", "flt", Some(112_000)),
        // Its own default of 128 kbit/s is audibly worse than AAC at that rate.
        Format::Mp3 => ("libmp3lame", "fltp", Some(192_000)),
        // What is finer than 16 bits stays so, in 24.
        Format::Wav if stream.sample_bits > 16 => ("pcm_s24le", "s32", None),
        Format::Wav => ("pcm_s16le", "s16", None),
        Format::Flac if stream.sample_bits > 16 => ("flac", "s32", None),
        Format::Flac => ("flac", "s16", None),
        Format::Mp4
        | Format::Mov
        | Format::M4a
        | Format::Aac
        | Format::Ogg
        | Format::Gif
        | Format::Jpg
        | Format::Png
        | Format::Webp => ("aac", "fltp", Some(128_000)),
    };
    let rate = stereo_rate.map(|rate| if channels == 1 { rate * 5 / 8 } else { rate });
    let options = rate.map(|rate| ("b", rate.to_string())).into_iter().collect();
    Ok(AudioEncode { encoder, options, sample_format, sample_rate: sample_rate(stream, format), channels, layout })
}

fn sample_rate(stream: &Stream, format: Format) -> u32 {
    match (format, stream.sample_rate) {
        (Format::Webm | Format::Opus, _) => 48_000,
        // Speech stays at its own rate: MPEG-2 and 2.5 have these.
        (Format::Wav | Format::Flac, rate)
        | (Format::Mp3, rate @ (8_000 | 11_025 | 12_000 | 16_000 | 22_050 | 24_000 | 32_000)) => rate,
        // The family of the compact disc stays exact.
        (_, 11_025 | 22_050 | 44_100 | 88_200 | 176_400) => 44_100,
        _ => 48_000,
    }
}
