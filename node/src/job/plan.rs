//! What to do with an input: a pure function of what it is and what is wanted.
//!
//! `recipes` says what each recipe wishes for, `tracks` what can be copied and how the rest is encoded, `still` is
//! about single pictures. The cheapest way that is right wins: nothing at all, then copied packets, then encoding.

pub mod concat;
mod recipes;
mod still;
mod tracks;
mod web;

pub use tracks::{has_times, hides_start};
use xora_av::Stream;
use xora_shared::{
    media::{Format, Recipe, Wanted},
    report::{OutputFacts, Strategy, StreamFate},
};

use crate::job::{
    fault::{Done, Fault},
    probe::Probe,
    shape::Picture,
    streams::describe,
};

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the caller.
    pub strategy: Strategy,
    /// What becomes of each stream.
    pub fates: Vec<StreamFate>,
    /// What the caller should know of what is made instead of what was asked for.
    pub warnings: Vec<String>,
    /// What is made.
    pub make: Make,
}

/// See [`Plan::make`].
#[derive(Clone, Debug)]
pub enum Make {
    /// Nothing: the input is the result.
    Nothing(OutputFacts),
    /// Pictures in motion, sound, or both.
    Film(Box<Film>),
    /// One picture.
    Still(Still),
}

/// A file of one or two tracks.
#[derive(Clone, Debug)]
pub struct Film {
    /// What is written.
    pub format: Format,
    /// The picture track.
    pub video: Option<Track<VideoEncode>>,
    /// The sound track.
    pub audio: Option<Track<AudioEncode>>,
    /// The input's stream that is the cover of music.
    pub cover: Option<usize>,
    /// The time of the input that becomes 0 for all tracks alike, so that they stay together; in microseconds.
    pub start_us: i64,
    /// What is left out around that part.
    pub part: Part,
    /// The output's length in microseconds, when known.
    pub duration_us: Option<u64>,
    /// Bytes that the output will have, about.
    pub expected_bytes: u64,
}

/// Which part of the input is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Whether something before the start is left out.
    pub from_start: bool,
    /// Where it ends, in microseconds of the output; none for the input's own end.
    pub end_us: Option<i64>,
}

/// A track of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track<E> {
    /// The input's stream.
    pub stream: usize,
    /// How it is made.
    pub way: Way<E>,
}

/// How a track is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way<E> {
    /// Its packets are copied.
    Copy,
    /// Its packets are copied, but for what lies around the cuts, which is encoded.
    Cut(E),
    /// It is decoded and encoded.
    Encode(E),
}

/// How pictures are encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoEncode {
    /// libav's name of the encoder.
    pub encoder: &'static str,
    /// libav's options for it.
    pub options: Vec<(&'static str, String)>,
    /// Four-character code, where the usual one will not do.
    pub tag: Option<[u8; 4]>,
    /// What the pictures must be.
    pub picture: Picture,
    /// Microseconds after which a player can begin again at the latest; none where the encoder decides.
    pub key_every_us: Option<i64>,
}

/// How sound is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioEncode {
    /// libav's name of the encoder.
    pub encoder: &'static str,
    /// libav's options for it.
    pub options: Vec<(&'static str, String)>,
    /// libav's name of the samples that it takes.
    pub sample_format: &'static str,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u32,
    /// libav's name of their layout.
    pub layout: String,
}

/// How one picture is made.
#[derive(Clone, Debug)]
pub struct Still {
    /// What is written.
    pub format: Format,
    /// The input's stream.
    pub stream: usize,
    /// Whether the stream is a picture that belongs to the file.
    pub is_cover: bool,
    /// When the picture is shown, in microseconds from the start of the stream.
    pub seek_us: u64,
    /// 1 to 100, where the format has a choice.
    pub quality: u8,
    /// What the picture must be.
    pub picture: Picture,
}

/// What can be done here and now.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// libav has the filters that map high dynamic range to standard.
    pub tonemap: bool,
    /// Packets may be copied: no earlier try has shown that these cannot.
    pub copy: bool,
    /// The input is at an address that can be given back as the result.
    pub pass_through: bool,
}

/// Decides.
pub fn decide(probe: &Probe, wanted: &Wanted, abilities: Abilities) -> Done<Plan> {
    let format = wanted.format;
    match &wanted.recipe {
        Recipe::WebReady(web_ready) => web::web_ready(probe, web_ready, abilities),
        Recipe::Proxy(proxy) => recipes::proxy(probe, proxy, abilities),
        Recipe::Compress(compress) => recipes::compress(probe, compress, format, abilities),
        Recipe::Transcode => recipes::transcode(probe, format, abilities),
        Recipe::Resize(resize) => recipes::resize(probe, resize, format, abilities),
        Recipe::Trim(trim) => recipes::trim(probe, trim, format, abilities),
        Recipe::ExtractAudio(extract) => recipes::extract_audio(probe, extract, format, abilities),
        Recipe::Thumbnail(thumbnail) => still::still(probe, thumbnail, format, abilities),
        Recipe::Concat => Err(Fault::unsupported("concat takes two inputs or more")),
    }
}

impl Film {
    /// Whether a stream of the input is used.
    pub fn uses(&self, stream: usize) -> bool {
        self.video.as_ref().is_some_and(|track| track.stream == stream)
            || self.audio.as_ref().is_some_and(|track| track.stream == stream)
    }

    /// The stream of the input by which a place in it is found: the pictures, or sound alone.
    pub fn leader(&self) -> Option<usize> {
        self.video.as_ref().map(|track| track.stream).or(self.audio.as_ref().map(|track| track.stream))
    }
}

fn describe_all(streams: &[Stream]) -> String {
    if streams.is_empty() {
        return "no streams".to_owned();
    }
    streams.iter().map(describe).collect::<Vec<_>>().join(", ")
}
