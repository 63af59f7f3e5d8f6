//! Parts of fragmented MP4, against the same part of the same file read from its start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xora_shared::{
    media::{ExtractAudio, Format, Recipe, Trim},
    report::StrategyKind,
};

use super::{
    copy_test::decoded,
    media_test::{make, synth, thumbnail, wanted},
    recipe_test::cut,
};

/// A film of a hundred seconds, with B-frames.
const LONG: &str = "-f lavfi -i testsrc2=s=320x240:r=25:d=100 -f lavfi -i sine=d=100:r=48000 \
                    -c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 2 -c:a aac -shortest";

fn film(name: &str, gop: u32, flags: &str) -> PathBuf {
    let film = synth(&format!("fragmented-{gop}.mp4"), &format!("{LONG} -g {gop}"));
    synth(&format!("fragmented-{name}.mp4"), &format!("-i {} -c copy {flags}", film.display()))
}

/// The same, with fragments that are not found, because they have no number.
fn unfindable(film: &Path, whole: bool) -> PathBuf {
    let mut bytes = fs::read(film).expect("film");
    for place in 0..bytes.len() - 4 {
        if &bytes[place..place + 4] == b"mfhd" {
            bytes[place..place + 4].copy_from_slice(b"free");
        }
    }
    let file = film.with_extension(if whole { "whole.mp4" } else { "parts.mp4" });
    fs::write(&file, bytes).expect("written");
    file
}

fn films() -> [PathBuf; 6] {
    [
        film("keys", 50, "-movflags frag_keyframe+empty_moov"),
        film("pictures", 50, "-movflags frag_every_frame+empty_moov+default_base_moof"),
        film("recorded", 250, "-movflags empty_moov+default_base_moof+skip_trailer -frag_duration 1000000"),
        film("dash", 50, "-movflags frag_keyframe+empty_moov+default_base_moof+dash"),
        film("apart", 50, "-movflags frag_keyframe+empty_moov+default_base_moof+separate_moof"),
        film("edited", 50, "-movflags frag_keyframe+delay_moov+default_base_moof"),
    ]
}

#[test]
fn a_whole_fragmented_film_is_read_once() {
    for film in films() {
        let size = fs::metadata(&film).expect("film").len();
        let transcode = wanted(Recipe::Transcode, Format::Mov);
        let (made, whole) = (make(&film, transcode.clone()), make(&unfindable(&film, true), transcode));
        let is_encoded = made.strategy.kind == StrategyKind::Encode;
        for stream in ["0:v", "0:a"] {
            let [mut made, mut whole] = [&made, &whole].map(|made| decoded(&made.file, stream));
            // Beside other encoders in one process, x264 does not always make the same pictures.
            if is_encoded {
                made.iter_mut().chain(&mut whole).for_each(|(_, hash)| hash.clear());
            }
            assert!(made == whole, "{}: {stream}", film.display());
        }
        assert_eq!((made.strategy, made.report.warnings), (whole.strategy, whole.report.warnings));
        let read = made.told.bytes_read;
        assert!(read < size + size / 5, "{}: {read} of {size} bytes", film.display());
    }
}

#[test]
fn a_part_of_a_fragmented_film_is_the_same_as_read_from_the_start_and_takes_few_reads() {
    let (trim, sound) =
        (Recipe::Trim(Trim { cut: cut(53_300_000, Some(1_000_000)) }), cut(47_000_000, Some(3_000_000)));
    let parts = [
        thumbnail(0),
        thumbnail(53_300_000),
        thumbnail(70_020_000),
        thumbnail(99_900_000),
        thumbnail(400_000_000),
        wanted(trim, Format::Webm),
        wanted(Recipe::ExtractAudio(ExtractAudio { cut: sound, copy: true }), Format::Wav),
    ];
    for film in films() {
        let unfindable = unfindable(&film, false);
        for part in &parts {
            let (made, whole) = (make(&film, part.clone()), make(&unfindable, part.clone()));
            let streams = if part.format == Format::Webm { &["0:v", "0:a"][..] } else { &["0:0"] };
            for stream in streams {
                let is_same = decoded(&made.file, stream) == decoded(&whole.file, stream);
                assert!(is_same, "{}: {part:?}: {stream}", film.display());
            }
            let [read, all] = [made, whole].map(|made| made.told.bytes_read);
            assert!(read < all / 2, "{}: {part:?}: {read} of {all} bytes", film.display());
        }
    }
}
