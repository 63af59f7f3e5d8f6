//! Small files that would be very large work. Each ends at a limit, with a message that names it.

use std::{fs, iter::repeat_n};

use xora_shared::{failure::FailureKind, media::Format};

use crate::{
    ipc::{Limits, Up},
    job::media_test::{LIMITS, compress, make, refused, synth, thumbnail},
};

fn ends_at(bomb: &[u8], limits: &Limits, word: &str) {
    for wanted in [compress(Format::Mp4), thumbnail(0)] {
        let (kind, message) = refused(bomb, wanted, limits.clone());
        assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_picture_that_unpacks_to_a_thousand_times_its_size_is_refused_by_its_header() {
    let arguments = "-f lavfi -i color=black:s=12000x12000:d=0.04,format=gray -frames:v 1";
    let bomb = fs::read(synth("bomb.png", arguments)).expect("file");
    assert!(bomb.len() * 500 < 12_000 * 12_000, "{} bytes", bomb.len());
    ends_at(&bomb, &LIMITS, "12000x12000");
}

#[test]
fn an_animation_on_a_canvas_beyond_the_limit_is_refused() {
    ends_at(&gif(60_000, 60_000, 10), &LIMITS, "60000x60000");
}

#[test]
fn an_animation_of_very_many_tiny_pictures_ends_at_their_limit() {
    let bomb = gif(320, 240, 5_000);
    let limits = Limits { pictures: 1_000, ..LIMITS };
    for wanted in [compress(Format::Mp4), thumbnail(400_000_000)] {
        let (kind, message) = refused(&bomb, wanted, limits.clone());
        assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
        assert!(message.contains("1000 pictures"), "{message}");
    }
}

#[test]
fn a_thumbnail_behind_very_many_pictures_tells_how_far_it_is() {
    let file = synth("canvas.gif", "-f lavfi -i color=red:s=16x16:d=0.1 -frames:v 1").with_file_name("canvas-1200.gif");
    fs::write(&file, gif(2_000, 2_000, 1_200)).expect("written");
    let told = make(&file, thumbnail(110_000_000)).told.messages;
    let done = told
        .iter()
        .filter_map(|up| if let Up::Progress { done_us, total_us } = up { Some((*done_us, *total_us)) } else { None });
    let done: Vec<_> = done.collect();
    assert!(!done.is_empty() && done.is_sorted() && done.iter().all(|(_, total)| *total >= 110_000_000), "{done:?}");
}

#[test]
fn a_hundred_thousand_pictures_in_one_second_end_at_their_limit() {
    let arguments = "-f lavfi -i color=black:s=16x16:r=100000:d=1 -c:v mpeg4 -video_track_timescale 100000";
    let bomb = fs::read(synth("frantic.mp4", arguments)).expect("file");
    let limits = Limits { pictures: 20_000, ..LIMITS };
    let (kind, message) = refused(&bomb, compress(Format::Mp4), limits);
    assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
    assert!(message.contains("the limit is 20000"), "{message}");
}

#[test]
fn a_claim_of_ten_thousand_years_is_over_the_limit_and_one_of_half_an_hour_is_not_believed() {
    let plain = fs::read(synth("claim.mkv", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v mpeg4")).expect("file");
    // Matroska's `Duration`, as a double of milliseconds.
    let place = plain.windows(3).position(|bytes| bytes == [0x44, 0x89, 0x88]).expect("a duration") + 3;
    let claiming = |seconds: f64| {
        let mut file = plain.clone();
        file[place..place + 8].copy_from_slice(&(seconds * 1000.0).to_be_bytes());
        // The track repeats it as a tag, which libav would believe instead.
        while let Some(tag) = file.windows(8).position(|bytes| bytes == b"DURATION") {
            file[tag..tag + 8].copy_from_slice(b"xURATION");
        }
        file
    };
    ends_at(&claiming(3e11), &LIMITS, "the limit is 3600 seconds");
    let claimed = synth("claim.mkv", "").with_file_name("claimed.mkv");
    fs::write(&claimed, claiming(1800.0)).expect("written");
    let made = make(&claimed, compress(Format::Mp4));
    assert_eq!(made.receipt.frames, Some(50));
    assert!(made.report.warnings[0].contains("1800000 ms long, but holds only 2000 ms"), "{:?}", made.report.warnings);
}

#[test]
fn an_edit_list_that_shows_a_few_pictures_very_often_ends_at_their_limit() {
    let plain = "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v mpeg4 -use_editlist 0";
    let plain = fs::read(synth("unedited.mp4", plain)).expect("file");
    // Each shows the whole second, in the file's thousandths and the track's own time.
    let entry = [1000_u32, 0, 1 << 16].map(u32::to_be_bytes).concat();
    let edits = [[0, 2000_u32].map(u32::to_be_bytes).concat(), entry.repeat(2000)].concat();
    let edits = boxed(*b"edts", &boxed(*b"elst", &edits));
    // The index is behind the media, so no place in the file moves.
    let place = |name: &[u8; 4]| plain.windows(4).position(|bytes| bytes == name).expect("a box") - 4;
    let mut bomb = [&plain[..place(b"mdia")], &edits, &plain[place(b"mdia")..]].concat();
    for grown in [place(b"moov"), place(b"trak")] {
        let size = u32::from_be_bytes(bomb[grown..grown + 4].try_into().expect("four")) + length(&edits);
        bomb[grown..grown + 4].copy_from_slice(&size.to_be_bytes());
    }
    let limits = Limits { pictures: 10_000, ..LIMITS };
    ends_at(&bomb, &limits, "has 50000 pictures; the limit is 10000 (--max-pictures of the node)");
}

#[test]
fn a_picture_of_very_many_bytes_is_refused_for_them() {
    let picture = fs::read(synth("dot.png", "-f lavfi -i color=red:s=16x16 -frames:v 1")).expect("file");
    let text = vec![0; 300 << 20];
    let text = [&length(&text).to_be_bytes()[..], b"tEXt", &text, &[0; 4]].concat();
    // Behind the header, with its signature, length, name and checksum.
    let bomb = [&picture[..33], &text, &picture[33..]].concat();
    let (kind, message) = refused(&bomb, thumbnail(0), LIMITS);
    assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
    assert!(message.contains("the limit is 299892736, by that of pixels (--max-pixels of the node)"), "{message}");
}

/// A box of MP4.
pub fn boxed(name: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&(length(body) + 8).to_be_bytes()[..], &name, body].concat()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("short")
}

/// A GIF of pictures of one pixel on a canvas of this size.
fn gif(width: u16, height: u16, pictures: usize) -> Vec<u8> {
    // Two colours; then for each picture how long it is shown, where it stands, and its one pixel.
    let head =
        [b"GIF89a", &width.to_le_bytes()[..], &height.to_le_bytes(), &[0x80, 0, 0, 0, 0, 0, 255, 255, 255]].concat();
    let shown = [0x21, 0xf9, 4, 4, 1, 0, 0, 0];
    let picture = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0];
    let one = [&shown[..], &picture].concat();
    let all: Vec<u8> = repeat_n(one, pictures).flatten().collect();
    [&head[..], &all, b";"].concat()
}
