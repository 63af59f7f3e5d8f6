//! What this node can encode, found out at its start by encoding a little with each encoder. That takes libav, so job
//! processes do it.

use std::{io, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};
use tracing::warn;

use crate::{
    config::Config,
    ipc::{Assignment, FromJob, ToJob, Up, Work},
    job::encoders::TRIALS,
    process::{Launcher, message},
};

/// How long one set of encoders may take: it took 10 s on two cores that ten compilers shared.
const PATIENCE: Duration = Duration::from_mins(1);

/// Names of the encoders that work. What is allowed and does not is warned of: jobs will go without it.
pub async fn find(launcher: &Launcher, config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for names in TRIALS {
        // A process that dies has shown that none of its set can be relied on.
        found.extend(
            timeout(PATIENCE, trial(launcher, config, names)).await.ok().and_then(Result::ok).unwrap_or_default(),
        );
    }
    for name in config.hardware.iter().filter(|name| !found.contains(name)) {
        warn!("--hardware allows {name}, which does not open here; pictures are encoded in software");
    }
    found
}

async fn trial(launcher: &Launcher, config: &Config, names: &[&str]) -> io::Result<Vec<String>> {
    let (_process, mut stream) = launcher.start_job("encoders").await?;
    let work = Work::TryEncoders { names: names.iter().map(|name| (*name).to_owned()).collect() };
    let assignment = Assignment { work, limits: config.limits.clone(), threads: 1, hardware: Vec::new() };
    stream.write_all(&ToJob::Assignment(Box::new(assignment)).to_frame()?).await?;
    loop {
        match message(&mut stream).await? {
            FromJob::Message(Up::Encoders(found)) => return Ok(found),
            // What libav has to say of hardware that is not there is of no interest.
            FromJob::Message(Up::Locked(Ok(_)) | Up::Log(_)) => {}
            FromJob::Message(_) | FromJob::Read { .. } | FromJob::Part { .. } => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
