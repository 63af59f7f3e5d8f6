//! What a container says of itself beside its streams: tags, languages, chapters.

use std::{ffi::CString, ptr};

use ffmpeg_next::ffi;

use crate::{
    error::{Error, ErrorKind, Result, check},
    names::text,
    time::{MICROSECONDS, known, rescale},
};

/// A named stretch of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chapter {
    /// Where it begins, in microseconds.
    pub start_us: i64,
    /// Where it ends, in microseconds.
    pub end_us: i64,
    /// Its name; may be empty.
    pub title: String,
}

impl Chapter {
    /// # Safety
    ///
    /// The chapter is valid.
    pub(crate) unsafe fn read(chapter: *const ffi::AVChapter) -> Option<Self> {
        // SAFETY: promised by the caller.
        unsafe {
            let time = |time| Some(rescale(known(time)?, (*chapter).time_base.into(), MICROSECONDS));
            let title = get((*chapter).metadata, "title").unwrap_or_default();
            Some(Self { start_us: time((*chapter).start)?, end_us: time((*chapter).end)?, title })
        }
    }

    /// Adds it behind the other chapters of an output, under the number that it has among them.
    ///
    /// # Safety
    ///
    /// The context is valid, and its header not yet written.
    pub(crate) unsafe fn append(&self, context: *mut ffi::AVFormatContext) -> Result<()> {
        let full = || Error::memory("add chapter");
        // SAFETY: promised by the caller. The list and its items are allocated as libav frees them, and the count is
        // raised only once the item is in it.
        unsafe {
            let count = (*context).nb_chapters as usize;
            let item_size = size_of::<*mut ffi::AVChapter>();
            let list = ffi::av_realloc_array((*context).chapters.cast(), count + 1, item_size);
            if list.is_null() {
                return Err(full());
            }
            (*context).chapters = list.cast();
            let chapter = ffi::av_mallocz(size_of::<ffi::AVChapter>()).cast::<ffi::AVChapter>();
            if chapter.is_null() {
                return Err(full());
            }
            (*chapter).id = i64::try_from(count).unwrap_or(i64::MAX);
            (*chapter).time_base = MICROSECONDS.into();
            ((*chapter).start, (*chapter).end) = (self.start_us, self.end_us);
            *(*context).chapters.add(count) = chapter;
            (*context).nb_chapters += 1;
            set(&raw mut (*chapter).metadata, "title", &self.title)
        }
    }
}

/// The value of a tag, whatever the case of its name.
///
/// # Safety
///
/// The dictionary is valid or null.
pub(crate) unsafe fn get(dictionary: *const ffi::AVDictionary, key: &str) -> Option<String> {
    let key = CString::new(key).ok()?;
    // SAFETY: promised by the caller; the entry is valid until the dictionary changes, and copied before.
    unsafe {
        let entry = ffi::av_dict_get(dictionary, key.as_ptr(), ptr::null(), 0);
        (!entry.is_null()).then(|| text((*entry).value))
    }
}

/// Sets a tag.
///
/// # Safety
///
/// The place holds a dictionary or null.
pub(crate) unsafe fn set(dictionary: *mut *mut ffi::AVDictionary, key: &str, value: &str) -> Result<()> {
    let bad = |_| Error::new(ErrorKind::Option, "set tag");
    let (key, value) = (CString::new(key).map_err(bad)?, CString::new(value).map_err(bad)?);
    // SAFETY: promised by the caller; both strings are copied by libav.
    let code = unsafe { ffi::av_dict_set(dictionary, key.as_ptr(), value.as_ptr(), 0) };
    check(code, "set tag").map(|_| ())
}
