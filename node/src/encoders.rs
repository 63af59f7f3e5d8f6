//! What this node can encode, found out at its start by encoding a little with each encoder. That takes libav, so job
//! processes do it.

use std::{io, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};
use tracing::warn;

use crate::{
    config::Config,
    ipc::{Assignment, FromJob, ToJob, Up, Work},
    job::encoders::{FILTERS, SOFTWARE, TRIALS},
    process::{Launcher, message},
};

/// How long one process may take: a set of encoders took 10 s on two cores that ten compilers shared.
const PATIENCE: Duration = Duration::from_mins(1);

/// Names of the encoders that work. Warns of those that do not: jobs that need them are given back to other nodes. Fails
/// where libav lacks what no recipe can do without.
pub async fn find(launcher: &Launcher, config: &Config) -> io::Result<Vec<String>> {
    let missing = ask(launcher, config, Work::FindFilters { names: owned(&FILTERS) }, |up| {
        if let Up::NoFilters(missing) = up { Some(missing) } else { None }
    });
    match missing.await {
        Ok(missing) if !missing.is_empty() => {
            let missing = missing.join(", ");
            return Err(io::Error::other(format!(
                "this node's libav lacks filters that every recipe needs ({missing}); install a complete build of FFmpeg's \
                 libraries"
            )));
        }
        Ok(_) => {}
        Err(error) => warn!("cannot find out which filters libav has: {error}"),
    }
    let trial = async |names: Vec<String>| {
        let found = ask(launcher, config, Work::TryEncoders { names }, |up| {
            if let Up::Encoders(found) = up { Some(found) } else { None }
        });
        found.await
    };
    let mut found = Vec::new();
    for names in TRIALS {
        found.extend(try_all(names, trial).await);
    }
    for name in SOFTWARE.iter().filter(|name| !found.iter().any(|found| found == *name)) {
        warn!(
            "the encoder {name} of libav is missing or does not work; jobs that need it are given back to other nodes"
        );
    }
    for name in config.hardware.iter().filter(|name| !found.contains(name)) {
        warn!("--hardware allows {name}, which does not open here; pictures are encoded in software");
    }
    Ok(found)
}

/// Tries a set of encoders in one process; if that dies, each in a process of its own: one that crashes must not take the
/// others with it.
async fn try_all(names: &[&str], trial: impl AsyncFn(Vec<String>) -> io::Result<Vec<String>>) -> Vec<String> {
    if let Ok(found) = trial(owned(names)).await {
        return found;
    }
    let mut found = Vec::new();
    for name in names {
        found.extend(trial(owned(&[name])).await.unwrap_or_default());
    }
    found
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Has a process of its own do a piece of work that reads and writes nothing, and waits for the answer.
async fn ask<T>(launcher: &Launcher, config: &Config, work: Work, answer: impl Fn(Up) -> Option<T>) -> io::Result<T> {
    let asking = async {
        let (_process, mut stream) = launcher.start_job("encoders").await?;
        let assignment = Assignment { work, limits: config.limits.clone(), threads: 1, hardware: Vec::new() };
        stream.write_all(&ToJob::Assignment(Box::new(assignment)).to_frame()?).await?;
        loop {
            match message(&mut stream).await? {
                // What libav has to say of hardware that is not there is of no interest.
                FromJob::Message(Up::Locked(Ok(_)) | Up::Log(_)) => {}
                FromJob::Message(up) => return answer(up).ok_or_else(|| io::ErrorKind::InvalidData.into()),
                FromJob::Read { .. } | FromJob::Part { .. } => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    };
    timeout(PATIENCE, asking).await?
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn an_encoder_that_takes_its_process_with_it_does_not_take_the_others() {
        let asked = RefCell::new(Vec::new());
        let trial = async |names: Vec<String>| {
            asked.borrow_mut().push(names.join("+"));
            if names.iter().any(|name| name == "crashes") {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(names)
            }
        };
        assert_eq!(try_all(&["one", "crashes", "other"], trial).await, ["one", "other"]);
        assert_eq!(asked.take(), ["one+crashes+other", "one", "crashes", "other"]);
        assert_eq!(try_all(&["one", "other"], trial).await, ["one", "other"]);
        assert_eq!(asked.take(), ["one+other"], "one process where all goes well");
    }
}
