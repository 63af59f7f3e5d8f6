//! The answer to a system call that no filter names: ENOSYS, and once for each call a line that names it.
//!
//! A newer libc or codec may make calls that [`super::lockdown`] has never heard of. Most of them live without an answer,
//! and the line tells whoever reads the log what to add to the list.
#![allow(unsafe_code, reason = "a signal handler reads and writes the registers of the call that it answers")]

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

/// Numbers of calls that were named, a bit each. Larger ones share the last bit.
static NAMED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// `si_code` of a SIGSYS that a filter raised; of any other there is no call to answer.
const SYS_SECCOMP: i32 = 1;

/// Answers unlisted calls of this process from now on.
pub fn answer() -> io::Result<()> {
    // SAFETY: a structure of zeroes is a valid `sigaction` without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_call as *const () as usize;
    // The handler itself makes listed calls only.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is valid for reading, and `on_call` is safe to run at any point of the program: it takes no lock and
    // allocates nothing.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_call(_: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` and the `ucontext_t` of the interrupted thread, which nothing else reads
    // or writes until the handler returns.
    let Some((number, result)) = (unsafe {
        if (*info).si_code == SYS_SECCOMP { registers(&mut *context.cast::<libc::ucontext_t>()) } else { None }
    }) else {
        return;
    };
    if is_first(number) {
        name(number);
    }
    *result = -i64::from(libc::ENOSYS);
}

/// Where the number of the call is, and where its result belongs.
#[cfg(target_arch = "x86_64")]
fn registers(context: &mut libc::ucontext_t) -> Option<(i64, &mut i64)> {
    let rax = context.uc_mcontext.gregs.get_mut(usize::try_from(libc::REG_RAX).ok()?)?;
    Some((*rax, rax))
}

/// Where the number of the call is, and where its result belongs.
#[cfg(target_arch = "aarch64")]
fn registers(context: &mut libc::ucontext_t) -> Option<(i64, &mut i64)> {
    let number = context.uc_mcontext.regs[8].cast_signed();
    let result = &raw mut context.uc_mcontext.regs[0];
    // SAFETY: a `u64` of the context, borrowed for as long as the context is; every `u64` is a valid `i64`.
    Some((number, unsafe { &mut *result.cast::<i64>() }))
}

/// No filter is built for other processors.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: &mut libc::ucontext_t) -> Option<(i64, &mut i64)> {
    None
}

fn is_first(number: i64) -> bool {
    let last = 64 * NAMED.len() - 1;
    let bit = usize::try_from(number).unwrap_or(last).min(last);
    let mask = 1 << (bit % 64);
    NAMED[bit / 64].fetch_or(mask, Ordering::Relaxed) & mask == 0
}

/// Writes the line, without allocating: the signal may have come in the midst of an allocation.
fn name(number: i64) {
    const TEXT: &[u8] = b"the sandbox does not know system call ";
    const END: &[u8] = b" (answered ENOSYS)\n";
    let mut line = [0; TEXT.len() + 20 + END.len()];
    line[..TEXT.len()].copy_from_slice(TEXT);
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut left = number.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let digits = &digits[first..];
    let (after, end) = (TEXT.len() + digits.len(), TEXT.len() + digits.len() + END.len());
    line[TEXT.len()..after].copy_from_slice(digits);
    line[after..end].copy_from_slice(END);
    // SAFETY: the bytes are valid for reading. Nobody can be told that they could not be written.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), end) };
}
