//! Copied tracks, judged by decoding input and output with the `ffmpeg` command: same pictures, same sound, same times.

use std::{fs, path::Path};

use xora_shared::{
    media::{Format, Recipe},
    report::{Fate, StrategyKind},
};

use super::media_test::{Made, PICTURES, SOUND, X264, compress, entry, film, make, synth, thumbnail, tool, wanted};

/// Pictures with B-frames and a place to begin at every half second.
const GOPS: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 12 -bf 2";

pub(super) fn transcode(input: &Path, format: Format) -> Made {
    make(input, wanted(Recipe::Transcode, format))
}

/// Time in microseconds, counted from the first one of the file, and hash of each decoded picture or run of samples.
pub(super) fn decoded(file: &Path, stream: &str) -> Vec<(i64, String)> {
    let input = file.to_str().expect("text");
    // Else times are rounded to the rate of pictures.
    let exact = ["-fps_mode", "passthrough", "-enc_time_base:v", "-1"];
    let arguments =
        [&["-nostdin", "-v", "error", "-copyts", "-i", input, "-map", stream][..], &exact, &["-f", "framemd5"]];
    let text = tool("ffmpeg", &arguments.concat(), Path::new("-"));
    let (mut base, mut found) = ((1, 1), Vec::new());
    for line in text.lines() {
        if let Some(tb) = line.strip_prefix("#tb 0: ") {
            let (num, den) = tb.split_once('/').expect("a fraction");
            base = (num.parse::<i64>().expect("a number"), den.parse::<i64>().expect("a number"));
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let pts: i64 = fields[2].parse().expect("a time");
            found.push((pts * base.0 * 1_000_000 / base.1, fields[5].to_owned()));
        }
    }
    found
}

/// Where sound begins and ends after the first picture, by decoding; in microseconds.
pub(super) fn sound_after_pictures(file: &Path) -> i64 {
    decoded(file, "0:a:0")[0].0 - decoded(file, "0:v:0")[0].0
}

fn assert_same_pictures(input: &Path, made: &Made) {
    let (before, after) = (decoded(input, "0:v:0"), decoded(&made.file, "0:v:0"));
    let name = input.display();
    assert_eq!(before.len(), after.len(), "{name}");
    let moved = after[0].0 - before[0].0;
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(before.1, after.1, "{name}: picture {number}");
        assert!((after.0 - before.0 - moved).abs() <= 1_000, "{name}: picture {number} at {} µs", after.0);
    }
}

fn copied(made: &Made) -> usize {
    made.report.streams.iter().filter(|stream| stream.fate == Fate::Kept).count()
}

#[test]
fn what_every_player_takes_is_copied_from_any_container() {
    let film_codecs = format!("{PICTURES} {SOUND} {GOPS} -c:a aac");
    let table = [
        ("copy-first.mp4", format!("{film_codecs} -movflags +faststart"), Format::Mov),
        ("copy-last.mp4", film_codecs.clone(), Format::Mp4),
        ("copy.mkv", film_codecs.clone(), Format::Mp4),
        ("copy.ts", film_codecs.clone(), Format::Mp4),
        ("copy.flv", film_codecs.replace("48000", "44100"), Format::Mp4),
        ("copy-fragments.mp4", format!("{film_codecs} -movflags +frag_keyframe+empty_moov"), Format::Mp4),
        ("copy-mp3.mkv", format!("{PICTURES} {SOUND} {GOPS} -c:a libmp3lame"), Format::Mp4),
        ("copy-vp8.mkv", format!("{PICTURES} {SOUND} -c:v libvpx -deadline realtime -c:a libvorbis"), Format::Webm),
        ("copy-vp9.webm", format!("{PICTURES} {SOUND} -c:v libvpx-vp9 -deadline realtime -c:a libopus"), Format::Webm),
    ];
    for (file, arguments, format) in table {
        let input = synth(file, &arguments);
        let made = transcode(&input, format);
        assert_eq!(made.strategy.kind, StrategyKind::Remux, "{file}: {:?}", made.strategy);
        assert_eq!(copied(&made), 2, "{file}");
        assert_same_pictures(&input, &made);
        let (before, after) = (sound_after_pictures(&input), sound_after_pictures(&made.file));
        assert!((before - after).abs() < 2_000, "{file}: sound at {before} µs, then at {after} µs");
        let sound = |path: &Path| decoded(path, "0:a:0").into_iter().map(|(_, hash)| hash).collect::<Vec<_>>();
        // Matroska can say how much of the last packet is silence, MP4 cannot.
        let (before, after) = (sound(&input), sound(&made.file));
        let last = before.len() - 1;
        assert_eq!((before.len(), &before[..last]), (after.len(), &after[..last]), "{file}");
    }
}

#[test]
fn what_not_every_player_takes_is_encoded_beside_what_is_copied() {
    let input = synth("copy-ac3.mkv", &format!("{PICTURES} {SOUND} {GOPS} -c:a ac3"));
    let made = transcode(&input, Format::Mp4);
    assert_eq!(made.strategy.kind, StrategyKind::Copy);
    assert_eq!(entry(&made.file, "a:0", "codec_name"), "aac");
    assert_same_pictures(&input, &made);
    let (before, after) = (sound_after_pictures(&input), sound_after_pictures(&made.file));
    assert!((before - after).abs() < 2_000, "sound at {before} µs, then at {after} µs");

    let made = transcode(&film(), Format::Webm);
    assert_eq!(made.strategy.kind, StrategyKind::Encode);
    assert_eq!(
        (entry(&made.file, "v:0", "codec_name"), entry(&made.file, "a:0", "codec_name")),
        ("vp9".into(), "opus".into())
    );
}

#[test]
fn pictures_before_the_start_of_an_edit_list_stay_hidden() {
    let long = synth("copy-long.mp4", &format!("{PICTURES} {SOUND} {GOPS} -c:a aac"));
    let cut = synth("copy-cut.mp4", &format!("-ss 0.7 -i {} -c copy", long.display()));
    let made = transcode(&cut, Format::Mp4);
    assert_eq!(made.strategy.kind, StrategyKind::Remux);
    assert_same_pictures(&cut, &made);
    let (before, after) = (sound_after_pictures(&cut), sound_after_pictures(&made.file));
    assert!((before - after).abs() < 2_000, "sound at {before} µs, then at {after} µs");
}

#[test]
fn a_turned_or_stretched_picture_is_copied_with_what_says_so() {
    let upright = synth("copy-anamorphic.mp4", &format!("-f lavfi -i testsrc2=s=720x576:r=25:d=1,setsar=64/45 {X264}"));
    let turned = synth("copy-turned.mp4", &format!("-i {} -c copy -metadata:s:v rotate=90", upright.display()));
    let made = transcode(&turned, Format::Mov);
    assert_eq!(made.strategy.kind, StrategyKind::Remux);
    assert_eq!(entry(&made.file, "v:0", "sample_aspect_ratio"), "64:45");
    assert_eq!(entry(&made.file, "v:0", "side_data_list"), entry(&turned, "v:0", "side_data_list"));
}

#[test]
fn what_a_container_says_of_the_shape_of_pixels_counts_more_than_what_pictures_say() {
    let square = synth("copy-square.mp4", &format!("{PICTURES} -vf setsar=1 {X264}"));
    for name in ["copy-stretched.mp4", "copy-stretched.mkv"] {
        let input = synth(name, &format!("-i {} -c copy -aspect 16:9", square.display()));
        let copied = transcode(&input, Format::Mp4);
        assert_eq!(copied.strategy.kind, StrategyKind::Remux, "{name}");
        let encoded = make(&input, compress(Format::Mp4));
        let picture = make(&input, thumbnail(0));
        for (file, expected) in
            [(&copied.file, "320,240,4:3"), (&encoded.file, "426,240,1:1"), (&picture.file, "427,240,1:1")]
        {
            assert_eq!(entry(file, "v:0", "width,height,sample_aspect_ratio"), expected, "{name}");
        }
    }
}

#[test]
fn sound_is_copied_into_its_own_format() {
    let table = [
        ("copy.mp3", "-c:a libmp3lame", Format::Mp3, "mp3"),
        ("copy-aac.m4a", "-c:a aac", Format::Aac, "aac"),
        ("copy-pcm.wav", "-c:a pcm_s24le", Format::Wav, "pcm_s24le"),
        ("copy-flac.mkv", "-c:a flac", Format::Flac, "flac"),
        ("copy-opus.webm", "-c:a libopus", Format::Opus, "opus"),
    ];
    for (file, codec, format, expected) in table {
        let input = synth(file, &format!("{SOUND} {codec}"));
        let made = transcode(&input, format);
        assert_eq!(made.strategy.kind, StrategyKind::Remux, "{file}");
        assert_eq!(entry(&made.file, "a:0", "codec_name"), expected);
    }
}

#[test]
fn what_changes_in_mid_stream_is_not_copied_to_where_it_is_said_once() {
    let stream = |name, size, channels| {
        let pictures = format!("-f lavfi -i testsrc2=s={size}:r=25:d=2");
        let later = if name == "copy-before.ts" { "0" } else { "2.1" };
        let codecs = format!("{X264} -c:a aac -ac {channels}");
        fs::read(synth(name, &format!("{pictures} {SOUND} {codecs} -output_ts_offset {later}"))).expect("file")
    };
    let before = stream("copy-before.ts", "320x240", 1);
    for (name, size, channels, why) in [
        ("copy-larger.ts", "640x480", 1, "parameters of the pictures change"),
        ("copy-wider.ts", "320x240", 2, "channels of the sound change"),
    ] {
        let both = film().with_file_name(format!("both-{name}"));
        fs::write(&both, [before.clone(), stream(name, size, channels)].concat()).expect("written");
        let made = transcode(&both, Format::Mp4);
        assert_eq!(made.strategy.kind, StrategyKind::Encode);
        assert!(made.strategy.reasons.iter().any(|reason| reason.contains(why)), "{:?}", made.strategy);
        assert_eq!(decoded(&made.file, "0:v:0").len(), 100);
    }
    let same = film().with_file_name("both-same.ts");
    fs::write(&same, [before, stream("copy-after.ts", "320x240", 1)].concat()).expect("written");
    assert_eq!(transcode(&same, Format::Mp4).strategy.kind, StrategyKind::Remux);
}
