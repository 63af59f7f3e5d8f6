//! Hiding what this process knows from others of its user.
#![allow(unsafe_code, reason = "the strings of the environment can be overwritten in place only")]

use std::ffi::CStr;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

unsafe extern "C" {
    static mut environ: *mut *mut libc::c_char;
}

/// Lets no other process of this user read the memory or the environment of this one, or trace it.
pub fn keep_out() {
    // The kernel refuses no process this.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Overwrites a variable where the kernel shows it in `/proc/…/environ`, which shows the strings that the process started
/// with whatever becomes of the variable. Whoever needs it has read it before. Must run before any thread is started.
pub fn overwrite(name: &str) {
    // SAFETY: there is one thread, so nobody changes the list or its strings meanwhile, and nobody holds a reference to
    // them. Each entry is a string that ends in zero, in writable memory, and the list ends in a null pointer.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).to_bytes().len();
            let bytes = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if bytes.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'=')) {
                bytes[name.len() + 1..].fill(b'x');
            }
            entry = entry.add(1);
        }
    }
}
