//! Leaving out the fragments of an MP4 that a part of it does not need.
//!
//! Their index is spread over the file, and libav reads all of it before anything else: of a long film, at thousands of
//! places. So the fragments around the part are looked for by their times, and what lies between them and the first and
//! last ones is shown to libav as an empty box. All that it still sees is where it was.

use std::{io, ops::Range};

use xora_av::ReadAt;

use crate::job::{
    look::{self, behind_segments, box_at, find, number},
    places::{self, Begins, HEAD, MOST_AT_ONCE, NEAR, bytes, scan},
};

/// The first fragments, which are kept: they tell what the tracks are, and when they begin. So many, of so many bytes.
const FIRST: usize = 4;
const FIRST_BYTES: u64 = 256 << 10;
/// The most bytes in which the last fragments are looked for.
const LAST_BYTES: u64 = 4 << 20;
/// How much less than in front of the part is kept behind it: there, no picture has to be found to begin at.
const AROUND_END: i64 = 20;
/// How many bytes come in the time of one round trip, on a fast line.
const ROUND_TRIP: u64 = 512 << 10;
/// About how often a place is guessed, in the midst of a fragment: half of it is read to come to the next one.
const GUESSES: u64 = 8;

/// A source of which some ranges, in order, are shown as empty boxes.
pub struct Sparse<R> {
    source: R,
    holes: Vec<Range<u64>>,
}

impl<R: ReadAt> Sparse<R> {
    /// Each range must begin and end where boxes do.
    pub fn new(source: R, holes: Vec<Range<u64>>) -> Self {
        Self { source, holes }
    }
}

impl<R: ReadAt> ReadAt for Sparse<R> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(hole) = self.holes.iter().find(|hole| offset < hole.end) else {
            return self.source.read_at(offset, buffer);
        };
        let end = if offset < hole.start { hole.start } else { hole.end };
        let length = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..length];
        if offset < hole.start {
            return self.source.read_at(offset, buffer);
        }
        // A box that tells its length in 64 bits (ISO 14496-12, section 4.2).
        let head = [&1_u32.to_be_bytes()[..], b"free", &(hole.end - hole.start).to_be_bytes()].concat();
        let rest = usize::try_from(offset - hole.start).ok().and_then(|from| head.get(from..)).unwrap_or(&[]);
        let headed = rest.len().min(length);
        buffer.fill(0);
        buffer[..headed].copy_from_slice(&rest[..headed]);
        Ok(length)
    }

    fn size(&self) -> Option<u64> {
        self.source.size()
    }

    fn expect(&mut self, range: Range<u64>) {
        self.source.expect(range);
    }

    fn expect_only(&mut self, places: Vec<Range<u64>>) {
        self.source.expect_only(places);
    }
}

/// What is read of a film.
pub struct Around {
    /// Where the part is that is wanted, with what is around it.
    pub bytes: Range<u64>,
    /// What can be left out.
    pub holes: Vec<Range<u64>>,
}

/// What can be left out where only this part is wanted, in microseconds from the start, with as much around it; none
/// where fragments do not tell their times, or everything is needed.
pub fn around(source: &mut dyn ReadAt, part: &Range<i64>, around_us: i64) -> io::Result<Option<Around>> {
    let Some(mut film) = Film::open(source)? else { return Ok(None) };
    let Some((first, kept)) = film.first()? else { return Ok(None) };
    let Some(last) = film.last(kept.start, &kept.tracks)? else { return Ok(None) };
    let at = |time_us: i64| first.time_us.saturating_add(time_us);
    let from = at(part.start).min(last.time_us).saturating_sub(around_us);
    let start = film.search(kept.clone(), &last, from)?;
    let until = at(part.end).saturating_add(around_us / AROUND_END);
    let mut end = film.search(start.clone(), &last, until)?;
    while end.time_us <= until && end.start < last.start {
        let behind = film.behind(end.end)?;
        end = film.next(behind)?.filter(|next| next.start < last.start).unwrap_or_else(|| last.clone());
    }
    let from = if start.start > kept.start { start.start } else { 0 };
    let to = if end.start < last.start { end.start } else { u64::MAX };
    let mut holes = vec![kept.start..start.start, end.start..last.start];
    holes.retain(|hole| !hole.is_empty());
    Ok((!holes.is_empty()).then_some(Around { bytes: from..to, holes }))
}

/// A fragment, or several that follow each other and count as one.
#[derive(Clone)]
struct Fragment {
    /// Where its boxes begin, behind the media of the one before.
    start: u64,
    /// Where its index ends.
    end: u64,
    /// When it begins, in microseconds: its last track to begin.
    time_us: i64,
    tracks: Vec<u64>,
}

impl Begins for Fragment {
    fn begins(&self) -> (u64, i64) {
        (self.start, self.time_us)
    }
}

struct Film<'a> {
    source: &'a mut dyn ReadAt,
    size: u64,
    /// Where the fragments begin.
    begin: u64,
    /// How many bytes are looked at together, to find the next one.
    step: u64,
    /// The tracks, and how many ticks of them make a second.
    scales: Vec<(u64, u64)>,
}

impl<'a> Film<'a> {
    fn open(source: &'a mut dyn ReadAt) -> io::Result<Option<Self>> {
        let (Some(size), Some(index)) = (source.size(), find(source, 0..u64::MAX, *b"moov")?) else { return Ok(None) };
        let (begin, mut scales, mut rest) = (index.end, Vec::new(), index);
        while let Some(track) = find(source, rest.clone(), *b"trak")? {
            rest.start = track.end;
            let Some(header) = find(source, track.clone(), *b"tkhd")? else { continue };
            let Some(media) = find(source, track, *b"mdia")? else { continue };
            let Some(clock) = find(source, media, *b"mdhd")? else { continue };
            let track = number(source, header.start, [12, 20], [4, 4])?;
            scales.push((track, number(source, clock.start, [12, 20], [4, 4])?.max(1)));
        }
        Ok(Some(Self { source, size, begin, step: NEAR, scales }))
    }

    /// The first fragment, and the one before which all are kept, with the tracks of those; none where there are few.
    fn first(&mut self) -> io::Result<Option<(Fragment, Fragment)>> {
        let Some(first) = self.next(self.begin)? else { return Ok(None) };
        let (mut tracks, mut fragment) = (Vec::new(), first.clone());
        for count in 1_usize.. {
            tracks.append(&mut fragment.tracks);
            let behind = self.behind(fragment.end)?;
            let Some(next) = self.next(behind)? else { return Ok(None) };
            fragment = next;
            if count >= FIRST && behind - first.start >= FIRST_BYTES {
                let each = ((behind - first.start) / count as u64).max(1);
                // They are so long that going through all of them takes less.
                if GUESSES * each / 2 > self.size / each * ROUND_TRIP {
                    return Ok(None);
                }
                self.step = each.clamp(NEAR, MOST_AT_ONCE);
                break;
            }
        }
        tracks.sort_unstable();
        tracks.dedup();
        fragment.tracks = tracks;
        Ok(Some((first, fragment)))
    }

    /// The last fragments behind a place, as many as hold something of all these tracks.
    fn last(&mut self, after: u64, tracks: &[u64]) -> io::Result<Option<Fragment>> {
        let (mut end, mut length) = (self.size, NEAR);
        let mut found: Option<Fragment> = None;
        while end > after && self.size - end < LAST_BYTES {
            let start = end.saturating_sub(length).max(after);
            let mut bytes = bytes(self.source, start..end.saturating_add(HEAD as u64))?;
            while let Some(place) = bytes.windows(HEAD).rposition(is_fragment) {
                bytes.truncate(place + HEAD - 1);
                let Some(fragment) = self.next(start + place as u64)? else { return Ok(None) };
                let last = found.get_or_insert_with(|| fragment.clone());
                last.start = fragment.start;
                last.tracks.extend(fragment.tracks);
                if tracks.iter().all(|track| last.tracks.contains(track)) {
                    return Ok(found);
                }
            }
            (end, length) = (start, length * 2);
        }
        Ok(None)
    }

    /// The last fragment that begins at or before a time, or one shortly before it.
    fn search(&mut self, before: Fragment, last: &Fragment, time_us: i64) -> io::Result<Fragment> {
        if time_us >= last.time_us {
            return Ok(last.clone());
        }
        places::search(before, (last.start, Some(last.time_us)), time_us, |range| self.fragment_behind(range))
    }

    /// The second fragment that begins in a range, because only then is it known where its boxes begin.
    fn fragment_behind(&mut self, range: Range<u64>) -> io::Result<Option<Fragment>> {
        let Some(found) = scan(self.source, range.clone(), self.step, is_fragment)? else { return Ok(None) };
        let Some(fragment) = self.next(found)? else { return Ok(None) };
        let behind = self.behind(fragment.end)?;
        Ok(self.next(behind)?.filter(|fragment| fragment.start < range.end))
    }

    /// The first fragment of those whose boxes begin here.
    fn next(&mut self, start: u64) -> io::Result<Option<Fragment>> {
        let mut at = start;
        while let Some(look::Head { kind, body, end }) = box_at(self.source, at)? {
            match &kind {
                b"moof" => return self.fragment(start, body..end),
                // One that goes on to the end tells libav all about it.
                b"sidx" if self.size.saturating_sub(behind_segments(self.source, body, end)?) < NEAR => break,
                b"styp" | b"sidx" | b"ssix" | b"prft" | b"emsg" | b"free" | b"skip" | b"uuid" | b"mdat" => at = end,
                _ => break,
            }
        }
        Ok(None)
    }

    /// Where the media ends that follows here.
    fn behind(&mut self, mut at: u64) -> io::Result<u64> {
        while let Some(media) = box_at(self.source, at)?.filter(|media| media.kind == *b"mdat") {
            at = media.end;
        }
        Ok(at)
    }

    /// Reads the index of a fragment (ISO 14496-12, sections 8.8.6, 8.8.7 and 8.8.12).
    fn fragment(&mut self, start: u64, mut index: Range<u64>) -> io::Result<Option<Fragment>> {
        let mut fragment = Fragment { start, end: index.end, time_us: i64::MIN, tracks: Vec::new() };
        while let Some(part) = find(self.source, index.clone(), *b"traf")? {
            index.start = part.end;
            let header = find(self.source, part.clone(), *b"tfhd")?;
            let (Some(header), Some(time)) = (header, find(self.source, part, *b"tfdt")?) else { return Ok(None) };
            let track = number(self.source, header.start, [4, 4], [4, 4])?;
            let time = number(self.source, time.start, [4, 4], [4, 8])?;
            let Some((_, scale)) = self.scales.iter().find(|(known, _)| *known == track) else { return Ok(None) };
            let time_us = i64::try_from(u128::from(time) * 1_000_000 / u128::from(*scale)).unwrap_or(i64::MAX);
            fragment.time_us = fragment.time_us.max(time_us);
            fragment.tracks.push(track);
        }
        Ok(Some(fragment).filter(|fragment| !fragment.tracks.is_empty()))
    }
}

/// Whether these bytes are those that every fragment begins with, but for its length.
fn is_fragment(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, _, b'm', b'o', b'o', b'f', 0, 0, 0, 16, b'm', b'f', b'h', b'd'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::bomb_test::boxed;

    /// A film of boxes, whose media is zeros.
    struct Boxes {
        heads: Vec<(u64, Vec<u8>)>,
        size: u64,
        read: u64,
    }

    impl Boxes {
        /// So many fragments of so many bytes each, a second long.
        fn of(count: u32, each: u32) -> Self {
            let track = boxed(
                *b"trak",
                &[boxed(*b"tkhd", &[vec![0; 12], word(1)].concat()), boxed(*b"mdia", &clock())].concat(),
            );
            let head = boxed(*b"moov", &track);
            let begin = head.len() as u64;
            let fragments = (0..count).map(|number| {
                let time = boxed(*b"tfdt", &[word(0), word(number)].concat());
                let part = boxed(*b"traf", &[boxed(*b"tfhd", &[word(0), word(1)].concat()), time].concat());
                let index = boxed(*b"moof", &[boxed(*b"mfhd", &[word(0), word(number)].concat()), part].concat());
                let media = each - u32::try_from(index.len()).expect("short");
                let at = begin + u64::from(number) * u64::from(each);
                (at, [index, word(media), b"mdat".to_vec()].concat())
            });
            let heads = [(0, head)].into_iter().chain(fragments).collect();
            Self { heads, size: begin + u64::from(count) * u64::from(each), read: 0 }
        }
    }

    fn word(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    /// One tick for each second.
    fn clock() -> Vec<u8> {
        boxed(*b"mdhd", &[vec![0; 12], word(1)].concat())
    }

    impl ReadAt for Boxes {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let length = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
            let buffer = &mut buffer[..length];
            buffer.fill(0);
            for (start, head) in &self.heads {
                for (at, byte) in (*start..).zip(head).filter(|(at, _)| *at >= offset) {
                    match usize::try_from(at - offset).ok().and_then(|at| buffer.get_mut(at)) {
                        Some(place) => *place = *byte,
                        None => break,
                    }
                }
            }
            self.read += length as u64;
            Ok(length)
        }

        fn size(&self) -> Option<u64> {
            Some(self.size)
        }
    }

    #[test]
    fn many_fragments_are_left_out_and_few_long_ones_are_not_looked_for() {
        for (count, each, is_searched) in [(600, 1 << 20, true), (20, 100 << 20, false)] {
            let mut film = Boxes::of(count, each);
            let part = i64::from(count) * 600_000..i64::from(count) * 600_000;
            let around = around(&mut film, &part, 2_000_000).expect("read");
            let left_out: u64 = around.iter().flat_map(|around| &around.holes).map(|hole| hole.end - hole.start).sum();
            assert_eq!(left_out > film.size / 2, is_searched, "{count}: {left_out} of {}", film.size);
            assert!(film.read < 16 << 20, "{count}: {} of {}", film.read, film.size);
        }
    }
}
