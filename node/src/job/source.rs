//! An input as the job process sees it: an index at the supervisor.

use std::{collections::VecDeque, io, ops::Range};

use xora_av::ReadAt;

use crate::{
    ipc::{MAX_READ, Up},
    job::link::Link,
};

/// The first read of all, in bytes: the supervisor has as much already.
const HEAD: u32 = 64 << 10;
/// The first read at any other place, in bytes: small, since demuxers hop between headers, index and media.
const FIRST_READ: u32 = 16 << 10;
/// What follows it at the least, once it is clear that reading goes on.
const SECOND_READ: u32 = 64 << 10;
/// The longest place that is read in one go, in bytes: of a longer one, what has come can be worked on.
const WHOLE_PLACE: u64 = 512 << 10;
/// Windows kept: badly interleaved files alternate between a few places.
const WINDOWS: usize = 6;

/// Reads an input through the supervisor, and keeps the last few windows of it. A window that is read on from its end
/// is followed by one of twice its length, up to the largest read allowed. What is [expected](ReadAt::expect) is read as
/// it is said.
pub struct RemoteInput {
    link: Link,
    input: u32,
    size: Option<u64>,
    expected: Range<u64>,
    /// What alone is read, when that is known.
    places: Vec<Range<u64>>,
    /// Last used last.
    windows: VecDeque<Window>,
}

struct Window {
    offset: u64,
    bytes: Vec<u8>,
    /// How much is read when reading goes on behind it.
    next: u32,
}

impl Window {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl RemoteInput {
    /// An input by index, and its length in bytes when that is known.
    pub fn new(link: Link, input: u32, size: Option<u64>) -> Self {
        Self { link, input, size, expected: 0..0, places: Vec::new(), windows: VecDeque::new() }
    }

    /// Fetches the window that begins at `offset`; empty at the end of the input.
    fn fetch(&mut self, offset: u64) -> io::Result<Window> {
        let before = self.windows.iter().position(|window| window.end() == offset && !window.bytes.is_empty());
        let before = before.and_then(|index| self.windows.remove(index));
        let length = match (self.expected(offset), before) {
            (Some(expected), _) => expected,
            (None, Some(window)) => window.next,
            (None, None) if offset == 0 => HEAD,
            (None, None) => FIRST_READ,
        };
        // What follows what was expected is a little more of it, not a direction.
        let next = match self.expected(offset) {
            Some(_) => FIRST_READ,
            None => length.saturating_mul(2).clamp(SECOND_READ, MAX_READ),
        };
        // Up to the next window at most: what is held is not read twice. Nor is what follows a place.
        let held = self.windows.iter().map(|window| window.offset).filter(|held| *held > offset).min();
        let rooms = [held.map(|held| held - offset), self.rest_of_place(offset)].into_iter().flatten();
        let room = rooms.min().and_then(|room| u32::try_from(room).ok()).unwrap_or(MAX_READ);
        let bytes = self.link.read(self.input, offset, length.min(room))?.ok_or(io::ErrorKind::NotConnected)?;
        Ok(Window { offset, bytes, next })
    }

    /// How much is expected to be read from here on, in bytes.
    fn expected(&self, offset: u64) -> Option<u32> {
        let expected = self.expected.contains(&offset).then(|| self.expected.end - offset);
        let rest = expected.or(self.rest_of_place(offset).filter(|rest| *rest <= WHOLE_PLACE))?;
        Some(u32::try_from(rest).unwrap_or(MAX_READ).min(MAX_READ))
    }

    /// How much of a place that alone is read lies from here on, in bytes.
    fn rest_of_place(&self, offset: u64) -> Option<u64> {
        let place = self.places.get(self.places.partition_point(|place| place.end <= offset))?;
        place.contains(&offset).then(|| place.end - offset)
    }
}

impl ReadAt for RemoteInput {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.size.is_some_and(|size| offset >= size) {
            return Ok(0);
        }
        let held = self.windows.iter().position(|window| (window.offset..window.end()).contains(&offset));
        let window = match held.and_then(|index| self.windows.remove(index)) {
            Some(window) => window,
            None => self.fetch(offset)?,
        };
        let start = usize::try_from(offset - window.offset).unwrap_or(window.bytes.len());
        let length = buffer.len().min(window.bytes.len() - start);
        buffer[..length].copy_from_slice(&window.bytes[start..start + length]);
        self.windows.push_back(window);
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
        Ok(length)
    }

    fn size(&self) -> Option<u64> {
        self.size
    }

    fn expect(&mut self, range: Range<u64>) {
        self.expected = range;
    }

    fn expect_only(&mut self, places: Vec<Range<u64>>) {
        // A supervisor that is gone is noticed by the next read.
        let _ = self.link.say(Up::ExpectOnly { input: self.input, places: places.clone() });
        self.places = places;
    }
}
