//! What each recipe wishes for, and the plan that follows from it.

use xora_av::{Kind, Orientation, Stream};
use xora_shared::{
    media::{Compress, Cut, ExtractAudio, FileType, Format, Gop, Proxy, RateControl, Resize, Scale, Trim, VideoCodec},
    report::{Fate, Strategy, StrategyKind, StreamFate},
};

use super::{
    Abilities, AudioEncode, Film, Make, Part, Plan, Track, VideoEncode, Way, describe_all,
    tracks::{self, Keys, VideoWish},
};
use crate::job::{
    fault::{Done, Fault},
    probe::{Probe, check_colors},
    streams::{belong_together, fates, first_audio, is_readable, pick_audio, pick_cover, pick_video},
};

/// Quality where a recipe states none: x264's own default, at which few see a difference.
pub const CRF: u8 = 23;
/// The same for VP9, whose scale runs to 63: what libvpx's guide for video on demand gives for 1080p.
const CRF_VP9: u8 = 31;

/// Chooses a stream, if one will do.
pub type Pick = for<'a> fn(&'a [Stream]) -> Option<&'a Stream>;

/// What a recipe wishes for, before it is known what the input has.
pub struct Wish {
    /// What is written.
    pub format: Format,
    /// The pictures, where they are encoded; none for sound only.
    pub video: Option<VideoWish>,
    /// Which sound is taken.
    pub sound: Pick,
    /// Whether pictures may be copied.
    pub copies_video: bool,
    /// Whether sound may be copied.
    pub copies_audio: bool,
    /// The part that is made.
    pub cut: Cut,
    /// Whether the part begins exactly where it says, instead of with the packet there.
    pub is_exact: bool,
    /// Why it is done this way, first.
    pub reason: String,
}

/// `proxy`.
pub fn proxy(probe: &Probe, recipe: &Proxy, abilities: Abilities) -> Done<Plan> {
    let keys = match recipe.gop {
        Gop::PerSecond => Keys::EverySecond,
        Gop::AllIntra => Keys::EveryPicture,
    };
    let wish = Wish {
        format: Format::Mp4,
        video: Some(VideoWish { codec: VideoCodec::H264, rate: recipe.rate, scale: recipe.scale, keys }),
        sound: pick_audio,
        copies_video: false,
        copies_audio: false,
        cut: recipe.cut,
        is_exact: true,
        reason: format!("proxy always encodes anew, at {}", rate_in_words(recipe.rate)),
    };
    film(probe, &wish, abilities)
}

/// `compress`.
pub fn compress(probe: &Probe, recipe: &Compress, format: Format, abilities: Abilities) -> Done<Plan> {
    let (codec, rate) = (recipe.codec, recipe.rate);
    let fits = match format {
        Format::Webm => codec == VideoCodec::Vp9,
        Format::Mp4 | Format::Mov => codec != VideoCodec::Vp9,
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
    if !fits {
        return Err(Fault::unsupported(format!("compress cannot write {codec:?} into {}", format.extension())));
    }
    let wish = Wish {
        format,
        video: Some(VideoWish { codec, rate, scale: Scale::default(), keys: Keys::AsEncoder }),
        sound: pick_audio,
        copies_video: false,
        copies_audio: false,
        cut: Cut::default(),
        is_exact: true,
        reason: format!("compress encodes anew at {}", rate_in_words(rate)),
    };
    film(probe, &wish, abilities)
}

/// `transcode`.
pub fn transcode(probe: &Probe, format: Format, abilities: Abilities) -> Done<Plan> {
    let wish = Wish {
        format,
        video: video_in(format, Scale::default()),
        sound: pick_audio,
        copies_video: true,
        copies_audio: true,
        cut: Cut::default(),
        is_exact: true,
        reason: format!("transcode to {} copies what every player takes and encodes the rest", format.extension()),
    };
    film(probe, &wish, abilities)
}

/// `resize`.
pub fn resize(probe: &Probe, recipe: &Resize, format: Format, abilities: Abilities) -> Done<Plan> {
    let wish = Wish {
        format,
        video: video_in(format, recipe.scale),
        sound: pick_audio,
        copies_video: false,
        copies_audio: true,
        cut: Cut::default(),
        is_exact: true,
        reason: "resize encodes the pictures in their new size".to_owned(),
    };
    film(probe, &wish, abilities)
}

/// `trim`.
pub fn trim(probe: &Probe, recipe: &Trim, format: Format, abilities: Abilities) -> Done<Plan> {
    let wish = Wish {
        format,
        video: video_in(format, Scale::default()),
        sound: pick_audio,
        copies_video: true,
        copies_audio: true,
        cut: recipe.cut,
        is_exact: true,
        reason: "trim is exact to the picture".to_owned(),
    };
    film(probe, &wish, abilities)
}

/// `extractAudio`.
pub fn extract_audio(probe: &Probe, recipe: &ExtractAudio, format: Format, abilities: Abilities) -> Done<Plan> {
    // Encoding anew loses nothing of these.
    let is_kept = |own: &Format| abilities.copy || matches!(own, Format::Flac | Format::Wav);
    let own = first_audio(&probe.streams).and_then(tracks::own_format).filter(|_| recipe.copy).filter(is_kept);
    let fallback = if format.file_type() == FileType::Audio { format } else { Format::Mp3 };
    // MP4 need not say how long the last packet is, and the header of FLAC must.
    let copies_audio = recipe.copy && (own != Some(Format::Flac) || probe.mp4.is_none());
    let reason = match own {
        Some(Format::Flac) if !recipe.cut.is_whole() || !abilities.copy || !copies_audio => {
            "extractAudio keeps FLAC as it is".to_owned()
        }
        Some(Format::Wav) if !recipe.cut.is_whole() || !abilities.copy => {
            "extractAudio keeps samples as they are".to_owned()
        }
        Some(own) => format!("extractAudio copies the sound into {}", own.extension()),
        None => format!("extractAudio encodes the sound to {}", fallback.extension()),
    };
    let wish = Wish {
        format: own.unwrap_or(fallback),
        video: None,
        sound: first_audio,
        copies_video: false,
        copies_audio,
        cut: recipe.cut,
        is_exact: false,
        reason,
    };
    let plan = film(probe, &wish, abilities)?;
    Ok(Plan { warnings: delivered_warning(format, wish.format).into_iter().collect(), ..plan })
}

/// What a caller should know who gets another format than asked for.
fn delivered_warning(asked: Format, made: Format) -> Option<String> {
    let [wanted, delivered] = [asked, made].map(Format::extension);
    let why = if asked.file_type() == FileType::Audio {
        format!("because its audio is copied as it is; `\"copy\": false` encodes it to {wanted}")
    } else {
        format!("because {wanted} is no format of audio; name one in output.format")
    };
    (asked != made).then(|| format!("the output is {delivered} instead of {wanted}, {why}"))
}

/// The pictures of a format at the usual quality; none for formats of sound.
pub(super) fn video_in(format: Format, scale: Scale) -> Option<VideoWish> {
    let (codec, crf) = match format {
        Format::Webm => (VideoCodec::Vp9, CRF_VP9),
        Format::Mp4 | Format::Mov => (VideoCodec::H264, CRF),
        Format::Mp3 | Format::Aac | Format::Wav | Format::M4a | Format::Opus | Format::Flac | Format::Ogg => {
            return None;
        }
        Format::Gif | Format::Jpg | Format::Png | Format::Webp => return None,
    };
    Some(VideoWish { codec, rate: RateControl::Crf(crf), scale, keys: Keys::AsEncoder })
}

/// The plan that fulfils a wish the cheapest way.
pub fn film(probe: &Probe, wish: &Wish, abilities: Abilities) -> Done<Plan> {
    let streams = &probe.streams;
    let video = wish.video.as_ref().and_then(|_| pick_video(streams));
    let is_of_another = |stream: &&Stream| video.is_some_and(|video| !belong_together(video, stream));
    let audio = (wish.sound)(streams).filter(|stream| !is_of_another(stream));
    check_there(probe, wish, video, audio)?;
    video.map_or(Ok(()), check_colors)?;
    let candidates: Vec<&Stream> = video.into_iter().chain(audio).collect();
    let first = candidates.iter().filter_map(|stream| stream.start_us()).min();
    // A part is a part of the file, whichever of its tracks are used; all of a track begins where it does.
    let of_all = || candidates.first().and_then(|leader| begins_us(streams, leader));
    let begins_us = if wish.cut.is_whole() { first } else { of_all().or(first) }.unwrap_or(0);
    let is_outside = |stream: &&&Stream| is_outside(stream, begins_us, wish.cut, probe.declares_duration);
    let outside = candidates.iter().filter(is_outside).map(|stream| stream.index);
    // What has nothing to show or to say in the part is left out, as long as something else is in it.
    let outside =
        Some(outside.collect::<Vec<_>>()).filter(|outside| outside.len() < candidates.len()).unwrap_or_default();
    let [video, audio] = [video, audio].map(|stream| stream.filter(|stream| !outside.contains(&stream.index)));
    let mut reasons = vec![wish.reason.clone()];
    let video_track = video.zip(wish.video.as_ref()).map(|(stream, picture)| {
        let (way, why) = video_way(stream, picture, probe, wish, abilities);
        reasons.extend(why);
        Track { stream: stream.index, way }
    });
    let audio_track = audio.map(|stream| {
        let obstacle = audio_obstacle(stream, probe, wish, abilities);
        reasons.extend(in_words("sound", &stream.codec, obstacle.as_deref()));
        let encode = obstacle.map(|_| tracks::encode_audio(stream, wish.format)).transpose()?;
        Ok::<_, Fault>(Track { stream: stream.index, way: encode.map_or(Way::Copy, Way::Encode) })
    });
    let audio_track = audio_track.transpose()?;
    if wish.video.is_some() && pick_video(streams).is_none() {
        reasons.push("the input has no moving pictures that can be read, so the output has sound only".to_owned());
    }
    let chosen: Vec<&Stream> = video.into_iter().chain(audio).collect();
    let duration_us = length_us(probe, wish.cut);
    let cover = pick_cover(streams).filter(|cover| video.is_none() && tracks::holds_cover(wish.format, &cover.codec));
    let film = Film {
        format: wish.format,
        start_us: begins_us.saturating_add_unsigned(wish.cut.start_us),
        part: Part {
            from_start: wish.cut.start_us > 0,
            end_us: wish.cut.duration_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
        },
        duration_us,
        expected_bytes: expected_bytes(probe, wish.video.as_ref().map(|video| video.rate), duration_us),
        video: video_track,
        audio: audio_track,
        cover: cover.map(|cover| cover.index),
    };
    let fate = |stream: &Stream| if film.copies(stream.index) { Fate::Kept } else { Fate::Converted };
    let taken = chosen.iter().map(|stream| (*stream, fate(stream)));
    let taken: Vec<_> = taken.chain(cover.map(|cover| (cover, Fate::Kept))).collect();
    let mut fates = fates(streams, &taken, |stream| reason_of(stream, &film));
    for stream in outside {
        fates[stream].reason = Some("it has nothing in the part that is wanted".to_owned());
    }
    Ok(Plan {
        strategy: Strategy { kind: kind(&film, wish.cut, streams), reasons },
        warnings: if wish.video.is_some() { lost(streams, &fates) } else { Vec::new() },
        fates,
        make: Make::Film(Box::new(film)),
    })
}

/// What a caller should know whose film loses all of its audio or its video because nothing could be read of it.
fn lost(streams: &[Stream], fates: &[StreamFate]) -> Vec<String> {
    let of = |kind: Kind, name: &str| {
        let tracks = || streams.iter().filter(|stream| stream.kind == kind && !stream.is_attached_picture);
        let is_used = tracks().any(|stream| fates[stream.index].fate != Fate::Dropped);
        let unread = tracks().find(|stream| !is_readable(stream)).filter(|_| !is_used)?;
        let StreamFate { what, reason, .. } = &fates[unread.index];
        let reason = reason.as_deref().unwrap_or("it could not be read");
        Some(format!("the output has no {name}: `{what}` was dropped, because {reason}"))
    };
    of(Kind::Video, "video").into_iter().chain(of(Kind::Audio, "audio")).collect()
}

fn check_there(probe: &Probe, wish: &Wish, video: Option<&Stream>, audio: Option<&Stream>) -> Done<()> {
    let found = || describe_all(&probe.streams);
    match (&wish.video, video, audio) {
        (_, None, Some(_)) | (Some(_), Some(_), _) | (None, Some(_), Some(_)) => {}
        (Some(_), None, None) => {
            let found = found();
            return Err(Fault::unsupported(format!(
                "the input has neither pictures nor sound that can be decoded; found: {found}"
            )));
        }
        (None, _, None) => {
            let (extension, found) = (wish.format.extension(), found());
            return Err(Fault::unsupported(format!(
                "the input has no sound track to make {extension} of; found: {found}"
            )));
        }
    }
    // Others may be wrong about their length.
    match probe.duration_us.filter(|_| probe.mp4.is_some()) {
        Some(duration) if wish.cut.start_us > 0 && wish.cut.start_us >= duration => {
            let (start, length) = (wish.cut.start_us / 1000, duration / 1000);
            Err(Fault::unsupported(format!(
                "startSeconds is at {start} ms, but the input is only {length} ms long: begin earlier"
            )))
        }
        _ => Ok(()),
    }
}

/// How the pictures are made, and why.
fn video_way(
    stream: &Stream,
    picture: &VideoWish,
    probe: &Probe,
    wish: &Wish,
    abilities: Abilities,
) -> (Way<VideoEncode>, Option<String>) {
    let encode = || Way::Encode(tracks::encode_video(stream, picture, abilities));
    if !wish.copies_video || !abilities.copy {
        return (encode(), None);
    }
    let obstacle = tracks::video_obstacle(stream, probe, wish.format);
    if wish.cut.is_whole() || obstacle.is_some() {
        let way = if obstacle.is_some() { encode() } else { Way::Copy };
        return (way, in_words("pictures", &stream.codec, obstacle.as_deref()));
    }
    if let Some(obstacle) = tracks::cut_obstacle(stream) {
        return (encode(), in_words("pictures", &stream.codec, Some(&obstacle)));
    }
    let why = "pictures copied, but for those between a cut and the nearest place where decoding can begin";
    (Way::Cut(tracks::encode_patch()), Some(why.to_owned()))
}

/// Why the sound must be encoded, in words.
fn audio_obstacle(stream: &Stream, probe: &Probe, wish: &Wish, abilities: Abilities) -> Option<String> {
    if !wish.copies_audio || !abilities.copy {
        return Some(String::new());
    }
    if wish.format == Format::Flac && !wish.cut.is_whole() {
        return Some("every packet says where in the whole it stands, and encoding anew loses nothing".to_owned());
    }
    // Packets of samples are as long as a demuxer likes: at 8 kHz, half a second. What 24 bits hold is not changed.
    if wish.format == Format::Wav
        && !wish.cut.is_whole()
        && matches!(stream.codec.as_str(), "pcm_u8" | "pcm_s16le" | "pcm_s24le")
    {
        return Some("cutting samples loses nothing".to_owned());
    }
    let inside_a_packet = wish.is_exact && wish.cut.start_us > 0 && !tracks::hides_start(wish.format);
    tracks::audio_obstacle(stream, probe, wish.format)
        .or_else(|| inside_a_packet.then(|| "the cut is exact to the sample".to_owned()))
}

/// An empty obstacle is the recipe's own will, and has been said.
fn in_words(what: &str, codec: &str, obstacle: Option<&str>) -> Option<String> {
    match obstacle {
        None => Some(format!("{what} copied: {codec} needs no encoding")),
        Some("") => None,
        Some(obstacle) => Some(format!("{what} encoded: {obstacle}")),
    }
}

/// Named after the pictures where there are any: they are most of the work.
fn kind(film: &Film, cut: Cut, streams: &[Stream]) -> StrategyKind {
    let copies_sound = film.audio.as_ref().is_none_or(|track| track.way == Way::Copy);
    match film.video.as_ref().map(|track| &track.way) {
        Some(Way::Encode(_)) => StrategyKind::Encode,
        Some(Way::Cut(_)) => StrategyKind::SmartCut,
        Some(Way::Copy) if copies_sound && cut.is_whole() => StrategyKind::Remux,
        None if !copies_sound => StrategyKind::Encode,
        None if cut.is_whole() && pick_video(streams).is_none() => StrategyKind::Remux,
        Some(Way::Copy) | None => StrategyKind::Copy,
    }
}

impl Film {
    fn copies(&self, stream: usize) -> bool {
        self.video.as_ref().is_some_and(|track| track.stream == stream && track.encode().is_none())
            || self.audio.as_ref().is_some_and(|track| track.stream == stream && track.encode().is_none())
    }

    fn encodes_video(&self) -> Option<&VideoEncode> {
        self.video.as_ref().and_then(Track::encode)
    }

    fn encodes_audio(&self) -> Option<&AudioEncode> {
        self.audio.as_ref().and_then(Track::encode)
    }
}

impl<E> Track<E> {
    /// How all of it is encoded; none when it is copied, if only for the most part.
    pub fn encode(&self) -> Option<&E> {
        match &self.way {
            Way::Copy | Way::Cut(_) => None,
            Way::Encode(encode) => Some(encode),
        }
    }
}

/// What is worth saying of a stream that is used.
fn reason_of(stream: &Stream, film: &Film) -> Option<String> {
    match stream.kind {
        Kind::Audio => film
            .encodes_audio()
            .filter(|encode| stream.channels > encode.channels)
            .map(|_| format!("{} channels were mixed down to stereo, which every browser plays", stream.channels)),
        Kind::Video if film.video.as_ref().is_some_and(|track| matches!(track.way, Way::Cut(_))) => {
            Some("but for the pictures next to a cut, which are encoded".to_owned())
        }
        Kind::Video if stream.orientation != Orientation::Upright => {
            film.encodes_video().map(|_| "turned upright, as its display matrix says".to_owned())
        }
        Kind::Video | Kind::Subtitle | Kind::Attachment | Kind::Data => None,
    }
}

/// When the first of all tracks of a stream's programme that play begins, in microseconds: every programme has a clock of
/// its own.
pub(super) fn begins_us(streams: &[Stream], of: &Stream) -> Option<i64> {
    let plays = |stream: &&Stream| {
        matches!(stream.kind, Kind::Video | Kind::Audio) && !stream.is_attached_picture && belong_together(of, stream)
    };
    streams.iter().filter(plays).filter_map(Stream::start_us).min()
}

/// Whether a track begins after the wanted part, or is sound that ends before it, where its length is more than an
/// estimate. The last picture stays.
fn is_outside(stream: &Stream, begins_us: i64, cut: Cut, declares_length: bool) -> bool {
    let Some(start_us) = stream.start_us().map(|start| start - begins_us) else { return false };
    let from_us = i64::try_from(cut.start_us).unwrap_or(i64::MAX);
    let end_us = cut.duration_us.map(|us| from_us.saturating_add_unsigned(us));
    let length_us = stream.duration_us().filter(|_| declares_length);
    let ends_before = stream.kind == Kind::Audio && length_us.is_some_and(|length| start_us + length <= from_us);
    ends_before || end_us.is_some_and(|end| start_us >= end)
}

/// The output's length in microseconds, when known.
fn length_us(probe: &Probe, cut: Cut) -> Option<u64> {
    let rest = probe.duration_us.map(|duration| duration.saturating_sub(cut.start_us));
    match (rest, cut.duration_us) {
        (Some(rest), Some(wanted)) => Some(rest.min(wanted)),
        (rest, wanted) => rest.or(wanted),
    }
}

fn expected_bytes(probe: &Probe, rate: Option<RateControl>, duration_us: Option<u64>) -> u64 {
    let seconds = duration_us.map_or(3600, |us| us / 1_000_000 + 1);
    match rate {
        Some(RateControl::BitrateKbps(kbps)) => seconds * (u64::from(kbps) + 128) * 125,
        // A smaller file is the point; where it is not, the hint is still of the right order.
        Some(RateControl::Crf(_)) => probe.size.unwrap_or(seconds * 500_000),
        None => probe.size.unwrap_or(u64::MAX).min(seconds * 200_000),
    }
}

fn rate_in_words(rate: RateControl) -> String {
    match rate {
        RateControl::Crf(crf) => format!("constant quality {crf}"),
        RateControl::BitrateKbps(kbps) => format!("{kbps} kbit/s"),
    }
}
