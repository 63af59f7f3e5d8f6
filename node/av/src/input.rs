//! Opening and reading a container.

use std::{ffi::c_char, ops::Range, ptr};

use ffmpeg_next::ffi;

use crate::{
    allow::{DECODERS, DEMUXERS, PROTOCOLS},
    error::{Error, ErrorKind, Result, check},
    io::{ReadAt, Reader},
    options::Options,
    packet::Packet,
    stream::{Index, Stream},
    tags::{self, Chapter},
    time::{MICROSECONDS, Rational, bounded, fine, known, rescale},
};

/// An open container. Reads only through the [`ReadAt`] it was given.
pub struct Input {
    context: *mut ffi::AVFormatContext,
    /// After `context` in use, so it is freed later: see `drop`.
    io: Reader,
    streams: Vec<Stream>,
    /// By stream, the codec's header that the container has put in force in mid-stream.
    headers: Vec<Option<NewHeader>>,
}

/// See [`Input::headers`].
#[derive(Clone)]
struct NewHeader {
    bytes: Vec<u8>,
    /// Whether the next packet must say it again: MP4's demuxer says it once, whoever took that packet.
    is_due: bool,
}

/// Caps while opening, before anything else is known of the file.
#[derive(Clone, Copy, Debug)]
pub struct OpenLimits {
    /// Most streams libav may create; beyond it opening fails with [`ErrorKind::Memory`].
    pub streams: u32,
    /// Most pixels of one picture that probing may decode.
    pub pixels: u64,
    /// Whether to look twice as far for streams as libav does by itself: in MPEG streams, sound may begin late.
    pub looks_far: bool,
}

/// How much is read to find the streams of a file, in bytes, and how much media time is looked at, in microseconds.
const NEAR: [&str; 2] = ["5000000", "5000000"];
const FAR: [&str; 2] = ["10000000", "10000000"];

/// `SEEK_CUR` of C.
const SEEK_CUR: i32 = 1;

/// How much libav reads at the end of MPEG streams to find out how long they are, in bytes.
const LAST_BYTES: u64 = 250_000;

impl Input {
    /// Finds out what `source` is and opens it.
    pub fn open(source: Box<dyn ReadAt>, limits: OpenLimits) -> Result<Self> {
        Self::open_as(source, limits, 0)
    }

    /// The same for an MP4 in fragments, each of which is only looked at when reading comes to it, so that nothing is
    /// known of the length, nor can be sought.
    pub fn open_forward(source: Box<dyn ReadAt>, limits: OpenLimits) -> Result<Self> {
        Self::open_as(source, limits, ffi::AVFMT_FLAG_IGNIDX)
    }

    fn open_as(source: Box<dyn ReadAt>, limits: OpenLimits, flags: i32) -> Result<Self> {
        let io = Reader::reading(source)?;
        let context = match open_context(&io, limits, flags) {
            Err(_) if io.failed() => return Err(Error::new(ErrorKind::Source, "open input")),
            opened => opened?,
        };
        let mut input = Self { context, io, streams: Vec::new(), headers: Vec::new() };
        if let Some(size) = input.size().filter(|_| input.format().starts_with("mpeg")) {
            input.expect(size.saturating_sub(LAST_BYTES)..size);
        }
        input.find_streams(limits).map_err(|error| input.blame(error))?;
        if input.io.failed() {
            return Err(Error::new(ErrorKind::Source, "probe input"));
        }
        input.streams = input.read_streams();
        Ok(input)
    }

    /// The streams, by index, as they were after probing.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// libav's name of the container, as a list of what one demuxer reads (`mov,mp4,m4a,3gp,3g2,mj2`).
    pub fn format(&self) -> String {
        // SAFETY: an open input has a demuxer, whose name is static.
        unsafe { crate::names::text((*(*self.context).iformat).name) }
    }

    /// Whether jumps of its timestamps are ordinary (transport streams and the like).
    pub fn may_jump(&self) -> bool {
        // SAFETY: an open input has a demuxer.
        unsafe { (*(*self.context).iformat).flags & ffi::AVFMT_TS_DISCONT != 0 }
    }

    /// Whether the container tells of a stream only where its first packet comes.
    pub fn may_find_more(&self) -> bool {
        // SAFETY: valid while `self` is.
        unsafe { (*self.context).ctx_flags & ffi::AVFMTCTX_NOHEADER != 0 }
    }

    /// First time of the file, in microseconds.
    pub fn start_us(&self) -> Option<i64> {
        // SAFETY: valid while `self` is.
        known(unsafe { (*self.context).start_time })
    }

    /// Length of the file, in microseconds.
    pub fn duration_us(&self) -> Option<u64> {
        // SAFETY: valid while `self` is.
        known(unsafe { (*self.context).duration }).and_then(|duration| duration.try_into().ok()).filter(|us| *us > 0)
    }

    /// Whether the container itself says its length, so that less is a sign of a cut file; else it is an estimate.
    pub fn declares_duration(&self) -> bool {
        // SAFETY: valid while `self` is; read as the integer it is.
        let method = unsafe { (&raw const (*self.context).duration_estimation_method).cast::<i32>().read() };
        method == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_STREAM as i32
    }

    /// Length of the source in bytes, when it is known.
    pub fn size(&self) -> Option<u64> {
        self.io.size()
    }

    /// What the container's index promises of a stream; none where the container has none.
    pub fn index(&self, stream: usize) -> Option<Index> {
        let stream = self.stream(stream)?;
        // SAFETY: the stream is of this context; entries are valid until the context is used again.
        unsafe {
            let count = ffi::avformat_index_get_entries_count(stream);
            let mut end = 0;
            for number in 0..count {
                let entry = ffi::avformat_index_get_entry(stream, number).as_ref()?;
                end = end.max(entry.pos.saturating_add(i64::from(entry.size())));
            }
            let entries = u64::try_from(count).ok().filter(|count| *count > 0)?;
            Some(Index { entries, end: u64::try_from(end).unwrap_or(0) })
        }
    }

    /// Where the index has the packets of a stream, in bytes: from the last place at or before `time` (of decoding, in
    /// the stream's time base) where decoding can begin, to `more` packets behind it. None where the index has no
    /// lengths, or other streams take up most of the room between.
    pub fn place(&self, stream: usize, time: i64, more: i32) -> Option<Range<u64>> {
        let time = time.div_euclid(self.time_bases(stream).2);
        let stream = self.stream(stream)?;
        // SAFETY: the stream is of this context; entries are valid until the context is used again.
        unsafe {
            let first = ffi::av_index_search_timestamp(stream, time, ffi::AVSEEK_FLAG_BACKWARD);
            let behind = ffi::av_index_search_timestamp(stream, time, ffi::AVSEEK_FLAG_ANY);
            let count = ffi::avformat_index_get_entries_count(stream);
            if first < 0 || behind < first {
                return None;
            }
            let (mut start, mut end, mut used) = (u64::MAX, 0, 0);
            for number in first..behind.saturating_add(more).min(count) {
                let entry = ffi::avformat_index_get_entry(stream, number).as_ref()?;
                let (at, size) = (u64::try_from(entry.pos).ok()?, u64::try_from(entry.size()).ok()?);
                (start, end, used) = (start.min(at), end.max(at.checked_add(size)?), used + size);
            }
            (used > 0 && used >= end.checked_sub(start)? / 2).then_some(start..end)
        }
    }

    /// Where the index has all packets of a stream between two times (of decoding, in the stream's time base) and one behind
    /// them, in bytes, in their order. Places less than `gap` bytes apart are one. None where the index has no lengths.
    pub fn places(&self, stream: usize, times: Range<i64>, gap: u64) -> Option<Vec<Range<u64>>> {
        let ticks = self.time_bases(stream).2;
        let stream = self.stream(stream)?;
        let mut places: Vec<Range<u64>> = Vec::new();
        // SAFETY: the stream is of this context; entries are valid until the context is used again.
        unsafe {
            let count = ffi::avformat_index_get_entries_count(stream);
            let first =
                ffi::av_index_search_timestamp(stream, times.start.div_euclid(ticks), ffi::AVSEEK_FLAG_BACKWARD);
            for number in first.max(0)..count {
                let entry = ffi::avformat_index_get_entry(stream, number).as_ref()?;
                let (start, size) = (u64::try_from(entry.pos).ok()?, u64::try_from(entry.size()).ok()?);
                let end = start.checked_add(size).filter(|end| *end > start)?;
                match places.last_mut() {
                    Some(last) if last.start <= start && start < last.end.saturating_add(gap) => {
                        last.end = last.end.max(end);
                    }
                    _ => places.push(start..end),
                }
                if entry.timestamp >= times.end.div_euclid(ticks) {
                    break;
                }
            }
        }
        Some(places)
    }

    /// Where the index has a packet of a stream, in bytes, and when (of decoding, in the stream's time base): the last one
    /// at or before a time where decoding can begin, or the first one at or after it.
    pub fn entry(&self, stream: usize, time: i64, before: bool) -> Option<(u64, i64)> {
        let ticks = self.time_bases(stream).2;
        let flags = if before { ffi::AVSEEK_FLAG_BACKWARD } else { ffi::AVSEEK_FLAG_ANY };
        let stream = self.stream(stream)?;
        // SAFETY: the stream is of this context; the entry is valid until the context is used again.
        let entry =
            unsafe { ffi::avformat_index_get_entry_from_timestamp(stream, time.div_euclid(ticks), flags).as_ref()? };
        Some((u64::try_from(entry.pos).ok()?, bounded(entry.timestamp.saturating_mul(ticks))))
    }

    /// Where the next packets will be read, in bytes, as far as that has been decided.
    pub fn position(&self) -> Option<u64> {
        // SAFETY: the I/O context lives as long as `self`; to seek by nothing only tells.
        u64::try_from(unsafe { ffi::avio_seek((*self.context).pb, 0, SEEK_CUR) }).ok()
    }

    /// Adds to the index that all streams have something from a place on, in bytes, and when, in microseconds: seeking to
    /// that time or a later one goes there, and to where decoding can begin from there on.
    pub fn note(&mut self, (place, time_us): (u64, i64)) {
        let Ok(place) = i64::try_from(place) else { return };
        for number in 0..self.streams.len() {
            let time = rescale(time_us, MICROSECONDS, self.time_bases(number).0);
            if let Some(stream) = self.stream(number) {
                // SAFETY: the stream is of this context. Without memory the index stays as it is.
                unsafe { ffi::av_add_index_entry(stream, place, time, 0, 0, ffi::AVINDEX_KEYFRAME) };
            }
        }
    }

    /// The time base that the container counts in, where it is the same for all streams.
    pub fn ticks(&self) -> Rational {
        self.time_bases(0).0
    }

    /// Tells the source what will be read next, so that it need not guess.
    pub fn expect(&mut self, range: Range<u64>) {
        self.io.expect(range);
    }

    /// Tells the source what alone will be read from now on.
    pub fn expect_only(&mut self, places: Vec<Range<u64>>) {
        self.io.expect_only(places);
    }

    /// A tag of the file or of one of its streams, by libav's name of it.
    pub fn tag(&self, stream: Option<usize>, name: &str) -> Option<String> {
        // SAFETY: the dictionaries belong to the context and its streams, which are valid while `self` is.
        unsafe {
            let tags = match stream {
                Some(stream) => (*self.stream(stream)?).metadata,
                None => (*self.context).metadata,
            };
            tags::get(tags, name)
        }
    }

    /// The chapters, in the order of the file, those without a time left out.
    pub fn chapters(&self) -> Vec<Chapter> {
        // SAFETY: the context has as many chapters as it counts, and they are valid while `self` is.
        unsafe {
            let count = (*self.context).nb_chapters as usize;
            (0..count).filter_map(|index| Chapter::read(*(*self.context).chapters.add(index))).collect()
        }
    }

    /// The picture that belongs to the file, such as cover art.
    pub fn attached_picture(&self, stream: usize) -> Result<Packet> {
        let stream = self.stream(stream).ok_or(Error::new(ErrorKind::Other, "find stream"))?;
        let mut packet = Packet::new()?;
        // SAFETY: the stream is of this context; its picture may be empty, which `size` tells.
        unsafe {
            let picture = &raw const (*stream).attached_pic;
            if (*picture).size > 0 {
                packet.refer_to(picture)?;
            }
        }
        Ok(packet)
    }

    /// Whether packets of a stream are wanted. What is not wanted is skipped, where the container can without reading.
    pub fn want(&mut self, stream: usize, wanted: bool) {
        let discard = if wanted { ffi::AVDiscard::AVDISCARD_DEFAULT } else { ffi::AVDiscard::AVDISCARD_ALL };
        if let Some(stream) = self.stream(stream) {
            // SAFETY: the stream is of this context, and ours alone.
            unsafe { (*stream).discard = discard }
        }
    }

    /// Reads the next packet; false at the end. [`ErrorKind::InvalidData`] may be survived by reading on.
    pub fn read(&mut self, packet: &mut Packet) -> Result<bool> {
        // SAFETY: both are valid; the packet is released first, since reading overwrites it.
        let code = unsafe {
            ffi::av_packet_unref(packet.as_mut_ptr());
            ffi::av_read_frame(self.context, packet.as_mut_ptr())
        };
        if self.io.failed() {
            return Err(Error::new(ErrorKind::Source, "read packet"));
        }
        if code == ffi::AVERROR_EOF {
            return Ok(false);
        }
        check(code, "read packet")?;
        let (coarse, time_base, ticks) = self.time_bases(packet.stream());
        if ticks > 1 {
            packet.rescale(coarse, time_base);
        }
        self.follow_header(packet)?;
        Ok(true)
    }

    /// Notes a header that comes beside a packet, and repeats it on the first packet behind a seek.
    fn follow_header(&mut self, packet: &mut Packet) -> Result<()> {
        let stream = packet.stream();
        if let Some(bytes) = packet.new_header().map(<[u8]>::to_vec) {
            if self.headers.len() <= stream {
                self.headers.resize(stream + 1, None);
            }
            self.headers[stream] = Some(NewHeader { bytes, is_due: false });
        } else if let Some(header) =
            self.headers.get_mut(stream).and_then(Option::as_mut).filter(|header| header.is_due)
        {
            packet.set_new_header(&header.bytes)?;
            header.is_due = false;
        }
        Ok(())
    }

    /// Goes to the last point at or before `time` (in the stream's time base) where decoding can begin.
    pub fn seek(&mut self, stream: usize, time: i64) -> Result<()> {
        let index = i32::try_from(stream).map_err(|_| Error::new(ErrorKind::Other, "seek"))?;
        let time = time.div_euclid(self.time_bases(stream).2);
        // SAFETY: valid while `self` is; libav checks the index.
        let code = unsafe { ffi::av_seek_frame(self.context, index, time, ffi::AVSEEK_FLAG_BACKWARD) };
        // Other demuxers have forgotten which header was in force: FLV says the next one where its tag is read.
        let is_mp4 = self.format().starts_with("mov");
        for header in self.headers.iter_mut().flatten() {
            header.is_due = is_mp4;
        }
        check(code, "seek").map(|_| ()).map_err(|error| self.blame(error))
    }

    /// The codec's header, as the container keeps it apart from the packets.
    pub fn header(&self, stream: usize) -> Vec<u8> {
        // SAFETY: libav keeps `extradata_size` bytes at `extradata` for as long as `self` is.
        self.parameters(stream).map_or_else(Vec::new, |(parameters, ..)| unsafe {
            crate::packet::bytes((*parameters).extradata, (*parameters).extradata_size).to_vec()
        })
    }

    /// The codec parameters of a stream, its time base, and the aspect of its pixels as the container says.
    pub(crate) fn parameters(
        &self,
        stream: usize,
    ) -> Option<(*const ffi::AVCodecParameters, Rational, ffi::AVRational)> {
        let time_base = self.time_bases(stream).1;
        // SAFETY: the stream is of this context, and libav always allocates its parameters.
        self.stream(stream)
            .map(|stream| unsafe { ((*stream).codecpar.cast_const(), time_base, (*stream).sample_aspect_ratio) })
    }

    /// The time base that the container counts in, the one that is told, and how many ticks of this are one of that.
    fn time_bases(&self, stream: usize) -> (Rational, Rational, i64) {
        // SAFETY: the stream is of this context.
        let coarse = self.stream(stream).map_or(Rational(0, 1), |stream| unsafe { (*stream).time_base }.into());
        let (time_base, ticks) = fine(coarse);
        (coarse, time_base, ticks)
    }

    pub(crate) fn stream(&self, stream: usize) -> Option<*mut ffi::AVStream> {
        // SAFETY: valid while `self` is; the index is checked against the count.
        unsafe {
            let count = (*self.context).nb_streams as usize;
            (stream < count).then(|| *(*self.context).streams.add(stream))
        }
    }

    fn read_streams(&self) -> Vec<Stream> {
        // SAFETY: valid while `self` is; `stream` gives only streams of this context.
        let count = unsafe { (*self.context).nb_streams as usize };
        (0..count).filter_map(|n| self.stream(n)).map(|stream| unsafe { Stream::read(self.context, stream) }).collect()
    }

    /// Reads and decodes a little of each stream, with the same caps as later.
    fn find_streams(&mut self, limits: OpenLimits) -> Result<()> {
        // SAFETY: valid while `self` is.
        let count = unsafe { (*self.context).nb_streams as usize };
        let pixels = limits.pixels.min(i32::MAX as u64).to_string();
        let mut options = (0..count)
            .map(|_| Options::new([("threads", "1"), ("max_pixels", pixels.as_str())]).map(Options::into_raw))
            .collect::<Result<Vec<_>>>()?;
        // SAFETY: one dictionary for each stream there is; each is freed here, whatever was taken out of it.
        let code = unsafe {
            let code = ffi::avformat_find_stream_info(self.context, options.as_mut_ptr());
            for options in &mut options {
                ffi::av_dict_free(options);
            }
            code
        };
        check(code, "probe streams").map(|_| ())
    }

    /// The source's failure where there was one, else what libav said.
    fn blame(&self, error: Error) -> Error {
        if self.io.failed() { Error::new(ErrorKind::Source, error.doing) } else { error }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // SAFETY: ours, closed once; with custom I/O libav leaves the I/O context alone, and the field `io` is dropped
        // after this body.
        unsafe { ffi::avformat_close_input(&raw mut self.context) }
    }
}

fn open_context(io: &Reader, limits: OpenLimits, flags: i32) -> Result<*mut ffi::AVFormatContext> {
    let streams = limits.streams.to_string();
    let [bytes, time] = if limits.looks_far { FAR } else { NEAR };
    let mut options = Options::new([
        ("format_whitelist", DEMUXERS),
        ("codec_whitelist", DECODERS),
        ("protocol_whitelist", PROTOCOLS),
        ("max_streams", &streams),
        ("probesize", bytes),
        ("analyzeduration", time),
        // For MPEG-TS and others whose packets are built in memory.
        ("max_probe_packets", "5000"),
    ])?;
    // SAFETY: the context is fresh and ours; the I/O context outlives it (see `Input::drop`). On failure libav frees
    // the context and nulls our pointer.
    let context = unsafe {
        let mut context = ffi::avformat_alloc_context();
        if context.is_null() {
            return Err(Error::memory("allocate input"));
        }
        (*context).pb = io.context();
        (*context).flags |= flags;
        (*context).io_open = Some(refuse);
        let code = ffi::avformat_open_input(&raw mut context, ptr::null(), ptr::null(), options.as_mut());
        check(code, "open input")?;
        context
    };
    options.all_taken("open input").inspect_err(|_| {
        let mut context = context;
        // SAFETY: ours, and not returned.
        unsafe { ffi::avformat_close_input(&raw mut context) }
    })?;
    Ok(context)
}

/// Stands where libav would open further files that a file names.
unsafe extern "C" fn refuse(
    _: *mut ffi::AVFormatContext,
    _: *mut *mut ffi::AVIOContext,
    _: *const c_char,
    _: i32,
    _: *mut *mut ffi::AVDictionary,
) -> i32 {
    ffi::AVERROR(ffi::EACCES)
}
