//! Files that trip transcoders: each is compressed, and the result decoded and held against what the file is.

use std::{fs, path::PathBuf};

use xora_shared::{
    failure::FailureKind,
    media::{Compress, ExtractAudio, Format, RateControl, Recipe, Resize, Scale, Trim, VideoCodec, Wanted},
    report::{Fate, StrategyKind},
};

use super::{
    copy_test::{decoded, sound_after_pictures, transcode},
    media_test::{
        LIMITS, Made, PICTURES, SOUND, X264, all_refused, compress, corners, entry, make, make_of_all, picture_times,
        refused, run_once, synth, thumbnail, tool, wanted,
    },
    recipe_test::{cut, sound_ms},
};
use crate::ipc::{JobFailure, Up};

fn compressed(input: &std::path::Path) -> Made {
    make(input, compress(Format::Mp4))
}

/// Two seconds of pictures and sound, whatever the container.
#[test]
fn every_usual_container_gives_all_of_its_pictures_and_sound_in_step() {
    let fragments = "-movflags +frag_keyframe+empty_moov+default_base_moof -g 10";
    let table = [
        ("pit-index-last.mp4", format!("{X264} -bf 2 -c:a aac")),
        ("pit-fragments.mp4", format!("{X264} {fragments} -c:a aac")),
        ("pit-mov.mov", format!("{X264} -c:a pcm_s16be -timecode 01:00:00:00")),
        ("pit-ts.ts", format!("{X264} -c:a aac")),
        ("pit-mpeg2.ts", "-c:v mpeg2video -b:v 2M -bf 2 -c:a mp2".to_owned()),
        ("pit-mpg.mpg", "-c:v mpeg2video -b:v 2M -c:a mp2".to_owned()),
        ("pit-avi.avi", "-c:v mpeg4 -b:v 2M -c:a libmp3lame".to_owned()),
        ("pit-flv.flv", format!("{X264} -c:a aac")),
        ("pit-wmv.wmv", "-c:v wmv2 -b:v 2M -c:a wmav2".to_owned()),
        ("pit-ogg.ogg", "-c:v libtheora -q:v 7 -c:a libvorbis -ac 2".to_owned()),
        ("pit-webm.webm", "-c:v libvpx-vp9 -cpu-used 8 -deadline realtime -b:v 1M -c:a libopus".to_owned()),
        ("pit-vp8.webm", "-c:v libvpx -cpu-used 8 -deadline realtime -b:v 1M -c:a libvorbis -ac 2".to_owned()),
        ("pit-mkv.mkv", format!("{X264} -c:a flac")),
    ];
    for (name, codecs) in table {
        let input = synth(name, &format!("{PICTURES} {SOUND} {codecs}"));
        let made = compressed(&input);
        assert_eq!(picture_times(&made.file).len(), 50, "{name}");
        let offset = sound_after_pictures(&made.file) - sound_after_pictures(&input);
        assert!(offset.abs() <= 20_000, "{name}: moved by {offset} µs");
        let seconds = made.receipt.duration_us.expect("a length");
        assert!(seconds.abs_diff(2_000_000) <= 80_000, "{name}: {seconds} µs");
    }
}

#[test]
fn sound_that_begins_long_after_the_pictures_is_found_and_stays_in_step() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=10 -itsoffset 8 -f lavfi -i sine=d=2:r=48000";
    for (name, codecs) in [
        ("pit-late-sound.mpg", "-c:v mpeg2video -b:v 1M -c:a mp2"),
        ("pit-late-sound.ts", "-c:v mpeg2video -b:v 1M -c:a aac"),
    ] {
        let input = synth(name, &format!("{pictures} {codecs}"));
        let made = compressed(&input);
        let late = sound_after_pictures(&made.file) - 8_000_000;
        assert!(late.abs() <= 60_000, "{name}: {late} µs");
    }
}

#[test]
fn sound_alone_and_pictures_alone_come_from_any_container() {
    for (name, codecs) in [
        ("pit-flac.flac", "-c:a flac"),
        ("pit-wav.wav", "-c:a pcm_s24le"),
        ("pit-vorbis.ogg", "-c:a libvorbis -ac 2"),
        ("pit-wma.wma", "-c:a wmav2"),
        ("pit-opus.opus", "-c:a libopus"),
        ("pit-aiff.aiff", "-c:a pcm_s16be"),
    ] {
        let made = compressed(&synth(name, &format!("{SOUND} {codecs}")));
        let samples = made.report.expect.audio.expect("sound").samples;
        assert!(samples.abs_diff(96_000) <= 2_400, "{name}: {samples}");
    }
    let gif = compressed(&synth("pit-gif.gif", &format!("{PICTURES} -vf fps=10 -loop 0")));
    assert_eq!(picture_times(&gif.file).len(), 20);
}

#[test]
fn other_tracks_of_every_kind_are_dropped_with_a_reason() {
    let words = synth("pit-words.mkv", &format!("{PICTURES} {X264}")).with_extension("srt");
    fs::write(&words, "1\n00:00:00,500 --> 00:00:01,500\nhello\n").expect("written");
    let words = words.display();
    let tracks = format!("-map 0 -map 1 -map 2 -attach {words} -metadata:s:t mimetype=text/plain");
    let input = synth("pit-tracks.mkv", &format!("{PICTURES} {SOUND} -i {words} {tracks} {X264} -c:a aac -c:s srt"));
    let dropped = |made: &Made| {
        let fates = made.report.streams.iter().filter(|fate| fate.fate == Fate::Dropped && fate.reason.is_some());
        fates.map(|fate| fate.what.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(dropped(&compressed(&input)), ["subtitle", "attachment"]);
    let timecode =
        synth("pit-timecode.mov", &format!("{PICTURES} {SOUND} {X264} -c:a pcm_s16be -timecode 01:00:00:00"));
    assert_eq!(dropped(&compressed(&timecode)), ["data"]);
}

#[test]
fn of_several_sounds_the_default_one_is_taken_else_that_with_the_most_channels() {
    let sounds = format!("{PICTURES} {SOUND} {SOUND} -map 0 -map 1 -map 2 {X264} -ac:a:0 1 -ac:a:1 2");
    let default = "-disposition:a:0 default -disposition:a:1 0";
    for (name, arguments, taken) in [
        ("pit-sounds.ts", format!("{sounds} -c:a aac"), 2),
        ("pit-sounds-default.mp4", format!("{sounds} -c:a aac {default}"), 1),
    ] {
        let made = compressed(&synth(name, &arguments));
        let sounds = made.report.streams.iter().filter(|stream| stream.what.starts_with("audio"));
        let kept: Vec<_> = sounds.filter(|sound| sound.fate != Fate::Dropped).map(|sound| sound.stream).collect();
        assert_eq!(kept, [taken], "{name}");
    }
}

#[test]
fn dolby_vision_without_a_picture_for_others_is_refused() {
    let hevc = synth("pit-dolby.mp4", &format!("{PICTURES} -c:v libx265 -x265-params log-level=none -tag:v hvc1"));
    let bytes = fs::read(&hevc).expect("file");
    // Profile 5, with a layer of its own (0) or one that is HLG for others (4): a box at the end of the sample entry.
    let with = |compatible: u8, name: &str| {
        let mut bytes = bytes.clone();
        let record = [1, 0, 10, 0b0000_1101, compatible << 4];
        let mut dolby = [&32_u32.to_be_bytes()[..], b"dvcC", &record].concat();
        dolby.resize(32, 0);
        let place = |bytes: &[u8], kind: &[u8]| bytes.windows(4).position(|window| window == kind).expect("a box") - 4;
        let size = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
        let entry = place(&bytes, b"hvc1");
        let end = entry + size(&bytes, entry) as usize;
        for kind in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"] {
            let at = place(&bytes, kind);
            let larger = size(&bytes, at) + 32;
            bytes[at..at + 4].copy_from_slice(&larger.to_be_bytes());
        }
        bytes.splice(end..end, dolby);
        let file = hevc.with_file_name(name);
        fs::write(&file, bytes).expect("written");
        file
    };
    let (own, shared) = (with(0, "pit-dolby-5.mp4"), with(4, "pit-dolby-8.mp4"));
    let concat = wanted(Recipe::Concat, Format::Mp4);
    let inputs = [shared.as_path(), own.as_path()];
    for (wanted, inputs) in [(compress(Format::Mp4), &inputs[1..]), (thumbnail(0), &inputs[1..]), (concat, &inputs)] {
        let (kind, message) = all_refused(inputs, wanted, LIMITS);
        assert_eq!(kind, FailureKind::InputUnsupported, "{message}");
        assert!(message.contains("profile 5"), "{message}");
    }
    assert_eq!(compressed(&shared).report.warnings, Vec::<String>::new());
}

#[test]
fn a_clock_that_wraps_in_mid_stream_goes_on() {
    // 33 bits of 90 kHz end after 95443.7 s.
    let input = synth("pit-wrap.ts", &format!("{PICTURES} {SOUND} {X264} -c:a aac -output_ts_offset 95441.3"));
    let times = picture_times(&compressed(&input).file);
    assert_eq!(times.len(), 50);
    assert!(times.windows(2).all(|pair| (30..=50).contains(&(pair[1] - pair[0]))), "{times:?}");
}

#[test]
fn a_recording_that_begins_between_two_places_to_begin_at_is_not_copied_with_its_rubble() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -f lavfi -i sine=d=4:r=48000";
    let whole = synth("pit-tuned-in.ts", &format!("{pictures} {X264} -g 25 -bf 2 -c:a aac"));
    let bytes = fs::read(&whole).expect("file");
    // Its tables of programs, and all from somewhere in the second second on.
    let from = bytes.len() * 2 / 5 / 188 * 188;
    let file = whole.with_file_name("pit-tuned-in-late.ts");
    fs::write(&file, [&bytes[..188 * 3], &bytes[from..]].concat()).expect("written");
    let made = transcode(&file, Format::Mp4);
    assert_eq!(made.strategy.kind, StrategyKind::Encode);
    let seen = decoded(&file, "0:v:0").len();
    assert_eq!(decoded(&made.file, "0:v:0").len(), seen);
    let joined = make_of_all(&[&whole, &file], wanted(Recipe::Concat, Format::Mp4));
    assert_eq!(joined.strategy.kind, StrategyKind::Encode);
    assert_eq!(decoded(&joined.file, "0:v:0").len(), 100 + seen);
    let offset = sound_after_pictures(&made.file) - sound_after_pictures(&file);
    assert!(offset.abs() <= 20_000, "moved by {offset} µs");
}

#[test]
fn a_length_that_is_missing_or_false_is_not_believed() {
    let plain = synth("pit-length.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let bytes = fs::read(&plain).expect("file");
    // `Duration` (44 89), a float of 8 bytes, in milliseconds.
    let place = bytes.windows(3).position(|bytes| bytes == [0x44, 0x89, 0x88]).expect("a length") + 3;
    for (name, length) in [("none", 0.0_f64), ("short", 500.0)] {
        let mut changed = bytes.clone();
        changed[place..place + 8].copy_from_slice(&length.to_be_bytes());
        let file = plain.with_file_name(format!("pit-length-{name}.mkv"));
        fs::write(&file, changed).expect("written");
        assert_eq!(picture_times(&compressed(&file).file).len(), 50, "{name}");
    }
}

#[test]
fn what_an_edit_list_hides_is_not_shown() {
    let long = synth(
        "pit-long.mp4",
        &format!("-f lavfi -i testsrc2=s=320x240:r=25:d=4 -f lavfi -i sine=d=4:r=48000 {X264} -g 50 -c:a aac"),
    );
    // Copied from between two places to begin at: the pictures before are there, and hidden.
    let input = synth("pit-edited.mp4", &format!("-ss 1 -i {} -c copy", long.display()));
    let made = compressed(&input);
    let seen = decoded(&input, "0:v:0").len();
    assert_eq!(picture_times(&made.file).len(), seen);
    let offset = sound_after_pictures(&made.file) - sound_after_pictures(&input);
    assert!(offset.abs() <= 20_000, "moved by {offset} µs");
    // Copied, they are still there and still hidden.
    let copied = transcode(&input, Format::Mp4);
    assert_eq!(decoded(&copied.file, "0:v:0").len(), seen);
}

/// Loudness of the whole sound and its highest peak, in tenths of a decibel of full scale.
fn volume(file: &std::path::Path) -> (i64, i64) {
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-i", input, "-map", "0:a:0", "-af", "astats", "-f", "null", "-"];
    let output = std::process::Command::new("ffmpeg").args(arguments).output().expect("ffmpeg");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = |name: &str| -> i64 {
        let value = text.rsplit_once(name).expect(name).1.split_whitespace().next().expect("a number");
        #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
        let tenths = (value.parse::<f64>().expect("a number") * 10.0) as i64;
        tenths
    };
    (last("RMS level dB: "), last("Peak level dB: "))
}

#[test]
fn surround_is_mixed_down_without_becoming_quieter_and_does_not_clip() {
    let mixed = |name: &str, level: &str| {
        let channel = |frequency: u32| format!("{level}*sin({frequency}*2*PI*t)");
        let six = [300, 500, 700, 50, 1100, 1300].map(channel).join("|");
        let input = synth(name, &format!("-f lavfi -i aevalsrc={six}:d=2:s=48000:c=5.1 -c:a flac"));
        volume(&compressed(&input).file)
    };
    // A side gets its front channel, and of the middle and the back one half of the power each: 0.05 in all, -26 dB.
    let (quiet, loud) = (mixed("pit-quiet.mkv", "0.05"), mixed("pit-loud.mkv", "0.8"));
    assert!((quiet.0 + 260).abs() <= 4, "{quiet:?}");
    // The encoder may come out a little higher than what it was given.
    assert!(loud.1 <= 10, "{loud:?}");
}

#[test]
fn a_few_damaged_packets_are_skipped_and_many_refused() {
    let plain = synth(
        "pit-damage.ts",
        &format!("-f lavfi -i testsrc2=s=320x240:r=25:d=8 {SOUND} -c:v mpeg2video -g 5 -b:v 2M -c:a mp2"),
    );
    let bytes = fs::read(&plain).expect("file");
    let damaged = |every: usize, name: &str| -> PathBuf {
        let mut bytes = bytes.clone();
        // The payload of one packet of 188 bytes in so many, from the second half of the first second on.
        for packet in (200..bytes.len() / 188).step_by(every) {
            bytes[packet * 188 + 30..packet * 188 + 180].fill(0xa5);
        }
        let file = plain.with_file_name(name);
        fs::write(&file, bytes).expect("written");
        file
    };
    let made = compressed(&damaged(2_000, "pit-damage-little.ts"));
    let frames = picture_times(&made.file).len();
    assert!((190..=200).contains(&frames), "{frames}");
    let ruined = fs::read(damaged(2, "pit-damage-much.ts")).expect("file");
    let (kind, message) = refused(&ruined, compress(Format::Mp4), LIMITS);
    assert!(matches!(kind, FailureKind::Transcode | FailureKind::InputUnsupported), "{message}");
}

#[test]
fn alpha_is_flattened_and_unusual_pixels_keep_their_colours() {
    let opaque = "-f lavfi -i color=0x3060a0:s=320x240:r=25:d=1";
    let table = [
        ("pit-alpha.webm", "-vf format=yuva420p -c:v libvpx-vp9 -cpu-used 8 -deadline realtime"),
        ("pit-alpha.mov", "-vf format=argb -c:v qtrle"),
        ("pit-rgb.mkv", "-vf format=gbrp -c:v libx264rgb -preset ultrafast -crf 5"),
        ("pit-prores.mov", "-c:v prores_ks -pix_fmt yuv422p10le"),
        ("pit-444.mp4", "-c:v libx264 -preset ultrafast -crf 5 -pix_fmt yuv444p"),
    ];
    for (name, codecs) in table {
        let made = compressed(&synth(name, &format!("{opaque} {codecs}")));
        assert_eq!(entry(&made.file, "v:0", "pix_fmt"), "yuv420p", "{name}");
        for color in corners(&made.file) {
            let near = color.iter().zip([0x30, 0x60, 0xa0]).all(|(found, meant)| found.abs_diff(meant) <= 8);
            assert!(near, "{name}: {color:02x?}");
        }
    }
}

#[test]
fn layouts_that_nobody_names_are_mixed_all_the_same() {
    let six = "-f lavfi -i aevalsrc=0.3*sin(2764*t)|0.3*sin(3455*t)|sin(4146*t)|0|0.3*sin(4838*t)|0:d=2:s=48000";
    let wav = synth("pit-six.wav", &format!("{six} -c:a pcm_s16le"));
    let mut bytes = fs::read(&wav).expect("file");
    // The mask of channels of WAVEFORMATEXTENSIBLE: none is said.
    let place = bytes.windows(4).position(|name| name == b"fmt ").expect("a format") + 8 + 20;
    bytes[place..place + 4].fill(0);
    let file = wav.with_file_name("pit-six-unnamed.wav");
    fs::write(&file, bytes).expect("written");
    let made = compressed(&file);
    assert_eq!(made.report.expect.audio.expect("sound").channels, 2);
}

#[test]
fn more_channels_than_have_names_are_kept_or_refused_and_never_guessed_at() {
    let channels = |count: usize| vec!["0.1*sin(2764*t)"; count].join("|");
    let recorded = |name, count| synth(name, &format!("-f lavfi -i aevalsrc={}:d=1:s=48000", channels(count)));
    let (ten, sixteen) = (recorded("pit-ten.wav", 10), recorded("pit-sixteen.wav", 16));
    let part = wanted(Recipe::ExtractAudio(ExtractAudio { cut: cut(100_000, Some(300_000)), copy: true }), Format::Mp3);
    for (input, count) in [(&ten, "10"), (&sixteen, "16")] {
        let made = make(input, part.clone());
        assert_eq!(entry(&made.file, "a:0", "codec_name,sample_rate,channels"), format!("pcm_s16le,48000,{count}"));
        assert_eq!(sound_ms(&made.file), 300);
    }
    // Sixteen are in an order with a name.
    for (format, count) in [(Format::Mp4, "2"), (Format::Flac, "8")] {
        assert_eq!(entry(&transcode(&sixteen, format).file, "a:0", "channels"), count);
        let (kind, message) = refused(&fs::read(&ten).expect("file"), wanted(Recipe::Transcode, format), LIMITS);
        assert!(kind == FailureKind::InputUnsupported && message.contains("has 10 channels"), "{message}");
    }
}

#[test]
fn pictures_of_a_size_that_their_codec_cannot_have_are_refused_by_it() {
    let hevc = Compress { rate: RateControl::Crf(28), codec: VideoCodec::Hevc };
    let hevc = || wanted(Recipe::Compress(hevc.clone()), Format::Mp4);
    let still = |format| Wanted { format, ..thumbnail(0) };
    for (size, wanted, fits) in [
        ("40x40", hevc(), false),
        ("64x10", hevc(), false),
        ("64x16", hevc(), true),
        ("40x40", compress(Format::Mp4), true),
        ("64x16386", compress(Format::Mp4), false),
        ("64x16386", compress(Format::Webm), false),
        ("64x16386", still(Format::Webp), false),
        ("64x16386", still(Format::Jpg), true),
    ] {
        let pictures = format!("-f lavfi -i testsrc2=s={size}:r=25:d=0.4 -c:v ffv1");
        let input = synth(&format!("pit-sized-{size}.mkv"), &pictures);
        if fits {
            assert_eq!(entry(&make(&input, wanted).file, "v:0", "width,height"), size.replace('x', ","));
        } else {
            let (kind, message) = refused(&fs::read(input).expect("file"), wanted, LIMITS);
            assert!(kind == FailureKind::InputUnsupported && message.contains(size), "{message}");
        }
    }
}

#[test]
fn what_is_on_no_list_is_neither_opened_nor_decoded() {
    for (name, codec, word) in [
        ("pit-other.nut", "-c:v mpeg4", "not a media format"),
        ("pit-other.avi", "-c:v magicyuv", "codec or format that is not supported"),
        ("pit-other.mkv", "-c:v magicyuv", "codec or format that is not supported"),
    ] {
        let input = fs::read(synth(name, &format!("{PICTURES} {codec}"))).expect("file");
        for wanted in [compress(Format::Mp4), thumbnail(0)] {
            let (kind, message) = refused(&input, wanted, LIMITS);
            assert!(kind == FailureKind::InputUnsupported && message.contains(word), "{name}: {message}");
        }
    }
}

/// Milliseconds from the start to the end, as the container says.
fn length_ms(file: &std::path::Path) -> i64 {
    let text = tool("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"], file);
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    let ms = (text.trim().parse::<f64>().expect("seconds") * 1000.0).round() as i64;
    ms
}

fn trim(input: &std::path::Path, start_us: u64, length_us: u64, format: Format) -> Made {
    make(input, wanted(Recipe::Trim(Trim { cut: cut(start_us, Some(length_us)) }), format))
}

#[test]
fn a_part_ends_when_it_should_however_long_its_last_picture_is_shown() {
    let slow = "-f lavfi -i testsrc2=s=320x240:r=1:d=6 -f lavfi -i sine=d=6:r=48000";
    let slow = synth("pit-slow.mp4", &format!("{slow} {X264} -c:a aac"));
    let uneven =
        "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -f lavfi -i sine=d=4:r=48000 -vf select=lt(n\\,30)+gt(n\\,60)";
    let uneven = synth("pit-uneven.mkv", &format!("{uneven} -fps_mode vfr {X264} -c:a aac"));
    for input in [slow, uneven] {
        for format in [Format::Mp4, Format::Webm] {
            let made = trim(&input, 410_000, 900_000, format);
            assert!((length_ms(&made.file) - 900).abs() <= 25, "{}: {}", made.file.display(), length_ms(&made.file));
        }
    }
}

#[test]
fn a_part_that_begins_among_hidden_pictures_has_all_that_are_shown() {
    let long = "-f lavfi -i testsrc2=s=320x240:r=25:d=6 -f lavfi -i sine=d=6:r=48000";
    let long = synth("pit-long-group.mp4", &format!("{long} {X264} -g 50 -bf 2 -c:a aac"));
    let input = synth("pit-edited-group.mp4", &format!("-ss 1.3 -i {} -c copy", long.display()));
    for length_us in [600_000, 2_000_000] {
        let made = trim(&input, 0, length_us, Format::Mp4);
        let expected = usize::try_from(length_us / 40_000).expect("small");
        assert_eq!(decoded(&made.file, "0:v:0").len(), expected);
    }
}

#[test]
fn pictures_of_which_only_the_decoding_time_is_known_are_all_in_their_part() {
    let input = synth("pit-reordered.avi", &format!("{PICTURES} {SOUND} -c:v mpeg4 -q:v 3 -bf 2 -c:a libmp3lame"));
    for (start_us, format) in [(410_000, Format::Webm), (890_000, Format::Mp4)] {
        assert_eq!(decoded(&trim(&input, start_us, 800_000, format).file, "0:v:0").len(), 20, "{start_us}");
    }
}

fn drops_sound(made: &Made) -> bool {
    let sound = made.report.streams.iter().find(|stream| stream.what.starts_with("audio")).expect("sound");
    let why = sound.reason.as_deref().unwrap_or_default();
    sound.fate == Fate::Dropped && why.contains("nothing in the part")
}

#[test]
fn a_track_that_has_nothing_in_the_part_is_left_out_of_it() {
    for (name, codec) in [("pit-late.mp4", "aac"), ("pit-late.mkv", "libopus")] {
        let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -itsoffset 1 -f lavfi -i sine=d=1:r=48000";
        let input = synth(name, &format!("{pictures} {X264} -c:a {codec}"));
        let made = trim(&input, 0, 600_000, Format::Mp4);
        assert_eq!((decoded(&made.file, "0:v:0").len(), entry(&made.file, "a:0", "codec_name").as_str()), (15, ""));
        assert!(drops_sound(&made));
        // Where a container says how long each track is, that it is over is known, too.
        if name.ends_with("mp4") {
            assert!(drops_sound(&trim(&input, 2_500_000, 600_000, Format::Mp4)));
        }
        assert!(!entry(&trim(&input, 800_000, 600_000, Format::Mp4).file, "a:0", "codec_name").is_empty());
    }
}

#[test]
fn sound_that_is_too_damaged_to_be_copied_is_encoded() {
    let whole = synth("pit-sound.ts", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let mut bytes = fs::read(&whole).expect("file");
    // The last place where a frame of sound begins: its head is taken away from the frame.
    let is_head = |bytes: &[u8]| bytes[0] == 0xff && bytes[1] == 0xf1 && bytes[2] == 0x4c;
    let place = bytes.windows(3).rposition(is_head).expect("a frame");
    bytes[place] = 0;
    let file = whole.with_file_name("pit-sound-damaged.ts");
    fs::write(&file, bytes).expect("written");
    let made = transcode(&file, Format::Mp4);
    assert_eq!(decoded(&made.file, "0:v:0").len(), 50);
    assert!(sound_after_pictures(&made.file).abs() <= 40_000);
}

#[test]
fn a_film_that_is_stretched_on_purpose_is_shown_so() {
    let input = synth("pit-square.mp4", &format!("{PICTURES} -vf setsar=1 {X264}"));
    let scale = Scale { width: Some(160), height: Some(160), ..Scale::default() };
    for format in [Format::Mp4, Format::Webm] {
        let made = make(&input, wanted(Recipe::Resize(Resize { scale }), format));
        assert_eq!(entry(&made.file, "v:0", "width,height,sample_aspect_ratio"), "160,160,1:1");
    }
}

#[test]
fn a_part_of_slow_samples_is_exact() {
    for (name, options) in [("pit-slow.wav", "-ar 8000 -c:a pcm_u8"), ("pit-fine.wav", "-ar 44100 -c:a pcm_s24le")] {
        let input = synth(name, &format!("-f lavfi -i sine=d=4 {options}"));
        let extract = ExtractAudio { cut: cut(610_000, Some(830_000)), copy: true };
        let made = make(&input, wanted(Recipe::ExtractAudio(extract), Format::Mp3));
        let rate: usize = entry(&input, "a:0", "sample_rate").parse().expect("a rate");
        let samples = |file: &std::path::Path| {
            let arguments = ["-nostdin", "-v", "error", "-i", file.to_str().expect("text"), "-f", "s32le", "-"];
            std::process::Command::new("ffmpeg").args(arguments).output().expect("ffmpeg").stdout
        };
        let (all, part) = (samples(&input), samples(&made.file));
        let from = rate * 61 / 100 * 4;
        assert!(part == all[from..from + rate * 83 / 100 * 4], "{name}: {} bytes", part.len());
    }
}

#[test]
fn flac_that_ends_early_says_so_afterwards() {
    let whole = synth("pit-whole.flac", "-f lavfi -i anoisesrc=d=4:r=44100:seed=1 -c:a flac");
    let bytes = fs::read(&whole).expect("file");
    let file = whole.with_file_name("pit-early.flac");
    fs::write(&file, &bytes[..bytes.len() * 85 / 100]).expect("written");
    let extract = ExtractAudio { cut: cut(0, None), copy: true };
    let made = make(&file, wanted(Recipe::ExtractAudio(extract), Format::Mp3));
    assert_eq!(made.report.facts.format, Format::Flac);
    assert!((3300..3500).contains(&length_ms(&made.file)), "{}", length_ms(&made.file));
    assert!((length_ms(&made.file) - sound_ms(&made.file)).abs() <= 1);
}

#[test]
fn telephone_sound_becomes_mp3() {
    for (samples, channels) in [(28_400, 2), (28_700, 1)] {
        let sound = format!("-f lavfi -i sine=d=4:r=8000 -af atrim=end_sample={samples} -ac {channels} -c:a pcm_alaw");
        let made = transcode(&synth(&format!("pit-telephone-{samples}.wav"), &sound), Format::Mp3);
        assert_eq!(entry(&made.file, "a:0", "sample_rate,channels"), format!("8000,{channels}"));
        let expected = i64::from(samples) / 8;
        assert!((0..140).contains(&(sound_ms(&made.file) - expected)), "{} of {expected}", sound_ms(&made.file));
    }
}

#[test]
fn work_goes_on_to_be_seen_when_the_pictures_are_over() {
    let picture = "-f lavfi -i testsrc2=s=64x64:r=25:d=0.04";
    let input = synth("pit-one-picture.mp4", &format!("{picture} -f lavfi -i sine=d=600 {X264} -c:a aac"));
    let made = compressed(&input);
    let done = made.told.messages.iter().filter_map(|message| {
        if let Up::Progress { done_us, .. } = message { Some(*done_us / 1_000_000) } else { None }
    });
    let done: Vec<u64> = done.collect();
    assert!(done.is_sorted(), "{done:?}");
    assert!(done.iter().any(|second| (100..500).contains(second)), "{done:?}");
}

/// Pictures that are renewed strip by strip: from most places where decoding can begin, nothing can be shown for a
/// while.
#[test]
fn a_part_of_pictures_without_whole_ones_in_between_is_exact() {
    let refreshed = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -x264-params intra-refresh=1:keyint=50";
    let input = synth("pit-refreshed.mkv", &format!("-f lavfi -i testsrc2=s=320x240:r=25:d=6 {refreshed}"));
    for format in [Format::Mp4, Format::Webm] {
        let times = picture_times(&trim(&input, 3_000_000, 2_000_000, format).file);
        assert_eq!((times.first(), times.len()), (Some(&0), 50), "{format:?}");
    }
}

/// A call over the web asks for a picture to begin at when one was lost, and never else.
#[test]
fn a_part_behind_which_no_picture_can_be_begun_at_does_not_wait_for_one() {
    let noise = "-f lavfi -i testsrc2=s=1280x720:r=25:d=7,noise=alls=100:allf=t";
    let input =
        synth("pit-endless-group.mp4", &format!("{noise} {X264} -qp 30 -x264-params keyint=infinite:scenecut=0"));
    let part = Recipe::Trim(Trim { cut: cut(200_000, None) });
    let told = run_once(&[&fs::read(input).expect("file")], wanted(part, Format::Mp4), LIMITS, None);
    let Some(Up::Failed(JobFailure::Uncopyable { reason })) = told.messages.last() else { panic!("it waited") };
    assert!(reason.contains("too far apart"), "{reason}");
}

/// A recording of a screen stands still for long. What is decoded last is then shown before what is shown last.
#[test]
fn a_last_picture_that_comes_late_or_stays_long_is_no_fault() {
    let still = "-f lavfi -i testsrc2=s=160x120:r=25:d=4,select='lt(n,25)+eq(n,99)' -vsync vfr";
    let h264 = synth("pit-still-screen.mp4", &format!("{still} -c:v libx264 -preset medium -pix_fmt yuv420p"));
    let made = transcode(&h264, Format::Mp4);
    assert_eq!(made.strategy.kind, StrategyKind::Remux);
    assert_eq!(made.receipt.duration_us.map(|us| us / 10_000), Some(400));
    let other = synth("pit-still-screen.mkv", &format!("{still} -c:v mpeg4"));
    let made = trim(&other, 0, 1_900_000, Format::Mp4);
    assert_eq!(made.receipt.duration_us.map(|us| us / 10_000), Some(190));
    assert_eq!(picture_times(&made.file).last(), Some(&960));
}

#[test]
fn a_film_with_a_hundred_fonts_has_no_more_streams_than_any_other() {
    let font = synth("pit-font.txt", "-f lavfi -i anullsrc -t 0.01 -f framemd5");
    let attach = format!("-attach {} -metadata:s:t mimetype=font/ttf", font.to_str().expect("text"));
    let fonts = vec![attach; 100].join(" ");
    let input = synth("pit-fonts.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a aac {fonts}"));
    let made = compressed(&input);
    let dropped = made.report.streams.iter().filter(|stream| stream.fate == Fate::Dropped).count();
    assert_eq!((made.receipt.frames, dropped), (Some(50), 100));
}
