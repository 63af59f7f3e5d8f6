//! What a job process gives up before it sees a byte of the input.
//!
//! Limits always; where the kernel has them also Landlock (no file, no socket) and system call filters (what decoding
//! and encoding need, and nothing else). The supervisor is told which it became.

use std::{collections::BTreeMap, io};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Address space at the least, in bytes, as not all of it becomes memory: 720p takes 0.7 GB, 2160p with frame threads
/// about 3.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Address space beyond the memory that is allowed, in bytes: of 8K, one GiB is claimed and not used. So the supervisor
/// sees when memory is over its limit, before libraries fail for want of it without saying so.
const BEYOND: u64 = 2 << 30;
/// Open files: the socket, the standard ones, and a few that libraries open while they load.
const FILES: u64 = 32;

/// How much is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Everything that the kernel has: limits, system call filters, Landlock.
    Strict,
    /// Limits only.
    Basic,
    /// Nothing. For debugging.
    Off,
}

impl Level {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Basic => "basic",
            Self::Off => "off",
        }
    }
}

/// How much was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Nothing.
    Off,
    /// Limits only.
    Basic,
    /// Limits, system call filters, and Landlock where `landlock` says so.
    Strict {
        /// Whether the kernel holds files and sockets back by itself, too.
        landlock: bool,
    },
}

/// What does not change from one job process to the next, made once.
pub struct Lock {
    level: Level,
    /// Address space, in bytes.
    space: u64,
    /// None where this processor has none.
    filters: Option<Vec<BpfProgram>>,
}

impl Lock {
    /// Compiles the filters, for processes that may have this much memory, in bytes.
    pub fn prepare(level: Level, memory: u64) -> Self {
        let space = memory.saturating_add(BEYOND).max(ADDRESS_SPACE);
        Self { level, space, filters: filters().ok().filter(|_| level == Level::Strict) }
    }

    /// Limits this process for good. Must run before any thread is started.
    pub fn enter(&self) -> io::Result<Sandbox> {
        match self.level {
            Level::Off => return Ok(Sandbox::Off),
            Level::Basic | Level::Strict => limit(self.space)?,
        }
        let Some(filters) = &self.filters else { return Ok(Sandbox::Basic) };
        // The one that forbids further filters comes last.
        let landlock = forbid_files();
        for filter in filters {
            if seccompiler::apply_filter(filter).is_err() {
                return Ok(Sandbox::Basic);
            }
        }
        Ok(Sandbox::Strict { landlock })
    }
}

fn limit(space: u64) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    for (resource, most) in [
        (Resource::As, space),
        (Resource::Core, 0),
        // Pipes and sockets do not count.
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// A Landlock domain without a single rule: whatever it handles is denied. False where the kernel has none.
fn forbid_files() -> bool {
    // The crate leaves out what the kernel is too old for.
    let domain = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    domain.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// Three filters, because one has a single answer for what it names; the strictest answer of all counts.
fn filters() -> Built<Vec<BpfProgram>> {
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    Ok(vec![
        // glibc then falls back to `clone`, whose flags a filter can see.
        filter(numbers(&[libc::SYS_clone3]), SeccompAction::Allow, errno(libc::ENOSYS))?,
        filter(refused()?, SeccompAction::Allow, errno(libc::EACCES))?,
        filter(allowed()?, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}

fn filter(rules: Rules, otherwise: SeccompAction, named: SeccompAction) -> Built<BpfProgram> {
    SeccompFilter::new(rules, otherwise, named, TargetArch::try_from(std::env::consts::ARCH)?)?.try_into()
}

fn numbers(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Calls that find an argument's masked bits equal to `value`.
fn when(argument: u8, mask: u64, value: u64) -> Built<Vec<SeccompRule>> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// Answered with "access denied": libraries try these and live without. Memory that is to be executed is among them.
fn refused() -> Built<Rules> {
    let mut rules = numbers(FILE_CALLS);
    let exec = libc::PROT_EXEC.unsigned_abs().into();
    rules.insert(libc::SYS_mmap, when(2, exec, exec)?);
    rules.insert(libc::SYS_mprotect, when(2, exec, exec)?);
    Ok(rules)
}

/// All that does not kill: what decoding and encoding were seen to need, and what is answered with an error.
fn allowed() -> Built<Rules> {
    let mut rules = numbers(CALLS);
    rules.extend(numbers(FILE_CALLS));
    let thread = (libc::CLONE_THREAD | libc::CLONE_VM).unsigned_abs().into();
    rules.insert(libc::SYS_clone, when(0, thread, thread)?);
    // Debug builds of Rust ask whether a descriptor is open before they close it.
    rules.insert(libc::SYS_fcntl, when(1, u32::MAX.into(), libc::F_GETFD.unsigned_abs().into())?);
    Ok(rules)
}

const FILE_CALLS: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

const CALLS: &[i64] = &[
    // The socket and the standard streams.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads; `clone` has a condition of its own.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_prctl,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to itself, so that an abort is one.
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Clocks and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Harmless questions.
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // x265 asks where its memory is; SVT-AV1 who it is, and for a higher priority.
    libc::SYS_get_mempolicy,
    libc::SYS_geteuid,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setaffinity,
];
