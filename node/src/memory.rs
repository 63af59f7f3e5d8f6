//! How much memory this node may use, and what that allows it to do at a time.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Most memory of a job process where there is enough, in bytes: 2160p takes about 3 GB.
const JOB: u64 = 4 << 30;
/// Least memory of a job process where there is not, in bytes: 720p takes 0.7 GB.
const LEAST_JOB: u64 = 512 << 20;
/// What a job process takes that encodes no moving pictures, in bytes: 60 to 200 MB were seen.
const LIGHT: u64 = 256 << 20;
/// What is left to the supervisor, its buffers of parts, and the rest of the machine, in bytes; or an eighth, if that is more.
const RESERVED: u64 = 512 << 20;
/// Slots beside the encodes at the least, where memory allows: cheap work mostly waits for the network.
const FEW: usize = 4;

/// The memory that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In bytes.
    pub bytes: u64,
    /// Whether a cgroup sets the limit, and not the machine.
    pub by_cgroup: bool,
}

impl Memory {
    /// What the kernel says; none without /proc.
    pub fn found() -> Option<Self> {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text))?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = of_groups(&groups, |file| fs::read_to_string(file).ok()).filter(|limit| *limit < machine);
        Some(Self { bytes: limit.unwrap_or(machine), by_cgroup: limit.is_some() })
    }

    /// What job processes may take together.
    fn for_jobs(self) -> u64 {
        self.bytes.saturating_sub(RESERVED.max(self.bytes / 8))
    }
}

/// What a node does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tasks.
    pub slots: usize,
    /// Tasks that encode moving pictures.
    pub encodes: usize,
    /// Most resident memory of a job process, in bytes.
    pub job: u64,
}

impl Capacity {
    /// Fills in what the operator did not choose: as many slots beside the encodes as there are cores, unless that would
    /// take more than half of the memory, and what is left for the encodes.
    pub fn of(memory: Option<Memory>, cores: usize, encodes: usize, slots: Option<usize>, job: Option<u64>) -> Self {
        let wanted = cores.max(FEW);
        let light = memory.map_or(wanted, |memory| {
            let room = usize::try_from(memory.for_jobs() / 2 / LIGHT).unwrap_or(usize::MAX);
            wanted.min(room.max(1))
        });
        let slots = slots.unwrap_or(encodes + light);
        let job = job.unwrap_or_else(|| memory.map_or(JOB, |memory| share(memory, slots, encodes)));
        Self { slots, encodes, job }
    }

    /// Whether all of it at once may take more than there is.
    pub fn exceeds(&self, memory: Memory) -> bool {
        (self.encodes as u64).saturating_mul(self.job) > memory.for_jobs().max(LEAST_JOB)
    }
}

/// What an encode may take when the other slots have theirs, in bytes.
fn share(memory: Memory, slots: usize, encodes: usize) -> u64 {
    let light = (slots.saturating_sub(encodes) as u64).saturating_mul(LIGHT);
    (memory.for_jobs().saturating_sub(light) / encodes.max(1) as u64).clamp(LEAST_JOB, JOB)
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The lowest limit of the control groups that this process is in, of both versions, by what /proc/self/cgroup says.
fn of_groups(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut lowest = None::<u64>;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be one of the host's, which is not there; the root of the file system is its own.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let file = PathBuf::from(root).join(group).join(file);
            let limit = read(&file).and_then(|text| text.trim().parse().ok());
            lowest = lowest.into_iter().chain(limit).min();
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory(bytes: u64) -> Memory {
        Memory { bytes, by_cgroup: false }
    }

    #[test]
    fn a_node_promises_no_more_memory_than_there_is() {
        for (gib, cores, encodes, slots, job_mib) in [
            // A small virtual machine, which promised 20 GiB.
            (4, 2, 1, 5, 2560),
            (2, 2, 1, 4, 768),
            (8, 4, 1, 5, 4096),
            (64, 64, 8, 72, 4096),
            (16, 64, 8, 36, 896),
        ] {
            let found = memory(gib * GIB);
            let capacity = Capacity::of(Some(found), cores, encodes, None, None);
            assert_eq!(capacity, Capacity { slots, encodes, job: job_mib << 20 }, "{gib} GiB, {cores} cores");
            assert!(!capacity.exceeds(found), "{capacity:?}");
            let all = encodes as u64 * capacity.job + (slots - encodes) as u64 * LIGHT;
            assert!(all <= gib * GIB, "{capacity:?}");
        }
        assert_eq!(Capacity::of(None, 2, 1, None, None), Capacity { slots: 5, encodes: 1, job: JOB });
    }

    #[test]
    fn what_the_operator_chose_holds_and_is_known_to_be_too_much() {
        let capacity = Capacity::of(Some(memory(4 * GIB)), 2, 2, Some(3), Some(3 * GIB));
        assert_eq!(capacity, Capacity { slots: 3, encodes: 2, job: 3 * GIB });
        assert!(capacity.exceeds(Memory { bytes: 4 * GIB, by_cgroup: false }));
        assert_eq!(Capacity::of(Some(memory(4 * GIB)), 2, 2, Some(2), None).job, 1792 << 20);
    }

    #[test]
    fn the_lowest_limit_of_all_groups_counts() {
        assert_eq!(of_machine("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        let limit = |groups: &str, files: &[(&str, &str)]| {
            of_groups(groups, |file| {
                files.iter().find(|(path, _)| Path::new(path) == file).map(|(_, text)| (*text).to_owned())
            })
        };
        let pod = [
            ("/sys/fs/cgroup/pods/node/memory.max", "max\n"),
            ("/sys/fs/cgroup/pods/memory.max", "3000\n"),
            ("/sys/fs/cgroup/memory.max", "9000\n"),
        ];
        assert_eq!(limit("0::/pods/node\n", &pod), Some(3000));
        let old = [
            ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "5000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit("5:cpu:/\n4:hugetlb,memory:/docker/x\n0::/\n", &old), Some(5000));
        assert_eq!(limit("0::/\n", &[("/sys/fs/cgroup/memory.max", "max\n")]), None);
    }
}
