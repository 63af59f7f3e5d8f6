//! Joined inputs: the plan by tables, the result by decoding it over its joints.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xora_av::{Orientation, Rational, Stream};
use xora_shared::{
    failure::FailureKind,
    media::{Format, Recipe},
    report::{Fate, StrategyKind},
};

use super::{
    copy_test::decoded,
    media_test::{LIMITS, Made, PICTURES, SOUND, X264, all_refused, entry, film, make_of_all, synth, wanted},
    plan::{
        Abilities, Way,
        concat::{Candidate, Plan, decide},
    },
    plan_test::{ABILITIES, audio, probe, video},
    probe::Probe,
    recipe_test::sound_ms,
};
use crate::ipc::Limits;

fn plan(probes: &[Probe], headers: &[Vec<Vec<u8>>], format: Format, abilities: Abilities) -> Result<Plan, String> {
    let candidates = probes.iter().zip(headers).map(|(probe, headers)| Candidate { probe, headers });
    decide(&candidates.collect::<Vec<_>>(), format, abilities).map_err(|fault| format!("{fault:?}"))
}

fn kind(streams: [Vec<Stream>; 2], format: Format) -> StrategyKind {
    kind_from("mov,mp4", streams, format)
}

fn kind_from(container: &str, streams: [Vec<Stream>; 2], format: Format) -> StrategyKind {
    let probes = streams.map(|streams| Probe { container: container.to_owned(), ..probe(streams) });
    let headers = vec![vec![vec![1], vec![2]]; 2];
    plan(&probes, &headers, format, ABILITIES).expect("a plan").strategy.kind
}

fn usual() -> Vec<Stream> {
    let mut pictures = video(0, 1280, 720);
    pictures.pixel_format = "yuv420p".to_owned();
    vec![pictures, audio(1, 48_000, 2)]
}

/// The usual streams, with the pictures changed.
fn with(change: impl Fn(&mut Stream)) -> Vec<Stream> {
    let mut streams = usual();
    change(&mut streams[0]);
    streams
}

#[test]
fn pictures_that_agree_are_copied_and_others_encoded() {
    use StrategyKind::{Copy, Encode};
    let table: Vec<(Vec<Stream>, Format, StrategyKind)> = vec![
        (usual(), Format::Mp4, Copy),
        (usual(), Format::Mov, Copy),
        (usual(), Format::Webm, Encode),
        (with(|stream| stream.time_base = Rational(1, 90_000)), Format::Mp4, Copy),
        (with(|stream| stream.frame_rate = Rational(30, 1)), Format::Mp4, Copy),
        (with(|stream| stream.aspect = Rational(0, 1)), Format::Mp4, Copy),
        (with(|stream| stream.width = 640), Format::Mp4, Encode),
        (with(|stream| stream.codec = "hevc".to_owned()), Format::Mp4, Encode),
        (with(|stream| stream.pixel_format = "yuv444p".to_owned()), Format::Mp4, Encode),
        (with(|stream| stream.aspect = Rational(4, 3)), Format::Mp4, Encode),
        (with(|stream| stream.orientation = Orientation::Clockwise), Format::Mp4, Encode),
        (with(|stream| stream.color.matrix = 9), Format::Mp4, Encode),
    ];
    for (second, format, expected) in table {
        let shown = format!("{:?} {format:?}", second[0]);
        assert_eq!(kind([usual(), second], format), expected, "{shown}");
    }
    assert_eq!(kind([usual(), vec![usual().remove(0)]], Format::Mp4), Copy, "silence needs no other pictures");
}

#[test]
fn other_headers_and_a_failed_try_end_copying() {
    let probes = [probe(usual()), probe(usual())];
    let (same, other) = (vec![vec![1], vec![2]], vec![vec![9], vec![2]]);
    let with = |headers: &[Vec<Vec<u8>>], copy| {
        let plan = plan(&probes, headers, Format::Mp4, Abilities { copy, ..ABILITIES }).expect("a plan");
        (plan.strategy.kind, plan.strategy.reasons.join("; "))
    };
    let (kind, reasons) = with(&[same.clone(), other], true);
    assert_eq!(kind, StrategyKind::Encode);
    assert!(reasons.contains("input 2 was encoded with other settings"), "{reasons}");
    assert_eq!(with(&[same.clone(), same], false).0, StrategyKind::Encode);
}

#[test]
fn sound_is_copied_into_a_file_of_its_own_where_it_agrees() {
    let sound = |rate, channels| vec![audio(0, rate, channels)];
    let table = [
        (sound(48_000, 2), Format::Aac, StrategyKind::Copy),
        (sound(48_000, 1), Format::Aac, StrategyKind::Encode),
        (sound(44_100, 2), Format::Aac, StrategyKind::Encode),
        (sound(48_000, 2), Format::Mp3, StrategyKind::Encode),
        (sound(48_000, 2), Format::Wav, StrategyKind::Encode),
    ];
    for (second, format, expected) in table {
        let shown = format!("{second:?} {format:?}");
        assert_eq!(kind_from("aac", [sound(48_000, 2), second], format), expected, "{shown}");
    }
}

#[test]
fn rates_that_differ_become_the_first() {
    for (rates, expected) in [
        ([Rational(25, 1), Rational(25, 1)], None),
        ([Rational(30_000, 1001), Rational(2997, 100)], None),
        ([Rational(25, 1), Rational(30, 1)], Some(Rational(25, 1))),
        ([Rational(90_000, 1), Rational(24, 1)], Some(Rational(24, 1))),
        ([Rational(0, 1), Rational(0, 1)], Some(Rational(30, 1))),
    ] {
        let probes = rates.map(|rate| {
            probe(with(|stream| {
                stream.frame_rate = rate;
                stream.codec = "hevc".to_owned();
            }))
        });
        let plan = plan(&probes, &vec![vec![Vec::new(); 2]; 2], Format::Mp4, ABILITIES).expect("a plan");
        let Some(Way::Encode(pictures)) = plan.join.video else { panic!("encoded") };
        assert_eq!(pictures.rate, expected, "{rates:?}");
    }
}

#[test]
fn what_cannot_be_joined_is_named_by_its_number() {
    let refused = |streams: [Vec<Stream>; 2], format| {
        plan(&streams.map(probe), &vec![vec![Vec::new(); 2]; 2], format, ABILITIES).expect_err("refused")
    };
    let sound = || vec![audio(0, 48_000, 2)];
    let silent = || vec![usual().remove(0)];
    assert!(refused([usual(), sound()], Format::Mp4).contains("input 2 has no pictures"));
    assert!(refused([silent(), usual()], Format::Mp3).contains("input 1 has no sound"));
    assert!(refused([silent(), silent()], Format::Wav).contains("no input has sound"));
    assert!(refused([Vec::new(), Vec::new()], Format::Mp4).contains("no input has pictures or sound"));
}

fn concat(inputs: &[&Path], format: Format) -> Made {
    make_of_all(inputs, wanted(Recipe::Concat, format))
}

/// Black, with sound of nothing; a white flash and a beep together at 0.4 s, which is a whole number of pictures at every usual rate. `length` in seconds.
fn flash(name: &str, size: &str, rate: u32, length: &str, sound: &str, codecs: &str) -> PathBuf {
    // A little earlier than the picture, because times are fractions.
    let during = "between(t\\,0.399\\,0.56)";
    let pictures =
        format!("-f lavfi -i color=black:s={size}:r={rate}:d={length},drawbox=c=white:t=fill:enable='{during}'");
    let beep = format!("-f lavfi -i aevalsrc=0.8*sin(6283*t)*{during}:d={length}:{sound}");
    synth(name, &format!("{pictures} {beep} {codecs}"))
}

/// When a flash begins, in milliseconds of the first picture's clock, and when a beep does.
fn flashes_and_beeps(file: &Path) -> (Vec<i64>, Vec<i64>) {
    let run = |arguments: &[&str]| {
        let input = file.to_str().expect("text");
        let output = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-i", input]).args(arguments).output();
        output.expect("ffmpeg").stdout
    };
    let times: Vec<i64> = decoded(file, "0:v:0").into_iter().map(|(time, _)| time / 1000).collect();
    let bright = run(&[
        "-map",
        "0:v",
        "-fps_mode",
        "passthrough",
        "-vf",
        "scale=1:1:flags=area,format=gray",
        "-f",
        "rawvideo",
        "-",
    ]);
    assert_eq!(times.len(), bright.len(), "one brightness each");
    let onsets = |lit: &[bool]| -> Vec<usize> {
        (0..lit.len()).filter(|index| lit[*index] && (*index == 0 || !lit[index - 1])).collect()
    };
    let lit: Vec<bool> = bright.iter().map(|level| *level > 128).collect();
    let flashes = onsets(&lit).into_iter().map(|index| times[index]).collect();
    // By the sound's own clock: where it says nothing, nothing is heard.
    let sound = run(&["-map", "0:a", "-af", "aresample=48000:async=1:first_pts=0", "-ac", "1", "-f", "s16le", "-"]);
    let (samples, _) = sound.as_chunks::<2>();
    // One window is a millisecond.
    let loud = |window: &[[u8; 2]]| window.iter().any(|sample| i16::from_le_bytes(*sample).unsigned_abs() > 4000);
    let mut lit: Vec<bool> = samples.chunks(48).map(loud).collect();
    // A wave crosses zero within a beep.
    for index in 1..lit.len() {
        lit[index] |= lit[index - 1] && lit[index..].iter().take(20).any(|loud| *loud);
    }
    (flashes, onsets(&lit).into_iter().map(|index| i64::try_from(index).expect("short")).collect())
}

fn assert_together(made: &Made, lengths_ms: &[i64], within_ms: i64) {
    let (flashes, beeps) = flashes_and_beeps(&made.file);
    let name = made.file.display();
    assert_eq!((flashes.len(), beeps.len()), (lengths_ms.len(), lengths_ms.len()), "{name}: {flashes:?} {beeps:?}");
    let mut begins = 0;
    for ((flash, beep), length) in flashes.iter().zip(&beeps).zip(lengths_ms) {
        assert!((flash - beep).abs() <= 20, "{name}: {flashes:?} {beeps:?}");
        assert!((flash - begins - 400).abs() <= within_ms, "{name}: {flashes:?} after {begins}");
        begins += length;
    }
}

#[test]
fn inputs_that_agree_are_joined_without_touching_their_pictures() {
    // Reordered pictures, and lengths that no packet of sound divides.
    let codecs = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 12 -bf 2 -c:a aac -shortest";
    let first = flash("joined-a.mp4", "320x240", 25, "1.2", "s=44100", codecs);
    let second = flash("joined-b.mp4", "320x240", 25, "1.52", "s=44100", codecs);
    let inputs = [first.as_path(), &second, &first];
    let made = concat(&inputs, Format::Mp4);
    assert_eq!(made.strategy.kind, StrategyKind::Copy, "{:?}", made.strategy);
    let before: Vec<_> = inputs.iter().flat_map(|input| decoded(input, "0:v:0")).map(|(_, hash)| hash).collect();
    let after = decoded(&made.file, "0:v:0");
    assert_eq!(before, after.iter().map(|(_, hash)| hash.clone()).collect::<Vec<_>>());
    assert!(after.windows(2).all(|pair| pair[1].0 - pair[0].0 == 40_000), "no gap: {after:?}");
    assert_together(&made, &[1200, 1520, 1200], 1);
    let kept = made.report.streams.iter().filter(|fate| fate.fate == Fate::Kept).map(|fate| fate.input);
    assert_eq!(kept.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn inputs_that_differ_become_like_the_first_and_stay_in_step() {
    let first = flash("mix-a.mp4", "320x240", 25, "1.2", "s=44100", &format!("{X264} -c:a aac"));
    let second = flash("mix-b.mkv", "640x360", 30, "1.5", "s=48000:c=stereo", &format!("{X264} -c:a libopus -ac 2"));
    let third = flash("mix-c.avi", "176x144", 15, "1.4", "s=22050", "-c:v mpeg4 -c:a pcm_s16le");
    for format in [Format::Mp4, Format::Webm, Format::Mov] {
        let made = concat(&[&first, &second, &third], format);
        assert_eq!(made.strategy.kind, StrategyKind::Encode);
        assert_eq!(entry(&made.file, "v:0", "width,height"), "320,240");
        // A picture of the slowest is 67 ms long, and stands on the grid of the first.
        assert_together(&made, &[1200, 1500, 1400], 75);
        let frames = made.receipt.frames.expect("pictures");
        assert!((100..=106).contains(&frames), "4.1 s at 25: {frames}");
    }
}

#[test]
fn pixels_of_another_shape_are_fitted_between_bars() {
    let first = synth("square.mp4", &format!("-f lavfi -i color=red:s=320x240:r=25:d=1 {X264}"));
    let wide = synth("anamorphic-red.mp4", &format!("-f lavfi -i color=red:s=320x240:r=25:d=1,setsar=16/9 {X264}"));
    let made = concat(&[&first, &wide], Format::Mp4);
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-ss", "1.5", "-i"])
        .arg(&made.file)
        .args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .output()
        .expect("ffmpeg");
    let lit = |row: usize| output.stdout[row * 320 + 160] > 40;
    let rows = (0..240).filter(|row| lit(*row)).count();
    // 569 to 240 in a width of 320.
    assert!(rows.abs_diff(135) <= 4 && !lit(0) && lit(120) && !lit(239), "{rows} rows are lit");
}

#[test]
fn an_input_without_sound_is_silent_and_the_next_one_in_step() {
    let first = flash("still-a.mp4", "320x240", 25, "1.2", "s=48000", &format!("{X264} -c:a aac"));
    let silent = synth("still-b.mp4", &format!("-f lavfi -i color=black:s=320x240:r=25:d=3 {X264}"));
    let made = concat(&[&silent, &first, &silent, &first], Format::Mp4);
    let (flashes, beeps) = flashes_and_beeps(&made.file);
    assert_eq!((flashes.len(), beeps.len()), (2, 2), "{flashes:?} {beeps:?}");
    for ((flash, beep), expected) in flashes.iter().zip(&beeps).zip([3400, 7600]) {
        assert!((flash - beep).abs() <= 20 && (flash - expected).abs() <= 20, "{flashes:?} {beeps:?}");
    }
    let sound = made.report.expect.audio.expect("sound");
    assert_eq!(sound.samples, 48_000 * 84 / 10, "as long as the pictures, to the sample");
}

#[test]
fn starts_that_are_not_zero_are_taken_off() {
    let codecs = format!("{X264} -c:a aac");
    let first = flash("late-a.ts", "320x240", 25, "1.2", "s=48000", &codecs);
    let second = flash("late-b.mkv", "320x240", 25, "1.2", "s=48000", &format!("{codecs} -output_ts_offset 5"));
    // Transport streams begin with the priming of their sound, of 21 ms.
    assert_together(&concat(&[&first, &second], Format::Mp4), &[1200, 1200], 50);
}

#[test]
fn sound_alone_is_joined_sample_by_sample() {
    let first = synth("join-a.wav", "-f lavfi -i sine=d=1.111:r=44100");
    let second = synth("join-b.wav", "-f lavfi -i sine=f=880:d=0.777:r=44100");
    let made = concat(&[&first, &second], Format::Wav);
    assert_eq!(made.strategy.kind, StrategyKind::Copy);
    let samples = |file: &Path| {
        let output = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(file).args(["-f", "s16le", "-"]).output();
        output.expect("ffmpeg").stdout
    };
    assert!(samples(&made.file) == [samples(&first), samples(&second)].concat(), "the same samples");
    let first = synth("join-c.aac", &format!("{SOUND} -c:a aac"));
    let made = concat(&[&first, &first], Format::Aac);
    assert_eq!(made.strategy.kind, StrategyKind::Copy, "{:?}", made.strategy);
    assert!((sound_ms(&made.file) - 2 * sound_ms(&first)).abs() <= 1);
}

/// The peak of what is far above the tone, in decibels.
fn hiss(file: &Path, part: &str) -> f64 {
    let input = file.to_str().expect("text");
    let filter = format!("atrim={part},highpass=f=4000:p=2,highpass=f=4000:p=2,astats");
    let arguments = ["-nostdin", "-i", input, "-af", &filter, "-f", "null", "-"];
    let output = Command::new("ffmpeg").args(arguments).output().expect("ffmpeg");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let peak = text.rsplit_once("Peak level dB: ").expect("a peak").1.split_whitespace().next().expect("a number");
    peak.parse().expect("a number")
}

/// A tone that goes on over the joint, in a file that says how much its encoder put before the start and after the end.
#[test]
fn what_encoders_hide_at_the_ends_is_not_heard_at_a_joint() {
    // What the output's own format cannot hide at its end: frames are whole; at the start of bare AAC, one more.
    for (name, codec, format, rest_ms) in [
        ("join-tone.mp3", "libmp3lame", Format::Mp3, 24),
        ("join-tone.m4a", "aac", Format::Aac, 48),
        ("join-tone.m4a", "aac", Format::Mp3, 24),
        ("join-tone.m4a", "aac", Format::Wav, 1),
        ("join-tone.mp3", "libmp3lame", Format::Wav, 1),
    ] {
        let tone = synth(name, &format!("-f lavfi -i sine=f=500:d=2:r=48000 -c:a {codec} -b:a 192k"));
        let made = concat(&[&tone, &tone], format);
        let found = sound_ms(&made.file);
        assert!((3999..=4000 + rest_ms).contains(&found), "{name} {format:?}: {found}");
        let (joint, elsewhere) = (hiss(&made.file, "1.9:2.1"), hiss(&made.file, "0.9:1.1"));
        assert!(joint <= elsewhere + 3.0, "{name} {format:?}: a click of {joint} dB");
    }
}

#[test]
fn what_is_wrong_with_an_input_is_said_with_its_number() {
    let broken = film().with_file_name("join-broken.mp4");
    fs::write(&broken, b"hello, this is not a film\n").expect("written");
    let join = || wanted(Recipe::Concat, Format::Mp4);
    let (kind, message) = all_refused(&[&film(), &broken], join(), LIMITS);
    assert_eq!(kind, FailureKind::InputUnsupported);
    assert!(message.starts_with("input 2: "), "{message}");
    let cut = synth("join-cut.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let bytes = fs::read(&cut).expect("file");
    fs::write(&broken, &bytes[..bytes.len() / 2]).expect("written");
    let (kind, message) = all_refused(&[&film(), &broken], join(), LIMITS);
    assert_eq!(kind, FailureKind::InputTruncated);
    assert!(message.starts_with("input 2: "), "{message}");
}

#[test]
fn the_limit_of_length_is_for_all_inputs_together() {
    let limits = Limits { duration_seconds: 3, ..LIMITS };
    let (kind, message) = all_refused(&[&film(), &film()], wanted(Recipe::Concat, Format::Mp4), limits);
    assert_eq!(kind, FailureKind::InputTooLarge);
    assert!(message.contains("together"), "{message}");
}
