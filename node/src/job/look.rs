//! What a file looks like from its first bytes, for what libav cannot tell: why it would not open.

use std::{io, ops::Range};

use xora_av::ReadAt;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing at all.
    Empty,
    /// MP4 or MOV.
    Mp4(Mp4),
    /// Matroska or WebM.
    Matroska,
    /// A list of other files (HLS, ffconcat, SDP, DASH).
    Playlist,
    /// Text.
    Text,
    /// A web page.
    Html,
    /// Anything else.
    Other,
}

/// What the top-level boxes of an MP4 or MOV tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mp4 {
    /// Whether they are all there.
    pub boxes: Boxes,
    /// The index comes before the media, so that a player can begin at once.
    pub is_index_first: bool,
    /// The index is spread over the file.
    pub is_fragmented: bool,
    /// It calls itself QuickTime, or is older than MP4.
    pub is_quicktime: bool,
}

/// The state of the top-level boxes of an MP4 or MOV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boxes {
    /// All there.
    Whole,
    /// There is no index, and the file ends.
    NoIndex,
    /// A box says that it goes on behind the end of the file.
    Cut,
}

/// Bytes that are looked at.
const HEAD: usize = 1024;
/// Boxes that are looked at; more are fragments, whose index is spread over the file.
const BOXES: usize = 64;

/// Looks at the first bytes, and at the heads of the boxes of an MP4. Fails only as the source fails.
pub fn look(source: &mut dyn ReadAt) -> io::Result<Look> {
    let mut head = vec![0; HEAD];
    let length = read_full(source, 0, &mut head)?;
    head.truncate(length);
    Ok(match first_impression(&head) {
        Look::Mp4(first) => Look::Mp4(walk(source, first)?),
        known @ (Look::Empty | Look::Matroska | Look::Playlist | Look::Text | Look::Html | Look::Other) => known,
    })
}

fn first_impression(head: &[u8]) -> Look {
    if head.is_empty() {
        return Look::Empty;
    }
    if matches!(head.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"skip" | b"free" | b"pnot")) {
        let is_quicktime = head.get(4..8) != Some(b"ftyp") || head.get(8..12) == Some(b"qt  ");
        return Look::Mp4(Mp4 { boxes: Boxes::Whole, is_index_first: false, is_fragmented: false, is_quicktime });
    }
    if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return Look::Matroska;
    }
    let Ok(text) = std::str::from_utf8(head.get(..head.len().min(HEAD - 4)).unwrap_or(head)) else {
        return Look::Other;
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text.get(..text.len().min(64)).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("#extm3u")
        || lower.starts_with("ffconcat")
        || lower.starts_with("v=0")
        || text.contains("<MPD")
    {
        Look::Playlist
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        Look::Html
    } else if text.bytes().all(|byte| byte >= 0x20 || byte.is_ascii_whitespace()) {
        Look::Text
    } else {
        Look::Other
    }
}

/// Width and height of a PNG or GIF by its own header, in pixels: libav does not say how large a picture was that it
/// refused for its size.
pub fn canvas(source: &mut dyn ReadAt) -> io::Result<Option<(u32, u32)>> {
    let mut head = [0; 24];
    let length = read_full(source, 0, &mut head)?;
    Ok(match head {
        [0x89, b'P', b'N', b'G', .., w0, w1, w2, w3, h0, h1, h2, h3] if length == head.len() => {
            Some((u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3])))
        }
        [b'G', b'I', b'F', b'8', _, b'a', w0, w1, h0, h1, ..] => {
            Some((u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into()))
        }
        _ => None,
    })
}

/// Whether a file has all the bytes that it says it has, so that media which its headers promise and which does not
/// come was never there. False where it does not say.
pub fn is_whole(source: &mut dyn ReadAt, appearance: Look) -> io::Result<bool> {
    let Some(size) = source.size() else { return Ok(false) };
    Ok(match appearance {
        Look::Mp4(mp4) => mp4.boxes == Boxes::Whole && !mp4.is_fragmented,
        Look::Matroska => segment_end(source)?.is_some_and(|end| end <= size),
        Look::Other => match riff_end(source)?.or(mp3_end(source)?) {
            Some(end) => end <= size,
            None => ends_with_tag(source, size)?,
        },
        Look::Empty | Look::Playlist | Look::Text | Look::Html => false,
    })
}

/// Whether an MP3 is a piece of a longer one, by the bytes that its first frame counts. More than a hundred times what is there is
/// a damaged count, not a cut file.
pub fn is_cut_mp3(source: &mut dyn ReadAt) -> io::Result<bool> {
    let Some(size) = source.size() else { return Ok(false) };
    Ok(mp3_end(source)?.is_some_and(|end| end > size && end / 100 < size))
}

/// Where the segment of Matroska ends, which holds everything but its header; none where it does not say.
fn segment_end(source: &mut dyn ReadAt) -> io::Result<Option<u64>> {
    const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
    // RFC 8794, section 4: the zeros before the first one tell how long a number is; all ones, it is not known.
    let size_at = |source: &mut dyn ReadAt, place: u64| -> io::Result<Option<(u64, u64)>> {
        let mut bytes = [0; 8];
        read_full(source, place, &mut bytes)?;
        let length = bytes[0].leading_zeros() + 1;
        if length > 8 {
            return Ok(None);
        }
        let marker = 1 << (7 * length);
        let value = (u64::from_be_bytes(bytes) >> (64 - 8 * length)) & !marker;
        Ok((value + 1 != marker).then_some((place.saturating_add(length.into()), value)))
    };
    let Some((body, length)) = size_at(source, 4)? else { return Ok(None) };
    let mut id = [0; 4];
    let segment = body.saturating_add(length);
    read_full(source, segment, &mut id)?;
    if id != SEGMENT {
        return Ok(None);
    }
    Ok(size_at(source, segment + 4)?.map(|(body, length)| body.saturating_add(length)))
}

/// Where the last of the chunks of a RIFF file ends (AVI has several, from 1 GB on); none for what is no such file. That
/// of RF64 has its length in 64 bits, in the chunk that follows (EBU Tech 3306).
fn riff_end(source: &mut dyn ReadAt) -> io::Result<Option<u64>> {
    let mut first = [0; 28];
    read_full(source, 0, &mut first)?;
    if let [
        b'R',
        b'F',
        b'6',
        b'4',
        _,
        _,
        _,
        _,
        b'W',
        b'A',
        b'V',
        b'E',
        b'd',
        b's',
        b'6',
        b'4',
        _,
        _,
        _,
        _,
        length @ ..,
    ] = first
    {
        return Ok(Some(u64::from_le_bytes(length).saturating_add(8)));
    }
    let mut end = None;
    for _ in 0..BOXES {
        let (mut head, at) = ([0; 8], end.unwrap_or(0));
        read_full(source, at, &mut head)?;
        let [b'R', b'I', b'F', b'F', l0, l1, l2, l3] = head else { break };
        match u32::from_le_bytes([l0, l1, l2, l3]) {
            0 | u32::MAX => return Ok(None),
            length => end = Some(at + 8 + u64::from(length)),
        }
    }
    Ok(end)
}

/// Whether FLV ends where one of its tags does: behind each stands how long it is.
fn ends_with_tag(source: &mut dyn ReadAt, size: u64) -> io::Result<bool> {
    let (mut head, mut last, mut tag) = ([0; 3], [0; 4], [0; 4]);
    read_full(source, 0, &mut head)?;
    let Some(end) = size.checked_sub(4).filter(|_| head == *b"FLV") else { return Ok(false) };
    read_full(source, end, &mut last)?;
    let length = u32::from_be_bytes(last);
    let Some(start) = end.checked_sub(length.into()) else { return Ok(false) };
    read_full(source, start, &mut tag)?;
    // Eleven bytes of a tag come before what it counts.
    let [8 | 9 | 18, l0, l1, l2] = tag else { return Ok(false) };
    Ok(u32::from_be_bytes([0, l0, l1, l2]) + 11 == length)
}

/// Where MP3 ends by its first frame, in which encoders say how many bytes follow; none where it does not say.
fn mp3_end(source: &mut dyn ReadAt) -> io::Result<Option<u64>> {
    let mut tag = [0; 10];
    read_full(source, 0, &mut tag)?;
    let begins = match tag {
        [b'I', b'D', b'3', _, _, _, l0, l1, l2, l3] => {
            10 + [l0, l1, l2, l3].iter().fold(0, |length, byte| length << 7 | u64::from(byte & 0x7f))
        }
        _ => 0,
    };
    let mut frame = [0; 64];
    read_full(source, begins, &mut frame)?;
    let place = frame.windows(4).position(|name| name == b"Xing" || name == b"Info");
    let Some(place) = place.filter(|_| frame[0] == 0xff && frame[1] >= 0xe0) else { return Ok(None) };
    let number = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    // What is said: the count of frames, then of bytes.
    let says = number(place + 4).unwrap_or(0);
    let bytes = number(place + if says & 1 == 0 { 8 } else { 12 }).filter(|_| says & 2 != 0);
    Ok(bytes.map(|bytes| begins + u64::from(bytes)))
}

/// When each track of an MP4 or MOV ends by its own header, in microseconds of the file. The times of its packets say
/// it only where the last to be decoded is the last to be shown.
pub fn track_ends(source: &mut dyn ReadAt) -> io::Result<Vec<u64>> {
    let Some(index) = find(source, 0..u64::MAX, *b"moov")? else { return Ok(Vec::new()) };
    // ISO 14496-12, sections 8.2.2 and 8.3.2: behind times that have 32 or 64 bits, as the version says.
    let Some(movie) = find(source, index.clone(), *b"mvhd")? else { return Ok(Vec::new()) };
    let scale = number(source, movie.start, [12, 20], [4, 4])?.max(1);
    let (mut ends, mut rest) = (Vec::new(), index);
    while let Some(track) = find(source, rest.clone(), *b"trak")? {
        if let Some(header) = find(source, track.clone(), *b"tkhd")? {
            let length = number(source, header.start, [20, 28], [4, 8])?;
            ends.push(u64::try_from(u128::from(length) * 1_000_000 / u128::from(scale)).unwrap_or(u64::MAX));
        }
        rest.start = track.end;
    }
    Ok(ends)
}

/// What the first box of a kind holds, of those in a range.
pub(super) fn find(source: &mut dyn ReadAt, within: Range<u64>, kind: [u8; 4]) -> io::Result<Option<Range<u64>>> {
    let mut position = within.start;
    while let Some(found) = box_at(source, position)?.filter(|_| position < within.end) {
        if found.kind == kind {
            return Ok(Some(found.body..found.end));
        }
        position = found.end;
    }
    Ok(None)
}

/// A number in a box that comes in two versions, by its place behind the version and its length in bytes.
pub(super) fn number(source: &mut dyn ReadAt, body: u64, places: [u64; 2], lengths: [usize; 2]) -> io::Result<u64> {
    let (mut version, mut bytes) = ([0], [0; 8]);
    read_full(source, body, &mut version)?;
    let which = usize::from(version[0] == 1);
    read_full(source, body + places[which], &mut bytes[8 - lengths[which]..])?;
    Ok(u64::from_be_bytes(bytes))
}

/// The head of a box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: [u8; 4],
    /// Where what it holds begins and ends, in bytes; [`u64::MAX`] for the end of the file.
    pub(super) body: u64,
    pub(super) end: u64,
}

pub(super) fn box_at(source: &mut dyn ReadAt, position: u64) -> io::Result<Option<Head>> {
    let mut head = [0; 16];
    if read_full(source, position, &mut head)? < 8 {
        return Ok(None);
    }
    let [s0, s1, s2, s3, kind @ .., l0, l1, l2, l3, l4, l5, l6, l7] = head;
    let (body, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => (8, u64::MAX),
        1 => (16, u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7])),
        size => (8, u64::from(size)),
    };
    Ok(Some(Head { kind, body: position.saturating_add(body), end: position.saturating_add(size.max(8)) }))
}

/// Goes from box to box.
fn walk(source: &mut dyn ReadAt, mut found: Mp4) -> io::Result<Mp4> {
    let mut position = 0_u64;
    let (mut has_index, mut has_media) = (false, false);
    let ended = |has_index| if has_index { Boxes::Whole } else { Boxes::NoIndex };
    for count in 0..BOXES {
        let Some(Head { kind, body, end }) = box_at(source, position)? else {
            return Ok(Mp4 { boxes: ended(has_index), ..found });
        };
        has_index |= kind == *b"moov";
        has_media |= kind == *b"mdat";
        found.is_index_first |= kind == *b"moov" && !has_media;
        found.is_fragmented |= kind == *b"moof";
        position = end;
        if kind == *b"sidx" {
            position = behind_segments(source, body, end)?;
            found.is_fragmented |= position > end;
        }
        if end == u64::MAX {
            return Ok(Mp4 { boxes: ended(has_index), ..found });
        }
        if source.size().is_some_and(|size| end > size) {
            return Ok(Mp4 { boxes: Boxes::Cut, ..found });
        }
        // Fragments of much the same length, of which the last would not be reached.
        let reached = position / (count as u64 + 1) * BOXES as u64;
        if found.is_fragmented && count >= 8 && source.size().is_some_and(|size| reached < size) {
            break;
        }
    }
    Ok(found)
}

/// Where the segments end that an index in front of them tells of (ISO 14496-12, section 8.16.3): so none of them has
/// to be looked at. It is not believed where it says that they go on behind the end of the file.
pub(super) fn behind_segments(source: &mut dyn ReadAt, body: u64, end: u64) -> io::Result<u64> {
    const ENTRY: u64 = 12;
    let gap = number(source, body, [16, 20], [4, 8])?;
    let length = number(source, body, [22, 30], [2, 2])? * ENTRY;
    let mut entries = vec![0; usize::try_from(length).unwrap_or(0)];
    read_full(source, end.saturating_sub(length), &mut entries)?;
    let mut behind = end.saturating_add(gap);
    for entry in entries.chunks_exact(usize::try_from(ENTRY).unwrap_or(1)) {
        // The first bit is not of the size.
        let size = entry.first_chunk().map_or(0, |size| u32::from_be_bytes(*size) & 0x7fff_ffff);
        behind = behind.saturating_add(size.into());
    }
    Ok(if source.size().is_some_and(|size| behind <= size) { behind } else { end })
}

pub(super) fn read_full(source: &mut dyn ReadAt, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(offset + filled as u64, &mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let start = usize::try_from(offset).expect("small");
            let rest = self.0.get(start..).unwrap_or(&[]);
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        }

        fn size(&self) -> Option<u64> {
            Some(self.0.len() as u64)
        }
    }

    fn of(bytes: &[u8]) -> Look {
        look(&mut Bytes(bytes.to_vec())).expect("read")
    }

    #[test]
    fn text_playlists_and_pages_are_told_apart() {
        assert_eq!(of(b""), Look::Empty);
        assert_eq!(of(b"hello\n"), Look::Text);
        assert_eq!(of(b"#EXTM3U\n/etc/passwd"), Look::Playlist);
        assert_eq!(of(b"ffconcat version 1.0\nfile x"), Look::Playlist);
        assert_eq!(of(b"<!DOCTYPE html><p>not found"), Look::Html);
        assert_eq!(of(&[0x1a, 0x45, 0xdf, 0xa3, 1]), Look::Matroska);
        assert_eq!(of(&[0xff, 0xfe, 0, 1]), Look::Other);
    }

    #[test]
    fn a_file_tells_whether_all_of_it_is_there() {
        let whole = |bytes: &[u8]| {
            let mut source = Bytes(bytes.to_vec());
            let appearance = look(&mut source).expect("read");
            is_whole(&mut source, appearance).expect("read")
        };
        let matroska = b"\x1a\x45\xdf\xa3\x82xx\x18\x53\x80\x67";
        for (size, expected) in [(b"\x83".as_slice(), true), (b"\x84", false), (b"\xff", false), (b"\0", false)] {
            assert_eq!(whole(&[matroska, size, b"yyy"].concat()), expected, "{size:?}");
        }
        assert!(whole(&[matroska, b"\x01\0\0\0\0\0\0\x03yyy".as_slice()].concat()));
        let chunk = |length: u32| [b"RIFF".as_slice(), &length.to_le_bytes(), b"AVI \xff\xff"].concat();
        let long = |length: u64| [b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".as_slice(), &length.to_le_bytes()].concat();
        assert!(whole(&long(20)) && !whole(&long(21)));
        assert!(whole(&chunk(6)) && whole(&[chunk(6), chunk(6)].concat()) && whole(&[chunk(6), chunk(4)].concat()));
        assert!(!whole(&chunk(7)) && !whole(&[chunk(6), chunk(7)].concat()) && !whole(&chunk(0)));
        let mp3 = [b"ID3\x04\0\0\0\0\0\x01x\xff\xfbXing\0\0\0\x03\0\0\0\x05\0\0\0\x15".as_slice(), &[0; 3]].concat();
        let flv = [b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\0\0\x02".as_slice(), &[0; 9], &[0, 0, 0, 13]].concat();
        assert!(whole(&flv) && !whole(&flv[..flv.len() - 1]));
        assert!(whole(&mp3) && !whole(&mp3[..mp3.len() - 1]));
        assert!(whole(b"\0\0\0\x08moov\0\0\0\x09mdatx") && !whole(b"\0\0\0\x08moov\0\0\0\x0amdatx"));
    }

    #[test]
    fn an_mp4_tells_whether_it_was_cut() {
        let file_type = b"\0\0\0\x10ftypisom\0\0\0\0";
        let with = |rest: &[u8]| {
            let Look::Mp4(found) = of(&[file_type, rest].concat()) else { panic!("an MP4") };
            found
        };
        let whole = with(b"\0\0\0\x08moov\0\0\0\x09mdatx");
        assert_eq!((whole.boxes, whole.is_index_first), (Boxes::Whole, true));
        assert_eq!(with(b"\0\0\0\x09mdatx").boxes, Boxes::NoIndex);
        assert_eq!(with(b"\0\0\0\x08moov\0\0\x09\x09mdatx").boxes, Boxes::Cut);
        let last = with(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x11x\0\0\0\x08moov");
        assert_eq!((last.boxes, last.is_index_first, last.is_fragmented), (Boxes::Whole, false, false));
        assert!(with(b"\0\0\0\x08moov\0\0\0\x08moof\0\0\0\x09mdatx").is_fragmented);
    }

    #[test]
    fn segments_that_an_index_tells_of_are_not_looked_at_unless_they_are_not_there() {
        // Of two segments, 100 bytes each, with a gap of 8 in front of them.
        let index = [&[0, 0, 0, 56][..], b"sidx", &[0; 16], &[0, 0, 0, 8], &[0, 0, 0, 2]].concat();
        let entry = [&[0, 0, 0, 100][..], &[0; 8]].concat();
        let head = [b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08moov", &index[..], &entry, &entry].concat();
        let of_length = |length| of(&[&head[..], b"\0\0\0\x08free", &vec![0xff; length]].concat());
        let whole = Mp4 { boxes: Boxes::Whole, is_index_first: true, is_fragmented: true, is_quicktime: false };
        assert_eq!(of_length(200), Look::Mp4(whole));
        assert_eq!(of_length(199), Look::Mp4(Mp4 { boxes: Boxes::Cut, is_fragmented: false, ..whole }));
    }
}
