//! Reading an output back, and comparing it with what was meant.

use xora_av::{Decoder, Frame, Input, Kind, MICROSECONDS, Packet, Rational, Stream, rescale};
use xora_shared::{
    media::FileType,
    report::{Coverage, Expectation, ExpectedAudio, ExpectedVideo, VerifyReport},
};

use crate::{
    ipc::{JobFailure, Limits, Source},
    job::{
        damage::Damage,
        decode::decode,
        fault::{Done, Fault},
        link::Link,
        look::track_ends,
        probe,
        source::RemoteInput,
        streams::pick_cover,
    },
};

/// Where a file does not tell its length for sure, every packet is read up to this many bytes; above, what it says is
/// believed.
const FULL_SCAN: u64 = 256 << 20;
/// The least difference in length that counts, in microseconds; one picture counts if it is longer.
const LENGTH_TOLERANCE_US: u64 = 50_000;
/// Samples of a packet of MP3, which fills its last one with silence: at 8 kHz that is longer.
const PACKET_SAMPLES: u64 = 1152;
/// How far sound and pictures may have moved against each other, in microseconds.
const OFFSET_TOLERANCE_US: i64 = 20_000;
/// How much is decoded before and behind a joint, in microseconds.
const AROUND_US: i64 = 1_000_000;
/// Packets of sound decoded at both ends.
const SOUNDS: u64 = 16;
/// How far before its end the last sound is begun, in microseconds.
const SOUND_BEFORE_END_US: i64 = 500_000;
/// The most pictures decoded of the first and of the last group, beside those that are hidden and only lead up to them.
const PICTURES: u64 = 16;

/// Reads the output back. Fails only when it cannot be read; what is wrong with it is in the report.
pub fn verify(link: &Link, source: &Source, expect: &Expectation, limits: &Limits) -> Done<VerifyReport> {
    let mut problems = Vec::new();
    let size = source.size.unwrap_or(expect.bytes);
    check(&mut problems, size == expect.bytes, || format!("the output has {size} bytes instead of {}", expect.bytes));
    let mut input = match probe::open(link, 0, source, &generous(limits)) {
        Ok((input, _)) => input,
        Err(fault) => return unopened(fault, problems),
    };
    let found = Found::of(&input);
    found.compare(expect, &mut problems);
    let (mut scan, coverage) = scan(&mut input, &found, expect, size, &mut problems)?;
    if expect.format.has_index() {
        scan.believe_header(link, source, &found)?;
    }
    scan.compare(expect, &mut problems);
    decode_edges(&mut input, &found, expect, limits, &mut problems)?;
    decode_joints(&mut input, &found, expect, limits, &mut problems)?;
    decode_sound(&mut input, &found, expect, &mut problems)?;
    Ok(VerifyReport {
        problems,
        coverage,
        duration_us: (expect.format.file_type() != FileType::Image).then_some(scan.duration_us),
        frames: scan.frames.filter(|_| found.video.is_some()),
        av_offset_us: found.av_offset_us(),
    })
}

/// The limits are for inputs; what we made is within them or was refused, give or take the end.
fn generous(limits: &Limits) -> Limits {
    Limits { duration_seconds: limits.duration_seconds.saturating_add(3600), ..limits.clone() }
}

/// Not even opening worked: that is a finding, unless the bytes could not be had.
fn unopened(fault: Fault, mut problems: Vec<String>) -> Done<VerifyReport> {
    let message = match fault.into_failure() {
        None => return Err(Fault::Gone),
        Some(JobFailure::Known { message, .. }) => message,
        Some(other) => return Err(Fault::Job(other)),
    };
    problems.push(format!("the output cannot be opened: {message}"));
    Ok(VerifyReport { problems, coverage: Coverage::Edges, duration_us: None, frames: None, av_offset_us: None })
}

fn check(problems: &mut Vec<String>, good: bool, problem: impl FnOnce() -> String) {
    if !good {
        problems.push(problem());
    }
}

/// The tracks as read back.
struct Found {
    video: Option<Stream>,
    audio: Option<Stream>,
    cover: bool,
    chapters: u64,
    others: usize,
}

impl Found {
    fn of(input: &Input) -> Self {
        let streams = || input.streams().iter().filter(|stream| !stream.is_attached_picture);
        let first = |kind| streams().find(|stream| stream.kind == kind).cloned();
        let (video, audio) = (first(Kind::Video), first(Kind::Audio));
        let chapters = input.chapters().len() as u64;
        // MP4 has a track of their titles.
        let titles = chapters > 0 && streams().any(|stream| stream.kind == Kind::Data);
        let known = usize::from(video.is_some()) + usize::from(audio.is_some()) + usize::from(titles);
        let cover = pick_cover(input.streams()).is_some();
        Self { video, audio, cover, chapters, others: streams().count() - known }
    }

    /// Start of sound minus start of pictures, in microseconds.
    fn av_offset_us(&self) -> Option<i64> {
        Some(self.audio.as_ref()?.start_us()? - self.video.as_ref()?.start_us()?)
    }

    fn compare(&self, expect: &Expectation, problems: &mut Vec<String>) {
        check(problems, self.others == 0, || format!("the output has {} tracks that it should not have", self.others));
        let chapters = self.chapters;
        check(problems, chapters == expect.chapters, || format!("{chapters} chapters instead of {}", expect.chapters));
        check(problems, self.cover == expect.cover, || format!("a cover is {}", presence(self.cover)));
        match (&self.video, &expect.video) {
            (Some(found), Some(expected)) => compare_video(found, expected, problems),
            (None, None) => {}
            (found, _) => problems.push(format!("a picture track is {}", presence(found.is_some()))),
        }
        match (&self.audio, &expect.audio) {
            (Some(found), Some(expected)) => compare_audio(found, expected, problems),
            (None, None) => {}
            (found, _) => problems.push(format!("a sound track is {}", presence(found.is_some()))),
        }
        if let (Some(found), Some(video), Some(audio)) = (self.av_offset_us(), &expect.video, &expect.audio) {
            let meant = audio.start_us - video.start_us;
            check(problems, (found - meant).abs() <= OFFSET_TOLERANCE_US, || {
                format!("sound begins {found} µs after the pictures instead of {meant} µs")
            });
        }
    }
}

fn presence(there: bool) -> &'static str {
    if there { "there that should not be" } else { "missing" }
}

fn compare_video(found: &Stream, expected: &ExpectedVideo, problems: &mut Vec<String>) {
    let codec = &found.codec;
    check(problems, *codec == expected.codec, || format!("pictures are {codec} instead of {}", expected.codec));
    check(problems, (found.width, found.height) == (expected.width, expected.height), || {
        let (width, height) = (expected.width, expected.height);
        format!("pictures are {}x{} instead of {width}x{height}", found.width, found.height)
    });
}

fn compare_audio(found: &Stream, expected: &ExpectedAudio, problems: &mut Vec<String>) {
    let codec = &found.codec;
    check(problems, *codec == expected.codec, || format!("sound is {codec} instead of {}", expected.codec));
    check(problems, found.sample_rate == expected.sample_rate, || {
        format!("sound has {} samples per second instead of {}", found.sample_rate, expected.sample_rate)
    });
    check(problems, found.channels == expected.channels, || {
        format!("sound has {} channels instead of {}", found.channels, expected.channels)
    });
}

/// What reading the packets, or believing an index, told.
struct Scan {
    /// Counted, or by the index; none where neither was there.
    frames: Option<u64>,
    /// The longest track, in microseconds from its own start.
    duration_us: u64,
    video_us: Option<u64>,
    /// How much earlier the pictures may end: Matroska says of the last one only that it ends with the file at the
    /// latest.
    video_slack_us: u64,
    audio_us: Option<u64>,
}

impl Scan {
    /// Takes the length of the pictures from the header of their track: libav adds up what lies between the times at
    /// which they are decoded, and leaves out how long the last is shown, where that is not the last to be decoded.
    fn believe_header(&mut self, link: &Link, source: &Source, found: &Found) -> Done<()> {
        let Some(stream) = &found.video else { return Ok(()) };
        let mut bytes = RemoteInput::new(link.clone(), 0, source.size);
        let ends = track_ends(&mut bytes).map_err(|_| Fault::Job(JobFailure::Unreadable))?;
        let start = stream.start_us().unwrap_or(0);
        if let Some(end) = ends.get(stream.index) {
            let length = end.saturating_add_signed(-start);
            self.video_us = Some(length);
            self.duration_us = self.audio_us.unwrap_or(0).max(length);
        }
        Ok(())
    }

    fn compare(&self, expect: &Expectation, problems: &mut Vec<String>) {
        if let Some(video) = &expect.video {
            if let Some(frames) = self.frames {
                check(problems, frames == video.frames, || format!("{frames} pictures instead of {}", video.frames));
            }
            // One picture, or a little more: containers round times.
            let picture = video.duration_us / video.frames.max(1);
            let tolerance = LENGTH_TOLERANCE_US.max(picture + picture / 2);
            if video.duration_us > 0 {
                let found =
                    self.video_us.map(|most| video.duration_us.clamp(most.saturating_sub(self.video_slack_us), most));
                compare_length("pictures", found, video.duration_us, tolerance, problems);
            }
        }
        if let Some(audio) = &expect.audio {
            let expected = audio.samples * 1_000_000 / u64::from(audio.sample_rate.max(1));
            let padding = if audio.codec == "mp3" { PACKET_SAMPLES } else { 0 };
            let tolerance = LENGTH_TOLERANCE_US.max(padding * 1_000_000 / u64::from(audio.sample_rate.max(1)));
            compare_length("sound", self.audio_us, expected, tolerance, problems);
        }
    }
}

fn compare_length(what: &str, found: Option<u64>, expected: u64, tolerance: u64, problems: &mut Vec<String>) {
    let found = found.unwrap_or(0);
    check(problems, found.abs_diff(expected) <= tolerance, || {
        format!("{what} last {found} µs instead of {expected} µs")
    });
}

/// First and last time of a track, in its time base.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    /// Where the last packet begins.
    last: i64,
    end: i64,
}

fn scan(
    input: &mut Input,
    found: &Found,
    expect: &Expectation,
    size: u64,
    problems: &mut Vec<String>,
) -> Done<(Scan, Coverage)> {
    // Reading the packets would tell no more of such a file than that their bytes are there.
    if !expect.format.tells_length() && size <= FULL_SCAN {
        return Ok((scan_packets(input, found)?, Coverage::Full));
    }
    let length = |stream: &Option<Stream>| u64::try_from(stream.as_ref()?.duration_us()?).ok();
    let (video_us, audio_us) = (length(&found.video), length(&found.audio));
    // Matroska tells the length of the file only, and counts nothing.
    let whole = || input.duration_us();
    let mut frames = None;
    if expect.format.has_index() {
        let index = |stream: &Option<Stream>| input.index(stream.as_ref()?.index);
        let (video, audio) = (index(&found.video), index(&found.audio));
        frames = Some(video.as_ref().map_or(0, |index| index.entries));
        let end = video.iter().chain(&audio).map(|index| index.end).max().unwrap_or(0);
        check(problems, end <= size, || format!("the index goes on to byte {end} of {size}"));
    }
    let scan = Scan {
        frames,
        duration_us: video_us.max(audio_us).or_else(whole).unwrap_or(0),
        video_us: video_us.or_else(whole),
        video_slack_us: 0,
        audio_us: audio_us.or_else(whole),
    };
    Ok((scan, Coverage::Edges))
}

fn scan_packets(input: &mut Input, found: &Found) -> Done<Scan> {
    let mut packet = Packet::new()?;
    let mut spans: Vec<Option<Span>> = vec![None; input.streams().len()];
    let mut frames = 0;
    while input.read(&mut packet)? {
        let Some(span) = spans.get_mut(packet.stream()) else { continue };
        let is_video = found.video.as_ref().is_some_and(|stream| stream.index == packet.stream());
        frames += u64::from(is_video);
        if let Some(start) = packet.pts().filter(|_| !packet.is_discarded()) {
            let end = start.saturating_add(length_of(&packet, input.streams().get(packet.stream())));
            let so_far = span.unwrap_or(Span { start, last: start, end });
            let last = so_far.last.max(start);
            *span = Some(Span { start: so_far.start.min(start), last, end: so_far.end.max(end) });
        }
    }
    let whole_us = input.duration_us().filter(|_| input.format().starts_with("matroska"));
    let whole_us = whole_us.and_then(|us| i64::try_from(us).ok());
    let length = |stream: &Option<Stream>| {
        let stream = stream.as_ref()?;
        let span = spans.get(stream.index).copied().flatten()?;
        // Priming samples come before the start of the track.
        let start = span.start.max(stream.start.unwrap_or(span.start));
        let whole = whole_us.filter(|_| stream.kind == Kind::Video);
        let end = whole.map_or(span.end, |end| rescale(end, MICROSECONDS, stream.time_base));
        u64::try_from(rescale(end - start, stream.time_base, MICROSECONDS)).ok()
    };
    let slack = || {
        let stream = found.video.as_ref()?;
        let last = rescale(spans.get(stream.index).copied().flatten()?.last, stream.time_base, MICROSECONDS);
        u64::try_from(whole_us? - last).ok()
    };
    let (video_us, audio_us) = (length(&found.video), length(&found.audio));
    let video_slack_us = slack().unwrap_or(0);
    let duration_us = video_us.max(audio_us).unwrap_or(0);
    Ok(Scan { frames: Some(frames), duration_us, video_us, video_slack_us, audio_us })
}

/// How long a packet is shown, in its stream's time base. MP4's demuxer is silent about it where pictures are
/// reordered; then it is one picture at the stream's rate.
fn length_of(packet: &Packet, stream: Option<&Stream>) -> i64 {
    match (packet.duration(), stream) {
        (0, Some(stream)) if stream.frame_rate.0 > 0 => {
            rescale(1, Rational(stream.frame_rate.1, stream.frame_rate.0), stream.time_base)
        }
        (said, _) => said,
    }
}

/// Decodes the first and the last group of pictures.
fn decode_edges(
    input: &mut Input,
    found: &Found,
    expect: &Expectation,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> Done<()> {
    let Some(stream) = &found.video else { return Ok(()) };
    let start = stream.start.unwrap_or(0);
    let length_us = expect.video.as_ref().map_or(0, |video| video.duration_us);
    let end = start.saturating_add(rescale(i64::try_from(length_us).unwrap_or(0), MICROSECONDS, stream.time_base));
    for other in 0..input.streams().len() {
        input.want(other, other == stream.index);
    }
    for (name, place) in [("first", start), ("last", end)] {
        // A file of one picture has nowhere to seek to; after a failed seek it is opened at its start still.
        let _ = input.seek(stream.index, place);
        expect_group(input, stream.index, place);
        let mut decoder = Decoder::open(input, stream.index, 1, limits.pixels)?;
        let pictures = decode_some(input, &mut decoder, stream.index)?;
        let is_image = expect.format.file_type() == FileType::Image;
        if pictures == Some(0) && is_image && name == "last" {
            continue;
        }
        check(problems, pictures.is_some_and(|count| count > 0), || format!("the {name} pictures cannot be decoded"));
    }
    Ok(())
}

/// Has the first pictures of the group at a time fetched in one go, where the index tells their place.
fn expect_group(input: &mut Input, stream: usize, time: i64) {
    if let Some(range) = input.place(stream, time, i32::try_from(PICTURES).unwrap_or(i32::MAX)) {
        input.expect(range);
    }
}

/// Decodes across every place where encoded pictures meet copied ones: from the last place before it where decoding can
/// begin until a while behind it. Each packet is one picture, and time only goes on.
fn decode_joints(
    input: &mut Input,
    found: &Found,
    expect: &Expectation,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> Done<()> {
    let (Some(stream), Some(video)) = (&found.video, &expect.video) else { return Ok(()) };
    for joint_us in &video.joints_us {
        let joint = rescale(*joint_us, MICROSECONDS, stream.time_base);
        let before = joint - rescale(AROUND_US, MICROSECONDS, stream.time_base);
        let _ = input.seek(stream.index, before.max(stream.start.unwrap_or(0)));
        let mut decoder = Decoder::open(input, stream.index, 1, limits.pixels)?;
        let passed = decode_until(input, &mut decoder, stream, *joint_us + AROUND_US)?;
        check(problems, passed, || {
            format!("decoding stumbles where encoded pictures meet copied ones, at {joint_us} µs")
        });
    }
    Ok(())
}

/// Decodes a little of the sound at its start and before its end. A packet that was damaged in the input may have been
/// copied; nothing at all is too little.
fn decode_sound(input: &mut Input, found: &Found, expect: &Expectation, problems: &mut Vec<String>) -> Done<()> {
    let (Some(stream), Some(audio)) = (&found.audio, &expect.audio) else { return Ok(()) };
    let length_us = i64::try_from(audio.samples * 1_000_000 / u64::from(audio.sample_rate.max(1))).unwrap_or(0);
    let start = stream.start.unwrap_or(0);
    let before_end = (length_us - SOUND_BEFORE_END_US).max(0);
    let end = start.saturating_add(rescale(before_end, MICROSECONDS, stream.time_base));
    for other in 0..input.streams().len() {
        input.want(other, other == stream.index);
    }
    for (name, place) in [("first", start), ("last", end)] {
        if input.seek(stream.index, place).is_err() {
            continue;
        }
        let mut decoder = Decoder::open(input, stream.index, 1, u64::MAX)?;
        let (mut packet, mut damage) = (Packet::new()?, Damage::default());
        let (mut sent, mut samples) = (0, 0);
        let mut hear = |frame: &mut Frame| {
            samples += frame.samples();
            Ok(())
        };
        while sent < SOUNDS && input.read(&mut packet)? {
            if packet.stream() == stream.index {
                decode(&mut decoder, Some(&packet), &mut damage, &mut hear)?;
                sent += u64::from(!packet.is_discarded());
            }
        }
        decode(&mut decoder, None, &mut damage, &mut hear)?;
        check(problems, samples > 0, || format!("the {name} sound cannot be decoded"));
    }
    Ok(())
}

/// Whether every packet up to a time becomes one picture, unharmed and later than the one before.
fn decode_until(input: &mut Input, decoder: &mut Decoder, stream: &Stream, end_us: i64) -> Done<bool> {
    let mut packet = Packet::new()?;
    let (mut sent, mut shown, mut good) = (0_u64, 0_u64, true);
    let mut last = None;
    let mut damage = Damage::default();
    let mut look = |frame: &mut Frame| {
        let time = frame.best_effort_pts();
        shown += 1;
        good &= !frame.is_damaged() && time > last;
        last = time;
        Ok(())
    };
    while input.read(&mut packet)? {
        if packet.stream() != stream.index {
            continue;
        }
        decode(decoder, Some(&packet), &mut damage, &mut look)?;
        sent += u64::from(!packet.is_discarded());
        let dts = packet.dts().map(|dts| rescale(dts, stream.time_base, MICROSECONDS));
        if dts.is_some_and(|dts| dts > end_us) {
            break;
        }
    }
    decode(decoder, None, &mut damage, &mut look)?;
    Ok(good && damage.warning().is_none() && sent == shown)
}

/// Pictures decoded from here on; none when one was damaged.
fn decode_some(input: &mut Input, decoder: &mut Decoder, stream: usize) -> Done<Option<u64>> {
    let mut packet = Packet::new()?;
    let (mut pictures, mut damaged) = (0, false);
    let mut damage = Damage::default();
    let mut look = |frame: &mut Frame| {
        pictures += 1;
        damaged |= frame.is_damaged();
        Ok(())
    };
    let mut sent = 0;
    while sent < PICTURES && input.read(&mut packet)? {
        if packet.stream() == stream {
            decode(decoder, Some(&packet), &mut damage, &mut look)?;
            sent += u64::from(!packet.is_discarded());
        }
    }
    decode(decoder, None, &mut damage, &mut look)?;
    Ok((!damaged && damage.warning().is_none()).then_some(pictures))
}
