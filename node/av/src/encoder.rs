//! Frames to packets.

use std::{ffi::CString, ptr};

use ffmpeg_next::ffi;

use crate::{
    error::{Error, ErrorKind, Poll, Result, check, poll},
    frame::Frame,
    options::Options,
    packet::Packet,
    time::Rational,
};

/// How pictures are encoded. Size, pixel format and colours are those of the first frame.
#[derive(Clone, Debug)]
pub struct VideoEncoding<'a> {
    /// libav's name of the encoder.
    pub encoder: &'a str,
    /// Unit of the frames' times, in seconds.
    pub time_base: Rational,
    /// Pictures per second, a hint for rate control; 0 when unknown.
    pub frame_rate: Rational,
    /// Threads it may use.
    pub threads: u32,
    /// libav's options, by name.
    pub options: &'a [(&'a str, String)],
    /// Whether the container wants the codec's header apart (MP4, MOV, Matroska).
    pub global_header: bool,
}

/// How sound is encoded. Rate, layout and sample format are those of the first frame.
#[derive(Clone, Debug)]
pub struct AudioEncoding<'a> {
    /// libav's name of the encoder.
    pub encoder: &'a str,
    /// libav's options, by name.
    pub options: &'a [(&'a str, String)],
    /// Whether the container wants the codec's header apart.
    pub global_header: bool,
}

/// An open encoder of one stream.
pub struct Encoder(*mut ffi::AVCodecContext);

impl Encoder {
    /// Opens an encoder for pictures like `first`.
    pub fn video(how: &VideoEncoding, first: &Frame) -> Result<Self> {
        let (encoder, codec) = Self::allocate(how.encoder)?;
        // SAFETY: the context is fresh and ours, and the frame is valid; enums are copied as the integers they are.
        unsafe {
            let (context, frame) = (encoder.0, first.as_ptr());
            (*context).width = (*frame).width;
            (*context).height = (*frame).height;
            (&raw mut (*context).pix_fmt).cast::<i32>().write((*frame).format);
            (*context).sample_aspect_ratio = (*frame).sample_aspect_ratio;
            (*context).time_base = how.time_base.into();
            if how.frame_rate.0 > 0 {
                (*context).framerate = how.frame_rate.into();
            }
            let color = first.color();
            (&raw mut (*context).color_range).cast::<i32>().write(color.range);
            (&raw mut (*context).color_primaries).cast::<i32>().write(color.primaries);
            (&raw mut (*context).color_trc).cast::<i32>().write(color.transfer);
            (&raw mut (*context).colorspace).cast::<i32>().write(color.matrix);
            let chroma = (&raw const (*frame).chroma_location).cast::<i32>().read();
            (&raw mut (*context).chroma_sample_location).cast::<i32>().write(chroma);
        }
        encoder.open(codec, how.options, Some(how.threads), how.global_header)
    }

    /// Opens an encoder for sound like `first`; its time base is one sample.
    pub fn audio(how: &AudioEncoding, first: &Frame) -> Result<Self> {
        let (encoder, codec) = Self::allocate(how.encoder)?;
        // SAFETY: the context is fresh and ours, and the frame is valid; the layout is copied by libav.
        unsafe {
            let (context, frame) = (encoder.0, first.as_ptr());
            (*context).sample_rate = (*frame).sample_rate;
            (&raw mut (*context).sample_fmt).cast::<i32>().write((*frame).format);
            let code = ffi::av_channel_layout_copy(&raw mut (*context).ch_layout, &raw const (*frame).ch_layout);
            check(code, "set up encoder")?;
            (*context).time_base = ffi::AVRational { num: 1, den: (*frame).sample_rate };
        }
        encoder.open(codec, how.options, None, how.global_header)
    }

    /// Unit of the times of frames and packets, in seconds.
    pub fn time_base(&self) -> Rational {
        // SAFETY: open.
        unsafe { (*self.0).time_base }.into()
    }

    /// Samples that every frame but the last must have; 0 when any number will do.
    pub fn frame_size(&self) -> u32 {
        // SAFETY: open; a codec has a static description.
        unsafe {
            if (*(*self.0).codec).capabilities & ffi::AV_CODEC_CAP_VARIABLE_FRAME_SIZE.cast_signed() != 0 {
                return 0;
            }
            u32::try_from((*self.0).frame_size).unwrap_or(0)
        }
    }

    /// Samples that the encoder puts before the first one given to it.
    pub fn priming(&self) -> u32 {
        // SAFETY: open.
        u32::try_from(unsafe { (*self.0).initial_padding }).unwrap_or(0)
    }

    /// Gives it a frame, or with `None` asks for all that it still holds. [`Poll::More`] means: take packets first.
    pub fn send(&mut self, frame: Option<&Frame>) -> Result<Poll> {
        let frame = frame.map_or(ptr::null(), Frame::as_ptr);
        // SAFETY: open; the encoder takes its own reference to the frame.
        poll(unsafe { ffi::avcodec_send_frame(self.0, frame) }, "encode").map_err(Error::of_encoder)
    }

    /// Takes the next packet.
    pub fn receive(&mut self, packet: &mut Packet) -> Result<Poll> {
        // SAFETY: open; the packet is released and overwritten.
        poll(unsafe { ffi::avcodec_receive_packet(self.0, packet.as_mut_ptr()) }, "encode").map_err(Error::of_encoder)
    }

    /// The codec's header, where it is kept apart from the packets.
    pub fn header(&self) -> Vec<u8> {
        // SAFETY: open; libav keeps `extradata_size` bytes at `extradata`.
        unsafe { crate::packet::bytes((*self.0).extradata, (*self.0).extradata_size).to_vec() }
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::AVCodecContext {
        self.0
    }

    fn allocate(name: &str) -> Result<(Self, *const ffi::AVCodec)> {
        let name = CString::new(name).map_err(|_| Error::new(ErrorKind::NoEncoder, "find encoder"))?;
        // SAFETY: the name ends with zero; both results are checked.
        unsafe {
            let codec = ffi::avcodec_find_encoder_by_name(name.as_ptr());
            if codec.is_null() {
                return Err(Error::new(ErrorKind::NoEncoder, "find encoder"));
            }
            let context = ffi::avcodec_alloc_context3(codec);
            if context.is_null() { Err(Error::memory("allocate encoder")) } else { Ok((Self(context), codec)) }
        }
    }

    fn open(
        self,
        codec: *const ffi::AVCodec,
        options: &[(&str, String)],
        threads: Option<u32>,
        global_header: bool,
    ) -> Result<Self> {
        let threads = threads.map(|count| count.to_string());
        let threads = threads.iter().map(|count| ("threads", count.as_str()));
        let mut options = Options::new(options.iter().map(|(key, value)| (*key, value.as_str())).chain(threads))?;
        // SAFETY: the context was allocated for this codec.
        let code = unsafe {
            if global_header {
                (*self.0).flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER.cast_signed();
            }
            ffi::avcodec_open2(self.0, codec, options.as_mut())
        };
        check(code, "open encoder").map_err(Error::of_encoder)?;
        options.all_taken("open encoder")?;
        Ok(self)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::avcodec_free_context(&raw mut self.0) }
    }
}
