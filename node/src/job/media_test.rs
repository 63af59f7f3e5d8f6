//! The engine on real media: synthesised with the `ffmpeg` command, judged by reading and decoding the result with it.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use xora_shared::{
    failure::FailureKind,
    media::{Compress, FileType, Format, RateControl, Recipe, Resize, Scale, Thumbnail, VideoCodec, Wanted},
    report::{Expectation, Fate, RunReport, Strategy, Unchanged, VerifyReport},
};

use crate::{
    ipc::{Assignment, FromJob, JobFailure, Limits, Source, ToJob, Up, Work, frame_head},
    job::{lockdown::Sandbox, serve},
};

pub(super) const LIMITS: Limits =
    Limits { duration_seconds: 3600, pixels: 8192 * 4320, streams: 64, pictures: 1_000_000, output_bytes: 1 << 30 };

/// What a job process said, and the parts put together.
pub(super) struct Told {
    pub(super) messages: Vec<Up>,
    pub(super) output: Vec<u8>,
    pub(super) parts: Vec<usize>,
    pub(super) bytes_read: u64,
}

pub(super) fn supervise(work: Work, limits: Limits, input: &[u8], fail_from: Option<u64>) -> Told {
    supervise_all(work, limits, &[input], fail_from)
}

/// Stands in for the supervisor: runs the engine on a thread, and answers its reads from `inputs`. `fail_from` makes
/// every read fail that touches that byte or one behind it.
fn supervise_all(work: Work, limits: Limits, inputs: &[&[u8]], fail_from: Option<u64>) -> Told {
    let (mut ours, theirs) = UnixStream::pair().expect("socket pair");
    let engine = thread::spawn(move || serve(theirs, Ok(Sandbox::Off)));
    let assignment = Assignment { work, limits, threads: 1, hardware: Vec::new() };
    ours.write_all(&ToJob::Assignment(Box::new(assignment)).to_frame().expect("frame")).expect("told");
    let (mut messages, mut parts, mut bytes_read) = (Vec::new(), Vec::new(), 0);
    let mut head = [0; 5];
    while ours.read_exact(&mut head).is_ok() {
        let (length, kind) = frame_head(head).expect("head");
        let mut payload = vec![0; length];
        ours.read_exact(&mut payload).expect("payload");
        match FromJob::parse(kind, payload).expect("frame") {
            FromJob::Read { input, offset, length } => {
                let input = inputs[input as usize];
                let start = usize::try_from(offset).expect("offset").min(input.len());
                let bytes = input[start..(start + length as usize).min(input.len())].to_vec();
                let fails = fail_from.is_some_and(|from| offset + u64::from(length) > from);
                bytes_read += bytes.len() as u64;
                let answer = if fails { ToJob::ReadFailed } else { ToJob::Data(bytes) };
                ours.write_all(&answer.to_frame().expect("frame")).expect("answered");
            }
            FromJob::Part { number, bytes, .. } => parts.push((number, bytes)),
            FromJob::Message(message) => messages.push(message),
        }
    }
    assert!(engine.join().expect("no panic"), "the engine says how it ended");
    parts.sort_by_key(|(number, _)| *number);
    assert!(parts.iter().zip(1..).all(|((number, _), expected)| *number == expected), "each part once, without gaps");
    let sizes = parts.iter().map(|(_, bytes)| bytes.len()).collect();
    Told { messages, output: parts.into_iter().flat_map(|(_, bytes)| bytes).collect(), parts: sizes, bytes_read }
}

fn source(input: &[u8]) -> Source {
    Source { size: Some(input.len() as u64) }
}

fn run_work(input: &[u8], wanted: Wanted) -> Work {
    Work::Run { inputs: vec![source(input)], wanted, index_bytes: None, uncopyable: None, has_address: true }
}

/// A result that was produced, and verified in a second run.
pub(super) struct Made {
    pub(super) report: RunReport,
    pub(super) strategy: Strategy,
    pub(super) receipt: VerifyReport,
    pub(super) told: Told,
    pub(super) file: PathBuf,
}

/// Tests run side by side, and some make several files of one.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Makes `wanted` of a file, verifies it, and writes it beside the input for judgement.
pub(super) fn make(input: &Path, wanted: Wanted) -> Made {
    make_of_all(&[input], wanted)
}

/// As the supervisor does: what could not be copied after all is encoded.
pub(super) fn run_all(inputs: &[&Path], wanted: Wanted, limits: Limits) -> Told {
    let inputs: Vec<_> = inputs.iter().map(|input| fs::read(input).expect("input")).collect();
    let inputs: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
    let told = run_once(&inputs, wanted.clone(), limits.clone(), None);
    match told.messages.last() {
        Some(Up::Failed(JobFailure::Uncopyable { reason })) => run_once(&inputs, wanted, limits, Some(reason.clone())),
        _ => told,
    }
}

pub(super) fn run_once(inputs: &[&[u8]], wanted: Wanted, limits: Limits, uncopyable: Option<String>) -> Told {
    let sources = inputs.iter().map(|input| source(input)).collect();
    let work = Work::Run { inputs: sources, wanted, index_bytes: None, uncopyable, has_address: true };
    supervise_all(work, limits, inputs, None)
}

/// As [`make`], of several files; it is written beside the first.
pub(super) fn make_of_all(inputs: &[&Path], wanted: Wanted) -> Made {
    judged(inputs[0], run_all(inputs, wanted, LIMITS))
}

/// Verifies what a run has produced, and writes it beside its first input.
pub(super) fn judged(input: &Path, told: Told) -> Made {
    let report = match told.messages.last() {
        Some(Up::Produced(report)) => (**report).clone(),
        other => panic!("{}: {other:?}", input.display()),
    };
    let planned = told.messages.iter().find_map(|message| {
        let Up::Planned { strategy, part_size, .. } = message else { return None };
        Some((strategy.clone(), *part_size))
    });
    let (strategy, part_size) = planned.expect("a plan");
    let (last, others) = told.parts.split_last().expect("a part");
    assert!(others.iter().all(|part| *part as u64 == part_size) && *last as u64 <= part_size, "{:?}", told.parts);
    assert_eq!(report.expect.bytes, told.output.len() as u64);
    let extension = report.facts.format.extension();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = input.with_extension(format!("made-{number}.{extension}"));
    fs::write(&file, &told.output).expect("written");
    let work = Work::Verify { input: source(&told.output), expect: report.expect.clone() };
    let verified = supervise(work, LIMITS, &told.output, None);
    let receipt = match verified.messages.last() {
        Some(Up::Verified(receipt)) => (**receipt).clone(),
        other => panic!("{}: {other:?}", input.display()),
    };
    assert_eq!(receipt.problems, Vec::<String>::new(), "{}", input.display());
    Made { report, strategy, receipt, told, file }
}

pub(super) fn all_refused(inputs: &[&Path], wanted: Wanted, limits: Limits) -> (FailureKind, String) {
    match run_all(inputs, wanted, limits).messages.pop() {
        Some(Up::Failed(JobFailure::Known { kind, message })) => (kind, message),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// What verification finds wrong with a file.
pub(super) fn problems_of(file: &[u8], expect: &Expectation) -> Vec<String> {
    let told = supervise(Work::Verify { input: source(file), expect: expect.clone() }, LIMITS, file, None);
    let Some(Up::Verified(receipt)) = told.messages.last() else { panic!("expected a receipt") };
    receipt.problems.clone()
}

/// What is said of a file that is its own result.
pub(super) fn passes_through(input: &Path, wanted: Wanted) -> Unchanged {
    let bytes = fs::read(input).expect("input");
    let told = supervise(run_work(&bytes, wanted), LIMITS, &bytes, None);
    assert!(told.output.is_empty());
    match told.messages.last() {
        Some(Up::Unchanged(unchanged)) => (**unchanged).clone(),
        other => panic!("{}: {other:?}", input.display()),
    }
}

pub(super) fn refused(input: &[u8], wanted: Wanted, limits: Limits) -> (FailureKind, String) {
    match supervise(run_work(input, wanted), limits, input, None).messages.pop() {
        Some(Up::Failed(JobFailure::Known { kind, message })) => (kind, message),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

pub(super) fn compress(format: Format) -> Wanted {
    let codec = if format == Format::Webm { VideoCodec::Vp9 } else { VideoCodec::H264 };
    Wanted { recipe: Recipe::Compress(Compress { rate: RateControl::Crf(28), codec }), format }
}

pub(super) fn wanted(recipe: Recipe, format: Format) -> Wanted {
    Wanted { recipe, format }
}

pub(super) fn thumbnail(seek_us: u64) -> Wanted {
    let thumbnail = Thumbnail { seek_us, width: None, height: None, quality: 90 };
    Wanted { recipe: Recipe::Thumbnail(thumbnail), format: Format::Png }
}

pub(super) const PICTURES: &str = "-f lavfi -i testsrc2=s=320x240:r=25:d=2";
pub(super) const SOUND: &str = "-f lavfi -i sine=d=2:r=48000";
pub(super) const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

/// Makes a file with the `ffmpeg` command, once. Arguments are split at spaces.
pub(super) fn synth(name: &str, arguments: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("no panic");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/media/synth");
    fs::create_dir_all(&folder).expect("folder");
    let file = folder.join(name);
    if !file.exists() {
        let unfinished = folder.join(format!("unfinished-{name}"));
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y"])
            .args(arguments.split_whitespace())
            .arg(&unfinished)
            .output()
            .expect("ffmpeg");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&unfinished, &file).expect("renamed");
    }
    file
}

pub(super) fn film() -> PathBuf {
    synth("film.mp4", &format!("{PICTURES} {SOUND} {X264} -c:a aac -movflags +faststart"))
}

pub(super) fn tool(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output().expect(program);
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// One entry of one stream, as `ffprobe` reads it.
pub(super) fn entry(file: &Path, stream: &str, name: &str) -> String {
    let show = format!("stream={name}");
    let text =
        tool("ffprobe", &["-v", "error", "-select_streams", stream, "-show_entries", &show, "-of", "csv=p=0"], file);
    text.lines().next().unwrap_or_default().trim_end_matches(',').to_owned()
}

/// Times of the pictures in milliseconds, in order.
pub(super) fn picture_times(file: &Path) -> Vec<i64> {
    let arguments = ["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let text = tool("ffprobe", &arguments, file);
    let millis = |line: &str| -> i64 {
        let (whole, part) = line.trim_end_matches(',').split_once('.').expect("a fraction");
        whole.parse::<i64>().expect("seconds") * 1000 + part[..3].parse::<i64>().expect("milliseconds")
    };
    let mut times: Vec<i64> = text.lines().filter(|line| !line.is_empty()).map(millis).collect();
    times.sort_unstable();
    times
}

/// The colours of a picture in a file, as bytes of RGB, of one pixel in the middle of each of the four corners.
pub(super) fn corners(file: &Path) -> Vec<[u8; 3]> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-noautorotate", "-i"])
        .arg(file)
        .args(["-frames:v", "1", "-vf", "scale=4:4:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .expect("ffmpeg");
    let (pixels, _) = output.stdout.as_chunks::<3>();
    [0, 3, 12, 15].map(|index| pixels[index]).to_vec()
}

/// Four corners of four colours: red, green, blue, white.
const FLAG: &str = "-f lavfi -i color=red:s=160x120:d=1,pad=320:240[a];color=lime:s=160x120:d=1[b];\
                    color=blue:s=160x120:d=1[c];color=white:s=160x120:d=1[d];[a][b]overlay=160:0[e];\
                    [e][c]overlay=0:120[f];[f][d]overlay=160:120";

pub(super) fn name(color: [u8; 3]) -> char {
    match color.map(|part| part > 128) {
        [true, false, false] => 'r',
        [false, true, false] => 'g',
        [false, false, true] => 'b',
        [true, true, true] => 'w',
        _ => '?',
    }
}

#[test]
fn a_film_is_compressed_to_one_playable_part() {
    let made = make(&film(), compress(Format::Mp4));
    assert_eq!(made.told.parts.len(), 1);
    assert_eq!(made.report.facts.file_type, FileType::Video);
    assert_eq!(entry(&made.file, "v:0", "codec_name,width,height,pix_fmt"), "h264,320,240,yuv420p");
    assert_eq!(entry(&made.file, "a:0", "codec_name,channels"), "aac,1");
    assert_eq!(picture_times(&made.file).len(), 50);
    assert_eq!(made.receipt.frames, Some(50));
    // The index comes first, so that a player can begin at once.
    let place = |name: &[u8]| made.told.output.windows(4).position(|bytes| bytes == name);
    assert!(place(b"moov") < place(b"mdat"));
}

#[test]
fn the_pictures_are_those_of_the_documented_command() {
    // In a process of its own, as a job is: in one in which much else was encoded, x264 does not always make the same.
    const ALONE: &str = "XORA_TEST_ALONE";
    if env::var_os(ALONE).is_none() {
        let test = "job::media_test::the_pictures_are_those_of_the_documented_command";
        let itself = env::current_exe().expect("a path");
        let output = Command::new(itself).args(["--exact", test]).env(ALONE, "1").output().expect("runs");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let made = make(&film(), compress(Format::Mp4));
    let command = super::film::COMMAND.replace("OUTPUT.mp4", "").replace("INPUT", film().to_str().expect("text"));
    // With two threads, x264 itself does not make the same of short clips every time.
    let command = command.replace("-threads 2", "-threads 1").replace("-threads:v 2", "-threads:v 1");
    let theirs = synth("command-one-thread.mp4", command.trim_start_matches("ffmpeg"));
    let pictures = |file: &Path| {
        let input = file.to_str().expect("text");
        tool("ffmpeg", &["-nostdin", "-v", "error", "-i", input, "-map", "0:v", "-f", "framemd5"], Path::new("-"))
    };
    assert_eq!(pictures(&made.file), pictures(&theirs));
}

#[test]
fn every_container_that_compress_writes_holds_the_whole_film() {
    for (format, video, audio) in [(Format::Mov, "h264", "aac"), (Format::Webm, "vp9", "opus")] {
        let made = make(&film(), compress(format));
        assert_eq!(entry(&made.file, "v:0", "codec_name"), video);
        assert_eq!(entry(&made.file, "a:0", "codec_name"), audio);
        assert_eq!(picture_times(&made.file).len(), 50);
    }
    let recipe = Recipe::Compress(Compress { rate: RateControl::BitrateKbps(300), codec: VideoCodec::Hevc });
    let made = make(&film(), Wanted { recipe, format: Format::Mp4 });
    assert_eq!(entry(&made.file, "v:0", "codec_name,codec_tag_string"), "hevc,hvc1");
}

#[test]
fn a_turned_or_mirrored_picture_comes_out_upright() {
    let plain = synth("flag.mp4", &format!("{FLAG} {X264}"));
    let bytes = fs::read(&plain).expect("file");
    // The matrix of the track header is nine numbers behind `tkhd`; `ffmpeg` itself can only write quarter turns.
    let place = bytes.windows(4).position(|name| name == b"tkhd").expect("tkhd") + 4 + 40;
    let one = 0x1_0000_i32;
    let table: [(&str, [i32; 4], &str); 8] = [
        ("upright", [one, 0, 0, one], "rgbw"),
        ("clockwise", [0, one, -one, 0], "brwg"),
        ("half-turn", [-one, 0, 0, -one], "wbgr"),
        ("anticlockwise", [0, -one, one, 0], "gwrb"),
        ("mirror-x", [-one, 0, 0, one], "grwb"),
        ("mirror-y", [one, 0, 0, -one], "bwrg"),
        ("transpose", [0, one, one, 0], "rbgw"),
        ("anti-transpose", [0, -one, -one, 0], "wgbr"),
    ];
    for (turn, [a, b, c, d], expected) in table {
        let mut turned = bytes.clone();
        for (index, number) in [a, b, 0, c, d, 0, 0, 0, 1 << 30].into_iter().enumerate() {
            turned[place + index * 4..place + index * 4 + 4].copy_from_slice(&number.to_be_bytes());
        }
        let file = plain.with_file_name(format!("flag-{turn}.mp4"));
        fs::write(&file, turned).expect("written");
        for made in [make(&file, compress(Format::Mp4)), make(&file, thumbnail(0))] {
            let found: String = corners(&made.file).into_iter().map(name).collect();
            assert_eq!(found, expected, "{turn}");
        }
    }
}

#[test]
fn unusual_pictures_become_what_every_player_shows() {
    let table = [
        ("odd.mp4", "testsrc2=s=641x359:r=25:d=1", "-pix_fmt yuv444p", "640,358"),
        ("ten-bit.mp4", "testsrc2=s=320x240:r=25:d=1", "-pix_fmt yuv420p10le", "320,240"),
        ("four-two-two.mp4", "testsrc2=s=320x240:r=25:d=1", "-pix_fmt yuv422p", "320,240"),
        ("anamorphic.mp4", "testsrc2=s=720x576:r=25:d=1,setsar=64/45", "-pix_fmt yuv420p", "1024,576"),
    ];
    for (file, pictures, options, size) in table {
        let input = synth(file, &format!("-f lavfi -i {pictures} -c:v libx264 -preset ultrafast {options}"));
        let made = make(&input, compress(Format::Mp4));
        assert_eq!(entry(&made.file, "v:0", "width,height,pix_fmt"), format!("{size},yuv420p"), "{file}");
    }
}

#[test]
fn full_range_becomes_limited_without_changing_the_colours() {
    let options = "-c:v libx264 -preset ultrafast -vf scale=out_range=full,format=yuvj420p -color_range pc";
    let input = synth("full-range.mp4", &format!("-f lavfi -i color=0x808080:s=320x240:d=1:r=25 {options}"));
    let made = make(&input, compress(Format::Mp4));
    assert_eq!(entry(&made.file, "v:0", "color_range"), "tv");
    for color in corners(&made.file) {
        assert!(color.iter().all(|part| part.abs_diff(0x80) <= 2), "{color:?}");
    }
}

#[test]
fn high_dynamic_range_is_mapped_to_standard() {
    // Two colours of BT.2020, at about a hundred candelas: what they are in BT.709, where whites are as bright.
    let chroma = "cb='if(lt(X,80),400,560)':cr='if(lt(Y,60),400,600)'";
    let pictures = format!("-f lavfi -i color=s=320x240:r=25:d=1,format=yuv420p10le,geq=lum=500:{chroma}");
    for (transfer, green, red) in
        [("smpte2084", [0, 194, 0], [236, 25, 164]), ("arib-std-b67", [0, 150, 38], [178, 83, 139])]
    {
        let tags = format!("log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc");
        let codec = format!("-c:v libx265 -preset ultrafast -x265-params {tags}");
        let input = synth(&format!("hdr-two-{transfer}.mp4"), &format!("{pictures} {codec}"));
        let made = make(&input, compress(Format::Mp4));
        assert_eq!(entry(&made.file, "v:0", "color_space,color_transfer,color_primaries"), "bt709,bt709,bt709");
        for file in [made.file, make(&input, thumbnail(0)).file] {
            let found = corners(&file);
            for (found, meant) in [(found[0], green), (found[3], red)] {
                let near = found.iter().zip(meant).all(|(found, meant)| found.abs_diff(meant) <= 8);
                assert!(near, "{}: {found:?} instead of {meant:?}", file.display());
            }
        }
    }
}

#[test]
fn colours_are_those_of_the_input_by_whichever_matrix_it_means() {
    let options = "-c:v libx264 -preset ultrafast -crf 5 -pix_fmt yuv420p";
    let tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709";
    let scale = Scale { width: Some(320), height: Some(180), ..Scale::default() };
    // Nobody says so of the last two: players go by their size.
    for (name, size, matrix, tags) in [
        ("green-hd.mp4", "1280x720", "bt709", tags),
        ("green-hd-unsaid.mp4", "1280x720", "bt709", ""),
        ("green-sd-unsaid.mp4", "640x360", "bt601", ""),
    ] {
        let picture = format!("-f lavfi -i color=0x20c040:s={size}:r=25:d=0.4,format=gbrp");
        let input =
            synth(name, &format!("{picture} -vf scale=out_color_matrix={matrix},format=yuv420p {options} {tags}"));
        let still = |format| {
            let thumbnail = Thumbnail { seek_us: 0, width: Some(320), height: Some(180), quality: 100 };
            wanted(Recipe::Thumbnail(thumbnail), format)
        };
        for wanted in [
            wanted(Recipe::Resize(Resize { scale }), Format::Mp4),
            still(Format::Jpg),
            still(Format::Png),
            still(Format::Webp),
        ] {
            let made = make(&input, wanted);
            for color in corners(&made.file) {
                let near = color.iter().zip([0x20, 0xc0, 0x40]).all(|(found, meant)| found.abs_diff(meant) <= 8);
                assert!(near, "{}: {color:02x?}", made.file.display());
            }
        }
    }
}

#[test]
fn a_variable_frame_rate_stays_as_it_is() {
    let select = "-vf select='not(mod(n,3))+not(mod(n,7))' -fps_mode vfr";
    let input = synth("variable.mp4", &format!("{PICTURES} {select} {X264}"));
    let made = make(&input, compress(Format::Mp4));
    assert_eq!(picture_times(&made.file), picture_times(&input));
}

#[test]
fn sound_and_pictures_keep_their_distance() {
    for (file, arguments, expected_ms) in [
        ("late-sound.mkv", format!("{PICTURES} -itsoffset 0.5 {SOUND}"), 500),
        ("late-pictures.mkv", format!("-itsoffset 0.7 {PICTURES} {SOUND}"), -700),
    ] {
        let input = synth(file, &format!("{arguments} -map 0 -map 1 {X264} -c:a pcm_s16le"));
        for format in [Format::Mp4, Format::Webm] {
            let made = make(&input, compress(format));
            let found = made.receipt.av_offset_us.expect("both tracks");
            // MP4 begins late sound with the encoder's priming of 21 ms, Matroska with 7.
            assert!((found - expected_ms * 1000).abs() < 45_000, "{file} {format:?}: {found}");
        }
    }
}

#[test]
fn surround_sound_is_mixed_down_and_says_so() {
    let channels = "aevalsrc=0.5*sin(2764*t)|0.5*sin(3455*t)|sin(4146*t)|0|sin(4838*t)|sin(5529*t):c=5.1:d=2:s=48000";
    let input = synth("surround.mp4", &format!("{PICTURES} -f lavfi -i {channels} {X264} -c:a aac"));
    let made = make(&input, compress(Format::Mp4));
    assert_eq!(entry(&made.file, "a:0", "channels"), "2");
    assert!(made.report.streams[1].reason.as_ref().expect("a reason").contains("stereo"));
}

#[test]
fn pictures_without_sound_and_sound_without_pictures_are_kept_as_such() {
    let silent = make(&synth("silent.mp4", &format!("{PICTURES} {X264}")), compress(Format::Mp4));
    assert!(silent.report.expect.audio.is_none());
    let blind = make(&synth("phone.wav", "-f lavfi -i sine=d=2:r=8000 -ac 1"), compress(Format::Mp4));
    assert_eq!(blind.report.facts.file_type, FileType::Audio);
    assert_eq!(entry(&blind.file, "a:0", "codec_name,sample_rate,channels"), "aac,48000,1");
}

#[test]
fn interlaced_pictures_are_woven_together() {
    // Upright stripes on their way: every second line shows them elsewhere.
    let stripes = "color=s=320x240:r=50:d=1,format=yuv420p,geq=lum='16+219*mod(floor((X+8*N)/16),2)':cb=128:cr=128";
    let options = "-vf interlace=lowpass=0 -flags +ildct+ilme -c:v mpeg2video -q:v 2";
    let input = synth("interlaced-stripes.ts", &format!("-f lavfi -i {stripes} {options}"));
    let unlike_lines = |file: &Path| {
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(file)
            .args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
            .output()
            .expect("ffmpeg");
        let lines: Vec<&[u8]> = output.stdout.chunks_exact(320).collect();
        let unlike = |pair: &[&[u8]]| pair[0].iter().zip(pair[1]).filter(|(one, two)| one.abs_diff(**two) > 64).count();
        lines.windows(2).map(unlike).sum::<usize>()
    };
    assert!(unlike_lines(&input) > 30_000, "{}", unlike_lines(&input));
    let made = make(&input, compress(Format::Mp4));
    assert_eq!(entry(&made.file, "v:0", "field_order"), "progressive");
    assert_eq!(picture_times(&made.file).len(), 25);
    for file in [made.file].into_iter().chain([0, 400_000, 9_000_000].map(|at| make(&input, thumbnail(at)).file)) {
        assert!(unlike_lines(&file) < 3_000, "{}: {}", file.display(), unlike_lines(&file));
    }
}

#[test]
fn a_stream_that_changes_its_size_and_clock_goes_on_in_the_first_size() {
    let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    let first = synth("first.ts", &format!("{PICTURES} {SOUND} {codecs}"));
    let other = synth("other.ts", &format!("-f lavfi -i testsrc2=s=640x360:r=25:d=2 {SOUND} {codecs}"));
    let both = [fs::read(first).expect("first"), fs::read(other).expect("other")].concat();
    let input = film().with_file_name("changing.ts");
    fs::write(&input, both).expect("written");
    let made = make(&input, compress(Format::Mp4));
    assert_eq!(entry(&made.file, "v:0", "width,height"), "320,240");
    let times = picture_times(&made.file);
    assert_eq!(times.len(), 100);
    assert!(times.windows(2).all(|pair| (20..=120).contains(&(pair[1] - pair[0]))), "{times:?}");
}

#[test]
fn other_tracks_are_dropped_with_a_reason() {
    let input = synth("tracks.mkv", &format!("{PICTURES} {SOUND} {SOUND} -map 0 -map 1 -map 2 {X264} -c:a flac"));
    let made = make(&input, compress(Format::Mp4));
    let dropped: Vec<_> = made.report.streams.iter().filter(|fate| fate.fate == Fate::Dropped).collect();
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0].reason.is_some());
}

#[test]
fn a_cut_file_is_truncated_whatever_its_container() {
    let plain = synth("index-last.mp4", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    let fragments = "-movflags +frag_keyframe+empty_moov -g 10";
    let fragmented = synth("fragments.mp4", &format!("{PICTURES} {SOUND} {X264} {fragments} -c:a aac"));
    let matroska = synth("film.mkv", &format!("{PICTURES} {SOUND} {X264} -c:a aac"));
    for file in [film(), plain, fragmented, matroska] {
        let bytes = fs::read(&file).expect("file");
        let (kind, message) = refused(&bytes[..bytes.len() / 2], compress(Format::Mp4), LIMITS);
        assert_eq!(kind, FailureKind::InputTruncated, "{}: {message}", file.display());
    }
}

#[test]
fn what_is_not_media_is_refused_with_a_word_on_what_it_is() {
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"hello, this is not a film\n", "text"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "list"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    ] {
        for wanted in [compress(Format::Mp4), thumbnail(0)] {
            let (kind, message) = refused(bytes, wanted, LIMITS);
            assert_eq!(kind, FailureKind::InputUnsupported);
            assert!(message.contains(word), "{message}");
        }
    }
}

#[test]
fn each_limit_is_named_when_it_is_exceeded() {
    let bytes = fs::read(film()).expect("film");
    for (limits, word) in [
        (Limits { duration_seconds: 1, ..LIMITS }, "1 second"),
        (Limits { pixels: 1000, ..LIMITS }, "1000"),
        (Limits { streams: 1, ..LIMITS }, "the limit is 1"),
        (Limits { pictures: 49, ..LIMITS }, "the limit is 49"),
        (Limits { output_bytes: 5000, ..LIMITS }, "5000 bytes"),
    ] {
        let (kind, message) = refused(&bytes, compress(Format::Mp4), limits);
        assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn what_would_become_larger_than_the_limit_is_refused() {
    let limits = Limits { pixels: 320 * 240, ..LIMITS };
    let bytes = fs::read(film()).expect("film");
    let scale = Scale { width: Some(322), height: Some(240), only_down: false };
    let wide = synth("wide-pixels.mp4", &format!("-i {} -c copy -aspect 16:9", film().display()));
    for (input, wanted, size) in [
        (&bytes, wanted(Recipe::Resize(Resize { scale }), Format::Mp4), "322x240"),
        (&fs::read(wide).expect("file"), compress(Format::Mp4), "426x240"),
    ] {
        let (kind, message) = refused(input, wanted, limits.clone());
        assert_eq!(kind, FailureKind::InputTooLarge, "{message}");
        assert!(message.contains(size) && message.contains("76800 pixels"), "{message}");
    }
}

#[test]
fn a_read_that_fails_is_never_taken_for_the_end() {
    let bytes = fs::read(film()).expect("film");
    for fail_from in [0, bytes.len() as u64 / 2, bytes.len() as u64 - 1] {
        let work = run_work(&bytes, compress(Format::Mp4));
        let told = supervise(work, LIMITS, &bytes, Some(fail_from));
        assert!(matches!(told.messages.last(), Some(Up::Failed(JobFailure::Unreadable))), "{:?}", told.messages.last());
    }
}

#[test]
fn an_index_that_does_not_fit_asks_for_more_and_then_fits() {
    let bytes = fs::read(film()).expect("film");
    let with = |index_bytes| {
        let (inputs, wanted) = (vec![source(&bytes)], wanted(Recipe::Transcode, Format::Mov));
        Work::Run { inputs, wanted, index_bytes, uncopyable: None, has_address: true }
    };
    let needed = match supervise(with(Some(100)), LIMITS, &bytes, None).messages.pop() {
        Some(Up::Failed(JobFailure::IndexTooSmall { needed })) => needed,
        other => panic!("expected a wish for more, found {other:?}"),
    };
    let again = supervise(with(Some(needed)), LIMITS, &bytes, None);
    assert!(matches!(again.messages.last(), Some(Up::Produced(_))));
    let says_so = |message: &Up| matches!(message, Up::Planned { strategy, .. } if strategy.reasons.iter().any(|reason| reason.contains("its index")));
    assert!(again.messages.iter().any(says_so));
}

#[test]
fn verification_notices_a_result_that_is_not_what_was_meant() {
    let made = make(&film(), compress(Format::Mp4));
    let mut expect = made.report.expect.clone();
    let video = expect.video.as_mut().expect("pictures");
    video.frames += 1;
    video.width += 2;
    let damaged = &made.told.output;
    let told = supervise(Work::Verify { input: source(damaged), expect }, LIMITS, damaged, None);
    let Some(Up::Verified(receipt)) = told.messages.last() else { panic!("expected a receipt") };
    assert_eq!(receipt.problems.len(), 2, "{:?}", receipt.problems);
    let half = &made.told.output[..made.told.output.len() / 2];
    let work = Work::Verify { input: source(half), expect: made.report.expect.clone() };
    let told = supervise(work, LIMITS, half, None);
    let Some(Up::Verified(receipt)) = told.messages.last() else { panic!("expected a receipt") };
    assert!(!receipt.problems.is_empty());
}

#[test]
fn the_header_of_a_wav_tells_its_length_and_not_all_is_read_for_that() {
    let input = synth("minute.flac", "-f lavfi -i anoisesrc=d=60:r=48000:seed=3 -c:a flac");
    let made = make(&input, wanted(Recipe::Transcode, Format::Wav));
    let (wav, expect) = (&made.told.output, &made.report.expect);
    let told = supervise(Work::Verify { input: source(wav), expect: expect.clone() }, LIMITS, wav, None);
    assert!(told.bytes_read < 1 << 20 && wav.len() > 5 << 20, "{} of {}", told.bytes_read, wav.len());
    let said = wav.windows(4).position(|window| window == b"data").expect("a data chunk") + 4;
    for damage in [|length: u32| length / 2, |length| length - 50_000] {
        let mut damaged = wav.clone();
        let length = u32::from_le_bytes(*damaged[said..].first_chunk().expect("a length"));
        damaged[said..said + 4].copy_from_slice(&damage(length).to_le_bytes());
        let problems = problems_of(&damaged, expect);
        assert!(problems.iter().any(|problem| problem.ends_with("instead of 60000000 µs")), "{problems:?}");
    }
    assert!(!problems_of(&wav[..wav.len() / 2], expect).is_empty());
}

#[test]
fn a_thumbnail_is_the_picture_shown_at_that_time() {
    // The picture of second n is n * 40 bright.
    let ramp = "color=black:s=64x64:r=5:d=5,format=yuv420p,geq=lum='16+40*floor(T)':cb=128:cr=128";
    let input = synth("ramp.mp4", &format!("-f lavfi -i {ramp} -c:v libx264 -preset medium -crf 10 -g 12 -bf 2"));
    let brightness = |seek_us| i32::from(corners(&make(&input, thumbnail(seek_us)).file)[0][1]);
    let steps: Vec<i32> = (0..5).map(|second| brightness(second * 1_000_000)).collect();
    assert!(steps.windows(2).all(|pair| pair[1] - pair[0] > 30), "{steps:?}");
    assert_eq!(brightness(1_999_000), steps[1], "just before a change");
    assert_eq!(brightness(3_100_000), steps[3], "between two pictures");
    assert_eq!(brightness(3_600_000_000), steps[4], "past the end");
    // Without an index, going to the very start leads behind it.
    let stream = synth("ramp.ts", &format!("-i {} -c copy", input.display()));
    for seek_us in [60_000, 1_500_000, 3_100_000] {
        assert_eq!(i32::from(corners(&make(&stream, thumbnail(seek_us)).file)[0][1]), brightness(seek_us), "{seek_us}");
    }
}

#[test]
fn a_thumbnail_is_right_where_few_pictures_are_needed_for_others() {
    // The picture of number n is 4 n brighter than black. The first 25 come in a second, the others one each second.
    let ramp = "color=black:s=64x64:r=25:d=2,format=yuv420p,geq=lum='16+4*N':cb=128:cr=128";
    let slow = "setpts='if(lt(N,25),N,25+(N-25)*25)/25/TB'";
    let how = "-vsync vfr -c:v libx264 -crf 5 -g 250 -bf 3 -b_strategy 0 -x264-params scenecut=0";
    let input = synth("few-references.mp4", &format!("-f lavfi -i {ramp},{slow} {how}"));
    for (seek_us, number) in [(0, 0), (420_000, 10), (960_000, 24), (2_990_000, 26)]
        .into_iter()
        .chain((26..49).map(|number| ((number - 24) * 1_000_000 + 500_000, number)))
    {
        let bright = u64::from(corners(&make(&input, thumbnail(seek_us)).file)[0][1]);
        assert!(bright.abs_diff(number * 4 * 255 / 219) <= 2, "{bright} at {seek_us} µs");
    }
}

#[test]
fn a_thumbnail_is_found_in_a_file_whose_clock_starts_again() {
    // A transport stream's clock has 33 bits of 90 kHz: it starts again after 95443.7 s, here 2.3 s after the start.
    let film = "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -f lavfi -i sine=d=4 -c:v libx264 -c:a aac";
    let wrapping =
        make(&synth("wrapping.ts", &format!("{film} -output_ts_offset 95440 -f mpegts")), thumbnail(1_000_000));
    let plain = make(&synth("wrapping.mp4", film), thumbnail(1_000_000));
    assert_eq!(wrapping.told.output, plain.told.output);
}

#[test]
fn a_thumbnail_is_the_picture_at_a_time_of_the_file_though_its_pictures_begin_late() {
    // The picture of number n is 4 n brighter than black. Sound begins two seconds before them.
    let ramp = "color=black:s=64x64:r=25:d=2,format=yuv420p,geq=lum='16+4*N':cb=128:cr=128";
    let late = "-c:v libx264 -preset ultrafast -crf 5 -c:a aac";
    for name in ["late-pictures.mp4", "late-pictures.ts"] {
        let input = synth(name, &format!("-itsoffset 2 -f lavfi -i {ramp} -f lavfi -i sine=d=4 {late}"));
        for (seek_us, number) in [(0, 0), (1_500_000, 0), (3_050_000, 26), (9_000_000, 49)] {
            let bright = i64::from(corners(&make(&input, thumbnail(seek_us)).file)[0][1]);
            assert!((bright - number * 4 * 255 / 219).abs() <= 5, "{name}: {bright} at {seek_us} µs");
        }
    }
    // Late by a picture and what sound begins with, as where nothing makes up for pictures that come in another order.
    let input = synth("hardly-late.mkv", &format!("-itsoffset 0.04 -f lavfi -i {ramp} -f lavfi -i sine=d=4 {late}"));
    let bright = i64::from(corners(&make(&input, thumbnail(1_000_000)).file)[0][1]);
    assert!((bright - 23 * 4 * 255 / 219).abs() <= 2, "{bright}");
}

#[test]
fn a_thumbnail_has_the_size_and_format_that_were_asked_for() {
    let sized = |width, height, format| {
        let thumbnail = Thumbnail { seek_us: 0, width, height, quality: 75 };
        make(&film(), Wanted { recipe: Recipe::Thumbnail(thumbnail), format })
    };
    for (width, height, expected) in [
        (Some(161), None, (161, 121)),
        (None, Some(120), (160, 120)),
        (Some(99), Some(33), (99, 33)),
        (None, None, (320, 240)),
    ] {
        for format in [Format::Jpg, Format::Png, Format::Webp] {
            let facts = sized(width, height, format).report.facts;
            assert_eq!((facts.width, facts.height), (Some(expected.0), Some(expected.1)), "{format:?}");
        }
    }
}

#[test]
fn a_thumbnail_may_be_larger_than_a_part() {
    let noise = "-f lavfi -i nullsrc=s=2560x1920:r=25:d=0.04,format=gbrp,geq=r='random(1)*255':g='random(2)*255':b='random(3)*255'";
    let made = make(&synth("noise.mkv", &format!("{noise} -c:v ffv1")), thumbnail(0));
    assert!(made.told.parts.len() > 1, "{:?}", made.told.parts);
    assert_eq!(made.report.facts.width, Some(2560));
}

#[test]
fn a_thumbnail_of_sound_is_its_cover_or_nothing() {
    let cover = "-f lavfi -i color=red:s=100x100:d=0.04 -map 0 -map 1 -c:v mjpeg -disposition:v attached_pic";
    let song = synth("song.mp3", &format!("{SOUND} {cover} -c:a libmp3lame"));
    let made = make(&song, thumbnail(5_000_000));
    assert_eq!(name(corners(&made.file)[0]), 'r');
    let plain = fs::read(synth("plain.mp3", &format!("{SOUND} -c:a libmp3lame"))).expect("file");
    assert_eq!(refused(&plain, thumbnail(0), LIMITS).0, FailureKind::InputUnsupported);
}

#[test]
fn a_thumbnail_reads_little_of_a_long_file() {
    let long = "-f lavfi -i testsrc2=s=320x240:r=25:d=60";
    let input = synth("long.mp4", &format!("{long} {X264} -g 25 -movflags +faststart"));
    let size = fs::metadata(&input).expect("file").len();
    let made = make(&input, thumbnail(40_000_000));
    assert!(made.told.bytes_read < size / 4, "{} of {size}", made.told.bytes_read);
}
