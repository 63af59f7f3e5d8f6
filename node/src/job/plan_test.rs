//! Tables of inputs and what is decided for them.

use xora_av::{Color, Kind, Orientation, Rational, Stream};
use xora_shared::{
    failure::FailureKind,
    media::{
        Compress, Cut, ExtractAudio, Format, Gop, Proxy, RateControl, Recipe, Resize, Scale, Thumbnail, Trim,
        VideoCodec, Wanted, WebEncode, WebReady,
    },
    report::{Fate, StrategyKind, StreamFate},
};

use crate::{
    ipc::JobFailure,
    job::{
        fault::Fault,
        look::{Boxes, Mp4},
        plan::{Abilities, Film, Make, Plan, Track, decide},
        probe::Probe,
    },
};

pub(super) const ABILITIES: Abilities = Abilities { tonemap: true, copy: true, pass_through: true };

fn stream(index: usize, kind: Kind, codec: &str) -> Stream {
    Stream {
        index,
        id: 0,
        programs: Vec::new(),
        kind,
        codec: codec.to_owned(),
        time_base: Rational(1, 1000),
        start: Some(0),
        duration: Some(10_000),
        frames: 0,
        bit_rate: 0,
        is_default: false,
        is_secondary: false,
        is_attached_picture: false,
        width: 0,
        height: 0,
        aspect: Rational(1, 1),
        pixel_format: String::new(),
        depth: 8,
        color: Color::UNSPECIFIED,
        is_interlaced: false,
        orientation: Orientation::Upright,
        is_dolby_only: false,
        frame_rate: Rational(25, 1),
        sample_rate: 0,
        channels: 0,
        layout: String::new(),
        frame_size: 0,
        sample_bits: 0,
        priming: 0,
        profile: 100,
        has_header: true,
    }
}

pub(super) fn video(index: usize, width: u32, height: u32) -> Stream {
    Stream { width, height, pixel_format: "yuv420p".to_owned(), ..stream(index, Kind::Video, "h264") }
}

pub(super) fn audio(index: usize, sample_rate: u32, channels: u32) -> Stream {
    Stream { sample_rate, channels, ..stream(index, Kind::Audio, "aac") }
}

fn cover(index: usize) -> Stream {
    Stream { is_attached_picture: true, ..video(index, 300, 300) }
}

/// An MP4 of 10 seconds whose index is first.
pub(super) fn probe(streams: Vec<Stream>) -> Probe {
    let mp4 = Mp4 { boxes: Boxes::Whole, is_index_first: true, is_fragmented: false, is_quicktime: false };
    Probe {
        size: Some(1_000_000),
        container: "mov,mp4".to_owned(),
        mp4: Some(mp4),
        duration_us: Some(10_000_000),
        streams,
        declares_duration: true,
        is_whole: false,
        changing: Vec::new(),
        warnings: Vec::new(),
    }
}

fn compress(format: Format, codec: VideoCodec) -> Wanted {
    Wanted { recipe: Recipe::Compress(Compress { rate: RateControl::Crf(28), codec }), format }
}

fn thumbnail(format: Format) -> Wanted {
    let thumbnail = Thumbnail { seek_us: 0, width: None, height: None, quality: 75 };
    Wanted { recipe: Recipe::Thumbnail(thumbnail), format }
}

fn film_of(streams: Vec<Stream>, wanted: &Wanted) -> (Film, Vec<StreamFate>) {
    let plan = decide(&probe(streams), wanted, ABILITIES).expect("a plan");
    let Make::Film(film) = plan.make else { panic!("a film was wanted") };
    (*film, plan.fates)
}

fn refusal(streams: Vec<Stream>, wanted: &Wanted) -> (FailureKind, String) {
    match decide(&probe(streams), wanted, ABILITIES) {
        Err(Fault::Job(JobFailure::Known { kind, message })) => (kind, message),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn the_default_picture_track_wins_then_the_largest_then_the_first() {
    let mut marked = video(1, 320, 240);
    marked.is_default = true;
    let table = [
        (vec![video(0, 640, 480), marked, video(2, 1920, 1080)], 1),
        (vec![video(0, 640, 480), video(1, 1920, 1080)], 1),
        (vec![video(0, 640, 480), video(1, 640, 480)], 0),
        (vec![cover(0), video(1, 64, 64)], 1),
    ];
    for (streams, expected) in table {
        let (film, _) = film_of(streams, &compress(Format::Mp4, VideoCodec::H264));
        assert_eq!(film.video.expect("pictures").stream, expected);
    }
}

#[test]
fn every_stream_is_accounted_for_and_drops_have_reasons() {
    let streams =
        vec![video(0, 640, 480), audio(1, 48_000, 6), audio(2, 48_000, 2), stream(3, Kind::Subtitle, "subrip")];
    let (film, fates) = film_of(streams, &compress(Format::Mp4, VideoCodec::H264));
    assert_eq!(fates.len(), 4);
    assert_eq!(fates.iter().filter(|fate| fate.fate == Fate::Converted).count(), 2);
    assert!(fates.iter().all(|fate| fate.fate != Fate::Dropped || fate.reason.is_some()));
    assert!(fates[1].reason.as_ref().expect("a reason").contains("stereo"));
    assert_eq!(film.audio.expect("sound").encode().expect("encoded").channels, 2);
}

#[test]
fn sound_without_pictures_is_compressed_to_sound() {
    let (film, _) = film_of(vec![audio(0, 8_000, 1), cover(1)], &compress(Format::Mp4, VideoCodec::H264));
    assert!(film.video.is_none());
    let track = film.audio.expect("sound").encode().expect("encoded").clone();
    assert_eq!((track.sample_rate, track.channels), (48_000, 1));
}

#[test]
fn rates_of_the_compact_disc_family_stay_exact() {
    for (input, format, expected) in [
        (44_100, Format::Mp4, 44_100),
        (22_050, Format::Mov, 44_100),
        (96_000, Format::Mp4, 48_000),
        (44_100, Format::Webm, 48_000),
    ] {
        let codec = if format == Format::Webm { VideoCodec::Vp9 } else { VideoCodec::H264 };
        let (film, _) = film_of(vec![audio(0, input, 2)], &compress(format, codec));
        assert_eq!(film.audio.expect("sound").encode().expect("encoded").sample_rate, expected);
    }
}

#[test]
fn an_input_without_what_the_recipe_needs_is_unsupported() {
    let subtitles = || vec![stream(0, Kind::Subtitle, "subrip")];
    for wanted in [compress(Format::Mp4, VideoCodec::H264), thumbnail(Format::Jpg)] {
        let (kind, message) = refusal(subtitles(), &wanted);
        assert_eq!(kind, FailureKind::InputUnsupported);
        assert!(message.contains("subtitle subrip"), "{message}");
    }
    assert_eq!(refusal(vec![audio(0, 44_100, 2)], &thumbnail(Format::Jpg)).0, FailureKind::InputUnsupported);
    let crossed = compress(Format::Webm, VideoCodec::H264);
    assert_eq!(refusal(vec![video(0, 64, 64)], &crossed).0, FailureKind::InputUnsupported);
}

#[test]
fn a_thumbnail_of_sound_is_its_cover() {
    let plan = decide(&probe(vec![audio(0, 44_100, 2), cover(1)]), &thumbnail(Format::Jpg), ABILITIES).expect("a plan");
    let Make::Still(still) = plan.make else { panic!("a still was wanted") };
    assert!(still.is_cover && still.stream == 1);
}

#[test]
fn the_earliest_chosen_stream_begins_at_zero() {
    let (mut early, mut late) = (video(0, 64, 64), audio(1, 48_000, 2));
    early.start = Some(1_400);
    late.start = Some(1_900);
    let (film, _) = film_of(vec![early, late], &compress(Format::Mp4, VideoCodec::H264));
    assert_eq!(film.start_us, 1_400_000);
}

/// How a track is made: `copy`, the encoder's name, or `-` for none.
fn way<E>(track: Option<&Track<E>>, name: impl Fn(&E) -> &'static str) -> &'static str {
    track.map_or("-", |track| track.encode().map_or("copy", name))
}

fn ways(plan: &Plan) -> (&'static str, &'static str) {
    match &plan.make {
        Make::Film(film) => {
            (way(film.video.as_ref(), |encode| encode.encoder), way(film.audio.as_ref(), |encode| encode.encoder))
        }
        Make::Nothing(_) => ("-", "-"),
        Make::Still(_) => panic!("a film was wanted"),
    }
}

fn with_codec(codec: &str, stream: Stream) -> Stream {
    Stream { codec: codec.to_owned(), ..stream }
}

fn hd() -> Stream {
    video(0, 1280, 720)
}

fn stereo() -> Stream {
    audio(1, 48_000, 2)
}

const WEB_READY: Recipe = Recipe::WebReady(WebReady { encode: None });

#[test]
fn web_ready_does_the_least_that_is_right() {
    let whole = probe(vec![hd(), stereo()]);
    let mp4 = whole.mp4.expect("an MP4");
    let last = Probe { mp4: Some(Mp4 { is_index_first: false, ..mp4 }), ..whole.clone() };
    let fragmented = Probe { mp4: Some(Mp4 { is_fragmented: true, ..mp4 }), ..whole.clone() };
    let matroska = Probe { mp4: None, container: "matroska,webm".to_owned(), ..whole.clone() };
    let avi = Probe { mp4: None, container: "avi".to_owned(), ..whole.clone() };
    let heavy = Probe { size: Some(100_000_000), ..whole.clone() };
    let of = |streams| Probe { streams, ..whole.clone() };
    let deep = Stream { pixel_format: "yuv420p10le".to_owned(), ..hd() };
    let interlaced = Stream { is_interlaced: true, ..hd() };
    let table = [
        ("web-ready", whole.clone(), StrategyKind::Passthrough, ("-", "-")),
        ("silent", of(vec![hd()]), StrategyKind::Passthrough, ("-", "-")),
        ("with MP3", of(vec![hd(), with_codec("mp3", stereo())]), StrategyKind::Passthrough, ("-", "-")),
        ("index last", last, StrategyKind::Remux, ("copy", "copy")),
        ("fragments", fragmented, StrategyKind::Remux, ("copy", "copy")),
        ("matroska", matroska, StrategyKind::Remux, ("copy", "copy")),
        ("two picture tracks", of(vec![hd(), stereo(), video(2, 640, 360)]), StrategyKind::Remux, ("copy", "copy")),
        ("AC-3", of(vec![hd(), with_codec("ac3", stereo())]), StrategyKind::Copy, ("copy", "aac")),
        ("no times", avi, StrategyKind::Encode, ("libx264", "aac")),
        ("too heavy", heavy, StrategyKind::Encode, ("libx264", "copy")),
        ("HEVC", of(vec![with_codec("hevc", hd()), stereo()]), StrategyKind::Encode, ("libx264", "copy")),
        ("10 bits", of(vec![deep, stereo()]), StrategyKind::Encode, ("libx264", "copy")),
        ("interlaced", of(vec![interlaced]), StrategyKind::Encode, ("libx264", "-")),
    ];
    for (name, probe, kind, expected) in table {
        let plan = decide(&probe, &Wanted { recipe: WEB_READY, format: Format::Mp4 }, ABILITIES).expect("a plan");
        assert_eq!((plan.strategy.kind, ways(&plan)), (kind, expected), "{name}: {:?}", plan.strategy.reasons);
        let first = match kind {
            StrategyKind::Passthrough => "passthrough",
            StrategyKind::Remux => "faststart_remux",
            StrategyKind::Copy | StrategyKind::SmartCut | StrategyKind::Encode if expected.0 == "copy" => {
                "faststart_remux"
            }
            StrategyKind::Copy | StrategyKind::SmartCut | StrategyKind::Encode => "web_encode",
        };
        assert!(plan.strategy.reasons[0].starts_with(first), "{name}: {:?}", plan.strategy.reasons);
    }
}

#[test]
fn web_ready_copies_what_needs_nothing_where_its_own_url_cannot_be_the_result() {
    let stored = Abilities { pass_through: false, ..ABILITIES };
    let ready = probe(vec![hd(), stereo()]);
    let plan = decide(&ready, &Wanted { recipe: WEB_READY, format: Format::Mp4 }, stored).expect("a plan");
    assert_eq!((plan.strategy.kind, ways(&plan)), (StrategyKind::Remux, ("copy", "copy")));
    assert!(plan.strategy.reasons[0].contains("its output belongs in storage"), "{:?}", plan.strategy.reasons);
}

#[test]
fn web_ready_says_that_it_encodes_where_copying_was_tried_in_vain() {
    let whole = probe(vec![hd(), stereo()]);
    let last = Probe { mp4: whole.mp4.map(|mp4| Mp4 { is_index_first: false, ..mp4 }), ..whole };
    let tried = Abilities { copy: false, ..ABILITIES };
    let plan = decide(&last, &Wanted { recipe: WEB_READY, format: Format::Mp4 }, tried).expect("a plan");
    assert_eq!((plan.strategy.kind, ways(&plan)), (StrategyKind::Encode, ("libx264", "aac")));
    assert_eq!(plan.strategy.reasons[0], "web_encode: its index is not first");
}

#[test]
fn any_encode_setting_forces_web_ready_to_encode() {
    let (rate, scale) = (Some(RateControl::Crf(20)), Scale::default());
    let table = [
        WebEncode { rate, scale },
        WebEncode { rate: None, scale: Scale { only_down: true, ..scale } },
        WebEncode { rate: None, scale: Scale { width: Some(640), ..scale } },
    ];
    for encode in table {
        let recipe = Recipe::WebReady(WebReady { encode: Some(encode) });
        let (film, _) = film_of(vec![hd(), stereo()], &Wanted { recipe, format: Format::Mp4 });
        let video = film.video.expect("pictures");
        let encode = video.encode().expect("encoded");
        assert_eq!(encode.key_every_us, Some(1_000_000));
    }
}

#[test]
fn transcode_copies_what_every_player_takes() {
    let table = [
        (vec![hd(), stereo()], Format::Mp4, ("copy", "copy")),
        (vec![hd(), stereo()], Format::Mov, ("copy", "copy")),
        (vec![hd(), stereo()], Format::Webm, ("libvpx-vp9", "libopus")),
        (vec![with_codec("vp9", hd()), with_codec("opus", stereo())], Format::Webm, ("copy", "copy")),
        (vec![with_codec("vp8", hd()), with_codec("vorbis", stereo())], Format::Webm, ("copy", "copy")),
        (vec![with_codec("vp9", hd()), with_codec("opus", stereo())], Format::Mp4, ("libx264", "aac")),
        (vec![hd(), with_codec("flac", stereo())], Format::Mp4, ("copy", "aac")),
        (vec![hd(), stereo()], Format::Mp3, ("-", "libmp3lame")),
        (vec![hd(), stereo()], Format::Aac, ("-", "copy")),
        (vec![hd(), stereo()], Format::M4a, ("-", "copy")),
        (vec![hd(), stereo()], Format::Wav, ("-", "pcm_s16le")),
        (vec![hd(), stereo()], Format::Opus, ("-", "libopus")),
        (vec![hd(), stereo()], Format::Flac, ("-", "flac")),
        (vec![with_codec("pcm_s24le", stereo())], Format::Wav, ("-", "copy")),
        (vec![with_codec("pcm_s16be", stereo())], Format::Wav, ("-", "pcm_s16le")),
    ];
    for (streams, format, expected) in table {
        let what = format!("{streams:?}");
        let plan = decide(&probe(streams), &Wanted { recipe: Recipe::Transcode, format }, ABILITIES).expect("a plan");
        assert_eq!(ways(&plan), expected, "{format:?} of {what}");
        let cannot = Abilities { copy: false, ..ABILITIES };
        let plan = decide(&probe(vec![hd(), stereo()]), &Wanted { recipe: Recipe::Transcode, format }, cannot);
        assert!(plan.expect("a plan").fates.iter().all(|fate| fate.fate != Fate::Kept), "{format:?}");
    }
}

#[test]
fn extracted_sound_is_copied_into_its_own_format_or_encoded_to_the_fallback() {
    let table = [
        ("mp3", Format::Wav, Format::Mp3, "copy"),
        ("aac", Format::Mp3, Format::Aac, "copy"),
        ("opus", Format::Mp3, Format::Opus, "copy"),
        ("vorbis", Format::Mp3, Format::Ogg, "copy"),
        ("flac", Format::Mp3, Format::Flac, "flac"),
        ("pcm_s16le", Format::Mp3, Format::Wav, "copy"),
        ("ac3", Format::Wav, Format::Wav, "pcm_s16le"),
        ("ac3", Format::Aac, Format::Aac, "aac"),
        ("ac3", Format::Mp4, Format::Mp3, "libmp3lame"),
        ("wmav2", Format::Jpg, Format::Mp3, "libmp3lame"),
    ];
    for (codec, asked, expected, how) in table {
        let recipe = Recipe::ExtractAudio(ExtractAudio { cut: Cut::default(), copy: true });
        let (film, fates) = film_of(vec![hd(), with_codec(codec, stereo())], &Wanted { recipe, format: asked });
        assert_eq!(film.format, expected, "{codec}");
        assert_eq!(way(film.audio.as_ref(), |encode| encode.encoder), how, "{codec}");
        assert!(film.video.is_none() && fates[0].fate == Fate::Dropped && fates[0].reason.is_some());
    }
    let recipe = Recipe::ExtractAudio(ExtractAudio { cut: Cut::default(), copy: true });
    let default = Stream { is_default: true, ..with_codec("mp3", audio(2, 48_000, 2)) };
    let tracks = || vec![hd(), stereo(), default.clone()];
    let (film, _) = film_of(tracks(), &Wanted { recipe: recipe.clone(), format: Format::Mp3 });
    assert_eq!((film.format, film.audio.map(|track| track.stream)), (Format::Aac, Some(1)), "the first, as stated");
    let (film, _) = film_of(tracks(), &Wanted { recipe: Recipe::Transcode, format: Format::Mp4 });
    assert_eq!(film.audio.map(|track| track.stream), Some(2), "what a player takes");
    let (kind, message) = refusal(vec![hd()], &Wanted { recipe, format: Format::Mp3 });
    assert_eq!(kind, FailureKind::InputUnsupported);
    assert!(message.contains("no sound"), "{message}");
}

#[test]
fn proxies_and_new_sizes_are_always_encoded() {
    let scale = Scale { width: Some(640), ..Scale::default() };
    let rate = RateControl::Crf(32);
    let proxy =
        |gop| Recipe::Proxy(Proxy { rate, scale, gop, cut: Cut { start_us: 1_000_000, duration_us: Some(2_000_000) } });
    for (recipe, options) in [
        (proxy(Gop::PerSecond), ("forced-idr", "1")),
        (proxy(Gop::AllIntra), ("g", "1")),
        (Recipe::Resize(Resize { scale }), ("crf", "23")),
    ] {
        let (film, _) = film_of(vec![hd(), stereo()], &Wanted { recipe, format: Format::Mp4 });
        let video = film.video.expect("pictures");
        let encode = video.encode().expect("encoded");
        assert!(encode.options.contains(&(options.0, options.1.to_owned())), "{:?}", encode.options);
    }
    let (film, _) = film_of(vec![hd(), stereo()], &Wanted { recipe: proxy(Gop::AllIntra), format: Format::Mp4 });
    assert_eq!((film.start_us, film.part.end_us, film.duration_us), (1_000_000, Some(2_000_000), Some(2_000_000)));
}

#[test]
fn a_cut_that_begins_behind_the_end_is_refused_with_the_length() {
    let recipe = Recipe::Trim(Trim { cut: Cut { start_us: 10_000_000, duration_us: None } });
    let (kind, message) = refusal(vec![hd(), stereo()], &Wanted { recipe, format: Format::Mp4 });
    assert_eq!(kind, FailureKind::InputUnsupported);
    assert!(message.contains("10000 ms"), "{message}");
}

#[test]
fn a_trim_copies_all_that_a_cut_leaves_whole() {
    let cut = |start_us, duration_us| Recipe::Trim(Trim { cut: Cut { start_us, duration_us } });
    let middle = || cut(1_000_000, Some(2_000_000));
    let odd = Stream { profile: 110, ..hd() };
    let table = [
        (vec![hd(), stereo()], Format::Mp4, middle(), StrategyKind::SmartCut, "copy"),
        (vec![hd(), stereo()], Format::Mov, cut(0, Some(1_000_000)), StrategyKind::SmartCut, "copy"),
        (vec![hd(), stereo()], Format::Mp4, cut(0, None), StrategyKind::Remux, "copy"),
        (vec![odd, stereo()], Format::Mp4, middle(), StrategyKind::Encode, "copy"),
        (
            vec![with_codec("vp9", hd()), with_codec("opus", stereo())],
            Format::Webm,
            middle(),
            StrategyKind::Encode,
            "libopus",
        ),
        (vec![hd(), stereo()], Format::M4a, middle(), StrategyKind::Copy, "copy"),
        (vec![hd(), with_codec("mp3", stereo())], Format::Mp3, middle(), StrategyKind::Encode, "libmp3lame"),
        (vec![hd(), with_codec("mp3", stereo())], Format::Mp3, cut(0, Some(1_000_000)), StrategyKind::Copy, "copy"),
        (vec![hd(), stereo()], Format::Wav, middle(), StrategyKind::Encode, "pcm_s16le"),
    ];
    for (streams, format, recipe, kind, sound) in table {
        let what = format!("{recipe:?} to {format:?}");
        let plan = decide(&probe(streams), &Wanted { recipe, format }, ABILITIES).expect("a plan");
        assert_eq!((plan.strategy.kind, ways(&plan).1), (kind, sound), "{what}: {:?}", plan.strategy.reasons);
        let is_part_kept = plan.fates[0].fate == Fate::Kept && plan.fates[0].reason.is_some();
        assert_eq!(is_part_kept, kind == StrategyKind::SmartCut, "{what}: {:?}", plan.fates[0]);
    }
}
