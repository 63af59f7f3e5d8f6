//! `webReady`: plays in every browser, the cheapest way that is right.

use xora_av::{Kind, Stream};
use xora_shared::{
    media::{Cut, FileType, Format, RateControl, Scale, VideoCodec, WebReady},
    report::{Fate, OutputFacts, Strategy, StrategyKind},
};

use super::{
    Abilities, Make, Plan,
    recipes::{CRF, Wish, film},
    tracks::{self, Keys, VideoWish},
};
use crate::job::{
    fault::Done,
    look::{Boxes, Mp4},
    probe::Probe,
    streams::{fates, pick_audio, pick_video},
};

/// Bits that a pixel may cost, in hundredths: about 12 Mbit/s for 1080p at 30 pictures a second.
const CENTIBITS_PER_PIXEL: u64 = 20;
/// What even a small or a still picture may cost, and what no picture may, in bits per second.
const ALWAYS_SENSIBLE: u64 = 2_500_000;
const NEVER_SENSIBLE: u64 = 40_000_000;

/// Why a web-ready input is copied all the same.
const OUTPUT_IS_STORED: &str = "it is web-ready, but its output belongs in storage (a storage provider is named, the input \
                                needs headers, or it is an upload or a kept copy)";

/// Nothing where the input is web-ready, else copied with its index first, else encoded. What a caller chooses of the
/// encoding forces it.
pub fn web_ready(probe: &Probe, recipe: &WebReady, abilities: Abilities) -> Done<Plan> {
    let (video, audio) = (pick_video(&probe.streams), pick_audio(&probe.streams));
    let chosen = recipe.encode.as_ref();
    let obstacle = match chosen {
        Some(_) => Some("encode settings were given".to_owned()),
        None => too_heavy(probe, video)
            .or_else(|| video.and_then(|stream| tracks::video_obstacle(stream, probe, Format::Mp4))),
    };
    let sound_fits = audio.is_none_or(|stream| tracks::audio_obstacle(stream, probe, Format::Mp4).is_none());
    let fits = obstacle.is_none() && sound_fits;
    let standing = fits.then(|| as_it_stands(probe, video, audio)).flatten();
    let is_ready = standing.is_some();
    if let Some(facts) = standing.filter(|_| abilities.pass_through) {
        return Ok(nothing(probe, facts));
    }
    let unready = if is_ready { OUTPUT_IS_STORED } else { unready(probe) };
    let reason = match (&obstacle, abilities.copy) {
        (Some(obstacle), _) => format!("web_encode: {obstacle}"),
        (None, true) => format!("faststart_remux: {unready}, so it is copied with its index first"),
        (None, false) => format!("web_encode: {unready}"),
    };
    let wish = Wish {
        format: Format::Mp4,
        video: Some(VideoWish {
            codec: VideoCodec::H264,
            rate: chosen.and_then(|encode| encode.rate).unwrap_or(RateControl::Crf(CRF)),
            scale: chosen.map_or_else(Scale::default, |encode| encode.scale),
            keys: Keys::EverySecond,
        }),
        sound: pick_audio,
        copies_video: obstacle.is_none(),
        copies_audio: true,
        cut: Cut::default(),
        is_exact: true,
        reason,
    };
    film(probe, &wish, abilities)
}

/// Why the input is more than the web should carry, in words.
fn too_heavy(probe: &Probe, video: Option<&Stream>) -> Option<String> {
    let (stream, size, duration) = (video?, probe.size?, probe.duration_us?);
    let rate = u64::try_from(u128::from(size) * 8_000_000 / u128::from(duration.max(1))).unwrap_or(u64::MAX);
    let per_second = u64::try_from(stream.frame_rate.0 / stream.frame_rate.1.max(1)).unwrap_or(0).clamp(1, 60);
    let pixels = u64::from(stream.width) * u64::from(stream.height) * per_second;
    let limit = (pixels * CENTIBITS_PER_PIXEL / 100).clamp(ALWAYS_SENSIBLE, NEVER_SENSIBLE);
    (rate > limit).then(|| {
        let (rate, limit) = (rate / 1000, limit / 1000);
        format!("its {rate} kbit/s are more than the {limit} that pictures of this size need")
    })
}

/// What is said of an input that is web-ready as a file, too; none if it is not.
fn as_it_stands(probe: &Probe, video: Option<&Stream>, audio: Option<&Stream>) -> Option<OutputFacts> {
    let mp4 = probe.mp4.filter(|mp4| mp4.boxes == Boxes::Whole && mp4.is_index_first && !mp4.is_fragmented)?;
    // A player may choose any of several.
    let moving = |stream: &&Stream| stream.kind == Kind::Video && !stream.is_attached_picture;
    if probe.streams.iter().filter(moving).count() > 1 || !probe.changing.is_empty() {
        return None;
    }
    probe.size?;
    Some(OutputFacts {
        file_type: if video.is_some() { FileType::Video } else { FileType::Audio },
        format: if mp4.is_quicktime { Format::Mov } else { Format::Mp4 },
        codec: video.or(audio)?.codec.clone(),
        duration_us: probe.duration_us,
        width: video.map(|stream| stream.width),
        height: video.map(|stream| stream.height),
    })
}

fn nothing(probe: &Probe, facts: OutputFacts) -> Plan {
    let reason = "passthrough: it is H.264 with AAC or MP3 in MP4 or MOV, its index is first and its bitrate sensible";
    let kept: Vec<_> = probe.streams.iter().map(|stream| (stream, Fate::Kept)).collect();
    Plan {
        strategy: Strategy { kind: StrategyKind::Passthrough, reasons: vec![reason.to_owned()] },
        fates: fates(&probe.streams, &kept, |_| None),
        warnings: Vec::new(),
        make: Make::Nothing(facts),
    }
}

/// What is not web-ready of a file whose pictures are, in words.
fn unready(probe: &Probe) -> &'static str {
    match probe.mp4 {
        None => "its container is not MP4",
        Some(Mp4 { is_fragmented: true, .. }) => "its index is spread over the file",
        Some(Mp4 { is_index_first: false, .. }) => "its index is not first",
        Some(_) if !probe.changing.is_empty() => "a track changes its codec's header in mid-stream",
        Some(_) => "its tracks are not all what a browser plays",
    }
}
