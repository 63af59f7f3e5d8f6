//! Whole recipes on synthesised files, judged by decoding the results with the `ffmpeg` command.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xora_shared::{
    media::{Cut, ExtractAudio, Format, Gop, Proxy, RateControl, Recipe, Resize, Scale, Trim, WebEncode, WebReady},
    report::{Fate, StrategyKind},
};

use super::{
    copy_test::{decoded, sound_after_pictures},
    media_test::{
        Made, PICTURES, SOUND, X264, entry, film, make, passes_through, picture_times, problems_of, synth, thumbnail,
        tool, wanted,
    },
};
use crate::ipc::Up;

fn web_ready(encode: Option<WebEncode>) -> Recipe {
    Recipe::WebReady(WebReady { encode })
}

pub(super) fn cut(start_us: u64, duration_us: Option<u64>) -> Cut {
    Cut { start_us, duration_us }
}

/// Times of the pictures that a player can begin at, in milliseconds.
fn key_times(file: &Path) -> Vec<i64> {
    let arguments =
        ["-v", "error", "-select_streams", "v:0", "-skip_frame", "nokey", "-show_entries", "frame=pts_time"];
    let text = tool("ffprobe", &[&arguments[..], &["-of", "csv=p=0"]].concat(), file);
    let seconds = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_end_matches(',').parse::<f64>().expect("seconds"));
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    seconds.map(|seconds| (seconds * 1000.0).round() as i64).collect()
}

/// How long the sound is when it is decoded, in milliseconds.
pub(super) fn sound_ms(file: &Path) -> i64 {
    let frames = decoded(file, "0:a:0");
    let rate: i64 = entry(file, "a:0", "sample_rate").parse().expect("a rate");
    let channels: i64 = entry(file, "a:0", "channels").parse().expect("channels");
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-v", "error", "-i", input, "-map", "0:a:0", "-f", "s16le", "-c:a", "pcm_s16le"];
    let output = std::process::Command::new("ffmpeg").args(arguments).arg("-").output().expect("ffmpeg");
    assert!(output.status.success() && !frames.is_empty());
    i64::try_from(output.stdout.len()).expect("small") * 1000 / (2 * channels * rate)
}

/// 12 seconds in which every picture has its number as its brightness, sound that clicks once a second, B-frames, and
/// a place to begin every two seconds.
pub(super) fn numbered() -> PathBuf {
    let pictures = "color=black:s=160x120:r=25:d=12,format=yuv420p,geq=lum='16+mod(N,200)':cb=128:cr=128";
    let sound = "aevalsrc='if(lt(mod(t,1),0.02),sin(2*PI*1000*t),0)':s=48000:d=12";
    let codecs = "-c:v libx264 -preset medium -crf 4 -g 50 -sc_threshold 0 -bf 3 -c:a aac -b:a 128k";
    synth("numbered.mp4", &format!("-f lavfi -i {pictures} -f lavfi -i {sound} {codecs} -movflags +faststart"))
}

/// Brightness of each picture in turn.
pub(super) fn numbers(file: &Path) -> Vec<i64> {
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-v", "error", "-i", input, "-map", "0:v:0", "-fps_mode", "passthrough"];
    let scale = ["-vf", "scale=1:1:flags=area,format=gray", "-f", "rawvideo", "-"];
    let output = std::process::Command::new("ffmpeg").args(arguments).args(scale).output().expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.into_iter().map(i64::from).collect()
}

/// Asserts that pictures are those from `first` on, each as bright as its number says.
pub(super) fn assert_numbered(file: &Path, first: i64, count: usize) {
    let found = numbers(file);
    assert_eq!(found.len(), count, "{}", file.display());
    let all = numbers(&numbered());
    for (index, brightness) in (0..).zip(&found) {
        let number = usize::try_from(first + index).expect("small");
        let expected = all[number];
        assert!(
            (brightness - expected).abs() <= 1,
            "{}: picture {index} is {brightness}, not {expected}",
            file.display()
        );
    }
}

/// When the clicks begin after the start of the file, in milliseconds.
pub(super) fn clicks(file: &Path) -> Vec<i64> {
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-v", "error", "-copyts", "-i", input, "-map", "0:a:0", "-ac", "1", "-ar", "48000"];
    let raw = ["-af", "aresample=async=1:first_pts=0", "-f", "s16le", "-"];
    let output = std::process::Command::new("ffmpeg").args(arguments).args(raw).output().expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (samples, _) = output.stdout.as_chunks::<2>();
    let mut found: Vec<i64> = Vec::new();
    for (index, sample) in (0_i64..).zip(samples) {
        let ms = index / 48;
        if i16::from_le_bytes(*sample).unsigned_abs() > 6_000 && found.last().is_none_or(|last| ms - last > 500) {
            found.push(ms);
        }
    }
    found
}

#[test]
fn a_web_ready_file_is_its_own_result() {
    let unchanged = passes_through(&film(), wanted(web_ready(None), Format::Mp4));
    assert_eq!(unchanged.strategy.kind, StrategyKind::Passthrough);
    assert!(unchanged.streams.iter().all(|stream| stream.fate == Fate::Kept));
    assert_eq!(unchanged.verified.frames, Some(50));
    assert_eq!(unchanged.facts.duration_us.map(|us| us / 100_000), Some(20));
}

#[test]
fn what_is_nearly_web_ready_gets_its_index_first() {
    let last = synth(
        "index-last.mp4",
        &format!("{PICTURES} {SOUND} -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
    );
    let made = make(&last, wanted(web_ready(None), Format::Mp4));
    assert_eq!(made.strategy.kind, StrategyKind::Remux);
    assert!(made.strategy.reasons[0].contains("index is not first"), "{:?}", made.strategy);
    passes_through(&made.file, wanted(web_ready(None), Format::Mp4));
}

#[test]
fn what_is_encoded_for_the_web_begins_at_every_second() {
    let variable = synth(
        "variable-hevc.mkv",
        &format!(
            "{PICTURES} {SOUND} -vf select='not(mod(n,3))+not(mod(n,7))' -fps_mode vfr -c:v libx265 -preset ultrafast \
                  -x265-params log-level=none -c:a ac3"
        ),
    );
    let made = make(&variable, wanted(web_ready(None), Format::Mp4));
    assert_eq!(made.strategy.kind, StrategyKind::Encode);
    assert_eq!(entry(&made.file, "v:0", "codec_name"), "h264");
    let (times, keys) = (picture_times(&made.file), key_times(&made.file));
    let first_of_each = |second: i64| times.iter().find(|time| **time >= second * 1000).copied();
    for second in 0..2 {
        let expected = first_of_each(second).expect("a picture");
        assert!(keys.iter().any(|key| (key - expected).abs() <= 1), "{second}: {keys:?}");
    }
    assert!((sound_after_pictures(&variable) - sound_after_pictures(&made.file)).abs() < 20_000);
}

#[test]
fn encode_settings_change_the_size_but_scale_down_never_enlarges() {
    let only_down = |width, height| Scale { width, height, only_down: true };
    for (scale, expected) in [
        (only_down(None, None), "320,240"),
        (only_down(None, Some(120)), "160,120"),
        (only_down(Some(100), Some(100)), "100,76"),
        (only_down(Some(1000), None), "320,240"),
        (Scale { width: Some(640), ..Scale::default() }, "640,480"),
    ] {
        let made = make(&film(), wanted(web_ready(Some(WebEncode { rate: None, scale })), Format::Mp4));
        assert_eq!(entry(&made.file, "v:0", "width,height"), expected, "{scale:?}");
        assert_eq!(picture_times(&made.file).len(), 50);
    }
}

#[test]
fn a_resized_film_has_the_size_asked_for_and_all_its_pictures() {
    for (width, height, format, expected) in [
        (Some(161), None, Format::Mp4, "160,120"),
        (None, Some(121), Format::Mov, "160,120"),
        (Some(100), Some(50), Format::Webm, "100,50"),
    ] {
        let made =
            make(&film(), wanted(Recipe::Resize(Resize { scale: Scale { width, height, only_down: false } }), format));
        assert_eq!(entry(&made.file, "v:0", "width,height"), expected);
        assert_eq!(picture_times(&made.file).len(), 50);
    }
}

#[test]
fn a_proxy_is_cut_and_can_be_begun_at_where_it_says() {
    let proxy = |gop| {
        let (scale, cut) = (Scale { height: Some(60), ..Scale::default() }, cut(3_000_000, Some(2_000_000)));
        wanted(Recipe::Proxy(Proxy { rate: RateControl::Crf(32), scale, gop, cut }), Format::Mp4)
    };
    let made = make(&numbered(), proxy(Gop::AllIntra));
    assert_eq!(entry(&made.file, "v:0", "width,height"), "80,60");
    assert_eq!(key_times(&made.file), picture_times(&made.file));
    assert_eq!(picture_times(&made.file).len(), 50);
    let made = make(&numbered(), proxy(Gop::PerSecond));
    assert_eq!(key_times(&made.file), [0, 1000]);
    let found = numbers(&made.file);
    assert!((found[0] - numbers(&numbered())[75]).abs() <= 4, "{found:?}");
}

#[test]
fn sound_is_extracted_by_copy_or_to_the_fallback() {
    let extract = |format| wanted(Recipe::ExtractAudio(ExtractAudio { cut: Cut::default(), copy: true }), format);
    let table = [
        ("extract-mp3.mkv", "libmp3lame", Format::Wav, "mp3", "mp3", StrategyKind::Copy),
        ("extract-aac.mp4", "aac", Format::Mp3, "aac", "aac", StrategyKind::Copy),
        ("extract-opus.webm", "libopus", Format::Mp3, "opus", "opus", StrategyKind::Copy),
        ("extract-vorbis.mkv", "libvorbis", Format::Mp3, "ogg", "vorbis", StrategyKind::Copy),
        ("extract-flac.mkv", "flac", Format::Mp3, "flac", "flac", StrategyKind::Copy),
        ("extract-pcm.mov", "pcm_s16le", Format::Mp3, "wav", "pcm_s16le", StrategyKind::Copy),
        // Matroska rounds the length of each packet to a millisecond.
        ("extract-float.mkv", "pcm_f32le", Format::Mp3, "wav", "pcm_f32le", StrategyKind::Copy),
        ("extract-big-endian.mov", "pcm_s16be", Format::Wav, "wav", "pcm_s16le", StrategyKind::Encode),
        ("extract-ac3.ts", "ac3", Format::Aac, "aac", "aac", StrategyKind::Encode),
        ("extract-ac3.mkv", "ac3", Format::Jpg, "mp3", "mp3", StrategyKind::Encode),
    ];
    for (file, codec, asked, extension, expected, kind) in table {
        let pictures = if file.ends_with("webm") { "-c:v libvpx" } else { "-c:v libx264 -preset ultrafast" };
        let input = synth(file, &format!("{PICTURES} {SOUND} {pictures} -pix_fmt yuv420p -c:a {codec}"));
        let made = make(&input, extract(asked));
        assert_eq!(made.file.extension().and_then(|name| name.to_str()), Some(extension), "{file}");
        assert_eq!(entry(&made.file, "a:0", "codec_name"), expected, "{file}");
        assert_eq!(made.strategy.kind, kind, "{file}: {:?}", made.strategy);
        let (before, after) = (sound_ms(&input), sound_ms(&made.file));
        assert!((before - after).abs() <= 45, "{file}: {before} ms, then {after} ms");
    }
}

#[test]
fn a_part_of_the_sound_is_extracted_with_its_clicks_in_place() {
    let recipe = Recipe::ExtractAudio(ExtractAudio { cut: cut(2_500_000, Some(3_000_000)), copy: true });
    let made = make(&numbered(), wanted(recipe, Format::Wav));
    let found = clicks(&made.file);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!((found[0] - 500).abs() <= 45, "{found:?}");
    assert!((sound_ms(&made.file) - 3000).abs() <= 45);
}

#[test]
fn a_trim_is_exact_to_the_picture_and_the_sound() {
    for (start_us, duration_us, first, count) in [
        (0, Some(1_000_000), 0, 25),
        (2_000_000, Some(3_000_000), 50, 75),
        (2_960_000, Some(3_400_000), 74, 85),
        (3_010_000, None, 76, 224),
        (4_200_000, Some(40_000), 105, 1),
        (5_990_000, Some(4_050_000), 150, 101),
    ] {
        for format in [Format::Mp4, Format::Mov] {
            let made: Made = make(&numbered(), wanted(Recipe::Trim(Trim { cut: cut(start_us, duration_us) }), format));
            assert_eq!(made.strategy.kind, StrategyKind::SmartCut);
            assert_numbered(&made.file, first, count);
            let begins_ms = i64::try_from(start_us).expect("small") / 1000;
            let expected: Vec<i64> = (0..12).map(|second| second * 1000 - begins_ms).filter(|ms| *ms >= 5).collect();
            for (found, expected) in clicks(&made.file).into_iter().filter(|ms| *ms >= 5).zip(expected) {
                assert!((found - expected).abs() <= 3, "{start_us}: a click at {found} ms, not {expected}");
            }
        }
    }
}

#[test]
fn sound_alone_is_trimmed_to_the_sample() {
    for format in [Format::Wav, Format::Mp3, Format::Aac, Format::M4a, Format::Flac, Format::Opus] {
        let made = make(&numbered(), wanted(Recipe::Trim(Trim { cut: cut(1_500_000, Some(2_000_000)) }), format));
        let found = clicks(&made.file);
        assert_eq!(found.len(), 2, "{format:?}: {found:?}");
        // Bare AAC cannot say that its first samples only prime the decoder, and times of MP3 begin behind them.
        let expected = if matches!(format, Format::Aac | Format::Mp3) { 522 } else { 500 };
        assert!((found[0] - expected).abs() <= 3, "{format:?}: {found:?}");
    }
}

#[test]
fn a_picture_of_a_stream_without_an_index_takes_little_of_what_is_around_it() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=100";
    let broadcast = synth("broadcast.mp4", &format!("{pictures} {X264} -g 50 -bf 2"));
    let disc = synth("disc.mkv", &format!("{pictures} -c:v mpeg2video -b:v 2M -bf 2"));
    for (name, film) in [("broadcast.ts", &broadcast), ("broadcast.m2ts", &broadcast), ("disc.mpg", &disc)] {
        let stream = synth(name, &format!("-i {} -c copy", film.display()));
        let (made, expected) = (make(&stream, thumbnail(63_300_000)), make(film, thumbnail(63_300_000)));
        assert_eq!(decoded(&made.file, "0:v"), decoded(&expected.file, "0:v"), "{name}");
        let (read, size) = (made.told.bytes_read, fs::metadata(&stream).expect("stream").len());
        assert!(read < size / 6, "{name}: {read} of {size} bytes");
    }
}

#[test]
fn no_more_than_five_seconds_are_looked_at_to_find_sound_that_is_there_from_the_start() {
    let film = "-f lavfi -i testsrc2=s=320x240:r=25:d=100 -f lavfi -i sine=d=100:r=48000";
    let codecs = "-c:v mpeg2video -b:v 2M -minrate 2M -maxrate 2M -bufsize 1M -c:a mp2";
    let stream = synth("disc-sound.mpg", &format!("{film} {codecs}"));
    let part = wanted(Recipe::Trim(Trim { cut: cut(60_000_000, Some(1_000_000)) }), Format::Mp3);
    let (read, size) = (make(&stream, part).told.bytes_read, fs::metadata(&stream).expect("stream").len());
    assert!(read < size / 8, "{read} of {size} bytes");
}

#[test]
fn where_the_packets_of_a_picture_lie_is_said_so_that_nothing_behind_them_is_fetched() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=100";
    let film = synth("broadcast.mp4", &format!("{pictures} {X264} -g 50 -bf 2"));
    let size = fs::metadata(&film).expect("film").len();
    let told = make(&film, thumbnail(63_300_000)).told;
    let said = |message| if let Up::ExpectOnly { places, .. } = message { Some(places) } else { None };
    let said: Vec<_> = told.messages.into_iter().filter_map(said).flatten().collect();
    let [place] = &said[..] else { panic!("{said:?}") };
    assert!(place.start > size / 2 && place.end < size * 3 / 4, "{place:?} of {size} bytes");
    // From one place where decoding can begin, of which there is one in two seconds.
    assert!((1..size / 40).contains(&(place.end - place.start)), "{place:?} of {size} bytes");
}

#[test]
fn where_a_part_lies_is_said_so_that_it_is_fetched_ahead_and_little_behind_it() {
    let film = "-f lavfi -i testsrc2=s=320x240:r=25:d=100 -f lavfi -i sine=d=100:r=48000";
    let codecs = format!("{X264} -g 50 -bf 2 -c:a aac");
    let part = || wanted(Recipe::Trim(Trim { cut: cut(63_300_000, Some(2_000_000)) }), Format::Mp4);
    for name in ["part.mp4", "part.mkv", "part.ts", "part.avi"] {
        let input = synth(name, &format!("{film} {codecs}"));
        let size = fs::metadata(&input).expect("film").len();
        let told = make(&input, part()).told;
        let said = |message| if let Up::ExpectOnly { places, .. } = message { Some(places) } else { None };
        let said: Vec<_> = told.messages.into_iter().filter_map(said).flatten().collect();
        let [place] = &said[..] else { panic!("{name}: {said:?}") };
        assert!(place.start > size / 2 && place.end < size * 3 / 4, "{name}: {place:?} of {size} bytes");
        assert!(place.end - place.start > size / 60, "{name}: {place:?} of {size} bytes");
    }
}

#[test]
fn a_part_of_sound_is_found_by_the_pictures_where_only_their_places_are_noted() {
    let sound = "aevalsrc='if(lt(mod(t,1),0.02),sin(2*PI*1000*t),0)':s=48000:d=120";
    let codecs = format!("{X264} -g 50 -c:a pcm_s16le");
    let film = format!("-f lavfi -i color=s=160x120:r=25:d=120 -f lavfi -i {sound} {codecs}");
    for (name, index) in [
        ("clicks-tail.mkv", ""),
        ("clicks-front.mkv", "-reserve_index_space 10000"),
        ("clicks.flv", "-ar 44100 -flvflags add_keyframe_index"),
    ] {
        let input = synth(name, &format!("{film} {index}"));
        for format in [Format::Wav, Format::Mp3] {
            let made = make(&input, wanted(Recipe::Trim(Trim { cut: cut(100_500_000, Some(2_000_000)) }), format));
            let found = clicks(&made.file);
            // Times of MP3 begin behind the samples that only prime the decoder.
            let expected = if format == Format::Mp3 { 522 } else { 500 };
            assert!(found.len() == 2 && (found[0] - expected).abs() <= 3, "{name}, {format:?}: {found:?}");
            let read = made.told.bytes_read;
            assert!(read < 2_000_000, "{name}, {format:?}: {read} bytes");
        }
    }
}

#[test]
fn a_part_of_adpcm_is_exact_though_its_header_says_another_rate() {
    let input = synth("numbered-adpcm.wav", &format!("-i {} -vn -c:a adpcm_ms", numbered().display()));
    let made = make(&input, wanted(Recipe::Trim(Trim { cut: cut(5_500_000, Some(2_000_000)) }), Format::Wav));
    let found = clicks(&made.file);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!((found[0] - 500).abs() <= 3, "{found:?}");
}

#[test]
fn a_trim_of_a_stream_without_an_index_begins_where_it_should() {
    let input = synth("numbered.ts", &format!("-i {} -c copy", numbered().display()));
    let made = make(&input, wanted(Recipe::Trim(Trim { cut: cut(5_000_000, Some(2_000_000)) }), Format::Mp4));
    assert_numbered(&made.file, 125, 50);
}

#[test]
fn a_trim_to_webm_is_exact_too() {
    let made = make(&numbered(), wanted(Recipe::Trim(Trim { cut: cut(1_000_000, Some(1_000_000)) }), Format::Webm));
    let found = numbers(&made.file);
    assert_eq!(found.len(), 25);
    assert!((found[0] - numbers(&numbered())[25]).abs() <= 4, "{found:?}");
}

#[test]
fn damage_where_encoded_pictures_meet_copied_ones_is_noticed() {
    let made = make(&numbered(), wanted(Recipe::Trim(Trim { cut: cut(3_000_000, Some(5_000_000)) }), Format::Mp4));
    let joints = &made.report.expect.video.as_ref().expect("pictures").joints_us;
    assert_eq!(joints[0], 1_000_000);
    let arguments =
        ["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,pos,size", "-of", "csv=p=0"];
    let text = tool("ffprobe", &arguments, &made.file);
    let line = text.lines().find(|line| line.starts_with("1.000000,")).expect("a packet at the joint");
    let numbers: Vec<usize> = line.split(',').skip(1).filter_map(|field| field.parse().ok()).collect();
    let mut damaged = made.told.output.clone();
    let start = numbers[1] + numbers[0] / 4;
    damaged[start..start + numbers[0] / 2].fill(0x55);
    let problems = problems_of(&damaged, &made.report.expect);
    assert!(problems.iter().any(|problem| problem.contains("stumbles")), "{problems:?}");
}

#[test]
fn sound_that_cannot_be_decoded_is_noticed() {
    let made = make(&film(), wanted(Recipe::Transcode, Format::Mov));
    let arguments = ["-v", "error", "-select_streams", "a:0", "-show_entries", "packet=pos,size", "-of", "csv=p=0"];
    let text = tool("ffprobe", &arguments, &made.file);
    let number = |text: &str| text.trim_end_matches(',').parse::<usize>().ok();
    let mut damaged = made.told.output.clone();
    for line in text.lines() {
        // Size and place, and where the demuxer has more to say, that.
        let fields: Vec<usize> = line.split(',').filter_map(number).collect();
        if let [size, place, ..] = fields[..] {
            damaged[place..place + size].fill(0xff);
        }
    }
    let problems = problems_of(&damaged, &made.report.expect);
    assert!(problems.iter().any(|problem| problem.contains("sound cannot be decoded")), "{problems:?}");
}
