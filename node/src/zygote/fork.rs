//! Forking, and what goes with it.
#![allow(unsafe_code, reason = "nothing safe forks, or reaps with the usage")]

use std::{
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setpgid},
    stdio::dup2_stderr,
    thread::set_name,
};

use crate::{job, job::lockdown::Lock, zygote::wire::Word};

/// Forks a job process that does one piece of work over `socket`, locked down, and ends.
pub fn job(socket: OwnedFd, errors: &OwnedFd, lock: &Lock) -> io::Result<Pid> {
    let zygote = getpid();
    // SAFETY: the zygote never starts a thread, so no lock is held by a thread that the child would not have, and the
    // child may go on as any process does. It never returns from here.
    match unsafe { libc::fork() } {
        0 => {
            let done = catch_unwind(AssertUnwindSafe(|| child(zygote, socket, errors, lock)));
            let told = done.is_ok_and(|told| told.unwrap_or(false));
            // SAFETY: ends this process without unwinding into the zygote's frames, and without what the zygote would
            // do at its exit.
            unsafe { libc::_exit(i32::from(!told)) }
        }
        pid => Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error),
    }
}

/// Answers whether the supervisor was told how the work ended.
fn child(zygote: Pid, socket: OwnedFd, errors: &OwnedFd, lock: &Lock) -> io::Result<bool> {
    // A group of its own: what a terminal sends to the supervisor is not meant for it.
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the kernel was asked to tell.
    if getppid() != Some(zygote) {
        return Ok(false);
    }
    set_name(c"xora-job")?;
    // When memory runs out, the kernel kills job processes first, and the supervisor tells the edge. It has to be written
    // before files are out of reach; without /proc it stays as it is.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    dup2_stderr(errors)?;
    close_all_but(&socket)?;
    Ok(job::serve(UnixStream::from(socket), lock.enter()))
}

/// Closes all descriptors beside the standard ones and this: the zygote's, and those of other jobs.
fn close_all_but(kept: &OwnedFd) -> io::Result<()> {
    let kept = u32::try_from(kept.as_raw_fd()).unwrap_or(u32::MAX);
    let close = |first: u32, last: u32| {
        // SAFETY: what is closed belongs to values in frames of the zygote, to which this process never returns.
        if first > last || unsafe { libc::close_range(first, last, 0) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    close(3, kept.saturating_sub(1))?;
    close(kept.saturating_add(1), u32::MAX)
}

/// Reaps a child that has ended. Says how, and what it used.
pub fn reap(pid: Pid) -> io::Result<Word> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are valid for writing; a structure of zeroes is a valid `rusage`, whatever the kernel does.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    if reaped < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Word::Ended {
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        // Linux counts it in KiB.
        peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10,
    })
}

fn micros(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0)
}
