//! Choosing streams, and saying what becomes of each.

use xora_av::{Kind, Stream};
use xora_shared::report::{Fate, StreamFate};

/// The video: a main track before one beside it, then what a player takes by default if it is marked so, then what has the
/// most pixels, then the first. Covers are not video, and what has no size could not be read.
pub fn pick_video(streams: &[Stream]) -> Option<&Stream> {
    let moving = |stream: &&Stream| stream.kind == Kind::Video && !stream.is_attached_picture && is_readable(stream);
    let pixels = |stream: &Stream| u64::from(stream.width) * u64::from(stream.height);
    let rank = |stream: &&Stream| (!stream.is_secondary, stream.is_default, pixels(stream));
    // `max_by_key` takes the last of equals.
    streams.iter().rev().filter(moving).max_by_key(rank)
}

/// The audio: of the video's programme before others, a main track before one beside it, then what a player takes by
/// default if it is marked so, then what has the most channels, then the first.
pub fn pick_audio(streams: &[Stream]) -> Option<&Stream> {
    let video = pick_video(streams);
    let belongs = |stream: &Stream| video.is_none_or(|video| belong_together(video, stream));
    let rank = |stream: &&Stream| (belongs(stream), !stream.is_secondary, stream.is_default, stream.channels);
    streams.iter().rev().filter(|stream| is_audible(stream)).max_by_key(rank)
}

/// As [`pick_audio`], for a film: none where all audio is of other programmes than the video.
pub fn pick_audio_of_film(streams: &[Stream]) -> Option<&Stream> {
    let video = pick_video(streams);
    pick_audio(streams).filter(|audio| video.is_none_or(|video| belong_together(video, audio)))
}

/// Whether two tracks are of one programme. A track that no programme lists belongs to each of them: the tables of some
/// recorders leave tracks out.
pub fn belong_together(one: &Stream, other: &Stream) -> bool {
    one.programs.is_empty()
        || other.programs.is_empty()
        || one.programs.iter().any(|program| other.programs.contains(program))
}

/// The first sound.
pub fn first_audio(streams: &[Stream]) -> Option<&Stream> {
    streams.iter().find(|stream| is_audible(stream))
}

fn is_audible(stream: &Stream) -> bool {
    stream.kind == Kind::Audio && is_readable(stream)
}

/// Whether a track of video or audio is known well enough to be decoded. Others have a codec that nothing here reads, or
/// no packet that says what they are.
pub fn is_readable(stream: &Stream) -> bool {
    match stream.kind {
        Kind::Video => stream.width > 0 && stream.height > 0,
        Kind::Audio => stream.codec != "none" && stream.sample_rate > 0 && stream.channels > 0,
        Kind::Subtitle | Kind::Attachment | Kind::Data => false,
    }
}

/// The picture that belongs to the file.
pub fn pick_cover(streams: &[Stream]) -> Option<&Stream> {
    streams.iter().find(|stream| stream.kind == Kind::Video && stream.is_attached_picture)
}

/// What becomes of every stream of input 0: the chosen are kept or converted, with a reason where there is one, the
/// others dropped, always with a reason.
pub fn fates(
    streams: &[Stream],
    chosen: &[(&Stream, Fate)],
    why: impl Fn(&Stream) -> Option<String>,
) -> Vec<StreamFate> {
    let fate = |stream: &Stream| {
        let (fate, reason) = match chosen.iter().find(|(one, _)| one.index == stream.index) {
            Some((_, fate)) => (*fate, why(stream)),
            None => (Fate::Dropped, Some(why_dropped(stream, chosen))),
        };
        StreamFate {
            input: 0,
            stream: u32::try_from(stream.index).unwrap_or(u32::MAX),
            what: describe(stream),
            fate,
            reason,
        }
    };
    streams.iter().map(fate).collect()
}

/// A stream in a few words: `video h264 1280x720`.
pub fn describe(stream: &Stream) -> String {
    let codec = &stream.codec;
    match stream.kind {
        Kind::Video if stream.is_attached_picture => format!("cover {codec} {}x{}", stream.width, stream.height),
        Kind::Video => format!("video {codec} {}x{}", stream.width, stream.height),
        Kind::Audio => format!("audio {codec} {} Hz {}", stream.sample_rate, stream.layout),
        Kind::Subtitle => format!("subtitle {codec}"),
        Kind::Attachment => format!("attachment {codec}"),
        Kind::Data => format!("data {codec}"),
    }
}

fn why_dropped(stream: &Stream, chosen: &[(&Stream, Fate)]) -> String {
    let taken = chosen.iter().any(|(one, _)| one.kind == stream.kind);
    let pictures = chosen.iter().find(|(one, _)| one.kind == Kind::Video && !one.is_attached_picture);
    let is_of_another = pictures.is_some_and(|(one, _)| !belong_together(one, stream));
    let only_sound = chosen.iter().all(|(one, _)| one.kind == Kind::Audio || one.is_attached_picture);
    let why = match stream.kind {
        Kind::Video if stream.is_attached_picture => {
            "covers are kept with music only, as JPEG or PNG in mp3, m4a and flac"
        }
        Kind::Video | Kind::Audio if !is_readable(stream) => {
            "its codec is not supported, or nothing of it could be read"
        }
        Kind::Video if only_sound => "the output has sound only",
        Kind::Audio if is_of_another => "it belongs to another programme than the video",
        Kind::Video | Kind::Audio if !taken => "the output is a single picture",
        Kind::Video => "the output has one picture track at most, and another was chosen",
        Kind::Audio => "the output has one sound track at most",
        Kind::Subtitle => "subtitles are not carried over",
        Kind::Attachment => "attachments are not carried over",
        Kind::Data => "data tracks are not carried over",
    };
    why.to_owned()
}
