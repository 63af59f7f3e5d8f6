//! One piece of an encoded stream.

use ffmpeg_next::ffi;

use crate::{
    error::{Error, Result},
    time::{Rational, bounded, known, unknown},
};

/// An owned, reference-counted packet. Times are in the time base of the stream or encoder it came from.
pub struct Packet(*mut ffi::AVPacket);

impl Packet {
    /// A packet without content.
    pub fn new() -> Result<Self> {
        // SAFETY: allocates; the result is checked.
        let packet = unsafe { ffi::av_packet_alloc() };
        if packet.is_null() { Err(Error::memory("allocate packet")) } else { Ok(Self(packet)) }
    }

    /// The stream it belongs to, by index; of a packet that is to be muxed, that of the output.
    pub fn stream(&self) -> usize {
        usize::try_from(self.get().stream_index).unwrap_or(0)
    }

    /// Sets the stream that it belongs to.
    pub fn set_stream(&mut self, stream: usize) {
        self.get_mut().stream_index = i32::try_from(stream).unwrap_or(i32::MAX);
    }

    /// When it is shown.
    pub fn pts(&self) -> Option<i64> {
        known(self.get().pts)
    }

    /// When it is decoded.
    pub fn dts(&self) -> Option<i64> {
        known(self.get().dts)
    }

    /// Sets both times.
    pub fn set_times(&mut self, pts: Option<i64>, dts: Option<i64>) {
        let packet = self.get_mut();
        packet.pts = unknown(pts);
        packet.dts = unknown(dts);
    }

    /// How long it is shown; 0 when unknown.
    pub fn duration(&self) -> i64 {
        bounded(self.get().duration)
    }

    /// Sets how long it is shown; 0 when unknown.
    pub fn set_duration(&mut self, duration: i64) {
        self.get_mut().duration = duration;
    }

    /// Length of the payload in bytes.
    pub fn size(&self) -> usize {
        usize::try_from(self.get().size).unwrap_or(0)
    }

    /// Whether decoding can begin here.
    pub fn is_key(&self) -> bool {
        self.get().flags & ffi::AV_PKT_FLAG_KEY != 0
    }

    /// Whether the demuxer knows that bytes are missing or wrong.
    pub fn is_corrupt(&self) -> bool {
        self.get().flags & ffi::AV_PKT_FLAG_CORRUPT != 0
    }

    /// Whether it only primes the decoder and is never shown.
    pub fn is_discarded(&self) -> bool {
        self.get().flags & ffi::AV_PKT_FLAG_DISCARD != 0
    }

    /// Forgets that the end of its sound is silence, where nothing is said of its start. libav's MP3 muxer (5.1) counts
    /// from there below zero, and players would leave out the first 4096 samples.
    pub fn forget_end_padding(&mut self) {
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_SKIP_SAMPLES;
        let mut size = 0;
        // SAFETY: the packet is ours and valid; its side data is as long as it says, and only made shorter.
        unsafe {
            let data = ffi::av_packet_get_side_data(self.0, kind, &raw mut size);
            if !data.is_null() && size >= 4 && data.cast::<[u8; 4]>().read() == [0; 4] {
                ffi::av_packet_shrink_side_data(self.0, kind, 0);
            }
        }
    }

    /// The codec's header from this packet on, where the container says so beside the packet. It may be the one that was in
    /// force already: FLV repeats it.
    pub fn new_header(&self) -> Option<&[u8]> {
        self.side_data(ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA)
    }

    /// Whether the container says beside the packet that its sample rate, channels or size are others from here on.
    pub fn has_new_parameters(&self) -> bool {
        self.side_data(ffi::AVPacketSideDataType::AV_PKT_DATA_PARAM_CHANGE).is_some()
    }

    fn side_data(&self, kind: ffi::AVPacketSideDataType) -> Option<&[u8]> {
        let mut size = 0;
        // SAFETY: the packet is ours and valid; its side data has `size` bytes and lives as long as `self` is borrowed.
        unsafe {
            let data = ffi::av_packet_get_side_data(self.0, kind, &raw mut size);
            (!data.is_null()).then(|| std::slice::from_raw_parts(data, size))
        }
    }

    /// Says beside the packet what the codec's header is from here on.
    pub(crate) fn set_new_header(&mut self, header: &[u8]) -> Result<()> {
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA;
        // SAFETY: the packet is ours and valid; libav allocates as many bytes as are written.
        unsafe {
            let data = ffi::av_packet_new_side_data(self.0, kind, header.len());
            if data.is_null() {
                return Err(Error::memory("allocate side data"));
            }
            data.copy_from_nonoverlapping(header.as_ptr(), header.len());
        }
        Ok(())
    }

    /// Converts all its times between time bases.
    pub fn rescale(&mut self, from: Rational, to: Rational) {
        // SAFETY: the packet is ours and valid.
        unsafe { ffi::av_packet_rescale_ts(self.0, from.into(), to.into()) }
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        // SAFETY: libav keeps `size` bytes at `data` for as long as the packet holds them, and `self` is borrowed.
        unsafe { bytes(self.get().data, self.get().size) }
    }

    /// The payload, to be changed. It is copied first where others refer to it, too.
    pub fn data_mut(&mut self) -> Result<&mut [u8]> {
        // SAFETY: the packet is ours; afterwards nobody else refers to its `size` bytes.
        unsafe {
            crate::error::check(ffi::av_packet_make_writable(self.0), "change packet")?;
            let (data, size) = (self.get().data, self.size());
            Ok(if data.is_null() { &mut [] } else { std::slice::from_raw_parts_mut(data, size) })
        }
    }

    /// A second reference to the same content, with times and stream of its own.
    pub fn share(&self) -> Result<Self> {
        let mut shared = Self::new()?;
        shared.refer_to(self.0)?;
        Ok(shared)
    }

    /// Makes this a second reference to what `other` holds.
    pub(crate) fn refer_to(&mut self, other: *const ffi::AVPacket) -> Result<()> {
        // SAFETY: both are valid; what this held before is released first.
        let code = unsafe {
            ffi::av_packet_unref(self.0);
            ffi::av_packet_ref(self.0, other)
        };
        crate::error::check(code, "refer to packet").map(|_| ())
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::AVPacket {
        self.0
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut ffi::AVPacket {
        self.0
    }

    fn get(&self) -> &ffi::AVPacket {
        // SAFETY: never null, and ours alone.
        unsafe { &*self.0 }
    }

    fn get_mut(&mut self) -> &mut ffi::AVPacket {
        // SAFETY: never null, and ours alone.
        unsafe { &mut *self.0 }
    }
}

/// # Safety
///
/// `data` is null, or holds `size` bytes that nobody changes for as long as the result is used.
pub(crate) unsafe fn bytes<'a>(data: *const u8, size: i32) -> &'a [u8] {
    match usize::try_from(size) {
        // SAFETY: promised by the caller.
        Ok(size) if !data.is_null() => unsafe { std::slice::from_raw_parts(data, size) },
        _ => &[],
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::av_packet_free(&raw mut self.0) }
    }
}
