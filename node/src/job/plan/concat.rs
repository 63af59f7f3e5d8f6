//! Joining inputs: what can be copied one after the other, and what the rest becomes.

use xora_av::{Rational, Stream};
use xora_shared::{
    media::{FileType, Format, Scale},
    report::{Fate, Strategy, StrategyKind, StreamFate},
};

use super::{
    Abilities, AudioEncode, VideoEncode, Way, describe_all,
    recipes::video_in,
    tracks::{self, VideoWish},
};
use crate::job::{
    fault::{Done, Fault},
    probe::{Probe, check_colors},
    streams::{fates, pick_audio, pick_audio_of_film, pick_video},
};

/// One input, as the plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it is.
    pub probe: &'a Probe,
    /// The codecs' headers, by stream.
    pub headers: &'a [Vec<u8>],
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the caller.
    pub strategy: Strategy,
    /// What becomes of each stream of each input.
    pub fates: Vec<StreamFate>,
    /// What is made.
    pub join: Join,
}

/// Inputs, one after the other, as one or two tracks.
#[derive(Clone, Debug)]
pub struct Join {
    /// What is written.
    pub format: Format,
    /// The inputs.
    pub clips: Vec<Clip>,
    /// How the picture track is made.
    pub video: Option<Way<Pictures>>,
    /// How the sound track is made.
    pub audio: Option<Way<AudioEncode>>,
    /// The output's length in microseconds, when known.
    pub duration_us: Option<u64>,
    /// Bytes that the output will have, about.
    pub expected_bytes: u64,
}

/// What is used of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Its stream of pictures.
    pub video: Option<usize>,
    /// Its stream of sound.
    pub audio: Option<usize>,
    /// Its time that the clip begins with, in microseconds.
    pub start_us: i64,
}

/// How pictures of several inputs become alike. Their size is that of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// How they are encoded.
    pub encode: VideoEncode,
    /// The rate that they all get; none where they have the same.
    pub rate: Option<Rational>,
}

impl Clip {
    /// Whether a stream of the input is used.
    pub fn uses(&self, stream: usize) -> bool {
        self.video == Some(stream) || self.audio == Some(stream)
    }
}

/// A stream, the input that it is of, and its codec's header.
#[derive(Clone, Copy)]
struct Part<'a> {
    probe: &'a Probe,
    stream: &'a Stream,
    header: &'a [u8],
    /// Counted from 1.
    input: usize,
}

/// Decides.
pub fn decide(inputs: &[Candidate], format: Format, abilities: Abilities) -> Done<Plan> {
    let wish = video_in(format, Scale::default());
    let part = |index: usize, stream: &Stream| (index, stream.index);
    let picked = |pick: fn(&[Stream]) -> Option<&Stream>| -> Vec<(usize, usize)> {
        let each = inputs.iter().enumerate();
        each.filter_map(|(index, input)| pick(&input.probe.streams).map(|stream| part(index, stream))).collect()
    };
    let parts = |found: Vec<(usize, usize)>| -> Vec<Part> {
        let each = found.into_iter().map(|(index, stream)| {
            let input = &inputs[index];
            let header = input.headers.get(stream).map_or(&[][..], Vec::as_slice);
            Part { probe: input.probe, stream: &input.probe.streams[stream], header, input: index + 1 }
        });
        each.collect()
    };
    let video = if wish.is_some() { parts(picked(pick_video)) } else { Vec::new() };
    let audio = parts(picked(if video.is_empty() { pick_audio } else { pick_audio_of_film }));
    check_there(inputs, format, &video, &audio)?;
    video.iter().try_for_each(|part| check_colors(part.stream).map_err(|fault| fault.of_input(part.input)))?;
    let mut reasons = vec![format!("{} inputs are joined in their order", inputs.len())];
    let pictures =
        wish.filter(|_| !video.is_empty()).map(|wish| pictures(&video, &wish, format, abilities, &mut reasons));
    let sound =
        (!audio.is_empty()).then(|| sound(&audio, format, inputs.len(), abilities, &mut reasons)).transpose()?;
    let clips: Vec<Clip> = (1..=inputs.len()).map(|input| clip(input, &video, &audio)).collect();
    let kind = match (&pictures, &sound) {
        (Some(Way::Copy), _) | (None, Some(Way::Copy)) => StrategyKind::Copy,
        (Some(Way::Cut(_) | Way::Encode(_)) | None, _) => StrategyKind::Encode,
    };
    let length = |input: &Candidate| input.probe.duration_us;
    Ok(Plan {
        fates: inputs
            .iter()
            .zip(&clips)
            .zip(0..)
            .flat_map(|((input, clip), index)| fates_of(input, *clip, index, pictures.as_ref(), sound.as_ref()))
            .collect(),
        strategy: Strategy { kind, reasons },
        join: Join {
            format,
            duration_us: inputs.iter().map(length).sum(),
            expected_bytes: inputs.iter().map(|input| expected_bytes(input.probe)).sum(),
            clips,
            video: pictures,
            audio: sound,
        },
    })
}

/// A film wants pictures of all inputs or of none; sound may be missing here and there, but not everywhere.
fn check_there(inputs: &[Candidate], format: Format, video: &[Part], audio: &[Part]) -> Done<()> {
    let found = |input: usize| describe_all(&inputs[input - 1].probe.streams);
    let lacks = |parts: &[Part]| (1..=inputs.len()).find(|input| parts.iter().all(|part| part.input != *input));
    let (first, extension) = (video.first().or(audio.first()), format.extension());
    match (first, lacks(video), lacks(audio)) {
        (None, _, _) => {
            let what = if format.file_type() == FileType::Video { "pictures or sound" } else { "sound" };
            Err(Fault::unsupported(format!("no input has {what} to make {extension} of; input 1 has: {}", found(1))))
        }
        (Some(_), Some(input), _) if !video.is_empty() => Err(Fault::unsupported(format!(
            "input {input} has no pictures to join with those of the others; found: {}",
            found(input)
        ))),
        (Some(_), _, Some(input)) if video.is_empty() => {
            Err(Fault::unsupported(format!("input {input} has no sound; found: {}", found(input))))
        }
        (Some(_), _, _) => Ok(()),
    }
}

fn pictures(
    parts: &[Part],
    wish: &VideoWish,
    format: Format,
    abilities: Abilities,
    reasons: &mut Vec<String>,
) -> Way<Pictures> {
    let first = parts[0];
    let obstacle = abilities.copy.then(|| {
        let alone = parts.iter().find_map(|part| {
            let why = tracks::video_obstacle(part.stream, part.probe, format)?;
            Some(format!("of input {}, {why}", part.input))
        });
        alone.or_else(|| parts.iter().skip(1).find_map(|part| unlike_pictures(first, *part)))
    });
    match obstacle {
        Some(None) => {
            reasons.push(format!("pictures copied: all are {} alike", first.stream.codec));
            return Way::Copy;
        }
        Some(Some(obstacle)) => reasons.push(format!("pictures encoded like those of input 1: {obstacle}")),
        None => {}
    }
    let encode = tracks::encode_video(first.stream, wish, abilities);
    Way::Encode(Pictures { encode, rate: common_rate(parts) })
}

/// In what the pictures of an input differ from the first one's, in words; none where a decoder goes on without noticing.
fn unlike_pictures(first: Part, other: Part) -> Option<String> {
    let (one, two, input) = (first.stream, other.stream, other.input);
    if one.codec != two.codec {
        Some(format!("input {input} is {} instead of {}", two.codec, one.codec))
    } else if (one.width, one.height) != (two.width, two.height) {
        let (wide, high) = (one.width, one.height);
        Some(format!("input {input} is {}x{} instead of {wide}x{high}", two.width, two.height))
    } else if one.pixel_format != two.pixel_format || one.color != two.color {
        Some(format!("input {input} has other pixels or colours"))
    } else if one.orientation != two.orientation || square(one) != square(two) {
        Some(format!("input {input} is turned another way, or has pixels of another shape"))
    } else if first.header != other.header {
        Some(format!("input {input} was encoded with other settings"))
    } else {
        None
    }
}

/// Width over height of a pixel; unknown is square.
fn square(stream: &Stream) -> (i64, i64) {
    let Rational(wide, high) = stream.aspect;
    if wide <= 0 || high <= 0 || wide == high { (1, 1) } else { (wide.into(), high.into()) }
}

/// None where all have the same rate, give or take a thousandth; else that of the first that says a sensible one.
fn common_rate(parts: &[Part]) -> Option<Rational> {
    const USUAL: Rational = Rational(30, 1);
    let rates: Vec<Rational> = parts.iter().map(|part| part.stream.frame_rate).collect();
    let sensible = |rate: &&Rational| rate.1 > 0 && (1..=120).contains(&(rate.0 / rate.1));
    let first = rates.iter().find(sensible).copied().unwrap_or(USUAL);
    let same = |rate: &Rational| {
        let (one, two) = (i64::from(first.0) * i64::from(rate.1), i64::from(rate.0) * i64::from(first.1));
        (one - two).abs() <= one / 1000
    };
    (!rates.iter().all(same)).then_some(first)
}

fn sound(
    parts: &[Part],
    format: Format,
    inputs: usize,
    abilities: Abilities,
    reasons: &mut Vec<String>,
) -> Done<Way<AudioEncode>> {
    let first = parts[0];
    if parts.len() < inputs {
        reasons.push("inputs without sound are silent".to_owned());
    }
    let obstacle = abilities.copy.then(|| {
        if format.file_type() == FileType::Video {
            return Some("it must stay with the pictures, which begin anew at every joint".to_owned());
        }
        let alone = parts.iter().find_map(|part| {
            let why = tracks::audio_obstacle(part.stream, part.probe, format)?;
            Some(format!("of input {}, {why}", part.input))
        });
        let unlike = || parts.iter().skip(1).find_map(|part| unlike_sound(first, *part));
        alone.or_else(unlike).or_else(|| parts.iter().find_map(|part| hidden_sound(*part)))
    });
    match obstacle {
        Some(None) => {
            reasons.push(format!("sound copied: all is {} alike", first.stream.codec));
            return Ok(Way::Copy);
        }
        Some(Some(obstacle)) => reasons.push(format!("sound encoded: {obstacle}")),
        None => {}
    }
    // What has most channels has most to lose; the first of equals says the rate.
    let richest = parts.iter().rev().max_by_key(|part| part.stream.channels).unwrap_or(&first);
    tracks::encode_audio(richest.stream, format).map(Way::Encode).map_err(|fault| fault.of_input(richest.input))
}

/// Why sound that is copied would be longer than it is, in words. What a codec puts before the first sample is hidden at
/// the start of a file only; left out, the first sample would be decoded wrong.
fn hidden_sound(part: Part) -> Option<String> {
    let is_hidden = match part.stream.codec.as_str() {
        "aac" => part.probe.container != "aac",
        "mp3" => part.probe.container != "mp3" || part.stream.start.is_some_and(|start| start > 0),
        _ => false,
    };
    is_hidden
        .then(|| format!("what the encoder of input {} put before its start would be heard at a joint", part.input))
}

/// As [`unlike_pictures`], for sound.
fn unlike_sound(first: Part, other: Part) -> Option<String> {
    let (one, two, input) = (first.stream, other.stream, other.input);
    if one.codec != two.codec {
        Some(format!("input {input} is {} instead of {}", two.codec, one.codec))
    } else if (one.sample_rate, one.channels) != (two.sample_rate, two.channels) || one.layout != two.layout {
        Some(format!("input {input} has another sample rate or other channels"))
    } else if first.header != other.header {
        Some(format!("input {input} was encoded with other settings"))
    } else {
        None
    }
}

fn clip(input: usize, video: &[Part], audio: &[Part]) -> Clip {
    let of = |parts: &[Part]| parts.iter().find(|part| part.input == input).map(|part| part.stream.clone());
    let (video, audio) = (of(video), of(audio));
    let starts = video.iter().chain(&audio).filter_map(Stream::start_us);
    Clip {
        start_us: starts.min().unwrap_or(0),
        video: video.map(|stream| stream.index),
        audio: audio.map(|stream| stream.index),
    }
}

fn fates_of(
    input: &Candidate,
    clip: Clip,
    index: u32,
    pictures: Option<&Way<Pictures>>,
    sound: Option<&Way<AudioEncode>>,
) -> Vec<StreamFate> {
    let streams = &input.probe.streams;
    let copied = |stream: &Stream| {
        (clip.video == Some(stream.index) && pictures == Some(&Way::Copy))
            || (clip.audio == Some(stream.index) && sound == Some(&Way::Copy))
    };
    let fate = |stream| if copied(stream) { Fate::Kept } else { Fate::Converted };
    let taken = streams.iter().filter(|stream| clip.uses(stream.index));
    let taken: Vec<_> = taken.map(|stream| (stream, fate(stream))).collect();
    let fates = fates(streams, &taken, |_| None).into_iter();
    fates.map(|fate| StreamFate { input: index, ..fate }).collect()
}

fn expected_bytes(probe: &Probe) -> u64 {
    probe.size.unwrap_or_else(|| probe.duration_us.map_or(3600, |us| us / 1_000_000 + 1) * 500_000)
}
