//! The process that job processes are forked from: libav loaded once, one thread, and nothing secret in its memory.
//!
//! It is this very program, started again with an empty environment. It takes orders from the socket that is its
//! standard input and forks a job process for each; it calls nothing of libav itself, so every job begins with a copy
//! that nothing was done to. It alone can reap its children, so it says how they ended. When the supervisor's end of
//! the socket is gone it ends, and the kernel ends the job processes with it.

mod fork;
pub mod wire;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::fcntl_dupfd_cloexec,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
    stdio::{dup2_stdin, stdin},
    thread::{set_name, set_no_new_privs},
};

use crate::{
    job::lockdown::{Level, Lock},
    zygote::wire::{Order, Word},
};

/// The whole of `xora-node zygote`: serves the supervisor until that is gone. Job processes may have this much memory, in
/// bytes.
pub fn run(level: Level, memory: Option<u64>) -> ExitCode {
    // The supervisor says it always.
    match serve(level, memory.unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A job process that has not ended yet.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// Where the supervisor hears of it.
    words: OwnedFd,
}

fn serve(level: Level, memory: u64) -> io::Result<()> {
    set_name(c"xora-zygote")?;
    // Job processes inherit it. Without it a set-user-ID program would be a way out.
    set_no_new_privs(true)?;
    let orders = take_stdin()?;
    let lock = Lock::prepare(level, memory);
    let mut children: Vec<Child> = Vec::new();
    loop {
        let (ordered, ended) = wait(&orders, &children)?;
        // From behind, so that the places in front stay true.
        for index in ended.into_iter().rev() {
            bury(&children.swap_remove(index));
        }
        if ordered {
            let Some(order) = Order::receive(&orders)? else { return Ok(()) };
            children.extend(start(order, &lock));
        }
    }
}

/// Moves the socket away from standard input, which job processes share.
fn take_stdin() -> io::Result<OwnedFd> {
    let orders = fcntl_dupfd_cloexec(stdin(), 3)?;
    dup2_stdin(open("/dev/null", OFlags::RDONLY, Mode::empty())?)?;
    Ok(orders)
}

/// Waits for an order or the end of a child. Answers whether there is an order, and which children ended.
fn wait(orders: &OwnedFd, children: &[Child]) -> io::Result<(bool, Vec<usize>)> {
    let watched = std::iter::once(orders).chain(children.iter().map(|child| &child.pidfd));
    let mut watched: Vec<PollFd> = watched.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut watched, None)?;
    let happened: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
    let ended = (0..children.len()).filter(|index| happened[index + 1]).collect();
    Ok((happened[0], ended))
}

/// Forks, and tells the supervisor. None when that did not work.
fn start(order: Order, lock: &Lock) -> Option<Child> {
    let Order { socket, words, errors } = order;
    // A supervisor that does not listen any more is gone, which the next wait finds out.
    match fork::job(socket, &errors, lock).and_then(hold) {
        Ok((pid, pidfd)) => {
            let _ = Word::Started { pid: pid.as_raw_nonzero().get() }.send(&words, Some(pidfd.as_fd()));
            Some(Child { pid, pidfd, words })
        }
        Err(error) => {
            let _ = Word::NotStarted { errno: error.raw_os_error().unwrap_or(0) }.send(&words, None);
            None
        }
    }
}

/// A child that cannot be watched is not kept.
fn hold(pid: Pid) -> io::Result<(Pid, OwnedFd)> {
    pidfd_open(pid, PidfdFlags::empty()).map(|pidfd| (pid, pidfd)).map_err(|error| {
        let _ = kill_process(pid, Signal::KILL);
        let _ = fork::reap(pid);
        error.into()
    })
}

/// Takes a child that ended off the table, and tells the supervisor how it was.
fn bury(child: &Child) {
    if let Ok(ended) = fork::reap(child.pid) {
        let _ = ended.send(&child.words, None);
    }
}
