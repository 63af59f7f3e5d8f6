//! Putting the tracks of one output together.

use std::{cell::RefCell, io, iter, rc::Rc};

use xora_av::{Encoder, ErrorKind, Input, MICROSECONDS, Output, Packet, Rational, WriteAt, rescale};
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
    /// Bytes kept free for the index, where an earlier run has shown how many.
    pub index_bytes: Option<u64>,
    /// Bytes of the index beside the packets: what the output says of itself.
    pub beside: u64,
    /// Whether the container has an index, whose length this run must find out.
    pub is_estimate: bool,
}

const MIB: u64 = 1 << 20;
/// The largest number of parts is 10,000 everywhere; this leaves room for an estimate that is a little low.
const PARTS: u64 = 9_000;
/// The smallest and the largest part. The largest still passes through a Worker.
const SMALLEST_PART: u64 = 5 * MIB;
const LARGEST_PART: u64 = 90 * MIB;
/// Bytes of an MP4's index beside the packets and what it says of itself, generously.
const INDEX_BASE: u64 = 4 << 10;
/// Bytes that a muxer may patch beside the index: file type, lengths, headers.
const PATCHED: u64 = 64 << 10;

impl Layout {
    /// For an output of about this many bytes, `beside` of them for what it says of itself. `index_bytes` is what an
    /// earlier run found that its index needs.
    pub fn of(format: Format, expected_bytes: u64, beside: u64, index_bytes: Option<u64>) -> Self {
        let even = expected_bytes.div_ceil(PARTS).next_multiple_of(MIB);
        let part_size = even.clamp(SMALLEST_PART, LARGEST_PART);
        let index_bytes = index_bytes.filter(|_| format.has_index());
        let head = if is_patched(format) { index_bytes.unwrap_or(0) + beside + PATCHED } else { 0 };
        let head_parts = u32::try_from(head.div_ceil(part_size)).unwrap_or(u32::MAX);
        let is_estimate = format.has_index() && index_bytes.is_none();
        Self { part_size, head_parts, index_bytes, beside, is_estimate }
    }
}

/// What of the input tells how long the output becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// In microseconds.
    pub us: i64,
    /// Whether the container says so; else it is reckoned from how many of its bytes were read.
    pub is_declared: bool,
}

/// Bytes of packets that are waited for where nothing tells how long the output becomes: the place for an index of about
/// five times as many is kept then.
const MOST_DEFERRED: u64 = 64 * MIB;

/// The most bytes of packets that wait for a track that has nothing yet: more than an hour of most films.
const MOST_WAITING: u64 = 1 << 30;

/// A container whose tracks open one after the other: packets wait until all are there. A track that has nothing for very
/// long is as good as empty.
///
/// Of an MP4 or MOV, packets wait on until they fill a part, and are written once to learn how long their index is. If the
/// output ends before that, it gets exactly that place at its head. A longer one is written as it comes, with as much
/// place as all of it will need, if it goes on as it began. Where that proves too small, an output of packets that are
/// copied is made once more; one that was encoded has its index at the end.
pub struct Mux {
    output: Output,
    parts: Rc<RefCell<Parts>>,
    /// Whether each track has an encoder yet.
    open: Vec<bool>,
    /// Whether a track holds packets of the input, and whether one holds others.
    copies: bool,
    encodes: bool,
    /// What waits, until writing begins.
    waiting: Option<Vec<Waiting>>,
    waiting_bytes: u64,
    /// The output that is only written to be measured.
    trial: Option<Trial>,
    length: Option<Length>,
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
            encodes: false,
            waiting: Some(Vec::new()),
            waiting_bytes: 0,
            trial: layout.is_estimate.then(|| Trial::create(format, tracks)).transpose()?,
            length: None,
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
        self.encodes = true;
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

    /// Says how long the output becomes, as long as that matters.
    pub fn expect(&mut self, length: impl FnOnce() -> Option<Length>) {
        if self.trial.is_some() {
            self.length = length();
        }
    }

    /// Writes the index, sends what is left, and returns the output's length in bytes. `warnings` get what a caller
    /// should know.
    pub fn finish(&mut self, warnings: &mut Vec<String>) -> Done<u64> {
        if let (Some(waiting), Some(trial)) = (&self.waiting, self.trial.take()) {
            self.layout.index_bytes = Some(trial.measure(waiting).map_err(|error| self.blame(error))?);
        }
        self.begin()?;
        match self.layout.index_bytes {
            Some(place) => warnings.extend(self.finish_with_index(place)?),
            None => self.output.finish().map_err(|error| self.blame(error))?,
        }
        let mut parts = self.parts.borrow_mut();
        let bytes = parts.bytes();
        parts.finish()?;
        Ok(bytes)
    }

    /// Lets the muxer write the index behind the media, and puts it into its place at the head if it fits.
    fn finish_with_index(&mut self, place: u64) -> Done<Option<String>> {
        self.output.flush().map_err(|error| self.blame(error))?;
        self.parts.borrow_mut().hold();
        // The muxer has left the place free, and is told that there is none.
        self.output.set_option("moov_size", 0)?;
        self.output.finish().map_err(|error| self.blame(error))?;
        let mut parts = self.parts.borrow_mut();
        let Some((from, held)) = parts.let_go() else { return Ok(None) };
        let Some((begin, media_end)) = media_end(parts.head(), place) else {
            return Err(Fault::transcode("the output has no media behind the place for its index"));
        };
        let (media, index) =
            held.split_at(usize::try_from(media_end.saturating_sub(from)).unwrap_or(0).min(held.len()));
        parts.write_at(from, media)?;
        let length = index.len() as u64;
        if length == place || length + FREE_BOX <= place {
            parts.write_at(begin, index)?;
            write_free(&mut parts, begin + length, place - length)?;
            return Ok(None);
        }
        if self.copies && !self.encodes {
            return Err(Fault::Job(JobFailure::IndexTooSmall { needed: length + FREE_BOX }));
        }
        write_free(&mut parts, begin, place)?;
        parts.write_at(from + media.len() as u64, index)?;
        Ok(Some("the index stands at the end of the file, because the output became longer than the input said".into()))
    }

    /// Begins once there is nothing left to wait for.
    fn begin_if_ready(&mut self) -> Done<()> {
        let enough = if self.length.is_some() { self.layout.part_size } else { MOST_DEFERRED };
        let short = self.trial.is_some() && self.waiting_bytes < enough.max(self.layout.part_size);
        if self.waiting.is_none() || short || self.open.iter().any(|open| !open) {
            return Ok(());
        }
        self.begin()
    }

    /// Writes the head and what has waited.
    fn begin(&mut self) -> Done<()> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        if let Some(trial) = self.trial.take() {
            let index = trial.measure(&waiting).map_err(|error| self.blame(error))?;
            self.layout.index_bytes = Some(self.place_for(index, &waiting));
        }
        if let Some(place) = self.layout.index_bytes {
            self.parts.borrow_mut().keep_head(place + PATCHED);
        }
        let options = options(self.format, self.layout.index_bytes);
        self.output.begin(&options).map_err(|error| self.blame(error))?;
        for (track, time_base, mut packet) in waiting {
            self.write_now(track, time_base, &mut packet)?;
        }
        Ok(())
    }

    /// The place for the whole index, in bytes, where the packets that wait need so many: each track goes on as it began.
    fn place_for(&self, index: u64, waiting: &[Waiting]) -> u64 {
        /// What is kept beside, in parts of the index: tracks may become denser, lengths less regular.
        const SPARE: u64 = 8;
        const SPARE_OF_RECKONED: u64 = 2;
        /// Where nothing is known of the length: of the packets that wait, which may be all.
        const SPARE_OF_UNKNOWN: u64 = 100 / 3;
        /// Packets of a track in a second, at most: more is a clock that is wrong.
        const DENSEST: u128 = 400;
        let Some(Length { us: length_us, is_declared }) = self.length else {
            return (index + index / SPARE).max(self.waiting_bytes / SPARE_OF_UNKNOWN) + INDEX_BASE;
        };
        let mut tracks = vec![(0_u64, 0_i64); self.open.len()];
        for (track, time_base, packet) in waiting {
            let end = packet.pts().or(packet.dts()).unwrap_or(0).saturating_add(packet.duration());
            if let Some((packets, end_us)) = tracks.get_mut(*track) {
                *packets += 1;
                *end_us = (*end_us).max(rescale(end, *time_base, MICROSECONDS));
            }
        }
        let now: u64 = tracks.iter().map(|(packets, _)| packets).sum();
        // A single packet is a cover.
        let whole = tracks.iter().filter(|(packets, _)| *packets > 1).map(|(packets, end_us)| {
            let end_us = u128::from((*end_us).max(1).unsigned_abs());
            let length_us = u128::from(length_us.max(0).unsigned_abs()).max(end_us);
            let packets = u128::from(*packets);
            (packets * length_us / end_us).min(length_us * DENSEST / 1_000_000).max(packets)
        });
        let of_packets = u128::from(index.saturating_sub(self.layout.beside));
        let whole = of_packets * whole.sum::<u128>() / u128::from(now.max(1));
        let whole = u64::try_from(whole).unwrap_or(u64::MAX / 4).min(MOST_INDEX);
        let spare = whole / if is_declared { SPARE } else { SPARE_OF_RECKONED };
        index.max(whole + self.layout.beside) + spare + INDEX_BASE
    }

    fn write_now(&mut self, track: usize, time_base: Rational, packet: &mut Packet) -> Done<()> {
        packet.set_stream(track);
        packet.rescale(time_base, self.output.time_base(track));
        if self.format == Format::Mp3 {
            packet.forget_end_padding();
        }
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
}

/// The least box of an MP4, which fills what is left of a place.
const FREE_BOX: u64 = 8;
/// The largest place for an index, in bytes: it is in memory until the end.
const MOST_INDEX: u64 = 128 * MIB;

/// Options of the muxer.
fn options(format: Format, index_bytes: Option<u64>) -> Vec<(&'static str, String)> {
    let place = index_bytes.map(|bytes| ("moov_size", bytes.to_string()));
    // Else its lengths would have 32 bits: 4 GiB are six hours of stereo.
    let long = (format == Format::Wav).then(|| ("rf64", "auto".to_owned()));
    place.into_iter().chain(long).collect()
}

/// Fills a place that is not used.
fn write_free(parts: &mut Parts, begin: u64, length: u64) -> io::Result<()> {
    match u32::try_from(length) {
        Ok(length) if length >= 8 => parts.write_at(begin, &[&length.to_be_bytes()[..], b"free"].concat()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Where the place for the index begins in an MP4, and where the media behind it ends, in bytes of the file (ISO
/// 14496-12, section 4.2).
fn media_end(head: &[u8], place: u64) -> Option<(u64, u64)> {
    let box_at = |at: u64| {
        let head = head.get(usize::try_from(at).ok()?..)?;
        let (size, rest) = head.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let size = match u32::from_be_bytes(*size) {
            1 => u64::from_be_bytes(*rest.first_chunk::<8>()?),
            size => size.into(),
        };
        Some((*kind, at.checked_add(size.max(8))?))
    };
    let (_, begin) = box_at(0)?;
    let mut at = begin.checked_add(place)?;
    loop {
        match box_at(at)? {
            (kind, end) if kind == *b"mdat" => return Some((begin, end)),
            (_, end) => at = end,
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
        self.output.begin(&[])?;
        for (track, time_base, packet) in packets {
            let mut packet = packet.share()?;
            packet.set_stream(*track);
            packet.rescale(*time_base, self.output.time_base(*track));
            self.output.write(&mut packet)?;
        }
        self.output.finish()?;
        Ok(index_size(&self.bytes.borrow()))
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

    use xora_av::{Frame, OpenLimits, ReadAt, VideoEncoding};

    use super::*;

    #[test]
    fn pictures_do_not_wait_for_ever_for_sound_that_does_not_come() {
        let (_supervisor, ours) = UnixStream::pair().expect("a pair");
        let layout = Layout::of(Format::Mp4, 1, 0, None);
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
        let layout = |bytes| Layout::of(Format::Mp4, bytes, 0, None);
        assert_eq!(layout(1).part_size, 5 * MIB);
        assert_eq!(layout(9_000 * 8 * MIB + 1).part_size, 9 * MIB);
        assert_eq!(layout(u64::MAX / 2).part_size, 90 * MIB);
    }

    /// The start of a file, and how long all of it is: the rest is zeros.
    #[derive(Clone, Default)]
    struct Mostly(Rc<RefCell<(Vec<u8>, u64)>>);

    const START: u64 = 64 << 10;

    impl WriteAt for Mostly {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let (start, length) = &mut *self.0.borrow_mut();
            *length = (*length).max(offset + bytes.len() as u64);
            start.resize(usize::try_from(START.min(*length)).map_err(io::Error::other)?, 0);
            for (place, byte) in (offset..START).zip(bytes) {
                start[usize::try_from(place).map_err(io::Error::other)?] = *byte;
            }
            Ok(())
        }
    }

    impl ReadAt for Mostly {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let (start, length) = &*self.0.borrow();
            let rest = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
            let count = rest.min(buffer.len());
            buffer[..count].fill(0);
            let start = start.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or(&[]);
            let known = start.len().min(count);
            buffer[..known].copy_from_slice(&start[..known]);
            Ok(count)
        }

        fn size(&self) -> Option<u64> {
            Some(self.0.borrow().1)
        }
    }

    #[test]
    fn a_wav_of_more_than_four_gibibytes_says_how_long_it_is() {
        const CHANNELS: u16 = 255;
        const RATE: u32 = 48_000;
        const EACH: u32 = CHANNELS as u32 * 8;
        // As long as a header of 32 bits can say, so that packets are large: doubles of 255 channels.
        let head = [
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x03\0".as_slice(),
            &CHANNELS.to_le_bytes(),
            &RATE.to_le_bytes(),
            &(RATE * EACH).to_le_bytes(),
            &u16::try_from(EACH).expect("small").to_le_bytes(),
            b"\x40\0data\xff\xff\xff\xff",
        ];
        let limits = OpenLimits { streams: 1, pixels: 1, looks_far: false };
        let input = Mostly(Rc::new(RefCell::new((head.concat(), 1 << 33))));
        let mut input = Input::open(Box::new(input), limits).expect("opens");
        let written = Mostly::default();
        let mut output = Output::create("wav", Box::new(written.clone())).expect("created");
        output.add().expect("added");
        output.describe_copy(0, &input, 0, None).expect("described");
        output.begin(&options(Format::Wav, None)).expect("begun");
        let mut packet = Packet::new().expect("memory");
        let mut bytes = 0;
        while bytes <= u64::from(u32::MAX) + 1 {
            assert!(input.read(&mut packet).expect("read"));
            bytes += packet.size() as u64;
            packet.rescale(input.streams()[0].time_base, output.time_base(0));
            output.write(&mut packet).expect("written");
        }
        output.finish().expect("finished");
        assert!(written.0.borrow().0.starts_with(b"RF64"));
        let found = Input::open(Box::new(written), limits).expect("opens again");
        let seconds = bytes / u64::from(EACH * RATE);
        assert_eq!(found.duration_us().map(|us| us / 1_000_000), Some(seconds));
        assert_eq!(found.streams()[0].duration_us().map(|us| us / 1_000_000), i64::try_from(seconds).ok());
    }

    #[test]
    fn the_head_holds_what_is_patched() {
        let layout = Layout::of(Format::Mp4, 0, 0, Some(32_000_000));
        assert!(u64::from(layout.head_parts) * layout.part_size > 32_000_000 && !layout.is_estimate);
        assert!(Layout::of(Format::Mp4, 0, 0, None).is_estimate);
        assert!(!Layout::of(Format::Webm, 0, 0, None).is_estimate);
        assert_eq!(Layout::of(Format::Wav, 0, 0, None).head_parts, 1);
        assert_eq!(Layout::of(Format::Aac, 0, 0, None).head_parts, 0);
        assert_eq!(Layout::of(Format::Mp3, 0, 6 * MIB, None).head_parts, 2);
        assert_eq!(Layout::of(Format::Mov, 0, 0, Some(99)).index_bytes, Some(99));
    }
}
