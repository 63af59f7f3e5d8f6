//! What a job process gives up before it sees a byte of the input.

use std::io;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

/// Address space, in bytes: 720p takes 0.7 GB, 2160p with frame threads about 3.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Open files: the socket, the standard ones, and a few that libraries open while they load.
const FILES: u64 = 32;

/// Limits this process for good: no new privileges, no core file, no writing of files, and death with its parent. Must
/// run before any thread is started; the socket must be duplicated already.
pub fn enter() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    for (resource, most) in [
        (Resource::As, ADDRESS_SPACE),
        (Resource::Core, 0),
        // Pipes and sockets do not count.
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}
