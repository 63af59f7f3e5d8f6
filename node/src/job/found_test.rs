//! What files as they are found in the wild have shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xora_shared::{
    failure::FailureKind,
    media::{ExtractAudio, Format, Recipe, Trim},
    report::{Fate, StrategyKind},
};

use crate::job::{
    copy_test::{decoded, transcode},
    media_test::{LIMITS, PICTURES, SOUND, X264, compress, entry, make, make_of_all, refused, synth, tool, wanted},
    recipe_test::{cut, sound_ms},
};

#[test]
fn what_old_recorders_and_editors_wrote_is_read() {
    let films = [
        ("found-screen.avi", "-c:v zmbv -c:a adpcm_ms"),
        ("found-old.avi", "-c:v msvideo1 -pix_fmt rgb555le -c:a pcm_u8"),
        ("found-screen.flv", "-c:v flashsv -ar 22050 -c:a nellymoser"),
        ("found-old.mov", "-c:v rpza -pix_fmt rgb555le -c:a pcm_s16be"),
        ("found-camera.mov", "-c:v cfhd -c:a pcm_s24le"),
        ("found-wavelets.mkv", "-c:v vc2 -strict -1 -c:a libspeex -ar 16000"),
    ];
    for (name, codecs) in films {
        let made = transcode(&synth(name, &format!("{PICTURES} {SOUND} {codecs} -ac 1")), Format::Mp4);
        assert_eq!(decoded(&made.file, "0:v:0").len(), 50, "{name}");
        assert!((sound_ms(&made.file) - 2000).abs() < 80, "{name}: {}", sound_ms(&made.file));
    }
}

#[test]
fn the_first_sound_of_wma_is_whole() {
    // As other encoders do it: the first sound that comes out lasts one packet into the second.
    let times = "-bsf:a setts=ts=if(gt(N\\,2)\\,TS-46\\,TS)";
    let sound = "-f lavfi -i anoisesrc=d=3:r=44100:seed=2 -ac 2";
    let input = synth("found-first.wma", &format!("{sound} -c:a wmav2 -b:a 96k {times}"));
    let expected = sound_ms(&input);
    for format in [Format::Wav, Format::Mp4] {
        let made = transcode(&input, format);
        assert!((sound_ms(&made.file) - expected).abs() <= 25, "{} of {expected}", sound_ms(&made.file));
    }
    let joined = sound_ms(&make_of_all(&[&input, &input], wanted(Recipe::Concat, Format::Wav)).file);
    assert!((0..=200).contains(&(joined - 2 * expected)), "{joined} of {expected}");
}

#[test]
fn tags_behind_the_end_are_no_damage() {
    let whole = synth("found-whole.wv", "-f lavfi -i sine=d=2:r=44100 -c:a wavpack");
    let mut bytes = fs::read(&whole).expect("file");
    bytes.extend(b"TAG");
    bytes.resize(bytes.len() + 4000, b' ');
    let input = whole.with_file_name("found-tagged.wv");
    fs::write(&input, bytes).expect("written");
    let made = make_of_all(&[&input, &input, &input], wanted(Recipe::Concat, Format::Wav));
    assert!((sound_ms(&made.file) - 6000).abs() <= 20, "{}", sound_ms(&made.file));
}

#[test]
fn flac_comes_out_of_mp4_whole() {
    let sound = "-f lavfi -i sine=d=3.3:r=48000";
    // Some say of the last packet that it has no length.
    let lengths = "-bsf:a setts=duration=if(eq(N\\,34)\\,0\\,DURATION)";
    let input = synth("found-flac.mp4", &format!("{sound} -c:a flac -strict -2 {lengths}"));
    let extract = Recipe::ExtractAudio(ExtractAudio { cut: cut(0, None), copy: true });
    let made = make(&input, wanted(extract, Format::Mp3));
    assert_eq!(made.report.facts.format, Format::Flac);
    assert!((sound_ms(&made.file) - 3300).abs() <= 1, "{}", sound_ms(&made.file));
}

#[test]
fn ambisonics_are_heard() {
    let four = "-af pan=4.0|c0=c0|c1=0.1*c0|c2=0.2*c0|c3=0.3*c0 -c:a libopus -mapping_family 2";
    let input = synth("found-ambisonic.webm", &format!("-f lavfi -i sine=d=2:r=48000 {four}"));
    for (format, channels) in [(Format::Mp4, "2"), (Format::Mp3, "2"), (Format::Wav, "4")] {
        let made = transcode(&input, format);
        assert_eq!(entry(&made.file, "a:0", "channels"), channels, "{format:?}");
    }
}

/// Marks the first group of pictures as one that needs nothing from before it.
fn close_first_group(file: &Path) -> PathBuf {
    let mut bytes = fs::read(file).expect("file");
    let head = bytes.windows(4).position(|window| window == [0, 0, 1, 0xb8]).expect("a group");
    bytes[head + 7] = bytes[head + 7] & !0x20 | 0x40;
    let closed = file.with_file_name("found-closed.ts");
    fs::write(&closed, bytes).expect("written");
    closed
}

#[test]
fn pictures_from_before_the_start_of_a_file_do_not_shift_it() {
    let long = "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -c:v mpeg2video -bf 2 -g 12 -b:v 2M";
    let long = synth("found-long.ts", long);
    let input = synth("found-cut.ts", &format!("-ss 1 -i {} -c copy", long.display()));
    let shown = decoded(&input, "0:v:0").len();
    let input = close_first_group(&input);
    assert_eq!(decoded(&input, "0:v:0").len(), shown + 2, "they can be decoded");
    for format in [Format::Mp4, Format::Webm] {
        let made = transcode(&input, format);
        assert_eq!(decoded(&made.file, "0:v:0").len(), shown, "{format:?}");
    }
    let made = make_of_all(&[&input, &input], wanted(Recipe::Concat, Format::Mp4));
    assert_eq!(decoded(&made.file, "0:v:0").len(), 2 * shown);
}

#[test]
fn an_empty_sound_track_is_left_out() {
    let fragments = "-movflags frag_keyframe+empty_moov";
    let table = [
        ("found-mute.webm", "-c:v libvpx -c:a libopus".to_owned()),
        ("found-mute.mp4", format!("{X264} -c:a aac {fragments}")),
    ];
    for (name, codecs) in table {
        let input = synth(name, &format!("{PICTURES} {SOUND} {codecs} -bsf:a noise=drop=1"));
        assert!(!entry(&input, "a:0", "codec_name").is_empty(), "it has a sound track");
        let part = Recipe::Trim(Trim { cut: cut(520_000, Some(800_000)) });
        let table = [
            (compress(Format::Mp4), 50, "nothing of its sound"),
            (wanted(part, Format::Mp4), 20, "nothing in the part"),
        ];
        for (wanted, pictures, why) in table {
            let made = make(&input, wanted);
            assert_eq!(decoded(&made.file, "0:v:0").len(), pictures, "{name}");
            assert!(entry(&made.file, "a:0", "codec_name").is_empty(), "{name}");
            let sound = made.report.streams.iter().find(|stream| stream.what.starts_with("audio")).expect("its fate");
            assert_eq!(sound.fate, Fate::Dropped);
            assert!(sound.reason.as_deref().is_some_and(|reason| reason.contains(why)));
        }
        let bytes = fs::read(&input).expect("file");
        let (kind, message) = refused(&bytes, wanted(Recipe::Transcode, Format::Wav), LIMITS);
        assert_eq!((kind, message.as_str()), (FailureKind::Transcode, "no sound of the input could be decoded"));
    }
}

#[test]
fn a_part_of_chained_ogg_is_found() {
    let one = synth("found-link-a.opus", "-f lavfi -i sine=f=500:d=1:r=48000 -c:a libopus");
    let two = synth("found-link-b.opus", "-f lavfi -i sine=f=900:d=4:r=48000 -c:a libopus -ac 2");
    let input = one.with_file_name("found-chain.opus");
    fs::write(&input, [fs::read(one).expect("file"), fs::read(two).expect("file")].concat()).expect("written");
    let part = Recipe::Trim(Trim { cut: cut(1_500_000, Some(1_500_000)) });
    let made = make(&input, wanted(part, Format::Wav));
    assert!((sound_ms(&made.file) - 1500).abs() <= 20, "{}", sound_ms(&made.file));
}

/// Has the edit list begin this much later, in the time of the pictures and of the file.
fn edited(file: &Path, (ticks, ms): (i32, u32)) -> PathBuf {
    let mut bytes = fs::read(file).expect("file");
    let list = bytes.windows(4).position(|window| window == *b"elst").expect("an edit list");
    let place = |from: usize| list + from..list + from + 4;
    let number = |bytes: &[u8], from| i32::from_be_bytes(bytes[place(from)].try_into().expect("four bytes"));
    let (length, start) = (number(&bytes, 12).unsigned_abs(), number(&bytes, 16));
    bytes[place(12)].copy_from_slice(&(length - ms).to_be_bytes());
    bytes[place(16)].copy_from_slice(&(start + ticks).to_be_bytes());
    let edited = file.with_file_name("found-edited.mp4");
    fs::write(&edited, bytes).expect("written");
    edited
}

#[test]
fn hidden_pictures_that_none_needs_are_not_copied() {
    let whole = "-f lavfi -i testsrc2=s=320x240:r=25:d=4";
    let whole = synth("found-unedited.mp4", &format!("{whole} {X264} -g 10 -bf 2 -video_track_timescale 12800"));
    // A little before the eleventh picture, with which decoding can begin.
    let input = edited(&whole, (10 * 512 - 200, 400));
    for format in [Format::Mp4, Format::Mov] {
        let made = transcode(&input, format);
        assert_eq!(made.strategy.kind, StrategyKind::Remux);
        assert_eq!(decoded(&made.file, "0:v:0"), decoded(&input, "0:v:0"));
    }
}

#[test]
fn slow_mp3_is_encoded_for_mp4() {
    let input = synth("found-slow.mp3", "-f lavfi -i sine=d=2:r=11025 -ac 1 -c:a libmp3lame -b:a 32k");
    for format in [Format::Mp4, Format::Mov] {
        let made = transcode(&input, format);
        assert_eq!(entry(&made.file, "a:0", "codec_name"), "aac", "{format:?}");
        assert!((sound_ms(&made.file) - 2000).abs() <= 60, "{}", sound_ms(&made.file));
    }
}

#[test]
fn webm_that_begins_later_than_it_is_long_is_whole() {
    let input = synth("found-late.webm", &format!("{PICTURES} -c:v libvpx -output_ts_offset 3"));
    let mut bytes = fs::read(&input).expect("file");
    let length = bytes.windows(3).position(|window| window == [0x44, 0x89, 0x88]).expect("a length") + 3;
    bytes[length..length + 8].copy_from_slice(&2000_f64.to_be_bytes());
    let late = input.with_file_name("found-later.webm");
    fs::write(&late, bytes).expect("written");
    for wanted in [compress(Format::Mp4), wanted(Recipe::Transcode, Format::Webm)] {
        assert_eq!(decoded(&make(&late, wanted).file, "0:v:0").len(), 50);
    }
    let part = Recipe::Trim(Trim { cut: cut(520_000, Some(800_000)) });
    assert_eq!(decoded(&make(&late, wanted(part, Format::Mp4)).file, "0:v:0").len(), 20);
}

#[test]
fn films_whose_first_pictures_are_damaged_are_joined() {
    let sound = synth("found-sound.mp4", &format!("{PICTURES} {X264} -g 25"));
    let mut bytes = fs::read(&sound).expect("file");
    let media = bytes.windows(4).position(|window| window == *b"mdat").expect("media");
    // In the middle of the first picture.
    bytes[media + 1500..media + 1600].fill(0xff);
    let damaged = sound.with_file_name("found-damaged.mp4");
    fs::write(&damaged, bytes).expect("written");
    let made = make_of_all(&[&sound, &damaged], wanted(Recipe::Concat, Format::Mp4));
    assert_eq!(made.strategy.kind, StrategyKind::Encode);
    assert_eq!(decoded(&made.file, "0:v:0").len(), 100);
}

#[test]
fn a_part_of_bare_mpeg_pictures_is_found() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=6 -c:v mpeg1video -qscale:v 12";
    let input = synth("found-bare.m1v", &format!("{pictures} -maxrate 8M -bufsize 2M -g 12"));
    let said: f64 = tool("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"], &input)
        .trim()
        .parse()
        .expect("seconds");
    assert!(said < 3.0, "it seems to end before the part begins: {said}");
    let part = Recipe::Trim(Trim { cut: cut(3_000_000, Some(800_000)) });
    assert_eq!(decoded(&make(&input, wanted(part, Format::Mp4)).file, "0:v:0").len(), 20);
}
