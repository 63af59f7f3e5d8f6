//! What the operator chose. [`RawConfig`] is read from flags and environment, [`Config`] is what the rest gets.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use url::Url;
use xora_shared::net::Policy;

use crate::{
    ipc::Limits,
    job::{encoders::is_hardware, lockdown::Level},
    memory::{Capacity, Memory},
};

/// The native node of Xora.
#[derive(Debug, Parser)]
#[command(name = "xora-node", version, about)]
pub struct Cli {
    /// What to do; `run` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How.
    #[command(flatten)]
    pub raw: RawConfig,
}

/// What to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Takes tasks from the edge until told to stop.
    Run,
    /// What job processes are forked from; started by the node itself.
    #[command(hide = true)]
    Zygote,
}

/// Flags and environment, as they were given.
#[derive(Debug, Args)]
pub struct RawConfig {
    /// URL of the edge.
    #[arg(long, env = "XORA_EDGE", default_value = "http://127.0.0.1:8787", global = true)]
    edge: String,
    /// API key with the scope `node`. Better given by the environment, where other users cannot see it.
    #[arg(long, env = "XORA_NODE_TOKEN", hide_env_values = true, default_value = "", global = true)]
    token: String,
    /// Name of this node, shown in attempts. Default: the host's name and four random letters.
    #[arg(long, env = "XORA_NODE_NAME", global = true)]
    name: Option<String>,
    /// Where `GET /healthz`, `/readyz` and `/livez` listen. Port 0 takes a free one.
    #[arg(long, env = "XORA_NODE_LISTEN", default_value = "127.0.0.1:9401", global = true)]
    listen: SocketAddr,
    /// Tasks at a time, those that encode pictures among them. Default: beside the encodes one for every core, at least
    /// 4, because cheap work mostly waits for the network; fewer where memory is short.
    #[arg(long, env = "XORA_NODE_SLOTS", global = true)]
    slots: Option<u32>,
    /// Tasks at a time that encode moving pictures. Default: one for every 8 cores, at least 1.
    #[arg(long, env = "XORA_NODE_ENCODES", global = true)]
    encodes: Option<u32>,
    /// Threads that the decoder and encoder of one task may use. Default: all cores, shared out among the encodes.
    #[arg(long, env = "XORA_NODE_THREADS", global = true)]
    threads: Option<u32>,
    /// Hardware encoders that may be used, by libav's names, such as h264_nvenc; the first that opens is, else
    /// software. They need device files, which job processes have under `--sandbox=basic` only.
    #[arg(long, env = "XORA_HARDWARE", value_delimiter = ',', global = true)]
    hardware: Vec<String>,
    /// Permit http and loopback addresses as inputs. For development and tests only.
    #[arg(long, env = "ALLOW_LOOPBACK", value_parser = clap::builder::BoolishValueParser::new(),
          num_args = 0..=1, default_value = "false", default_missing_value = "true", global = true)]
    allow_loopback: bool,
    /// Longest input, in seconds.
    #[arg(long, env = "XORA_MAX_DURATION_SECONDS", default_value_t = 6 * 3600, global = true)]
    max_duration_seconds: u64,
    /// Most pixels of one picture.
    #[arg(long, env = "XORA_MAX_PIXELS", default_value_t = 8192 * 4320, global = true)]
    max_pixels: u64,
    /// Most streams of one input; attachments, such as fonts, do not count.
    #[arg(long, env = "XORA_MAX_STREAMS", default_value_t = 64, global = true)]
    max_streams: u32,
    /// Most pictures of one input. Default: six hours of 240 a second.
    #[arg(long, env = "XORA_MAX_PICTURES", default_value_t = 6 * 3600 * 240, global = true)]
    max_pictures: u64,
    /// Most bytes of one input.
    #[arg(long, env = "XORA_MAX_INPUT_BYTES", default_value_t = 64 << 30, global = true)]
    max_input_bytes: u64,
    /// Most bytes of one output.
    #[arg(long, env = "XORA_MAX_OUTPUT_BYTES", default_value_t = 64 << 30, global = true)]
    max_output_bytes: u64,
    /// Most resident memory of one job process, in bytes. Default: 4 GiB, or less where the machine or its control group
    /// has not that much for each encode.
    #[arg(long, env = "XORA_MAX_JOB_MEMORY_BYTES", global = true)]
    pub max_job_memory_bytes: Option<u64>,
    /// Longest time of one attempt, as a multiple of the media time done; waiting for the origin does not count.
    #[arg(long, env = "XORA_MAX_WALL_FACTOR", default_value_t = 30, global = true)]
    max_wall_factor: u32,
    /// Longest time of one attempt whatever it does, in seconds, waiting for the origin included.
    #[arg(long, env = "XORA_MAX_ATTEMPT_SECONDS", default_value_t = 24 * 3600, global = true)]
    max_attempt_seconds: u64,
    /// Most CPU time of one job process, as a multiple of the media time done.
    #[arg(long, env = "XORA_MAX_CPU_FACTOR", default_value_t = 120, global = true)]
    max_cpu_factor: u32,
    /// Most CPU time of one job process until its inputs are open, in seconds for each of them.
    #[arg(long, env = "XORA_MAX_OPEN_SECONDS", default_value_t = 60, global = true)]
    max_open_seconds: u64,
    /// What every attempt gets on top of both factors, in seconds.
    #[arg(long, env = "XORA_GRACE_SECONDS", default_value_t = 600, global = true)]
    grace_seconds: u64,
    /// Where inputs go whose origin cannot serve ranges. Default: the system's directory for temporary files, or /var/tmp
    /// where that is kept in memory.
    #[arg(long, env = "XORA_SPOOL_DIR", global = true)]
    spool_dir: Option<PathBuf>,
    /// Most bytes of all such inputs together. A twentieth of the disk is left free besides.
    #[arg(long, env = "XORA_SPOOL_BYTES", default_value_t = 16 << 30, global = true)]
    spool_bytes: u64,
    /// What job processes give up: files, sockets, other processes and all system calls that they do not need (`strict`,
    /// which takes Landlock and seccomp; a node that cannot have them does not start), or only resources beyond their
    /// limits, or nothing.
    #[arg(long, env = "XORA_SANDBOX", value_enum, default_value_t = Level::Strict, global = true)]
    pub sandbox: Level,
    /// How long running tasks may go on after SIGTERM before they are given back, in seconds.
    #[arg(long, env = "XORA_DRAIN_SECONDS", default_value_t = 20, global = true)]
    drain_seconds: u64,
}

/// How many threads an encoder of full HD still makes good use of.
const CORES_PER_ENCODE: usize = 8;

/// What holds for one node, checked.
#[derive(Debug)]
pub struct Config {
    /// The edge, ending in a slash.
    pub edge: Url,
    /// The API key. Secret.
    pub token: Secret,
    /// Name of this node.
    pub name: String,
    /// Where health is answered.
    pub listen: SocketAddr,
    /// Tasks at a time.
    pub slots: usize,
    /// Tasks at a time that encode moving pictures.
    pub encodes: usize,
    /// Threads of one task.
    pub threads: usize,
    /// Hardware encoders that may be used.
    pub hardware: Vec<String>,
    /// What inputs may point to.
    pub policy: Policy,
    /// Caps that the job process holds.
    pub limits: Limits,
    /// Most bytes of one input.
    pub max_input_bytes: u64,
    /// Most resident memory of one job process, in bytes.
    pub max_job_memory: u64,
    /// The memory that there is, as far as it could be found out.
    pub memory: Option<Memory>,
    /// See [`RawConfig::max_wall_factor`].
    pub wall_factor: u32,
    /// See [`RawConfig::max_attempt_seconds`].
    pub longest: Duration,
    /// What job processes give up.
    pub sandbox: Level,
    /// See [`RawConfig::max_cpu_factor`].
    pub cpu_factor: u32,
    /// See [`RawConfig::max_open_seconds`].
    pub open: Duration,
    /// See [`RawConfig::grace_seconds`].
    pub grace: Duration,
    /// Where inputs are spooled.
    pub spool_dir: PathBuf,
    /// Most bytes spooled at a time.
    pub spool_bytes: u64,
    /// How long a drain waits.
    pub drain: Duration,
}

/// Text that never shows in a log.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is wrong with the configuration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// The edge's URL.
    #[error("--edge must be an http or https URL, such as https://xora.example.com")]
    Edge,
    /// No key.
    #[error("set XORA_NODE_TOKEN to an API key with the scope `node`; `POST /v1/tokens` makes one")]
    Token,
    /// A name that is no hardware encoder's.
    #[error("--hardware: {0} is not a hardware encoder of H.264 or HEVC; they are named like h264_nvenc or hevc_qsv")]
    Hardware(String),
    /// No slots, encodes or threads.
    #[error("--slots, --encodes and --threads must be at least 1")]
    Slots,
}

impl Config {
    /// Checks what was given and fills in what was not.
    pub fn convert(raw: RawConfig) -> Result<Self, BadConfig> {
        let RawConfig {
            edge,
            token,
            name,
            listen,
            slots,
            encodes,
            threads,
            hardware,
            allow_loopback,
            max_duration_seconds,
            max_pixels,
            max_streams,
            max_pictures,
            max_input_bytes,
            max_output_bytes,
            max_job_memory_bytes,
            max_wall_factor,
            max_attempt_seconds,
            sandbox,
            max_cpu_factor,
            max_open_seconds,
            grace_seconds,
            spool_dir,
            spool_bytes,
            drain_seconds,
        } = raw;
        let edge = Url::parse(&edge).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut edge = edge.ok_or(BadConfig::Edge)?;
        if !edge.path().ends_with('/') {
            edge.set_path(&format!("{}/", edge.path()));
        }
        let token = token.trim().to_owned();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadConfig::Token);
        }
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let encodes = encodes.map_or((cores / CORES_PER_ENCODE).max(1), |encodes| encodes as usize);
        let memory = Memory::found();
        let slots = slots.map(|slots| slots as usize);
        let Capacity { slots, encodes, job } = Capacity::of(memory, cores, encodes, slots, max_job_memory_bytes);
        let threads = threads.map_or(cores.div_ceil(encodes.max(1)), |threads| threads as usize);
        if let Some(name) = hardware.iter().find(|name| !is_hardware(name)) {
            return Err(BadConfig::Hardware(name.clone()));
        }
        if slots == 0 || encodes == 0 || threads == 0 {
            return Err(BadConfig::Slots);
        }
        Ok(Self {
            edge,
            token: Secret(token),
            name: name.filter(|name| !name.trim().is_empty()).unwrap_or_else(default_name),
            listen,
            slots,
            encodes,
            threads,
            hardware,
            policy: Policy { allow_loopback },
            limits: Limits {
                duration_seconds: max_duration_seconds,
                pixels: max_pixels,
                streams: max_streams,
                pictures: max_pictures,
                output_bytes: max_output_bytes,
            },
            max_input_bytes,
            max_job_memory: job,
            memory,
            wall_factor: max_wall_factor,
            longest: Duration::from_secs(max_attempt_seconds),
            sandbox,
            cpu_factor: max_cpu_factor,
            open: Duration::from_secs(max_open_seconds),
            grace: Duration::from_secs(grace_seconds),
            spool_dir: spool_dir.unwrap_or_else(|| on_disk(&[std::env::temp_dir(), "/var/tmp".into()], is_in_memory)),
            spool_bytes,
            drain: Duration::from_secs(drain_seconds),
        })
    }
}

/// The host's name and a random part: two nodes on one host are two nodes.
fn default_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    let tail: String = std::iter::repeat_with(fastrand::lowercase).take(4).collect();
    format!("{host}-{tail}")
}

/// The first of these directories that is there and not kept in memory, else the first.
fn on_disk(dirs: &[PathBuf; 2], is_in_memory: fn(&Path) -> Option<bool>) -> PathBuf {
    let found = dirs.iter().find(|dir| is_in_memory(dir) == Some(false));
    found.unwrap_or(&dirs[0]).clone()
}

/// Whether the file system of a directory is kept in memory; none where there is no such directory. The numbers are those
/// of `linux/magic.h`.
fn is_in_memory(dir: &Path) -> Option<bool> {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    Some([TMPFS, RAMFS].iter().any(|known| i128::from(kind) & 0xffff_ffff == i128::from(*known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, BadConfig> {
        let words = ["xora-node"].iter().chain(words);
        Config::convert(Cli::try_parse_from(words).expect("known flags").raw)
    }

    #[test]
    fn a_url_and_a_key_are_enough() {
        let config = parse(&["--edge", "https://xora.example.com", "--token", "nte_x"]).expect("good");
        assert_eq!(config.edge.as_str(), "https://xora.example.com/");
        assert!(config.slots > config.encodes, "there is room beside the encodes");
        assert!(!config.policy.allow_loopback);
        assert!(config.name.len() > 5);
    }

    #[test]
    fn a_missing_key_and_a_wrong_url_are_refused() {
        assert_eq!(parse(&["--token", ""]).err(), Some(BadConfig::Token));
        assert_eq!(parse(&["--token", "a", "--edge", "ftp://x/"]).err(), Some(BadConfig::Edge));
        assert_eq!(parse(&["--token", "a", "--hardware", "h264_nvenc,hevc_nvenc"]).expect("good").hardware.len(), 2);
        let odd = parse(&["--token", "a", "--hardware", "libx264"]).err();
        assert_eq!(odd, Some(BadConfig::Hardware("libx264".into())));
        for flag in ["--slots", "--encodes", "--threads"] {
            assert_eq!(parse(&["--token", "a", flag, "0"]).err(), Some(BadConfig::Slots), "{flag}");
        }
    }

    #[test]
    fn loopback_is_allowed_by_the_bare_flag_or_a_word() {
        for words in [&["--allow-loopback"][..], &["--allow-loopback=true"], &["run", "--allow-loopback", "true"]] {
            let words: Vec<_> = words.iter().chain(&["--token", "a"]).copied().collect();
            assert!(parse(&words).expect("good").policy.allow_loopback, "{words:?}");
        }
        assert!(!parse(&["--token", "a", "--allow-loopback=false"]).expect("good").policy.allow_loopback);
    }

    #[test]
    fn large_inputs_are_not_kept_in_memory_where_there_is_a_disk() {
        let dirs = || ["/tmp".into(), "/var/tmp".into()];
        assert_eq!(on_disk(&dirs(), |dir| Some(dir == Path::new("/tmp"))), Path::new("/var/tmp"));
        assert_eq!(on_disk(&dirs(), |_| Some(false)), Path::new("/tmp"));
        assert_eq!(on_disk(&dirs(), |_| Some(true)), Path::new("/tmp"));
        assert_eq!(on_disk(&dirs(), |dir| (dir == Path::new("/tmp")).then_some(true)), Path::new("/tmp"));
        assert_eq!(is_in_memory(Path::new("/nowhere")), None);
        if Path::new("/dev/shm").exists() {
            assert_eq!(is_in_memory(Path::new("/dev/shm")), Some(true));
        }
    }

    #[test]
    fn the_key_never_shows_in_a_log() {
        let config = parse(&["--token", "nte_verysecret"]).expect("good");
        assert!(!format!("{config:?}").contains("verysecret"));
    }
}
