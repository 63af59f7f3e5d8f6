//! What to do with an input: a pure function of what it is and what is wanted.

use xora_av::{Kind, MICROSECONDS, Orientation, Stream, rescale};
use xora_shared::{
    media::{Compress, Format, RateControl, Recipe, Thumbnail, VideoCodec, Wanted},
    report::{Strategy, StrategyKind, StreamFate},
};

use crate::job::{
    fault::{Done, Fault},
    probe::Probe,
    shape::{Picture, Pixels, Size},
    streams::{describe, fates, pick_audio, pick_cover, pick_video},
};

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the caller.
    pub strategy: Strategy,
    /// What becomes of each stream.
    pub fates: Vec<StreamFate>,
    /// What is made.
    pub make: Make,
}

/// See [`Plan::make`].
#[derive(Clone, Debug)]
pub enum Make {
    /// Pictures in motion, sound, or both.
    Film(Film),
    /// One picture.
    Still(Still),
}

/// A file of one or two tracks.
#[derive(Clone, Debug)]
pub struct Film {
    /// What is written.
    pub format: Format,
    /// The picture track.
    pub video: Option<VideoTrack>,
    /// The sound track.
    pub audio: Option<AudioTrack>,
    /// Where the input's time begins, in microseconds: becomes 0 for all tracks alike, so that they stay together.
    pub start_us: i64,
    /// The input's length in microseconds, when known.
    pub duration_us: Option<u64>,
    /// Packets that the output will have, about.
    pub packets: u64,
    /// Bytes that the output will have, about.
    pub expected_bytes: u64,
}

/// How the picture track is made.
#[derive(Clone, Debug)]
pub struct VideoTrack {
    /// The input's stream.
    pub stream: usize,
    /// libav's name of the encoder.
    pub encoder: &'static str,
    /// libav's options for it.
    pub options: Vec<(&'static str, String)>,
    /// Four-character code, where the usual one will not do.
    pub tag: Option<[u8; 4]>,
    /// What the pictures must be.
    pub picture: Picture,
}

/// How the sound track is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioTrack {
    /// The input's stream.
    pub stream: usize,
    /// libav's name of the encoder.
    pub encoder: &'static str,
    /// libav's options for it.
    pub options: Vec<(&'static str, String)>,
    /// Samples per second.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u32,
}

/// How one picture is made.
#[derive(Clone, Debug)]
pub struct Still {
    /// What is written.
    pub format: Format,
    /// The input's stream.
    pub stream: usize,
    /// Whether the stream is a picture that belongs to the file.
    pub is_cover: bool,
    /// When the picture is shown, in microseconds from the start of the stream.
    pub seek_us: u64,
    /// 1 to 100, where the format has a choice.
    pub quality: u8,
    /// What the picture must be.
    pub picture: Picture,
}

/// What this build of libav can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Has the filters that map high dynamic range to standard.
    pub tonemap: bool,
}

/// Decides.
pub fn decide(probe: &Probe, wanted: &Wanted, abilities: Abilities) -> Done<Plan> {
    match &wanted.recipe {
        Recipe::Compress(compress) => film(probe, compress, wanted.format, abilities),
        Recipe::Thumbnail(thumbnail) => still(probe, thumbnail, wanted.format, abilities),
    }
}

fn film(probe: &Probe, compress: &Compress, format: Format, abilities: Abilities) -> Done<Plan> {
    let streams = &probe.streams;
    let (video, audio) = (pick_video(streams), pick_audio(streams));
    if video.is_none() && audio.is_none() {
        return Err(Fault::unsupported(format!(
            "the input has neither pictures nor sound that can be decoded; found: {}",
            describe_all(streams)
        )));
    }
    let video_track = video.map(|stream| video_track(stream, compress, format, abilities)).transpose()?;
    let audio_track = audio.map(|stream| audio_track(stream, format));
    let mut reasons = vec![format!("compress encodes anew at {}", rate_in_words(compress.rate))];
    if video.is_none() {
        reasons.push("the input has no moving pictures, so the output has sound only".to_owned());
    }
    let chosen: Vec<&Stream> = video.into_iter().chain(audio).collect();
    Ok(Plan {
        strategy: Strategy { kind: StrategyKind::Encode, reasons },
        fates: fates(streams, &chosen, |stream| converted_reason(stream, audio_track.as_ref())),
        make: Make::Film(Film {
            format,
            start_us: chosen.iter().filter_map(|stream| start_us(stream)).min().unwrap_or(0),
            duration_us: probe.duration_us,
            packets: packets(&chosen, probe.duration_us),
            expected_bytes: expected_bytes(probe, compress.rate),
            video: video_track,
            audio: audio_track,
        }),
    })
}

fn video_track(stream: &Stream, compress: &Compress, format: Format, abilities: Abilities) -> Done<VideoTrack> {
    let codec = match (format, compress.codec) {
        (Format::Webm, VideoCodec::Vp9) => VideoCodec::Vp9,
        (Format::Mp4 | Format::Mov, VideoCodec::H264 | VideoCodec::Hevc) => compress.codec,
        (format, codec) => {
            let extension = format.extension();
            return Err(Fault::unsupported(format!("compress cannot write {codec:?} into {extension}")));
        }
    };
    let (encoder, tag) = match codec {
        VideoCodec::H264 => ("libx264", None),
        // Apple's players want the parameter sets out of band, which this tag promises.
        VideoCodec::Hevc => ("libx265", Some(*b"hvc1")),
        VideoCodec::Vp9 => ("libvpx-vp9", None),
    };
    Ok(VideoTrack {
        stream: stream.index,
        encoder,
        options: video_options(codec, compress.rate, stream),
        tag,
        picture: Picture {
            orientation: stream.orientation,
            deinterlace: stream.is_interlaced,
            can_tonemap: abilities.tonemap,
            size: Size::AsInput,
            pixels: Pixels::Film,
        },
    })
}

/// Options that differ from libav's defaults. The presets are chosen once: x264's `veryfast` makes files a few percent
/// larger than `medium` at the same quality number in about a third of the time, and time is what a node sells.
fn video_options(codec: VideoCodec, rate: RateControl, stream: &Stream) -> Vec<(&'static str, String)> {
    let mut options: Vec<(&str, String)> = match codec {
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
    match rate {
        RateControl::Crf(crf) => options.push(("crf", crf.to_string())),
        RateControl::BitrateKbps(kbps) => options.push(("b", (u64::from(kbps) * 1000).to_string())),
    }
    if codec == VideoCodec::Vp9 && matches!(rate, RateControl::Crf(_)) {
        // Else the default rate would cap the quality.
        options.push(("b", "0".into()));
    }
    options
}

/// Sound is stereo at most, because browsers and phones mix 5.1 down badly or not at all; one channel stays one.
fn audio_track(stream: &Stream, format: Format) -> AudioTrack {
    let channels = if stream.channels == 1 { 1 } else { 2 };
    let (encoder, stereo_rate) = if format == Format::Webm { ("libopus", 112_000) } else { ("aac", 128_000) };
    let rate = if channels == 1 { stereo_rate * 5 / 8 } else { stereo_rate };
    let sample_rate = match (format, stream.sample_rate) {
        (Format::Webm, _) => 48_000,
        // The family of the compact disc stays exact.
        (_, 11_025 | 22_050 | 44_100 | 88_200 | 176_400) => 44_100,
        _ => 48_000,
    };
    AudioTrack { stream: stream.index, encoder, options: vec![("b", rate.to_string())], sample_rate, channels }
}

fn converted_reason(stream: &Stream, audio: Option<&AudioTrack>) -> Option<String> {
    match stream.kind {
        Kind::Audio => audio
            .filter(|track| stream.channels > track.channels)
            .map(|_| format!("{} channels were mixed down to stereo, which every browser plays", stream.channels)),
        Kind::Video if stream.orientation != Orientation::Upright => {
            Some("turned upright, as its display matrix says".to_owned())
        }
        Kind::Video | Kind::Subtitle | Kind::Attachment | Kind::Data => None,
    }
}

fn still(probe: &Probe, thumbnail: &Thumbnail, format: Format, abilities: Abilities) -> Done<Plan> {
    let video = pick_video(&probe.streams);
    let stream = video.or_else(|| pick_cover(&probe.streams)).ok_or_else(|| {
        Fault::unsupported(format!(
            "a thumbnail needs pictures, and the input has none; found: {}",
            describe_all(&probe.streams)
        ))
    })?;
    let pixels = match format {
        Format::Jpg => Pixels::Jpeg,
        Format::Png => Pixels::Rgb,
        Format::Webp => Pixels::Webp,
        Format::Mp4
        | Format::Webm
        | Format::Mov
        | Format::Gif
        | Format::Mp3
        | Format::Aac
        | Format::Wav
        | Format::M4a
        | Format::Opus
        | Format::Flac => {
            return Err(Fault::unsupported(format!("a thumbnail cannot be written as {}", format.extension())));
        }
    };
    let size = match (thumbnail.width, thumbnail.height) {
        (None, None) => Size::AsInput,
        (Some(width), None) => Size::Width(width),
        (None, Some(height)) => Size::Height(height),
        (Some(width), Some(height)) => Size::Exactly(width, height),
    };
    let is_cover = stream.is_attached_picture;
    let reason = if is_cover { "the cover picture of the file" } else { "the picture shown at the time asked for" };
    Ok(Plan {
        strategy: Strategy { kind: StrategyKind::Encode, reasons: vec![reason.to_owned()] },
        fates: fates(&probe.streams, &[stream], |_| None),
        make: Make::Still(Still {
            format,
            stream: stream.index,
            is_cover,
            seek_us: thumbnail.seek_us,
            quality: thumbnail.quality,
            picture: Picture {
                orientation: stream.orientation,
                deinterlace: stream.is_interlaced,
                can_tonemap: abilities.tonemap,
                size,
                pixels,
            },
        }),
    })
}

fn start_us(stream: &Stream) -> Option<i64> {
    stream.start.map(|start| rescale(start, stream.time_base, MICROSECONDS))
}

/// Packets of the output, about: pictures as the input counts them or from its rate, sound in frames of 1024 samples.
fn packets(chosen: &[&Stream], duration_us: Option<u64>) -> u64 {
    // Unknown: one hour. If that is too little, the run is repeated with what it needed.
    let seconds = duration_us.map_or(3600, |us| us / 1_000_000 + 1);
    let of = |stream: &&Stream| match stream.kind {
        Kind::Video if stream.frames > 0 => stream.frames,
        Kind::Video => {
            let rate = stream.frame_rate;
            let rounded = u64::try_from(rate.0 / rate.1.max(1)).unwrap_or(0) + 1;
            seconds * if (2..=240).contains(&rounded) { rounded } else { 60 }
        }
        Kind::Audio => seconds * 52,
        Kind::Subtitle | Kind::Attachment | Kind::Data => 0,
    };
    chosen.iter().map(of).sum()
}

fn expected_bytes(probe: &Probe, rate: RateControl) -> u64 {
    let seconds = probe.duration_us.map_or(3600, |us| us / 1_000_000 + 1);
    match rate {
        RateControl::BitrateKbps(kbps) => seconds * (u64::from(kbps) + 128) * 125,
        // A smaller file is the point; where it is not, the hint is still of the right order.
        RateControl::Crf(_) => probe.size.unwrap_or(seconds * 500_000),
    }
}

fn rate_in_words(rate: RateControl) -> String {
    match rate {
        RateControl::Crf(crf) => format!("constant quality {crf}"),
        RateControl::BitrateKbps(kbps) => format!("{kbps} kbit/s"),
    }
}

fn describe_all(streams: &[Stream]) -> String {
    if streams.is_empty() {
        return "no streams".to_owned();
    }
    streams.iter().map(describe).collect::<Vec<_>>().join(", ")
}
