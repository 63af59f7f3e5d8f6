//! Child processes that never outlive us.

use std::{
    ffi::OsStr,
    fs::File,
    io, iter,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::{CommandExt, parent_id},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process and everything it started, in a process group of its own.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    _guard: Guard,
}

/// A shell that waits for its input to end, which happens when we drop this and also when we are killed outright, and
/// then cleans up.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Group {
    /// Starts `command` with its output in `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log).context("open the log")?;
        let errors = output.try_clone()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let leader = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let guard = Guard::start(r#"kill -s KILL -- "-$1""#, [leader.id().to_string()])?;
        Ok(Self { leader, _guard: guard })
    }

    /// Asks the leader to stop.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(pid(&self.leader)?, Signal::TERM)?)
    }

    /// Stops every process where it stands, until it is killed.
    pub fn freeze(&self) -> Result<()> {
        Ok(kill_process_group(pid(&self.leader)?, Signal::STOP)?)
    }

    /// Kills the leader alone, as a crash or the kernel would; what it started is left to notice.
    pub fn kill_leader(&mut self) -> Result<ExitStatus> {
        self.leader.kill()?;
        Ok(self.leader.wait()?)
    }

    /// Number of the leader.
    pub fn id(&self) -> u32 {
        self.leader.id()
    }

    /// How the leader ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.leader.try_wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader is not yet reaped, so its number cannot belong to anyone else.
        if let Ok(pid) = pid(&self.leader) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.leader.wait();
    }
}

impl Guard {
    /// Deletes a file when we end.
    pub fn delete_file(file: &Path) -> Result<Self> {
        Self::start(r#"rm -f "$1""#, [file])
    }

    /// Deletes `file` when we end. If `link` leads there, it then leads to the file of the same name of another instance, in a
    /// directory beside ours, or is deleted if there is none.
    pub fn delete_linked(file: &Path, link: &Path) -> Result<Self> {
        const SCRIPT: &str = r#"if [ "$1" -ef "$2" ]; then
                next=; for other in "${1%/*/*}"/*/"${1##*/}"; do [ "$other" = "$1" ] || [ ! -f "$other" ] || next=$other; done
                if [ "$next" ]; then ln -sfn "$next" "$2"; else rm -f "$2"; fi
            fi
            rm -f "$1""#;
        Self::start(SCRIPT, [file, link])
    }

    /// Deletes directories when we end, once the processes that wrote there are gone.
    pub fn delete_dirs(dirs: &[PathBuf]) -> Result<Self> {
        Self::start(r#"sleep 1; rm -rf "$@""#, dirs)
    }

    /// Runs `script` with these arguments when we end.
    fn start(script: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read -r _; {script}"), "guard"])
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the guard")?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends in its own time; there is nothing to wait for.
        let _ = self.shell.try_wait();
    }
}

/// Ends this process when its parent does, whatever the reason. The guards then end what it started.
pub fn end_with_parent() {
    let parent = parent_id();
    thread::spawn(move || {
        while parent_id() == parent {
            thread::sleep(Duration::from_millis(100));
        }
        process::exit(1);
    });
}

/// A loopback port that was free just now, another one each time. None of those from which systems make connections: one
/// of them could be taken before anybody listens there.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Whoever runs beside us begins far from here.
    let begin = process::id().wrapping_mul(101);
    let next = || FIRST + begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?)).ok()?.local_addr().ok();
    let place = iter::repeat_with(next).take(1000).find_map(free).context("a free port")?;
    Ok(place.port())
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process number")
}
