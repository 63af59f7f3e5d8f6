//! Keeping what is read: while a job process works through an input, a copy goes to storage behind it, and whoever
//! works on the job next reads that. A second reader of the same source does it, close enough behind the first (or
//! before it) that what it reads is in the source's cache, so the origin is asked once. It is never waited for by a job
//! that goes well, and what becomes of it is nobody's failure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::header::CONTENT_LENGTH;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::info;
use xora_shared::protocol::{InputBegin, InputFinish, Lease, MAX_INPUT_PARTS, PartDone, PartTarget};

use crate::{
    attempt::Node,
    conversation::FEW,
    output::{StorageFault, etag, retry},
    source::Source,
};

/// A job that is over by then could not have used a copy.
const BEGIN: Duration = Duration::from_secs(2);
/// How far before the job process a copy may be, in bytes: what it reads must still be held when the process comes
/// there.
const AHEAD: u64 = 2 << 20;
/// Bytes read at a time.
const BLOCK: u64 = 1 << 20;
/// How often it looks whether the job process has gone on.
const LOOK: Duration = Duration::from_millis(100);
/// How long a failed attempt waits for a copy of what it has read whole.
const FINISH: Duration = Duration::from_secs(10);
/// Smallest part, in bytes.
const SMALLEST: u64 = 8 << 20;

/// The copies that are being made of one job's inputs. Dropping it ends them.
#[derive(Default)]
pub struct Staging(JoinSet<()>);

impl Staging {
    /// Begins to copy what comes from elsewhere, unless that has begun before.
    pub fn begin(&mut self, node: &Arc<Node>, lease: &Lease, sources: &Arc<Vec<Source>>) {
        if !self.0.is_empty() {
            return;
        }
        let (node, lease, sources) = (Arc::clone(node), lease.clone(), Arc::clone(sources));
        self.0.spawn(async move {
            sleep(BEGIN).await;
            let job = lease.job_id;
            // One after the other, as they are worked through: each holds memory meanwhile.
            for (index, _) in (0_u32..).zip(&lease.inputs).filter(|(_, input)| !input.ours) {
                let copied = copy(&node, &lease, index, &sources[index as usize]).await;
                if sources.len() > FEW {
                    sources[index as usize].forget();
                }
                let word = if copied.is_ok() { "kept for later attempts" } else { "not kept" };
                info!(%job, input = index, "input {word}");
            }
        });
    }

    /// Waits a while for what has been read whole.
    pub async fn finish(mut self) {
        let _ = timeout(FINISH, async { while self.0.join_next().await.is_some() {} }).await;
    }
}

async fn copy(node: &Node, lease: &Lease, input: u32, source: &Source) -> Result<(), ()> {
    let size = source.size().filter(|size| *size > 0).ok_or(())?;
    let part_size = size.div_ceil(MAX_INPUT_PARTS.into()).next_multiple_of(BLOCK).max(SMALLEST);
    let parts = u32::try_from(size.div_ceil(part_size)).map_err(drop)?;
    let begin = InputBegin { hold: lease.hold.clone(), input, parts };
    let begun = retry(|| node.edge.begin_input(&begin)).await.map_err(drop)?;
    let mut done = Vec::new();
    for (target, start) in begun.targets.iter().zip((0..size).step_by(usize::try_from(part_size).map_err(drop)?)) {
        let bytes = read(source, start, part_size.min(size - start)).await?;
        done.push(PartDone { number: target.number, etag: send(node, target, bytes).await.map_err(drop)? });
    }
    let finish = InputFinish { hold: lease.hold.clone(), input, bytes: size, parts: done };
    retry(|| node.edge.finish_input(&finish)).await.map_err(drop)
}

/// Reads one part as the job process goes on.
async fn read(source: &Source, start: u64, length: u64) -> Result<Bytes, ()> {
    let mut part = Vec::with_capacity(usize::try_from(length).map_err(drop)?);
    while (part.len() as u64) < length {
        let at = start + part.len() as u64;
        let wanted = BLOCK.min(length - part.len() as u64);
        while at + wanted > source.followed().saturating_add(AHEAD) {
            // The rest of it is not needed.
            if source.is_read_in_places() {
                return Err(());
            }
            sleep(LOOK).await;
        }
        let read = source.read_after(at, wanted).await.map_err(drop)?;
        if read.is_empty() {
            return Err(());
        }
        part.extend(read);
    }
    Ok(part.into())
}

/// Sends one part, with one more try. Gives the `ETag`.
async fn send(node: &Node, target: &PartTarget, bytes: Bytes) -> Result<String, StorageFault> {
    match put(node, target, bytes.clone()).await {
        Err(StorageFault::Unavailable) => {
            sleep(Duration::from_secs(1)).await;
            put(node, target, bytes).await
        }
        other => other,
    }
}

async fn put(node: &Node, target: &PartTarget, bytes: Bytes) -> Result<String, StorageFault> {
    // Slower than 64 KiB/s is no connection.
    let within = Duration::from_secs(30 + bytes.len() as u64 / (64 << 10));
    let mut request = node.storage.put(&target.url).timeout(within).header(CONTENT_LENGTH, bytes.len());
    for (name, value) in target.headers.iter() {
        request = request.header(name, value);
    }
    let response = request.body(bytes).send().await.map_err(|_| StorageFault::Unavailable)?;
    match response.status() {
        status if status.is_success() => etag(&response).ok_or(StorageFault::Unavailable),
        status if status.is_server_error() => Err(StorageFault::Unavailable),
        status => Err(StorageFault::Refused(status.as_u16())),
    }
}
