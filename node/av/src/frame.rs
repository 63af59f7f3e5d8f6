//! One decoded picture, or a run of decoded samples.

use ffmpeg_next::ffi;

use crate::{
    error::{Error, Result, check},
    filter::{AudioShape, PictureShape},
    names::{layout_name, pixel_format_name, sample_format_name},
    orientation::Orientation,
    time::{Rational, bounded, known, unknown},
};

/// An owned, reference-counted frame.
pub struct Frame(*mut ffi::AVFrame);

/// A display matrix, as nine numbers of the machine.
pub(crate) type Matrix = [u8; 36];

const MATRIX: ffi::AVFrameSideDataType = ffi::AVFrameSideDataType::AV_FRAME_DATA_DISPLAYMATRIX;

/// How a picture's numbers mean colours: code points of ITU-T H.273, as libav numbers them. 2 is "unspecified" for all
/// but the range, where that is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// 0 unspecified, 1 limited, 2 full.
    pub range: i32,
    /// Colour primaries.
    pub primaries: i32,
    /// Transfer characteristic.
    pub transfer: i32,
    /// Matrix.
    pub matrix: i32,
}

/// Whether a picture is two half pictures, and which came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOrder {
    /// One whole picture.
    Progressive,
    /// Two fields, the upper one first.
    TopFirst,
    /// Two fields, the lower one first.
    BottomFirst,
}

impl Color {
    /// Nothing is said.
    pub const UNSPECIFIED: Self = Self { range: 0, primaries: 2, transfer: 2, matrix: 2 };

    /// Whether the picture is in high dynamic range: PQ (16) or HLG (18).
    pub fn is_hdr(self) -> bool {
        matches!(self.transfer, 16 | 18)
    }

    /// Whether black is 0 and white the largest number.
    pub fn is_full_range(self) -> bool {
        self.range == 2
    }
}

impl Frame {
    /// A frame without content.
    pub fn new() -> Result<Self> {
        // SAFETY: allocates; the result is checked.
        let frame = unsafe { ffi::av_frame_alloc() };
        if frame.is_null() { Err(Error::memory("allocate frame")) } else { Ok(Self(frame)) }
    }

    /// A picture of zeros in 8-bit 4:2:0, for trying an encoder.
    pub fn blank_picture(width: u16, height: u16) -> Result<Self> {
        let mut frame = Self::new()?;
        let raw = frame.get_mut();
        raw.width = width.into();
        raw.height = height.into();
        raw.format = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P as i32;
        frame.fill_with_zeros()
    }

    /// Stereo silence of 32-bit floats at 48 kHz, one channel after the other or interleaved, for trying an encoder.
    pub fn silence(samples: u16, interleaved: bool) -> Result<Self> {
        use ffi::AVSampleFormat::{AV_SAMPLE_FMT_FLT, AV_SAMPLE_FMT_FLTP};
        let mut frame = Self::new()?;
        let raw = frame.get_mut();
        raw.nb_samples = samples.into();
        raw.sample_rate = 48_000;
        raw.format = if interleaved { AV_SAMPLE_FMT_FLT } else { AV_SAMPLE_FMT_FLTP } as i32;
        // SAFETY: the layout is the frame's own and empty; the default one is a mask and owns no memory.
        unsafe { ffi::av_channel_layout_default(&raw mut raw.ch_layout, 2) };
        frame.fill_with_zeros()
    }

    fn fill_with_zeros(mut self) -> Result<Self> {
        // SAFETY: valid, its shape is set and it has no buffers yet; each buffer is zeroed over its own length.
        unsafe {
            check(ffi::av_frame_get_buffer(self.0, 0), "allocate frame")?;
            for buffer in self.get_mut().buf.iter().filter_map(|buffer| buffer.as_ref()) {
                buffer.data.write_bytes(0, buffer.size);
            }
        }
        Ok(self)
    }

    /// Takes the content out, leaving this frame without any. Nothing is copied.
    pub fn take(&mut self) -> Result<Self> {
        let taken = Self::new()?;
        // SAFETY: both are valid and distinct; moves the references and resets the source.
        unsafe { ffi::av_frame_move_ref(taken.0, self.0) };
        Ok(taken)
    }

    /// When it is shown, in the time base of the decoder or graph that it came from.
    pub fn pts(&self) -> Option<i64> {
        known(self.get().pts)
    }

    /// Sets when it is shown.
    pub fn set_pts(&mut self, pts: Option<i64>) {
        self.get_mut().pts = unknown(pts);
    }

    /// libav's best guess of when it is shown, where the container is silent or wrong.
    pub fn best_effort_pts(&self) -> Option<i64> {
        known(self.get().best_effort_timestamp)
    }

    /// How long its packet said it is shown, in the stream's time base; 0 when unknown.
    pub fn duration(&self) -> i64 {
        #[cfg(ffmpeg_6_0)]
        let duration = self.get().duration;
        #[cfg(not(ffmpeg_6_0))]
        let duration = self.get().pkt_duration;
        bounded(duration)
    }

    /// Samples per channel; 0 for pictures.
    pub fn samples(&self) -> usize {
        usize::try_from(self.get().nb_samples).unwrap_or(0)
    }

    /// Fields, if it is interlaced.
    pub fn field_order(&self) -> FieldOrder {
        let frame = self.get();
        #[cfg(ffmpeg_7_0)]
        let flags = [ffi::AV_FRAME_FLAG_INTERLACED, ffi::AV_FRAME_FLAG_TOP_FIELD_FIRST].map(|flag| frame.flags & flag);
        #[cfg(not(ffmpeg_7_0))]
        let flags = [frame.interlaced_frame, frame.top_field_first];
        match (flags[0] != 0, flags[1] != 0) {
            (false, _) => FieldOrder::Progressive,
            (true, true) => FieldOrder::TopFirst,
            (true, false) => FieldOrder::BottomFirst,
        }
    }

    /// Whether the decoder had to guess parts of it.
    pub fn is_damaged(&self) -> bool {
        let frame = self.get();
        frame.decode_error_flags != 0 || frame.flags & ffi::AV_FRAME_FLAG_CORRUPT != 0
    }

    /// How it must be turned, where the picture itself or one before it says so: EXIF of JPEG, display orientation of H.264
    /// and HEVC.
    pub fn orientation(&self) -> Option<Orientation> {
        let matrix = self.matrix()?;
        let (numbers, _) = matrix.as_chunks::<4>();
        Some(Orientation::from_matrix(std::array::from_fn(|n| i32::from_ne_bytes(numbers[n]))))
    }

    /// Forgets how it must be turned, once that has been done.
    pub fn forget_orientation(&mut self) {
        // SAFETY: the frame is ours and valid.
        unsafe { ffi::av_frame_remove_side_data(self.0, MATRIX) }
    }

    pub(crate) fn matrix(&self) -> Option<Matrix> {
        // SAFETY: the frame is ours and valid; its side data has `size` bytes and is copied before the frame changes.
        unsafe {
            let found = ffi::av_frame_get_side_data(self.0, MATRIX).as_ref()?;
            (!found.data.is_null() && found.size >= size_of::<Matrix>()).then(|| found.data.cast::<Matrix>().read())
        }
    }

    pub(crate) fn set_matrix(&mut self, matrix: &Matrix) -> Result<()> {
        // SAFETY: the frame is ours and valid; libav allocates as many bytes as are written.
        unsafe {
            let Some(made) = ffi::av_frame_new_side_data(self.0, MATRIX, matrix.len()).as_ref() else {
                return Err(Error::memory("allocate side data"));
            };
            made.data.copy_from_nonoverlapping(matrix.as_ptr(), matrix.len());
        }
        Ok(())
    }

    /// What its colours mean.
    pub fn color(&self) -> Color {
        // SAFETY: the fields are valid and as large as an `i32`. They are read as integers, because a hostile stream
        // can put a number there that the Rust enum does not have.
        unsafe {
            Color {
                range: (&raw const (*self.0).color_range).cast::<i32>().read(),
                primaries: (&raw const (*self.0).color_primaries).cast::<i32>().read(),
                transfer: (&raw const (*self.0).color_trc).cast::<i32>().read(),
                matrix: (&raw const (*self.0).colorspace).cast::<i32>().read(),
            }
        }
    }

    /// Overwrites what its colours mean, without touching the pixels.
    pub fn set_color(&mut self, color: Color) {
        // SAFETY: the fields are valid and as large as an `i32`; the numbers come from our own tables or from libav.
        unsafe {
            (&raw mut (*self.0).color_range).cast::<i32>().write(color.range);
            (&raw mut (*self.0).color_primaries).cast::<i32>().write(color.primaries);
            (&raw mut (*self.0).color_trc).cast::<i32>().write(color.transfer);
            (&raw mut (*self.0).colorspace).cast::<i32>().write(color.matrix);
        }
    }

    /// Lets the encoder choose the type of the picture, whatever the decoder said it was.
    pub fn forget_picture_type(&mut self) {
        self.get_mut().pict_type = ffi::AVPictureType::AV_PICTURE_TYPE_NONE;
    }

    /// Asks the encoder for a picture that decoding can begin at.
    pub fn ask_for_key(&mut self) {
        self.get_mut().pict_type = ffi::AVPictureType::AV_PICTURE_TYPE_I;
    }

    /// Sets the quality that an encoder of single pictures uses, 1 (best) to 31, as MPEG counts.
    pub fn set_quality(&mut self, scale: i32) {
        self.get_mut().quality = scale.saturating_mul(ffi::FF_QP2LAMBDA);
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        u32::try_from(self.get().width).unwrap_or(0)
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        u32::try_from(self.get().height).unwrap_or(0)
    }

    /// What a graph must know of it, as a picture.
    pub fn picture_shape(&self, time_base: Rational, frame_rate: Rational) -> PictureShape {
        let frame = self.get();
        PictureShape {
            width: self.width(),
            height: self.height(),
            format: pixel_format_name(frame.format),
            aspect: Rational(frame.sample_aspect_ratio.num, frame.sample_aspect_ratio.den),
            color: self.color(),
            time_base,
            frame_rate,
        }
    }

    /// What a graph must know of it, as sound.
    pub fn audio_shape(&self, time_base: Rational) -> AudioShape {
        let frame = self.get();
        AudioShape {
            sample_rate: u32::try_from(frame.sample_rate).unwrap_or(0),
            format: sample_format_name(frame.format),
            channels: u32::try_from(frame.ch_layout.nb_channels).unwrap_or(0),
            layout: layout_name(&frame.ch_layout),
            time_base,
        }
    }

    /// Gives a frame whose channels are in an unknown order, or no loudspeakers' (ambisonics), the usual one for their
    /// number; graphs refuse it otherwise.
    pub fn settle_layout(&mut self) {
        // SAFETY: the layout is valid; `av_channel_layout_default` fills a fresh one, whose mask owns no memory.
        unsafe {
            let layout = &raw mut (*self.0).ch_layout;
            let order = (&raw const (*layout).order).cast::<i32>().read();
            let is_settled = order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_NATIVE as i32;
            if !is_settled && (*layout).nb_channels > 0 {
                let channels = (*layout).nb_channels;
                ffi::av_channel_layout_uninit(layout);
                ffi::av_channel_layout_default(layout, channels);
                #[cfg(not(ffmpeg_7_0))]
                {
                    (*self.0).channel_layout = (*layout).u.mask;
                }
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::AVFrame {
        self.0
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut ffi::AVFrame {
        self.0
    }

    fn get(&self) -> &ffi::AVFrame {
        // SAFETY: never null, and ours alone.
        unsafe { &*self.0 }
    }

    fn get_mut(&mut self) -> &mut ffi::AVFrame {
        // SAFETY: never null, and ours alone.
        unsafe { &mut *self.0 }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::av_frame_free(&raw mut self.0) }
    }
}
