//! Clocks, rates, lengths and heads of files: what recorders and muxers get wrong, judged by decoding the results.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xora_shared::media::{Compress, Format, RateControl, Recipe, Trim, VideoCodec, Wanted};

use super::{
    copy_test::{decoded, transcode},
    media_test::{
        LIMITS, Made, PICTURES, SOUND, X264, compress, entry, make, make_of_all, picture_times, supervise, synth, tool,
        wanted,
    },
    recipe_test::{clicks, cut, sound_ms},
};
use crate::ipc::{JobFailure, Source, Up, Work};

/// Samples of the audio, decoded to one channel at 48 kHz.
fn samples(file: &Path) -> Vec<f64> {
    let input = file.to_str().expect("text");
    let raw = ["-map", "0:a:0", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"];
    let output = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-i", input]).args(raw).output();
    let output = output.expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (samples, _) = output.stdout.as_chunks::<2>();
    samples.iter().map(|sample| f64::from(i16::from_le_bytes(*sample))).collect()
}

/// How often a sine of 1 kHz is not what its last two samples foretell: each is 2 cos w times the one before less the one
/// before that. What follows within 10 ms is the same time.
fn discontinuities(samples: &[f64]) -> usize {
    let foretells = 2.0 * (2.0 * std::f64::consts::PI * 1000.0 / 48_000.0).cos();
    let loudest = samples.iter().fold(1.0, |loudest: f64, sample| loudest.max(sample.abs()));
    let differs = |three: &[f64]| (three[2] - foretells * three[1] + three[0]).abs() > loudest * 0.03;
    let places = samples.windows(3).enumerate().filter(|(_, three)| differs(three)).map(|(place, _)| place);
    // The end of a stretched sine may be rough for less than a millisecond.
    let places = places.filter(|place| place + 480 < samples.len());
    let mut last = None;
    places.filter(|place| last.replace(*place).is_none_or(|last| place - last > 480)).count()
}

/// Ten seconds of a sine of 1 kHz, uncompressed, whose packets of 1024 samples have these times in milliseconds.
fn sine(name: &str, times: &str) -> PathBuf {
    let pcm = "-f lavfi -i sine=f=1000:d=10:r=48000 -c:a pcm_s16le";
    synth(name, &format!("{pcm} -bsf:a setts=ts='{times}'"))
}

#[test]
fn audio_stamped_by_a_wall_clock_has_no_clicks() {
    for (name, times) in [
        ("timing-jitter-10.mkv", "PTS+floor((random(0)-0.5)*20)"),
        ("timing-jitter-15.mkv", "PTS+floor((random(0)-0.5)*30)"),
        ("timing-one-late.mkv", "PTS+16*eq(N,200)"),
        ("timing-drift.mkv", "floor(PTS*1.003)"),
    ] {
        let input = sine(name, times);
        for made in [transcode(&input, Format::Flac), make_of_all(&[&input], wanted(Recipe::Concat, Format::Flac))] {
            let samples = samples(&made.file);
            // Where the first stamp was early, silence comes first.
            assert_eq!(discontinuities(&samples[480..]), 0, "{name}");
            let meant = if name.contains("drift") { 481_440 } else { 480_000 };
            assert!(samples.len().abs_diff(meant) <= 1_440, "{name}: {} samples", samples.len());
        }
    }
}

#[test]
fn gaps_of_audio_are_filled_where_they_are_within_jitter_too() {
    for (name, times) in [
        ("timing-gap.mkv", "PTS+100*gte(N,200)"),
        ("timing-gap-jitter.mkv", "PTS+floor((random(0)-0.5)*20)+100*gte(N,200)"),
    ] {
        let made = transcode(&sine(name, times), Format::Flac);
        let samples = samples(&made.file);
        assert_eq!(discontinuities(&samples), 2, "{name}: where the silence begins and ends");
        assert!(samples.len().abs_diff(484_800) <= 720, "{name}: {} samples", samples.len());
        let silent = samples[204_800 + 720..204_800 + 4_080].iter().all(|sample| *sample == 0.0);
        assert!(silent, "{name}: not where the gap is");
    }
}

#[test]
fn a_stream_of_a_broadcast_that_pauses_for_long_stays_in_step() {
    // A click each second; from 4 s to 16 s there is none, or no video.
    let video = "color=black:s=160x120:r=25:d=24";
    let audio = "aevalsrc='if(lt(mod(t,1),0.02),sin(2*PI*1000*t),0)':s=48000:d=24";
    let inputs = format!("-f lavfi -i {video} -f lavfi -i {audio}");
    let pause = "'not(between(t,3.9,15.95))'";
    for (name, paused, sounds) in [
        ("timing-muted.ts", format!("-af aselect={pause}"), (0..4).chain(16..24).collect::<Vec<i64>>()),
        ("timing-no-video.ts", format!("-vf select={pause} -fps_mode vfr"), (0..24).collect()),
    ] {
        let input = synth(name, &format!("{inputs} {paused} {X264} -g 25 -c:a mp2 -b:a 128k"));
        for made in [make(&input, compress(Format::Mp4)), make_of_all(&[&input], wanted(Recipe::Concat, Format::Mp4))] {
            let (times, found) = (picture_times(&made.file), clicks(&made.file));
            assert!(times.last().is_some_and(|last| (last - 23_960).abs() <= 40), "{name}: {:?}", times.last());
            let near = found.iter().zip(&sounds).all(|(at, second)| (at - second * 1000).abs() <= 40);
            assert!(found.len() == sounds.len() && near, "{name}: {found:?}");
            assert!(!made.report.warnings.iter().any(|warning| warning.contains("jumps")), "{name}");
        }
    }
}

/// A copy of a WebM without the element that says how long a frame is, as MediaRecorder writes it.
fn as_recorded(file: &Path) -> PathBuf {
    let mut bytes = fs::read(file).expect("file");
    let place = bytes.windows(3).position(|bytes| bytes == [0x23, 0xe3, 0x83]).expect("a DefaultDuration");
    let length = usize::from(bytes[place + 3] & 0x7f);
    // `Void`, of the same length.
    bytes[place..place + 2].copy_from_slice(&[0xec, 0x80 | u8::try_from(length + 2).expect("small")]);
    let changed = file.with_extension("recorded.webm");
    fs::write(&changed, bytes).expect("written");
    changed
}

#[test]
fn recordings_that_do_not_say_their_frame_rate_get_a_level_that_every_player_takes() {
    for (name, size, length, levels) in [
        ("timing-720.webm", "1280x720", "2", ["31", "93"]),
        ("timing-1080.webm", "1920x1080", "0.8", ["40", "120"]),
        ("timing-two.webm", "320x240", "0.08", ["13", "60"]),
    ] {
        let jitter = "settb=1/1000,setpts='PTS+floor(random(0)*12)'";
        let video = format!(
            "-f lavfi -i testsrc2=s={size}:r=30:d={length} -vf {jitter} -fps_mode passthrough -enc_time_base 1/1000"
        );
        let input = as_recorded(&synth(name, &format!("{video} -c:v libvpx -cpu-used 8 -deadline realtime -b:v 2M")));
        assert!(name != "timing-720.webm" || entry(&input, "v:0", "r_frame_rate") == "1000/1");
        let frames = decoded(&input, "0:v:0").len();
        for (codec, level) in [VideoCodec::H264, VideoCodec::Hevc].into_iter().zip(levels) {
            let made =
                make(&input, wanted(Recipe::Compress(Compress { rate: RateControl::Crf(30), codec }), Format::Mp4));
            assert_eq!(entry(&made.file, "v:0", "level"), level, "{name} {codec:?}");
            assert_eq!(picture_times(&made.file).len(), frames, "{name} {codec:?}");
        }
    }
    let input = as_recorded(&synth("timing-720.webm", ""));
    let made = make(&input, compress(Format::Webm));
    let rate = entry(&made.file, "v:0", "avg_frame_rate");
    assert!(["30/1", "30000/1001"].contains(&rate.as_str()), "{rate}");
}

/// Half a second, half a second, three seconds.
fn long_last() -> PathBuf {
    let even = synth(
        "timing-even.mp4",
        &format!("-f lavfi -i testsrc2=s=160x120:r=2:d=1.5 {X264} -bf 0 -video_track_timescale 1000"),
    );
    let mut bytes = fs::read(&even).expect("file");
    let place = |bytes: &[u8], kind: &[u8]| bytes.windows(4).position(|found| found == kind).expect("a box");
    // The index is at the end: three frames of 500 become two, and one of 3000; all lengths of 1500 become 4000.
    let index = place(&bytes, b"moov");
    for at in index..bytes.len() - 4 {
        if bytes[at..at + 4] == 1500_u32.to_be_bytes() {
            bytes[at..at + 4].copy_from_slice(&4000_u32.to_be_bytes());
        }
    }
    let times = place(&bytes, b"stts");
    let table = [2_u32, 2, 500, 1, 3000].map(u32::to_be_bytes).concat();
    bytes.splice(times + 8..times + 20, table);
    for kind in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"] {
        let at = place(&bytes, kind) - 4;
        let size = u32::from_be_bytes(*bytes[at..].first_chunk().expect("a size")) + 8;
        bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    let long = even.with_file_name("timing-last.mp4");
    fs::write(&long, bytes).expect("written");
    long
}

/// How long a file is, in milliseconds.
fn length_ms(file: &Path) -> i64 {
    let text = tool("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"], file);
    let (whole, part) = text.trim().split_once('.').expect("a fraction");
    whole.parse::<i64>().expect("seconds") * 1000 + part[..3].parse::<i64>().expect("milliseconds")
}

fn assert_lasts(made: &Made, ms: i64) {
    let found = length_ms(&made.file);
    assert!((found - ms).abs() <= 15, "{}: {found} ms instead of {ms}", made.file.display());
    let expected = made.report.facts.duration_us.expect("a length");
    assert!(expected.abs_diff(ms.unsigned_abs() * 1000) <= 15_000, "{}: {expected} µs", made.file.display());
}

#[test]
fn the_last_frame_lasts_as_long_as_its_container_says() {
    let two = "-f lavfi -i testsrc2=s=160x120:r=2:d=1";
    let gif = synth("timing-last.gif", two);
    let apng = synth("timing-last.apng", &format!("{two} -f apng -plays 1 -final_delay 1/2"));
    for input in [&gif, &apng] {
        for format in [Format::Mp4, Format::Webm] {
            assert_lasts(&make(input, compress(format)), 1_000);
        }
    }
    let long = long_last();
    assert_eq!(length_ms(&long), 4_000);
    for (format, ms) in [(Format::Mp4, 4_000), (Format::Mov, 4_000), (Format::Webm, 4_000)] {
        assert_lasts(&make(&long, compress(format)), ms);
    }
    assert_lasts(&transcode(&long, Format::Mov), 4_000);
    let part = |start, length| wanted(Recipe::Trim(Trim { cut: cut(start, length) }), Format::Mp4);
    assert_lasts(&make(&long, part(500_000, None)), 3_500);
    assert_lasts(&make(&long, part(2_000_000, None)), 2_000);
    assert_lasts(&make(&long, part(500_000, Some(2_000_000))), 2_000);
    let webm = |start, length| wanted(Recipe::Trim(Trim { cut: cut(start, length) }), Format::Webm);
    assert_lasts(&make(&long, webm(500_000, None)), 3_500);
    assert_lasts(&make(&long, webm(2_000_000, None)), 2_000);
    let joined = |inputs: &[&Path], format| make_of_all(inputs, wanted(Recipe::Concat, format));
    assert_lasts(&joined(&[&long, &long], Format::Mp4), 8_000);
    assert_lasts(&joined(&[&gif, &gif], Format::Mp4), 2_000);
    let made = joined(&[&long, &gif], Format::Webm);
    assert_lasts(&made, 5_000);
}

/// Sizes of the boxes of an MP4, by kind, in their order.
fn boxes(file: &[u8]) -> Vec<(String, u64)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some((size, rest)) = file.get(at..).and_then(|rest| rest.split_first_chunk::<4>()) {
        let size = u32::from_be_bytes(*size);
        found.push((String::from_utf8_lossy(&rest[..4]).into_owned(), u64::from(size)));
        assert!(size >= 8, "{found:?}");
        at += size as usize;
    }
    assert_eq!(at, file.len(), "{found:?}");
    found
}

fn assert_little_is_free(file: &[u8], name: &str) {
    let boxes = boxes(file);
    let place = |kind: &str| boxes.iter().position(|(found, _)| found == kind);
    assert!(place("moov") < place("mdat"), "{name}: {boxes:?}");
    let free: u64 = boxes.iter().filter(|(kind, _)| kind == "free").map(|(_, size)| size).sum();
    assert!(free <= file.len() as u64 * 3 / 100 + (16 << 10), "{name}: {boxes:?}");
    assert!(file.len() > 5 << 20, "{name}: {} bytes", file.len());
}

/// Blanks the element in which a Matroska file says how long it is.
fn without_length(file: &Path) -> PathBuf {
    let mut bytes = fs::read(file).expect("file");
    let place = bytes.windows(3).position(|bytes| bytes == [0x44, 0x89, 0x88]).expect("a length");
    bytes[place..place + 2].copy_from_slice(&[0xec, 0x89]);
    let changed = file.with_extension("no-length.mkv");
    fs::write(&changed, bytes).expect("written");
    changed
}

#[test]
fn the_place_for_the_index_is_about_as_large_as_the_index() {
    let noise = "-f lavfi -i testsrc2=s=480x360:r=25:d=24,noise=alls=60:allf=t -f lavfi -i anoisesrc=d=24:r=48000";
    let film = synth("timing-large.mkv", &format!("{noise} {X264} -crf 30 -c:a libopus"));
    let rate = RateControl::BitrateKbps(4_000);
    let how = wanted(Recipe::Compress(Compress { rate, codec: VideoCodec::H264 }), Format::Mp4);
    assert_little_is_free(&make(&film, how.clone()).told.output, "a film");
    let unknown = without_length(&film);
    assert_little_is_free(&make(&unknown, how.clone()).told.output, "a film that does not say its length");
    // Nor is known how many bytes it has.
    let bytes = fs::read(&unknown).expect("file");
    let inputs = vec![Source { size: None }];
    let work = Work::Run { inputs, wanted: how, index_bytes: None, uncopyable: None, has_address: true };
    let told = supervise(work, LIMITS, &bytes, None);
    assert!(matches!(told.messages.last(), Some(Up::Produced(_))), "{:?}", told.messages.last());
    assert_little_is_free(&told.output, "a stream");
    let music = synth("timing-large.flac", "-f lavfi -i anoisesrc=d=600:r=48000 -c:a flac -compression_level 0");
    assert_little_is_free(&make(&music, wanted(Recipe::Transcode, Format::M4a)).told.output, "music");
}

#[test]
fn a_result_that_was_encoded_is_not_made_twice_for_its_index() {
    let input = synth("timing-index.mp4", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let bytes = fs::read(&input).expect("file");
    let with = |wanted: Wanted, index_bytes| {
        let inputs = vec![Source { size: Some(bytes.len() as u64) }];
        let work = Work::Run { inputs, wanted, index_bytes, uncopyable: None, has_address: false };
        let mut told = supervise(work, LIMITS, &bytes, None);
        (told.messages.pop(), told.output)
    };
    let (Some(Up::Produced(report)), file) = with(compress(Format::Mp4), Some(100)) else { panic!("not made") };
    assert!(report.warnings.iter().any(|warning| warning.contains("at the end")), "{:?}", report.warnings);
    let kinds: Vec<_> = boxes(&file).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ftyp", "free", "free", "mdat", "moov"]);
    let made = input.with_file_name("timing-index-last.mp4");
    fs::write(&made, &file).expect("written");
    assert_eq!(decoded(&made, "0:v:0").len(), 50);
    assert!((sound_ms(&made) - 2000).abs() <= 30);
    // Copying once more is cheap.
    let copied = wanted(Recipe::Transcode, Format::Mov);
    let (Some(Up::Failed(JobFailure::IndexTooSmall { needed })), _) = with(copied.clone(), Some(100)) else {
        panic!("expected a wish for more")
    };
    let (Some(Up::Produced(_)), file) = with(copied, Some(needed)) else { panic!("not made") };
    let kinds: Vec<_> = boxes(&file).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ftyp", "moov", "free", "wide", "mdat"]);
}

#[test]
fn frames_far_apart_in_an_avi_all_come_out() {
    // 68 of 444.
    let select = "select='lt(n,6)+not(mod(n,7))'";
    let video = format!("-f lavfi -i testsrc2=s=160x120:r=15:d=29.6 -vf {select} -fps_mode passthrough");
    for (name, codec) in [
        ("timing-sparse-cinepak.avi", "-c:v cinepak -max_extra_cb_iterations 0"),
        ("timing-sparse-mpeg4.avi", "-c:v mpeg4 -q:v 4"),
    ] {
        let input = synth(name, &format!("{video} {codec}"));
        let frames = decoded(&input, "0:v:0").len();
        let made = make(&input, compress(Format::Mp4));
        assert_eq!(picture_times(&made.file).len(), frames, "{name}");
        let web = make(&input, wanted(Recipe::WebReady(xora_shared::media::WebReady { encode: None }), Format::Mp4));
        assert_eq!(picture_times(&web.file).len(), frames, "{name}");
    }
}

#[test]
fn a_damaged_count_of_frames_in_an_mp3_is_not_believed() {
    let plain = synth("timing-counted.mp3", "-f lavfi -i sine=d=2:r=44100 -c:a libmp3lame -b:a 64k");
    let mut bytes = fs::read(&plain).expect("file");
    let head = bytes.windows(4).position(|name| name == b"Info").expect("a count");
    bytes[head + 8..head + 12].copy_from_slice(&[0xff; 4]);
    let file = plain.with_file_name("timing-miscounted.mp3");
    fs::write(&file, bytes).expect("written");
    for format in [Format::Mp3, Format::Wav] {
        let made = transcode(&file, format);
        assert!((sound_ms(&made.file) - 2_000).abs() <= 60, "{format:?}: {} ms", sound_ms(&made.file));
    }
}

#[test]
fn frames_that_nobody_counted_are_not_reported() {
    // A `Void` at the end of the segment makes it too large to be read through.
    const VOID: u64 = 256 << 20;
    let made = make(
        &synth("timing-count.mp4", &format!("{PICTURES} {X264} -an")),
        wanted(Recipe::Compress(Compress { rate: RateControl::Crf(40), codec: VideoCodec::Vp9 }), Format::Webm),
    );
    assert_eq!(made.receipt.frames, Some(50));
    let mut file = made.told.output;
    let segment = file.windows(4).position(|id| id == [0x18, 0x53, 0x80, 0x67]).expect("a segment") + 4;
    let length = u64::from_be_bytes(*file[segment..].first_chunk().expect("a length"));
    file[segment..segment + 8].copy_from_slice(&(length + VOID + 9).to_be_bytes());
    file.extend([&[0xec][..], &(VOID | 1 << 56).to_be_bytes()].concat());
    file.resize(file.len() + usize::try_from(VOID).expect("64 bits"), 0);
    let mut expect = made.report.expect.clone();
    expect.bytes = file.len() as u64;
    let work = Work::Verify { input: Source { size: Some(expect.bytes) }, expect };
    let told = supervise(work, LIMITS, &file, None);
    let Some(Up::Verified(receipt)) = told.messages.last() else { panic!("expected a receipt") };
    assert_eq!((&receipt.problems, receipt.frames), (&Vec::new(), None));
    assert!(told.bytes_read < 64 << 20, "{} bytes", told.bytes_read);
}
