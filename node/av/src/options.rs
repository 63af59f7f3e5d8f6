//! An option dictionary that tells when an option was not taken.

use std::{ffi::CString, ptr};

use ffmpeg_next::ffi;

use crate::error::{Error, ErrorKind, Result};

/// An owned `AVDictionary`.
pub(crate) struct Options(*mut ffi::AVDictionary);

impl Options {
    pub(crate) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut options = Self(ptr::null_mut());
        for (key, value) in pairs {
            options.set(key, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let bad = |_| Error::new(ErrorKind::Option, "set option");
        let key = CString::new(key).map_err(bad)?;
        let value = CString::new(value).map_err(bad)?;
        // SAFETY: both strings end with zero and are copied by libav; the dictionary is ours.
        let code = unsafe { ffi::av_dict_set(&raw mut self.0, key.as_ptr(), value.as_ptr(), 0) };
        crate::error::check(code, "set option").map(|_| ())
    }

    /// For libav, which takes out what it used.
    pub(crate) fn as_mut(&mut self) -> *mut *mut ffi::AVDictionary {
        &raw mut self.0
    }

    /// Gives the dictionary away; who takes it must free it.
    pub(crate) fn into_raw(mut self) -> *mut ffi::AVDictionary {
        std::mem::replace(&mut self.0, ptr::null_mut())
    }

    /// Fails when libav left an option: it would have been ignored in silence, a whitelist among them.
    pub(crate) fn all_taken(&self, doing: &'static str) -> Result<()> {
        // SAFETY: the dictionary is ours; a null one counts zero entries.
        let left = unsafe { ffi::av_dict_count(self.0) };
        if left == 0 { Ok(()) } else { Err(Error::new(ErrorKind::Option, doing)) }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; libav sets the pointer to null.
        unsafe { ffi::av_dict_free(&raw mut self.0) }
    }
}
