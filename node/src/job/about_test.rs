//! What a file says of itself, and what its output says.

use std::{fs, path::Path};

use xora_shared::{
    media::{Cut, ExtractAudio, Format, Recipe, Trim},
    report::Fate,
};

use crate::job::{
    copy_test::transcode,
    media_test::{PICTURES, SOUND, X264, compress, corners, entry, film, make, name, synth, tool, wanted},
    recipe_test::cut,
};

fn extract(input: &Path, format: Format) -> super::media_test::Made {
    make(input, wanted(Recipe::ExtractAudio(ExtractAudio { cut: Cut::default(), copy: true }), format))
}

/// A tag of a file, or of its first track of sound, where Ogg has it.
fn tag(file: &Path, name: &str) -> String {
    let wanted = format!("format_tags={name}:stream_tags={name}");
    let args = ["-v", "error", "-show_entries", &wanted, "-of", "default=nk=1:nw=1"];
    tool("ffprobe", &args, file).trim().to_owned()
}

/// Starts and ends of the chapters, in milliseconds, and their titles.
fn chapters(file: &Path) -> Vec<(i64, i64, String)> {
    let wanted = "chapter=start_time,end_time:chapter_tags=title";
    let told = tool("ffprobe", &["-v", "error", "-show_entries", wanted, "-of", "csv=p=0"], file);
    let chapter = |line: &str| {
        let mut fields = line.split(',');
        let mut ms = || fields.next().and_then(|time| time.parse::<f64>().ok()).map(|time| (time * 1000.0).round());
        #[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
        let (start, end) = (ms().expect("a start") as i64, ms().expect("an end") as i64);
        (start, end, fields.collect())
    };
    told.lines().map(chapter).collect()
}

#[test]
fn the_title_and_the_languages_are_kept_and_where_it_was_recorded_is_not() {
    let said = "-metadata title=Waves -metadata artist=Sea -metadata location=+52.5+13.4/ -metadata make=Phone";
    let languages = "-metadata:s:v language=ger -metadata:s:a language=spa";
    let input = synth("about.mkv", &format!("{PICTURES} {SOUND} {said} {languages} {X264} -c:a aac"));
    for format in [Format::Mp4, Format::Mov, Format::Webm, Format::M4a, Format::Mp3, Format::Flac, Format::Wav] {
        let made = transcode(&input, format);
        assert_eq!((tag(&made.file, "title"), tag(&made.file, "artist")), ("Waves".into(), "Sea".into()), "{format:?}");
        let text = String::from_utf8_lossy(&made.told.output).into_owned();
        assert!(!text.contains("+52.5+13.4") && !text.contains("Phone"), "{format:?}");
        if matches!(format, Format::Mp4 | Format::Mov | Format::Webm) {
            let of = |stream| {
                let args = format!("-v error -select_streams {stream} -show_entries stream_tags=language -of csv=p=0");
                tool("ffprobe", &args.split(' ').collect::<Vec<_>>(), &made.file).trim().to_owned()
            };
            assert_eq!((of("v:0"), of("a:0")), ("ger".into(), "spa".into()), "{format:?}");
        }
    }
    let opus = synth("about.opus", &format!("{SOUND} {said} -c:a libopus"));
    assert_eq!(tag(&extract(&opus, Format::Opus).file, "artist"), "Sea");
    assert_eq!(tag(&transcode(&opus, Format::Mp3).file, "artist"), "Sea");
}

#[test]
fn music_keeps_its_cover() {
    let cover = |picture: &str| format!("-f lavfi -i {picture} -map 0 -map 1 -c:v png -disposition:v attached_pic");
    let small = cover("color=red:s=100x100:d=0.04");
    // More than a part of the output.
    let large =
        cover("nullsrc=s=1500x1500:d=0.04,format=rgb24,geq=r='255*random(1)':g='255*random(2)':b='255*random(3)'");
    for (input, is_red) in [
        (synth("about-small.mp3", &format!("{SOUND} {small} -c:a libmp3lame")), true),
        (synth("about-small.flac", &format!("{SOUND} {small} -c:a flac")), true),
        (synth("about-large.m4a", &format!("{SOUND} {large} -c:a aac")), false),
    ] {
        for format in [Format::Mp3, Format::M4a, Format::Flac] {
            let made = transcode(&input, format);
            let kept = made.report.streams.iter().find(|stream| stream.what.starts_with("cover")).expect("its fate");
            assert_eq!(kept.fate, Fate::Kept);
            assert!(made.report.expect.cover && entry(&made.file, "a:0", "codec_name").len() > 2);
            if is_red {
                assert_eq!(name(corners(&made.file)[0]), 'r', "{} {format:?}", input.display());
            } else {
                assert_eq!(entry(&made.file, "v:0", "width"), "1500", "{format:?}");
            }
        }
        let made = transcode(&input, Format::Wav);
        let fate = made.report.streams.iter().find(|stream| stream.what.starts_with("cover")).expect("its fate");
        assert_eq!(fate.fate, Fate::Dropped);
    }
}

#[test]
fn a_cover_with_more_pixels_than_are_allowed_is_left_out_of_music() {
    let cover = synth("vast.png", "-f lavfi -i color=black:s=12000x12000:d=0.04,format=gray -frames:v 1");
    let with_cover = format!("{SOUND} -i {} -map 0 -map 1 -c:a libmp3lame -c:v copy", cover.display());
    let made = extract(&synth("vast.mp3", &with_cover), Format::Mp3);
    let fate = made.report.streams.iter().find(|stream| stream.what.starts_with("cover")).expect("its fate");
    assert_eq!((fate.fate, fate.reason.as_deref()), (Fate::Dropped, Some("it is empty, or too large")));
}

#[test]
fn chapters_are_kept_and_those_of_a_part_are_in_its_time() {
    let said = film().with_file_name("about-chapters.txt");
    let chapter = |start, end, title| format!("[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n");
    fs::write(&said, format!(";FFMETADATA1\n{}{}", chapter(0, 1200, "one"), chapter(1200, 9000, "two")))
        .expect("written");
    let chaptered = format!("-i {} -map_chapters 2 {X264}", said.display());
    let input = synth("about-chapters.mkv", &format!("{PICTURES} {SOUND} {chaptered} -c:a aac"));
    let whole = |made: &Path| {
        let found = chapters(made);
        let [(0, first, one), (second, end, two)] = found.as_slice() else { panic!("{found:?}") };
        assert!((first - 1200).abs() <= 2 && (second - 1200).abs() <= 2 && (end - 2000).abs() <= 60, "{found:?}");
        assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
    };
    for format in [Format::Mp4, Format::Mov, Format::Webm, Format::M4a, Format::Mp3, Format::Opus] {
        whole(&transcode(&input, format).file);
    }
    whole(&make(&input, compress(Format::Mp4)).file);
    let part = Recipe::Trim(Trim { cut: cut(520_000, Some(1_000_000)) });
    for format in [Format::Mp4, Format::Webm] {
        let found = chapters(&make(&input, wanted(part.clone(), format)).file);
        let [(0, first, _), (_, end, _)] = found.as_slice() else { panic!("{found:?}") };
        assert!((first - 680).abs() <= 30 && (end - 1000).abs() <= 60, "{found:?}");
    }
}
