//! Parts of files in which going to a place is not easy, and of which little lies in the part.

use std::path::{Path, PathBuf};

use xora_shared::{
    media::{Cut, ExtractAudio, Format, Gop, Proxy, RateControl, Recipe, Scale, Trim},
    report::StrategyKind,
};

use crate::ipc::Up;

use super::{
    media_test::{Made, PICTURES, SOUND, X264, entry, make, picture_times, synth, thumbnail, wanted},
    recipe_test::{assert_numbered, clicks, cut, numbered, numbers, sound_ms},
};

fn trim(input: &Path, start_us: u64, duration_us: u64) -> Made {
    make(input, wanted(Recipe::Trim(Trim { cut: cut(start_us, Some(duration_us)) }), Format::Mp4))
}

fn proxy(input: &Path, cut: Cut) -> Made {
    let proxy = Proxy { rate: RateControl::Crf(4), scale: Scale::default(), gop: Gop::PerSecond, cut };
    make(input, wanted(Recipe::Proxy(proxy), Format::Mp4))
}

/// Half a second of numbered pictures, then none for some seconds, then the rest.
fn pausing(name: &str, codec: &str) -> PathBuf {
    let select = "-vf select='not(between(n,13,124))' -fps_mode vfr";
    synth(name, &format!("-i {} {select} {codec} -an", numbered().display()))
}

#[test]
fn what_is_shown_when_a_part_begins_is_shown_from_its_start() {
    let table = [
        ("pausing.mp4", "-c:v libx264 -crf 4 -pix_fmt yuv420p"),
        ("pausing.mkv", "-c:v libx265 -preset ultrafast -crf 4 -x265-params log-level=none"),
    ];
    for (name, codec) in table {
        let input = pausing(name, codec);
        let all = numbers(&input);
        // Nothing begins in the first part; into the second one picture goes on, and the third begins in mid-picture.
        for (start_us, duration_us, shown, times) in [
            (2_000_000, 1_500_000, &all[12..13], vec![0]),
            (4_500_000, 600_000, &all[12..16], vec![0, 500, 540, 580]),
            (200_000, 80_000, &all[5..7], vec![0, 40]),
        ] {
            let made = trim(&input, start_us, duration_us);
            assert_eq!(picture_times(&made.file), times, "{name} from {start_us}");
            let found = numbers(&made.file);
            assert!(
                found.len() == shown.len() && found.iter().zip(shown).all(|(one, two)| (one - two).abs() <= 2),
                "{name} from {start_us}: {found:?} instead of {shown:?}"
            );
            let made = proxy(&input, cut(start_us, Some(duration_us)));
            let (length, meant) = (made.report.expect.video.expect("pictures").duration_us, duration_us);
            assert!(length.abs_diff(meant) <= 1_000, "{name} from {start_us}: {length}");
        }
    }
}

#[test]
fn sound_that_goes_on_behind_a_part_keeps_its_end() {
    let slow = synth(
        "slow.mp4",
        &format!("-f lavfi -i testsrc2=s=320x240:r=1:d=6 -f lavfi -i sine=d=6:r=48000 {X264} -c:a aac"),
    );
    let made = proxy(&slow, cut(1_300_000, Some(1_500_000)));
    // The encoder's last packet is played whole.
    assert!((1_500..1_525).contains(&sound_ms(&made.file)), "{}", sound_ms(&made.file));
    assert_eq!(picture_times(&made.file), [0, 700]);
}

#[test]
fn a_part_stays_in_step_where_the_container_counts_in_whole_pictures() {
    let table = [
        ("whole-pictures.avi", "-c:v mpeg4 -q:v 2 -c:a pcm_s16le"),
        ("whole-pictures.ogg", "-c:v libtheora -q:v 9 -c:a libvorbis -ac 2"),
    ];
    for (name, codecs) in table {
        let input = synth(name, &format!("-i {} {codecs}", numbered().display()));
        let made = trim(&input, 1_300_000, 3_000_000);
        // The part begins in the middle of a picture.
        assert_eq!(picture_times(&made.file)[0] % 40, 20, "{name}");
        let found = clicks(&made.file);
        assert!(found.len() == 3 && (found[0] - 700).abs() <= 12, "{name}: {found:?}");
    }
}

#[test]
fn files_that_know_no_places_are_read_from_their_start() {
    let input = synth("bare.h264", &format!("-i {} -c copy -bsf:v h264_mp4toannexb", numbered().display()));
    assert_numbered(&trim(&input, 3_000_000, 1_000_000).file, 75, 25);
    let found = numbers(&make(&input, thumbnail(3_010_000)).file);
    assert!((found[0] - numbers(&numbered())[75]).abs() <= 2, "{found:?}");
}

#[test]
fn sound_stays_in_step_where_two_recordings_were_put_together() {
    let one = synth("one-recording.ts", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let bytes = std::fs::read(&one).expect("file");
    let two = one.with_file_name("two-recordings.ts");
    std::fs::write(&two, [&bytes[..], &bytes[..]].concat()).expect("written");
    let made = proxy(&two, Cut::default());
    assert_eq!(picture_times(&made.file).len(), 100);
    assert!((3_980..4_060).contains(&sound_ms(&made.file)), "{}", sound_ms(&made.file));
    let part = trim(&two, 500_000, 1_000_000);
    assert_eq!(picture_times(&part.file).len(), 25);
}

#[test]
fn a_part_of_the_sound_is_the_same_part_of_the_file_as_with_pictures() {
    let late = synth(
        "late-clicks.mkv",
        &format!("{PICTURES} -itsoffset 0.6 -i {} -map 0:v -map 1:a {X264} -c:a aac -t 4", numbered().display()),
    );
    let recipe = |format| wanted(Recipe::Trim(Trim { cut: cut(500_000, Some(1_300_000)) }), format);
    // Clicks are at 0.6, 1.6 and 2.6 s.
    for format in [Format::Mp4, Format::Wav] {
        let found = clicks(&make(&late, recipe(format)).file);
        assert_eq!(found.len(), 2, "{format:?}: {found:?}");
        assert_eq!(found[1] - found[0], 1000, "{format:?}: {found:?}");
    }
}

#[test]
fn sound_without_loss_keeps_its_depth_and_a_part_of_it_counts_from_its_start() {
    let fine = synth("fine.flac", &format!("-i {} -vn -c:a flac -sample_fmt s32", numbered().display()));
    let extract = |cut| wanted(Recipe::ExtractAudio(ExtractAudio { cut, copy: true }), Format::Mp3);
    let part = make(&fine, extract(cut(1_500_000, Some(2_000_000))));
    assert_eq!(entry(&part.file, "a:0", "codec_name,bits_per_raw_sample"), "flac,24");
    assert_eq!(sound_ms(&part.file), 2_000);
    let found = clicks(&part.file);
    assert!(found.len() == 2 && (found[0] - 500).abs() <= 3, "{found:?}");
    let copied = make(&fine, extract(Cut::default()));
    assert_eq!(copied.strategy.kind, StrategyKind::Remux);
    let wav = make(&fine, wanted(Recipe::Transcode, Format::Wav));
    assert_eq!(entry(&wav.file, "a:0", "codec_name"), "pcm_s24le");
}

#[test]
fn sound_that_an_edit_list_hides_is_not_copied_to_where_nothing_can_be_hidden() {
    let edited = synth("edited-sound.mp4", &format!("-ss 2.5 -i {} -c copy", numbered().display()));
    let hears = clicks(&edited);
    let extracted =
        make(&edited, wanted(Recipe::ExtractAudio(ExtractAudio { cut: Cut::default(), copy: true }), Format::Mp3));
    assert_eq!(entry(&extracted.file, "a:0", "codec_name"), "aac");
    let found = clicks(&extracted.file);
    assert_eq!(found.len(), hears.len(), "{found:?} {hears:?}");
    // One packet primes the decoder, and the first is not cut in its middle.
    let moved = found[0] - hears[0];
    assert!((0..=45).contains(&moved), "{found:?} {hears:?}");
}

#[test]
fn of_what_a_camera_recorded_its_sound_alone_is_read() {
    let pictures = "-f lavfi -i testsrc2=s=1280x720:r=2:d=5,noise=alls=40";
    let codecs = "-map 0:v -map 1:a -c:v mjpeg -q:v 4 -pix_fmt yuvj420p -c:a aac";
    let camera = synth("camera.mov", &format!("{pictures} -i {} {codecs} -t 5", numbered().display()));
    let hears = clicks(&camera);
    for (cut, begins_ms, count) in [(Cut::default(), 0, hears.len()), (cut(1_500_000, Some(2_000_000)), 1_500, 2)] {
        let made = make(&camera, wanted(Recipe::ExtractAudio(ExtractAudio { cut, copy: true }), Format::Wav));
        let found = clicks(&made.file);
        assert_eq!(found.len(), count, "{found:?} of {hears:?}");
        let meant = hears.iter().filter(|at| **at >= begins_ms);
        assert!(found.iter().zip(meant).all(|(at, meant)| (at + begins_ms - meant).abs() <= 25), "{found:?} {hears:?}");
        let told = |message: &Up| if let Up::ExpectOnly { places, .. } = message { places.len() } else { 0 };
        let places: usize = made.told.messages.iter().map(told).sum();
        assert!((count..=11).contains(&places), "{places} places");
        // The first two pictures, of half a megabyte each, tell what they are.
        assert!(made.told.bytes_read < 1_500_000, "{} bytes", made.told.bytes_read);
    }
}

#[test]
fn the_first_samples_of_a_part_of_sound_are_those_of_the_whole() {
    let sound = "-f lavfi -i sine=f=1000:d=4:r=48000";
    let samples = |file: &Path, from: &str| {
        let input = file.to_str().expect("text");
        let arguments = ["-nostdin", "-v", "error", "-i", input, "-ac", "1", "-af", from, "-f", "s16le", "-"];
        let output = std::process::Command::new("ffmpeg").args(arguments).output().expect("ffmpeg");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.chunks(2).map(|two| i32::from(i16::from_le_bytes([two[0], two[1]]))).collect::<Vec<_>>()
    };
    for (name, codec) in [
        ("steady.m4a", "-c:a aac -b:a 192k"),
        ("steady.mp3", "-c:a libmp3lame -b:a 192k"),
        ("steady.ogg", "-c:a libvorbis -ac 2"),
        ("steady.opus", "-c:a libopus -b:a 128k"),
    ] {
        let input = synth(name, &format!("{sound} {codec}"));
        let part = make(&input, wanted(Recipe::Trim(Trim { cut: cut(1_500_000, Some(500_000)) }), Format::Wav));
        let (meant, found) = (samples(&input, "atrim=start=1.5:end=2"), samples(&part.file, "anull"));
        assert!(meant.len().abs_diff(found.len()) <= 1, "{name}: {} instead of {}", found.len(), meant.len());
        let worst = meant.iter().zip(&found).take(4096).map(|(meant, found)| (meant - found).abs()).max();
        assert!(worst.is_some_and(|worst| worst < 100), "{name}: {worst:?} {:?} {:?}", &meant[..8], &found[..8]);
    }
}
