//! What a file says of itself beside its tracks, which its output says too: title, artist and so on, the languages of
//! its tracks, chapters, the cover of music.

use xora_av::{Chapter, Input, Output, Packet};
use xora_shared::media::Format;

use crate::job::{fault::Done, plan::Film, probe::Probe};

/// Tags that are kept, by libav's names. Where and with what something was recorded, and by which program, is not said
/// on.
const KEPT: [&str; 19] = [
    "title",
    "artist",
    "album",
    "album_artist",
    "composer",
    "performer",
    "genre",
    "track",
    "disc",
    "date",
    "comment",
    "description",
    "copyright",
    "publisher",
    "show",
    "season_number",
    "episode_sort",
    "episode_id",
    "lyrics",
];
/// The longest tag that is kept, in bytes.
const LONGEST: usize = 4 << 10;
/// Most chapters that are kept.
const CHAPTERS: usize = 1000;
/// Characters of a chapter's title that are kept.
const TITLE: usize = 200;
/// The largest cover that is kept, in bytes: it stands before the rest, and is in memory until that is written.
const LARGEST_COVER: usize = 16 << 20;
/// Bytes that an index spends on a tag or a chapter beside its text, generously.
const EACH: usize = 100;

/// See the module.
pub struct About {
    tags: Vec<(&'static str, String)>,
    /// Language by track of the output.
    languages: Vec<(usize, String)>,
    chapters: Vec<Chapter>,
    cover: Option<Cover>,
}

struct Cover {
    /// The input's stream.
    stream: usize,
    packet: Packet,
}

impl About {
    /// Of an input, for what is made of it.
    pub fn of(input: &Input, probe: &Probe, film: &Film) -> Done<Self> {
        let sound = film.audio.as_ref().map(|track| track.stream);
        // Ogg has no place for tags but in its tracks. Elsewhere those name a track.
        let own = sound.filter(|_| probe.container == "ogg");
        let tag = |name| {
            let value = input.tag(None, name).or_else(|| input.tag(Some(own?), name))?;
            Some((name, value)).filter(|(_, value)| !value.is_empty() && value.len() <= LONGEST)
        };
        let tracks = film.video.as_ref().map(|track| track.stream).into_iter().chain(sound);
        let language = |(track, stream)| Some((track, input.tag(Some(stream), "language")?));
        // One that is too large to be decoded has no size.
        let cover = film.cover.filter(|stream| probe.streams[*stream].width > 0);
        let cover =
            cover.map(|stream| Ok::<_, xora_av::Error>(Cover { stream, packet: input.attached_picture(stream)? }));
        Ok(Self {
            tags: KEPT.into_iter().filter_map(tag).collect(),
            languages: tracks.enumerate().filter_map(language).collect(),
            chapters: if has_chapters(film.format) { chapters(input, film) } else { Vec::new() },
            cover: cover.transpose()?.filter(|cover| (1..=LARGEST_COVER).contains(&cover.packet.size())),
        })
    }

    /// Bytes that it takes in an index, at most.
    pub fn bytes(&self) -> u64 {
        let tags = self.tags.iter().map(|(_, value)| value.len() + EACH);
        // Once as a list, once as a track.
        let chapters = self.chapters.iter().map(|chapter| 2 * (chapter.title.len() + EACH));
        let cover = self.cover.as_ref().map(|cover| cover.packet.size() + EACH);
        tags.chain(chapters).chain(cover).sum::<usize>() as u64
    }

    /// How many chapters there are.
    pub fn chapters(&self) -> u64 {
        self.chapters.len() as u64
    }

    /// Whether there is a cover, which takes a track.
    pub fn has_cover(&self) -> bool {
        self.cover.is_some()
    }

    /// Says it of an output whose header is not yet written. The cover, if there is one, is in track `cover`.
    pub fn tell(&self, output: &mut Output, input: &Input, cover: usize) -> xora_av::Result<()> {
        for (name, value) in &self.tags {
            output.set_tag(None, name, value)?;
        }
        for (track, language) in &self.languages {
            output.set_tag(Some(*track), "language", language)?;
        }
        for chapter in &self.chapters {
            output.add_chapter(chapter)?;
        }
        if let Some(Cover { stream, .. }) = self.cover {
            output.describe_copy(cover, input, stream, None)?;
            output.attach(cover);
        }
        Ok(())
    }

    /// The picture of the cover, at the start of the output.
    pub fn cover(&self) -> Done<Option<Packet>> {
        let Some(Cover { packet, .. }) = &self.cover else { return Ok(None) };
        let mut packet = packet.share()?;
        packet.set_times(Some(0), Some(0));
        Ok(Some(packet))
    }
}

/// The chapters as far as they are in the part, in its time. What was cut out of a film may name those of all of it.
fn chapters(input: &Input, film: &Film) -> Vec<Chapter> {
    let length_us = film.duration_us.and_then(|us| us.try_into().ok());
    let end_us = film.part.end_us.or(length_us).unwrap_or(i64::MAX);
    let moved = |chapter: Chapter| {
        let place = |us: i64| us.saturating_sub(film.start_us).clamp(0, end_us);
        let (start_us, end_us) = (place(chapter.start_us), place(chapter.end_us));
        let title = chapter.title.chars().take(TITLE).collect();
        (start_us < end_us).then_some(Chapter { start_us, end_us, title })
    };
    input.chapters().into_iter().filter_map(moved).take(CHAPTERS).collect()
}

/// Whether a format has chapters. FLAC could say them in comments, but hardly anything reads them there.
fn has_chapters(format: Format) -> bool {
    match format {
        Format::Mp4 | Format::Mov | Format::M4a | Format::Webm | Format::Mp3 | Format::Opus | Format::Ogg => true,
        Format::Aac | Format::Wav | Format::Flac | Format::Gif | Format::Jpg | Format::Png | Format::Webp => false,
    }
}
