//! What containers say of their tracks beside packets: another header in mid-stream, encryption, programmes, dispositions,
//! orientation. Judged by decoding the results with the `ffmpeg` command.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use xora_av::ReadAt;
use xora_shared::{
    failure::FailureKind,
    media::{ExtractAudio, Format, Recipe, Resize, Scale, Trim, Wanted, WebReady},
    report::StrategyKind,
};

use super::{
    bomb_test::boxed,
    look::find,
    media_test::{
        LIMITS, all_refused, compress, corners, entry, film, make, make_of_all, name, passes_through, refused, synth,
        thumbnail, tool, wanted,
    },
    recipe_test::{clicks, cut},
};

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.0.get(start..)).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

/// One track of an MP4 that has no other, as its muxer wrote it.
struct Track {
    entry: Vec<u8>,
    sizes: Vec<u32>,
    /// All its samples, one behind the other.
    data: Vec<u8>,
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("few")
}

impl Track {
    fn of(name: &str, arguments: &str) -> Self {
        let mut file = Bytes(fs::read(synth(name, arguments)).expect("film"));
        let mut inside = |path: &[&[u8; 4]]| {
            let range = path
                .iter()
                .fold(0..u64::MAX, |within, kind| find(&mut file, within, **kind).expect("read").expect("a box"));
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("small"));
            file.0[start..end.min(file.0.len())].to_vec()
        };
        let table = [b"moov", b"trak", b"mdia", b"minf", b"stbl"];
        let sizes = inside(&[&table[..], &[b"stsz"]].concat());
        let (sizes, _) = sizes[12..].as_chunks::<4>();
        Self {
            entry: inside(&[&table[..], &[b"stsd"]].concat())[8..].to_vec(),
            sizes: sizes.iter().map(|size| u32::from_be_bytes(*size)).collect(),
            data: inside(&[b"mdat"]),
        }
    }
}

/// A track that is put together from pieces of others, each under the sample entry of its own.
struct Joined<'a> {
    id: u32,
    handler: &'static [u8; 4],
    /// Width and height in pixels.
    size: (u32, u32),
    /// Ticks of a second, and of each sample.
    scale: u32,
    entries: &'a [&'a Track],
    /// For each piece its entry and the ticks of its samples, which all other samples of it depend on the first of.
    pieces: &'a [(usize, u32)],
}

impl Joined<'_> {
    fn sizes(&self) -> Vec<u32> {
        self.pieces.iter().flat_map(|(entry, _)| &self.entries[*entry].sizes).copied().collect()
    }

    fn data(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(entry, _)| &self.entries[*entry].data).copied().collect()
    }

    /// The box `trak`, of media that begins at a place.
    fn describe(&self, mut place: u32) -> Vec<u8> {
        let samples = |entry: usize| count(&self.entries[entry].sizes);
        let ticks: u32 = self.pieces.iter().map(|(entry, ticks)| samples(*entry) * ticks).sum();
        let (mut chunks, mut places, mut times, mut keys, mut number) = (vec![], vec![], vec![], vec![], 1);
        for ((entry, ticks), chunk) in self.pieces.iter().zip(1..) {
            chunks.extend([chunk, samples(*entry), u32::try_from(*entry).expect("small") + 1]);
            places.push(place);
            place += count(&self.entries[*entry].data);
            times.extend([samples(*entry), *ticks]);
            keys.push(number);
            number += samples(*entry);
        }
        let list = |name: &[u8; 4], rows: u32, body: &[u32]| boxed(*name, &[words(&[0, rows]), words(body)].concat());
        let entries: Vec<u8> = self.entries.iter().flat_map(|track| track.entry.clone()).collect();
        let is_video = self.handler == b"vide";
        let table = [
            boxed(*b"stsd", &[words(&[0, count(self.entries)]), entries].concat()),
            list(b"stts", count(self.pieces), &times),
            if is_video { list(b"stss", count(&keys), &keys) } else { Vec::new() },
            list(b"stsc", count(self.pieces), &chunks),
            boxed(*b"stsz", &[words(&[0, 0, count(&self.sizes())]), words(&self.sizes())].concat()),
            list(b"stco", count(&places), &places),
        ];
        let link = boxed(*b"dinf", &boxed(*b"dref", &[words(&[0, 1]), boxed(*b"url ", &words(&[1]))].concat()));
        let header = if is_video { boxed(*b"vmhd", &words(&[1, 0, 0])) } else { boxed(*b"smhd", &words(&[0, 0])) };
        let info = [header, link, boxed(*b"stbl", &table.concat())].concat();
        let media = [
            boxed(*b"mdhd", &words(&[0, 0, 0, self.scale, ticks, 0x55c4_0000])),
            boxed(*b"hdlr", &[&words(&[0, 0])[..], self.handler, &[0; 13]].concat()),
            boxed(*b"minf", &info),
        ];
        let ms = ticks * 10 / (self.scale / 100);
        let upright = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30];
        let (width, height) = self.size;
        let of_track = [&[3, 0, 0, self.id, 0, ms, 0, 0, 0, 0][..], &upright, &[width << 16, height << 16]].concat();
        boxed(*b"trak", &[boxed(*b"tkhd", &words(&of_track)), boxed(*b"mdia", &media.concat())].concat())
    }
}

/// An MP4 of these tracks, its index first.
fn mp4(name: &str, tracks: &[Joined]) -> PathBuf {
    let kind = boxed(*b"ftyp", &[b"isom", &words(&[512])[..], b"isomavc1"].concat());
    let moov = |begin: u32| {
        let upright = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30];
        let header = [&[0, 0, 0, 1000, 6000, 1 << 16, 1 << 24, 0, 0][..], &upright, &[0; 6], &[9]].concat();
        let mut place = begin;
        let mut body = boxed(*b"mvhd", &words(&header));
        for track in tracks {
            body.extend(track.describe(place));
            place += count(&track.data());
        }
        boxed(*b"moov", &body)
    };
    let begin = count(&kind) + count(&moov(0)) + 8;
    let data: Vec<u8> = tracks.iter().flat_map(Joined::data).collect();
    let file = synth("film.mp4", "").with_file_name(name);
    fs::write(&file, [kind, moov(begin), boxed(*b"mdat", &data)].concat()).expect("written");
    file
}

const SINE: &str = "-f lavfi -i sine=440:d=2:r=";
/// Two seconds of frames, each as bright as its number says; no frame depends on a later one.
const NUMBERS: &str = "format=yuv420p,geq=lum='16+mod(N,200)':cb=128:cr=128";
const KEYED: &str = "-c:v libx264 -preset ultrafast -bf 0 -g 50";

fn numbered(name: &str, size: &str, options: &str) -> Track {
    Track::of(name, &format!("-f lavfi -i color=black:s={size}:r=25:d=2,{NUMBERS} {KEYED} {options}"))
}

/// Six seconds of video and of a tone of 440 Hz. In the midst of both tracks another header is in force: other tools of
/// the video codec, and half the sample rate.
fn restarted_mp4(name: &str, other_size: &str) -> PathBuf {
    film(); // The folder.
    let one = numbered("entry-one.mp4", "128x96", "-x264-params cabac=0:8x8dct=0 -profile:v baseline -crf 4");
    let two = numbered(&format!("entry-{other_size}.mp4"), other_size, "-x264-params cabac=1:8x8dct=1:ref=4 -crf 4");
    let fast = Track::of("entry-48000.m4a", &format!("{SINE}48000 -c:a aac -b:a 96k"));
    let slow = Track::of("entry-24000.m4a", &format!("{SINE}24000 -c:a aac -b:a 96k"));
    let tracks = [
        Joined {
            id: 1,
            handler: b"vide",
            size: (128, 96),
            scale: 12_800,
            entries: &[&one, &two],
            pieces: &[(0, 512), (1, 512), (0, 512)],
        },
        Joined {
            id: 2,
            handler: b"soun",
            size: (0, 0),
            scale: 48_000,
            entries: &[&fast, &slow],
            pieces: &[(0, 1024), (1, 2048), (0, 1024)],
        },
    ];
    mp4(name, &tracks)
}

/// The tags of one FLV behind those of another, `offset_ms` later, with headers of their own: a recording that was
/// started again.
fn restarted_flv(name: &str) -> PathBuf {
    const HEAD: usize = 13;
    let part = |name: &str, options: &str, rate: u32| {
        let inputs = format!("-f lavfi -i color=black:s=128x96:r=25:d=2,{NUMBERS} {SINE}{rate}");
        fs::read(synth(name, &format!("{inputs} {KEYED} {options} -c:a aac -b:a 96k"))).expect("film")
    };
    film();
    let one = part("restart-one.flv", "-x264-params cabac=0:8x8dct=0 -profile:v baseline -crf 4", 44_100);
    let two = part("restart-two.flv", "-x264-params cabac=1:8x8dct=1:ref=4 -crf 4", 22_050);
    let mut joined = one;
    let mut at = HEAD;
    while at < two.len() {
        let length = u32::from_be_bytes([0, two[at + 1], two[at + 2], two[at + 3]]) as usize;
        let mut tag = two[at..at + 11 + length + 4].to_vec();
        let time = u32::from_be_bytes([tag[7], tag[4], tag[5], tag[6]]) + 2_020;
        let [high, rest @ ..] = time.to_be_bytes();
        tag[4..7].copy_from_slice(&rest);
        tag[7] = high;
        // Script data tells of the first part alone.
        if tag[0] != 18 {
            joined.extend(&tag);
        }
        at += tag.len();
    }
    let file = synth("film.mp4", "").with_file_name(name);
    fs::write(&file, joined).expect("written");
    file
}

/// Brightness of each frame, and what the decoder complains of.
fn watched(file: &Path) -> (Vec<u8>, String) {
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-v", "warning", "-i", input, "-map", "0:v:0", "-fps_mode", "passthrough"];
    let scale = ["-vf", "crop=32:32:48:32,scale=1:1:flags=area,format=gray", "-f", "rawvideo", "-"];
    let output = std::process::Command::new("ffmpeg").args(arguments).args(scale).output().expect("ffmpeg");
    let complaints = String::from_utf8_lossy(&output.stderr);
    let of_decoder = complaints.lines().filter(|line| line.contains("h264 @") || line.contains("rror"));
    (output.stdout, of_decoder.collect::<Vec<_>>().join("\n"))
}

/// Asserts that frames have their numbers, each piece of 50 from 0 on, from a frame of the whole on.
fn assert_numbers(file: &Path, first: usize, frames: usize) {
    let (found, complaints) = watched(file);
    assert_eq!(complaints, "", "{}", file.display());
    assert_eq!(found.len(), frames, "{}", file.display());
    for (index, brightness) in found.iter().enumerate() {
        // 16 to 235 are shown as 0 to 255.
        let number = u8::try_from((first + index) % 50).expect("small");
        let expected = u8::try_from(u32::from(number) * 255 / 219).expect("small");
        assert!(
            brightness.abs_diff(expected) <= 4,
            "{}: frame {index} is {brightness}, not {expected}",
            file.display()
        );
    }
}

/// How often a tone swings in each tenth of a second, per second.
pub(super) fn pitches(file: &Path) -> Vec<usize> {
    let input = file.to_str().expect("text");
    let arguments = ["-nostdin", "-v", "error", "-i", input, "-map", "0:a:0", "-ac", "1", "-ar", "48000"];
    let output =
        std::process::Command::new("ffmpeg").args(arguments).args(["-f", "s16le", "-"]).output().expect("ffmpeg");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let (samples, _) = output.stdout.as_chunks::<2>();
    let samples: Vec<i16> = samples.iter().map(|sample| i16::from_le_bytes(*sample)).collect();
    let swings = |part: &[i16]| part.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count() * 10;
    samples.chunks_exact(4800).map(swings).collect()
}

/// Asserts that nearly all of a file is a tone of this many hertz. Between two pieces the encoder's silence is heard.
fn assert_tone(file: &Path, hertz: usize, seconds: usize) {
    let found = pitches(file);
    assert!(found.len().abs_diff(seconds * 10) <= 3, "{}: {found:?}", file.display());
    let wrong = found.iter().filter(|pitch| pitch.abs_diff(hertz) > 20).count();
    assert!(wrong <= 6, "{}: {found:?}", file.display());
}

fn trim(start_us: u64, duration_us: Option<u64>) -> Recipe {
    Recipe::Trim(Trim { cut: cut(start_us, duration_us) })
}

fn extract(copy: bool) -> Recipe {
    Recipe::ExtractAudio(ExtractAudio { cut: cut(0, None), copy })
}

const fn web_ready() -> Recipe {
    Recipe::WebReady(WebReady { encode: None })
}

#[test]
fn a_header_that_changes_in_mid_stream_is_never_copied_over() {
    let inputs = [(restarted_mp4("restarted.mp4", "128x96"), 150), (restarted_flv("restarted.flv"), 100)];
    for (input, frames) in inputs {
        let seconds = frames / 25;
        let resize = Recipe::Resize(Resize { scale: Scale { width: Some(128), ..Scale::default() } });
        for recipe in [Recipe::Transcode, web_ready(), trim(0, Some(10_000_000)), resize] {
            let made = make(&input, wanted(recipe, Format::Mp4));
            assert_eq!(made.strategy.kind, StrategyKind::Encode, "{:?}", made.strategy);
            assert_numbers(&made.file, 0, frames);
            assert_tone(&made.file, 440, seconds);
        }
        let made = make_of_all(&[&input, &input], wanted(Recipe::Concat, Format::Mp4));
        assert_numbers(&made.file, 0, 2 * frames);
        assert_tone(&made.file, 440, 2 * seconds);
        for format in [Format::Aac, Format::M4a] {
            assert_tone(&make(&input, wanted(Recipe::Transcode, format)).file, 440, seconds);
        }
        assert_tone(&make(&input, wanted(extract(true), Format::Mp3)).file, 440, seconds);
    }
}

#[test]
fn a_size_that_changes_with_the_header_leaves_every_frame() {
    let made = make(&restarted_mp4("restarted-size.mp4", "192x144"), wanted(Recipe::Transcode, Format::Mp4));
    let (found, complaints) = watched(&made.file);
    assert_eq!((found.len(), complaints.as_str()), (150, ""));
    assert_eq!(entry(&made.file, "v:0", "width,height"), "128,96");
}

#[test]
fn a_part_is_decoded_with_the_header_that_is_in_force_there() {
    let input = restarted_mp4("restarted-part.mp4", "128x96");
    for (start_us, first) in [(2_400_000, 60), (3_000_000, 75), (4_600_000, 115), (400_000, 10)] {
        let made = make(&input, wanted(trim(start_us, Some(1_000_000)), Format::Mp4));
        assert_numbers(&made.file, first, 25);
        assert_tone(&made.file, 440, 1);
        let made = make(&input, wanted(thumbnail(start_us).recipe, Format::Jpg));
        let (found, complaints) = watched(&made.file);
        let expected = u8::try_from((first % 50) * 255 / 219).expect("small");
        assert!(complaints.is_empty() && found[0].abs_diff(expected) <= 4, "{start_us}: {found:?} {complaints}");
    }
    // Where the first header is in force for the whole part, its packets are copied.
    let made = make(&input, wanted(trim(400_000, Some(1_000_000)), Format::Mp4));
    assert_eq!(made.strategy.kind, StrategyKind::SmartCut, "{:?}", made.strategy);
}

#[test]
fn a_part_of_a_recording_that_was_started_again_is_decoded_with_the_header_that_came_before_it() {
    let input = restarted_flv("restarted-part.flv");
    // The second half begins at 2.02 s.
    let made = make(&input, wanted(trim(2_420_000, Some(1_000_000)), Format::Mp4));
    assert_numbers(&made.file, 10, 25);
    assert_tone(&made.file, 440, 1);
    let made = make(&input, wanted(thumbnail(2_420_000).recipe, Format::Jpg));
    let (found, complaints) = watched(&made.file);
    assert!(complaints.is_empty() && found[0].abs_diff(12) <= 4, "{found:?} {complaints}");
}

#[test]
fn sample_entries_that_are_alike_change_nothing() {
    film();
    let one = numbered("entry-one.mp4", "128x96", "-x264-params cabac=0:8x8dct=0 -profile:v baseline -crf 4");
    let entries = [&one, &one];
    let pieces = [(0, 512), (1, 512)];
    let track = Joined { id: 1, handler: b"vide", size: (128, 96), scale: 12_800, entries: &entries, pieces: &pieces };
    passes_through(&mp4("alike.mp4", &[track]), wanted(web_ready(), Format::Mp4));
}

#[test]
fn a_track_that_changes_its_codec_is_refused_with_both_names() {
    film();
    let one = numbered("entry-one.mp4", "128x96", "-x264-params cabac=0:8x8dct=0 -profile:v baseline -crf 4");
    let two =
        Track::of("entry-hevc.mp4", "-f lavfi -i testsrc2=s=128x96:r=25:d=2 -c:v libx265 -x265-params log-level=none");
    let (entries, pieces) = ([&one, &two], [(0, 512), (1, 512)]);
    let track = Joined { id: 1, handler: b"vide", size: (128, 96), scale: 12_800, entries: &entries, pieces: &pieces };
    let input = mp4("two-codecs.mp4", &[track]);
    let (kind, message) = all_refused(&[&input], compress(Format::Mp4), LIMITS);
    assert_eq!(kind, FailureKind::InputUnsupported);
    assert!(message.contains("from `avc1` to `hev1`"), "{message}");
}

/// A film with the code of a sample entry overwritten.
fn marked(entry: [u8; 4], mark: [u8; 4]) -> Vec<u8> {
    let mut bytes = fs::read(film()).expect("film");
    let entries = bytes.windows(4).position(|bytes| bytes == entry).expect("an entry");
    // The first is a brand in `ftyp` where it is `avc1`.
    let place = entries + 4 + bytes[entries + 4..].windows(4).position(|bytes| bytes == entry).unwrap_or(0);
    let place = if &entry == b"avc1" { place } else { entries };
    bytes[place..place + 4].copy_from_slice(&mark);
    bytes
}

/// A Matroska file whose track says that it is encrypted: where it had a name, it has an encoding as long.
fn encrypted_matroska() -> Vec<u8> {
    let name = "n".repeat(41);
    let arguments = format!("-f lavfi -i testsrc2=s=128x96:r=25:d=1 -c:v libvpx -metadata:s:v:0 title={name}");
    let mut bytes = fs::read(synth("named.webm", &arguments)).expect("film");
    let place = bytes.windows(name.len()).position(|bytes| bytes == name.as_bytes()).expect("a name");
    assert_eq!(bytes[place - 3..place], [0x53, 0x6e, 0x80 | 0x29]);
    // RFC 9559, section 5.1.4.1.31: AES with a key ID.
    let key = [&[0x47, 0xe1, 0x81, 5, 0x47, 0xe2, 0x90][..], &[7; 16]].concat();
    let encoding =
        [&[0x50, 0x31, 0x81, 0, 0x50, 0x32, 0x81, 1, 0x50, 0x33, 0x81, 1, 0x50, 0x35, 0x80 | 0x17][..], &key];
    let encodings = [&[0x62, 0x40, 0x80 | 0x26][..], &encoding.concat()].concat();
    bytes[place - 3..place - 1].copy_from_slice(&[0x6d, 0x80]);
    bytes[place..place + name.len()].copy_from_slice(&encodings);
    bytes
}

#[test]
fn what_is_encrypted_is_refused_by_every_recipe() {
    let subtitles = film().with_file_name("captions.srt");
    fs::write(&subtitles, "1\n00:00:00,000 --> 00:00:01,000\nhello\n").expect("written");
    let arguments = format!("-i {} -i {} -c:v copy -c:a copy -c:s mov_text", film().display(), subtitles.display());
    let mut captions = fs::read(synth("captions.mp4", &arguments)).expect("film");
    let place = captions.windows(4).rposition(|bytes| bytes == b"tx3g").expect("an entry");
    captions[place..place + 4].copy_from_slice(b"p608");
    let inputs = [
        marked(*b"avc1", *b"encv"),
        marked(*b"mp4a", *b"enca"),
        marked(*b"avc1", *b"drmi"),
        marked(*b"mp4a", *b"drms"),
        captions,
        encrypted_matroska(),
    ];
    let scale = Scale { width: Some(64), ..Scale::default() };
    for (index, input) in inputs.iter().enumerate() {
        let recipes = [
            web_ready(),
            Recipe::Transcode,
            trim(0, Some(1_000_000)),
            trim(1_000_000, None),
            Recipe::Resize(Resize { scale }),
        ];
        let all = recipes.into_iter().map(|recipe| wanted(recipe, Format::Mp4));
        let others = [wanted(extract(true), Format::Mp3), thumbnail(0), thumbnail(500_000), compress(Format::Mp4)];
        for wanted in all.chain(others) {
            let text = format!("{index}: {wanted:?}");
            let (kind, message) = refused(input, wanted, LIMITS);
            assert_eq!(kind, FailureKind::InputUnsupported, "{text}: {message}");
            assert!(message.starts_with("the input is encrypted (DRM"), "{text}: {message}");
        }
        let file = film().with_file_name("encrypted.bin");
        fs::write(&file, input).expect("written");
        let (_, message) = all_refused(&[&film(), &file], wanted(Recipe::Concat, Format::Mp4), LIMITS);
        assert!(message.starts_with("input 2: the input is encrypted (DRM"), "{message}");
    }
}

#[test]
fn audio_is_of_the_programme_that_the_video_is_of() {
    let video = |size: &str| format!("-f lavfi -i testsrc2=s={size}:r=25:d=3");
    let tone = |hertz: u32, channels: u32| {
        format!(
            "-f lavfi -i sine={hertz}:d=3:r=48000,aformat=channel_layouts={}",
            if channels == 2 { "stereo" } else { "5.1" }
        )
    };
    let programs = "-program title=One:program_num=1:st=0:st=1 -program title=Two:program_num=2:st=2:st=3";
    let maps = "-map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -c:a ac3";
    let inputs = [video("64x48"), tone(300, 6), video("128x96"), tone(900, 2)].join(" ");
    let input = synth("programmes.ts", &format!("{inputs} {maps} {programs}"));
    for recipe in [Recipe::Transcode, web_ready(), trim(1_000_000, Some(1_000_000))] {
        let made = make(&input, wanted(recipe, Format::Mp4));
        assert_eq!(entry(&made.file, "v:0", "width"), "128");
        assert!(pitches(&made.file)[2..8].iter().all(|pitch| pitch.abs_diff(900) <= 20), "{:?}", pitches(&made.file));
    }
    let made = make_of_all(&[&input, &input], wanted(Recipe::Concat, Format::Mp4));
    assert!(pitches(&made.file)[2..8].iter().all(|pitch| pitch.abs_diff(900) <= 20), "{:?}", pitches(&made.file));
}

#[test]
fn a_track_beside_the_main_one_does_not_win_by_its_channels() {
    let tones = "-f lavfi -i sine=300:d=2:r=48000,aformat=channel_layouts=5.1 -f lavfi -i sine=900:d=2:r=48000";
    let video = "-f lavfi -i testsrc2=s=128x96:r=25:d=2";
    let codecs = "-map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -c:a ac3 -disposition:a:1 0";
    for (name, disposition) in [
        ("described.mkv", "visual_impaired"),
        ("described.ts", "visual_impaired+descriptions"),
        ("commented.mkv", "comment"),
        ("clear.mkv", "hearing_impaired"),
    ] {
        let input = synth(name, &format!("{video} {tones} {codecs} -disposition:a:0 {disposition}"));
        let made = make(&input, wanted(Recipe::Transcode, Format::Mp4));
        let found = pitches(&made.file);
        assert!(found[2..15].iter().all(|pitch| pitch.abs_diff(900) <= 20), "{name}: {found:?}");
    }
}

/// Red, green, blue and white corners, lying on their side with a note in EXIF that says so.
fn sideways_jpeg() -> PathBuf {
    let flag = "-f lavfi -i color=red:s=160x120:d=1,pad=320:240[a];color=lime:s=160x120:d=1[b];\
                color=blue:s=160x120:d=1[c];color=white:s=160x120:d=1[d];[a][b]overlay=160:0[e];\
                [e][c]overlay=0:120[f];[f][d]overlay=160:120";
    let plain = fs::read(synth("flag.jpg", &format!("{flag} -frames:v 1 -q:v 2"))).expect("picture");
    // One entry: tag 0x0112, a short, 6: a quarter turn clockwise (Exif 2.32, section 4.6.4).
    let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let body = [b"Exif\0\0", &tiff[..]].concat();
    let segment = [&[0xff, 0xe1][..], &u16::try_from(body.len() + 2).expect("short").to_be_bytes(), &body].concat();
    let file = synth("flag.jpg", "").with_file_name("flag-exif.jpg");
    fs::write(&file, [&plain[..2], &segment, &plain[2..]].concat()).expect("written");
    file
}

#[test]
fn pictures_that_say_themselves_how_they_are_turned_come_out_upright() {
    let jpeg = sideways_jpeg();
    let flag = synth("flag.jpg", "");
    let film = "-vf null -c:v libx264 -pix_fmt yuv420p";
    let plain = synth("flag-side.mp4", &format!("-loop 1 -framerate 25 -t 1 -i {} {film}", flag.display()));
    // libav calls a quarter turn clockwise -90 degrees.
    let bits = "-bsf:v h264_metadata=display_orientation=insert:rotate=-90 -c:v copy";
    let message = synth("flag-sei.mp4", &format!("-i {} {bits}", plain.display()));
    for (input, wanted) in [
        (&jpeg, thumbnail(0)),
        (&jpeg, compress(Format::Mp4)),
        (&message, thumbnail(500_000)),
        (&message, compress(Format::Mp4)),
        (&message, wanted(Recipe::Transcode, Format::Mp4)),
        (&message, wanted(trim(200_000, Some(500_000)), Format::Mp4)),
    ] {
        let made = make(input, wanted);
        assert_eq!(entry(&made.file, "v:0", "width,height"), "240,320", "{}", input.display());
        let found: String = corners(&made.file).into_iter().map(name).collect();
        assert_eq!(found, "brwg", "{}", input.display());
    }
}

#[test]
fn audio_that_is_extracted_in_another_format_than_asked_for_says_so() {
    let of = |wanted: Wanted| {
        let made = make(&film(), wanted);
        (made.report.facts.format, made.report.warnings)
    };
    let (format, warnings) = of(wanted(extract(true), Format::Mp3));
    assert_eq!(format, Format::Aac);
    assert!(warnings[0].starts_with("the output is aac instead of mp3, because its audio is copied"), "{warnings:?}");
    assert_eq!(of(wanted(extract(true), Format::Aac)), (Format::Aac, Vec::new()));
    let (format, warnings) = of(wanted(extract(false), Format::Jpg));
    assert!(format == Format::Mp3 && warnings[0].contains("jpg is no format of audio"), "{warnings:?}");
}

#[test]
fn audio_that_must_not_be_copied_is_encoded_to_the_format_asked_for() {
    let clicking = super::recipe_test::numbered();
    let expected = clicks(&clicking);
    for format in [Format::Mp3, Format::Aac, Format::M4a, Format::Wav, Format::Flac, Format::Opus] {
        let made = make(&clicking, wanted(extract(false), format));
        assert_eq!((made.report.facts.format, made.report.warnings), (format, Vec::new()));
        assert_eq!(made.strategy.kind, StrategyKind::Encode, "{format:?}");
        let found = clicks(&made.file);
        assert_eq!(found.len(), expected.len(), "{format:?}: {found:?}");
        let moved = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).max();
        assert!(moved <= Some(45), "{format:?}: {found:?}");
    }
}

/// A transport stream whose packets of these PIDs say that they are scrambled.
fn scrambled(pids: &[u16]) -> Vec<u8> {
    let mut bytes = fs::read(synth("clear.ts", &format!("-i {} -c copy", film().display()))).expect("film");
    for packet in bytes.chunks_exact_mut(188) {
        if pids.contains(&(u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff)) {
            packet[3] |= 0x80;
        }
    }
    bytes
}

#[test]
fn a_broadcast_that_is_scrambled_is_refused_as_encrypted() {
    for pids in [&[0x100][..], &[0x101], &[0x100, 0x101]] {
        let (kind, message) = refused(&scrambled(pids), wanted(Recipe::Transcode, Format::Mp4), LIMITS);
        assert_eq!(kind, FailureKind::InputUnsupported);
        assert!(message.starts_with("the input is encrypted (DRM"), "{message}");
    }
}

#[test]
fn audio_of_broadcasters_is_decoded() {
    let inputs =
        "-f lavfi -i testsrc2=s=128x96:r=25:d=2 -f lavfi -i sine=440:d=2:r=48000,aformat=channel_layouts=stereo";
    let input = synth("s302m.ts", &format!("{inputs} -c:v libx264 -preset ultrafast -c:a s302m -strict -2"));
    let made = make(&input, wanted(Recipe::Transcode, Format::Mp4));
    assert_eq!(made.report.warnings, Vec::<String>::new());
    assert_tone(&made.file, 440, 2);
}

#[test]
fn a_film_that_loses_its_audio_or_its_video_says_so_with_the_reason() {
    let plain = fs::read(synth("lossy.flv", &format!("-i {} -c copy", film().display()))).expect("film");
    // Numbers of codecs that libav has no name for: HEVC as it was written before it had one, and a reserved one.
    for (kind, mask, codec, lost) in [(9, 0x0f, 12, "video"), (8, 0xf0, 13 << 4, "audio")] {
        let (mut bytes, mut at) = (plain.clone(), 13);
        while at < bytes.len() {
            if bytes[at] == kind {
                bytes[at + 11] = bytes[at + 11] & !mask | codec;
            }
            at += u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize + 15;
        }
        let file = film().with_file_name(format!("lost-{lost}.flv"));
        fs::write(&file, bytes).expect("written");
        let made = make(&file, compress(Format::Mp4));
        let warnings = made.report.warnings;
        let begins = format!("the output has no {lost}: `{lost} ");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&begins), "{warnings:?}");
        assert!(warnings[0].contains("its codec is not supported"), "{warnings:?}");
    }
}

#[test]
fn transparency_of_copied_video_is_kept() {
    let input = "-f lavfi -i color=red@0.3:s=64x64:r=25:d=1,format=yuva420p -c:v libvpx-vp9 -deadline realtime";
    let made = make(&synth("transparent.webm", input), wanted(Recipe::Transcode, Format::Webm));
    assert_eq!(made.strategy.kind, StrategyKind::Remux);
    let tags = ["-v", "error", "-select_streams", "v:0", "-show_entries", "stream_tags=alpha_mode", "-of", "csv=p=0"];
    assert_eq!(tool("ffprobe", &tags, &made.file).trim(), "1");
}

#[test]
fn monochrome_video_in_limited_range_keeps_its_contrast() {
    let halves = "-f lavfi -i color=black:s=32x64:r=25:d=0.2,pad=64:64:32:0:white,format=gray";
    let input = synth("monochrome.mp4", &format!("{halves} -c:v libx265 -x265-params log-level=none:range=limited"));
    for format in [Format::Png, Format::Jpg, Format::Webp] {
        let made = make(&input, wanted(thumbnail(0).recipe, format));
        let found = corners(&made.file);
        let [dark, light] = [found[1], found[0]];
        let is_near = |color: [u8; 3], wanted: u8| color.iter().all(|part| part.abs_diff(wanted) <= 6);
        assert!(is_near(light, 255) && is_near(dark, 0), "{format:?}: {found:?}");
    }
}
