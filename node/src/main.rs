//! The native node of Xora: leases tasks from an edge, has them done in job processes, and answers for the results.
//!
//! Three programs in one binary. The supervisor ([`worker`] and what it uses) holds network and credentials and never
//! calls libav. The [`zygote`] forks job processes. A job process ([`job`]) calls libav and has nothing else; it speaks
//! [`ipc`] over a socket.

mod attempt;
mod board;
mod bounds;
mod classify;
mod config;
mod conversation;
mod digest;
mod edge;
mod encoders;
mod health;
mod ipc;
mod job;
mod memory;
mod output;
mod process;
mod refused;
mod secret;
mod share;
mod source;
mod stage;
mod stop;
mod tell;
mod tried;
mod wake;
mod worker;
mod zygote;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Cli, Command, Config},
    job::lockdown::Level,
    process::Launcher,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => start_log(),
        // Nothing has started a thread yet, and nothing may.
        Command::Zygote => return zygote::run(cli.raw.sandbox, cli.raw.max_job_memory_bytes),
    }
    secret::overwrite("XORA_NODE_TOKEN");
    // Whoever runs it without a sandbox looks for a fault.
    if cli.raw.sandbox != Level::Off {
        secret::keep_out();
    }
    let config = match Config::convert(cli.raw) {
        Ok(config) => config,
        Err(error) => {
            error!("{error}");
            return ExitCode::from(2);
        }
    };
    // Loads libav while we connect.
    match Launcher::start(config.sandbox, config.max_job_memory).and_then(|launcher| run(config, launcher)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            // Whoever starts the node may then decide to go on without a sandbox.
            if error.kind() == std::io::ErrorKind::Unsupported { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn run(config: Config, launcher: Launcher) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(worker::run(config, launcher));
    // Reads of the file system may hang on a dead disk; the work is given back already.
    runtime.shutdown_background();
    result
}

fn start_log() {
    let filter = EnvFilter::try_from_env("XORA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
