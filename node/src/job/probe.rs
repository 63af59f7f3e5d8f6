//! What an input is, and whether it is within the limits.

use std::ops::Range;

use xora_av::{Input, Kind, MICROSECONDS, OpenLimits, ReadAt, Stream, rescale};
use xora_shared::media::{ExtractAudio, Recipe, Trim};

use crate::{
    ipc::{JobFailure, Limits, Source},
    job::{
        entries,
        fault::{Done, Fault},
        fragments::{self, Around, Sparse},
        link::Link,
        look::{Boxes, Look, Mp4, canvas, is_cut_mp3, is_whole, look},
        places,
        source::RemoteInput,
        still::STEP_BACK_US,
        streams::describe,
    },
};

/// What is known of an input before anything is decided.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Length in bytes, when known.
    pub size: Option<u64>,
    /// libav's name of the container, as a list of what one demuxer reads.
    pub container: String,
    /// What an MP4 or MOV looks like; none for other containers.
    pub mp4: Option<Mp4>,
    /// Length in microseconds, as the container says or libav estimates.
    pub duration_us: Option<u64>,
    /// Whether the container says its length itself; else it is an estimate.
    pub declares_duration: bool,
    /// Whether all bytes are there that the file says it has.
    pub is_whole: bool,
    /// The streams, by index.
    pub streams: Vec<Stream>,
    /// Streams, by index, whose codec's header changes in mid-stream by the container's index. Only MP4 and MOV that are not
    /// fragmented have such an index; of others, packets tell when they come.
    pub changing: Vec<usize>,
    /// What a caller should know.
    pub warnings: Vec<String>,
}

/// Streams that libav may create before it gives up; the limit itself is checked afterwards, with a clear error.
const MOST_STREAMS: u32 = 1000;

/// Opens an input to read it from its start, and checks it against the limits, before anything but its first pictures is
/// decoded.
pub fn open(link: &Link, index: u32, source: &Source, limits: &Limits) -> Done<(Input, Probe)> {
    open_for(link, (index, source), limits, None)
}

/// The same for the first input, to read what the recipe needs of it.
pub fn open_part(link: &Link, source: &Source, limits: &Limits, recipe: &Recipe) -> Done<(Input, Probe)> {
    open_for(link, (0, source), limits, Part::of(recipe).as_ref())
}

fn open_for(
    link: &Link,
    (index, source): (u32, &Source),
    limits: &Limits,
    part: Option<&Part>,
) -> Done<(Input, Probe)> {
    if source.size == Some(0) {
        return Err(Fault::unsupported("the input is empty: 0 bytes"));
    }
    let mut remote = RemoteInput::new(link.clone(), index, source.size);
    let unreadable = |_| Fault::Job(JobFailure::Unreadable);
    let appearance = look(&mut remote).map_err(unreadable)?;
    if appearance == Look::Empty {
        return Err(Fault::unsupported("the input is empty: 0 bytes"));
    }
    if let Some(size) = canvas(&mut remote).map_err(unreadable)? {
        check_size(size, limits)?;
    }
    let is_whole = is_whole(&mut remote, appearance).map_err(unreadable)?;
    let again = || RemoteInput::new(link.clone(), index, source.size);
    let open = |source| open_as(Input::open, source, appearance, limits, false);
    let sparse = match (part, appearance) {
        (Some(part), Look::Mp4(Mp4 { is_fragmented: true, .. })) => open_fragments(again, part, open)?,
        (None, Look::Mp4(Mp4 { is_fragmented: true, .. })) => open_ends(again(), open)?,
        _ => None,
    };
    let is_sparse = sparse.is_some();
    let goes_forward = is_sparse && part.is_none();
    let opened = sparse.map_or_else(|| open(Box::new(remote)), Ok);
    let tracks = match appearance {
        // The index has been read for the most part, and whoever fetched it holds it.
        Look::Mp4(_) => entries::tracks(&mut again()).map_err(unreadable)?,
        Look::Empty | Look::Matroska | Look::Playlist | Look::Text | Look::Html | Look::Other => Vec::new(),
    };
    if let Some(kind) = tracks.iter().find_map(|track| track.encrypted) {
        return Err(encrypted(&String::from_utf8_lossy(&kind)));
    }
    let mut input = opened?;
    check_clear(&input)?;
    if input.format() == "mpegts" {
        check_scrambled(&input, &entries::scrambled(&mut again()).map_err(unreadable)?)?;
    }
    let kinds = part.map_or(&[Kind::Video, Kind::Audio][..], |part| part.kinds);
    if !is_sparse && may_come_late(&input, kinds) {
        input = open_as(Input::open, Box::new(again()), appearance, limits, true)?;
    }
    if let Some(part) = part {
        places::note(&mut again(), &mut input, part.time.start).map_err(unreadable)?;
    }
    let has_false_length = has_false_length(&input) && !is_cut_mp3(&mut again()).map_err(unreadable)?;
    let probe = Probe {
        size: input.size(),
        container: input.format(),
        mp4: if let Look::Mp4(mp4) = appearance { Some(mp4) } else { None },
        duration_us: length_us(&input).filter(|_| !has_false_length),
        declares_duration: input.declares_duration() && !has_false_length,
        is_whole,
        changing: changing(&input, &tracks)?,
        streams: input.streams().to_vec(),
        warnings: Vec::new(),
    };
    check_block(&probe, limits)?;
    check_limits(&probe, limits)?;
    check_index(&input, limits)?;
    check_whole(&input, appearance)?;
    if goes_forward {
        return Ok((open_as(Input::open_forward, Box::new(again()), appearance, limits, false)?, probe));
    }
    Ok((input, probe))
}

/// Refuses a protected input; `what` is the mark by which it was recognised.
fn encrypted(what: &str) -> Fault {
    Fault::unsupported(format!(
        "the input is encrypted (DRM; its mark is `{what}`); only the holder of its licence can play it: use a copy \
         without copy protection"
    ))
}

/// Refuses encryption that libav notes in tags: that of Matroska and WebM (RFC 9559, section 5.1.4.1.31.9), and of ASF.
fn check_clear(input: &Input) -> Done<()> {
    let of_track = input.streams().iter().any(|stream| input.tag(Some(stream.index), "enc_key_id").is_some());
    if of_track {
        return Err(encrypted("ContentEncryption"));
    }
    let of_file = ["ASF_Protection_Type", "ASF_Key_ID"].into_iter().find(|name| input.tag(None, name).is_some());
    of_file.map_or(Ok(()), |name| Err(encrypted(name)))
}

/// Refuses a transport stream of which all video, or all audio, is scrambled. Of several programmes others may be clear.
fn check_scrambled(input: &Input, pids: &[i32]) -> Done<()> {
    let is_scrambled = |kind: Kind| {
        let mut all = input.streams().iter().filter(|stream| stream.kind == kind).peekable();
        all.peek().is_some() && all.all(|stream| pids.contains(&stream.id))
    };
    if is_scrambled(Kind::Video) || is_scrambled(Kind::Audio) {
        return Err(encrypted("transport_scrambling_control"));
    }
    Ok(())
}

/// The streams whose header changes by the index. Fails where a decoder could not follow: libav gives one stream for
/// one track, of the codec that comes first.
fn changing(input: &Input, tracks: &[entries::Track]) -> Done<Vec<usize>> {
    let is_media = |stream: &&Stream| matches!(stream.kind, Kind::Video | Kind::Audio);
    let of = |stream: &Stream| tracks.iter().find(|track| i64::try_from(track.id) == Ok(stream.id.into()));
    let found: Vec<_> =
        input.streams().iter().filter(is_media).filter_map(|stream| Some((stream, of(stream)?))).collect();
    if let Some((stream, [one, other])) = found.iter().find_map(|(stream, track)| Some((stream, track.codecs?))) {
        let [one, other] = [one, other].map(|kind| String::from_utf8_lossy(&kind).into_owned());
        return Err(Fault::unsupported(format!(
            "{} changes its codec in mid-stream, from `{one}` to `{other}`; split the input there",
            describe(stream)
        )));
    }
    Ok(found.into_iter().filter(|(_, track)| track.changes).map(|(stream, _)| stream.index).collect())
}

/// Whether a kind of stream has not been found whose packets may come yet.
fn may_come_late(input: &Input, kinds: &[Kind]) -> bool {
    let is_known = |stream: &Stream| stream.width > 0 || stream.sample_rate > 0;
    kinds.iter().any(|kind| {
        let mut found = input.streams().iter().filter(|stream| stream.kind == *kind).peekable();
        (input.may_find_more() || found.peek().is_some()) && !found.any(is_known)
    })
}

/// The part of an input that a recipe needs, in microseconds from its start.
struct Part {
    time: Range<i64>,
    /// What it needs of it.
    kinds: &'static [Kind],
}

impl Part {
    /// None where it is everything.
    fn of(recipe: &Recipe) -> Option<Self> {
        let part = |start: u64, length: Option<u64>, kinds| {
            let end = length.map_or(u64::MAX, |length| start.saturating_add(length));
            let [start, end] = [start, end].map(|time| i64::try_from(time).unwrap_or(i64::MAX));
            (start > 0 || length.is_some()).then_some(Self { time: start..end, kinds })
        };
        match recipe {
            Recipe::Thumbnail(wanted) => part(wanted.seek_us, Some(0), &[Kind::Video]),
            Recipe::Trim(Trim { cut }) => part(cut.start_us, cut.duration_us, &[Kind::Video, Kind::Audio]),
            Recipe::ExtractAudio(ExtractAudio { cut, .. }) => part(cut.start_us, cut.duration_us, &[Kind::Audio]),
            Recipe::WebReady(_)
            | Recipe::Proxy(_)
            | Recipe::Compress(_)
            | Recipe::Transcode
            | Recipe::Resize(_)
            | Recipe::Concat => None,
        }
    }

    /// Whether these bytes of the input have all packets that the part needs, by its index: a place of each stream where
    /// decoding can begin, as early as it is tried, and something behind the end.
    fn is_within(&self, input: &Input, bytes: &Range<u64>) -> bool {
        let mut begin_us = None;
        let mut is_held = |stream: &Stream| {
            let time = |us: i64| rescale(us, MICROSECONDS, stream.time_base).saturating_add(stream.start.unwrap_or(0));
            let back = || time(self.time.start.saturating_sub(STEP_BACK_US));
            let from = begin_us.map_or_else(back, |us| rescale(us, MICROSECONDS, stream.time_base));
            let begin = input.entry(stream.index, from, true).filter(|(place, _)| bytes.contains(place));
            begin_us = begin_us.or(begin.map(|(_, time)| rescale(time, stream.time_base, MICROSECONDS)));
            let behind = input.entry(stream.index, time(self.time.end).saturating_add(1), false);
            let ends = bytes.end == u64::MAX || behind.is_some_and(|(place, _)| bytes.contains(&place));
            ends && (bytes.start == 0 || begin.is_some())
        };
        let is_wanted = |stream: &&Stream| self.kinds.contains(&stream.kind) && !stream.is_attached_picture;
        let mut streams: Vec<_> = input.streams().iter().filter(is_wanted).collect();
        streams.sort_by_key(|stream| stream.kind != Kind::Video);
        !streams.is_empty() && streams.into_iter().all(&mut is_held)
    }
}

/// Opens an input without most of the fragments that a part of it does not need; none where that cannot be.
fn open_fragments(
    source: impl Fn() -> RemoteInput,
    part: &Part,
    open: impl Fn(Box<dyn ReadAt>) -> Done<Input>,
) -> Done<Option<Input>> {
    /// What is kept around the part: decoding begins at a key picture.
    const AROUND_US: [i64; 2] = [2 * STEP_BACK_US, 10 * STEP_BACK_US];
    for around_us in AROUND_US {
        let mut source = source();
        let around = fragments::around(&mut source, &part.time, around_us);
        let Some(Around { bytes, holes }) = around.map_err(|_| Fault::Job(JobFailure::Unreadable))? else { break };
        let Ok(input) = open(Box::new(Sparse::new(source, holes))) else { break };
        if part.is_within(&input, &bytes) {
            return Ok(Some(input));
        }
    }
    Ok(None)
}

/// Opens an input with its first and its last fragments alone, which tell how long it is; none where that cannot be.
fn open_ends(mut source: RemoteInput, open: impl Fn(Box<dyn ReadAt>) -> Done<Input>) -> Done<Option<Input>> {
    let around = fragments::around(&mut source, &(0..0), 0).map_err(|_| Fault::Job(JobFailure::Unreadable))?;
    let sparse = around.map(|around| Box::new(Sparse::new(source, around.holes)));
    Ok(sparse.and_then(|sparse| open(sparse).ok()))
}

/// Refuses video that nothing here can show in its colours.
pub fn check_colors(stream: &Stream) -> Done<()> {
    if !stream.is_dolby_only {
        return Ok(());
    }
    Err(Fault::unsupported(
        "the video is Dolby Vision without a picture for other players (profile 5), whose colours would come out wrong; \
         export it as SDR, HDR10 or Dolby Vision profile 8",
    ))
}

impl Probe {
    /// What the container says of the length of the tracks that are used, in microseconds; 0 where it says nothing
    /// reliable.
    pub fn declared_us(&self, uses: impl Fn(usize) -> bool) -> i64 {
        if !self.declares_duration {
            return 0;
        }
        let used = self.streams.iter().filter(|stream| uses(stream.index));
        let own = used.clone().filter_map(Stream::duration_us).max();
        // Where tracks have no length of their own, the file's counts only if no other track can be the longest.
        let whole = self.duration_us.filter(|_| used.count() == self.streams.len());
        own.or(whole.and_then(|us| us.try_into().ok())).unwrap_or(0)
    }

    /// Where a track ends, in microseconds from `start_us`, as an MP4 says of each; none for other containers, whose word
    /// is less reliable than that of their last packet.
    pub fn ends_us(&self, stream: &Stream, start_us: i64) -> Option<i64> {
        let end = stream.start.unwrap_or(0).saturating_add(stream.duration.filter(|_| self.mp4.is_some())?);
        Some(rescale(end, stream.time_base, MICROSECONDS) - start_us)
    }

    /// Judges an input of which less came than its container declares, in microseconds. One that was cut is refused.
    /// One that has all of its bytes never had more: the caller is told.
    pub fn check_complete(&self, declared_us: i64, read_us: i64) -> Done<Option<String>> {
        let missing = declared_us.saturating_sub(read_us);
        if missing <= 1_000_000 || missing <= declared_us / 50 {
            return Ok(None);
        }
        let (declared, read) = (declared_us / 1000, read_us / 1000);
        if self.is_whole {
            return Ok(Some(format!("the input says that it is {declared} ms long, but holds only {read} ms")));
        }
        Err(Fault::truncated(format!(
            "the input says that it is {declared} ms long, but ends after {read} ms: it was cut; upload the whole file"
        )))
    }
}

/// Matroska counts its length from zero, whatever it begins with. Some writers of it do not: then it may begin later
/// than it is long. MPEG pictures without a container tell the rate at most that they may have, not their length.
fn length_us(input: &Input) -> Option<u64> {
    if input.format() == "mpegvideo" {
        return None;
    }
    let from_zero = input.format().starts_with("matroska");
    let before = input.start_us().filter(|_| from_zero).and_then(|start| u64::try_from(start).ok());
    input.duration_us().map(|length| before.filter(|before| *before < length).map_or(length, |before| length - before))
}

/// Whether an MP3 says that it is longer than its bytes can be: its first frame, which counts the others, is damaged.
fn has_false_length(input: &Input) -> bool {
    /// Of the lowest bit rate that there is, 8 kbit/s.
    const LEAST_BYTES_PER_SECOND: u64 = 1_000;
    let longest = input.size().filter(|_| input.format() == "mp3").map(|size| size / LEAST_BYTES_PER_SECOND + 1);
    input.duration_us().zip(longest).is_some_and(|(us, seconds)| us / 1_000_000 > seconds)
}

type Open = fn(Box<dyn ReadAt>, OpenLimits) -> xora_av::Result<Input>;

fn open_as(open: Open, source: Box<dyn ReadAt>, appearance: Look, limits: &Limits, looks_far: bool) -> Done<Input> {
    let open_limits = OpenLimits { streams: MOST_STREAMS.max(limits.streams), pixels: limits.pixels, looks_far };
    open(source, open_limits).map_err(|error| match error.kind {
        xora_av::ErrorKind::Source => Fault::Av(error),
        xora_av::ErrorKind::Memory => Fault::too_large(
            format!("the input cannot be opened with at most {} streams and the memory of a job", limits.streams),
            "--max-streams and --max-job-memory-bytes",
        ),
        xora_av::ErrorKind::Sink
        | xora_av::ErrorKind::InvalidData
        | xora_av::ErrorKind::Unsupported
        | xora_av::ErrorKind::NoDecoder
        | xora_av::ErrorKind::NoEncoder
        | xora_av::ErrorKind::NoFilter
        | xora_av::ErrorKind::Option
        | xora_av::ErrorKind::Other => not_media(appearance),
    })
}

/// Why it would not open, in words that say what to do.
fn not_media(appearance: Look) -> Fault {
    match appearance {
        Look::Mp4(Mp4 { boxes: Boxes::NoIndex | Boxes::Cut, .. }) => Fault::truncated(
            "the input is an MP4 or MOV file without its index (`moov`): it was cut, or its recording never finished; \
             upload the whole file",
        ),
        Look::Matroska => Fault::truncated(
            "the input begins as a Matroska or WebM file but ends in its headers; upload the whole file",
        ),
        Look::Mp4(Mp4 { boxes: Boxes::Whole, .. }) => {
            Fault::unsupported("the input looks like MP4 or MOV but its index cannot be read")
        }
        Look::Playlist => Fault::unsupported(
            "the input is a playlist or a list of other files, not media; give the address of the media file itself",
        ),
        Look::Html => Fault::unsupported(
            "the input is a web page, not media; the address may need a login, or points to a player instead of the file",
        ),
        Look::Text => Fault::unsupported("the input is text, not media; check the address"),
        Look::Empty | Look::Other => Fault::unsupported("the input is not a media format that is supported"),
    }
}

fn check_limits(probe: &Probe, limits: &Limits) -> Done<()> {
    // Films with subtitles may bring a hundred fonts. Where libav gave up, nobody knows how many more there are.
    let is_counted = |stream: &&Stream| stream.kind != Kind::Attachment || probe.streams.len() >= MOST_STREAMS as usize;
    let found = probe.streams.iter().filter(is_counted).count();
    if found > limits.streams as usize {
        return Err(Fault::too_large(
            format!("the input has {found} streams; the limit is {}", limits.streams),
            "--max-streams",
        ));
    }
    let longest = limits.duration_seconds.saturating_mul(1_000_000);
    if let Some(duration) = probe.duration_us.filter(|duration| *duration > longest) {
        let (found, limit) = (duration / 1_000_000, limits.duration_seconds);
        return Err(Fault::too_large(
            format!("the input is {found} seconds long; the limit is {limit} seconds"),
            "--max-duration-seconds",
        ));
    }
    let pictures = probe.streams.iter().filter(|stream| stream.kind == Kind::Video);
    pictures.map(|stream| (stream.width, stream.height)).try_for_each(|size| check_size(size, limits))
}

/// A picture by itself is one block, and libav does not say that it was too large.
fn check_block(probe: &Probe, limits: &Limits) -> Done<()> {
    let (most, size) = (xora_av::largest_block(limits.pixels), probe.size.unwrap_or(0));
    let is_unread = |stream: &Stream| stream.kind == Kind::Video && stream.width == 0;
    if size <= most || !probe.container.ends_with("_pipe") || !probe.streams.iter().any(is_unread) {
        return Ok(());
    }
    Err(Fault::too_large(
        format!("the picture has {size} bytes; the limit is {most}, by that of pixels"),
        "--max-pixels",
    ))
}

fn check_size((width, height): (u32, u32), limits: &Limits) -> Done<()> {
    let (pixels, limit) = (u64::from(width) * u64::from(height), limits.pixels);
    if pixels <= limit {
        return Ok(());
    }
    Err(Fault::too_large(
        format!("the pictures are {width}x{height}, which is {pixels} pixels; the limit is {limit}"),
        "--max-pixels",
    ))
}

/// An edit list may show the same few pictures very often: libav's index has each of them as often.
fn check_index(input: &Input, limits: &Limits) -> Done<()> {
    let pictures = input.streams().iter().filter(|stream| stream.kind == Kind::Video);
    let most = pictures.filter_map(|stream| input.index(stream.index)).map(|index| index.entries).max().unwrap_or(0);
    if most <= limits.pictures {
        return Ok(());
    }
    let limit = limits.pictures;
    Err(Fault::too_large(format!("the input has {most} pictures; the limit is {limit}"), "--max-pictures"))
}

/// Refuses a file whose index promises bytes that it does not have.
fn check_whole(input: &Input, appearance: Look) -> Done<()> {
    let (Some(size), Look::Mp4(Mp4 { boxes, .. })) = (input.size(), appearance) else { return Ok(()) };
    let indices: Vec<_> = (0..input.streams().len()).filter_map(|stream| input.index(stream)).collect();
    let promised = indices.iter().map(|index| index.end).max().unwrap_or(0);
    // Fragments have no index of the whole file, so there only the boxes tell.
    if promised > size || (boxes == Boxes::Cut && indices.iter().all(|index| index.end <= 1)) {
        let needed = promised.max(size + 1);
        return Err(Fault::truncated(format!(
            "the input was cut: it has {size} bytes, but its index needs at least {needed}; upload the whole file"
        )));
    }
    Ok(())
}
