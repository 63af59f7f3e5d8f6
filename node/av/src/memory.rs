//! How much memory libav takes at once.

use ffmpeg_next::ffi;

/// The largest block of memory that pictures of at most this many pixels need, in bytes: eight for each pixel, and what
/// decoders keep around them. It is 256 MiB at the least.
pub fn largest_block(pixels: u64) -> u64 {
    const EDGES: u64 = 16 << 20;
    pixels.saturating_mul(8).saturating_add(EDGES).clamp(256 << 20, i32::MAX as u64)
}

/// Bounds each block of memory that libav allocates in this process from now on, in bytes. Where it would need a larger
/// one, for what the texts or the index of a small file unpack to, it is out of memory ([`crate::ErrorKind::Memory`]).
pub fn limit_blocks(bytes: u64) {
    // SAFETY: sets a process-wide number, which libav allows at any time.
    unsafe { ffi::av_max_alloc(usize::try_from(bytes).unwrap_or(usize::MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_may_be_as_large_as_a_picture_and_not_larger() {
        let most = largest_block(8192 * 4320);
        assert!(most > 8192 * 4320 * 8 && most < 320 << 20, "{most}");
        assert_eq!((largest_block(1), largest_block(u64::MAX)), (256 << 20, i32::MAX as u64));
        limit_blocks(most);
        for (size, is_there) in [(most - 64, true), (most + 1, false)] {
            // SAFETY: allocates what is freed at once; libav takes null, too.
            unsafe {
                let block = ffi::av_malloc(usize::try_from(size).expect("small"));
                assert_eq!(!block.is_null(), is_there, "{size}");
                ffi::av_free(block);
            }
        }
    }
}
