//! Tables of inputs and what is decided for them.

use xora_av::{Color, Kind, Orientation, Rational, Stream};
use xora_shared::{
    failure::FailureKind,
    media::{Compress, Format, RateControl, Recipe, Thumbnail, VideoCodec, Wanted},
    report::{Fate, StreamFate},
};

use crate::{
    ipc::JobFailure,
    job::{
        fault::Fault,
        plan::{Abilities, Film, Make, decide},
        probe::Probe,
    },
};

pub(super) const ABILITIES: Abilities = Abilities { tonemap: true, copy: true };

fn stream(index: usize, kind: Kind, codec: &str) -> Stream {
    Stream {
        index,
        kind,
        codec: codec.to_owned(),
        time_base: Rational(1, 1000),
        start: Some(0),
        duration: Some(10_000),
        frames: 0,
        bit_rate: 0,
        is_default: false,
        is_attached_picture: false,
        width: 0,
        height: 0,
        aspect: Rational(1, 1),
        pixel_format: String::new(),
        depth: 8,
        color: Color::UNSPECIFIED,
        is_interlaced: false,
        orientation: Orientation::Upright,
        frame_rate: Rational(25, 1),
        sample_rate: 0,
        channels: 0,
        layout: String::new(),
        priming: 0,
        has_header: true,
    }
}

pub(super) fn video(index: usize, width: u32, height: u32) -> Stream {
    Stream { width, height, ..stream(index, Kind::Video, "h264") }
}

pub(super) fn audio(index: usize, sample_rate: u32, channels: u32) -> Stream {
    Stream { sample_rate, channels, ..stream(index, Kind::Audio, "aac") }
}

fn cover(index: usize) -> Stream {
    Stream { is_attached_picture: true, ..video(index, 300, 300) }
}

pub(super) fn probe(streams: Vec<Stream>) -> Probe {
    Probe {
        size: Some(1_000_000),
        container: "mov,mp4".to_owned(),
        duration_us: Some(10_000_000),
        streams,
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
