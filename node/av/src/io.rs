//! Custom I/O: libav reads from and writes to traits, and can reach nothing else.

use std::{ffi::c_void, io, ops::Range, ptr, slice};

use ffmpeg_next::ffi;

use crate::error::{Error, Result};

/// A source of bytes. One call may be slow; there is only ever one at a time.
pub trait ReadAt {
    /// Reads up to `buffer.len()` bytes from `offset`; 0 only at the end of the source.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The length in bytes, when it is known.
    fn size(&self) -> Option<u64>;

    /// Hears that these bytes will be read next, and those behind them hardly.
    fn expect(&mut self, _range: Range<u64>) {}

    /// Hears that of all that follows these bytes alone will be read, in this order.
    fn expect_only(&mut self, _places: Vec<Range<u64>>) {}
}

/// A place for bytes. Muxers write forward, and seek back to patch what they wrote.
pub trait WriteAt {
    /// Takes all of `bytes` for the place that begins at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

pub(crate) type Reader = Io<Box<dyn ReadAt>>;
pub(crate) type Writer = Io<Box<dyn WriteAt>>;

/// libav's own buffer in front of a source or a sink, in bytes. The source keeps larger windows itself, so this only
/// bounds how much is copied again after a seek.
const BUFFER: i32 = 64 << 10;

/// An `AVIOContext` and what it points to.
pub(crate) struct Io<T> {
    context: *mut ffi::AVIOContext,
    state: *mut State<T>,
}

/// What the callbacks get.
struct State<T> {
    /// Cursor in bytes; seeking only moves it, so a seek costs nothing until something is read.
    position: u64,
    /// Where the furthest written byte ends.
    end: u64,
    /// Set for good by the first failure, because libav may report it as something else or not at all.
    failed: bool,
    target: T,
}

impl Reader {
    pub(crate) fn reading(source: Box<dyn ReadAt>) -> Result<Self> {
        Self::allocate(source, 0, Some(read), None, Some(seek_source))
    }

    /// The source's length in bytes, when it is known.
    pub(crate) fn size(&self) -> Option<u64> {
        // SAFETY: the state lives as long as `self`, and no callback runs while `self` is borrowed here.
        unsafe { (*self.state).target.size() }
    }

    /// Tells the source what will be read next.
    pub(crate) fn expect(&mut self, range: Range<u64>) {
        // SAFETY: the state lives as long as `self`, and no callback runs while `self` is borrowed here.
        unsafe { (*self.state).target.expect(range) }
    }

    /// Tells the source what alone will be read from now on.
    pub(crate) fn expect_only(&mut self, places: Vec<Range<u64>>) {
        // SAFETY: as in `expect`; the context is as old as the state.
        unsafe {
            // Else libav reads through what lies between, where that is not much more than its buffer's length.
            (*self.context).direct = i32::from(places.len() > 1);
            (*self.state).target.expect_only(places);
        }
    }
}

impl Writer {
    pub(crate) fn writing(sink: Box<dyn WriteAt>) -> Result<Self> {
        Self::allocate(sink, 1, None, Some(write), Some(seek_sink))
    }
}

type Read = unsafe extern "C" fn(*mut c_void, *mut u8, i32) -> i32;
type Write = unsafe extern "C" fn(*mut c_void, Written, i32) -> i32;
/// What is to be written. FFmpeg 7.0 made it constant.
#[cfg(ffmpeg_7_0)]
type Written = *const u8;
#[cfg(not(ffmpeg_7_0))]
type Written = *mut u8;
type Seek = unsafe extern "C" fn(*mut c_void, i64, i32) -> i64;

impl<T> Io<T> {
    fn allocate(target: T, flag: i32, read: Option<Read>, write: Option<Write>, seek: Option<Seek>) -> Result<Self> {
        let state = Box::into_raw(Box::new(State { position: 0, end: 0, failed: false, target }));
        // SAFETY: a fresh buffer of the length said; the state outlives the context (see `drop`), and each callback
        // casts the pointer back to the very type that was boxed.
        let context = unsafe {
            let buffer = ffi::av_malloc(BUFFER as usize).cast::<u8>();
            if buffer.is_null() {
                ptr::null_mut()
            } else {
                ffi::avio_alloc_context(buffer, BUFFER, flag, state.cast(), read, write, seek)
            }
        };
        let io = Self { context, state };
        if context.is_null() { Err(Error::memory("allocate I/O")) } else { Ok(io) }
    }

    pub(crate) fn context(&self) -> *mut ffi::AVIOContext {
        self.context
    }

    /// Whether any read or write has ever failed.
    pub(crate) fn failed(&self) -> bool {
        // SAFETY: the state lives as long as `self`, and no callback runs while `self` is borrowed here.
        unsafe { (*self.state).failed }
    }
}

impl<T> Drop for Io<T> {
    fn drop(&mut self) {
        // SAFETY: the owner frees the format context first, so nothing uses these any more; libav may have replaced
        // the buffer, so the context's own is freed.
        unsafe {
            if !self.context.is_null() {
                ffi::av_freep((&raw mut (*self.context).buffer).cast());
                ffi::avio_context_free(&raw mut self.context);
            }
            drop(Box::from_raw(self.state));
        }
    }
}

// A panic in a callback aborts the process: `extern "C"` functions cannot unwind. For a job process that is an
// ordinary death.

unsafe extern "C" fn read(opaque: *mut c_void, buffer: *mut u8, length: i32) -> i32 {
    // SAFETY: libav passes back the pointer that it was given for exactly this type, which nothing else uses
    // meanwhile, and a buffer of that length.
    let (state, buffer) = unsafe {
        let length = usize::try_from(length).unwrap_or(0);
        (&mut *opaque.cast::<State<Box<dyn ReadAt>>>(), slice::from_raw_parts_mut(buffer, length))
    };
    match state.target.read_at(state.position, buffer) {
        Ok(0) => ffi::AVERROR_EOF,
        Ok(read) => {
            state.position += read as u64;
            i32::try_from(read).unwrap_or(length)
        }
        Err(_) => fail(state),
    }
}

unsafe extern "C" fn write(opaque: *mut c_void, buffer: Written, length: i32) -> i32 {
    // SAFETY: as in `read`.
    let (state, bytes) = unsafe {
        let length = usize::try_from(length).unwrap_or(0);
        (&mut *opaque.cast::<State<Box<dyn WriteAt>>>(), slice::from_raw_parts(buffer, length))
    };
    match state.target.write_at(state.position, bytes) {
        Ok(()) => {
            state.position += bytes.len() as u64;
            state.end = state.end.max(state.position);
            length
        }
        Err(_) => fail(state),
    }
}

unsafe extern "C" fn seek_source(opaque: *mut c_void, offset: i64, whence: i32) -> i64 {
    // SAFETY: as in `read`.
    let state = unsafe { &mut *opaque.cast::<State<Box<dyn ReadAt>>>() };
    let size = state.target.size();
    seek(state, size, offset, whence)
}

unsafe extern "C" fn seek_sink(opaque: *mut c_void, offset: i64, whence: i32) -> i64 {
    // SAFETY: as in `read`.
    let state = unsafe { &mut *opaque.cast::<State<Box<dyn WriteAt>>>() };
    let end = state.end;
    seek(state, Some(end), offset, whence)
}

/// C's SEEK_SET, SEEK_CUR and SEEK_END, and libav's AVSEEK_SIZE, on a cursor.
fn seek<T>(state: &mut State<T>, size: Option<u64>, offset: i64, whence: i32) -> i64 {
    let base = match whence & !ffi::AVSEEK_FORCE {
        ffi::AVSEEK_SIZE => {
            return size.and_then(|size| size.try_into().ok()).unwrap_or(i64::from(ffi::AVERROR(ffi::ENOSYS)));
        }
        0 => Some(0),
        1 => Some(state.position),
        2 => size,
        _ => None,
    };
    match base.and_then(|base| base.checked_add_signed(offset)) {
        Some(position) if i64::try_from(position).is_ok() => {
            state.position = position;
            position.cast_signed()
        }
        _ => i64::from(ffi::AVERROR(ffi::EINVAL)),
    }
}

fn fail<T>(state: &mut State<T>) -> i32 {
    state.failed = true;
    ffi::AVERROR(ffi::EIO)
}
