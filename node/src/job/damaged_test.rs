//! Damaged and untruthful files: what the `ffmpeg` command makes something of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xora_shared::{
    failure::FailureKind,
    media::{ExtractAudio, Format, Recipe, Trim},
    report::Fate,
};

use crate::{
    ipc::{JobFailure, Up},
    job::{
        copy_test::{decoded, transcode},
        media_test::{
            LIMITS, PICTURES, SOUND, X264, compress, entry, make, make_of_all, picture_times, refused, run_all, synth,
            thumbnail, wanted,
        },
        recipe_test::{cut, sound_ms},
    },
};

/// A copy of a file, changed.
fn changed(file: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(file).expect("file");
    change(&mut bytes);
    let changed = file.with_file_name(name);
    fs::write(&changed, bytes).expect("written");
    changed
}

fn position(bytes: &[u8], of: &[u8]) -> usize {
    bytes.windows(of.len()).position(|window| window == of).expect("it is there")
}

#[test]
fn a_file_that_says_it_is_longer_than_it_is_was_not_cut_when_all_its_bytes_are_there() {
    let avi = synth("damaged-said.avi", &format!("{PICTURES} {SOUND} -c:v mpeg4 -c:a libmp3lame"));
    let avi = changed(&avi, "damaged-said-more.avi", |bytes| {
        let length = position(bytes, b"strh") + 8 + 32;
        bytes[length..length + 4].copy_from_slice(&500_u32.to_le_bytes());
    });
    let matroska = synth("damaged-said.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let more = |bytes: &mut Vec<u8>| {
        let length = position(bytes, &[0x44, 0x89, 0x88]) + 3;
        bytes[length..length + 8].copy_from_slice(&20_000_f64.to_be_bytes());
    };
    let matroska = changed(&matroska, "damaged-said-more.mkv", more);
    let flash = synth("damaged-said.flv", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let flash = changed(&flash, "damaged-said-more.flv", |bytes| {
        let length = position(bytes, b"duration") + 9;
        bytes[length..length + 8].copy_from_slice(&20_f64.to_be_bytes());
    });
    for input in [&avi, &matroska, &flash] {
        for made in [
            make(input, compress(Format::Mp4)),
            transcode(input, Format::Mov),
            make_of_all(&[input], wanted(Recipe::Concat, Format::Mp4)),
        ] {
            assert_eq!(decoded(&made.file, "0:v:0").len(), 50, "{}", input.display());
            let told = made.report.warnings.iter().any(|warning| warning.contains("but holds only 2"));
            assert!(told, "{}: {:?}", input.display(), made.report.warnings);
        }
    }
    let sound = synth("damaged-counted.mp3", "-f lavfi -i anoisesrc=d=6:r=44100:seed=3 -c:a libmp3lame -q:a 5");
    let sound = changed(&sound, "damaged-counted-more.mp3", |bytes| {
        let count = position(bytes, b"Xing") + 8;
        bytes[count..count + 4].copy_from_slice(&2000_u32.to_be_bytes());
    });
    assert!((sound_ms(&transcode(&sound, Format::Wav).file) - 6000).abs() <= 60);
    let mut half = fs::read(sound).expect("file");
    half.truncate(half.len() / 2);
    assert_eq!(refused(&half, wanted(Recipe::Transcode, Format::Wav), LIMITS).0, FailureKind::InputTruncated);
    let mut cut = fs::read(matroska).expect("file");
    cut.truncate(cut.len() * 9 / 10);
    assert_eq!(refused(&cut, compress(Format::Mp4), LIMITS).0, FailureKind::InputTruncated);
}

#[test]
fn a_part_behind_the_end_of_the_sound_has_pictures_only() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=8";
    let input = synth("damaged-mute.webm", &format!("{pictures} {SOUND} -c:v libvpx -g 25 -c:a libopus"));
    for start in [2_100_000, 6_000_000] {
        let part = Recipe::Trim(Trim { cut: cut(start, Some(1_000_000)) });
        for format in [Format::Mp4, Format::Webm] {
            let made = make(&input, wanted(part.clone(), format));
            assert_eq!(decoded(&made.file, "0:v:0").len(), 25, "{format:?}");
            assert!(entry(&made.file, "a:0", "codec_name").is_empty(), "{format:?}");
            let sound = made.report.streams.iter().find(|stream| stream.what.starts_with("audio")).expect("its fate");
            assert_eq!(sound.fate, Fate::Dropped);
            assert!(sound.reason.as_deref().is_some_and(|why| why.contains("nothing in the part")));
        }
    }
}

#[test]
fn a_part_behind_where_a_file_seems_to_end_is_found() {
    let one = synth("damaged-one.ts", &format!("{PICTURES} {SOUND} {X264} -g 25 -c:a aac"));
    let two = changed(&one, "damaged-two.ts", |bytes| bytes.extend_from_within(..));
    let part = |start| wanted(Recipe::Trim(Trim { cut: cut(start, Some(1_000_000)) }), Format::Mp4);
    let made = make(&two, part(2_600_000));
    assert_eq!(decoded(&made.file, "0:v:0").len(), 25);
    assert!((sound_ms(&made.file) - 1000).abs() <= 60, "{}", sound_ms(&made.file));
    let (kind, message) = refused(&fs::read(one).expect("file"), part(2_600_000), LIMITS);
    assert!(kind == FailureKind::InputUnsupported && message.contains("begin earlier"), "{message}");
}

#[test]
fn sound_goes_on_behind_the_end_that_a_header_names() {
    let sound = synth("damaged-short.mp3", "-f lavfi -i anoisesrc=d=6:r=44100:seed=3 -c:a libmp3lame -q:a 5");
    let input = changed(&sound, "damaged-shorter.mp3", |bytes| {
        let count = position(bytes, b"Xing") + 8;
        bytes[count..count + 4].copy_from_slice(&100_u32.to_be_bytes());
    });
    let part = |start| wanted(Recipe::Trim(Trim { cut: cut(start, Some(1_000_000)) }), Format::Wav);
    assert!((sound_ms(&make(&input, part(4_000_000)).file) - 1000).abs() <= 60);
    let (kind, message) = refused(&fs::read(input).expect("file"), part(7_000_000), LIMITS);
    assert!(kind == FailureKind::InputUnsupported && message.contains("begin earlier"), "{message}");
}

#[test]
fn the_last_picture_of_a_broadcast_is_whole() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=8";
    let codec = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=50";
    let input = synth("damaged-not.ts", &format!("{pictures} {codec}"));
    let whole = decoded(&make(&input, thumbnail(7_960_000)).file, "0:v:0");
    let last = decoded(&make(&input, thumbnail(9_999_000_000)).file, "0:v:0");
    assert_eq!(last, whole);
}

#[test]
fn a_clock_that_goes_back_leaves_pictures_in_step_and_sound_alone_whole() {
    let live = synth("damaged-live.mkv", &format!("{PICTURES} {SOUND} -c:v mpeg4 -g 10 -c:a pcm_s16le -live 1"));
    let input = changed(&live, "damaged-back.mkv", |bytes| {
        let media = position(bytes, &[0x1f, 0x43, 0xb6, 0x75]);
        bytes.extend_from_within(media..);
    });
    let made = make(&input, compress(Format::Mp4));
    let times = picture_times(&made.file);
    assert!((50..58).contains(&times.len()), "{times:?}");
    assert!(made.report.warnings.iter().any(|warning| warning.contains("their time had passed")));
    assert!((sound_ms(&transcode(&input, Format::Wav).file) - 4000).abs() <= 60);
}

#[test]
fn a_broadcast_that_loses_some_of_its_packets_goes_on_in_step() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=10 -f lavfi -i sine=d=10:r=48000";
    let whole = synth("damaged-air.ts", &format!("{pictures} -c:v mpeg2video -g 12 -bf 2 -b:v 1500k -c:a mp2"));
    let input = changed(&whole, "damaged-air-lost.ts", |bytes| {
        let packets = bytes.chunks(188).enumerate();
        // One of each 150, not always at the same place in it.
        let kept = packets.filter(|(number, _)| *number < 60 || number % 150 != number / 150 * 37 % 150);
        *bytes = kept.flat_map(|(_, packet)| packet.to_vec()).collect();
    });
    let made = make(&input, compress(Format::Mp4));
    let warned = made.report.warnings.iter().any(|warning| warning.contains("damaged"));
    assert!(warned && decoded(&made.file, "0:v:0").len() >= 240, "{:?}", made.report.warnings);
    assert!((sound_ms(&made.file) - 10_000).abs() <= 200, "{}", sound_ms(&made.file));
}

#[test]
fn one_picture_whose_time_is_wrong_costs_no_other() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=6";
    for seconds in [2, 2000] {
        let wrong = format!("-bsf:v setts=pts=if(eq(N\\,40)\\,PTS+{seconds}/TB\\,PTS)");
        let input = synth(&format!("damaged-early-{seconds}.mkv"), &format!("{pictures} -c:v mpeg4 -g 10 {wrong}"));
        let made = make(&input, compress(Format::Mp4));
        assert_eq!(made.receipt.duration_us, Some(6_000_000));
        let times = picture_times(&made.file);
        assert_eq!(times.len(), 150);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 100), "{times:?}");
    }
}

#[test]
fn sound_whose_first_packet_lasts_into_the_second_is_whole_from_its_start() {
    let early = "-bsf:a setts=ts=if(gt(N\\,0)\\,TS-80\\,TS)";
    let input = synth("damaged-lasts.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a flac {early}"));
    for format in [Format::Mp4, Format::Webm] {
        let made = make(&input, compress(format));
        assert!((sound_ms(&made.file) - 1920).abs() <= 100, "{format:?}: {}", sound_ms(&made.file));
    }
}

#[test]
fn times_beyond_all_measure_are_refused_or_read_and_overflow_nothing() {
    let fragments = "-g 10 -movflags +frag_keyframe+empty_moov+default_base_moof";
    let film = synth("damaged-times.mp4", &format!("{PICTURES} {SOUND} {X264} {fragments} -c:a aac"));
    let part = cut(310_000, Some(200_000));
    for (time, name) in [(i64::MIN + 1, "first"), (-(1 << 62), "past"), (1 << 62, "future"), (i64::MAX, "last")] {
        let input = changed(&film, &format!("damaged-times-{name}.mp4"), |bytes| {
            // Behind the version, which says that the time has 64 bits.
            let place = bytes.windows(5).rposition(|bytes| bytes == b"tfdt\x01").expect("a time") + 8;
            bytes[place..place + 8].copy_from_slice(&time.to_be_bytes());
        });
        for wanted in [
            compress(Format::Mp4),
            wanted(Recipe::Transcode, Format::Mp4),
            wanted(Recipe::Trim(Trim { cut: part }), Format::Mp4),
            wanted(Recipe::ExtractAudio(ExtractAudio { cut: part, copy: true }), Format::Mp3),
            wanted(Recipe::Concat, Format::Mp4),
            thumbnail(300_000),
        ] {
            let shown = format!("{name}: {wanted:?}");
            match run_all(&[&input], wanted, LIMITS).messages.pop() {
                Some(Up::Produced(_) | Up::Failed(JobFailure::Known { .. })) => {}
                other => panic!("{shown}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_false_count_of_pictures_keeps_no_room_for_their_index() {
    let noise = "-f lavfi -i nullsrc=s=640x480:r=25:d=4,geq=random(1)*255:128:128 -c:v mjpeg -q:v 2";
    let noise = synth("damaged-counting.avi", noise);
    for (count, name) in [(50_000_000_u32, "many"), (3_000_000_000, "more")] {
        let input = changed(&noise, &format!("damaged-count-{name}.avi"), |bytes| {
            // A million in a second.
            let header = position(bytes, b"strh") + 8;
            for (place, number) in [(20, 1_u32), (24, 1_000_000), (32, count)] {
                bytes[header + place..header + place + 4].copy_from_slice(&number.to_le_bytes());
            }
        });
        let made = make(&input, compress(Format::Mp4));
        assert!((5 << 20..20 << 20).contains(&made.told.output.len()), "{name}: {} bytes", made.told.output.len());
        assert_eq!(decoded(&made.file, "0:v:0").len(), 100, "{name}");
    }
}
