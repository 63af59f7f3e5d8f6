//! Parts of films whose containers could have an index and have none, against the same part of the same file read from
//! its start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xora_shared::media::{ExtractAudio, Format, Recipe, Trim, Wanted};

use super::{
    copy_test::decoded,
    media_test::{make, synth, thumbnail, wanted},
    recipe_test::cut,
};

const PICTURES: &str = "-f lavfi -i testsrc2=s=320x240:r=25:d=100";
const SOUND: &str = "-f lavfi -i sine=d=100:r=32000";
/// Each packet lasts 32 ms, so that times in milliseconds are exact.
const AAC: &str = "-c:a aac";
const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 2";
/// As it is recorded: clusters of which the length is not known, and no index.
const LIVE: &str = "-f matroska -live 1";

/// The same, seeming to have an index: then nothing is looked for.
fn unfindable(film: &Path) -> PathBuf {
    let mut bytes = fs::read(film).expect("film");
    let place = bytes.windows(4).position(|bytes| bytes == b"Lavf").expect("who wrote it");
    let index: &[u8] = if bytes.starts_with(b"FLV") { b"keyframes" } else { &[0x1c, 0x53, 0xbb, 0x6b] };
    bytes[place..place + index.len()].copy_from_slice(index);
    let file = film.with_file_name(format!("unfindable-{}", film.file_name().expect("name").display()));
    fs::write(&file, bytes).expect("written");
    file
}

/// The same without its index.
fn without_index(film: &Path) -> PathBuf {
    let mut bytes = fs::read(film).expect("film");
    for place in 0..bytes.len() - 4 {
        if bytes[place..place + 4] == [0x1c, 0x53, 0xbb, 0x6b] {
            bytes[place + 3] += 1;
        }
    }
    let file = film.with_file_name("places-lost.mkv");
    fs::write(&file, bytes).expect("written");
    file
}

/// The same with zeros at two fifths of it.
fn damaged(film: &Path) -> PathBuf {
    let mut bytes = fs::read(film).expect("film");
    let place = bytes.len() * 2 / 5;
    bytes[place..place + 3000].fill(0);
    let file = film.with_file_name(format!("places-damaged-{}", film.file_name().expect("name").display()));
    fs::write(&file, bytes).expect("written");
    file
}

#[test]
fn a_part_of_a_film_without_an_index_is_the_same_as_read_from_the_start_and_takes_few_reads() {
    let film = |name: &str, how: &str| synth(&format!("places-{name}"), &format!("{PICTURES} {SOUND} {how}"));
    let live = film("live.mkv", &format!("{X264} -g 50 {AAC} {LIVE}"));
    let flv = film("live.flv", &format!("{X264} -g 50 {AAC}"));
    let films = [
        damaged(&live),
        damaged(&flv),
        live,
        flv,
        without_index(&film("indexed.mkv", &format!("{X264} -g 50 {AAC} -cluster_time_limit 1000"))),
        film("live.webm", "-c:v libvpx -deadline realtime -cpu-used 16 -g 50 -c:a libopus -f webm -live 1"),
        film("late.mkv", &format!("{X264} -g 50 {AAC} -output_ts_offset 1000.0123 {LIVE}")),
        film("late.flv", &format!("{X264} -g 50 {AAC} -output_ts_offset 1000.0123")),
        film("seldom.mkv", &format!("{X264} -g 250 {AAC} -cluster_time_limit 700 {LIVE}")),
        film("seldom.flv", &format!("{X264} -g 250 {AAC}")),
        film("once.mkv", &format!("{X264} -g 5000 -keyint_min 5000 -sc_threshold 0 {AAC} {LIVE}")),
        film("once.flv", &format!("{X264} -g 5000 -keyint_min 5000 -sc_threshold 0 {AAC}")),
    ];
    let trim = Recipe::Trim(Trim { cut: cut(53_300_000, Some(1_000_000)) });
    let sound = Recipe::ExtractAudio(ExtractAudio { cut: cut(57_000_000, Some(3_000_000)), copy: true });
    let parts = [
        thumbnail(53_300_000),
        thumbnail(99_900_000),
        wanted(trim.clone(), Format::Webm),
        wanted(trim, Format::Wav),
        wanted(sound, Format::Wav),
    ];
    for film in films {
        for part in &parts {
            assert_same_and_short(&film, part);
        }
    }
}

#[test]
fn a_part_of_sound_alone_without_an_index_is_the_same_as_decoded_from_the_start_and_takes_few_reads() {
    let noise = "-f lavfi -i anoisesrc=d=100:r=32000:seed=7";
    let part = wanted(Recipe::Trim(Trim { cut: cut(53_300_000, Some(1_000_000)) }), Format::Wav);
    let table = [("sound.mka", format!("-c:a pcm_s16le {LIVE}")), ("sound.flv", format!("{AAC} -aac_pns 0 -b:a 300k"))];
    for (name, how) in table {
        let sound = synth(&format!("places-{name}"), &format!("{noise} {how}"));
        let whole = synth(&format!("places-{name}.wav"), &format!("-i {}", sound.display()));
        let made = make(&sound, part.clone());
        assert!(decoded(&made.file, "0:0") == decoded(&make(&whole, part.clone()).file, "0:0"), "{name}");
        let (read, size) = (made.told.bytes_read, fs::metadata(&sound).expect("sound").len());
        assert!(read < size / 2, "{name}: {read} of {size} bytes");
    }
}

#[test]
fn a_clock_that_starts_again_leads_nowhere_else() {
    let one = synth("places-again.flv", &format!("{PICTURES} {X264} -g 50"));
    let bytes = fs::read(&one).expect("film");
    let twice = one.with_file_name("places-twice.flv");
    fs::write(&twice, [&bytes[..], &bytes[..]].concat()).expect("written");
    for second in [30_020_000, 60_020_000, 90_020_000, 150_020_000] {
        assert_same(&twice, &thumbnail(second));
    }
}

/// Answers how many bytes were read, and how many from the start.
fn assert_same(film: &Path, part: &Wanted) -> [u64; 2] {
    let (made, whole) = (make(film, part.clone()), make(&unfindable(film), part.clone()));
    assert!(decoded(&made.file, "0:0") == decoded(&whole.file, "0:0"), "{}: {part:?}", film.display());
    [made, whole].map(|made| made.told.bytes_read)
}

fn assert_same_and_short(film: &Path, part: &Wanted) {
    let [read, all] = assert_same(film, part);
    assert!(read < all * 2 / 3, "{}: {part:?}: {read} of {all} bytes", film.display());
}
