//! The sandbox from inside: what a decoder that was taken over would try, each in a process that is locked down as a job
//! process is, and what the kernel answers.
//!
//! `lockdown` is the module of the node itself. This program runs itself again for each attempt, because a filter cannot be
//! taken off. It does so twice, as it is and with Landlock hidden, as on a kernel without it: what Landlock alone would
//! refuse would show there. And it makes the same attempts without a sandbox, where each must end differently: otherwise
//! the refusal would be none of ours.
#![allow(unsafe_code, reason = "calls the kernel with arguments that no library would pass on")]
#![allow(dead_code, unreachable_pub, reason = "the modules of the node have more than this program uses")]
#![allow(clippy::print_stdout, reason = "a test program without libtest")]

#[path = "../src/job/lockdown.rs"]
mod lockdown;
#[path = "../src/job/unlisted.rs"]
mod unlisted;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitCode, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use libc::c_long;
use lockdown::{Lacking, Level, Lock, Sandbox};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(20);
const MEMORY: u64 = 1 << 30;
/// What a library that was built carelessly may leave in the upper half of a register, and an attacker puts there.
const GARBAGE: c_long = 0x5eed_0000_0000_0000_u64.cast_signed();

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The call was made, and this is what it answered: 0 for any success.
    Answered(i32),
    /// ENOSYS, and a line that names the call.
    Unlisted,
    /// By this signal.
    Killed(i32),
    /// Not by a signal, and without an answer: another program runs in its place.
    Replaced,
}

use End::{Answered, Killed, Unlisted};

type Attempt = (&'static str, fn() -> c_long, End);

/// What a job process must not be able to do.
const REFUSED: &[Attempt] = &[
    // Files.
    (
        "open_a_file",
        || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/etc/passwd".as_ptr(), 0) },
        Answered(libc::EACCES),
    ),
    ("open_the_environment", || open(c"/proc/self/environ"), Answered(libc::EACCES)),
    ("open_its_memory", || open(c"/proc/self/mem"), Answered(libc::EACCES)),
    (
        "look_at_a_file",
        || unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, c"/".as_ptr(), 0) },
        Answered(libc::EACCES),
    ),
    ("make_a_directory", || unsafe { libc::syscall(libc::SYS_mkdirat, -1, c"x".as_ptr(), 0o700) }, Unlisted),
    ("make_a_file_in_memory", || unsafe { libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0) }, Unlisted),
    ("open_by_handle", || unsafe { libc::syscall(libc::SYS_open_by_handle_at, -1, 0, 0) }, Unlisted),
    // The network.
    ("socket_tcp", || socket(libc::AF_INET, libc::SOCK_STREAM), Answered(libc::EACCES)),
    ("socket_udp", || socket(libc::AF_INET6, libc::SOCK_DGRAM), Answered(libc::EACCES)),
    ("socket_unix", || socket(libc::AF_UNIX, libc::SOCK_STREAM), Answered(libc::EACCES)),
    ("socket_netlink", || socket(libc::AF_NETLINK, libc::SOCK_RAW), Answered(libc::EACCES)),
    // Programs and processes.
    ("execve", || execve(), Killed(libc::SIGSYS)),
    (
        "execveat",
        || unsafe { libc::syscall(libc::SYS_execveat, -1, c"".as_ptr(), 0, 0, libc::AT_EMPTY_PATH) },
        Killed(libc::SIGSYS),
    ),
    ("fork", || fork(0), Answered(libc::EPERM)),
    ("fork_in_a_user_namespace", || fork(libc::CLONE_NEWUSER), Answered(libc::EPERM)),
    ("thread_with_other_flags", || fork(libc::CLONE_VM | libc::CLONE_VFORK), Answered(libc::EPERM)),
    ("unshare", || unsafe { libc::syscall(libc::SYS_unshare, 0) }, Unlisted),
    ("setns", || unsafe { libc::syscall(libc::SYS_setns, -1, 0) }, Unlisted),
    ("mount", || unsafe { libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0) }, Unlisted),
    // Other processes.
    ("kill_another", || kill(parent()), Answered(libc::EPERM)),
    ("kill_all", || kill(-1), Answered(libc::EPERM)),
    ("kill_its_group", || kill(0), Answered(libc::EPERM)),
    ("kill_another_with_garbage", || kill(parent() | GARBAGE), Answered(libc::EPERM)),
    ("tgkill_another", || unsafe { libc::syscall(libc::SYS_tgkill, parent(), parent(), 0) }, Answered(libc::EPERM)),
    ("tkill_another", || unsafe { libc::syscall(libc::SYS_tkill, parent(), 0) }, Answered(libc::EPERM)),
    ("queue_a_signal", || unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, parent(), 0, 0) }, Unlisted),
    ("pidfd_of_another", || unsafe { libc::syscall(libc::SYS_pidfd_open, parent(), 0) }, Unlisted),
    ("ptrace", || unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0) }, Killed(libc::SIGSYS)),
    (
        "read_another",
        || unsafe { libc::syscall(libc::SYS_process_vm_readv, parent(), 0, 0, 0, 0, 0) },
        Killed(libc::SIGSYS),
    ),
    (
        "write_another",
        || unsafe { libc::syscall(libc::SYS_process_vm_writev, parent(), 0, 0, 0, 0, 0) },
        Killed(libc::SIGSYS),
    ),
    ("affinity_of_another", || affinity(libc::SYS_sched_setaffinity, parent()), Answered(libc::EPERM)),
    (
        "affinity_of_another_with_garbage",
        || affinity(libc::SYS_sched_setaffinity, parent() | GARBAGE),
        Answered(libc::EPERM),
    ),
    ("look_at_affinity_of_another", || affinity(libc::SYS_sched_getaffinity, parent()), Answered(libc::EPERM)),
    ("scheduler_of_another", || scheduler(parent()), Answered(libc::EPERM)),
    (
        "look_at_scheduler_of_another",
        || unsafe { libc::syscall(libc::SYS_sched_getscheduler, parent()) },
        Answered(libc::EPERM),
    ),
    ("priority_of_another", || unsafe { libc::syscall(libc::SYS_setpriority, 0, parent(), 0) }, Unlisted),
    ("limits_of_another", || limits(parent()), Unlisted),
    // Its own chains.
    ("outlive_the_zygote", || prctl(libc::PR_SET_PDEATHSIG, 0), Answered(libc::EPERM)),
    (
        "outlive_the_zygote_with_garbage",
        || prctl_raw(c_long::from(libc::PR_SET_PDEATHSIG) | GARBAGE, 0),
        Answered(libc::EPERM),
    ),
    ("become_dumpable", || prctl(libc::PR_SET_DUMPABLE, 1), Answered(libc::EPERM)),
    ("permit_a_tracer", || prctl(libc::PR_SET_PTRACER, -1), Answered(libc::EPERM)),
    (
        "install_a_filter",
        || unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const ALLOW) },
        Unlisted,
    ),
    ("its_limits", || limits(0), Unlisted),
    ("map_code", || map(libc::PROT_READ | libc::PROT_EXEC), Answered(libc::EACCES)),
    ("turn_memory_into_code", || protect(), Answered(libc::EACCES)),
    // What has had holes before.
    ("io_uring", || unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }, Unlisted),
    ("userfaultfd", || unsafe { libc::syscall(libc::SYS_userfaultfd, 0) }, Unlisted),
    ("bpf", || unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) }, Unlisted),
    ("perf_event_open", || unsafe { libc::syscall(libc::SYS_perf_event_open, 0, 0, -1, -1, 0) }, Unlisted),
    ("keyctl", || unsafe { libc::syscall(libc::SYS_keyctl, 0, 0) }, Unlisted),
    ("ioctl", || unsafe { libc::syscall(libc::SYS_ioctl, 1, libc::TIOCSTI, 0) }, Unlisted),
    ("a_call_of_the_future", || unsafe { libc::syscall(4000, 0) }, Unlisted),
    #[cfg(target_arch = "x86_64")]
    ("a_call_by_its_x32_number", || unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }, Unlisted),
];

/// A name, and a call that must succeed.
type Need = (&'static str, fn() -> c_long);

/// What libraries need, and must be able to do.
const ALLOWED: &[Need] = &[
    ("signal_itself", || kill(own())),
    ("signal_itself_with_garbage", || kill(own() | GARBAGE)),
    ("signal_its_thread", || unsafe { libc::syscall(libc::SYS_tgkill, own(), libc::gettid(), 0) }),
    ("count_its_processors", || affinity(libc::SYS_sched_getaffinity, 0)),
    ("bind_itself", || affinity(libc::SYS_sched_setaffinity, own())),
    ("bind_itself_with_garbage", || affinity(libc::SYS_sched_setaffinity, GARBAGE)),
    ("name_itself", || unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, c"x".as_ptr()) }),
    ("start_a_thread", || c_long::from(thread::spawn(|| 1).join().ok() != Some(1))),
    ("map_memory", || map(libc::PROT_READ | libc::PROT_WRITE)),
];

/// Asked for before it cannot be any more.
static PARENT: OnceLock<c_long> = OnceLock::new();
static ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["try", way, name] => attempt(way, name),
        ["hide", number, count, program, ref rest @ ..] => {
            hide(
                number.parse().expect("a number")
                    ..=number.parse::<i64>().expect("a number") + count.parse::<i64>().expect("a number") - 1,
            );
            panic!("{}", Command::new(program).args(rest).exec());
        }
        ref words => all(words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or("")),
    }
}

/// Runs all tests with this in their names.
fn all(wanted: &str) -> ExitCode {
    let mut tests: Vec<(String, Box<dyn FnOnce()>)> = Vec::new();
    for (name, _, expected) in REFUSED {
        for way in ["strict", "without_landlock"] {
            let expected = *expected;
            tests.push((
                format!("refused::{way}::{name}"),
                Box::new(move || {
                    assert_eq!(run(way, name), expected);
                }),
            ));
        }
        let expected = *expected;
        tests.push((
            format!("possible_without_a_sandbox::{name}"),
            Box::new(move || {
                assert_ne!(run("off", name), expected, "the attempt fails by itself and proves nothing");
            }),
        ));
    }
    for (name, _) in ALLOWED {
        tests.push((format!("allowed::{name}"), Box::new(move || assert_eq!(run("strict", name), Answered(0)))));
    }
    tests.push((
        "strict_has_landlock_and_filters".to_owned(),
        Box::new(|| assert_eq!(run("strict", "enter"), Answered(0))),
    ));
    tests.push((
        "strict_without_landlock_is_refused".to_owned(),
        Box::new(|| {
            assert_eq!(run("without_landlock", "enter"), Answered(1));
        }),
    ));
    tests.push(("an_abort_is_one".to_owned(), Box::new(|| assert_eq!(run("strict", "abort"), Killed(libc::SIGABRT)))));
    tests.push(("a_node_that_cannot_be_strict_says_why_and_ends".to_owned(), Box::new(node_says_why)));
    tests.push(("a_node_without_landlock_runs_where_that_is_asked_for".to_owned(), Box::new(node_goes_on)));
    let mut failed = 0;
    let mut passed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(wanted)) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err() {
            println!("test {name} ... FAILED");
            failed += 1;
        } else {
            passed += 1;
        }
    }
    println!("sandbox: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Makes an attempt in a process of its own.
fn run(way: &str, name: &str) -> End {
    let mut child = Command::new(env::current_exe().expect("a path"))
        .args(["try", way, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("{way} {name} hangs");
        }
        thread::yield_now();
    };
    let (mut said, mut errors) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    if let Some(signal) = status.signal() {
        return Killed(signal);
    }
    let Ok(answer) = said.trim().parse() else {
        assert!(said.is_empty() && errors.is_empty(), "{way} {name}: {said} {errors}");
        return End::Replaced;
    };
    let names = errors.lines().filter(|line| line.starts_with("the sandbox does not know system call ")).count();
    assert_eq!(names, errors.lines().count(), "{way} {name} says something else: {errors}");
    match (answer, names) {
        (libc::ENOSYS, 1) => Unlisted,
        (answer, 0) => Answered(answer),
        _ => panic!("{way} {name}: {answer}, {errors}"),
    }
}

/// In the process of its own: locks it down, tries, and says what was answered.
fn attempt(way: &str, name: &str) -> ExitCode {
    if way == "without_landlock" {
        hide(444..=446);
    }
    PARENT.get_or_init(|| std::os::unix::process::parent_id().into());
    let level = if way == "off" { Level::Off } else { Level::Strict };
    let lock = Lock::prepare(level, MEMORY);
    if name == "enter" {
        let entered = lock.enter();
        assert!(matches!(entered, Ok(Sandbox::Strict { landlock: true }) | Err(Lacking::Landlock)), "{entered:?}");
        println!("{}", i32::from(entered.is_err()));
        return ExitCode::SUCCESS;
    }
    let expected = match way {
        "off" => Sandbox::Off,
        way => Sandbox::Strict { landlock: way == "strict" },
    };
    assert_eq!(lock.give_up(), Ok(expected));
    if name == "abort" {
        std::process::abort();
    }
    let refused = REFUSED.iter().map(|(name, attempt, _)| (*name, *attempt));
    let known: BTreeMap<_, _> = refused.chain(ALLOWED.iter().copied()).collect();
    let answer = known.get(name).expect("known")();
    let answer = if answer == -1 { io::Error::last_os_error().raw_os_error().expect("an error") } else { 0 };
    println!("{answer}");
    ExitCode::SUCCESS
}

/// Answers ENOSYS to these calls from now on, in this process and its children.
fn hide(calls: std::ops::RangeInclusive<i64>) {
    let rules = calls.map(|call| (call, Vec::new())).collect();
    let arch = TargetArch::try_from(env::consts::ARCH).expect("supported");
    let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, enosys, arch).expect("sound");
    let program: BpfProgram = filter.try_into().expect("sound");
    seccompiler::apply_filter(&program).expect("seccomp");
}

/// A node for which so many calls from this one on do not exist.
fn node(first: i64, count: i64, flags: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("a path"));
    command
        .args(["hide", &first.to_string(), &count.to_string(), env!("CARGO_BIN_EXE_xora-node")])
        .args(["--edge", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
        .args(flags)
        .env("XORA_NODE_TOKEN", "nte_test")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn node_says_why() {
    for (first, count, reason) in [(444, 3, "Landlock"), (libc::SYS_seccomp, 1, "seccomp")] {
        let mut child = node(first, count, &[]).spawn().expect("started");
        let mut log = String::new();
        // It ends by itself.
        child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
        assert_eq!(child.wait().expect("a child").code(), Some(3), "{log}");
        let why = log.lines().find(|line| line.contains("ERROR")).expect("a reason");
        assert!(why.contains(reason) && why.contains("--sandbox=basic"), "{log}");
    }
}

fn node_goes_on() {
    let mut child = node(444, 3, &["--sandbox=basic"]).spawn().expect("started");
    let mut log = io::BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    while !seen.contains("listening on") && io::BufRead::read_line(&mut log, &mut seen).expect("text") > 0 {}
    let _ = child.kill();
    let _ = child.wait();
    assert!(seen.contains("listening on"), "{seen}");
    assert!(seen.contains("WARN") && seen.contains("not isolated (--sandbox=basic)"), "{seen}");
}

fn own() -> c_long {
    std::process::id().into()
}

/// The process that started this one, of the same user.
fn parent() -> c_long {
    PARENT.get().copied().unwrap_or_default()
}

/// A signal that is none.
fn kill(process: c_long) -> c_long {
    unsafe { libc::syscall(libc::SYS_kill, process, 0) }
}

fn open(path: &std::ffi::CStr) -> c_long {
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY) }
}

fn socket(family: i32, kind: i32) -> c_long {
    unsafe { libc::syscall(libc::SYS_socket, family, kind, 0) }
}

fn execve() -> c_long {
    let (arguments, environment) = ([c"true".as_ptr(), std::ptr::null()], [std::ptr::null::<u8>()]);
    unsafe { libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), arguments.as_ptr(), environment.as_ptr()) }
}

/// The child, where there is one, is gone at once.
fn fork(flags: i32) -> c_long {
    match unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags | libc::SIGCHLD), 0, 0, 0, 0) } {
        0 => unsafe { libc::_exit(0) },
        child => child,
    }
}

/// Sets what holds already, or asks for it.
fn affinity(call: c_long, process: c_long) -> c_long {
    let mut set = [0_u64; 16];
    unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&set), set.as_mut_ptr()) };
    unsafe { libc::syscall(call, process, size_of_val(&set), set.as_mut_ptr()) }
}

fn scheduler(process: c_long) -> c_long {
    let parameters = 0_i32;
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, process, libc::SCHED_OTHER, &raw const parameters) }
}

fn limits(process: c_long) -> c_long {
    let limit = [100_u64; 2];
    unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            process,
            libc::RLIMIT_NOFILE,
            if process == 0 { limit.as_ptr() } else { std::ptr::null() },
            0,
        )
    }
}

fn prctl(option: i32, value: i32) -> c_long {
    prctl_raw(option.into(), value.into())
}

fn prctl_raw(option: c_long, value: c_long) -> c_long {
    unsafe { libc::syscall(libc::SYS_prctl, option, value, 0, 0, 0) }
}

fn map(protection: i32) -> c_long {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    unsafe { libc::syscall(libc::SYS_mmap, 0, 4096_usize, protection, flags, -1, 0_usize) }
}

fn protect() -> c_long {
    let page = map(libc::PROT_READ | libc::PROT_WRITE);
    unsafe { libc::syscall(libc::SYS_mprotect, page, 4096_usize, libc::PROT_READ | libc::PROT_EXEC) }
}
