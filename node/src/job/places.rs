//! Noting places of films whose containers could have an index of them and have none: Matroska, WebM and FLV as they are
//! recorded live. Without one, libav reads everything before the part that is wanted.
//!
//! What is found is where something stands and when it begins, which is true wherever it is: what is read from there on
//! is what would have been read coming from the start.

use std::{io, ops::Range};

use xora_av::{Input, MICROSECONDS, ReadAt, rescale};

use crate::job::look::read_full;

/// Where places lie less than so many bytes apart, none is looked for between them; and how many are looked at first.
pub const NEAR: u64 = 64 << 10;
/// The most bytes that are looked at together.
pub const MOST_AT_ONCE: u64 = 512 << 10;
/// Bytes by which something is recognised.
pub const HEAD: usize = 16;
/// How exactly a time is looked for at first, in microseconds, and how often.
const CLOSE_US: i64 = 4_000_000;
const STEPS: usize = 24;
/// How far before a part places are noted, in microseconds: from the last one on there is mostly a picture that decoding
/// can begin at, and before [`STEP_BACK_US`](super::still::STEP_BACK_US) another.
const BEFORE_US: [i64; 2] = [20_000_000, 5_000_000];
/// The bytes in which a container tells that it has an index.
const START: u64 = 64 << 10;
/// In how many bytes the next cluster or tag is looked for, and how often one may turn out to be none.
const LONGEST: u64 = 16 << 20;
const MISTAKES: usize = 64;

/// What begins at a place, in bytes, and at a time, in microseconds.
pub trait Begins {
    /// Place and time.
    fn begins(&self) -> (u64, i64);
}

impl Begins for (u64, i64) {
    fn begins(&self) -> (u64, i64) {
        *self
    }
}

/// The last place that is found at or before a time, or one shortly before it: between a first one, and where everything
/// ends and when, if that is known. `find` looks for the first one in a range of bytes.
pub fn search<P: Begins>(
    mut before: P,
    (mut end, mut end_us): (u64, Option<i64>),
    time_us: i64,
    mut find: impl FnMut(Range<u64>) -> io::Result<Option<P>>,
) -> io::Result<P> {
    let mut close_us = CLOSE_US;
    for _ in 0..STEPS {
        let (start, start_us) = before.begins();
        let (room, time) = (end.saturating_sub(start), time_us.saturating_sub(start_us));
        if time <= 2 * close_us || room <= NEAR {
            break;
        }
        // Bytes follow time, more or less: what was missed is aimed at less closely.
        let share = end_us.map_or(u128::from(room / 2), |end_us| {
            u128::from(room) * u128::from((time - close_us).unsigned_abs())
                / u128::from(end_us.saturating_sub(start_us).max(1).unsigned_abs())
        });
        let guess = start + u64::try_from(share).unwrap_or(room).min(room - 1);
        match find(guess..end)? {
            // The clock starts again: what is found by it is not what comes first.
            Some(found) if found.begins().1 < start_us => break,
            Some(found) if found.begins().1 <= time_us => before = found,
            found => {
                (end, end_us) = (guess, found.map(|found| found.begins().1).or(end_us));
                close_us = close_us.saturating_mul(2);
            }
        }
    }
    Ok(before)
}

/// The first place in a range at which [`HEAD`] bytes look right; `step` are looked at together at first.
pub fn scan(
    source: &mut dyn ReadAt,
    range: Range<u64>,
    mut step: u64,
    looks_right: impl Fn(&[u8]) -> bool,
) -> io::Result<Option<u64>> {
    let mut at = range.start;
    while at < range.end {
        let bytes = bytes(source, at..range.end.min(at + step))?;
        if let Some(found) = bytes.windows(HEAD).position(&looks_right) {
            return Ok(Some(at + found as u64));
        }
        at += step - HEAD as u64;
        step = (step * 2).min(MOST_AT_ONCE);
    }
    Ok(None)
}

/// The bytes of a range that are there, in one go.
pub fn bytes(source: &mut dyn ReadAt, range: Range<u64>) -> io::Result<Vec<u8>> {
    let end = range.end.min(source.size().unwrap_or(u64::MAX));
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(range.start)).unwrap_or(0)];
    source.expect(range.clone());
    let length = read_full(source, range.start, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether an input is read from its start, whatever part of it is wanted: FLV says a new header of a codec only where that
/// comes in, and what is behind cannot be decoded without. A longer file is sought in, because few have one.
pub fn reads_from_start(input: &Input) -> bool {
    const SHORT: u64 = 1 << 20;
    input.format() == "flv" && input.size().is_some_and(|size| size <= SHORT)
}

/// Notes places before a time, in microseconds from the start, so that seeking there does not read everything before.
pub fn note(source: &mut dyn ReadAt, input: &mut Input, from_us: i64) -> io::Result<()> {
    let container = match input.format().as_str() {
        "matroska,webm" => Container::Matroska,
        "flv" => Container::Flv,
        _ => return Ok(()),
    };
    let (Some(size), Some(start_us)) = (source.size(), input.start_us()) else { return Ok(()) };
    let start = bytes(source, 0..START.min(size))?;
    if start.windows(container.index().len()).any(|bytes| bytes == container.index()) {
        return Ok(());
    }
    let ticks = input.ticks();
    let mut find = |range| container.find(source, range, |time| rescale(time, ticks, MICROSECONDS));
    let Some(mut before) = find(0..size)? else { return Ok(()) };
    let end_us = input.duration_us().map(|length| start_us.saturating_add_unsigned(length));
    let from_us = start_us.saturating_add(from_us).min(end_us.unwrap_or(i64::MAX));
    for before_us in BEFORE_US {
        let time_us = from_us.saturating_sub(before_us);
        before = search(before, (size, end_us), time_us, &mut find)?;
        input.note(before);
    }
    // From the last place that it knows, libav reads on until it comes to another.
    input.note((before.0, i64::MAX));
    Ok(())
}

#[derive(Clone, Copy)]
enum Container {
    Matroska,
    Flv,
}

impl Container {
    /// What the start of a file has in it that has an index, or tells where it is.
    fn index(self) -> &'static [u8] {
        match self {
            // The id of Cues.
            Self::Matroska => &[0x1c, 0x53, 0xbb, 0x6b],
            Self::Flv => b"keyframes",
        }
    }

    /// The first cluster or tag in a range, and its time.
    fn find(
        self,
        source: &mut dyn ReadAt,
        mut range: Range<u64>,
        time_us: impl Fn(i64) -> i64,
    ) -> io::Result<Option<(u64, i64)>> {
        let looks_right = match self {
            Self::Matroska => is_cluster,
            Self::Flv => is_tag,
        };
        range.end = range.end.min(range.start.saturating_add(LONGEST));
        for _ in 0..MISTAKES {
            let Some(place) = scan(source, range.clone(), NEAR, looks_right)? else { break };
            let time = match self {
                Self::Matroska => time_of_cluster(source, place)?,
                Self::Flv => time_of_tag(source, place)?,
            };
            if let Some(time) = time {
                return Ok(Some((place, time_us(time))));
            }
            range.start = place + 1;
        }
        Ok(None)
    }
}

fn is_cluster(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x43, 0xb6, 0x75])
}

/// When a cluster begins, in ticks (RFC 9559, section 5.1.3): its time is the first thing in it, but for a checksum.
fn time_of_cluster(source: &mut dyn ReadAt, place: u64) -> io::Result<Option<i64>> {
    let mut bytes = [0; 32];
    read_full(source, place, &mut bytes)?;
    let length = bytes[4].leading_zeros() as usize + 1;
    let mut rest = bytes.get(4 + length..).unwrap_or(&[]);
    if let [0xbf, 0x84, _, _, _, _, behind @ ..] = rest {
        rest = behind;
    }
    let [0xe7, length @ 0x81..=0x88, time @ ..] = rest else { return Ok(None) };
    let time = time.get(..usize::from(length & 0xf)).unwrap_or(&[]);
    Ok(i64::try_from(time.iter().fold(0, |time, byte| time << 8 | u64::from(*byte))).ok())
}

/// Sound or pictures, of the stream 0.
fn is_tag(bytes: &[u8]) -> bool {
    matches!(bytes, [8 | 9, _, _, _, _, _, _, _, 0, 0, 0, ..])
}

/// When a tag begins, in ticks: behind it stands how long it is.
fn time_of_tag(source: &mut dyn ReadAt, place: u64) -> io::Result<Option<i64>> {
    let (mut tag, mut behind) = ([0; 8], [0; 4]);
    read_full(source, place, &mut tag)?;
    let [_, l0, l1, l2, t1, t2, t3, t0] = tag;
    let length = u32::from_be_bytes([0, l0, l1, l2]) + 11;
    let is_there = read_full(source, place + u64::from(length), &mut behind)? == behind.len();
    Ok((is_there && u32::from_be_bytes(behind) == length).then(|| i32::from_be_bytes([t0, t1, t2, t3]).into()))
}
