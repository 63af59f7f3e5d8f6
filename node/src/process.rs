//! Starting, watching and killing job processes. Behind [`Launcher`] and [`JobProcess`], so that a zygote can take the
//! place of a program started anew.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream as StdStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::sockopt::set_socket_send_buffer_size,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use tokio::{
    net::UnixStream,
    sync::watch,
    task::{AbortHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::info;

/// Send buffer of each end of the socket, in bytes: a whole read fits.
const BUFFER: usize = 2 << 20;
/// Most that one job process may write to the log, in bytes.
const LOG: usize = 64 << 10;
/// How long a process may take to end once it has said its last word.
const ENDING: Duration = Duration::from_secs(2);

/// How often a job process's memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Starts job processes.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
}

/// A job process that runs. Dropping it kills it.
#[derive(Debug)]
pub struct JobProcess {
    child: Child,
    pidfd: Arc<OwnedFd>,
    /// Highest resident memory seen, in bytes.
    peak: watch::Receiver<u64>,
    watching: AbortHandle,
    reaped: bool,
}

/// How a job process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ended {
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Highest resident memory, in bytes.
    pub peak_memory: u64,
}

impl Launcher {
    /// Starts this very program again.
    pub fn of_this_program() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()? })
    }

    /// Starts a job process, with nothing but a socket to us: no environment, no files, its own group.
    pub fn start(&self, label: &str) -> io::Result<(JobProcess, UnixStream)> {
        let (ours, theirs) = StdStream::pair()?;
        set_socket_send_buffer_size(&ours, BUFFER)?;
        set_socket_send_buffer_size(&theirs, BUFFER)?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(&self.program)
            .arg("job")
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        if let Some(stderr) = child.stderr.take() {
            drain(stderr, label.to_owned());
        }
        let process = JobProcess::watch(child)?;
        Ok((process, UnixStream::from_std(ours)?))
    }
}

impl JobProcess {
    fn watch(mut child: Child) -> io::Result<Self> {
        match pid(&child).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)) {
            Ok(pidfd) => {
                let (sender, peak) = watch::channel(0);
                let watching = tokio::spawn(watch_memory(child.id(), sender)).abort_handle();
                Ok(Self { child, pidfd: Arc::new(pidfd), peak, watching, reaped: false })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits until it has more resident memory than this, in bytes; for ever when it never has.
    pub async fn exceeds(&self, limit: u64) {
        if self.peak.clone().wait_for(|peak| *peak > limit).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Kills it.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its end, which is near, and takes its usage.
    pub async fn end(mut self) -> io::Result<Ended> {
        let peak_memory = peak_memory(self.child.id()).unwrap_or(0).max(*self.peak.borrow());
        let pidfd = Arc::clone(&self.pidfd);
        // Dead but not yet reaped, so that its times can still be read.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let mut waiting = spawn_blocking(move || waitid(WaitId::PidFd(pidfd.as_fd()), options));
        let waited = if let Ok(waited) = timeout(ENDING, &mut waiting).await {
            waited
        } else {
            self.kill();
            waiting.await
        };
        let status = waited.map_err(io::Error::other)??;
        let ended = Ended {
            signal: status.and_then(|status| status.terminating_signal()),
            cpu_seconds: self.cpu_seconds().unwrap_or(0.0),
            peak_memory,
        };
        self.reap();
        Ok(ended)
    }

    /// User and system time of a process that runs or is not reaped yet, in seconds.
    fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is the program's name in parentheses, and may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    fn reap(&mut self) {
        // Its number may be someone else's from here on.
        self.watching.abort();
        if !self.reaped {
            self.reaped = self.child.wait().is_ok();
        }
    }
}

impl Drop for JobProcess {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Short: it is being killed.
            self.reap();
        }
    }
}

/// Looks at a process's memory every now and then.
async fn watch_memory(id: u32, peak: watch::Sender<u64>) {
    while let Some(now) = peak_memory(id) {
        peak.send_replace(now);
        sleep(LOOK).await;
    }
}

/// Resident memory in bytes, as it was highest so far. None once the process is gone.
fn peak_memory(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Passes the error output on to the log, up to a limit; what is beyond is read and dropped, so that nobody blocks.
fn drain(mut stderr: ChildStderr, label: String) {
    spawn_blocking(move || {
        let mut left = LOG;
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            let kept = read.min(left);
            left -= kept;
            for line in String::from_utf8_lossy(&buffer[..kept]).lines().filter(|line| !line.trim().is_empty()) {
                info!(job = label, "job process: {}", line.escape_debug());
            }
        }
    });
}

fn pid(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(program: &str) -> JobProcess {
        // Takes the argument `job` and goes on for ever, or ends at once.
        let launcher = Launcher { program: program.into() };
        launcher.start("test").expect("started").0
    }

    #[tokio::test]
    async fn a_killed_process_is_told_by_its_signal() {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("started");
        let process = JobProcess::watch(child).expect("watched");
        process.kill();
        assert_eq!(process.end().await.expect("ended").signal, Some(9));
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_leaves_its_usage() {
        let ended = running("/bin/true").end().await.expect("ended");
        assert_eq!(ended.signal, None);
        assert!(ended.cpu_seconds < 5.0);
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("started");
        let id = child.id();
        drop(JobProcess::watch(child).expect("watched"));
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
