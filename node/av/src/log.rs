//! What libav says. It speaks process-wide, hence the one static of this crate; a job has a process of its own.

use std::{collections::VecDeque, sync::Mutex};

use ffmpeg_next::ffi;

/// Lines kept; the oldest go first, because what came before a failure matters most.
const LINES: usize = 40;
/// Longest line kept, in bytes.
const LINE: i32 = 512;

static LOG: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Keeps libav's errors for [`take`] instead of printing them; drops the rest.
pub fn silence() {
    // SAFETY: sets a process-wide function pointer to a function of the right type; libav allows it at any time.
    unsafe {
        ffi::av_log_set_level(ffi::AV_LOG_ERROR);
        #[cfg(target_arch = "x86_64")]
        ffi::av_log_set_callback(Some(keep));
    }
}

/// Takes the lines kept since the last time, oldest first.
pub fn take() -> Vec<String> {
    LOG.lock().map(|mut log| log.drain(..).collect()).unwrap_or_default()
}

/// Whether a line kept says that memory could not be had. Where lines are not kept, it may be so.
pub(crate) fn blames_memory() -> bool {
    cfg!(not(target_arch = "x86_64")) || LOG.lock().is_ok_and(|log| log.iter().any(|line| is_about_memory(line)))
}

/// As x264 ("malloc of size 8388608 failed"), x265 ("unable to allocate") and libvpx ("Memory allocation error") say it.
fn is_about_memory(line: &str) -> bool {
    let line = line.to_lowercase();
    ["malloc", "allocat", "memory"].iter().any(|word| line.contains(word))
}

/// Called from any of libav's threads. The type of `arguments` differs between processors, so others only set the level.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn keep(
    about: *mut std::ffi::c_void,
    level: i32,
    format: *const std::ffi::c_char,
    arguments: *mut ffi::__va_list_tag,
) {
    // The upper bits are a colour.
    if level & 0xff > ffi::AV_LOG_ERROR {
        return;
    }
    let mut line = [0; LINE as usize];
    let mut prefix = 1;
    // SAFETY: libav passes arguments that fit the format; the buffer and its length belong together, and the text ends
    // with zero.
    let line = unsafe {
        ffi::av_log_format_line2(about, level, format, arguments, line.as_mut_ptr(), LINE, &raw mut prefix);
        crate::names::text(line.as_ptr())
    };
    if let Ok(mut log) = LOG.lock() {
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line.trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_encoders_without_memory_are_known() {
        let lines = [
            ("[libx264 @ 0x5581] malloc of size 8388608 failed", true),
            ("[libvpx-vp9 @ 0x5581] Failed to initialize encoder: Memory allocation error", true),
            ("x265 [error]: unable to allocate a new encoder", true),
            ("[libx264 @ 0x5581] high profile doesn't support lossless", false),
            ("[libvpx-vp9 @ 0x5581] Failed to initialize encoder: Invalid parameter", false),
        ];
        for (line, expected) in lines {
            assert_eq!(is_about_memory(line), expected, "{line}");
        }
    }
}
