//! Putting the tracks of one output together.

use std::{cell::RefCell, io, iter, rc::Rc};

use xora_av::{Encoder, ErrorKind, Input, MICROSECONDS, Output, Packet, Rational, WriteAt};
use xora_shared::media::Format;

use crate::{
    ipc::JobFailure,
    job::{
        about::About,
        fault::{Done, Fault},
        link::Link,
        parts::{Parts, Refusal, Shared},
        plan::{has_times, hides_start},
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
    /// Whether that is only an estimate.
    pub is_estimate: bool,
}

const MIB: u64 = 1 << 20;
/// The largest number of parts is 10,000 everywhere; this leaves room for an estimate that is a little low.
const PARTS: u64 = 9_000;
/// The smallest and the largest part. The largest still passes through a Worker.
const SMALLEST_PART: u64 = 5 * MIB;
const LARGEST_PART: u64 = 90 * MIB;
/// Bytes of an MP4's index for a packet: sizes, offsets, two kinds of time. Measured 11 to 25.
const INDEX_PER_PACKET: u64 = 32;
/// Bytes of an MP4's index beside the packets, generously.
const INDEX_BASE: u64 = 16 << 10;
/// Bytes that a muxer may patch beside the index: file type, lengths, headers.
const PATCHED: u64 = 64 << 10;

impl Layout {
    /// For an output of about this many bytes and packets, `beside` of the bytes for what it says of itself.
    /// `index_bytes` is what an earlier run found that its index needs.
    pub fn of(format: Format, expected_bytes: u64, packets: u64, beside: u64, index_bytes: Option<u64>) -> Self {
        let even = expected_bytes.div_ceil(PARTS).next_multiple_of(MIB);
        let part_size = even.clamp(SMALLEST_PART, LARGEST_PART);
        let index = format.has_index().then(|| index_bytes.unwrap_or(packets * INDEX_PER_PACKET + INDEX_BASE + beside));
        let head = index.unwrap_or(beside) + PATCHED;
        let head = if is_patched(format) { head } else { 0 };
        let head_parts = u32::try_from(head.div_ceil(part_size)).unwrap_or(u32::MAX);
        Self { part_size, head_parts, index_bytes: index, is_estimate: index.is_some() && index_bytes.is_none() }
    }
}

/// The most bytes of packets that wait for a track that has nothing yet: more than an hour of most films.
const MOST_WAITING: u64 = 1 << 30;

/// A container whose tracks open one after the other: packets wait until all are there. A track that has nothing for very
/// long is as good as empty.
///
/// Of an MP4 or MOV, packets wait on until they fill a part. If the output ends before that, it is written twice: once
/// to learn how long its index is, once for real with exactly that place at its head. A longer one is written as it
/// comes, with as much place as its packets may need.
pub struct Mux {
    output: Output,
    parts: Rc<RefCell<Parts>>,
    /// Whether each track has an encoder yet.
    open: Vec<bool>,
    /// Whether a track holds packets of the input.
    copies: bool,
    /// What waits, until writing begins.
    waiting: Option<Vec<Waiting>>,
    waiting_bytes: u64,
    /// The output that is only written to be measured.
    trial: Option<Trial>,
    packets: u64,
    layout: Layout,
    format: Format,
}

/// A packet of a track, with the time base that its times are in.
type Waiting = (usize, Rational, Packet);

impl Mux {
    /// Begins an output of this many tracks.
    pub fn create(link: &Link, format: Format, tracks: usize, layout: Layout, max_bytes: u64) -> Done<Self> {
        let link = link.clone();
        let send = Box::new(move |number, bytes| link.part(number, bytes));
        let part_size = usize::try_from(layout.part_size).unwrap_or(usize::MAX);
        let parts = Rc::new(RefCell::new(Parts::new(part_size, layout.head_parts, max_bytes, send)));
        let mut output = Output::create(muxer(format), Box::new(Shared(Rc::clone(&parts))))?;
        for _ in 0..tracks {
            output.add()?;
        }
        Ok(Self {
            output,
            parts,
            open: vec![false; tracks],
            copies: false,
            waiting: Some(Vec::new()),
            waiting_bytes: 0,
            trial: layout.is_estimate.then(|| Trial::create(format, tracks)).transpose()?,
            packets: 0,
            layout,
            format,
        })
    }

    /// Says of the output what was said of the input. A cover is a track behind the others.
    pub fn tell(&mut self, about: &About, input: &Input) -> Done<()> {
        let cover = self.open.len();
        for output in iter::once(&mut self.output).chain(self.trial.as_mut().map(|trial| &mut trial.output)) {
            if about.has_cover() {
                output.add()?;
            }
            about.tell(output, input, cover)?;
        }
        if let Some(mut packet) = about.cover()? {
            self.open.push(true);
            self.write(cover, MICROSECONDS, &mut packet)?;
        }
        Ok(())
    }

    /// Whether the encoders must keep their headers apart.
    pub fn wants_global_header(&self) -> bool {
        self.output.wants_global_header()
    }

    /// Says what a track holds.
    pub fn open(&mut self, track: usize, encoder: &Encoder, rate: Rational, tag: Option<[u8; 4]>) -> Done<()> {
        self.output.describe(track, encoder, rate, tag)?;
        if let Some(trial) = &mut self.trial {
            trial.output.describe(track, encoder, rate, tag)?;
        }
        self.open[track] = true;
        self.begin_if_ready()
    }

    /// Says that a track holds the very packets of a stream of the input.
    pub fn open_copy(&mut self, track: usize, input: &Input, stream: usize) -> Done<()> {
        self.describe_copy(track, input, stream)?;
        self.open[track] = true;
        self.begin_if_ready()
    }

    /// As [`Self::open_copy`], but for the codec's header, which [`Self::open_with`] tells later.
    pub fn describe_copy(&mut self, track: usize, input: &Input, stream: usize) -> Done<()> {
        self.copies = true;
        self.output.describe_copy(track, input, stream, None)?;
        // VP8 and VP9 keep transparency beside each packet, and only this says that it is there.
        if let Some(mode) = input.tag(Some(stream), "alpha_mode").filter(|_| self.format == Format::Webm) {
            self.output.set_tag(Some(track), "alpha_mode", &mode)?;
        }
        if let Some(trial) = &mut self.trial {
            trial.output.describe_copy(track, input, stream, None)?;
        }
        Ok(())
    }

    /// Says what the codec's header of a track is that has been described.
    pub fn open_with(&mut self, track: usize, header: &[u8]) -> Done<()> {
        self.output.set_header(track, header)?;
        if let Some(trial) = &mut self.trial {
            trial.output.set_header(track, header)?;
        }
        self.open[track] = true;
        self.begin_if_ready()
    }

    /// Whether players take the codec's delay off the times of Opus. libav's muxer (5.1) does not put it on, and would
    /// move the pictures instead, because times below zero are not allowed.
    pub fn counts_priming(&self) -> bool {
        self.format == Format::Webm
    }

    /// Whether players leave out what comes before the start.
    pub fn hides_start(&self) -> bool {
        hides_start(self.format)
    }

    /// Whether packets have times at all, instead of following each other.
    pub fn has_times(&self) -> bool {
        has_times(self.format)
    }

    /// Takes a packet of a track, with the time base that its times are in. The packet is empty afterwards.
    pub fn write(&mut self, track: usize, time_base: Rational, packet: &mut Packet) -> Done<()> {
        let Some(waiting) = &mut self.waiting else { return self.write_now(track, time_base, packet) };
        let taken = std::mem::replace(packet, Packet::new()?);
        self.waiting_bytes += taken.size() as u64;
        waiting.push((track, time_base, taken));
        if self.waiting_bytes > MOST_WAITING && self.open.iter().any(|open| !open) {
            return Err(Fault::Silent);
        }
        self.begin_if_ready()
    }

    /// Writes the index, sends what is left, and returns the output's length in bytes.
    pub fn finish(&mut self) -> Done<u64> {
        if let (Some(waiting), Some(trial)) = (&self.waiting, self.trial.take()) {
            self.layout.index_bytes = Some(trial.measure(waiting).map_err(|error| self.blame(error))?);
        }
        self.begin()?;
        self.output.finish().map_err(|error| self.blame_trailer(error))?;
        let mut parts = self.parts.borrow_mut();
        let bytes = parts.bytes();
        parts.finish()?;
        Ok(bytes)
    }

    /// Begins once there is nothing left to wait for.
    fn begin_if_ready(&mut self) -> Done<()> {
        let short = self.trial.is_some() && self.waiting_bytes < self.layout.part_size;
        if self.waiting.is_none() || short || self.open.iter().any(|open| !open) {
            return Ok(());
        }
        self.begin()
    }

    /// Writes the head and what has waited.
    fn begin(&mut self) -> Done<()> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        self.trial = None;
        let place = self.layout.index_bytes.map(|bytes| ("moov_size", bytes.to_string()));
        self.output.begin(place.as_slice()).map_err(|error| self.blame(error))?;
        for (track, time_base, mut packet) in waiting {
            self.write_now(track, time_base, &mut packet)?;
        }
        Ok(())
    }

    fn write_now(&mut self, track: usize, time_base: Rational, packet: &mut Packet) -> Done<()> {
        packet.set_stream(track);
        packet.rescale(time_base, self.output.time_base(track));
        if self.format == Format::Mp3 {
            packet.forget_end_padding();
        }
        self.packets += 1;
        self.output.write(packet).map_err(|error| self.blame(error))
    }

    /// The sink's reason where it had one, else what libav said.
    fn blame(&self, error: xora_av::Error) -> Fault {
        match self.parts.borrow().refusal() {
            Some(Refusal::TooLarge) => {
                let limit = self.parts.borrow().max_bytes();
                Fault::too_large(
                    format!("the output would be larger than the limit of {limit} bytes"),
                    "--max-output-bytes",
                )
            }
            Some(Refusal::Gone) => Fault::Gone,
            // The muxer looks into the packets of some codecs, as a decoder does.
            Some(Refusal::Sent) | None if self.copies && error.kind == ErrorKind::InvalidData => {
                Fault::uncopyable("a packet of the input is damaged")
            }
            Some(Refusal::Sent) | None => Fault::Av(error),
        }
    }

    /// The trailer fails on its own account only when the index does not fit the place kept for it.
    fn blame_trailer(&self, error: xora_av::Error) -> Fault {
        match (self.blame(error), self.layout.index_bytes) {
            (Fault::Av(_), Some(reserved)) => {
                let needed = (self.packets * 2 * INDEX_PER_PACKET + INDEX_BASE).max(reserved * 2);
                Fault::Job(JobFailure::IndexTooSmall { needed })
            }
            (other, _) => other,
        }
    }
}

/// Whether the muxer goes back to its head. Those of streams only go forward.
fn is_patched(format: Format) -> bool {
    !matches!(format, Format::Aac | Format::Opus | Format::Ogg)
}

/// libav's name of the muxer.
fn muxer(format: Format) -> &'static str {
    match format {
        Format::Aac => "adts",
        Format::M4a => "ipod",
        Format::Mp4
        | Format::Webm
        | Format::Mov
        | Format::Gif
        | Format::Mp3
        | Format::Wav
        | Format::Jpg
        | Format::Png
        | Format::Opus
        | Format::Flac
        | Format::Webp
        | Format::Ogg => format.extension(),
    }
}

/// An output that is written only to see how long its index becomes.
struct Trial {
    output: Output,
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl Trial {
    fn create(format: Format, tracks: usize) -> Done<Self> {
        let bytes = Rc::default();
        let mut output = Output::create(muxer(format), Box::new(Kept(Rc::clone(&bytes))))?;
        for _ in 0..tracks {
            output.add()?;
        }
        Ok(Self { output, bytes })
    }

    /// The place that the index of these packets needs, in bytes.
    fn measure(mut self, packets: &[Waiting]) -> xora_av::Result<u64> {
        /// What the muxer puts behind the index, to fill the place.
        const FREE_BOX: u64 = 8;
        self.output.begin(&[])?;
        for (track, time_base, packet) in packets {
            let mut packet = packet.share()?;
            packet.set_stream(*track);
            packet.rescale(*time_base, self.output.time_base(*track));
            self.output.write(&mut packet)?;
        }
        self.output.finish()?;
        Ok(index_size(&self.bytes.borrow()) + FREE_BOX)
    }
}

/// Size of the `moov` box of an MP4 or MOV file, in bytes (ISO 14496-12, section 4.2); 0 without one.
fn index_size(mut file: &[u8]) -> u64 {
    while let Some((head, _)) = file.split_first_chunk::<8>() {
        let [s0, s1, s2, s3, kind @ ..] = *head;
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        if &kind == b"moov" {
            return size.into();
        }
        let Some(rest) = file.get(size.max(8) as usize..) else { break };
        file = rest;
    }
    0
}

/// Keeps what is written.
struct Kept(Rc<RefCell<Vec<u8>>>);

impl WriteAt for Kept {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.0.borrow_mut();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        if kept.len() < end {
            kept.resize(end, 0);
        }
        kept[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use xora_av::{Frame, VideoEncoding};

    use super::*;

    #[test]
    fn pictures_do_not_wait_for_ever_for_sound_that_does_not_come() {
        let (_supervisor, ours) = UnixStream::pair().expect("a pair");
        let layout = Layout::of(Format::Mp4, 1, 1, 0, None);
        let mut mux = Mux::create(&Link::new(ours), Format::Mp4, 2, layout, u64::MAX).expect("mux");
        let (time_base, frame_rate) = (Rational(1, 25), Rational(25, 1));
        let how =
            VideoEncoding { encoder: "rawvideo", time_base, frame_rate, threads: 1, options: &[], global_header: true };
        let frame = Frame::blank_picture(8000, 4000).expect("frame");
        let mut encoder = Encoder::video(&how, &frame).expect("opens");
        mux.open(0, &encoder, frame_rate, None).expect("described");
        let mut picture = Packet::new().expect("memory");
        encoder.send(Some(&frame)).expect("taken");
        encoder.receive(&mut picture).expect("encoded");
        // All are the same bytes, counted again and again.
        let taken = (0..1000).take_while(|_| {
            let mut shared = picture.share().expect("memory");
            mux.write(0, time_base, &mut shared).is_ok()
        });
        assert_eq!(taken.count() as u64, MOST_WAITING / picture.size() as u64);
    }

    #[test]
    fn parts_are_whole_mebibytes_that_a_worker_passes() {
        let layout = |bytes| Layout::of(Format::Mp4, bytes, 1000, 0, None);
        assert_eq!(layout(1).part_size, 5 * MIB);
        assert_eq!(layout(9_000 * 8 * MIB + 1).part_size, 9 * MIB);
        assert_eq!(layout(u64::MAX / 2).part_size, 90 * MIB);
    }

    #[test]
    fn the_head_holds_the_place_for_the_index() {
        let layout = Layout::of(Format::Mp4, 0, 1_000_000, 0, None);
        assert!(u64::from(layout.head_parts) * layout.part_size > 32_000_000);
        assert_eq!(Layout::of(Format::Webm, 0, 1_000_000, 0, None).index_bytes, None);
        assert_eq!(Layout::of(Format::Wav, 0, 10, 0, None).head_parts, 1);
        assert_eq!(Layout::of(Format::Aac, 0, 10, 0, None).head_parts, 0);
        assert_eq!(Layout::of(Format::Mp3, 0, 10, 6 * MIB, None).head_parts, 2);
        assert_eq!(Layout::of(Format::Mov, 0, 10, 0, Some(99)).index_bytes, Some(99));
    }
}
