//! Putting the tracks of one output together.

use std::{cell::RefCell, rc::Rc};

use xora_av::{Encoder, Output, Packet, Rational};
use xora_shared::media::Format;

use crate::{
    ipc::JobFailure,
    job::{
        fault::{Done, Fault},
        link::Link,
        parts::{Parts, Refusal, Shared},
    },
};

/// Size of the parts and of the place for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// Parts at the head that can be patched until the end.
    pub head_parts: u32,
    /// Bytes kept free for the index; none where the container has it elsewhere.
    pub index_bytes: Option<u64>,
}

const MIB: u64 = 1 << 20;
/// The largest number of parts is 10,000 everywhere; this leaves room for an estimate that is a little low.
const PARTS: u64 = 9_000;
/// The smallest and the largest part. The largest still passes through a Worker.
const SMALLEST_PART: u64 = 8 * MIB;
const LARGEST_PART: u64 = 90 * MIB;
/// Bytes of an MP4's index for a packet: sizes, offsets, two kinds of time. Measured 11 to 25.
const INDEX_PER_PACKET: u64 = 32;
/// Bytes of an MP4's index beside the packets, generously.
const INDEX_BASE: u64 = 16 << 10;
/// Bytes that a muxer may patch beside the index: file type, lengths, headers.
const PATCHED: u64 = 64 << 10;

impl Layout {
    /// For an output of about this many bytes and packets. `index_bytes` is what an earlier run found that it needs.
    pub fn of(format: Format, expected_bytes: u64, packets: u64, index_bytes: Option<u64>) -> Self {
        let even = expected_bytes.div_ceil(PARTS).next_multiple_of(MIB);
        let part_size = even.clamp(SMALLEST_PART, LARGEST_PART);
        let index = matches!(format, Format::Mp4 | Format::Mov)
            .then(|| index_bytes.unwrap_or(packets * INDEX_PER_PACKET + INDEX_BASE));
        let head = index.unwrap_or(0) + PATCHED;
        let head_parts = u32::try_from(head.div_ceil(part_size)).unwrap_or(u32::MAX);
        Self { part_size, head_parts, index_bytes: index }
    }
}

/// A container whose tracks open one after the other: packets wait until all are there.
pub struct Mux {
    output: Output,
    parts: Rc<RefCell<Parts>>,
    options: Vec<(&'static str, String)>,
    /// Whether each track has an encoder yet.
    open: Vec<bool>,
    waiting: Option<Vec<(usize, Rational, Packet)>>,
    packets: u64,
    index_bytes: Option<u64>,
}

impl Mux {
    /// Begins an output of this many tracks.
    pub fn create(link: &Link, format: Format, tracks: usize, layout: Layout, max_bytes: u64) -> Done<Self> {
        let link = link.clone();
        let send = Box::new(move |number, bytes| link.part(number, bytes));
        let part_size = usize::try_from(layout.part_size).unwrap_or(usize::MAX);
        let parts = Rc::new(RefCell::new(Parts::new(part_size, layout.head_parts, max_bytes, send)));
        let mut output = Output::create(format.extension(), Box::new(Shared(Rc::clone(&parts))))?;
        for _ in 0..tracks {
            output.add()?;
        }
        let reserve = layout.index_bytes.map(|bytes| ("moov_size", bytes.to_string()));
        Ok(Self {
            output,
            parts,
            options: reserve.into_iter().collect(),
            open: vec![false; tracks],
            waiting: Some(Vec::new()),
            packets: 0,
            index_bytes: layout.index_bytes,
        })
    }

    /// Whether the encoders must keep their headers apart.
    pub fn wants_global_header(&self) -> bool {
        self.output.wants_global_header()
    }

    /// Says what a track holds. After the last of them, writing begins.
    pub fn open(&mut self, track: usize, encoder: &Encoder, rate: Rational, tag: Option<[u8; 4]>) -> Done<()> {
        self.output.describe(track, encoder, rate, tag)?;
        self.open[track] = true;
        if self.open.iter().any(|open| !open) {
            return Ok(());
        }
        self.output.begin(&self.options).map_err(|error| self.blame(error))?;
        for (track, time_base, mut packet) in self.waiting.take().unwrap_or_default() {
            self.write_now(track, time_base, &mut packet)?;
        }
        Ok(())
    }

    /// Whether every track has been opened.
    pub fn has_begun(&self) -> bool {
        self.waiting.is_none()
    }

    /// Takes a packet of a track, with the time base that its times are in. The packet is empty afterwards.
    pub fn write(&mut self, track: usize, time_base: Rational, packet: &mut Packet) -> Done<()> {
        match &mut self.waiting {
            Some(waiting) => {
                let taken = std::mem::replace(packet, Packet::new()?);
                waiting.push((track, time_base, taken));
                Ok(())
            }
            None => self.write_now(track, time_base, packet),
        }
    }

    /// Writes the index, sends what is left, and returns the output's length in bytes.
    pub fn finish(&mut self) -> Done<u64> {
        self.output.finish().map_err(|error| self.blame_trailer(error))?;
        let mut parts = self.parts.borrow_mut();
        let bytes = parts.bytes();
        parts.finish()?;
        Ok(bytes)
    }

    fn write_now(&mut self, track: usize, time_base: Rational, packet: &mut Packet) -> Done<()> {
        packet.set_stream(track);
        packet.rescale(time_base, self.output.time_base(track));
        self.packets += 1;
        self.output.write(packet).map_err(|error| self.blame(error))
    }

    /// The sink's reason where it had one, else what libav said.
    fn blame(&self, error: xora_av::Error) -> Fault {
        match self.parts.borrow().refusal() {
            Some(Refusal::TooLarge) => {
                let limit = self.parts.borrow().max_bytes();
                Fault::too_large(format!("the output would be larger than the limit of {limit} bytes"))
            }
            Some(Refusal::Gone) => Fault::Gone,
            Some(Refusal::Sent) | None => Fault::Av(error),
        }
    }

    /// The trailer fails on its own account only when the index does not fit the place kept for it.
    fn blame_trailer(&self, error: xora_av::Error) -> Fault {
        match (self.blame(error), self.index_bytes) {
            (Fault::Av(_), Some(reserved)) => {
                let needed = (self.packets * 2 * INDEX_PER_PACKET + INDEX_BASE).max(reserved * 2);
                Fault::Job(JobFailure::IndexTooSmall { needed })
            }
            (other, _) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_mebibytes_that_a_worker_passes() {
        let layout = |bytes| Layout::of(Format::Mp4, bytes, 1000, None);
        assert_eq!(layout(1).part_size, 8 * MIB);
        assert_eq!(layout(9_000 * 8 * MIB + 1).part_size, 9 * MIB);
        assert_eq!(layout(u64::MAX / 2).part_size, 90 * MIB);
    }

    #[test]
    fn the_head_holds_the_place_for_the_index() {
        let layout = Layout::of(Format::Mp4, 0, 1_000_000, None);
        assert!(u64::from(layout.head_parts) * layout.part_size > 32_000_000);
        assert_eq!(Layout::of(Format::Webm, 0, 1_000_000, None).index_bytes, None);
        assert_eq!(Layout::of(Format::Mov, 0, 10, Some(99)).index_bytes, Some(99));
    }
}
