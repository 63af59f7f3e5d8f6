//! What a job process gives up before it sees a byte of the input.
//!
//! Limits always; where the kernel has them also Landlock (no file, no socket) and system call filters (what decoding
//! and encoding need, and nothing else). The supervisor is told which it became.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::unlisted;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What [`Level::Strict`] needs and this machine does not have. The text is for the operator, with the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Lacking {
    /// `setrlimit` or `PR_SET_NO_NEW_PRIVS` failed.
    #[error(
        "a job process cannot set its resource limits: lower the hard limits of this process no further than 32 open files \
         and 6 GiB of address space (`ulimit -Hn`, `ulimit -Hv`)"
    )]
    Limits,
    /// No seccomp.
    #[error(
        "--sandbox=strict needs system call filters (seccomp), and a job process could not install them: they need x86_64 or \
         aarch64 and a kernel with CONFIG_SECCOMP_FILTER, and in a container a runtime that permits seccomp; to run without \
         isolation, on inputs that you trust, start with --sandbox=basic"
    )]
    Filters,
    /// No Landlock.
    #[error(
        "--sandbox=strict needs Landlock, and the kernel does not offer it: boot Linux 5.13 or later with `lsm=landlock` first \
         in its list of security modules, and in a container permit the three landlock_ system calls; to run without \
         isolation, on inputs that you trust, start with --sandbox=basic"
    )]
    Landlock,
}

/// What does not change from one job process to the next, made once.
pub struct Lock {
    level: Level,
    /// Address space, in bytes.
    space: u64,
    /// None where this processor has none.
    filters: Option<Filters>,
}

impl Lock {
    /// Compiles the filters, for processes that may have this much memory, in bytes.
    pub fn prepare(level: Level, memory: u64) -> Self {
        let space = memory.saturating_add(BEYOND).max(ADDRESS_SPACE);
        Self { level, space, filters: Filters::prepare().ok().filter(|_| level == Level::Strict) }
    }

    /// Limits this process for good, and fails where `level` cannot be had. Must run before any thread is started.
    pub fn enter(&self) -> Result<Sandbox, Lacking> {
        match self.give_up()? {
            Sandbox::Strict { landlock: false } => Err(Lacking::Landlock),
            entered @ (Sandbox::Off | Sandbox::Basic | Sandbox::Strict { landlock: true }) => Ok(entered),
        }
    }

    /// Gives up what the kernel can take, with or without Landlock.
    pub fn give_up(&self) -> Result<Sandbox, Lacking> {
        match self.level {
            Level::Off => Ok(Sandbox::Off),
            Level::Basic => {
                limit(self.space)?;
                Ok(Sandbox::Basic)
            }
            Level::Strict => {
                limit(self.space)?;
                let filters = self.filters.as_ref().ok_or(Lacking::Filters)?;
                // The last filter forbids what Landlock is set up with.
                let landlock = forbid_files();
                filters.apply()?;
                Ok(Sandbox::Strict { landlock })
            }
        }
    }
}

fn limit(space: u64) -> Result<(), Lacking> {
    rustix::thread::set_no_new_privs(true).map_err(|_| Lacking::Limits)?;
    for (resource, most) in [
        (Resource::As, space),
        (Resource::Core, 0),
        // Pipes and sockets do not count.
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(|_| Lacking::Limits)?;
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

/// One program for each answer, because a program has a single answer for the calls that it names. Of several answers the
/// kernel takes the strictest: kill, SIGSYS, an error, the call.
struct Filters {
    /// See [`LETHAL`], [`ABSENT`] and [`refused`].
    first: [BpfProgram; 3],
    /// All that is named nowhere raises SIGSYS, which [`unlisted`] answers. Installed last: it forbids further filters.
    last: BpfProgram,
}

impl Filters {
    fn prepare() -> Built<Self> {
        let lethal = filter(numbers(LETHAL), SeccompAction::Allow, SeccompAction::KillProcess)?;
        let absent = filter(numbers(ABSENT), SeccompAction::Allow, errno(libc::ENOSYS))?;
        let refused = filter(refused()?, SeccompAction::Allow, errno(libc::EACCES))?;
        Ok(Self { first: [lethal, absent, refused], last: filter(known(), SeccompAction::Trap, SeccompAction::Allow)? })
    }

    /// Installs the filters, and one more that knows the number of this process.
    fn apply(&self) -> Result<(), Lacking> {
        let own = others(std::process::id()).and_then(|rules| filter(rules, SeccompAction::Allow, errno(libc::EPERM)));
        let own = own.map_err(|_| Lacking::Filters)?;
        unlisted::answer().map_err(|_| Lacking::Filters)?;
        let mut all = self.first.iter().chain([&own, &self.last]);
        all.try_for_each(|filter| seccompiler::apply_filter(filter)).map_err(|_| Lacking::Filters)
    }
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn filter(rules: Rules, otherwise: SeccompAction, named: SeccompAction) -> Built<BpfProgram> {
    SeccompFilter::new(rules, otherwise, named, TargetArch::try_from(std::env::consts::ARCH)?)?.try_into()
}

fn numbers(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Calls whose argument has this bit. The kernel reads such flags as 64 bits.
fn with_bit(argument: u8, bit: u64) -> Built<Vec<SeccompRule>> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// Calls whose first argument is none of these. `length` is what the kernel reads of it: of an `int` the upper half of the
/// register is nothing, and whoever calls may have left anything there.
fn unless(argument: u8, length: &SeccompCmpArgLen, values: &[u64]) -> Built<Vec<SeccompRule>> {
    let differs = |value: &u64| SeccompCondition::new(argument, length.clone(), SeccompCmpOp::Ne, *value);
    Ok(vec![SeccompRule::new(values.iter().map(differs).collect::<Result<_, _>>()?)?])
}

/// Answered EACCES: libraries try these and live without. Memory that is to be executed is among them.
fn refused() -> Built<Rules> {
    let mut rules = numbers(FILE_CALLS);
    rules.extend(numbers(SOCKET_CALLS));
    let exec = libc::PROT_EXEC.unsigned_abs().into();
    rules.insert(libc::SYS_mmap, with_bit(2, exec)?);
    rules.insert(libc::SYS_mprotect, with_bit(2, exec)?);
    Ok(rules)
}

/// Answered EPERM: what would reach another process, and what would make one. `own` is the number of this process.
fn others(own: u32) -> Built<Rules> {
    let (int, long) = (SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword);
    let own = u64::from(own);
    let mut rules = numbers(PROCESS_CALLS);
    // abort() and raise() name the process. Numbers up to 0 are groups.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, unless(0, &int, &[own])?);
    }
    // 0 is the calling thread. Other threads have no need: that of x265 and SVT-AV1 for a priority is a wish.
    for call in SCHEDULING_CALLS {
        rules.insert(*call, unless(0, &int, &[0, own])?);
    }
    // Neither the death with the zygote nor being dumpable can be given up. `no_new_privs` is on already; the filters that
    // follow this one set it again.
    let prctls =
        [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_NO_NEW_PRIVS].map(|option| option.unsigned_abs().into());
    rules.insert(libc::SYS_prctl, unless(0, &int, &prctls)?);
    rules.insert(libc::SYS_clone, unless(0, &long, &THREADS)?);
    // Debug builds of Rust ask whether a descriptor is open before they close it.
    rules.insert(libc::SYS_fcntl, unless(1, &int, &[libc::F_GETFD.unsigned_abs().into()])?);
    Ok(rules)
}

/// All that has an answer: what decoding and encoding were seen to need, and what other filters name.
fn known() -> Rules {
    let mut rules = numbers(CALLS);
    for calls in [LETHAL, ABSENT, FILE_CALLS, SOCKET_CALLS, PROCESS_CALLS, SCHEDULING_CALLS] {
        rules.extend(numbers(calls));
    }
    rules
}

/// Flags of `clone` as glibc makes threads, and as musl does.
const THREADS: [u64; 2] = [0x003d_0f00, 0x007d_0f00];

/// Kill the process: no library makes these calls, and whoever does must not go on to try something else.
const LETHAL: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
];

/// Answered ENOSYS without a word. glibc then falls back to `clone`, whose flags a filter can see.
const ABSENT: &[i64] = &[libc::SYS_clone3];

const SOCKET_CALLS: &[i64] = &[libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_bind];

/// Answered EPERM whatever their arguments: `tkill` names a thread of any process.
const PROCESS_CALLS: &[i64] = &[
    libc::SYS_tkill,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// The first argument is a thread, or 0 for the one that calls.
const SCHEDULING_CALLS: &[i64] = &[
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setaffinity,
];

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
    libc::SYS_fcntl,
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
    // Threads; [`others`] looks at the arguments of `clone` and `prctl`.
    libc::SYS_clone,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_prctl,
    libc::SYS_sched_yield,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to itself, so that an abort is one; [`others`] looks at the process that is named.
    libc::SYS_tgkill,
    libc::SYS_kill,
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
    // x265 asks where its memory is, SVT-AV1 who it is.
    libc::SYS_get_mempolicy,
    libc::SYS_geteuid,
];
