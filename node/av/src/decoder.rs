//! Packets to frames.

use std::{ffi::CStr, ptr};

use ffmpeg_next::ffi;

use crate::{
    allow::DECODERS,
    error::{Error, ErrorKind, Poll, Result, check, poll},
    frame::{Frame, Matrix},
    input::Input,
    options::Options,
    packet::Packet,
    time::Rational,
};

/// An open decoder of one stream.
pub struct Decoder {
    context: *mut ffi::AVCodecContext,
    time_base: Rational,
    /// Width over height of a pixel as the container says, which counts more than what the pictures say; 0 where it is
    /// silent.
    aspect: ffi::AVRational,
    /// Orientation of frames, since one of them carried it.
    orientation: Option<Matrix>,
}

/// Whether a build of libav with all its decoders would have an allowed one for this codec. A decoder has the name of its
/// codec, but for these.
fn is_allowed_codec(codec: ffi::AVCodecID) -> bool {
    const OTHERWISE: [(&str, &str); 6] = [
        ("amr_nb", "amrnb"),
        ("amr_wb", "amrwb"),
        ("dts", "dca"),
        ("flv1", "flv"),
        ("musepack7", "mpc7"),
        ("musepack8", "mpc8"),
    ];
    // SAFETY: the name is a static string, of any number.
    let name = unsafe { crate::names::text(ffi::avcodec_get_name(codec)) };
    let decoder = OTHERWISE.iter().find(|(codec, _)| *codec == name).map_or(name.as_str(), |(_, decoder)| decoder);
    DECODERS.split(',').any(|allowed| allowed == decoder)
}

impl Decoder {
    /// Opens a decoder for a stream of `input`. It refuses pictures of more than `max_pixels`.
    pub fn open(input: &Input, stream: usize, threads: u32, max_pixels: u64) -> Result<Self> {
        let (parameters, time_base, aspect) =
            input.parameters(stream).ok_or(Error::new(ErrorKind::Unsupported, "find stream"))?;
        // SAFETY: the parameters are valid while `input` is borrowed; the context is checked before use.
        unsafe {
            let codec = ffi::avcodec_find_decoder((*parameters).codec_id);
            // The list is also given to libav, which has no error of its own for it.
            let is_allowed = |codec: *const ffi::AVCodec| {
                let name = CStr::from_ptr((*codec).name).to_bytes();
                DECODERS.split(',').any(|allowed| allowed.as_bytes() == name)
            };
            if codec.is_null() && is_allowed_codec((*parameters).codec_id) {
                return Err(Error::new(ErrorKind::NoDecoder, "find decoder"));
            }
            if codec.is_null() || !is_allowed(codec) {
                return Err(Error::new(ErrorKind::Unsupported, "find decoder"));
            }
            let context = ffi::avcodec_alloc_context3(codec);
            if context.is_null() {
                return Err(Error::memory("allocate decoder"));
            }
            let decoder = Self { context, time_base, aspect, orientation: None };
            check(ffi::avcodec_parameters_to_context(context, parameters), "set up decoder")?;
            // Without it the samples that only prime an audio decoder would not be cut off.
            (*context).pkt_timebase = time_base.into();
            open(context, codec, threads, max_pixels)?;
            Ok(decoder)
        }
    }

    /// Unit of the times of its frames, in seconds.
    pub fn time_base(&self) -> Rational {
        self.time_base
    }

    /// Gives it a packet, or with `None` asks for all that it still holds. [`Poll::More`] means: take frames first,
    /// then send the same again.
    pub fn send(&mut self, packet: Option<&Packet>) -> Result<Poll> {
        let packet = packet.map_or(ptr::null(), Packet::as_ptr);
        // SAFETY: open; the decoder takes its own reference to the packet.
        poll(unsafe { ffi::avcodec_send_packet(self.context, packet) }, "decode")
    }

    /// Takes the next frame. What one says of how it must be turned holds for those that follow it (ITU-T H.264, section
    /// D.2.27), and is on each of them.
    pub fn receive(&mut self, frame: &mut Frame) -> Result<Poll> {
        let received = self.receive_as_decoded(frame)?;
        if received == Poll::Ready {
            match (frame.matrix(), &self.orientation) {
                (Some(matrix), _) => self.orientation = Some(matrix),
                (None, Some(matrix)) => frame.set_matrix(matrix)?,
                (None, None) => {}
            }
        }
        Ok(received)
    }

    fn receive_as_decoded(&mut self, frame: &mut Frame) -> Result<Poll> {
        let frame = frame.as_mut_ptr();
        // SAFETY: open; the frame is released and overwritten.
        unsafe {
            let received = poll(ffi::avcodec_receive_frame(self.context, frame), "decode")?;
            if received == Poll::Ready && self.aspect.num > 0 {
                (*frame).sample_aspect_ratio = self.aspect;
            }
            Ok(received)
        }
    }

    /// Whether pictures that no other picture is made from are left out from the next packet on, where the codec tells.
    pub fn skip_unreferenced(&mut self, skip: bool) {
        let discard = if skip { ffi::AVDiscard::AVDISCARD_NONREF } else { ffi::AVDiscard::AVDISCARD_DEFAULT };
        // SAFETY: open; this field may be changed between packets.
        unsafe { (*self.context).skip_frame = discard }
    }

    /// Forgets what it holds, after a seek.
    pub fn reset(&mut self) {
        self.orientation = None;
        // SAFETY: open.
        unsafe { ffi::avcodec_flush_buffers(self.context) }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::avcodec_free_context(&raw mut self.context) }
    }
}

/// # Safety
///
/// Both pointers are valid, and `context` was allocated for `codec`.
unsafe fn open(
    context: *mut ffi::AVCodecContext,
    codec: *const ffi::AVCodec,
    threads: u32,
    max_pixels: u64,
) -> Result<()> {
    // libav counts them in an `int`.
    let (threads, pixels) = (threads.to_string(), max_pixels.min(i32::MAX as u64).to_string());
    let mut options = Options::new([
        ("threads", threads.as_str()),
        ("max_pixels", pixels.as_str()),
        ("max_samples", "10000000"),
        ("codec_whitelist", DECODERS),
    ])?;
    // SAFETY: promised by the caller.
    check(unsafe { ffi::avcodec_open2(context, codec, options.as_mut()) }, "open decoder")?;
    options.all_taken("open decoder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_that_some_builds_of_libav_leave_out_are_known_by_their_names() {
        use ffi::AVCodecID::{
            AV_CODEC_ID_AAC, AV_CODEC_ID_DTS, AV_CODEC_ID_H264, AV_CODEC_ID_HEVC, AV_CODEC_ID_MAGICYUV,
        };
        for codec in [AV_CODEC_ID_H264, AV_CODEC_ID_HEVC, AV_CODEC_ID_AAC, AV_CODEC_ID_DTS] {
            assert!(is_allowed_codec(codec), "{codec:?}");
        }
        assert!(!is_allowed_codec(AV_CODEC_ID_MAGICYUV));
    }
}
