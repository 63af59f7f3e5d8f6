//! Starting, watching and killing job processes, which a zygote forks for us.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            net::{UnixDatagram as StdDatagram, UnixStream as StdStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_send_buffer_size,
    process::{Signal, pidfd_send_signal},
};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{UnixDatagram, UnixStream, unix::pipe},
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    ipc::{FromJob, Up, frame_head},
    job::lockdown::{Lacking, Level, Sandbox},
    zygote::wire::{self, Word},
};

/// Send buffer of each end of the socket, in bytes: a whole read fits.
const BUFFER: usize = 2 << 20;
/// Most that one job process may write to the log, in bytes.
const LOG: usize = 64 << 10;
/// How long a process may take to end once it has said its last word.
const ENDING: Duration = Duration::from_secs(2);
/// How long the first job process may take to its first word.
const STARTING: Duration = Duration::from_mins(1);
/// How often a job process's memory and CPU time are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Starts job processes. Holds the zygote that they are forked from, and replaces it when it dies.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    sandbox: Level,
    /// Most memory of a job process, in bytes.
    memory: u64,
    zygote: Arc<Mutex<Zygote>>,
}

/// The process that job processes are forked from.
#[derive(Debug)]
struct Zygote {
    process: Child,
    orders: OwnedFd,
}

/// A job process that runs. Dropping it kills it.
#[derive(Debug)]
pub struct JobProcess {
    pidfd: Arc<OwnedFd>,
    words: UnixDatagram,
    seen: watch::Receiver<Seen>,
    watching: AbortHandle,
}

/// What a job process has taken so far, as far as was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Highest resident memory, in bytes.
    memory: u64,
    /// User and system time.
    cpu: Duration,
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
    /// Starts a zygote, which is this very program, whatever has become of its file since.
    pub fn start(sandbox: Level, memory: u64) -> io::Result<Self> {
        Self::of("/proc/self/exe".into(), sandbox, memory)
    }

    fn of(program: PathBuf, sandbox: Level, memory: u64) -> io::Result<Self> {
        let zygote = Arc::new(Mutex::new(Zygote::start(&program, sandbox, memory)?));
        Ok(Self { program, sandbox, memory, zygote })
    }

    /// Starts a job process, with nothing but a socket to us: no environment, no files, its own group.
    pub async fn start_job(&self, label: &str) -> io::Result<(JobProcess, UnixStream)> {
        let (ours, theirs) = StdStream::pair()?;
        set_socket_send_buffer_size(&ours, BUFFER)?;
        set_socket_send_buffer_size(&theirs, BUFFER)?;
        ours.set_nonblocking(true)?;
        let (errors, their_errors) = io::pipe()?;
        let process = self.fork(theirs.into(), their_errors.into()).await?;
        tokio::spawn(drain(pipe::Receiver::from_owned_fd(errors.into())?, label.to_owned()));
        Ok((process, UnixStream::from_std(ours)?))
    }

    /// How far job processes are locked down, or what they lack. Asks one of them.
    pub async fn locked(&self) -> io::Result<Result<Sandbox, Lacking>> {
        let (_process, mut stream) = self.start_job("sandbox").await?;
        match timeout(STARTING, message(&mut stream)).await?? {
            FromJob::Message(Up::Locked(locked)) => Ok(locked),
            FromJob::Message(_) | FromJob::Read { .. } | FromJob::Part { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn fork(&self, socket: OwnedFd, errors: OwnedFd) -> io::Result<JobProcess> {
        if let Some(process) = self.order(&socket, &errors).await? {
            return Ok(process);
        }
        self.order(&socket, &errors).await?.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Orders a job process. None where the zygote was dead, and has been replaced.
    async fn order(&self, socket: &OwnedFd, errors: &OwnedFd) -> io::Result<Option<JobProcess>> {
        let (ours, theirs) = wire::pair()?;
        let zygote = {
            let zygote = self.zygote();
            // One that is dead shows it by its silence.
            let _ = wire::send_order(&zygote.orders, [socket.as_fd(), theirs.as_fd(), errors.as_fd()]);
            zygote.process.id()
        };
        // Else the end of the zygote's own would not be the end.
        drop(theirs);
        // Tokio has no word for sockets of whole messages that know their other end; these are polled the same way.
        let ours = StdDatagram::from(ours);
        ours.set_nonblocking(true)?;
        let words = UnixDatagram::from_std(ours)?;
        match hear(&words).await? {
            Some((Word::Started { pid }, Some(pidfd))) => Ok(Some(JobProcess::watch(pid, pidfd, words))),
            Some((Word::NotStarted { errno }, _)) => Err(io::Error::from_raw_os_error(errno)),
            Some((Word::Started { .. } | Word::Ended { .. }, _)) => Err(io::ErrorKind::InvalidData.into()),
            None => self.replace(zygote).map(|()| None),
        }
    }

    /// Starts another zygote in the place of this one, by its number, if nobody did yet. Its job processes are gone with
    /// it, and their attempts hear of that.
    fn replace(&self, dead: u32) -> io::Result<()> {
        let mut zygote = self.zygote();
        if zygote.process.id() == dead {
            let _ = zygote.process.kill();
            let status = zygote.process.wait()?;
            warn!("the process that job processes are forked from is gone ({status}); starting another");
            *zygote = Zygote::start(&self.program, self.sandbox, self.memory)?;
        }
        Ok(())
    }

    fn zygote(&self) -> MutexGuard<'_, Zygote> {
        self.zygote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Zygote {
    fn start(program: &Path, sandbox: Level, memory: u64) -> io::Result<Self> {
        let (orders, theirs) = wire::pair()?;
        let process = Command::new(program)
            .arg0("xora-node")
            .args(["zygote", "--sandbox", sandbox.name()])
            .arg(format!("--max-job-memory-bytes={memory}"))
            .env_clear()
            // Whatever the libraries call is found now, once, and not by every job again.
            .env("LD_BIND_NOW", "1")
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { process, orders })
    }
}

impl JobProcess {
    fn watch(pid: i32, pidfd: OwnedFd, words: UnixDatagram) -> Self {
        let pidfd = Arc::new(pidfd);
        let (sender, seen) = watch::channel(Seen::default());
        let watching = tokio::spawn(keep_an_eye(pid, Arc::clone(&pidfd), sender)).abort_handle();
        Self { pidfd, words, seen, watching }
    }

    /// Waits until it has more resident memory than this, in bytes; for ever when it never has.
    pub async fn exceeds(&self, limit: u64) {
        if self.seen.clone().wait_for(|seen| seen.memory > limit).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> Duration {
        self.seen.borrow().cpu
    }

    /// Kills it.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its end, which is near, and takes its usage.
    pub async fn end(self) -> Ended {
        let last = if let Ok(last) = timeout(ENDING, hear(&self.words)).await {
            last
        } else {
            self.kill();
            hear(&self.words).await
        };
        let seen = self.seen.borrow().memory;
        match last {
            Ok(Some((Word::Ended { signal, cpu_us, peak_memory }, _))) => {
                Ended { signal, cpu_seconds: cpu_us as f64 / 1e6, peak_memory: peak_memory.max(seen) }
            }
            // The zygote died, and the kernel killed its children.
            Ok(Some((Word::Started { .. } | Word::NotStarted { .. }, _)) | None) | Err(_) => {
                Ended { signal: Some(Signal::KILL.as_raw()), cpu_seconds: 0.0, peak_memory: seen }
            }
        }
    }
}

impl Drop for JobProcess {
    fn drop(&mut self) {
        self.watching.abort();
        // Without effect on one that is gone.
        self.kill();
    }
}

/// The next frame of a job process that is asked for nothing but a few messages.
pub async fn message(stream: &mut UnixStream) -> io::Result<FromJob> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let (length, kind) = frame_head(head)?;
    let mut payload = Vec::new();
    stream.take(length as u64).read_to_end(&mut payload).await?;
    FromJob::parse(kind, payload)
}

async fn hear(words: &UnixDatagram) -> io::Result<Option<(Word, Option<OwnedFd>)>> {
    words.async_io(Interest::READABLE, || Word::receive(words)).await
}

/// Looks at what a process has taken every now and then.
async fn keep_an_eye(pid: i32, pidfd: Arc<OwnedFd>, seen: watch::Sender<Seen>) {
    while let (Some(memory), Some(cpu)) = (peak_memory(pid), cpu_time(pid)) {
        // Once it is gone, its number may be someone else's.
        if has_ended(&pidfd) {
            return;
        }
        seen.send_replace(Seen { memory, cpu });
        sleep(LOOK).await;
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::default())) != Ok(0)
}

/// Resident memory in bytes, as it was highest so far. None once the process is gone.
fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// User and system time of all threads. None once the process is reaped.
fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything.
    let mut times = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Passes the error output on to the log, up to a limit; what is beyond is read and dropped, so that nobody blocks.
async fn drain(mut errors: pipe::Receiver, label: String) {
    let mut left = LOG;
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = errors.read(&mut buffer).await {
        let kept = read.min(left);
        left -= kept;
        for line in String::from_utf8_lossy(&buffer[..kept]).lines().filter(|line| !line.trim().is_empty()) {
            info!(job = label, "job process: {}", line.escape_debug());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsRawFd};

    use rustix::process::{Pid, kill_process};
    use tokio::time::Instant;

    use super::*;

    /// With the program that cargo builds beside the tests.
    fn launcher() -> Launcher {
        with_memory(4 << 30)
    }

    fn with_memory(memory: u64) -> Launcher {
        let tests = std::env::current_exe().expect("a path");
        let program = tests.ancestors().nth(2).expect("a directory").join("xora-node");
        Launcher::of(program, Level::Strict, memory).expect("started")
    }

    /// A job process that has reached its first word, and will wait for its work for ever.
    async fn waiting(launcher: &Launcher) -> (JobProcess, UnixStream, i32) {
        let (process, mut stream) = launcher.start_job("test").await.expect("started");
        assert!(stream.read_u8().await.is_ok(), "it says how far it is locked down");
        let pid = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.pidfd.as_raw_fd())).expect("its pidfd");
        let pid = pid.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a number").trim().parse();
        (process, stream, pid.expect("a number"))
    }

    async fn gone(pid: i32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "{pid} is still there");
            tokio::task::yield_now().await;
        }
    }

    /// A zombie is not: whoever inherits it may take its time.
    fn is_alive(pid: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
    }

    fn threads(pid: u32) -> usize {
        fs::read_dir(format!("/proc/{pid}/task")).expect("a process").count()
    }

    #[tokio::test]
    async fn a_killed_process_is_told_by_its_signal() {
        let (process, _stream, _) = waiting(&launcher()).await;
        process.kill();
        assert_eq!(process.end().await.signal, Some(9));
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_leaves_its_usage() {
        let launcher = launcher();
        let (process, stream, pid) = waiting(&launcher).await;
        drop(stream);
        let ended = process.end().await;
        assert_eq!(ended.signal, None);
        assert!(ended.cpu_seconds < 5.0 && ended.peak_memory > 1 << 20, "{ended:?}");
        gone(pid).await;
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let launcher = launcher();
        let (process, _stream, pid) = waiting(&launcher).await;
        drop(process);
        gone(pid).await;
    }

    #[tokio::test]
    async fn memory_is_watched_while_a_process_runs() {
        let (process, _stream, _) = waiting(&launcher()).await;
        // It has the libraries at least.
        timeout(Duration::from_secs(10), process.exceeds(1 << 20)).await.expect("seen");
    }

    #[tokio::test]
    async fn address_space_is_more_than_the_memory_that_is_allowed_and_than_libraries_need() {
        for (memory, space) in [(6 << 30, 8_u64 << 30), (1 << 30, 4 << 30)] {
            let (_process, _stream, pid) = waiting(&with_memory(memory)).await;
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process");
            let line = limits.lines().find(|line| line.starts_with("Max address space")).expect("a limit");
            assert!(line.contains(&space.to_string()), "{line}");
        }
    }

    /// `tests/sandbox.rs` proves what each filter refuses.
    #[tokio::test]
    async fn a_job_process_is_locked_down_and_the_first_that_the_kernel_kills() {
        let launcher = launcher();
        assert_eq!(launcher.locked().await.expect("asked"), Ok(Sandbox::Strict { landlock: true }));
        let (_process, _stream, pid) = waiting(&launcher).await;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let own = fs::read_to_string("/proc/self/status").expect("a process");
        let number = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("such a line");
            line.trim().parse::<u32>().expect("a number")
        };
        assert_eq!((number(&status, "Seccomp:"), number(&status, "NoNewPrivs:")), (2, 1), "{status}");
        // Those that this test itself runs under are inherited.
        assert_eq!(number(&status, "Seccomp_filters:"), number(&own, "Seccomp_filters:") + 5, "{status}");
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("read").trim(), "1000");
    }

    #[tokio::test]
    async fn a_zygote_that_dies_takes_its_jobs_with_it_and_is_replaced() {
        let launcher = launcher();
        let (process, mut stream, pid) = waiting(&launcher).await;
        let zygote = launcher.zygote().process.id();
        assert_eq!(threads(zygote), 1, "a fork copies one thread only");
        kill_process(Pid::from_raw(zygote.cast_signed()).expect("a process"), Signal::KILL).expect("killed");
        assert_eq!(process.end().await.signal, Some(9));
        gone(pid).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;

        let (process, _stream, _) = waiting(&launcher).await;
        assert_ne!(launcher.zygote().process.id(), zygote);
        process.kill();
        assert_eq!(process.end().await.signal, Some(9));
    }

    #[tokio::test]
    async fn what_a_job_process_has_is_its_socket_and_its_error_output() {
        let launcher = launcher();
        let (_other, _its_stream, _) = waiting(&launcher).await;
        let (_process, _stream, pid) = waiting(&launcher).await;
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/environ")).expect("read"), "LD_BIND_NOW=1\0");
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").map(|entry| {
            fs::read_link(entry.expect("an entry").path()).expect("a link").to_string_lossy().into_owned()
        });
        let mut open: Vec<String> = open.map(|file| file.split(':').next().unwrap_or_default().to_owned()).collect();
        open.sort();
        assert_eq!(open, ["/dev/null", "/dev/null", "pipe", "socket"]);
    }
}
