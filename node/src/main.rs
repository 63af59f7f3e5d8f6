//! The node.
#![allow(dead_code)]
mod ipc;
mod job;

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("job") => job::run(),
        _ => std::process::ExitCode::FAILURE,
    }
}
