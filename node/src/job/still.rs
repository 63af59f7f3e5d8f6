//! Making one picture of a film: where pictures are progressive, to JPEG at quality 75 that of
//! `ffmpeg -threads 1 -ss SECONDS -i INPUT -frames:v 1 -q:v 10 OUTPUT.jpg`, when the time is one of the input's own.

use xora_av::{
    Decoder, Encoder, Frame, Graph, Input, MICROSECONDS, Packet, Poll, Rational, Stream, VideoEncoding, rescale,
};
use xora_shared::{
    media::FileType,
    report::{Expectation, ExpectedVideo, OutputFacts, RunReport, StreamFate},
};

use crate::{
    ipc::{Limits, Source},
    job::{
        Means,
        damage::Damage,
        decode::decode,
        encoders,
        fault::{Done, Fault},
        places,
        plan::Still,
        probe::{self, Probe},
        progress::Progress,
        shape::{Picture, Pixels, chain},
        video::first_picture,
    },
};

/// How far before the time asked for decoding begins, when the first try came out behind it; in microseconds.
pub const STEP_BACK_US: i64 = 10_000_000;
/// Pictures behind the one asked for that a decoder must see before it gives that one out, as a rule.
const BEHIND: i32 = 4;
/// Pictures at the usual rate before the one asked for from which on none is left out.
const NEAR: i64 = 8;

/// Makes it. Answers the file.
pub fn make(
    means: Means,
    (input, source): (&mut Input, &Source),
    probe: &Probe,
    still: &Still,
    fates: Vec<StreamFate>,
) -> Done<(Vec<u8>, RunReport)> {
    let (stream, Means { link, limits, threads, .. }) = (&probe.streams[still.stream], means);
    let mut decoder = Decoder::open(input, still.stream, threads, limits.pixels)?;
    let found = if still.is_cover {
        Scan { shown: Some(decode_cover(input, &mut decoder, still.stream)?), ..Scan::default() }
    } else {
        want_only(input, still.stream);
        // Decoding on the way to the picture is work, too.
        let mut way = OnTheWay { progress: Progress::new(link.clone(), still.seek_us), pictures: limits.pictures };
        let found = find(input, &mut decoder, stream, still.seek_us, &mut way)?;
        found.map_or_else(|| find_from_start(means, source, stream, still.seek_us, &mut way), Ok)?
    };
    let mut picture = fit(found, &decoder, &still.picture, limits)?;
    let bytes = encode(&mut picture, still)?;
    let length = bytes.len() as u64;
    if length > limits.output_bytes {
        let limit = limits.output_bytes;
        return Err(Fault::too_large(
            format!("the output would be larger than the limit of {limit} bytes"),
            "--max-output-bytes",
        ));
    }
    Ok((bytes, report(still, probe, &picture, length, fates)))
}

fn decode_cover(input: &Input, decoder: &mut Decoder, stream: usize) -> Done<Frame> {
    let cover = input.attached_picture(stream)?;
    let mut found = None;
    let mut damage = Damage::default();
    for packet in [Some(&cover), None] {
        decode(decoder, packet, &mut damage, |frame| {
            found = Some(frame.take()?);
            Ok(())
        })?;
    }
    found.ok_or_else(|| Fault::unsupported("the cover picture of the input could not be decoded"))
}

fn want_only(input: &mut Input, stream: usize) {
    for other in 0..input.streams().len() {
        input.want(other, other == stream);
    }
}

/// A time from the start of a stream, in its time base.
fn target(stream: &Stream, seek_us: u64) -> i64 {
    let wanted_us = i64::try_from(seek_us).unwrap_or(i64::MAX);
    stream.start.unwrap_or(0).saturating_add(rescale(wanted_us, MICROSECONDS, stream.time_base))
}

/// The picture that is shown at `seek_us`: the last one that begins at or before it; none where seeking finds nothing
/// that early.
fn find(
    input: &mut Input,
    decoder: &mut Decoder,
    stream: &Stream,
    seek_us: u64,
    on_the_way: &mut OnTheWay,
) -> Done<Option<Scan>> {
    let (start, target) = (stream.start.unwrap_or(0), target(stream, seek_us));
    if target > start && places::reads_from_start(input) {
        return Ok(None);
    }
    for back_us in [least_back_us(input), STEP_BACK_US, i64::MAX] {
        let from = target.saturating_sub(rescale(back_us, MICROSECONDS, stream.time_base)).max(start);
        for way in [Way::Short, Way::Whole] {
            // Past the end some containers refuse to seek; the next try begins earlier.
            if target > start && input.seek(stream.index, from).is_err() {
                break;
            }
            input.expect_only(input.place(stream.index, target, BEHIND).into_iter().collect());
            decoder.reset();
            let found = scan(input, decoder, stream, target, (way, target > start), on_the_way)?;
            if found.is_astray() {
                continue;
            }
            if found.shown.is_some() {
                return Ok(Some(found));
            }
            break;
        }
        if from == start {
            break;
        }
    }
    input.expect_only(Vec::new());
    Ok(None)
}

/// How far before a time to go at first, in microseconds: to find one in streams without an index is to find any packet,
/// and the last one where decoding can begin is some before it.
pub fn least_back_us(input: &Input) -> i64 {
    if input.format().starts_with("mpeg") { 2_000_000 } else { 0 }
}

/// As [`find`], for files in which seeking finds nothing: a clock that starts again in mid-file leads it astray, and
/// some know no places to seek to.
fn find_from_start(
    Means { link, limits, .. }: Means,
    source: &Source,
    stream: &Stream,
    seek_us: u64,
    on_the_way: &mut OnTheWay,
) -> Done<Scan> {
    let (mut input, _) = probe::open(link, 0, source, limits)?;
    want_only(&mut input, stream.index);
    let mut decoder = Decoder::open(&input, stream.index, 1, limits.pixels)?;
    let mut found = scan(&mut input, &mut decoder, stream, target(stream, seek_us), (Way::Whole, false), on_the_way)?;
    found.shown = found.shown.or_else(|| found.later.take());
    Ok(found)
}

/// Who hears of what is decoded on the way to a picture, and how many pictures that may be.
struct OnTheWay {
    progress: Progress,
    pictures: u64,
}

/// What is decoded on the way to a picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What other pictures are made from, as far as the codec tells; all of it once the picture is near.
    Short,
    /// Every picture.
    Whole,
}

/// What decoding from one place on found.
#[derive(Default)]
struct Scan {
    /// The picture before that.
    before: Option<Frame>,
    /// The last picture at or before the time.
    shown: Option<Frame>,
    /// The first one after it.
    later: Option<Frame>,
    /// When the last picture begins that may have been left out.
    left_out: Option<i64>,
}

impl Scan {
    /// Whether what was left out is what should have been found.
    fn is_astray(&self) -> bool {
        let shown = self.shown.as_ref().map(Frame::best_effort_pts);
        self.left_out.is_some_and(|left_out| shown.flatten().is_none_or(|shown| shown < left_out))
    }
}

/// Decodes until behind the time. Behind the end of a broadcast, seeking ends between two places where decoding can
/// begin: what comes before such a place is rubble.
fn scan(
    input: &mut Input,
    decoder: &mut Decoder,
    stream: &Stream,
    target: i64,
    (way, mut waits_for_key): (Way, bool),
    OnTheWay { progress, pictures }: &mut OnTheWay,
) -> Done<Scan> {
    let usual = rescale(1, Rational(stream.frame_rate.1, stream.frame_rate.0), stream.time_base).max(1);
    // Where the next picture begins if it does not say.
    let mut next = stream.start.unwrap_or(0);
    let near = target.saturating_sub(usual.saturating_mul(NEAR));
    let mut found = Scan::default();
    let mut damage = Damage::within(*pictures);
    let mut packet = Packet::new()?;
    loop {
        let more = loop {
            match input.read(&mut packet) {
                Ok(more) if !more || packet.stream() == stream.index => break more,
                Ok(_) => {}
                Err(error) if error.kind == xora_av::ErrorKind::InvalidData => damage.unreadable()?,
                Err(error) => return Err(error.into()),
            }
        };
        damage.packet();
        waits_for_key &= !packet.is_key();
        if more && waits_for_key {
            // Nothing that follows is shown before it is decoded.
            if packet.dts().is_some_and(|dts| dts > target) {
                return Ok(found);
            }
            continue;
        }
        let far = packet.pts().filter(|pts| way == Way::Short && *pts < near);
        decoder.skip_unreferenced(far.is_some());
        found.left_out = found.left_out.max(far);
        decode(decoder, more.then_some(&packet), &mut damage, |frame| {
            let begins = frame.best_effort_pts().unwrap_or(next);
            next = begins.saturating_add(frame.duration().max(usual));
            if begins <= target && found.later.is_none() {
                found.before = found.shown.replace(frame.take()?);
            } else if found.later.is_none() {
                found.later = Some(frame.take()?);
            }
            Ok(())
        })?;
        progress.reach(rescale(next.saturating_sub(stream.start.unwrap_or(0)), stream.time_base, MICROSECONDS))?;
        if !more || found.later.is_some() {
            return Ok(found);
        }
    }
}

fn fit(found: Scan, decoder: &Decoder, want: &Picture, limits: &Limits) -> Done<Frame> {
    let Scan { before, shown: Some(shown), later, .. } = found else {
        return Err(Fault::transcode("no picture of the input could be decoded"));
    };
    let shape_of = |frame: &Frame| frame.picture_shape(decoder.time_base(), Rational(0, 1));
    let shape = shape_of(&shown);
    let want = first_picture(want, &shown);
    let chain = chain(&shape, &want).within(limits.pixels)?;
    let mut graph = Graph::pictures(&shape, &chain.text, 1)?;
    // What moves between two fields is seen from the pictures around them.
    let [before, later] =
        [before, later].map(|frame| frame.filter(|frame| want.deinterlace && shape_of(frame) == shape));
    let place = usize::from(before.is_some());
    // Some filters wait for a time.
    for (pts, mut frame) in (0..).zip([before, Some(shown), later].into_iter().flatten()) {
        frame.set_pts(Some(pts));
        graph.push(Some(&mut frame))?;
    }
    graph.push(None)?;
    let mut fitted = Frame::new()?;
    for _ in 0..=place {
        if graph.pull(&mut fitted)? != Poll::Ready {
            return Err(Fault::transcode("the picture could not be filtered"));
        }
    }
    fitted.set_color(chain.color);
    fitted.forget_orientation();
    Ok(fitted)
}

fn encode(picture: &mut Frame, still: &Still) -> Done<Vec<u8>> {
    let scale = quantiser(still.quality);
    let (encoder, options) = match codec(still.picture.pixels) {
        "webp" => ("libwebp", vec![("quality", still.quality.to_string())]),
        "mjpeg" => ("mjpeg", vec![("flags", "+qscale".to_owned()), ("qmin", "1".to_owned())]),
        other => (other, vec![]),
    };
    encoders::check_size(encoder, (picture.width(), picture.height()))?;
    picture.set_pts(Some(0));
    picture.set_quality(scale);
    picture.forget_picture_type();
    let how = VideoEncoding {
        encoder,
        time_base: Rational(1, 25),
        frame_rate: Rational(25, 1),
        threads: 1,
        options: &options,
        global_header: false,
    };
    let mut encoder = Encoder::video(&how, picture).map_err(|error| Fault::of_encoder(encoder, error))?;
    let mut packet = Packet::new()?;
    for frame in [Some(&*picture), None] {
        encoder.send(frame)?;
        if encoder.receive(&mut packet)? == Poll::Ready {
            // For these formats a packet is a whole file.
            return Ok(packet.data().to_vec());
        }
    }
    Err(Fault::transcode("the picture could not be encoded"))
}

/// Quality 1 to 100 as JPEG's quantiser scale 31 (worst) to 1, evenly; libav's usual best, 2, is at 97.
fn quantiser(quality: u8) -> i32 {
    31 - (i32::from(quality.clamp(1, 100)) - 1) * 30 / 99
}

/// libav's name of the codec that takes such pixels.
fn codec(pixels: Pixels) -> &'static str {
    match pixels {
        Pixels::Rgb => "png",
        Pixels::Webp => "webp",
        Pixels::Jpeg | Pixels::Film => "mjpeg",
    }
}

fn report(still: &Still, probe: &Probe, picture: &Frame, bytes: u64, streams: Vec<StreamFate>) -> RunReport {
    let codec = codec(still.picture.pixels);
    let (width, height) = (picture.width(), picture.height());
    RunReport {
        facts: OutputFacts {
            file_type: FileType::Image,
            format: still.format,
            codec: codec.to_owned(),
            duration_us: None,
            width: Some(width),
            height: Some(height),
        },
        expect: Expectation {
            format: still.format,
            bytes,
            video: Some(ExpectedVideo {
                codec: codec.to_owned(),
                width,
                height,
                frames: 1,
                start_us: 0,
                duration_us: 0,
                joints_us: Vec::new(),
            }),
            audio: None,
            chapters: 0,
            cover: false,
        },
        streams,
        warnings: probe.warnings.clone(),
    }
}
