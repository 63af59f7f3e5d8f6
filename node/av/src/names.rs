//! libav's names of formats, and what this build of it has.

use std::ffi::{CStr, CString, c_char};

use ffmpeg_next::ffi;

/// Whether there is an encoder of this name.
pub fn has_encoder(name: &str) -> bool {
    // SAFETY: the name ends with zero; the answer is a static table entry or null.
    CString::new(name).is_ok_and(|name| unsafe { !ffi::avcodec_find_encoder_by_name(name.as_ptr()).is_null() })
}

/// Whether there is a filter of this name.
pub fn has_filter(name: &str) -> bool {
    // SAFETY: the name ends with zero; the answer is a static table entry or null.
    CString::new(name).is_ok_and(|name| unsafe { !ffi::avfilter_get_by_name(name.as_ptr()).is_null() })
}

/// A static C string, or "" for null.
///
/// # Safety
///
/// `text` is null, or ends with zero and is valid during the call.
pub(crate) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Whether libav has a pixel format of this number. Must be asked before the number becomes the Rust enum.
fn is_pixel_format(format: i32) -> bool {
    (0..ffi::AVPixelFormat::AV_PIX_FMT_NB as i32).contains(&format)
}

pub(crate) fn pixel_format_name(format: i32) -> String {
    if !is_pixel_format(format) {
        return String::new();
    }
    // SAFETY: the number is one of the enum's, which has no gaps below NB; the name is static.
    unsafe { text(ffi::av_get_pix_fmt_name(std::mem::transmute::<i32, ffi::AVPixelFormat>(format))) }
}

/// Bits of the deepest component; 0 when the format is unknown.
pub(crate) fn pixel_format_depth(format: i32) -> u32 {
    if !is_pixel_format(format) {
        return 0;
    }
    // SAFETY: as in `pixel_format_name`; the descriptor is static or null.
    let descriptor =
        unsafe { ffi::av_pix_fmt_desc_get(std::mem::transmute::<i32, ffi::AVPixelFormat>(format)).as_ref() };
    descriptor.map_or(0, |found| {
        let used = &found.comp[..usize::from(found.nb_components).min(4)];
        used.iter().map(|component| u32::try_from(component.depth).unwrap_or(0)).max().unwrap_or(0)
    })
}

pub(crate) fn sample_format_name(format: i32) -> String {
    if !(0..ffi::AVSampleFormat::AV_SAMPLE_FMT_NB as i32).contains(&format) {
        return String::new();
    }
    // SAFETY: the number is one of the enum's, which has no gaps below NB; the name is static.
    unsafe { text(ffi::av_get_sample_fmt_name(std::mem::transmute::<i32, ffi::AVSampleFormat>(format))) }
}

/// The layout as libav describes it (`stereo`, `5.1(side)`), with the usual one where the order of channels is unknown
/// or not that of loudspeakers.
pub(crate) fn layout_name(layout: &ffi::AVChannelLayout) -> String {
    let mut buffer = [0; 128];
    // SAFETY: the layout is valid, the buffer and its length belong together, and libav ends the text with zero. The
    // default layout is a mask and owns no memory.
    unsafe {
        let mut usual = std::mem::zeroed::<ffi::AVChannelLayout>();
        let order = (&raw const layout.order).cast::<i32>().read();
        let described = if order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_NATIVE as i32 {
            std::ptr::from_ref(layout)
        } else {
            ffi::av_channel_layout_default(&raw mut usual, layout.nb_channels);
            &raw const usual
        };
        if ffi::av_channel_layout_describe(described, buffer.as_mut_ptr(), buffer.len()) < 0 {
            return String::new();
        }
        text(buffer.as_ptr())
    }
}
