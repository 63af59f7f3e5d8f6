//! Deciding how one picture is made.

use xora_shared::{
    media::{Format, Thumbnail},
    report::{Fate, Strategy, StrategyKind},
};

use xora_av::Stream;

use super::{Abilities, Make, Plan, Still, describe_all, recipes::begins_us};
use crate::job::{
    fault::{Done, Fault},
    probe::{Probe, check_colors},
    shape::{Picture, Pixels, Size},
    streams::{fates, pick_cover, pick_video},
};

/// The longest that a codec puts before its first sound, in microseconds: the 2,112 samples of AAC take 48 ms at 44.1
/// kHz.
const PRIMING_US: i64 = 50_000;

/// The picture shown at a time; of sound, its cover.
pub fn still(probe: &Probe, thumbnail: &Thumbnail, format: Format, abilities: Abilities) -> Done<Plan> {
    let video = pick_video(&probe.streams);
    let stream = video.or_else(|| pick_cover(&probe.streams)).ok_or_else(|| {
        Fault::unsupported(format!(
            "a thumbnail needs pictures, and the input has none; found: {}",
            describe_all(&probe.streams)
        ))
    })?;
    check_colors(stream)?;
    let pixels = match format {
        Format::Jpg => Pixels::Jpeg,
        Format::Png => Pixels::Rgb,
        Format::Webp => Pixels::Webp,
        Format::Mp4
        | Format::Webm
        | Format::Mov
        | Format::Gif
        | Format::Mp3
        | Format::Aac
        | Format::Wav
        | Format::M4a
        | Format::Opus
        | Format::Flac
        | Format::Ogg => {
            return Err(Fault::unsupported(format!("a thumbnail cannot be written as {}", format.extension())));
        }
    };
    let size = match (thumbnail.width, thumbnail.height) {
        (None, None) => Size::AsInput,
        (Some(width), None) => Size::Width(width),
        (None, Some(height)) => Size::Height(height),
        (Some(width), Some(height)) => Size::Exactly(width, height),
    };
    let is_cover = stream.is_attached_picture;
    let reason = if is_cover { "the cover picture of the file" } else { "the picture shown at the time asked for" };
    Ok(Plan {
        strategy: Strategy { kind: StrategyKind::Encode, reasons: vec![reason.to_owned()] },
        fates: fates(&probe.streams, &[(stream, Fate::Converted)], |_| None),
        warnings: Vec::new(),
        make: Make::Still(Still {
            format,
            stream: stream.index,
            is_cover,
            seek_us: thumbnail.seek_us.saturating_sub(late_us(stream, &probe.streams)),
            quality: thumbnail.quality,
            picture: Picture {
                orientation: stream.orientation,
                deinterlace: stream.is_interlaced,
                can_tonemap: abilities.tonemap,
                size,
                pixels,
            },
        }),
    })
}

/// How long after the file its pictures begin, in microseconds. Where that may be what a codec puts before its first
/// sound, the first picture is shown from the start.
fn late_us(stream: &Stream, streams: &[Stream]) -> u64 {
    let late = stream.start_us().map_or(0, |start| start - begins_us(streams, stream).unwrap_or(start));
    if late <= PRIMING_US { 0 } else { late.unsigned_abs() }
}
