//! What a container says of one stream.

use ffmpeg_next::ffi;

use crate::{
    frame::Color,
    names::{layout_name, pixel_format_depth, pixel_format_name, text},
    orientation::Orientation,
    time::{MICROSECONDS, Rational, bounded, fine, known, rescale},
};

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Text or bitmaps over the picture.
    Subtitle,
    /// A file, such as a font.
    Attachment,
    /// Anything else.
    Data,
}

/// What a container says of one stream; owned, so that it outlives the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Its index in the input.
    pub index: usize,
    /// The container's own number of it: the track ID of MP4, the PID of a transport stream.
    pub id: i32,
    /// Numbers of the programmes that it belongs to; none where the container has no programmes.
    pub programs: Vec<i32>,
    /// What it carries.
    pub kind: Kind,
    /// libav's name of the codec, `none` when unknown.
    pub codec: String,
    /// Unit of its times, in seconds; never coarser than a millisecond, whatever the container counts in.
    pub time_base: Rational,
    /// First time, in `time_base`.
    pub start: Option<i64>,
    /// Length, in `time_base`.
    pub duration: Option<i64>,
    /// Pictures or packets in it; 0 when unknown.
    pub frames: u64,
    /// Bits per second; 0 when unknown.
    pub bit_rate: u64,
    /// The one a player takes by default.
    pub is_default: bool,
    /// Marked as something beside the main track of its kind: audio description, commentary, audio for the hearing impaired,
    /// karaoke, effects alone, or a layer that shows nothing without another track.
    pub is_secondary: bool,
    /// A single picture that belongs to the file, such as cover art.
    pub is_attached_picture: bool,
    /// Width in pixels, as stored.
    pub width: u32,
    /// Height in pixels, as stored.
    pub height: u32,
    /// Width of a pixel over its height; 0 when unknown.
    pub aspect: Rational,
    /// libav's name of the pixel format; empty when unknown.
    pub pixel_format: String,
    /// Bits of one component of a pixel; 0 when unknown.
    pub depth: u32,
    /// What the container or the codec's header says of colours.
    pub color: Color,
    /// Whether it says that pictures are interlaced.
    pub is_interlaced: bool,
    /// How the picture must be turned.
    pub orientation: Orientation,
    /// Whether only Dolby Vision shows its colours: without it, they are wrong altogether.
    pub is_dolby_only: bool,
    /// Pictures per second; 0 when unknown.
    pub frame_rate: Rational,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u32,
    /// libav's name of the channel layout.
    pub layout: String,
    /// Samples that every packet of sound has; 0 where they differ.
    pub frame_size: u32,
    /// Bits of one sample of sound that is kept without loss; 0 for other sound.
    pub sample_bits: u32,
    /// Samples that a decoder makes before the first one that is meant, as the container says.
    pub priming: u32,
    /// The codec's own number of its profile; negative when unknown.
    pub profile: i32,
    /// Whether the codec's header is known apart from the packets.
    pub has_header: bool,
}

/// What the index of a container promises of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Packets.
    pub entries: u64,
    /// Where the last of their bytes ends in the file.
    pub end: u64,
}

impl Stream {
    /// First time, in microseconds.
    pub fn start_us(&self) -> Option<i64> {
        self.start.map(|start| rescale(start, self.time_base, MICROSECONDS))
    }

    /// Length, in microseconds.
    pub fn duration_us(&self) -> Option<i64> {
        self.duration.map(|duration| rescale(duration, self.time_base, MICROSECONDS))
    }

    /// # Safety
    ///
    /// Both pointers are valid, and `stream` belongs to `context`.
    pub(crate) unsafe fn read(context: *mut ffi::AVFormatContext, stream: *mut ffi::AVStream) -> Self {
        // SAFETY: promised by the caller; libav always allocates `codecpar`. Numbers that a file controls are read as
        // integers, not as Rust enums.
        unsafe {
            let parameters = (*stream).codecpar;
            let (time_base, ticks) = fine((*stream).time_base.into());
            let in_ticks = |time: i64| bounded(time.saturating_mul(ticks));
            let rate = ffi::av_guess_frame_rate(context, stream, std::ptr::null_mut());
            let aspect = ffi::av_guess_sample_aspect_ratio(context, stream, std::ptr::null_mut());
            Self {
                index: usize::try_from((*stream).index).unwrap_or(0),
                id: (*stream).id,
                programs: programs(context, (*stream).index),
                kind: kind((&raw const (*parameters).codec_type).cast::<i32>().read()),
                codec: text(ffi::avcodec_get_name((*parameters).codec_id)),
                time_base,
                start: known((*stream).start_time).map(in_ticks),
                duration: known((*stream).duration).filter(|duration| *duration > 0).map(in_ticks),
                frames: u64::try_from((*stream).nb_frames).unwrap_or(0),
                bit_rate: u64::try_from((*parameters).bit_rate).unwrap_or(0),
                is_default: (*stream).disposition & ffi::AV_DISPOSITION_DEFAULT != 0,
                is_secondary: (*stream).disposition & SECONDARY != 0,
                is_attached_picture: (*stream).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0,
                width: u32::try_from((*parameters).width).unwrap_or(0),
                height: u32::try_from((*parameters).height).unwrap_or(0),
                aspect: aspect.into(),
                pixel_format: pixel_format_name((*parameters).format),
                depth: pixel_format_depth((*parameters).format),
                color: Color {
                    range: (&raw const (*parameters).color_range).cast::<i32>().read(),
                    primaries: (&raw const (*parameters).color_primaries).cast::<i32>().read(),
                    transfer: (&raw const (*parameters).color_trc).cast::<i32>().read(),
                    matrix: (&raw const (*parameters).color_space).cast::<i32>().read(),
                },
                is_interlaced: (&raw const (*parameters).field_order).cast::<i32>().read() > 1,
                orientation: orientation(stream),
                is_dolby_only: is_dolby_only(stream),
                frame_rate: rate.into(),
                sample_rate: u32::try_from((*parameters).sample_rate).unwrap_or(0),
                channels: u32::try_from((*parameters).ch_layout.nb_channels).unwrap_or(0),
                layout: layout_name(&(*parameters).ch_layout),
                frame_size: u32::try_from((*parameters).frame_size).unwrap_or(0),
                sample_bits: sample_bits(parameters),
                priming: u32::try_from((*parameters).initial_padding).unwrap_or(0),
                profile: (*parameters).profile,
                has_header: (*parameters).extradata_size > 0,
            }
        }
    }
}

/// Dispositions of tracks that a player does not take by itself.
const SECONDARY: i32 = ffi::AV_DISPOSITION_COMMENT
    | ffi::AV_DISPOSITION_LYRICS
    | ffi::AV_DISPOSITION_KARAOKE
    | ffi::AV_DISPOSITION_HEARING_IMPAIRED
    | ffi::AV_DISPOSITION_VISUAL_IMPAIRED
    | ffi::AV_DISPOSITION_CLEAN_EFFECTS
    | ffi::AV_DISPOSITION_DESCRIPTIONS
    | ffi::AV_DISPOSITION_DEPENDENT
    | ffi::AV_DISPOSITION_STILL_IMAGE
    | ffi::AV_DISPOSITION_TIMED_THUMBNAILS;

/// The numbers of the programmes that list a stream.
///
/// # Safety
///
/// `context` is valid.
unsafe fn programs(context: *const ffi::AVFormatContext, stream: i32) -> Vec<i32> {
    // SAFETY: promised by the caller; the context has as many programmes as it counts, and each as many indexes.
    unsafe {
        let count = (*context).nb_programs as usize;
        let all = (0..count).map(|number| *(*context).programs.add(number));
        let lists = |program: &*mut ffi::AVProgram| {
            let count = (**program).nb_stream_indexes as usize;
            (0..count).any(|number| i32::try_from(*(**program).stream_index.add(number)) == Ok(stream))
        };
        all.filter(|program| !program.is_null() && lists(program)).map(|program| (*program).id).collect()
    }
}

fn kind(number: i32) -> Kind {
    match number {
        0 => Kind::Video,
        1 => Kind::Audio,
        3 => Kind::Subtitle,
        4 => Kind::Attachment,
        _ => Kind::Data,
    }
}

/// # Safety
///
/// `parameters` are valid.
unsafe fn sample_bits(parameters: *const ffi::AVCodecParameters) -> u32 {
    // SAFETY: promised by the caller; the codec's description is static.
    unsafe {
        let codec = ffi::avcodec_descriptor_get((*parameters).codec_id);
        if codec.is_null() || (*codec).props & ffi::AV_CODEC_PROP_LOSSLESS == 0 {
            return 0;
        }
        let raw = (*parameters).bits_per_raw_sample;
        let bits = if raw > 0 { raw } else { (*parameters).bits_per_coded_sample };
        u32::try_from(bits).unwrap_or(0)
    }
}

/// libav's record of Dolby Vision has eight bytes, of which the last says what other players may take the pictures for:
/// nothing, in profile 5 (Dolby Vision Streams Within the ISO Base Media File Format, section 3.2).
///
/// # Safety
///
/// `stream` is valid.
unsafe fn is_dolby_only(stream: *const ffi::AVStream) -> bool {
    // SAFETY: promised by the caller.
    let record = unsafe { side_data(stream, ffi::AVPacketSideDataType::AV_PKT_DATA_DOVI_CONF) };
    record.and_then(|record| record.get(7)) == Some(&0)
}

/// # Safety
///
/// `stream` is valid.
unsafe fn orientation(stream: *const ffi::AVStream) -> Orientation {
    // SAFETY: promised by the caller.
    let matrix = unsafe { side_data(stream, ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX) };
    let Some((matrix, _)) = matrix.and_then(|matrix| matrix.split_first_chunk::<36>()) else {
        return Orientation::Upright;
    };
    let (numbers, _) = matrix.as_chunks::<4>();
    Orientation::from_matrix(std::array::from_fn(|n| i32::from_ne_bytes(numbers[n])))
}

/// Side data of a stream. FFmpeg 6.1 moved it from the stream to its codec parameters, 8.0 removed the old calls.
///
/// # Safety
///
/// `stream` is valid, and nothing changes its side data while the answer lives.
pub(crate) unsafe fn side_data<'a>(stream: *const ffi::AVStream, kind: ffi::AVPacketSideDataType) -> Option<&'a [u8]> {
    // SAFETY: promised by the caller; libav always allocates `codecpar`, and data and size belong together.
    unsafe {
        #[cfg(ffmpeg_7_0)]
        let (data, size) = {
            let parameters = (*stream).codecpar;
            let found =
                ffi::av_packet_side_data_get((*parameters).coded_side_data, (*parameters).nb_coded_side_data, kind);
            if found.is_null() { (std::ptr::null_mut(), 0) } else { ((*found).data, (*found).size) }
        };
        #[cfg(not(ffmpeg_7_0))]
        let (data, size) = {
            let mut size = 0;
            (ffi::av_stream_get_side_data(stream, kind, &raw mut size), size)
        };
        (!data.is_null()).then(|| std::slice::from_raw_parts(data, size))
    }
}
